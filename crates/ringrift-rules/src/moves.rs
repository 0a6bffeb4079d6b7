//! Moves: what a record lists, one variant per recorded type of section 3.

use core::fmt;

use crate::cellset::Region;
use crate::geometry::{CellId, Geometry, Symmetry};
use crate::state::State;

/// Cells in a row: a line of markers, or the part of one that collapses.
///
/// Made by [`Run::new`], which takes the direction that the board's axes name, so that the same
/// cells are always the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    start: CellId,
    axis: u8,
    len: u8,
}

impl Run {
    /// `len` cells from `start` in a direction, in the form with the axis' own direction.
    pub(crate) fn new(geometry: &Geometry, start: CellId, direction: u8, len: u8) -> Self {
        if geometry.axes().contains(&direction) {
            return Self { start, axis: direction, len };
        }
        let end = Self { start, axis: direction, len }.cells(geometry).last().unwrap_or(start);
        Self { start: end, axis: geometry.opposite(direction), len }
    }

    /// The run of these cells, given in ascending or descending order.
    pub(crate) fn of_cells(geometry: &Geometry, cells: &[CellId]) -> Option<Self> {
        let (&first, &last) = (cells.first()?, cells.last()?);
        let (direction, steps) = geometry.lane(first, last)?;
        let run = Self::new(geometry, first, direction, steps + 1);
        let ray = geometry.ray(first, direction).iter().take(usize::from(steps));
        cells[1..].iter().eq(ray).then_some(run)
    }

    /// `len` cells of this run, leaving out the first `skip`.
    pub(crate) fn window(self, geometry: &Geometry, skip: u8, len: u8) -> Self {
        let start = self.cells(geometry).nth(usize::from(skip)).unwrap_or(self.start);
        Self { start, axis: self.axis, len }
    }

    /// First cell, in the direction of the axis.
    pub const fn start(self) -> CellId {
        self.start
    }

    /// Direction of the axis, one of [`Geometry::axes`].
    pub const fn axis(self) -> u8 {
        self.axis
    }

    /// Number of cells.
    pub const fn len(self) -> u8 {
        self.len
    }

    /// Never: a run has cells.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The cells, in the direction of the axis.
    pub fn cells(self, geometry: &Geometry) -> impl Iterator<Item = CellId> + Clone + '_ {
        let rest = geometry.ray(self.start, self.axis).iter().copied();
        core::iter::once(self.start).chain(rest).take(usize::from(self.len))
    }

    /// The image of the run.
    #[must_use]
    pub fn permuted(self, symmetry: &Symmetry) -> Self {
        let geometry = symmetry.board().geometry();
        let direction = symmetry.direction(self.axis);
        Self::new(geometry, symmetry.cell(self.start), direction, self.len)
    }
}

/// What a payment of rings is for (section 10, without forced elimination, which is a move type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EliminationContext {
    /// One top ring for a collapsed line.
    Line,
    /// A whole cap for a processed region.
    Territory,
    /// The bottom-most own ring, for a region processed in a turn of recovery.
    Recovery,
}

impl EliminationContext {
    /// Name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Territory => "territory",
            Self::Recovery => "recovery",
        }
    }
}

/// How a recovery slide works and what it costs (section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Recovery {
    /// Completes a line, all of it collapses; `payer` gives up the bottom-most ring of the player.
    Line {
        /// Stack that holds the ring.
        payer: CellId,
    },
    /// Completes a line of which just this part collapses, free of charge (option 2).
    LineWindow(Run),
    /// Completes no line.
    Fallback {
        /// Stack that holds the ring.
        payer: CellId,
    },
    /// Gives the marker for the top ring of the stack at the landing cell.
    StackStrike {
        /// Stack that holds the ring.
        payer: CellId,
    },
}

impl Recovery {
    /// Name of the mode in records.
    pub const fn mode(self) -> &'static str {
        match self {
            Self::Line { .. } | Self::LineWindow(_) => "line",
            Self::Fallback { .. } => "fallback",
            Self::StackStrike { .. } => "stack_strike",
        }
    }

    /// The stack that pays, if the slide costs a ring.
    pub const fn payer(self) -> Option<CellId> {
        match self {
            Self::Line { payer } | Self::Fallback { payer } | Self::StackStrike { payer } => {
                Some(payer)
            }
            Self::LineWindow(_) => None,
        }
    }
}

