//! Recorded games of the reference engine (`games/README.md`), compared move by move.

use serde::Deserialize;
use serde_json::Value;

use super::json::{BoardText, Position};
use super::{fnv64, hex};
use crate::config::{Config, Options, Seat};
use crate::moves::Move;
use crate::state::State;

/// A game line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Game {
    /// Name of the game.
    pub id: String,
    board: String,
    players: u8,
    /// Its options.
    #[serde(default)]
    pub options: Options,
    start: Option<Position>,
    init: Option<Step>,
}

impl Game {
    /// Board and number of players.
    ///
    /// # Errors
    /// If there is no such configuration.
    pub fn config(&self) -> Result<Config, String> {
        let name = format!("{}_{}p", self.board, self.players);
        name.parse().map_err(|error: crate::config::ParseConfigError| error.to_string())
    }

    /// The first position.
    ///
    /// # Errors
    /// If it is none of the configuration.
    pub fn state(&self) -> Result<State, String> {
        let config = self.config()?;
        match &self.start {
            Some(start) => start.state(config, self.options).map_err(|error| error.to_string()),
            None => Ok(State::new(config, self.options)),
        }
    }
}

/// What a record says of a position. What it leaves out is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Step {
    /// The move that led here.
    #[serde(default)]
    pub m: String,
    by: Option<u8>,
    pl: u8,
    ph: String,
    lc: Option<usize>,
    lh: Option<String>,
    #[serde(rename = "L")]
    list: Option<Vec<String>>,
    h: Option<Vec<u16>>,
    b: Option<Vec<u16>>,
    e: Option<Vec<u16>>,
    t: Option<Vec<u16>>,
    k: Option<Vec<u16>>,
    c: Option<Vec<u16>>,
    #[serde(default)]
    pay: u8,
    d: Option<String>,
    board: Option<BoardText>,
    cells: Option<Value>,
    #[serde(default)]
    f: Vec<String>,
}

#[derive(Deserialize)]
struct End {
    moves: Option<u32>,
    result: String,
    reason: Option<String>,
    winner: Option<u8>,
    board: Option<BoardText>,
}

/// Where the rules and a record part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("game {game}, {place}: {reason}")]
pub struct Divergence {
    /// Name of the game; empty outside of one.
    pub game: String,
    /// Which move.
    pub place: String,
    /// What differs.
    pub reason: String,
    /// The position, drawn; empty if there is none.
    pub board: String,
}

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Games to their end.
    pub games: u64,
    /// Games that part from their record.
    pub failed: u64,
    /// Moves.
    pub moves: u64,
    /// Complete legal lists.
    pub lists: u64,
}

/// Plays recorded games again, line by line.
#[derive(Debug, Default)]
pub struct Replayer {
    running: Option<(Game, State)>,
    /// After a divergence: the rest of the game is passed over.
    skipping: bool,
    tally: Tally,
}

