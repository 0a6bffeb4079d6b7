//! Moves and positions as text, game records, JSON: all that leaves the process.
//!
//! Notation, hash and digest are those of `games/README.md`.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::string::ToString as _;
use alloc::vec::Vec;

#[cfg(feature = "json")]
pub mod binary;
#[cfg(feature = "json")]
pub mod corpus;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "json")]
pub mod published;
#[cfg(feature = "json")]
pub mod record;
#[cfg(feature = "json")]
pub mod vectors;

#[cfg(feature = "json")]
mod cost;

use core::fmt::Write as _;

use crate::cellset::CellSet;
use crate::geometry::{CellId, Geometry};
use crate::moves::{EliminationContext, Kind, Move, Recovery, Run};
use crate::state::{Cell, State};

/// FNV-1a with 64 bits.
pub fn fnv64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A hash as it is written: 16 lower-case hex digits.
pub fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Keys of cells in ascending order, joined by one blank.
fn keys(geometry: &Geometry, cells: &CellSet) -> String {
    let keys: Vec<&str> = cells.iter().map(|cell| geometry.key(cell)).collect();
    keys.join(" ")
}

fn run_keys(geometry: &Geometry, run: Run) -> String {
    keys(geometry, &run.cells(geometry).collect())
}

impl State {
    /// A move in notation, for example `M 0,0>0,2`.
    pub fn notate(&self, mv: &Move) -> String {
        let geometry = self.geometry;
        let key = |cell: &CellId| geometry.key(*cell);
        let word = mv.kind().word();
        match mv {
            Move::PlaceRing { to, count } => format!("{word} {} {count}", key(to)),
            Move::MoveStack { from, to } => format!("{word} {}>{}", key(from), key(to)),
            Move::OvertakingCapture { from, target, to }
            | Move::ContinueCapture { from, target, to } => {
                format!("{word} {}*{}>{}", key(from), key(target), key(to))
            }
            Move::RecoverySlide { from, to, how } => {
                let price = match how {
                    Recovery::LineWindow(run) => format!("2 x {}", run_keys(geometry, *run)),
                    Recovery::Line { payer }
                    | Recovery::Fallback { payer }
                    | Recovery::StackStrike { payer } => format!("1 x{}", key(payer)),
                };
                format!("{word} {} {}>{} {price}", how.mode(), key(from), key(to))
            }
            Move::ProcessLine(line) => format!("{word} {}", run_keys(geometry, *line)),
            Move::ChooseLineOption { line, collapse } => {
                let (line, collapse) = (run_keys(geometry, *line), run_keys(geometry, *collapse));
                format!("{word} {line} / {collapse}")
            }
            Move::EliminateRings { context, to } => {
                format!("{word} {} {}", context.name(), key(to))
            }
            Move::ChooseTerritory(region) => {
                let hash = hex(fnv64(&keys(geometry, &self.region_cells(*region))));
                format!("{word} {} {} {hash}", key(&region.first()), region.size())
            }
            Move::ForcedElimination { to } => format!("{word} {}", key(to)),
            Move::SkipPlacement
            | Move::NoPlacementAction
            | Move::SwapSides
            | Move::SkipCapture
            | Move::NoMovementAction
            | Move::SkipRecovery
            | Move::NoLineAction
            | Move::SkipTerritory
            | Move::NoTerritoryAction => word.to_owned(),
        }
    }
}

