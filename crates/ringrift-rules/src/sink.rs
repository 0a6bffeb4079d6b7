//! Where generated moves go: a list, a count, or the one that is wanted.

use crate::moves::Move;
use crate::random::SplitMix64;
use crate::rows::with_rows;
use crate::state::{Phase, State};
use alloc::vec::Vec;

/// Takes moves one by one.
pub(crate) trait Sink {
    fn push(&mut self, mv: Move);

    /// Whether nothing was taken.
    fn is_empty(&self) -> bool;
}

impl Sink for Vec<Move> {
    #[inline]
    fn push(&mut self, mv: Move) {
        Self::push(self, mv);
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
}

/// Counts moves.
#[derive(Default)]
struct Count(usize);

impl Sink for Count {
    #[inline]
    fn push(&mut self, _: Move) {
        self.0 += 1;
    }

    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

/// Most lists are short: with the first moves kept, one look at the position does.
const KEPT: usize = 24;

/// Counts moves and keeps the first ones.
struct Head {
    moves: [Move; KEPT],
    count: usize,
}

impl Sink for Head {
    #[inline]
    fn push(&mut self, mv: Move) {
        if let Some(place) = self.moves.get_mut(self.count) {
            *place = mv;
        }
        self.count += 1;
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Keeps the move at a place of the list.
struct Pick {
    at: usize,
    seen: usize,
    found: Option<Move>,
}

impl Sink for Pick {
    #[inline]
    fn push(&mut self, mv: Move) {
        if self.seen == self.at {
            self.found = Some(mv);
        }
        self.seen += 1;
    }

    fn is_empty(&self) -> bool {
        self.seen == 0
    }
}

/// Looks for one move.
struct Find<'a> {
    wanted: &'a Move,
    found: bool,
    any: bool,
}

impl Sink for Find<'_> {
    #[inline]
    fn push(&mut self, mv: Move) {
        self.any = true;
        self.found |= mv == *self.wanted;
    }

    fn is_empty(&self) -> bool {
        !self.any
    }
}

impl State {
    /// Whether a move is legal.
    pub fn is_legal(&self, mv: &Move) -> bool {
        // Most wrong moves are of another phase.
        if !mv.kind().phases().contains(&self.phase()) {
            return false;
        }
        let mut find = Find { wanted: mv, found: false, any: false };
        self.each_legal_move(&mut find);
        find.found
    }

    /// Number of legal moves, without listing them.
    pub fn count_legal_moves(&self) -> usize {
        let mut count = Count::default();
        self.each_legal_move(&mut count);
        count.0
    }

    /// A random legal move, every one as likely, without listing all: the same that one draw would
    /// choose from the list. None when the game is over.
    pub fn sample(&self, random: &mut SplitMix64) -> Option<Move> {
        if self.phase() == Phase::RingPlacement {
            return with_rows!(self, sample_placement(random));
        }
        let mut head = Head { moves: [const { Move::SkipCapture }; KEPT], count: 0 };
        self.each_legal_move(&mut head);
        if head.count == 0 {
            return None;
        }
        let at = random.below(head.count);
        if let Some(found) = head.moves.into_iter().nth(at) {
            return Some(found);
        }
        let mut pick = Pick { at, seen: 0, found: None };
        self.each_legal_move(&mut pick);
        pick.found
    }
}
