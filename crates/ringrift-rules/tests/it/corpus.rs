//! Games of the reference engine, replayed: `testdata/rules/README.md`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use ringrift_rules::json::{BoardText, Position};
use ringrift_rules::notation::{fnv64, hex};
use ringrift_rules::{Config, Options, Seat, State};
use serde::Deserialize;
use serde_json::Value;

pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/rules")
}

pub(crate) fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
    let file = fs_err::File::open(path).unwrap();
    BufReader::new(GzDecoder::new(file)).lines().map(Result::unwrap)
}

#[derive(Deserialize)]
pub(crate) struct Game {
    pub(crate) id: String,
    board: String,
    players: u8,
    options: Options,
    start: Option<Position>,
    init: Step,
}

impl Game {
    pub(crate) fn config(&self) -> Config {
        format!("{}_{}p", self.board, self.players).parse().unwrap()
    }

    pub(crate) fn state(&self) -> State {
        match &self.start {
            Some(start) => start.state(self.config(), self.options).unwrap(),
            None => State::new(self.config(), self.options),
        }
    }
}

/// What a record says about a position.
#[derive(Deserialize)]
pub(crate) struct Step {
    #[serde(default)]
    pub(crate) m: String,
    by: Option<u8>,
    pl: u8,
    ph: String,
    lc: usize,
    lh: String,
    #[serde(rename = "L")]
    list: Option<Vec<String>>,
    h: Vec<u16>,
    b: Vec<u16>,
    e: Vec<u16>,
    t: Vec<u16>,
    k: Vec<u16>,
    c: Vec<u16>,
    #[serde(default)]
    pay: u8,
    d: String,
    board: Option<BoardText>,
    cells: Option<Value>,
    #[serde(default)]
    f: Vec<String>,
}

#[derive(Deserialize)]
struct End {
    moves: u32,
    result: String,
    reason: Option<String>,
    winner: Option<u8>,
    board: BoardText,
}

/// The legal list as texts, sorted as ASCII.
pub(crate) fn legal_texts(state: &State) -> Vec<String> {
    let mut moves = Vec::new();
    state.legal_moves(&mut moves);
    let mut texts: Vec<String> = moves.iter().map(|mv| state.notate(mv)).collect();
    texts.sort_unstable();
    texts
}

fn compare(state: &State, step: &Step, place: &str) {
    let texts = legal_texts(state);
    if let Some(list) = &step.list {
        assert_eq!(&texts, list, "legal list, {place}\n{}", state.render());
    }
    assert_eq!(texts.len(), step.lc, "number of legal moves, {place}: {texts:?}");
    if state.is_over() {
        assert_eq!((step.pl, step.ph.as_str()), (0, "game_over"), "{place}");
    } else {
        assert_eq!(
            hex(fnv64(&texts.join("\n"))),
            step.lh,
            "{place}: {texts:?}\n{}",
            state.render()
        );
        assert_eq!(
            (state.to_move().number(), state.phase().name()),
            (step.pl, step.ph.as_str()),
            "{place}"
        );
        assert_eq!(u8::from(state.payment_pending()), step.pay, "{place}");
    }
    let by_seat = |count: fn(&State, Seat) -> u16| -> Vec<u16> {
        state.config().seats().map(|seat| count(state, seat)).collect()
    };
    assert_eq!(by_seat(State::hand), step.h, "hands, {place}");
    assert_eq!(by_seat(State::rings_on_board), step.b, "rings on board, {place}");
    assert_eq!(by_seat(State::eliminated), step.e, "eliminated, {place}");
    assert_eq!(by_seat(State::territory), step.t, "territory, {place}");
    assert_eq!(by_seat(State::markers), step.k, "markers, {place}");
    assert_eq!(by_seat(State::stacks), step.c, "stacks, {place}");
    assert_eq!(state.digest(), step.d, "{}, {place}", state.digest_text());
    if let Some(board) = &step.board {
        assert_eq!(&BoardText::of(state), board, "{place}");
    }
    let refused = step.f.iter().any(|flag| flag == "recovery_refused");
    assert_eq!(state.recovery_refused(), refused, "refused recovery, {place}");
}