impl Move {
    /// The move in words, for people: `moves from 0,0 to 0,2`.
    pub fn describe(&self, geometry: &Geometry) -> String {
        let key = |cell: &CellId| geometry.key(*cell);
        match self {
            Self::PlaceRing { to, count: 1 } => format!("places a ring on {}", key(to)),
            Self::PlaceRing { to, count } => format!("places {count} rings on {}", key(to)),
            Self::MoveStack { from, to } => format!("moves from {} to {}", key(from), key(to)),
            Self::OvertakingCapture { from, target, to }
            | Self::ContinueCapture { from, target, to } => {
                format!("captures {} from {}, landing on {}", key(target), key(from), key(to))
            }
            Self::RecoverySlide { from, to, how } => {
                let price = match how {
                    Recovery::LineWindow(run) => {
                        format!("collapsing {}, free of charge", run_keys(geometry, *run))
                    }
                    Recovery::Line { payer } => {
                        format!("completing a line, for a ring of {}", key(payer))
                    }
                    Recovery::Fallback { payer } => format!("for a ring of {}", key(payer)),
                    Recovery::StackStrike { payer } => {
                        format!("striking the stack, for a ring of {}", key(payer))
                    }
                };
                format!("slides a marker from {} to {}, {price}", key(from), key(to))
            }
            Self::ProcessLine(line) => format!("collapses the line {}", run_keys(geometry, *line)),
            Self::ChooseLineOption { line, collapse } if line == collapse => {
                format!("collapses all of the line {}", run_keys(geometry, *line))
            }
            Self::ChooseLineOption { collapse, .. } => {
                format!("collapses {} of a longer line", run_keys(geometry, *collapse))
            }
            Self::EliminateRings { context, to } => {
                format!("pays for {} with {}", context.name(), key(to))
            }
            Self::ChooseTerritory(region) => {
                let first = key(&region.first());
                format!("takes the region of {} cells with {first}", region.size())
            }
            Self::ForcedElimination { to } => format!("gives up the cap on {}", key(to)),
            Self::SkipPlacement => "places nothing".to_owned(),
            Self::NoPlacementAction => "can place nothing".to_owned(),
            Self::SwapSides => "takes the place of seat 1".to_owned(),
            Self::SkipCapture => "captures nothing".to_owned(),
            Self::NoMovementAction => "can move nothing".to_owned(),
            Self::SkipRecovery => "does not recover".to_owned(),
            Self::NoLineAction => "has no line".to_owned(),
            Self::SkipTerritory => "takes no region".to_owned(),
            Self::NoTerritoryAction => "has no region".to_owned(),
        }
    }
}

/// A text that is no move of this board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotationError {
    /// The text given, at most its first 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl core::fmt::Display for NotationError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} is no move: {}", self.text, self.reason)
    }
}

impl core::error::Error for NotationError {}

impl State {
    /// All legal moves in notation, sorted as ASCII.
    pub fn legal_texts(&self) -> Vec<String> {
        let mut moves = Vec::new();
        self.legal_moves(&mut moves);
        let mut texts: Vec<String> = moves.iter().map(|mv| self.notate(mv)).collect();
        texts.sort_unstable();
        texts
    }

    /// Reads a move. A region is written by its hash, so it must be on offer in this position; every
    /// other move is read whether or not it is legal here.
    ///
    /// # Errors
    /// If the text does not follow the notation, or names cells that the board does not have.
    pub fn parse(&self, text: &str) -> Result<Move, NotationError> {
        self.read(text).map_err(|reason| NotationError {
            text: text.chars().take(200).collect(),
            reason: reason.to_owned(),
        })
    }

