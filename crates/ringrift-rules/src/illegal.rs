//! Why a move is refused.

use crate::geometry::CellId;
use crate::moves::{EliminationContext, Kind, Move};
use crate::state::{Phase, State};
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A move that is not legal in a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Illegal {
    /// The move in notation.
    pub text: String,
    /// Its type.
    pub kind: Kind,
    /// The rule that forbids it, as a sentence.
    pub reason: String,
}

impl core::fmt::Display for Illegal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { text, kind, reason } = self;
        write!(f, "{text} ({kind}) is illegal: {reason}")
    }
}

impl core::error::Error for Illegal {}

impl Kind {
    /// The phases in which moves of this type are legal (section 3).
    pub const fn phases(self) -> &'static [Phase] {
        match self {
            Self::PlaceRing | Self::SkipPlacement | Self::NoPlacementAction | Self::SwapSides => {
                &[Phase::RingPlacement]
            }
            Self::MoveStack | Self::NoMovementAction | Self::RecoverySlide | Self::SkipRecovery => {
                &[Phase::Movement]
            }
            Self::OvertakingCapture => &[Phase::Movement, Phase::Capture],
            Self::ContinueCapture => &[Phase::ChainCapture],
            Self::SkipCapture => &[Phase::Capture],
            Self::ProcessLine | Self::ChooseLineOption | Self::NoLineAction => {
                &[Phase::LineProcessing]
            }
            Self::EliminateRings => &[Phase::LineProcessing, Phase::TerritoryProcessing],
            Self::ChooseTerritory | Self::SkipTerritory | Self::NoTerritoryAction => {
                &[Phase::TerritoryProcessing]
            }
            Self::ForcedElimination => &[Phase::ForcedElimination],
        }
    }
}

impl State {
    /// The refusal of a move that is not legal here.
    pub(crate) fn why_illegal(&self, mv: &Move) -> Illegal {
        Illegal { text: self.notate(mv), kind: mv.kind(), reason: self.reason_against(mv) }
    }

    fn reason_against(&self, mv: &Move) -> String {
        if self.is_over() {
            return "the game is over".to_owned();
        }
        let phases = mv.kind().phases();
        if !phases.contains(&self.turn.phase) {
            let names: Vec<&str> = phases.iter().map(|phase| phase.name()).collect();
            let (wanted, phase) = (names.join(" or "), self.turn.phase);
            return format!("it belongs to phase {wanted}, the phase is {phase} (section 3)");
        }
        if (self.turn.line_payment || self.turn.region_payment) && mv.kind() != Kind::EliminateRings
        {
            return "a payment of rings is due first (section 3)".to_owned();
        }
        let sentence = match mv {
            Move::PlaceRing { to, count } => return self.reason_against_placement(*to, *count),
            Move::SkipPlacement if self.hand(self.turn.seat) == 0 => {
                "no ring is in hand, so there is nothing to skip (section 4.2)"
            }
            Move::SkipPlacement => {
                "placing is mandatory without a stack that can act or a recovery (section 4.2)"
            }
            Move::NoPlacementAction => "a ring can be placed or placing skipped (section 4.2)",
            Move::SwapSides => "the swap is not on offer (section 4.4)",
            Move::MoveStack { from, to } => return self.reason_against_leap(*from, None, *to),
            Move::OvertakingCapture { from, target, to }
            | Move::ContinueCapture { from, target, to } => {
                return self.reason_against_leap(*from, Some(*target), *to);
            }
            Move::NoMovementAction => "a move is possible (section 3)",
            Move::SkipRecovery => "the player may not recover in any case (R110)",
            Move::RecoverySlide { .. } if !self.is_recovery_eligible(self.turn.seat) => {
                "recovery needs a marker, a buried ring and no stack (R110)"
            }
            Move::RecoverySlide { .. } => "no such recovery slide is on offer (section 7)",
            Move::ProcessLine(_) => {
                "this is not a whole line of the player of exactly the needed length (section 8)"
            }
            Move::ChooseLineOption { .. } => {
                "this is not a whole overlength line of the player with all of it or a part of the \
                 needed length to collapse (section 8)"
            }
            Move::NoLineAction => "a line must be processed (section 8)",
            Move::EliminateRings { context, to } => {
                return self.reason_against_payment(*context, *to);
            }
            Move::ChooseTerritory(_) => {
                "this is not a disconnected region that the player can pay for (section 9)"
            }
            Move::SkipTerritory => "there is no region to skip (section 9)",
            Move::NoTerritoryAction => "a region must be processed or skipped (section 9)",
            Move::ForcedElimination { .. } => "the player does not control that stack (section 11)",
            // Legal whenever the phase fits.
            Move::SkipCapture => "the phase does not allow it (section 3)",
        };
        sentence.to_owned()
    }

