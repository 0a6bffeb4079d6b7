//! Vectors that come one a line: cases of victory, decisions of the heuristic reference.

use serde_json::Value;

use super::super::json::{BoardText, Position};
use super::{Checked, Step, checked, compare, not_applicable, unreadable};
use crate::config::{Config, Options, Seat};

fn field<'a>(value: &'a Value, name: &str) -> Step<&'a Value> {
    value.get(name).ok_or_else(|| unreadable(format!("field {name} is missing")))
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
    let options =
        if value["options"].is_object() { read(value, "options")? } else { Options::default() };
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

pub(super) fn heuristic(value: &Value) -> Checked {
    let id = format!("{} after {}", name(value), value["after"]);
    let result = judge_heuristic(value).and_then(|()| {
        Err(not_applicable(
            "its legal list agrees; its values need the reference heuristic, which is not built",
        ))
    });
    checked("heuristic_ref", &id, result)
}

fn judge_heuristic(value: &Value) -> Step<()> {
    let config = config(value)?;
    let options: Options = read(value, "options")?;
    let position: Position = read(value, "state")?;
    let state = position.state(config, options).map_err(unreadable)?;
    let moves: Vec<Value> = read(value, "moves")?;
    let wanted: Vec<&str> = moves.iter().filter_map(|mv| mv["m"].as_str()).collect();
    let found = state.legal_texts();
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    compare(&state, "legal moves", &found, &wanted)
}
