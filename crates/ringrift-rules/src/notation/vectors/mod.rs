//! Published vectors, judged: `vectors/README.md`, "What to reproduce".
//!
//! A file is known by its content, whatever its name. What the reference engine did with a vector
//! ([`Outcomes`]) decides where it is recorded; else the vector's own expectation does, as far as the
//! move is legal.

mod contract;
mod fsm;
mod lines;
mod positions;
mod recorded;

use std::collections::BTreeMap;

use serde_json::Value;

pub use lines::{Decision, Judge};

use super::published::{read_departure, read_move, state};
use crate::state::State;

/// What became of a vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Reproduced, or refused as it must be.
    Passed,
    /// The rules and the vector disagree.
    Failed {
        /// First difference.
        reason: String,
        /// The position, drawn, if there is one.
        board: String,
    },
    /// Nothing to reproduce.
    NotApplicable {
        /// Why.
        reason: String,
    },
}

/// A vector and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Kind of the vector, named like its folder.
    pub kind: &'static str,
    /// Name of the vector.
    pub id: String,
    /// What became of it.
    pub verdict: Verdict,
    /// What is worth knowing beside: why a move was refused, how many steps were compared.
    pub note: String,
}

/// Where a file stands: names of vectors that have none inside are made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Name of the folder.
    pub folder: String,
    /// Name of the file without its last extension.
    pub stem: String,
}

/// What the reference engine did with vectors, by id (`ts_outcomes.json`).
#[derive(Debug, Clone, Default)]
pub struct Outcomes(BTreeMap<String, Value>);

impl Outcomes {
    /// Takes a file in, if it is one of outcomes; says whether it was.
    pub fn absorb(&mut self, value: &Value) -> bool {
        const FIELDS: [&str; 7] =
            ["accepted", "listed", "note", "steps", "transitions", "digests", "chain"];
        let Some(entries) = value.as_object().filter(|entries| !entries.is_empty()) else {
            return false;
        };
        let is_outcome = |entry: &Value| {
            entry
                .as_object()
                .is_some_and(|entry| FIELDS.iter().any(|name| entry.contains_key(*name)))
        };
        // A vector has such fields too, but not as all that it consists of.
        if !entries.values().all(is_outcome) {
            return false;
        }
        self.0.extend(entries.iter().map(|(id, entry)| (id.clone(), entry.clone())));
        true
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, id: &str) -> &Value {
        self.0.get(id).unwrap_or(&Value::Null)
    }

    /// The outcome of a file: under one of these names, else under the only one that ends like the
    /// file, as files may have been moved.
    fn of_file(&self, names: &[String], stem: &str) -> &Value {
        if let Some(found) = names.iter().find_map(|name| self.0.get(name)) {
            return found;
        }
        let mut similar = self
            .0
            .iter()
            .filter(|(id, _)| id.strip_suffix(stem).is_some_and(|rest| rest.ends_with('.')));
        match (similar.next(), similar.next()) {
            (Some((_, only)), None) => only,
            _ => &Value::Null,
        }
    }
}

/// Judges all vectors of a JSON file; `None` if it holds none that is known.
pub fn check(value: &Value, source: &Source, outcomes: &Outcomes) -> Option<Vec<Checked>> {
    if let Some(list) = value["vectors"].as_array() {
        return Some(
            list.iter()
                .map(|vector| {
                    if vector["input"]["event"].is_object() {
                        fsm::check(vector)
                    } else if vector["expectedOutput"].is_object() {
                        contract::check(vector, outcomes)
                    } else {
                        positions::detection(vector, outcomes)
                    }
                })
                .collect(),
        );
    }
    if value[0]["stateBefore"].is_object() {
        return Some(vec![recorded::trace(value, source, outcomes)]);
    }
    let has = |field: &str| !value[field].is_null();
    let checked = if has("expectedOutput") && has("input") {
        if has("event") { fsm::check(value) } else { contract::check(value, outcomes) }
    } else if has("state") && has("move") {
        recorded::state_action(value, source, outcomes)
    } else if has("initialState") && value["steps"].is_array() {
        recorded::steps(value, source, outcomes)
    } else if has("ts_states") {
        recorded::bundle(value, source, outcomes)
    } else if has("moves") && (has("boardType") || has("numPlayers")) {
        recorded::golden(value, source, outcomes)
    } else if has("canonical_move") {
        Checked {
            kind: "ai-fe-fixtures",
            id: source.stem.clone(),
            verdict: Verdict::NotApplicable {
                reason: "a move without its position: nothing to replay".to_owned(),
            },
            note: String::new(),
        }
    } else if has("players") && (has("board") || has("stacks")) {
        positions::snapshot(value, source)
    } else if value["state"]["players"].is_array() {
        positions::snapshot(&value["state"], source)
    } else {
        return None;
    };
    Some(vec![checked])
}

