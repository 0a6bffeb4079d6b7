//! Making moves: the effects, and the turn state machine of section 3.

use crate::config::Seat;
use crate::geometry::CellId;
use crate::illegal::Illegal;
use crate::moves::{EliminationContext, Move, Recovery, Run};
use crate::stack::Stack;
use crate::state::{Phase, State};

impl State {
    /// Makes a move after checking that it is legal.
    ///
    /// # Errors
    /// If the move is not legal, with the rule that forbids it; the position is unchanged then.
    pub fn apply(&mut self, mv: &Move) -> Result<(), Illegal> {
        if !self.is_legal(mv) {
            return Err(self.why_illegal(mv));
        }
        self.perform(mv);
        Ok(())
    }

    /// Makes a move that [`State::legal_moves`] has listed in this very position.
    ///
    /// Not checked in release builds: another move leaves a position without meaning.
    pub fn apply_legal(&mut self, mv: &Move) {
        debug_assert!(self.is_legal(mv), "{}", self.why_illegal(mv));
        self.perform(mv);
    }

    fn perform(&mut self, mv: &Move) {
        let seat = self.turn.seat;
        self.turn.moves += 1;
        if let Some(moved) = self.turn.moved.get_mut(seat.index()) {
            *moved = true;
        }
        match mv {
            Move::PlaceRing { to, count } => self.place(*to, u16::from(*count)),
            Move::SkipPlacement | Move::NoPlacementAction => self.turn.phase = Phase::Movement,
            Move::SwapSides => self.turn.swapped = true,
            Move::MoveStack { from, to } => {
                self.leap(*from, None, *to);
                if self.can_capture(*to, seat) {
                    self.turn.phase = Phase::Capture;
                    self.turn.attacker = Some(*to);
                } else {
                    self.enter_lines();
                }
            }
            Move::OvertakingCapture { from, target, to }
            | Move::ContinueCapture { from, target, to } => {
                self.leap(*from, Some(*target), *to);
                if self.can_capture(*to, seat) {
                    self.turn.phase = Phase::ChainCapture;
                    self.turn.attacker = Some(*to);
                } else {
                    self.enter_lines();
                }
            }
            Move::SkipCapture | Move::NoMovementAction | Move::SkipRecovery => self.enter_lines(),
            Move::RecoverySlide { from, to, how } => {
                self.slide(*from, *to, *how);
                self.turn.acted = true;
                self.turn.recovered = true;
                self.enter_lines();
            }
            Move::ProcessLine(line) => self.process_line(*line, true),
            Move::ChooseLineOption { line, collapse } => {
                self.process_line(*collapse, line == collapse);
            }
            Move::EliminateRings { context, to } => self.pay(*context, *to),
            Move::NoLineAction => self.leave_lines(),
            Move::ChooseTerritory(region) => {
                self.take_region(*region);
                self.turn.acted = true;
                self.turn.region_payment = true;
            }
            Move::SkipTerritory | Move::NoTerritoryAction => {
                if self.is_blocked(seat) {
                    self.turn.phase = Phase::ForcedElimination;
                } else {
                    self.end_turn();
                }
            }
            Move::ForcedElimination { to } => {
                self.give_up_cap(*to);
                self.turn.acted = true;
                self.end_turn();
            }
        }
    }

    /// Nothing done in the whole turn although he controls a stack (section 11).
    const fn is_blocked(&self, seat: Seat) -> bool {
        !self.turn.acted && self.stacks(seat) > 0
    }

    fn place(&mut self, to: CellId, count: u16) {
        let seat = self.turn.seat;
        self.counts.hand[seat.index()] -= count;
        self.counts.on_board[seat.index()] += count;
        if let Some(mut stack) = self.lift(to) {
            for _ in 0..count {
                stack.push_top(seat);
            }
            self.put(to, stack);
        } else {
            self.put(to, Stack::of(to, seat, count));
        }
        self.turn.acted = true;
        self.turn.must_move = Some(to);
        self.turn.phase = Phase::Movement;
    }

