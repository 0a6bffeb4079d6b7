//! The abstract machine of phases: a table of transitions without a board (section 16.5).

use serde_json::{Value, json};

use super::{Checked, Verdict, checked, unreadable};

pub(super) fn check(vector: &Value) -> Checked {
    let id = vector["id"].as_str().unwrap_or_default();
    let (input, wanted) = (&vector["input"], &vector["expectedOutput"]);
    let found = answer(input);
    let differs = wanted.as_object().and_then(|fields| {
        // Only what a vector names is compared: some leave out the actions.
        fields.iter().find(|(field, value)| found.get(*field) != Some(value))
    });
    let result = match differs {
        None if wanted.is_object() => Ok(String::new()),
        None => Err(unreadable("it expects nothing")),
        Some((field, value)) => Err(unreadable(format!(
            "{field}: recorded {value}, the table says {}",
            found.get(field).unwrap_or(&Value::Null)
        ))),
    };
    let result: Result<String, Verdict> = result;
    checked("fsm-parity-v1", id, result)
}

/// Where an event leads, or that the phase does not know it.
fn answer(input: &Value) -> Value {
    let phase = input["currentPhase"].as_str().unwrap_or_default();
    let event = input["event"]["type"].as_str().unwrap_or_default();
    let player = input["currentPlayer"].as_u64().unwrap_or(1);
    let seats = input["numPlayers"].as_u64().unwrap_or(2).max(1);
    let next_seat = player % seats + 1;
    let context = &input["stateContext"];
    let more = |list: &str, index: &str| {
        let all = context[list].as_array().map_or(0, Vec::len) as u64;
        context[index].as_u64().unwrap_or(0).saturating_add(1) < all
    };
    let to = |phase: &str, player: u64, actions: &[&str]| json!({ "ok": true, "nextPhase": phase, "nextPlayer": player, "actions": actions });
    match (phase, event) {
        (phase, "RESIGN" | "TIMEOUT") if phase != "game_over" => to("game_over", player, &[]),
        ("ring_placement", "PLACE_RING") => to("movement", player, &["PLACE_RING", "LEAVE_MARKER"]),
        ("ring_placement", "SKIP_PLACEMENT" | "NO_PLACEMENT_ACTION") => to("movement", player, &[]),
        ("movement", "MOVE_STACK") => to("line_processing", player, &["MOVE_STACK"]),
        ("movement", "RECOVERY_SLIDE") => to("line_processing", player, &["RECOVERY_SLIDE"]),
        ("movement", "NO_MOVEMENT_ACTION" | "SKIP_RECOVERY")
        | ("capture" | "chain_capture", "END_CHAIN")
        | ("capture", "SKIP_CAPTURE") => to("line_processing", player, &[]),
        ("movement" | "capture", "CAPTURE") | ("chain_capture", "CONTINUE_CHAIN") => {
            to("chain_capture", player, &["EXECUTE_CAPTURE"])
        }
        ("line_processing", "NO_LINE_ACTION") => to("territory_processing", player, &[]),
        ("line_processing", "PROCESS_LINE") => {
            let next = if more("detectedLines", "currentLineIndex") {
                "line_processing"
            } else {
                "territory_processing"
            };
            to(next, player, &["COLLAPSE_LINE"])
        }
        ("territory_processing", "PROCESS_REGION") => {
            if more("disconnectedRegions", "currentRegionIndex") {
                to("territory_processing", player, &["PROCESS_DISCONNECTION"])
            } else {
                to("turn_end", next_seat, &["PROCESS_DISCONNECTION", "CHECK_VICTORY"])
            }
        }
        ("territory_processing", "NO_TERRITORY_ACTION" | "SKIP_TERRITORY_PROCESSING") => {
            to("turn_end", next_seat, &["CHECK_VICTORY"])
        }
        ("forced_elimination", "FORCED_ELIMINATE") => {
            let number = |field: &str| context[field].as_u64().unwrap_or(0);
            if number("eliminationsDone").saturating_add(1) >= number("ringsOverLimit") {
                to("turn_end", next_seat, &["FORCED_ELIMINATE", "CHECK_VICTORY"])
            } else {
                to("forced_elimination", player, &["FORCED_ELIMINATE"])
            }
        }
        ("turn_end", "_ADVANCE_TURN") => to("ring_placement", next_seat, &["ADVANCE_PLAYER"]),
        _ => json!({
            "ok": false,
            "errorCode": "INVALID_EVENT",
            "errorCurrentPhase": phase,
            "errorEventType": event,
        }),
    }
}
