//! Contract vectors: a state, a move or a chain of captures, assertions.

use serde_json::{Value, json};

use super::{
    Checked, Outcomes, Step, checked, compare, failed, load, must_load, must_play, not_applicable,
};
use super::{play, same_as};
use crate::state::{Cell, Phase, State};

const KIND: &str = "contract-vectors-v2";

pub(super) fn check(vector: &Value, outcomes: &Outcomes) -> Checked {
    let id = vector["id"].as_str().unwrap_or_default();
    let outcome = outcomes.get(id);
    let result = if vector["input"]["expectedChainSequence"].is_array() {
        chain(vector, outcome)
    } else {
        single(vector, outcome)
    };
    checked(KIND, id, result)
}

fn single(vector: &Value, outcome: &Value) -> Step<String> {
    let input = &vector["input"];
    let mv = if input["move"].is_object() { &input["move"] } else { &input["initialMove"] };
    let expected = &vector["expectedOutput"];
    match outcome["listed"].as_bool() {
        Some(true) => {
            let mut state = must_load(&input["state"])?;
            must_play(&mut state, mv)?;
            same_as(&state, &outcome["after"])?;
            for kind in outcome["auto"].as_array().into_iter().flatten() {
                must_play(&mut state, &json!({ "type": kind }))?;
            }
            if outcome["final"].is_object() {
                same_as(&state, &outcome["final"])?;
            }
            if outcome["pass"] == true {
                assertions(&state, &expected["assertions"])?;
            }
            Ok("reproduced".to_owned())
        }
        Some(false) => refused(&input["state"], mv),
        None => {
            let mut state = load(&input["state"])?;
            if let Err(reason) = play(&mut state, mv) {
                return Err(not_applicable(format!("no outcome is recorded, and {reason}")));
            }
            if expected["status"] == "complete" {
                finish_turn(&mut state);
            }
            match assertions(&state, &expected["assertions"]) {
                Ok(()) => Ok("its assertions hold; no outcome is recorded".to_owned()),
                Err(_) => Err(not_applicable(
                    "no outcome is recorded, and its assertions do not hold: many vectors predate \
                     the turn of explicit phases",
                )),
            }
        }
    }
}

/// A move that the reference does not list must be refused, and leave the position alone. Some stand
/// in positions that are none, with stacks beside the board for example: these are refused already.
pub(super) fn refused(position: &Value, mv: &Value) -> Step<String> {
    let mut state = match super::state(position) {
        Ok(state) => state,
        Err(error) => return Ok(format!("refused with its position: {error}")),
    };
    let before = state.clone();
    match play(&mut state, mv) {
        Ok(()) => Err(failed(&before, "the move is not legal, and was accepted")),
        Err(_) if state != before => Err(failed(&state, "the refused move changed the position")),
        Err(reason) => Ok(format!("refused: {reason}")),
    }
}

/// As the original's runner: records that there is nothing to do, until the turn is over.
fn finish_turn(state: &mut State) {
    for _ in 0..10 {
        let kind = match state.phase() {
            Phase::LineProcessing => "no_line_action",
            Phase::TerritoryProcessing => "no_territory_action",
            _ => return,
        };
        if play(state, &json!({ "type": kind })).is_err() {
            return;
        }
    }
}

