//! Vectors with recorded positions or games: rules parity, traces, state bundles, golden games.

use serde_json::Value;

use super::contract::refused;
use super::{
    Checked, Outcomes, Source, Step, checked, compare, failed, load, must_load, must_play,
};
use super::{not_applicable, play, same_as, same_board, unreadable};
use crate::config::{Config, Options};
use crate::state::State;

const PARITY: &str = "rules-parity";

fn parity_names(value: &Value, source: &Source) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let versions = [value["version"].as_str().unwrap_or_default(), "v1", "v2"];
    for version in versions {
        names.push(format!("rules-parity.{version}.{}", source.stem));
    }
    names
}

/// A state, a move, and whether the older action-level engine took it.
pub(super) fn state_action(value: &Value, source: &Source, outcomes: &Outcomes) -> Checked {
    let outcome = outcomes.of_file(&parity_names(value, source), &source.stem);
    checked(PARITY, &source.stem, judge_action(value, outcome))
}

fn judge_action(value: &Value, outcome: &Value) -> Step<String> {
    let (mv, expected) = (&value["move"], &value["expected"]);
    match outcome["listed"].as_bool() {
        Some(true) => {
            let mut state = must_load(&value["state"])?;
            must_play(&mut state, mv)?;
            same_as(&state, &outcome["after"])?;
            return Ok("reproduced".to_owned());
        }
        Some(false) => return refused(&value["state"], mv),
        None => {}
    }
    if expected["tsValid"] == false {
        return refused(&value["state"], mv);
    }
    let mut state = load(&value["state"])?;
    if let Err(reason) = play(&mut state, mv) {
        return Err(not_applicable(format!(
            "written for an engine that ends turns itself: {reason}"
        )));
    }
    let Some(hash) = expected["tsNext"]["stateHash"].as_str() else {
        return Ok("accepted".to_owned());
    };
    match same_fingerprint(&state, hash) {
        Ok(()) => Ok("accepted, with the recorded board".to_owned()),
        Err(reason) => Err(not_applicable(format!(
            "written for an engine that ends turns itself, so more than the move is recorded: \
             {reason}"
        ))),
    }
}

/// Players and board of the readable fingerprint of section 16.4, without turn and status.
fn fingerprint(state: &State) -> String {
    use crate::state::Cell;
    let mut players = Vec::new();
    for seat in state.config().seats() {
        let (hand, out, own) = (state.hand(seat), state.eliminated(seat), state.territory(seat));
        players.push(format!("{seat}:{hand}:{out}:{own}"));
    }
    let (mut stacks, mut markers, mut collapsed) = (Vec::new(), Vec::new(), Vec::new());
    for cell in state.geometry().cells() {
        let key = state.geometry().key(cell);
        match state.cell(cell) {
            Cell::Empty => {}
            Cell::Marker(seat) => markers.push(format!("{key}:{seat}")),
            Cell::Collapsed(seat) => collapsed.push(format!("{key}:{seat}")),
            Cell::Stack(stack) => stacks.push(format!(
                "{key}:{}:{}:{}",
                stack.controller(),
                stack.height(),
                stack.cap()
            )),
        }
    }
    [players, stacks, markers, collapsed]
        .map(|mut part| {
            part.sort_unstable();
            part.join("|")
        })
        .join("#")
}

fn same_fingerprint(state: &State, recorded: &str) -> Result<(), String> {
    let wanted = recorded.split_once('#').map_or(recorded, |(_, rest)| rest);
    let found = fingerprint(state);
    if found == wanted {
        return Ok(());
    }
    Err(format!("recorded {wanted}, the rules say {found}"))
}

/// A short recorded sequence.
pub(super) fn steps(value: &Value, source: &Source, outcomes: &Outcomes) -> Checked {
    let outcome = outcomes.of_file(&parity_names(value, source), &source.stem);
    checked(PARITY, &source.stem, judge_steps(value, outcome))
}

fn judge_steps(value: &Value, outcome: &Value) -> Step<String> {
    let mut state = load(&value["initialState"])?;
    let steps = value["steps"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, step) in steps.iter().enumerate() {
        let number = index + 1;
        let recorded = &outcome["steps"][index];
        // Traces have no `listed`: where the move is legal, the position must agree.
        if let Err(reason) = play(&mut state, &step["move"]) {
            if step["expected"]["tsValid"] == false {
                continue;
            }
            return Err(not_applicable(format!(
                "step {number} is illegal under explicit phases: {reason}"
            )));
        }
        if recorded["after"].is_object() {
            same_as(&state, &recorded["after"])?;
        } else if let Some(hash) = step["expected"]["tsStateHash"].as_str()
            && let Err(reason) = same_fingerprint(&state, hash)
        {
            return Err(not_applicable(format!(
                "step {number} records more than its move, as that engine ends turns itself: \
                 {reason}"
            )));
        }
    }
    Ok(format!("{} steps reproduced", steps.len()))
}

/// A trace of the Python engine: positions before and after each move.
pub(super) fn trace(value: &Value, source: &Source, outcomes: &Outcomes) -> Checked {
    let outcome = outcomes.of_file(&[format!("ai.{}", source.stem)], &source.stem);
    checked("ai-parity-vectors", &source.stem, judge_trace(value, outcome))
}

