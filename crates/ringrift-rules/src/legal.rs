//! Legal moves: the list of every phase, and placement, movement and capture (sections 4 to 6).

use alloc::vec::Vec;
use core::ops::ControlFlow;

use crate::config::Seat;
use crate::geometry::CellId;
use crate::moves::{EliminationContext, Move};
use crate::random::SplitMix64;
use crate::rows::{Rows, with_rows};
use crate::sink::Sink;
use crate::stack::Stack;
use crate::state::{Phase, State};

impl State {
    /// Writes all legal moves into `out`, which is cleared first.
    ///
    /// Never empty while the game is on: bookkeeping moves are listed. The order depends on the
    /// position alone: by cell for most moves.
    pub fn legal_moves(&self, out: &mut Vec<Move>) {
        out.clear();
        self.each_legal_move(out);
    }

    pub(crate) fn each_legal_move(&self, out: &mut impl Sink) {
        match self.turn.phase {
            Phase::RingPlacement => with_rows!(self, list_placements(out)),
            Phase::Movement => self.list_movements(out),
            Phase::Capture => {
                self.list_captures(out, |from, target, to| Move::OvertakingCapture {
                    from,
                    target,
                    to,
                });
                out.push(Move::SkipCapture);
            }
            Phase::ChainCapture => {
                self.list_captures(out, |from, target, to| Move::ContinueCapture {
                    from,
                    target,
                    to,
                });
            }
            Phase::LineProcessing => {
                if self.turn.line_payment {
                    self.list_own_stacks(out, |to| Move::EliminateRings {
                        context: EliminationContext::Line,
                        to,
                    });
                } else {
                    self.list_lines(out);
                }
            }
            Phase::TerritoryProcessing => {
                if !self.turn.region_payment {
                    self.list_regions(out);
                } else if self.turn.recovered {
                    let context = EliminationContext::Recovery;
                    for to in self.payers() {
                        out.push(Move::EliminateRings { context, to });
                    }
                } else {
                    self.list_own_stacks(out, |to| Move::EliminateRings {
                        context: EliminationContext::Territory,
                        to,
                    });
                }
            }
            Phase::ForcedElimination => {
                self.list_own_stacks(out, |to| Move::ForcedElimination { to });
            }
            Phase::GameOver => {}
        }
    }

    fn list_own_stacks(&self, out: &mut impl Sink, make: impl Fn(CellId) -> Move) {
        for stack in self.stacks_of(self.turn.seat) {
            out.push(make(stack.cell));
        }
    }

    // ---- placement (section 4)