/// A recorded move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Move {
    /// Puts rings from the hand on a cell.
    PlaceRing {
        /// Where.
        to: CellId,
        /// How many, 1 to 3.
        count: u8,
    },
    /// Declines to place although rings are in hand.
    SkipPlacement,
    /// No ring can be placed, and placing cannot be declined.
    NoPlacementAction,
    /// Seat 2 takes the place of seat 1 (pie rule): the persons change, the board does not.
    SwapSides,
    /// Moves a stack.
    MoveStack {
        /// From where.
        from: CellId,
        /// To where.
        to: CellId,
    },
    /// First capture of a turn.
    OvertakingCapture {
        /// Where the attacker stands.
        from: CellId,
        /// The stack it jumps over.
        target: CellId,
        /// Where it lands.
        to: CellId,
    },
    /// A further capture of the same stack in the same turn.
    ContinueCapture {
        /// Where the attacker stands.
        from: CellId,
        /// The stack it jumps over.
        target: CellId,
        /// Where it lands.
        to: CellId,
    },
    /// Declines to capture after a movement.
    SkipCapture,
    /// Nothing can move.
    NoMovementAction,
    /// Slides a marker of a player without stacks, to win back a buried ring's worth.
    RecoverySlide {
        /// From where.
        from: CellId,
        /// To where, a neighbour.
        to: CellId,
        /// How it works and what it costs.
        how: Recovery,
    },
    /// Declines to recover.
    SkipRecovery,
    /// Collapses a line of exactly the needed length.
    ProcessLine(Run),
    /// Collapses a longer line, or a part of it.
    ChooseLineOption {
        /// The line.
        line: Run,
        /// What collapses: all of it (costs a ring) or a part of the needed length (free).
        collapse: Run,
    },
    /// Pays for a line or a region.
    EliminateRings {
        /// What for.
        context: EliminationContext,
        /// The stack that pays.
        to: CellId,
    },
    /// No line to process.
    NoLineAction,
    /// Processes a disconnected region.
    ChooseTerritory(Region),
    /// Declines to process regions.
    SkipTerritory,
    /// No region to process.
    NoTerritoryAction,
    /// Gives up the cap of a stack, as nothing else could be done in the turn.
    ForcedElimination {
        /// The stack.
        to: CellId,
    },
}

/// Type of a move, without its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the move of the same name")]
pub enum Kind {
    PlaceRing,
    SkipPlacement,
    NoPlacementAction,
    SwapSides,
    MoveStack,
    OvertakingCapture,
    ContinueCapture,
    SkipCapture,
    NoMovementAction,
    RecoverySlide,
    SkipRecovery,
    ProcessLine,
    ChooseLineOption,
    EliminateRings,
    NoLineAction,
    ChooseTerritory,
    SkipTerritory,
    NoTerritoryAction,
    ForcedElimination,
}

impl Kind {
    /// All types, in the order of [`Kind::index`].
    pub const ALL: [Self; 19] = [
        Self::PlaceRing,
        Self::SkipPlacement,
        Self::NoPlacementAction,
        Self::SwapSides,
        Self::MoveStack,
        Self::OvertakingCapture,
        Self::ContinueCapture,
        Self::SkipCapture,
        Self::NoMovementAction,
        Self::RecoverySlide,
        Self::SkipRecovery,
        Self::ProcessLine,
        Self::ChooseLineOption,
        Self::EliminateRings,
        Self::NoLineAction,
        Self::ChooseTerritory,
        Self::SkipTerritory,
        Self::NoTerritoryAction,
        Self::ForcedElimination,
    ];

