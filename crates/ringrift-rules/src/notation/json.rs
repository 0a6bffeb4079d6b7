//! Positions as JSON: the start boards of the reference games, and any position with its turn.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{Board, Config, Options, Seat};
use crate::geometry::{CellId, Geometry};
use crate::state::{Cell, LastPlayerStanding, Phase, State};

/// A board by keys of cells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoardText {
    /// Numbers of the seats that own the rings, top first.
    pub stacks: BTreeMap<String, Vec<u8>>,
    /// Owners of markers.
    pub markers: BTreeMap<String, u8>,
    /// Owners of collapsed cells.
    pub collapsed: BTreeMap<String, u8>,
}

/// A position: the form of `start` and of `heuristic_ref` in `games/README.md`. What is absent is
/// as at the start of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Seat to move.
    #[serde(alias = "player")]
    pub pl: u8,
    /// Name of the phase.
    #[serde(default = "first_phase")]
    pub ph: String,
    /// Rings in hand by seat.
    pub h: Vec<u16>,
    /// Eliminated rings by seat.
    pub e: Vec<u16>,
    /// Territory by seat; written for the reader, not read: the board says it.
    #[serde(default)]
    pub t: Vec<u16>,
    /// 1 while a ring is due for a line.
    #[serde(default)]
    pub pay: u8,
    /// The board.
    pub board: BoardText,
    /// 1 if the player has changed the board this turn.
    #[serde(default)]
    pub acted: u8,
    /// 1 if the player has made a recovery slide this turn.
    #[serde(default)]
    pub recovered: u8,
    /// Cell of the stack that must move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must: Option<String>,
    /// Cell of the stack that may capture, in phase capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub land: Option<String>,
    /// Cell of the stack that must capture, in phase chain capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// Cells of the region whose payment is due; that there is one is all that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Vec<String>>,
    /// Pie rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapText>,
    /// Tracker of the last player standing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lps: Option<TrackerText>,
}

fn first_phase() -> String {
    Phase::RingPlacement.name().to_owned()
}

/// What the pie rule needs to know; each 0 or 1.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwapText {
    /// Seat 1 has made a move.
    pub p1moved: u8,
    /// Seat 2 has made a move.
    pub p2moved: u8,
    /// The swap was used.
    pub used: u8,
}

/// Tracker of section 13.3; 0 = none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackerText {
    /// First seat of the round.
    pub first: u8,
    /// By seat: 1 = had a real action.
    pub mask: BTreeMap<String, u8>,
    /// Candidate.
    pub cand: u8,
    /// Rounds in a row.
    pub streak: u8,
}

/// Why a position cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentence of each says it")]
pub enum PositionError {
    #[error("{key:?} is no cell of {config}")]
    Cell { key: String, config: Config },
    #[error("{found} is no seat of {config}")]
    Seat { found: String, config: Config },
    #[error("cell {key} is given twice")]
    Occupied { key: String },
    #[error("the stack on {key} has no rings")]
    EmptyStack { key: String },
    #[error("{found:?} is no phase of a running game")]
    Phase { found: String },
    #[error("{field} has {found} numbers for {config}")]
    Seats { field: &'static str, found: usize, config: Config },
    #[error("a position has at most {limit} rings, this one has {found}")]
    Rings { found: u64, limit: u64 },
    #[error("the player controls no stack on {key}, which {field} names")]
    NoStack { field: &'static str, key: String },
    #[error("the phase is forced_elimination although seat {seat} could act (section 11)")]
    NotForced { seat: Seat },
    #[error("{found:?} is no board; allowed are {}", Board::ALL.map(Board::name).join(", "))]
    Board { found: String },
    #[error("a board {board} of size {found} is none of the four boards")]
    Size { board: Board, found: u64 },
    #[error("field {field} is missing or not what it should be")]
    Field { field: &'static str },
    #[error("the player cannot process a region of these cells (section 9)")]
    Region,
    #[error("it is a move of seat {found}, seat {seat} is to move")]
    Turn { found: u8, seat: Seat },
}

/// Most rings of a position that is read; far above any game, low enough for all counters.
const MOST_RINGS: u64 = 10_000;

/// Reads keys and seats of one configuration.
pub(crate) struct Reader {
    pub(crate) config: Config,
    pub(crate) geometry: &'static Geometry,
}

impl Reader {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, geometry: config.board.geometry() }
    }

    pub(crate) fn cell(&self, key: &str) -> Result<CellId, PositionError> {
        let (key, config) = (key.to_owned(), self.config);
        self.geometry.cell(&key).ok_or(PositionError::Cell { key, config })
    }

    pub(crate) fn seat(&self, number: u64) -> Result<Seat, PositionError> {
        u8::try_from(number)
            .ok()
            .and_then(Seat::new)
            .filter(|seat| seat.number() <= self.config.players)
            .ok_or_else(|| PositionError::Seat { found: number.to_string(), config: self.config })
    }

    fn seat_or_none(&self, number: u8) -> Result<Option<Seat>, PositionError> {
        if number == 0 { Ok(None) } else { self.seat(number.into()).map(Some) }
    }
}

impl BoardText {
    /// The board of a position.
    pub fn of(state: &State) -> Self {
        let mut board = Self::default();
        for cell in state.geometry().cells() {
            let key = state.geometry().key(cell).to_owned();
            match state.cell(cell) {
                Cell::Empty => {}
                Cell::Marker(seat) => {
                    board.markers.insert(key, seat.number());
                }
                Cell::Collapsed(seat) => {
                    board.collapsed.insert(key, seat.number());
                }
                Cell::Stack(stack) => {
                    board.stacks.insert(key, stack.rings().map(Seat::number).collect());
                }
            }
        }
        board
    }

