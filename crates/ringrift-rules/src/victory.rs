//! Who wins, and when (section 13).

use core::cmp::Reverse;

use crate::config::Seat;
use crate::state::{LastPlayerStanding, Phase, State};

/// Why a game ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Enough eliminated rings, or the rung of eliminated rings on a bare board.
    RingElimination,
    /// Enough territory, or the rung of territory on a bare board.
    TerritoryControl,
    /// Sole survivor, or one of the last two rungs on a bare board.
    LastPlayerStanding,
    /// The only player with real actions over the required rounds.
    LastPlayerStandingRounds,
    /// The other of two players resigned.
    Resignation,
    /// The time of the other of two players ran out.
    Timeout,
}

/// How a player leaves a game before its end. No list of moves offers it: a host decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Departure {
    /// Gives up.
    Resignation,
    /// Has no time left.
    Timeout,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::RingElimination,
        Self::TerritoryControl,
        Self::LastPlayerStanding,
        Self::LastPlayerStandingRounds,
        Self::Resignation,
        Self::Timeout,
    ];

    /// Name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingElimination => "ring_elimination",
            Self::TerritoryControl => "territory_control",
            Self::LastPlayerStanding => "last_player_standing",
            Self::LastPlayerStandingRounds => "last_player_standing_rounds",
            Self::Resignation => "resignation",
            Self::Timeout => "timeout",
        }
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// Result of a game. There are no draws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Who won.
    pub winner: Seat,
    /// Why.
    pub reason: Reason,
    /// All seats, best first (R175-R178).
    pub ranking: BySeat<Seat>,
    /// Rank of each seat of `ranking`, 1 = winner; equal seats share one (1, 2, 2, 4).
    pub ranks: BySeat<u8>,
}

/// A short list, as many as there are seats; it reads like a slice.
#[derive(Clone, Copy)]
pub struct BySeat<T> {
    all: [T; 4],
    len: usize,
}

impl<T> core::ops::Deref for BySeat<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all[..self.len]
    }
}

impl<T: PartialEq> PartialEq for BySeat<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for BySeat<T> {}

impl<T: core::fmt::Debug> core::fmt::Debug for BySeat<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl State {
    /// Ends the game because a player leaves it, in whatever phase (section 13.6): the other one of
    /// two wins, a game of more players ends without winner. A game that is over stays as it is.
    pub fn depart(&mut self, seat: Seat, how: Departure) {
        if self.is_over() {
            return;
        }
        let reason = match how {
            Departure::Resignation => Reason::Resignation,
            Departure::Timeout => Reason::Timeout,
        };
        if self.config().players == 2 {
            self.finish(seat.next(2), reason);
        } else {
            self.turn.phase = Phase::GameOver;
        }
    }

    /// Who has won if a turn of `last` ends in this position (sections 13.1 and 13.2).
    pub fn verdict(&self, last: Seat) -> Option<(Seat, Reason)> {
        let decided = self.threshold_reached();
        if decided.is_some() {
            return decided;
        }
        let mut seats = self.config().seats();
        if self.stack_count() > 0 {
            // The sole survivor controls the stacks, as there is no ring of anybody else.
            let mut left = seats.filter(|s| self.has_any_ring(*s));
            return match (left.next(), left.next()) {
                (Some(winner), None) => Some((winner, Reason::LastPlayerStanding)),
                _ => None,
            };
        }
        if seats.any(|s| self.hand(s) > 0 && self.can_enter_bare_board()) {
            return None;
        }
        Some(self.stalemate(last))
    }

    /// The first two rules of section 13.1.
    fn threshold_reached(&self) -> Option<(Seat, Reason)> {
        let seats = || self.config().seats();
        if let Some(winner) =
            seats().find(|s| u32::from(self.eliminated(*s)) >= self.limits.ring_victory)
        {
            return Some((winner, Reason::RingElimination));
        }
        let collapsed: u16 = seats().map(|s| self.territory(s)).sum();
        if let Some(winner) = seats().find(|s| {
            let own = self.territory(*s);
            u32::from(own) >= self.limits.territory && own > collapsed - own
        }) {
            return Some((winner, Reason::TerritoryControl));
        }
        None
    }

    /// Whether a ring can be placed on a board without stacks.
    fn can_enter_bare_board(&self) -> bool {
        self.geometry.cells().any(|cell| {
            self.is_empty(cell) && self.geometry.neighbours(cell).any(|c| !self.is_collapsed(c))
        })
    }

    /// Section 13.2. Each rung looks at all players, not only at those tied above (section 15-K).
    fn stalemate(&self, last: Seat) -> (Seat, Reason) {
        let best = |score: &dyn Fn(Seat) -> u16| {
            let top = self.config().seats().max_by_key(|s| score(*s))?;
            let ties = self.config().seats().filter(|s| score(*s) == score(top)).count();
            (ties == 1 && score(top) > 0).then_some(top)
        };
        if let Some(winner) = best(&|seat| self.territory(seat)) {
            return (winner, Reason::TerritoryControl);
        }
        if let Some(winner) = best(&|seat| self.eliminated(seat) + self.hand(seat)) {
            return (winner, Reason::RingElimination);
        }
        let winner = best(&|seat| self.markers(seat)).unwrap_or(last);
        (winner, Reason::LastPlayerStanding)
    }