    /// Position in arrays by type, below 19.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Name in the specification, for example `place_ring`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlaceRing => "place_ring",
            Self::SkipPlacement => "skip_placement",
            Self::NoPlacementAction => "no_placement_action",
            Self::SwapSides => "swap_sides",
            Self::MoveStack => "move_stack",
            Self::OvertakingCapture => "overtaking_capture",
            Self::ContinueCapture => "continue_capture_segment",
            Self::SkipCapture => "skip_capture",
            Self::NoMovementAction => "no_movement_action",
            Self::RecoverySlide => "recovery_slide",
            Self::SkipRecovery => "skip_recovery",
            Self::ProcessLine => "process_line",
            Self::ChooseLineOption => "choose_line_option",
            Self::EliminateRings => "eliminate_rings_from_stack",
            Self::NoLineAction => "no_line_action",
            Self::ChooseTerritory => "choose_territory_option",
            Self::SkipTerritory => "skip_territory_processing",
            Self::NoTerritoryAction => "no_territory_action",
            Self::ForcedElimination => "forced_elimination",
        }
    }

    /// First word of the notation, for example `P`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PlaceRing => "P",
            Self::SkipPlacement => "SP",
            Self::NoPlacementAction => "NP",
            Self::SwapSides => "SW",
            Self::MoveStack => "M",
            Self::OvertakingCapture => "C",
            Self::ContinueCapture => "K",
            Self::SkipCapture => "SC",
            Self::NoMovementAction => "NM",
            Self::RecoverySlide => "R",
            Self::SkipRecovery => "SR",
            Self::ProcessLine => "L",
            Self::ChooseLineOption => "O",
            Self::EliminateRings => "E",
            Self::NoLineAction => "NL",
            Self::ChooseTerritory => "T",
            Self::SkipTerritory => "ST",
            Self::NoTerritoryAction => "NT",
            Self::ForcedElimination => "F",
        }
    }

    /// Whether the type only records that nothing can be done: the sole legal move where it is legal.
    pub const fn is_bookkeeping(self) -> bool {
        matches!(
            self,
            Self::NoPlacementAction
                | Self::NoMovementAction
                | Self::NoLineAction
                | Self::NoTerritoryAction
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Move {
    /// Type of the move.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::PlaceRing { .. } => Kind::PlaceRing,
            Self::SkipPlacement => Kind::SkipPlacement,
            Self::NoPlacementAction => Kind::NoPlacementAction,
            Self::SwapSides => Kind::SwapSides,
            Self::MoveStack { .. } => Kind::MoveStack,
            Self::OvertakingCapture { .. } => Kind::OvertakingCapture,
            Self::ContinueCapture { .. } => Kind::ContinueCapture,
            Self::SkipCapture => Kind::SkipCapture,
            Self::NoMovementAction => Kind::NoMovementAction,
            Self::RecoverySlide { .. } => Kind::RecoverySlide,
            Self::SkipRecovery => Kind::SkipRecovery,
            Self::ProcessLine(_) => Kind::ProcessLine,
            Self::ChooseLineOption { .. } => Kind::ChooseLineOption,
            Self::EliminateRings { .. } => Kind::EliminateRings,
            Self::NoLineAction => Kind::NoLineAction,
            Self::ChooseTerritory(_) => Kind::ChooseTerritory,
            Self::SkipTerritory => Kind::SkipTerritory,
            Self::NoTerritoryAction => Kind::NoTerritoryAction,
            Self::ForcedElimination { .. } => Kind::ForcedElimination,
        }
    }

    /// Whether the move only records that nothing can be done.
    pub const fn is_bookkeeping(&self) -> bool {
        self.kind().is_bookkeeping()
    }

    /// Cell that a stack or marker leaves.
    pub const fn from(&self) -> Option<CellId> {
        match self {
            Self::MoveStack { from, .. }
            | Self::OvertakingCapture { from, .. }
            | Self::ContinueCapture { from, .. }
            | Self::RecoverySlide { from, .. } => Some(*from),
            _ => None,
        }
    }

    /// Cell where the move acts: placement, landing, paying stack, start of what collapses of a
    /// line, smallest cell of a region.
    pub const fn to(&self) -> Option<CellId> {
        match self {
            Self::PlaceRing { to, .. }
            | Self::MoveStack { to, .. }
            | Self::OvertakingCapture { to, .. }
            | Self::ContinueCapture { to, .. }
            | Self::RecoverySlide { to, .. }
            | Self::EliminateRings { to, .. }
            | Self::ForcedElimination { to } => Some(*to),
            Self::ProcessLine(run) | Self::ChooseLineOption { collapse: run, .. } => {
                Some(run.start())
            }
            Self::ChooseTerritory(region) => Some(region.first()),
            _ => None,
        }
    }

    /// Cell of the stack that a capture jumps over.
    pub const fn target(&self) -> Option<CellId> {
        match self {
            Self::OvertakingCapture { target, .. } | Self::ContinueCapture { target, .. } => {
                Some(*target)
            }
            _ => None,
        }
    }

    /// The image of a legal move of a position under a symmetry of the board.
    ///
    /// The rules are symmetric but for recovery slides that complete two lines at once, where the
    /// order of the axes decides (section 7): their image need not be legal in the turned position.
    #[must_use]
    pub fn permuted(&self, state: &State, symmetry: &Symmetry) -> Self {
        let at = |cell: &CellId| symmetry.cell(*cell);
        match self {
            Self::PlaceRing { to, count } => Self::PlaceRing { to: at(to), count: *count },
            Self::MoveStack { from, to } => Self::MoveStack { from: at(from), to: at(to) },
            Self::OvertakingCapture { from, target, to } => {
                Self::OvertakingCapture { from: at(from), target: at(target), to: at(to) }
            }
            Self::ContinueCapture { from, target, to } => {
                Self::ContinueCapture { from: at(from), target: at(target), to: at(to) }
            }
            Self::RecoverySlide { from, to, how } => {
                let how = match how {
                    Recovery::Line { payer } => Recovery::Line { payer: at(payer) },
                    Recovery::LineWindow(run) => Recovery::LineWindow(run.permuted(symmetry)),
                    Recovery::Fallback { payer } => Recovery::Fallback { payer: at(payer) },
                    Recovery::StackStrike { payer } => Recovery::StackStrike { payer: at(payer) },
                };
                Self::RecoverySlide { from: at(from), to: at(to), how }
            }
            Self::ProcessLine(run) => Self::ProcessLine(run.permuted(symmetry)),
            Self::ChooseLineOption { line, collapse } => Self::ChooseLineOption {
                line: line.permuted(symmetry),
                collapse: collapse.permuted(symmetry),
            },
            Self::EliminateRings { context, to } => {
                Self::EliminateRings { context: *context, to: at(to) }
            }
            Self::ChooseTerritory(region) => {
                let cells = state.region_cells(*region);
                let first = cells.iter().map(|cell| symmetry.cell(cell)).min();
                let first = first.unwrap_or(region.first);
                Self::ChooseTerritory(Region { first, ..*region })
            }
            Self::ForcedElimination { to } => Self::ForcedElimination { to: at(to) },
            Self::SkipPlacement
            | Self::NoPlacementAction
            | Self::SwapSides
            | Self::SkipCapture
            | Self::NoMovementAction
            | Self::SkipRecovery
            | Self::NoLineAction
            | Self::SkipTerritory
            | Self::NoTerritoryAction => *self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cellset::CellSet;
    use crate::config::Board;

    #[test]
    fn a_move_stays_small_and_kinds_match_their_index() {
        assert!(size_of::<Move>() <= 12, "{}", size_of::<Move>());
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
        }
    }

    #[test]
    fn a_run_keeps_its_cells_under_every_symmetry() {
        for board in Board::ALL {
            let geometry = board.geometry();
            for cell in geometry.cells() {
                for &axis in geometry.axes() {
                    if geometry.ray(cell, axis).len() < 3 {
                        continue;
                    }
                    let run = Run::new(geometry, cell, axis, 4);
                    for symmetry in geometry.symmetries() {
                        let image = run.permuted(symmetry);
                        assert!(geometry.axes().contains(&image.axis()));
                        let cells: CellSet = image.cells(geometry).collect();
                        let wanted: CellSet =
                            run.cells(geometry).map(|c| symmetry.cell(c)).collect();
                        assert_eq!((cells, cells.len()), (wanted, 4));
                    }
                }
            }
        }
    }
}
