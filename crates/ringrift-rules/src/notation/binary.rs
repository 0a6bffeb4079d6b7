//! Game records in a few bytes a move.
//!
//! Layout: the four bytes of [`MAGIC`], the version of the layout, then fields. Numbers are varints
//! (7 bits a byte, lowest first), texts are their length and their bytes. Rules version, config,
//! options, seed, name, players, result, number of moves, moves, and FNV-1a of all before in eight
//! bytes. A move is its type and its cells; nothing depends on the order of a legal list. A region is
//! its smallest cell, its size and half of the hash of its notation.

use crate::RULES_VERSION;
use crate::config::{Config, Options, Seat};
use crate::geometry::CellId;
use crate::moves::{EliminationContext, Kind, Move, Recovery, Run};
use crate::notation::record::{GameRecord, GameResult, ReplayError, replay};
use crate::notation::{fnv64, hex, keys};
use crate::state::State;
use crate::victory::Reason;

/// First bytes of a record.
pub const MAGIC: [u8; 4] = *b"RRGR";
/// Version of the layout.
const LAYOUT: u8 = 1;
/// Longest text and most moves that are read: far above any game, small enough to be harmless.
const LONGEST_TEXT: u64 = 4096;
const MOST_MOVES: u64 = 1_000_000;

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}{}: {reason}", self.place())]
pub struct BinaryError {
    /// Where reading ended.
    pub offset: usize,
    /// Number of the move, from 1, if one was being read.
    pub move_number: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

impl BinaryError {
    fn place(&self) -> String {
        self.move_number.map_or_else(String::new, |number| format!(", move {number}"))
    }
}

/// Writes a record, after replaying it.
///
/// # Errors
/// If the record does not replay to its result.
pub fn encode(record: &GameRecord) -> Result<Vec<u8>, ReplayError> {
    replay(record)?;
    let mut out = Writer(MAGIC.to_vec());
    out.0.push(LAYOUT);
    out.text(RULES_VERSION);
    out.text(&record.config.to_string());
    out.number(record.options.swap_rule.into());
    out.number(record.options.rings_per_player.map_or(0, |rings| u64::from(rings) + 1));
    out.number(record.options.lps_rounds.into());
    out.0.extend_from_slice(&record.seed.to_le_bytes());
    out.text(&record.id);
    for player in &record.players {
        out.text(player);
    }
    match &record.result {
        None => out.number(0),
        Some(result) => {
            out.number(result.winner.into());
            let reason = Reason::ALL.iter().position(|reason| reason.name() == result.reason);
            out.number(reason.unwrap_or(0) as u64);
        }
    }
    out.number(record.moves.len() as u64);
    let mut state = State::new(record.config, record.options);
    for (number, text) in (1..).zip(&record.moves) {
        let mv = state.parse(text).map_err(|source| ReplayError::Unreadable { number, source })?;
        out.write_move(&state, &mv);
        state.apply_legal(&mv);
    }
    let sum = fnv_bytes(&out.0);
    out.0.extend_from_slice(&sum.to_le_bytes());
    Ok(out.0)
}

/// Reads a record and replays it: what comes back is a legal game with its true result.
///
/// # Errors
/// At the first byte that is wrong, with the move that it belongs to.
pub fn decode(bytes: &[u8]) -> Result<GameRecord, BinaryError> {
    let mut reader = Reader { bytes, at: 0, move_number: None };
    if reader.take(4)? != MAGIC {
        return Err(reader.fault_at(0, "these are not the first bytes of a game record"));
    }
    let layout = reader.byte()?;
    if layout != LAYOUT {
        return Err(reader.fault(format!("layout {layout} is unknown, {LAYOUT} is read")));
    }
    let rules = reader.text()?;
    if rules != RULES_VERSION {
        return Err(reader.fault(format!("rules {rules:?} are not ours, {RULES_VERSION:?}")));
    }
    let config = reader.text()?;
    let config: Config = config.parse().map_err(|error| reader.fault(format!("{error}")))?;
    let options = reader.options()?;
    let seed = reader.eight()?;
    let id = reader.text()?;
    let mut players = Vec::new();
    for _ in config.seats() {
        players.push(reader.text()?);
    }
    let recorded = reader.result(config)?;
    let count = reader.number()?;
    if count > MOST_MOVES {
        return Err(reader.fault(format!("{count} moves are more than {MOST_MOVES}")));
    }
    let mut state = State::new(config, options);
    let mut moves = Vec::new();
    for number in 1..=usize::try_from(count).unwrap_or(usize::MAX) {
        reader.move_number = Some(number);
        let began = reader.at;
        let mv = reader.read_move(&state)?;
        moves.push(state.notate(&mv));
        state.apply(&mv).map_err(|illegal| reader.fault_at(began, &illegal.to_string()))?;
    }
    reader.move_number = None;
    let found = state.outcome().map(|outcome| (outcome.winner, outcome.reason));
    if found != recorded {
        return Err(reader.fault(format!("recorded is {recorded:?}, the moves end in {found:?}")));
    }
    let sum = fnv_bytes(&bytes[..reader.at]);
    if reader.eight()? != sum {
        return Err(reader.fault("the checksum differs".to_owned()));
    }
    if reader.at != bytes.len() {
        return Err(reader.fault(format!("{} bytes follow the record", bytes.len() - reader.at)));
    }
    let result = GameResult::of(&state);
    Ok(GameRecord { id, config, options, seed, players, moves, result })
}

fn fnv_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Lower half of the hash that the notation of a region has.
#[expect(clippy::cast_possible_truncation, reason = "half of it is wanted")]
fn region_hash(state: &State, mv: &Move) -> u32 {
    let Move::ChooseTerritory(region) = mv else { return 0 };
    fnv64(&keys(state.geometry(), &state.region_cells(*region))) as u32
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push((number & 0x7f) as u8);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn cell(&mut self, cell: CellId) {
        self.number(cell.0.into());
    }

    fn cells(&mut self, cells: &[CellId]) {
        for cell in cells {
            self.cell(*cell);
        }
    }

    fn run(&mut self, run: Run) {
        self.cell(run.start());
        self.0.extend_from_slice(&[run.axis(), run.len()]);
    }

    fn write_move(&mut self, state: &State, mv: &Move) {
        self.0.push(mv.kind() as u8);
        match mv {
            Move::PlaceRing { to, count } => {
                self.cell(*to);
                self.0.push(*count);
            }
            Move::MoveStack { from, to } => self.cells(&[*from, *to]),
            Move::OvertakingCapture { from, target, to }
            | Move::ContinueCapture { from, target, to } => {
                self.cells(&[*from, *target, *to]);
            }
            Move::RecoverySlide { from, to, how } => {
                self.cell(*from);
                self.cell(*to);
                let (mode, payer) = match how {
                    Recovery::Line { payer } => (0, payer),
                    Recovery::Fallback { payer } => (1, payer),
                    Recovery::StackStrike { payer } => (2, payer),
                    Recovery::LineWindow(run) => {
                        self.0.push(3);
                        return self.run(*run);
                    }
                };
                self.0.push(mode);
                self.cell(*payer);
            }
            Move::ProcessLine(line) => self.run(*line),
            Move::ChooseLineOption { line, collapse } => {
                self.run(*line);
                self.run(*collapse);
            }
            Move::EliminateRings { context, to } => {
                self.0.push(*context as u8);
                self.cell(*to);
            }
            Move::ChooseTerritory(region) => {
                self.cell(region.first());
                self.number(region.size() as u64);
                self.0.extend_from_slice(&region_hash(state, mv).to_le_bytes());
            }
            Move::ForcedElimination { to } => self.cell(*to),
            _ => {}
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    move_number: Option<usize>,
}

impl<'a> Reader<'a> {
    fn fault(&self, reason: String) -> BinaryError {
        BinaryError { offset: self.at, move_number: self.move_number, reason }
    }

    fn fault_at(&self, offset: usize, reason: &str) -> BinaryError {
        BinaryError { offset, move_number: self.move_number, reason: reason.to_owned() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BinaryError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..count) else {
            return Err(self.fault(format!("{count} bytes are due, {} are left", rest.len())));
        };
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, BinaryError> {
        self.take(1).map(|taken| taken[0])
    }

    fn eight(&mut self) -> Result<u64, BinaryError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn number(&mut self) -> Result<u64, BinaryError> {
        let began = self.at;
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // One spelling of one number: no zeros on top.
                if byte == 0 && shift > 0 {
                    return Err(self.fault_at(began, "a number is longer than it need be"));
                }
                return Ok(number);
            }
        }
        Err(self.fault_at(began, "a number is longer than eight bytes"))
    }

    fn text(&mut self) -> Result<String, BinaryError> {
        let began = self.at;
        let length = self.number()?;
        if length > LONGEST_TEXT {
            return Err(self.fault_at(began, "a text is longer than 4096 bytes"));
        }
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        match core::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.fault_at(began, "a text is no UTF-8")),
        }
    }

