//! Vectors without a move, or whose assertions are about one position: detection of lines, snapshots.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Checked, Outcomes, Source, Step, checked, compare, failed, load, must_play};
use super::{not_applicable, same_as};
use crate::state::{Cell, State};

/// Vectors of the Python side: lines of a position, or one recovery slide.
pub(super) fn detection(vector: &Value, outcomes: &Outcomes) -> Checked {
    let id = vector["id"].as_str().unwrap_or_default();
    let outcome = outcomes.get(&format!("ai.{id}"));
    checked("ai-parity-vectors", id, judge(vector, outcome))
}

fn judge(vector: &Value, outcome: &Value) -> Step<String> {
    let mut state = load(&vector["input"]["state"])?;
    let input = &vector["input"];
    let mv = if input["move"].is_object() { &input["move"] } else { &input["initialMove"] };
    if !mv.is_object() {
        let Some(wanted) = outcome["lines"].as_array() else { return own_lines(&state, vector) };
        compare(&state, "lines", &lines(&state), wanted)?;
        return Ok(format!("{} lines", wanted.len()));
    }
    if outcome["accepted"] == false {
        return Err(not_applicable("the reference refuses the move"));
    }
    must_play(&mut state, mv)?;
    if outcome["after"].is_object() {
        same_as(&state, &outcome["after"])?;
    }
    board_changes(&state, &vector["assertions"])?;
    Ok("reproduced".to_owned())
}

/// Runs of markers as the reference's detector reports them.
fn lines(state: &State) -> Vec<Value> {
    let least = state.board().detection_length();
    let mut found = Vec::new();
    for seat in state.config().seats() {
        for run in state.runs(seat, least) {
            let eligible = state.lines(seat).any(|line| line == run);
            let (player, length) = (seat.number(), run.len());
            found.push(json!({ "player": player, "length": length, "eligible": eligible }));
        }
    }
    found
}

/// Without a recorded outcome: what the vector itself says of its lines.
fn own_lines(state: &State, vector: &Value) -> Step<String> {
    let wanted = &vector["assertions"]["lineDetection"];
    let Some(count) = wanted["lineCount"].as_u64() else {
        return Err(not_applicable("it has no move, and says nothing of lines"));
    };
    let found = lines(state);
    let eligible: Vec<&Value> = found.iter().filter(|line| line["eligible"] == true).collect();
    compare(state, "number of lines", &(eligible.len() as u64), &count)?;
    for (field, own) in [("lineLength", "length"), ("linePlayer", "player")] {
        if let (Some(wanted), Some(line)) = (wanted[field].as_u64(), eligible.first()) {
            compare(state, field, &line[own].as_u64(), &Some(wanted))?;
        }
    }
    Ok(format!("{count} lines"))
}

/// `boardChanges` and `playerChanges`.
fn board_changes(state: &State, wanted: &Value) -> Step<()> {
    let changes = &wanted["boardChanges"];
    let keys = |own: fn(&Cell) -> bool| -> BTreeSet<String> {
        let geometry = state.geometry();
        let cells = geometry.cells().filter(|cell| own(&state.cell(*cell)));
        cells.map(|cell| geometry.key(cell).to_owned()).collect()
    };
    for (field, found) in [
        ("collapsedSpacesAdded", keys(|cell| matches!(cell, Cell::Collapsed(_)))),
        ("markersRemaining", keys(|cell| matches!(cell, Cell::Marker(_)))),
    ] {
        let Some(list) = changes[field].as_array() else { continue };
        let wanted: BTreeSet<String> =
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        compare(state, field, &found, &wanted)?;
    }
    for seat in state.config().seats() {
        let wanted = &wanted["playerChanges"][seat.to_string()];
        for (field, own) in [
            ("ringsInHand", state.hand(seat)),
            ("eliminatedRings", state.eliminated(seat)),
            ("territorySpaces", state.territory(seat)),
        ] {
            if let Some(wanted) = wanted[field].as_u64() {
                let what = format!("{field} of seat {seat}");
                compare(state, &what, &u64::from(own), &wanted)?;
            }
        }
    }
    Ok(())
}

/// A position alone: it must load, fit together, and have its lines and regions found.
pub(super) fn snapshot(value: &Value, source: &Source) -> Checked {
    checked("ai-snapshots", &source.stem, load_and_look(value))
}

fn load_and_look(value: &Value) -> Step<String> {
    let state = match super::state(value) {
        Ok(state) => state,
        Err(error @ super::super::json::PositionError::Size { .. }) => {
            return Err(not_applicable(error.to_string()));
        }
        Err(error) => return Err(super::unreadable(error)),
    };
    let board = if value["board"].is_object() { &value["board"] } else { value };
    let stacks: Vec<(String, &Value)> = match &board["stacks"] {
        Value::Object(map) => map.iter().map(|(key, stack)| (key.clone(), stack)).collect(),
        Value::Array(list) => list
            .iter()
            .map(|stack| (stack["key"].as_str().unwrap_or_default().to_owned(), stack))
            .collect(),
        _ => Vec::new(),
    };
    for (key, recorded) in stacks {
        let Some(cell) = state.geometry().cell(&key) else { continue };
        let Cell::Stack(stack) = state.cell(cell) else {
            return Err(failed(&state, format!("no stack stands on {key}")));
        };
        for (field, own) in [
            ("stackHeight", u64::from(stack.height())),
            ("capHeight", u64::from(stack.cap())),
            ("controllingPlayer", u64::from(stack.controller().number())),
        ] {
            if let Some(wanted) = recorded[field].as_u64() {
                compare(&state, &format!("{field} of {key}"), &own, &wanted)?;
            }
        }
    }
    let lines: usize = state.config().seats().map(|seat| state.lines(seat).count()).sum();
    let regions = if state.is_over() { 0 } else { state.regions().len() };
    Ok(format!("loaded: {lines} lines, {regions} regions for the player to move"))
}