/// Replays a file; gives the number of games and moves.
fn check(path: &Path) -> (usize, usize) {
    let (mut games, mut moves) = (0, 0);
    let mut game: Option<(Game, State)> = None;
    for line in lines(path) {
        let value: Value = serde_json::from_str(&line).unwrap();
        match value["kind"].as_str() {
            Some("game") => {
                let next: Game = serde_json::from_value(value).unwrap();
                let state = next.state();
                compare(&state, &next.init, &format!("{} at its start", next.id));
                game = Some((next, state));
                games += 1;
            }
            Some("end") => {
                let (game, state) = game.take().unwrap();
                let end: End = serde_json::from_value(value).unwrap();
                let outcome = state.outcome();
                assert_eq!(state.move_number(), end.moves, "{}", game.id);
                assert_eq!(outcome.is_some(), end.result == "finished", "{}", game.id);
                if let Some(outcome) = outcome {
                    assert_eq!(Some(outcome.reason.name()), end.reason.as_deref(), "{}", game.id);
                    assert_eq!(Some(outcome.winner.number()), end.winner, "{}", game.id);
                    assert_eq!(outcome.ranking[0], outcome.winner);
                    assert_eq!(outcome.ranking.len(), game.config().seats().len());
                }
                assert_eq!(BoardText::of(&state), end.board, "{}", game.id);
            }
            _ => {
                let (game, state) = game.as_mut().unwrap();
                let step: Step = serde_json::from_value(value).unwrap();
                let place = format!("{} at move {}, {}", game.id, state.move_number() + 1, step.m);
                assert_eq!(Some(state.to_move().number()), step.by, "{place}");
                let mv = state.parse(&step.m).unwrap_or_else(|error| panic!("{place}: {error}"));
                assert_eq!(state.notate(&mv), step.m);
                if let ringrift_rules::Move::ChooseTerritory(region) = &mv {
                    let keys: Vec<&str> = region.iter().map(|c| state.geometry().key(c)).collect();
                    let recorded = match step.cells.as_ref().unwrap() {
                        Value::String(text) => text.clone(),
                        Value::Array(keys) => keys
                            .iter()
                            .map(|key| key.as_str().unwrap())
                            .collect::<Vec<_>>()
                            .join(" "),
                        other => panic!("{place}: {other}"),
                    };
                    assert_eq!(keys.join(" "), recorded, "{place}");
                }
                state.apply(&mv).unwrap_or_else(|error| panic!("{place}: {error}"));
                compare(state, &step, &place);
                moves += 1;
            }
        }
    }
    assert!(game.is_none(), "the last game has no end");
    (games, moves)
}

/// Replays the games of a configuration; their number is that of the README.
fn check_config(name: &str, games: usize, moves: usize) {
    assert_eq!(check(&testdata().join(format!("{name}.jsonl.gz"))), (games, moves));
}

#[test]
fn games_on_square8_with_two_players_replay_exactly() {
    check_config("square8_2p", 160, 10_971);
}

#[test]
fn games_on_square8_with_three_players_replay_exactly() {
    check_config("square8_3p", 63, 4_036);
}

#[test]
fn games_on_square8_with_four_players_replay_exactly() {
    check_config("square8_4p", 63, 4_551);
}

#[test]
fn games_on_square19_with_two_players_replay_exactly() {
    check_config("square19_2p", 11, 2_417);
}

#[test]
fn games_on_square19_with_three_players_replay_exactly() {
    check_config("square19_3p", 6, 2_899);
}

#[test]
fn games_on_square19_with_four_players_replay_exactly() {
    check_config("square19_4p", 6, 2_956);
}

#[test]
fn games_on_hex8_with_two_players_replay_exactly() {
    check_config("hex8_2p", 160, 13_818);
}

#[test]
fn games_on_hex8_with_three_players_replay_exactly() {
    check_config("hex8_3p", 63, 5_236);
}

#[test]
fn games_on_hex8_with_four_players_replay_exactly() {
    check_config("hex8_4p", 63, 6_229);
}

#[test]
fn games_on_hexagonal_with_two_players_replay_exactly() {
    check_config("hexagonal_2p", 11, 4_142);
}

#[test]
fn games_on_hexagonal_with_three_players_replay_exactly() {
    check_config("hexagonal_3p", 6, 5_869);
}

#[test]
fn games_on_hexagonal_with_four_players_replay_exactly() {
    check_config("hexagonal_4p", 6, 5_260);
}