    /// Sets the board up in a position whose board is empty.
    fn set_up(&self, state: &mut State) -> Result<(), PositionError> {
        let reader = Reader::new(state.config());
        let free = |state: &State, key: &str| {
            let cell = reader.cell(key)?;
            if state.is_empty(cell) {
                Ok(cell)
            } else {
                Err(PositionError::Occupied { key: key.to_owned() })
            }
        };
        let mut stacks = Vec::with_capacity(self.stacks.len());
        for (key, rings) in &self.stacks {
            let cell = free(state, key)?;
            if stacks.iter().any(|(other, _)| *other == cell) {
                return Err(PositionError::Occupied { key: key.clone() });
            }
            if rings.is_empty() {
                return Err(PositionError::EmptyStack { key: key.clone() });
            }
            let bottom_first: Result<Vec<Seat>, PositionError> =
                rings.iter().rev().map(|ring| reader.seat((*ring).into())).collect();
            stacks.push((cell, bottom_first?));
        }
        state.set_up_stacks(&stacks);
        for (key, owner) in &self.markers {
            let (cell, seat) = (free(state, key)?, reader.seat((*owner).into())?);
            state.put_marker(cell, seat);
        }
        for (key, owner) in &self.collapsed {
            let (cell, seat) = (free(state, key)?, reader.seat((*owner).into())?);
            state.collapse(cell, seat);
        }
        Ok(())
    }
}

impl Position {
    /// A position at the start of a turn.
    pub fn at_turn_start(seat: Seat, hands: &[u16], eliminated: &[u16], board: BoardText) -> Self {
        Self {
            pl: seat.number(),
            ph: first_phase(),
            h: hands.to_vec(),
            e: eliminated.to_vec(),
            t: Vec::new(),
            pay: 0,
            board,
            acted: 0,
            recovered: 0,
            must: None,
            land: None,
            chain: None,
            region: None,
            swap: None,
            lps: None,
        }
    }