    /// Section 13.3, for the player whose turn has just begun by rotation.
    pub(crate) fn track_last_player_standing(&mut self) {
        let seat = self.turn.seat;
        if !self.has_any_ring(seat) {
            return;
        }
        let mut lps = self.turn.lps;
        match lps.first {
            Some(first) if self.has_any_ring(first) => {
                if first == seat && lps.acted != [None; 4] {
                    self.close_round(&mut lps);
                    lps.acted = [None; 4];
                }
            }
            _ => {
                lps.first = Some(seat);
                lps.acted = [None; 4];
                if !lps.candidate.is_some_and(|candidate| self.has_any_ring(candidate)) {
                    lps.candidate = None;
                    lps.streak = 0;
                }
            }
        }
        let real = self.has_real_action(seat);
        lps.acted[seat.index()] = Some(real);
        self.turn.lps = lps;

        let mut others = self.config().seats().filter(|other| *other != seat);
        if lps.streak >= self.options().lps_rounds
            && lps.candidate == Some(seat)
            && real
            && !others.any(|other| self.has_any_ring(other) && self.has_real_action(other))
        {
            self.finish(seat, Reason::LastPlayerStandingRounds);
        }
    }

    fn close_round(&self, lps: &mut LastPlayerStanding) {
        let mut able = self
            .config()
            .seats()
            .filter(|s| self.has_any_ring(*s) && lps.acted[s.index()] == Some(true));
        if let (Some(only), None) = (able.next(), able.next()) {
            lps.streak = if lps.candidate == Some(only) { lps.streak.saturating_add(1) } else { 1 };
            lps.candidate = Some(only);
        } else {
            lps.candidate = None;
            lps.streak = 0;
        }
    }

    /// Ends the game. The final ranking is section 13.5.
    pub(crate) fn finish(&mut self, winner: Seat, reason: Reason) {
        let played_out = !matches!(
            reason,
            Reason::LastPlayerStandingRounds | Reason::Resignation | Reason::Timeout
        );
        let stalemate = self.stack_count() == 0 && played_out && self.threshold_reached().is_none();
        let score = |seat: Seat| {
            // A hand counts as eliminated where the game ends by stalemate.
            let hand = if stalemate { self.hand(seat) } else { 0 };
            let gone = self.turn.gone[seat.index()].unwrap_or(u32::MAX);
            (
                Reverse(seat == winner),
                Reverse(self.territory(seat)),
                Reverse(self.eliminated(seat) + hand),
                Reverse(self.markers(seat)),
                Reverse(gone),
            )
        };
        let len = usize::from(self.config().players);
        let mut ranking = BySeat { all: Seat::ALL, len };
        // Insertion sort: of four, without the buffer of a stable sort.
        for end in 1..len {
            for at in (1..=end).rev() {
                if score(ranking.all[at]) < score(ranking.all[at - 1]) {
                    ranking.all.swap(at, at - 1);
                }
            }
        }
        let mut ranks = BySeat { all: [1, 2, 3, 4], len };
        for at in 1..len {
            if score(ranking.all[at]) == score(ranking.all[at - 1]) {
                ranks.all[at] = ranks.all[at - 1];
            }
        }
        self.turn.phase = Phase::GameOver;
        self.turn.outcome = Some(Outcome { winner, reason, ranking, ranks });
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Options};
    use crate::moves::Move;
    use crate::notation::json::{BoardText, Position};

    /// Ends a turn of seat 3 on a bare square8 board of three players; gives seats and their ranks.
    fn ranking(hands: [u16; 3], eliminated: [u16; 3], territory: [u16; 3]) -> Vec<(u8, u8)> {
        let mut board = BoardText::default();
        let mut cells = (0..64).map(|cell| format!("{},{}", cell / 8, cell % 8));
        for (seat, count) in (1u8..).zip(territory) {
            for _ in 0..count {
                board.collapsed.insert(cells.next().unwrap(), seat);
            }
        }
        // Markers everywhere else: no ring can enter.
        board.markers.extend(cells.map(|key| (key, 3)));
        let seat = crate::config::Seat::ALL[2];
        let mut position = Position::at_turn_start(seat, &hands, &eliminated, board);
        position.ph = "territory_processing".to_owned();
        position.acted = 1;
        let config: Config = "square8_3p".parse().unwrap();
        let mut state = position.state(config, Options::default()).unwrap();
        state.apply(&Move::NoTerritoryAction).unwrap();
        let outcome = state.outcome().unwrap();
        outcome.ranking.iter().map(|s| s.number()).zip(outcome.ranks.iter().copied()).collect()
    }

    #[test]
    fn the_ranking_goes_by_territory_then_eliminated_rings_then_markers() {
        assert_eq!(ranking([0; 3], [3, 9, 2], [9, 5, 1]), [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(ranking([0; 3], [3, 2, 9], [5, 9, 5]), [(2, 1), (3, 2), (1, 3)]);
        assert_eq!(ranking([0; 3], [2, 2, 9], [5, 5, 9]), [(3, 1), (1, 2), (2, 2)]);
        assert_eq!(ranking([0; 3], [2, 2, 2], [5, 9, 5]), [(2, 1), (3, 2), (1, 3)]);
    }

    #[test]
    fn a_hand_counts_as_eliminated_in_a_stalemate_only() {
        assert_eq!(ranking([4, 0, 0], [2, 3, 0], [5, 5, 9]), [(3, 1), (1, 2), (2, 3)]);
        // Seat 3 has eliminated its 24 rings: no stalemate.
        assert_eq!(ranking([4, 0, 0], [2, 3, 24], [5, 5, 9]), [(3, 1), (2, 2), (1, 3)]);
    }
}