    fn small(&mut self, what: &str, most: u64) -> Result<u64, BinaryError> {
        let began = self.at;
        let number = self.number()?;
        if number > most {
            return Err(
                self.fault_at(began, &format!("{what} is {number}, allowed are 0 to {most}"))
            );
        }
        Ok(number)
    }

    fn options(&mut self) -> Result<Options, BinaryError> {
        let swap_rule = self.small("the swap rule", 1)? == 1;
        let rings = self.small("rings per player", u64::from(u16::MAX))?;
        let rounds = self.small("rounds of the last player", u64::from(u8::MAX))?;
        Ok(Options {
            swap_rule,
            rings_per_player: rings.checked_sub(1).and_then(|rings| u16::try_from(rings).ok()),
            lps_rounds: u8::try_from(rounds).unwrap_or(u8::MAX),
        })
    }

    fn result(&mut self, config: Config) -> Result<Option<(Seat, Reason)>, BinaryError> {
        let winner = self.small("the winner", config.players.into())?;
        let Some(winner) = u8::try_from(winner).ok().and_then(Seat::new) else { return Ok(None) };
        let reason = self.small("the reason", Reason::ALL.len() as u64 - 1)?;
        Ok(usize::try_from(reason).ok().map(|at| (winner, Reason::ALL[at])))
    }

