//! Vectors that come one a line: cases of victory, decisions of the heuristic reference.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::json::{BoardText, Position};
use super::{Checked, Step, checked, compare, failed, unreadable};
use crate::config::{Config, Options, Seat};
use crate::moves::Move;
use crate::state::State;

fn field<'a>(value: &'a Value, name: &str) -> Step<&'a Value> {
    value.get(name).ok_or_else(|| unreadable(format!("field {name} is missing")))
}

fn optional<T: serde::de::DeserializeOwned>(value: &Value, name: &str) -> Step<Option<T>> {
    if value[name].is_null() { Ok(None) } else { read(value, name).map(Some) }
}

fn options(value: &Value) -> Step<Options> {
    Ok(optional(value, "options")?.unwrap_or_default())
}

fn read<T: serde::de::DeserializeOwned>(value: &Value, name: &str) -> Step<T> {
    serde_json::from_value(field(value, name)?.clone())
        .map_err(|error| unreadable(format!("field {name}: {error}")))
}

/// Name of a line; some have numbers.
fn name(value: &Value) -> String {
    value["id"].as_str().map_or_else(|| value["id"].to_string(), str::to_owned)
}

fn config(value: &Value) -> Step<Config> {
    let board: String = read(value, "board")?;
    let players: u8 = read(value, "players")?;
    format!("{board}_{players}p").parse().map_err(unreadable)
}

pub(super) fn victory(value: &Value) -> Checked {
    checked("victory_cases", &name(value), judge_victory(value))
}

fn judge_victory(value: &Value) -> Step<String> {
    let config = config(value)?;
    let last: u8 = read(value, "lastActor")?;
    let last = Seat::new(last)
        .filter(|seat| seat.number() <= config.players)
        .ok_or_else(|| unreadable(format!("lastActor: {last} is no seat of {config}")))?;
    let (hands, eliminated): (Vec<u16>, Vec<u16>) = (read(value, "h")?, read(value, "e")?);
    let board: BoardText = read(value, "position")?;
    let options = options(value)?;
    let position = Position::at_turn_start(last, &hands, &eliminated, board);
    let state = position.state(config, options).map_err(unreadable)?;
    let verdict = state.verdict(last);
    let expect = field(value, "expect")?;
    compare(&state, "over", &Some(verdict.is_some()), &expect["over"].as_bool())?;
    if let Some((winner, reason)) = verdict {
        compare(&state, "winner", &Some(u64::from(winner.number())), &expect["winner"].as_u64())?;
        compare(&state, "reason", &Some(reason.name()), &expect["reason"].as_str())?;
    }
    Ok(String::new())
}

/// A decision of the heuristic reference, with what is recorded of its numbers. The position offers exactly its moves.
///
/// The numbers are no business of the rules: whoever has a heuristic judges them.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The position, a seat to choose.
    pub state: State,
    /// Its value to the player to move.
    pub value: Option<f64>,
    /// The summands of the value, by name.
    pub features: BTreeMap<String, f64>,
    /// Each legal move with its value to the player to move, in the order of the sorted legal list.
    pub moves: Vec<(Move, f64)>,
    /// The moves that are as good as the best, in the same order.
    pub best: Option<Vec<Move>>,
}

/// Judges the numbers of a decision: what was compared, or the first difference.
pub type Judge<'a> = &'a dyn Fn(&Decision) -> Result<String, String>;

pub(super) fn heuristic(value: &Value, judge: Judge<'_>) -> Checked {
    let id = format!("{} after {}", name(value), value["after"]);
    let result = read_decision(value)
        .and_then(|decision| judge(&decision).map_err(|reason| failed(&decision.state, reason)));
    checked("heuristic_ref", &id, result)
}

fn read_decision(value: &Value) -> Step<Decision> {
    let config = config(value)?;
    let options = options(value)?;
    let position: Position = read(value, "state")?;
    let state = position.state(config, options).map_err(unreadable)?;
    let recorded: Vec<Value> = read(value, "moves")?;
    let texts: Vec<String> = recorded.iter().map(|mv| read(mv, "m")).collect::<Step<_>>()?;
    compare(&state, "legal moves", &state.legal_texts(), &texts)?;
    let parse = |text: &String| state.parse(text).map_err(unreadable);
    let mut moves = Vec::new();
    for (text, mv) in texts.iter().zip(&recorded) {
        moves.push((parse(text)?, read(mv, "value")?));
    }
    let best: Option<Vec<String>> = optional(value, "best")?;
    let best = match best {
        Some(texts) => Some(texts.iter().map(parse).collect::<Step<_>>()?),
        None => None,
    };
    let (features, value) = (optional(value, "features")?, optional(value, "value")?);
    Ok(Decision { state, value, features: features.unwrap_or_default(), moves, best })
}