impl Replayer {
    /// A replayer that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was compared so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// The running game and its position.
    pub fn running(&self) -> Option<(&Game, &State)> {
        self.running.as_ref().map(|(game, state)| (game, state))
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// At the first difference within a game, whose other lines are passed over then.
    pub fn feed(&mut self, value: Value) -> Result<(), Divergence> {
        let result = match value["kind"].as_str() {
            Some("game") => {
                self.skipping = false;
                self.begin(value)
            }
            Some("end") if self.skipping => {
                self.skipping = false;
                Ok(())
            }
            _ if self.skipping => Ok(()),
            Some("end") => self.finish(value),
            Some(other) => Err(self.part(format!("{other:?} is no kind of line"))),
            None => self.step(value),
        };
        if result.is_err() {
            self.tally.failed += 1;
            self.skipping = true;
            self.running = None;
        }
        result
    }

    /// Says that there are no more lines.
    ///
    /// # Errors
    /// If the last game has no end.
    pub fn close(&mut self) -> Result<(), Divergence> {
        if self.running.is_none() {
            return Ok(());
        }
        let divergence = self.part("the file ends before the game".to_owned());
        self.tally.failed += 1;
        self.running = None;
        Err(divergence)
    }

    fn part(&self, reason: String) -> Divergence {
        let (game, place, board) = match &self.running {
            Some((game, state)) => {
                (game.id.clone(), format!("after move {}", state.move_number()), state.render())
            }
            None => (String::new(), "between games".to_owned(), String::new()),
        };
        Divergence { game, place, reason, board }
    }

    fn begin(&mut self, value: Value) -> Result<(), Divergence> {
        self.close()?;
        let game: Game = read(value).map_err(|reason| self.part(reason))?;
        let id = game.id.clone();
        let unreadable = |reason: String| Divergence {
            game: id.clone(),
            place: "at its start".to_owned(),
            reason,
            board: String::new(),
        };
        let state = game.state().map_err(unreadable)?;
        if let Some(init) = &game.init {
            self.tally.lists += u64::from(init.list.is_some());
            compare(&state, init)
                .map_err(|reason| Divergence { board: state.render(), ..unreadable(reason) })?;
        }
        self.running = Some((game, state));
        Ok(())
    }

    fn step(&mut self, value: Value) -> Result<(), Divergence> {
        let step: Step = read(value).map_err(|reason| self.part(reason))?;
        let Some((game, state)) = &mut self.running else {
            return Err(self.part("a move outside of a game".to_owned()));
        };
        let place = format!("move {}, {}", state.move_number() + 1, step.m);
        let made = make(state, &step).and_then(|()| compare(state, &step));
        made.map_err(|reason| Divergence {
            game: game.id.clone(),
            place,
            reason,
            board: state.render(),
        })?;
        self.tally.moves += 1;
        self.tally.lists += u64::from(step.list.is_some());
        Ok(())
    }

    fn finish(&mut self, value: Value) -> Result<(), Divergence> {
        let end: End = read(value).map_err(|reason| self.part(reason))?;
        let Some((_, state)) = &self.running else {
            return Err(self.part("an end outside of a game".to_owned()));
        };
        check_end(state, &end).map_err(|reason| self.part(reason))?;
        self.running = None;
        self.tally.games += 1;
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("the line cannot be read: {error}"))
}

fn make(state: &mut State, step: &Step) -> Result<(), String> {
    let by = state.to_move().number();
    same("player of the move", &by, &step.by.unwrap_or(by))?;
    let mv = state.parse(&step.m).map_err(|error| error.to_string())?;
    if let (Move::ChooseTerritory(region), Some(cells)) = (&mv, &step.cells) {
        let keyed = state.region_cells(*region);
        let keys: Vec<&str> = keyed.iter().map(|cell| state.geometry().key(cell)).collect();
        let recorded = match cells {
            Value::String(text) => text.clone(),
            Value::Array(keys) => {
                keys.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            other => return Err(format!("cells: {other} is no list")),
        };
        same("cells of the region", &keys.join(" "), &recorded)?;
    }
    state.apply(&mv).map_err(|error| error.to_string())
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    found: &T,
    recorded: &T,
) -> Result<(), String> {
    if found == recorded {
        return Ok(());
    }
    Err(format!("{what}: recorded {recorded:?}, the rules say {found:?}"))
}

fn compare(state: &State, step: &Step) -> Result<(), String> {
    if state.is_over() {
        same("player and phase", &(0, "game_over"), &(step.pl, step.ph.as_str()))?;
    } else {
        let found = (state.to_move().number(), state.phase().name());
        same("player and phase", &found, &(step.pl, step.ph.as_str()))?;
        same("payment due", &u8::from(state.payment_pending()), &step.pay)?;
    }
    let by_seat = |count: fn(&State, Seat) -> u16| -> Vec<u16> {
        state.config().seats().map(|seat| count(state, seat)).collect()
    };
    for (what, count, recorded) in [
        ("rings in hand", State::hand as fn(&State, Seat) -> u16, &step.h),
        ("rings on the board", State::rings_on_board, &step.b),
        ("eliminated rings", State::eliminated, &step.e),
        ("territory", State::territory, &step.t),
        ("markers", State::markers, &step.k),
        ("controlled stacks", State::stacks, &step.c),
    ] {
        if let Some(recorded) = recorded {
            same(what, &by_seat(count), recorded)?;
        }
    }
    if let Some(board) = &step.board {
        same("board", &BoardText::of(state), board)?;
    }
    if let Some(digest) = &step.d {
        same("digest", &state.digest(), digest)
            .map_err(|reason| format!("{reason}, of {}", state.digest_text()))?;
    }
    legal(state, step)
}

fn legal(state: &State, step: &Step) -> Result<(), String> {
    if step.lc.is_none() && step.lh.is_none() && step.list.is_none() {
        return Ok(());
    }
    let texts = state.legal_texts();
    if let Some(recorded) = &step.list {
        let missing: Vec<&String> = recorded.iter().filter(|mv| !texts.contains(mv)).collect();
        let new: Vec<&String> = texts.iter().filter(|mv| !recorded.contains(mv)).collect();
        if !missing.is_empty() || !new.is_empty() {
            return Err(format!(
                "legal moves: the rules lack {missing:?} and list besides {new:?}"
            ));
        }
    }
    if let Some(count) = step.lc {
        same("number of legal moves", &texts.len(), &count)?;
    }
    if let Some(hash) = step.lh.as_deref().filter(|_| !state.is_over()) {
        same("hash of the legal moves", hex(fnv64(&texts.join("\n"))).as_str(), hash)
            .map_err(|reason| format!("{reason}, of {texts:?}"))?;
    }
    let refused = step.f.iter().any(|flag| flag == "recovery_refused");
    same("flag recovery_refused", &state.recovery_refused(), &refused)
}

fn check_end(state: &State, end: &End) -> Result<(), String> {
    if let Some(moves) = end.moves {
        same("number of moves", &state.move_number(), &moves)?;
    }
    same("finished", &state.is_over(), &(end.result == "finished"))?;
    if let Some(outcome) = state.outcome() {
        same("reason", &Some(outcome.reason.name()), &end.reason.as_deref())?;
        same("winner", &Some(outcome.winner.number()), &end.winner)?;
    }
    match &end.board {
        Some(board) => same("last board", &BoardText::of(state), board),
        None => Ok(()),
    }
}