fn judge_trace(value: &Value, outcome: &Value) -> Step<String> {
    let steps = value.as_array().map_or(&[][..], Vec::as_slice);
    let mut parted = None;
    let mut reproduced = 0;
    for (index, step) in steps.iter().enumerate() {
        let recorded = &outcome["steps"][index];
        let mut state = load(&step["stateBefore"])?;
        let before = state.clone();
        let number = index + 1;
        if let Err(reason) = play(&mut state, &step["move"]) {
            if recorded["fullMatch"] == true {
                return Err(failed(&before, format!("step {number}: {reason}")));
            }
            parted = Some(format!("step {number} is illegal: {reason}"));
            continue;
        }
        if recorded["fullMatch"] == true {
            same_as(&state, &recorded["after"])?;
        }
        if recorded["boardMatch"] == false {
            parted = Some(format!("step {number}: the reference reaches another board too"));
            continue;
        }
        let wanted = load(&step["stateAfter"])?;
        same_board(&state, &wanted)
            .map_err(|reason| failed(&state, format!("step {number}: {reason}")))?;
        reproduced += 1;
    }
    match parted {
        Some(reason) if reproduced == 0 => Err(not_applicable(reason)),
        Some(reason) => Ok(format!("{reproduced} steps reproduced; {reason}")),
        None => Ok(format!("{reproduced} steps reproduced")),
    }
}

/// Two successive states of one game, recorded when two engines differed.
pub(super) fn bundle(value: &Value, source: &Source, outcomes: &Outcomes) -> Checked {
    let names = [format!("ai.{}.{}", source.folder, source.stem)];
    let outcome = outcomes.of_file(&names, &source.stem);
    checked("ai-state-bundles", &source.stem, judge_bundle(value, outcome))
}

fn judge_bundle(value: &Value, outcome: &Value) -> Step<String> {
    let states = value["ts_states"].as_object().ok_or_else(|| unreadable("ts_states is no map"))?;
    let mut numbers: Vec<u64> = states.keys().filter_map(|key| key.parse().ok()).collect();
    numbers.sort_unstable();
    let mut reproduced = 0;
    let mut parted = "it has no two successive states with their move".to_owned();
    for pair in numbers.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        if from + 1 != to {
            continue;
        }
        let (before, after) = (&states[&from.to_string()], &states[&to.to_string()]);
        let transition = outcome["transitions"]
            .as_array()
            .and_then(|all| all.iter().find(|transition| transition["from"] == from));
        let must = transition.is_some_and(|transition| transition["fullMatch"] == true);
        let Some(mv) = after["moveHistory"].as_array().and_then(|moves| moves.last()) else {
            continue;
        };
        let mut state = match super::state(before) {
            Ok(state) => state,
            Err(error) if must => return Err(unreadable(error)),
            Err(error) => return Err(not_applicable(error.to_string())),
        };
        let old = state.clone();
        if let Err(reason) = play(&mut state, mv) {
            if must {
                return Err(failed(&old, reason));
            }
            parted = format!("move {to} is not legal any more: {reason}");
            continue;
        }
        match transition {
            Some(transition) if must => same_as(&state, &transition["after"])?,
            Some(_) => {
                "today's reference does not produce the recorded successor either"
                    .clone_into(&mut parted);
                continue;
            }
            None => {
                let wanted = load(after)?;
                if let Err(reason) = same_board(&state, &wanted) {
                    parted = format!("no outcome is recorded, and {reason}");
                    continue;
                }
            }
        }
        reproduced += 1;
    }
    if reproduced == 0 { Err(not_applicable(parted)) } else { Ok(format!("{reproduced} moves")) }
}

/// A recorded game; old recordings may hold moves that are illegal now.
pub(super) fn golden(value: &Value, source: &Source, outcomes: &Outcomes) -> Checked {
    let outcome = outcomes.of_file(&[format!("golden.{}", source.stem)], &source.stem);
    checked("golden-games", &source.stem, judge_golden(value, outcome))
}

fn judge_golden(value: &Value, outcome: &Value) -> Step<String> {
    let board = value["boardType"].as_str().unwrap_or_default();
    let config: Config = format!("{board}_{}p", value["numPlayers"]).parse().map_err(unreadable)?;
    let options = match &value["rulesOptions"] {
        Value::Null => Options::default(),
        given => serde_json::from_value(given.clone()).map_err(unreadable)?,
    };
    let mut state = State::new(config, options);
    let first_illegal = outcome["listedAsLegal"]
        .as_array()
        .and_then(|numbers| numbers.iter().filter_map(Value::as_u64).min());
    let moves = value["moves"].as_array().ok_or_else(|| unreadable("moves is no list"))?;
    for (number, mv) in (1u64..).zip(moves) {
        let before = state.clone();
        match play(&mut state, mv) {
            Ok(()) if Some(number) == first_illegal => {
                let text = format!("move {number} is not legal, and was accepted");
                return Err(failed(&before, text));
            }
            Ok(()) => {}
            Err(reason) if Some(number) == first_illegal => {
                return Ok(format!("{} moves up to the first illegal one: {reason}", number - 1));
            }
            Err(reason) if outcome.is_null() => {
                return Err(not_applicable(format!(
                    "no outcome is recorded, and move {number} is not legal any more: {reason}"
                )));
            }
            Err(reason) => return Err(failed(&before, format!("move {number}: {reason}"))),
        }
        let place = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if let Some(digest) = outcome["digests"][place].as_str() {
            compare(
                &state,
                &format!("digest after move {number}"),
                &state.digest(),
                &digest.to_owned(),
            )?;
        }
    }
    Ok(format!("{} moves", moves.len()))
}