    fn list_placements<const R: usize>(&self, out: &mut impl Sink) {
        let counts = self.placements::<R>();
        for (row, plan) in self.geometry.row_plans().iter().enumerate() {
            let mut rest = counts[0].0[row];
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                let to = plan.cell(bit);
                out.push(Move::PlaceRing { to, count: 1 });
                for count in 2..=3u8 {
                    if counts[usize::from(count) - 1].0[row] & (1 << bit) != 0 {
                        out.push(Move::PlaceRing { to, count });
                    }
                }
            }
        }
        if self.may_skip_placement() {
            out.push(Move::SkipPlacement);
        }
        if out.is_empty() {
            out.push(Move::NoPlacementAction);
        }
        if self.may_swap() {
            out.push(Move::SwapSides);
        }
    }

    /// A random move of this phase, without a list: the one that a draw chooses from the list.
    pub(crate) fn sample_placement<const R: usize>(&self, random: &mut SplitMix64) -> Option<Move> {
        let counts = self.placements::<R>();
        let of_row = |row: usize| counts.iter().map(|rows| rows.0[row].count_ones() as usize).sum();
        let rings: usize = (0..R).map(of_row).sum();
        // The order of the list: rings by cell, to skip or nothing, to swap.
        let skip = self.may_skip_placement();
        let declined = usize::from(skip || rings == 0);
        let mut at = random.below(rings + declined + usize::from(self.may_swap()));
        if at >= rings {
            return Some(match (at - rings, skip) {
                (0, true) => Move::SkipPlacement,
                (0, false) if rings == 0 => Move::NoPlacementAction,
                _ => Move::SwapSides,
            });
        }
        for (row, plan) in self.geometry.row_plans().iter().enumerate() {
            let here: usize = of_row(row);
            if at >= here {
                at -= here;
                continue;
            }
            let mut rest = counts[0].0[row];
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                for (count, rows) in (1u8..).zip(&counts) {
                    if rows.0[row] & (1 << bit) != 0 {
                        if at == 0 {
                            return Some(Move::PlaceRing { to: plan.cell(bit), count });
                        }
                        at -= 1;
                    }
                }
            }
        }
        None
    }

    /// Where 1, 2 and 3 rings may be placed. All cells at once: rings on an empty cell can move if
    /// as many cells in a row are open in some direction, and only the others are looked at singly.
    fn placements<const R: usize>(&self) -> [Rows<R>; 3] {
        let seat = self.turn.seat;
        let mut found = [Rows::EMPTY; 3];
        let room = self.limits.rings_per_player.saturating_sub(self.rings_on_board(seat));
        let most = usize::from(self.hand(seat).min(room).min(3));
        if most == 0 {
            return found;
        }
        let open: Rows<R> = self.rows(State::is_open_code);
        let empty: Rows<R> = self.rows(State::is_empty_code);
        for &(dx, dy) in self.board().directions() {
            let mut ahead = open.seen_from(dx, dy);
            found[0] = found[0].or(&ahead);
            for (steps, rows) in (2i8..).zip(&mut found[1..most]) {
                ahead = ahead.and(&open.seen_from(dx * steps, dy * steps));
                *rows = rows.or(&ahead);
            }
            if found[..most].iter().all(|rows| empty.is_within(rows)) {
                break;
            }
        }
        for (rings, count) in (1u16..).zip(0..most) {
            // Counts of 2 and 3 only where 1 is legal too (section 15-J).
            let mut candidates = if count == 0 { empty } else { empty.and(&found[0]) };
            found[count] = found[count].and(&candidates);
            for (row, plan) in self.geometry.row_plans().iter().enumerate() {
                candidates.0[row] &= !found[count].0[row];
                let mut rest = candidates.0[row];
                while rest != 0 {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    if self.can_act(plan.cell(bit), rings, rings) {
                        found[count].0[row] |= 1 << bit;
                    }
                }
            }
        }
        // On a stack one ring only; after the counts, as these stacks are no empty cells.
        for stack in self.unordered_stacks() {
            let cap = if stack.controller() == seat { stack.cap() + 1 } else { 1 };
            if self.can_act(stack.cell, stack.height() + 1, cap) {
                let (row, bit) = self.geometry.row_and_bit(stack.cell);
                found[0].0[row] |= 1 << bit;
            }
        }
        found
    }

    /// Whether `count` rings may go on a cell, each count judged by itself.
    pub(crate) fn may_place(&self, seat: Seat, cell: CellId, count: u8) -> bool {
        let rings = u16::from(count);
        let on_board = self.rings_on_board(seat);
        if rings > self.hand(seat)
            || rings > self.limits.rings_per_player.saturating_sub(on_board)
            || !(1..=3).contains(&count)
            || self.is_collapsed(cell)
            || self.has_marker(cell)
        {
            return false;
        }
        // No dead placement: the stack that results must be able to move or capture.
        match self.stack(cell) {
            Some(_) if count > 1 => false,
            Some(stack) => {
                let cap = if stack.controller() == seat { stack.cap() + 1 } else { 1 };
                self.can_act(cell, stack.height() + 1, cap)
            }
            None => self.can_act(cell, rings, rings),
        }
    }

    pub(crate) fn may_skip_placement(&self) -> bool {
        let seat = self.turn.seat;
        self.hand(seat) > 0
            && if self.stacks(seat) > 0 {
                self.can_act_with_a_stack(seat)
            } else {
                self.is_recovery_eligible(seat)
            }
    }

    /// Pie rule, section 4.4.
    pub(crate) fn may_swap(&self) -> bool {
        self.options().swap_rule
            && self.config().players == 2
            && self.turn.seat.number() == 2
            && self.turn.phase == Phase::RingPlacement
            && self.turn.moved == [true, false]
            && !self.turn.swapped
    }

    // ---- movement and capture (sections 5 and 6)

    fn list_movements<S: Sink>(&self, out: &mut S) {
        let seat = self.turn.seat;
        let list = |stack: &Stack, out: &mut S| {
            let from = stack.cell;
            let _ = self.walk(from, stack.height(), stack.cap(), |target, to| {
                out.push(match target {
                    None => Move::MoveStack { from, to },
                    Some(target) => Move::OvertakingCapture { from, target, to },
                });
                ControlFlow::Continue(())
            });
        };
        if let Some(cell) = self.turn.must_move {
            if let Some(stack) = self.stack(cell) {
                list(stack, out);
            }
        } else {
            for stack in self.stacks_of(seat) {
                list(stack, out);
            }
        }
        if self.is_recovery_eligible(seat) {
            self.list_recovery(out);
            out.push(Move::SkipRecovery);
        }
        if out.is_empty() {
            out.push(Move::NoMovementAction);
        }
    }

    /// Segments of the attacker.
    fn list_captures(&self, out: &mut impl Sink, make: impl Fn(CellId, CellId, CellId) -> Move) {
        let Some(stack) = self.turn.attacker.and_then(|cell| self.stack(cell)) else { return };
        let from = stack.cell;
        let _ = self.walk(from, stack.height(), stack.cap(), |target, to| {
            if let Some(target) = target {
                out.push(make(from, target, to));
            }
            ControlFlow::Continue(())
        });
    }

    /// Visits every cell that a stack of this height and cap could reach from a cell: by a move
    /// (no target), or by capturing the target. The visitor may end the walk.
    fn walk(
        &self,
        from: CellId,
        height: u16,
        cap: u16,
        mut visit: impl FnMut(Option<CellId>, CellId) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let height = usize::from(height);
        for direction in (0u8..).take(self.geometry.directions()) {
            let mut target = None;
            for (index, &cell) in self.geometry.ray(from, direction).iter().enumerate() {
                if self.is_open(cell) {
                    if index + 1 >= height {
                        visit(target, cell)?;
                    }
                } else if target.is_none()
                    && let Some(stack) = self.stack(cell)
                    && stack.cap() <= cap
                {
                    target = Some(cell);
                } else {
                    break;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether a stack of this height and cap on this cell could move or capture.
    fn can_act(&self, cell: CellId, height: u16, cap: u16) -> bool {
        self.walk(cell, height, cap, |_, _| ControlFlow::Break(())).is_break()
    }

    pub(crate) fn can_act_with_a_stack(&self, seat: Seat) -> bool {
        self.stacks_of(seat).any(|stack| self.can_act(stack.cell, stack.height(), stack.cap()))
    }

    /// Whether the stack on a cell is the player's and can capture.
    pub(crate) fn can_capture(&self, cell: CellId, seat: Seat) -> bool {
        let Some(stack) = self.stack(cell) else { return false };
        stack.controller() == seat
            && self
                .walk(cell, stack.height(), stack.cap(), |target, _| match target {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                })
                .is_break()
    }

    /// Whether a player could place a ring, or move or capture with a stack (section 13.3).
    pub(crate) fn has_real_action(&self, seat: Seat) -> bool {
        (self.hand(seat) > 0 && self.geometry.cells().any(|cell| self.may_place(seat, cell, 1)))
            || self.can_act_with_a_stack(seat)
    }
}