/// Judges a line of `victory_cases.jsonl.gz` or `heuristic_ref.jsonl.gz`; `None` if it is neither. `judge` has the numbers of the latter.
pub fn check_line(value: &Value, judge: Judge<'_>) -> Option<Checked> {
    if value["lastActor"].is_number() && value["expect"].is_object() {
        return Some(lines::victory(value));
    }
    if value["state"].is_object() && value["moves"][0]["m"].is_string() {
        return Some(lines::heuristic(value, judge));
    }
    None
}

/// How a check goes on: to its end, or to an early verdict.
type Step<T> = Result<T, Verdict>;

fn failed(state: &State, reason: impl Into<String>) -> Verdict {
    Verdict::Failed { reason: reason.into(), board: state.render() }
}

fn not_applicable(reason: impl Into<String>) -> Verdict {
    Verdict::NotApplicable { reason: reason.into() }
}

/// A verdict that needs no drawing, as there is no position.
fn unreadable(reason: impl std::fmt::Display) -> Verdict {
    Verdict::Failed { reason: reason.to_string(), board: String::new() }
}

fn compare<T: PartialEq + std::fmt::Debug>(
    state: &State,
    what: &str,
    found: &T,
    wanted: &T,
) -> Step<()> {
    if found == wanted {
        return Ok(());
    }
    Err(failed(state, format!("{what}: recorded {wanted:?}, the rules say {found:?}")))
}

/// Applies a published move under the rules; the sentence says why it was refused.
fn play(state: &mut State, mv: &Value) -> Result<(), String> {
    if let Some((seat, how)) = read_departure(state, mv).map_err(|error| error.to_string())? {
        if state.is_over() {
            return Err("the game is over".to_owned());
        }
        state.depart(seat, how);
        return Ok(());
    }
    let mv = read_move(state, mv).map_err(|error| error.to_string())?;
    state.apply(&mv).map_err(|error| error.to_string())
}

/// Applies a move that must be legal.
fn must_play(state: &mut State, mv: &Value) -> Step<()> {
    let before = state.clone();
    play(state, mv).map_err(|reason| failed(&before, reason))
}

/// Compares a position with what the reference reached: digest, counters, turn and winner.
fn same_as(state: &State, after: &Value) -> Step<()> {
    compare(state, "phase", &state.phase().name(), &after["phase"].as_str().unwrap_or_default())?;
    if let Some(outcome) = state.outcome() {
        let winner = u64::from(outcome.winner.number());
        compare(state, "winner", &Some(winner), &after["winner"].as_u64())?;
    } else {
        let seat = u64::from(state.to_move().number());
        compare(state, "player to move", &Some(seat), &after["player"].as_u64())?;
    }
    for seat in state.config().seats() {
        for (field, what, own) in [
            ("h", "hand", state.hand(seat)),
            ("e", "eliminated", state.eliminated(seat)),
            ("t", "territory", state.territory(seat)),
            ("b", "rings on board", state.rings_on_board(seat)),
            ("k", "markers", state.markers(seat)),
        ] {
            let wanted = after[field][seat.index()].as_u64();
            compare(state, &format!("{what} of seat {seat}"), &Some(u64::from(own)), &wanted)?;
        }
    }
    let digest = after["d"].as_str().unwrap_or_default().to_owned();
    compare(state, "digest", &state.digest(), &digest)
}

/// Board and counters of two positions, without turn and phase.
fn same_board(state: &State, recorded: &State) -> Result<(), String> {
    let parts = |state: &State| {
        let text = state.digest_text();
        text.split_once('#').map_or_else(String::new, |(_, rest)| rest.to_owned())
    };
    let (found, wanted) = (parts(state), parts(recorded));
    if found == wanted {
        return Ok(());
    }
    Err(format!("board: recorded {wanted}, the rules say {found}"))
}

/// Finishes a check.
fn checked(kind: &'static str, id: &str, result: Step<String>) -> Checked {
    let (verdict, note) = match result {
        Ok(note) => (Verdict::Passed, note),
        Err(verdict) => (verdict, String::new()),
    };
    Checked { kind, id: id.to_owned(), verdict, note }
}

/// Loads the position of a vector. Some hand-written ones are no positions, with stacks beside the
/// board or one player.
fn load(value: &Value) -> Step<State> {
    state(value).map_err(|error| not_applicable(format!("its state is no position: {error}")))
}

/// Loads a position from which the reference plays on.
fn must_load(value: &Value) -> Step<State> {
    state(value).map_err(|error| unreadable(format!("its state cannot be read: {error}")))
}
