//! Positions at the end of a turn with the reference's answer (`victory_cases.jsonl.gz`).

use ringrift_rules::json::{BoardText, Position};
use ringrift_rules::{Config, Options, Seat};
use serde::Deserialize;

use crate::corpus::{lines, testdata};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    id: String,
    board: String,
    players: u8,
    h: Vec<u16>,
    e: Vec<u16>,
    last_actor: u8,
    position: BoardText,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    over: bool,
    winner: Option<u8>,
    reason: Option<String>,
}

#[test]
fn the_end_of_a_turn_is_judged_as_by_the_reference() {
    let mut cases = 0;
    for line in lines(&testdata().join("victory_cases.jsonl.gz")) {
        let case: Case = serde_json::from_str(&line).unwrap();
        let config: Config = format!("{}_{}p", case.board, case.players).parse().unwrap();
        let last = Seat::new(case.last_actor).unwrap();
        let position = Position::at_turn_start(last, &case.h, &case.e, case.position);
        let state = position.state(config, Options::default()).unwrap();
        let verdict = state.verdict(last);
        let place = format!("{}\n{}", case.id, state.render());
        assert_eq!(verdict.is_some(), case.expect.over, "{place}");
        if let Some((winner, reason)) = verdict {
            assert_eq!(Some(winner.number()), case.expect.winner, "{place}");
            assert_eq!(Some(reason.name()), case.expect.reason.as_deref(), "{place}");
        }
        cases += 1;
    }
    assert_eq!(cases, 600);
}