    /// The position of a running game. Which cells a due region had is not known any more.
    pub fn of(state: &State) -> Self {
        let by_seat = |count: fn(&State, Seat) -> u16| -> Vec<u16> {
            state.config().seats().map(|seat| count(state, seat)).collect()
        };
        let key = |cell: Option<CellId>| cell.map(|cell| state.geometry().key(cell).to_owned());
        let attacker = |phase: Phase| key(state.chain_cell().filter(|_| state.phase() == phase));
        let (turn, lps) = (&state.turn, state.last_player_standing());
        let number = |seat: Option<Seat>| seat.map_or(0, Seat::number);
        let mask = (1u8..)
            .zip(lps.acted)
            .filter_map(|(seat, acted)| acted.map(|acted| (seat.to_string(), u8::from(acted))));
        Self {
            pl: state.to_move().number(),
            ph: state.phase().name().to_owned(),
            h: by_seat(State::hand),
            e: by_seat(State::eliminated),
            t: by_seat(State::territory),
            pay: turn.line_payment.into(),
            board: BoardText::of(state),
            acted: turn.acted.into(),
            recovered: turn.recovered.into(),
            must: key(turn.must_move),
            land: attacker(Phase::Capture),
            chain: attacker(Phase::ChainCapture),
            region: turn.region_payment.then(Vec::new),
            swap: state.options().swap_rule.then(|| SwapText {
                p1moved: turn.moved[0].into(),
                p2moved: turn.moved[1].into(),
                used: turn.swapped.into(),
            }),
            lps: lps.first.map(|_| TrackerText {
                first: number(lps.first),
                mask: mask.collect(),
                cand: number(lps.candidate),
                streak: lps.streak,
            }),
        }
    }

    /// The position as a state with move number 0.
    ///
    /// # Errors
    /// If it is none of this configuration, with what is wrong.
    pub fn state(&self, config: Config, options: Options) -> Result<State, PositionError> {
        let reader = Reader::new(config);
        for (field, numbers) in [("h", &self.h), ("e", &self.e)] {
            if numbers.len() != usize::from(config.players) {
                return Err(PositionError::Seats { field, found: numbers.len(), config });
            }
        }
        let stacked: usize = self.board.stacks.values().map(Vec::len).sum();
        let kept: u64 = self.h.iter().chain(&self.e).map(|count| u64::from(*count)).sum();
        let found = kept + stacked as u64;
        if found > MOST_RINGS {
            return Err(PositionError::Rings { found, limit: MOST_RINGS });
        }

        let mut state = State::new(config, options);
        for seat in config.seats() {
            state.counts.hand[seat.index()] = self.h[seat.index()];
            state.counts.eliminated[seat.index()] = self.e[seat.index()];
        }
        self.board.set_up(&mut state)?;
        state.reserve();

        let seat = reader.seat(self.pl.into())?;
        let phase = Phase::ALL
            .into_iter()
            .find(|phase| phase.name() == self.ph && *phase != Phase::GameOver)
            .ok_or_else(|| PositionError::Phase { found: self.ph.clone() })?;
        let own_stack = |field: &'static str, key: &Option<String>| {
            let Some(key) = key else { return Ok(None) };
            let cell = reader.cell(key)?;
            match state.stack(cell) {
                Some(stack) if stack.controller() == seat => Ok(Some(cell)),
                _ => Err(PositionError::NoStack { field, key: key.clone() }),
            }
        };
        let must_move = own_stack("must", &self.must)?;
        let (land, chain) = (own_stack("land", &self.land)?, own_stack("chain", &self.chain)?);

        let turn = &mut state.turn;
        turn.seat = seat;
        turn.phase = phase;
        turn.must_move = must_move;
        turn.attacker = chain.or(land);
        turn.line_payment = self.pay != 0;
        turn.region_payment = self.region.is_some();
        turn.acted = self.acted != 0;
        turn.recovered = self.recovered != 0;
        if let Some(swap) = &self.swap {
            turn.moved = [swap.p1moved != 0, swap.p2moved != 0];
            turn.swapped = swap.used != 0;
        }
        if let Some(lps) = &self.lps {
            let mut acted = [None; 4];
            for (number, had) in &lps.mask {
                let found = || PositionError::Seat { found: number.clone(), config };
                let seat = reader.seat(number.parse().map_err(|_| found())?)?;
                acted[seat.index()] = Some(*had != 0);
            }
            turn.lps = LastPlayerStanding {
                first: reader.seat_or_none(lps.first)?,
                acted,
                candidate: reader.seat_or_none(lps.cand)?,
                streak: lps.streak,
            };
        }
        // The phase is only entered when nothing else could be done, and nothing has changed since.
        if phase == Phase::ForcedElimination && state.has_real_action(seat) {
            return Err(PositionError::NotForced { seat });
        }
        Ok(state)
    }
}