    /// Moves the stack from one cell to another of the same line, over a target or not
    /// (effects of sections 5 and 6, in their order).
    fn leap(&mut self, from: CellId, target: Option<CellId>, to: CellId) {
        let seat = self.turn.seat;
        let Some((direction, steps)) = self.geometry.lane(from, to) else { return };
        let Some(mut stack) = self.lift(from) else { return };
        self.put_marker(from, seat);

        let between = &self.geometry.ray(from, direction)[..usize::from(steps) - 1];
        for &cell in between {
            if self.has_marker_of(cell, seat) {
                self.collapse(cell, seat);
            } else if self.take_marker(cell) {
                self.put_marker(cell, seat);
            }
        }
        if let Some(target) = target {
            self.change(target, |state, captured| {
                stack.push_bottom(captured.pop_top(&mut state.stacks));
            });
        }
        if self.take_marker(to) {
            let ring = stack.pop_top(&mut self.stacks);
            self.eliminate(ring, 1);
        }
        self.put(to, stack);
        self.turn.acted = true;
        if self.turn.must_move.is_some() {
            self.turn.must_move = Some(to);
        }
    }

    fn slide(&mut self, from: CellId, to: CellId, how: Recovery) {
        let seat = self.turn.seat;
        self.take_marker(from);
        match how {
            Recovery::Line { payer } => {
                self.put_marker(to, seat);
                if let Some(run) = self.applied_run(to) {
                    self.collapse_run(run);
                }
                self.extract(payer);
            }
            Recovery::LineWindow(window) => {
                self.put_marker(to, seat);
                self.collapse_run(window);
            }
            Recovery::Fallback { payer } => {
                self.put_marker(to, seat);
                self.extract(payer);
            }
            Recovery::StackStrike { payer } => {
                self.change(to, |state, stack| {
                    let ring = stack.pop_top(&mut state.stacks);
                    state.eliminate(ring, 1);
                });
                self.extract(payer);
            }
        }
    }

    fn extract(&mut self, payer: CellId) {
        let seat = self.turn.seat;
        self.change(payer, |state, stack| {
            if stack.extract(seat, &mut state.stacks) {
                state.eliminate(seat, 1);
            }
        });
    }

    fn collapse_run(&mut self, run: Run) {
        for cell in run.cells(self.geometry) {
            self.collapse(cell, self.turn.seat);
        }
    }

    /// Leaves movement, capture and chain: what they remember is forgotten.
    fn enter_lines(&mut self) {
        self.turn.must_move = None;
        self.turn.attacker = None;
        self.turn.phase = Phase::LineProcessing;
    }

    fn process_line(&mut self, collapse: Run, costs_a_ring: bool) {
        self.collapse_run(collapse);
        self.turn.acted = true;
        // Who controls no stack need not pay (R122).
        if costs_a_ring && self.stacks(self.turn.seat) > 0 {
            self.turn.line_payment = true;
        } else if !self.has_run(self.turn.seat, self.config().eligible_length()) {
            self.leave_lines();
        }
    }

    /// Line exit.
    fn leave_lines(&mut self) {
        self.turn.phase = if self.is_blocked(self.turn.seat) && !self.has_region() {
            Phase::ForcedElimination
        } else {
            Phase::TerritoryProcessing
        };
    }

    fn pay(&mut self, context: EliminationContext, to: CellId) {
        self.turn.acted = true;
        match context {
            EliminationContext::Line => {
                self.change(to, |state, stack| {
                    let ring = stack.pop_top(&mut state.stacks);
                    state.eliminate(ring, 1);
                });
                self.turn.line_payment = false;
                return;
            }
            EliminationContext::Territory => self.give_up_cap(to),
            EliminationContext::Recovery => self.extract(to),
        }
        self.turn.region_payment = false;
        if !self.has_region() {
            self.end_turn();
        }
    }

    fn give_up_cap(&mut self, to: CellId) {
        self.change(to, |state, stack| {
            let (colour, count) = stack.pop_cap(&mut state.stacks);
            state.eliminate(colour, count);
        });
    }

    /// Section 12.
    fn end_turn(&mut self) {
        let last = self.turn.seat;
        for seat in self.config().seats() {
            if !self.has_any_ring(seat) && self.turn.gone[seat.index()].is_none() {
                self.turn.gone[seat.index()] = Some(self.turn.moves);
            }
        }
        if let Some((winner, reason)) = self.verdict(last) {
            self.finish(winner, reason);
            return;
        }
        let players = self.config().players;
        let mut next = last.next(players);
        while next != last && !self.has_any_ring(next) {
            next = next.next(players);
        }
        self.turn.seat = next;
        self.turn.phase = Phase::RingPlacement;
        self.turn.must_move = None;
        self.turn.attacker = None;
        self.turn.line_payment = false;
        self.turn.region_payment = false;
        self.turn.acted = false;
        self.turn.recovered = false;
        self.track_last_player_standing();
    }
}