fn chain(vector: &Value, outcome: &Value) -> Step<String> {
    let mut state = load(&vector["input"]["state"])?;
    let segments = vector["input"]["expectedChainSequence"].as_array().into_iter().flatten();
    let mut length = 0usize;
    for segment in segments {
        let kind = if length == 0 { "overtaking_capture" } else { "continue_capture_segment" };
        let mv = json!({
            "type": kind,
            "from": segment["from"],
            "captureTarget": segment["captureTarget"],
            "to": segment["landing"],
        });
        if let Err(reason) = play(&mut state, &mv) {
            // The reference trusts the geometry: a chain that breaks the distance rule is not to be
            // reproduced from there on.
            return Err(not_applicable(format!("segment {} breaks a rule: {reason}", length + 1)));
        }
        let after = &outcome["chain"][length];
        if after.is_object() {
            same_as(&state, after)?;
        }
        length += 1;
    }
    let expected = &vector["expectedOutput"];
    let wanted = &expected["assertions"];
    let place = &expected["finalState"]["finalStackPosition"];
    let key = match place["z"].as_i64() {
        Some(z) => format!("{},{},{z}", place["x"], place["y"]),
        None => format!("{},{}", place["x"], place["y"]),
    };
    if let Some(cell) = state.geometry().cell(&key) {
        let Cell::Stack(stack) = state.cell(cell) else {
            return Err(failed(&state, format!("no stack stands on {key} after the chain")));
        };
        number(&state, wanted, "finalStackHeight", u64::from(stack.height()))?;
        let controller = u64::from(stack.controller().number());
        number(&state, wanted, "finalStackController", controller)?;
    }
    number(&state, wanted, "totalCapturesInChain", length as u64)?;
    number(
        &state,
        wanted,
        "markersCreated",
        count(&state, |cell| matches!(cell, Cell::Marker(_))),
    )?;
    Ok(format!("{length} segments reproduced"))
}

fn number(state: &State, wanted: &Value, key: &str, found: u64) -> Step<()> {
    match wanted[key].as_u64() {
        Some(wanted) => compare(state, key, &found, &wanted),
        None => Ok(()),
    }
}

fn count(state: &State, wanted: fn(&Cell) -> bool) -> u64 {
    state.geometry().cells().filter(|cell| wanted(&state.cell(*cell))).count() as u64
}

/// What the position waits for, in the words of the vectors.
fn decision(state: &State) -> Option<&'static str> {
    match state.phase() {
        Phase::ChainCapture => Some("select_chain_capture"),
        Phase::LineProcessing if state.payment_pending() => Some("select_elimination_target"),
        Phase::LineProcessing => Some("select_line_to_process"),
        Phase::TerritoryProcessing if state.region_payment_pending() => {
            Some("select_elimination_target")
        }
        Phase::TerritoryProcessing => Some("select_territory_region"),
        _ => None,
    }
}

/// The assertions that the original's runner checks; it knows no other keys either.
fn assertions(state: &State, wanted: &Value) -> Step<()> {
    for (key, wanted) in wanted.as_object().into_iter().flatten() {
        let found: Value = match key.as_str() {
            "currentPlayer" if !state.is_over() => state.to_move().number().into(),
            "currentPhase" => state.phase().name().into(),
            "gameStatus" => (if state.is_over() { "completed" } else { "active" }).into(),
            "stackCount" => count(state, |cell| matches!(cell, Cell::Stack(_))).into(),
            "markerCount" => count(state, |cell| matches!(cell, Cell::Marker(_))).into(),
            "collapsedCount" => count(state, |cell| matches!(cell, Cell::Collapsed(_))).into(),
            "victoryWinner" => state.outcome().map(|outcome| outcome.winner.number()).into(),
            "victoryReason" => state.outcome().map(|outcome| outcome.reason.name()).into(),
            // Compared where the position waits for a decision at all: the runner's names for
            // required no-action moves are those of the lists they stand for.
            "pendingDecisionType" => match decision(state) {
                Some(found) => found.into(),
                None => continue,
            },
            other => {
                let seat = state.config().seats().find(|seat| {
                    other.strip_prefix("player").is_some_and(|o| o.starts_with(&seat.to_string()))
                });
                match (seat, other.get("playerN".len()..)) {
                    (Some(seat), Some("RingsInHand")) => state.hand(seat).into(),
                    (Some(seat), Some("EliminatedRings")) => state.eliminated(seat).into(),
                    (Some(seat), Some("TerritorySpaces")) => state.territory(seat).into(),
                    _ => continue,
                }
            }
        };
        compare(state, key, &found, wanted)?;
    }
    Ok(())
}