    fn reason_against_placement(&self, to: CellId, count: u8) -> String {
        let seat = self.turn.seat;
        let (hand, on_board) = (self.hand(seat), self.rings_on_board(seat));
        let rings = u16::from(count);
        if !(1..=3).contains(&count) {
            return format!("a placement is of 1 to 3 rings, not {count} (R081)");
        }
        if rings > hand {
            return format!("only {hand} rings are in hand (R081)");
        }
        if rings > self.limits.rings_per_player.saturating_sub(on_board) {
            let own = self.limits.rings_per_player;
            return format!("{on_board} of {own} rings of the colour are on the board (R081)");
        }
        if self.is_collapsed(to) {
            return "the cell is collapsed (R081)".to_owned();
        }
        if self.has_marker(to) {
            return "the cell holds a marker (section 15-P)".to_owned();
        }
        if count > 1 && self.stack(to).is_some() {
            return "only one ring may be put on a stack (R081)".to_owned();
        }
        "the stack could neither move nor capture afterwards (no dead placement, section 4.1)"
            .to_owned()
    }

    fn reason_against_leap(&self, from: CellId, target: Option<CellId>, to: CellId) -> String {
        let seat = self.turn.seat;
        let key = |cell: CellId| self.geometry.key(cell);
        let Some(stack) = self.stack(from).filter(|stack| stack.controller() == seat) else {
            return format!("the player controls no stack on {} (R090)", key(from));
        };
        if let Some(must) = self.turn.must_move.filter(|must| *must != from) {
            return format!("the stack on {}, which received a ring, must move", key(must));
        }
        if let Some(attacker) = self.turn.attacker.filter(|attacker| *attacker != from) {
            return format!("only the stack on {} may capture now (section 3)", key(attacker));
        }
        let Some((direction, steps)) = self.geometry.lane(from, to) else {
            return "the cells share no line (R091)".to_owned();
        };
        if u16::from(steps) < stack.height() {
            let height = stack.height();
            return format!("{steps} steps are fewer than the {height} rings of the stack (R091)");
        }
        let between = &self.geometry.ray(from, direction)[..usize::from(steps) - 1];
        if let Some(target) = target {
            if !between.contains(&target) {
                return "the target does not lie between the cells (R101)".to_owned();
            }
            let Some(captured) = self.stack(target) else {
                return "there is no stack on the target cell (R101)".to_owned();
            };
            if captured.cap() > stack.cap() {
                let (own, other) = (stack.cap(), captured.cap());
                return format!("the cap {own} is lower than that of the target, {other} (R101)");
            }
        }
        if let Some(cell) = between.iter().find(|c| Some(**c) != target && !self.is_open(**c)) {
            return format!("{} is in the way (R091, R101)", key(*cell));
        }
        format!("{} is collapsed or holds a stack (R091, R101)", key(to))
    }

    fn reason_against_payment(&self, context: EliminationContext, to: CellId) -> String {
        let due = if self.turn.line_payment {
            EliminationContext::Line
        } else if !self.turn.region_payment {
            return "no payment is due (section 3)".to_owned();
        } else if self.turn.recovered {
            EliminationContext::Recovery
        } else {
            EliminationContext::Territory
        };
        if context != due {
            return format!("the payment due is of context {} (section 10)", due.name());
        }
        let key = self.geometry.key(to);
        match due {
            EliminationContext::Recovery => {
                format!("no ring of the player is buried on {key} (section 10)")
            }
            _ => format!("the player controls no stack on {key} (section 10)"),
        }
    }
}