    fn read(&self, text: &str) -> Result<Move, &'static str> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
        let mv = match kind.ok_or("its first word is no type of move")? {
            Kind::PlaceRing => {
                let (to, count) = rest.split_once(' ').ok_or("number of rings missing")?;
                let count = count.parse().ok().ok_or("the number of rings is no number")?;
                Move::PlaceRing { to: self.key(to)?, count }
            }
            Kind::MoveStack => {
                let (from, to) = self.step(rest)?;
                Move::MoveStack { from, to }
            }
            Kind::OvertakingCapture => {
                let (from, target, to) = self.segment(rest)?;
                Move::OvertakingCapture { from, target, to }
            }
            Kind::ContinueCapture => {
                let (from, target, to) = self.segment(rest)?;
                Move::ContinueCapture { from, target, to }
            }
            Kind::RecoverySlide => self.recovery(rest)?,
            Kind::ProcessLine => Move::ProcessLine(self.run(rest)?),
            Kind::ChooseLineOption => {
                let (line, collapse) = rest.split_once(" / ").ok_or("a blank, / and blank miss")?;
                Move::ChooseLineOption { line: self.run(line)?, collapse: self.run(collapse)? }
            }
            Kind::EliminateRings => {
                let (context, to) = rest.split_once(' ').ok_or("cell missing")?;
                let context = [
                    EliminationContext::Line,
                    EliminationContext::Territory,
                    EliminationContext::Recovery,
                ]
                .into_iter()
                .find(|known| known.name() == context)
                .ok_or("the context is not line, territory or recovery")?;
                Move::EliminateRings { context, to: self.key(to)? }
            }
            Kind::ChooseTerritory => self
                .regions()
                .into_iter()
                .map(Move::ChooseTerritory)
                .find(|mv| self.notate(mv) == text)
                .ok_or("no such region can be processed in this position")?,
            Kind::ForcedElimination => Move::ForcedElimination { to: self.key(rest)? },
            Kind::SkipPlacement => Move::SkipPlacement,
            Kind::NoPlacementAction => Move::NoPlacementAction,
            Kind::SwapSides => Move::SwapSides,
            Kind::SkipCapture => Move::SkipCapture,
            Kind::NoMovementAction => Move::NoMovementAction,
            Kind::SkipRecovery => Move::SkipRecovery,
            Kind::NoLineAction => Move::NoLineAction,
            Kind::SkipTerritory => Move::SkipTerritory,
            Kind::NoTerritoryAction => Move::NoTerritoryAction,
        };
        // One text for one move: what is read is written the same way.
        if self.notate(&mv) == text { Ok(mv) } else { Err("it is not written in the usual form") }
    }

    fn key(&self, key: &str) -> Result<CellId, &'static str> {
        self.geometry.cell(key).ok_or("it names a cell that is not on the board")
    }

    fn step(&self, text: &str) -> Result<(CellId, CellId), &'static str> {
        let (from, to) = text.split_once('>').ok_or("> between the cells missing")?;
        Ok((self.key(from)?, self.key(to)?))
    }

    fn segment(&self, text: &str) -> Result<(CellId, CellId, CellId), &'static str> {
        let (from, rest) = text.split_once('*').ok_or("* before the target missing")?;
        let (target, to) = self.step(rest)?;
        Ok((self.key(from)?, target, to))
    }

    fn run(&self, text: &str) -> Result<Run, &'static str> {
        let cells: Vec<CellId> =
            text.split(' ').map(|key| self.key(key)).collect::<Result<_, _>>()?;
        Run::of_cells(self.geometry, &cells).ok_or("its cells are not a row")
    }

    fn recovery(&self, text: &str) -> Result<Move, &'static str> {
        let mut parts = text.splitn(4, ' ');
        let mut part = || parts.next().ok_or("it is too short");
        let (mode, step, option, price) = (part()?, part()?, part()?, part()?);
        let (from, to) = self.step(step)?;
        let price = price.strip_prefix('x').ok_or("x before what it costs missing")?;
        let how = match (mode, option) {
            ("line", "2") => {
                Recovery::LineWindow(self.run(price.strip_prefix(' ').ok_or("blank missing")?)?)
            }
            ("line", "1") => Recovery::Line { payer: self.key(price)? },
            ("fallback", "1") => Recovery::Fallback { payer: self.key(price)? },
            ("stack_strike", "1") => Recovery::StackStrike { payer: self.key(price)? },
            _ => return Err("there is no such mode and option of recovery"),
        };
        Ok(Move::RecoverySlide { from, to, how })
    }

    /// The whole position as text (`games/README.md`, "Digest text").
    pub fn digest_text(&self) -> String {
        let mut text = if self.is_over() {
            let winner = self.outcome().map_or(0, |outcome| outcome.winner.number());
            format!("0;game_over;completed;{winner};0")
        } else {
            let pay = u8::from(self.payment_pending());
            format!("{};{};active;0;{pay}", self.to_move(), self.phase())
        };
        let mut separator = '#';
        for seat in self.config().seats() {
            let (hand, out, own) = (self.hand(seat), self.eliminated(seat), self.territory(seat));
            let _ = write!(text, "{separator}{seat}:{hand}:{out}:{own}");
            separator = '|';
        }
        let (mut stacks, mut markers, mut collapsed) = (Vec::new(), Vec::new(), Vec::new());
        for cell in self.geometry.cells() {
            let key = self.geometry.key(cell);
            match self.cell(cell) {
                Cell::Empty => {}
                Cell::Marker(seat) => markers.push(format!("{key}:{seat}")),
                Cell::Collapsed(seat) => collapsed.push(format!("{key}:{seat}")),
                Cell::Stack(stack) => {
                    let rings: String = stack.rings().map(|seat| seat.to_string()).collect();
                    stacks.push(format!("{key}:{rings}"));
                }
            }
        }
        for part in [stacks, markers, collapsed] {
            text.push('#');
            text.push_str(&part.join("|"));
        }
        text
    }

    /// Hash of the whole position, 16 hex digits.
    pub fn digest(&self) -> String {
        hex(fnv64(&self.digest_text()))
    }
}

#[cfg(test)]
mod tests;