    fn cell(&mut self, state: &State) -> Result<CellId, BinaryError> {
        let cells = state.geometry().len() as u64;
        let cell = self.small("a cell", cells - 1)?;
        Ok(CellId::from_index(usize::try_from(cell).unwrap_or(0)))
    }

    fn run(&mut self, state: &State) -> Result<Run, BinaryError> {
        let began = self.at;
        let start = self.cell(state)?;
        let (axis, len) = (self.byte()?, self.byte()?);
        let geometry = state.geometry();
        let fits = geometry.axes().contains(&axis)
            && len >= 1
            && usize::from(len) <= geometry.ray(start, axis).len() + 1;
        if !fits {
            return Err(self.fault_at(began, "this is no row of cells"));
        }
        Ok(Run::new(geometry, start, axis, len))
    }

    fn read_move(&mut self, state: &State) -> Result<Move, BinaryError> {
        let began = self.at;
        let kind = self.byte()?;
        let Some(kind) = Kind::ALL.get(usize::from(kind)) else {
            return Err(self.fault_at(began, &format!("{kind} is no type of move")));
        };
        Ok(match kind {
            Kind::PlaceRing => Move::PlaceRing { to: self.cell(state)?, count: self.byte()? },
            Kind::MoveStack => Move::MoveStack { from: self.cell(state)?, to: self.cell(state)? },
            Kind::OvertakingCapture => Move::OvertakingCapture {
                from: self.cell(state)?,
                target: self.cell(state)?,
                to: self.cell(state)?,
            },
            Kind::ContinueCapture => Move::ContinueCapture {
                from: self.cell(state)?,
                target: self.cell(state)?,
                to: self.cell(state)?,
            },
            Kind::RecoverySlide => {
                let (from, to) = (self.cell(state)?, self.cell(state)?);
                let how = match self.byte()? {
                    0 => Recovery::Line { payer: self.cell(state)? },
                    1 => Recovery::Fallback { payer: self.cell(state)? },
                    2 => Recovery::StackStrike { payer: self.cell(state)? },
                    3 => Recovery::LineWindow(self.run(state)?),
                    other => return Err(self.fault(format!("{other} is no mode of recovery"))),
                };
                Move::RecoverySlide { from, to, how }
            }
            Kind::ProcessLine => Move::ProcessLine(self.run(state)?),
            Kind::ChooseLineOption => {
                Move::ChooseLineOption { line: self.run(state)?, collapse: self.run(state)? }
            }
            Kind::EliminateRings => {
                let context = match self.byte()? {
                    0 => EliminationContext::Line,
                    1 => EliminationContext::Territory,
                    2 => EliminationContext::Recovery,
                    other => return Err(self.fault(format!("{other} is no context"))),
                };
                Move::EliminateRings { context, to: self.cell(state)? }
            }
            Kind::ChooseTerritory => {
                let first = self.cell(state)?;
                let size = self.number()?;
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                let hash = u32::from_le_bytes(bytes);
                let mut regions = state
                    .regions()
                    .into_iter()
                    .filter(|region| region.first() == first && region.size() as u64 == size);
                let found = regions.find_map(|region| {
                    let mv = Move::ChooseTerritory(region);
                    (region_hash(state, &mv) == hash).then_some(mv)
                });
                found.ok_or_else(|| {
                    let text = format!(
                        "no region of {size} cells from {} with hash ..{} can be processed here",
                        state.geometry().key(first),
                        &hex(hash.into())[8..]
                    );
                    self.fault_at(began, &text)
                })?
            }
            Kind::ForcedElimination => Move::ForcedElimination { to: self.cell(state)? },
            Kind::SkipPlacement => Move::SkipPlacement,
            Kind::NoPlacementAction => Move::NoPlacementAction,
            Kind::SwapSides => Move::SwapSides,
            Kind::SkipCapture => Move::SkipCapture,
            Kind::NoMovementAction => Move::NoMovementAction,
            Kind::SkipRecovery => Move::SkipRecovery,
            Kind::NoLineAction => Move::NoLineAction,
            Kind::SkipTerritory => Move::SkipTerritory,
            Kind::NoTerritoryAction => Move::NoTerritoryAction,
        })
    }
}
