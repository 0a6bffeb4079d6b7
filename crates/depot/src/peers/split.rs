//! A thing in pieces, and who is at which: what several peers give at once.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt as _};
use tokio::{sync::watch, time::Instant};

/// Bytes of a piece, a multiple of the 16 KiB that are verified together: large enough that asking costs
/// nothing, small enough that a few peers share a file of some megabytes.
const PIECE: u64 = 2 << 20;
/// Somebody who has nothing else to do tries a piece that another one has been at for so long.
const SLOW: Duration = Duration::from_secs(2);

/// The pieces of one fetch.
pub(super) struct Split {
    state: Mutex<State>,
    left: watch::Sender<usize>,
}

struct State {
    pieces: Vec<Piece>,
    moved: Instant,
}

struct Piece {
    /// Its chunks that are missing.
    ranges: ChunkRanges,
    at: At,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Open,
    Drawn { since: Instant, by: u32 },
    Done,
}

/// What there is to do.
pub(super) enum Take {
    /// This piece, by number.
    Piece(usize, ChunkRanges),
    /// Others are at what is left.
    Wait,
    /// It is whole.
    Nothing,
}

impl Split {
    /// All that is missing of so many bytes; the pieces are taken in turn, from the `first` on.
    pub(super) fn of(bytes: u64, there: &ChunkRanges, first: u64) -> Self {
        let number = bytes.div_ceil(PIECE);
        let piece = |number: u64| {
            let begin = number * PIECE;
            &ChunkRanges::bytes(begin..bytes.min(begin + PIECE)) - there
        };
        let turn = |place: u64| (place + first % number.max(1)) % number;
        let pieces: Vec<Piece> = (0..number)
            .map(|place| Piece { ranges: piece(turn(place)), at: At::Open })
            .filter(|piece| !piece.ranges.is_empty())
            .collect();
        let left = watch::Sender::new(pieces.len());
        Self { state: Mutex::new(State { pieces, moved: Instant::now() }), left }
    }

    /// How many pieces are left.
    pub(super) fn left(&self) -> watch::Receiver<usize> {
        self.left.subscribe()
    }

    /// Time since anything arrived.
    pub(super) fn idle(&self) -> Duration {
        self.lock().moved.elapsed()
    }

    /// Something arrived.
    pub(super) fn moved(&self) {
        self.lock().moved = Instant::now();
    }

    /// The next piece for somebody who has not got those.
    pub(super) fn take(&self, missed: &BTreeSet<usize>) -> Take {
        let now = Instant::now();
        let mut state = self.lock();
        if state.pieces.iter().all(|piece| piece.at == At::Done) {
            return Take::Nothing;
        }
        let open = |(number, piece): &(usize, &mut Piece)| {
            piece.at == At::Open && !missed.contains(number)
        };
        let slow = |(number, piece): &(usize, &mut Piece)| {
            let is_slow = |since: Instant| now.duration_since(since) >= SLOW;
            matches!(piece.at, At::Drawn { since, by: 1 } if is_slow(since))
                && !missed.contains(number)
        };
        let pieces = &mut state.pieces;
        let found = match pieces.iter_mut().enumerate().find(open) {
            Some(found) => Some(found),
            None => pieces.iter_mut().enumerate().find(slow),
        };
        let Some((number, piece)) = found else { return Take::Wait };
        let by = if let At::Drawn { by, .. } = piece.at { by + 1 } else { 1 };
        piece.at = At::Drawn { since: now, by };
        Take::Piece(number, piece.ranges.clone())
    }

    /// A piece has arrived.
    pub(super) fn done(&self, number: usize) {
        let mut state = self.lock();
        state.moved = Instant::now();
        state.pieces[number].at = At::Done;
        let left = state.pieces.iter().filter(|piece| piece.at != At::Done).count();
        self.left.send_if_modified(|known| std::mem::replace(known, left) != left);
    }

    /// Somebody does not give a piece: it is for others.
    pub(super) fn back(&self, number: usize) {
        let piece = &mut self.lock().pieces[number];
        piece.at = match piece.at {
            At::Drawn { since, by } if by > 1 => At::Drawn { since, by: by - 1 },
            At::Done => At::Done,
            At::Drawn { .. } | At::Open => At::Open,
        };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only plain assignments happen under the lock; a poisoned one holds no broken state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(split: &Split, missed: &[usize]) -> Option<usize> {
        match split.take(&missed.iter().copied().collect()) {
            Take::Piece(number, _) => Some(number),
            Take::Wait => None,
            Take::Nothing => panic!("nothing is left"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_is_drawn_once_unless_somebody_is_slow_or_refuses() {
        let split = Split::of(3 * PIECE - 5, &ChunkRanges::empty(), 0);
        assert_eq!(*split.left().borrow(), 3);
        assert_eq!(taken(&split, &[]), Some(0));
        assert_eq!(taken(&split, &[1]), Some(2));
        assert_eq!(taken(&split, &[1]), None, "it has not got the one that is open");
        split.done(2);
        assert_eq!(taken(&split, &[]), Some(1));
        assert_eq!(taken(&split, &[]), None, "others are at the rest");
        split.back(1);
        assert_eq!(taken(&split, &[]), Some(1));
        tokio::time::advance(SLOW).await;
        assert_eq!(taken(&split, &[]), Some(0), "the slow one gets company");
        assert_eq!(taken(&split, &[]), Some(1));
        assert_eq!(taken(&split, &[]), None);
        split.back(0);
        split.done(0);
        split.back(0);
        split.done(1);
        assert!(matches!(split.take(&BTreeSet::new()), Take::Nothing));
        assert_eq!(*split.left().borrow(), 0);
    }

    #[test]
    fn what_is_there_is_left_out_and_everybody_begins_elsewhere() {
        let there = ChunkRanges::bytes(0..PIECE + 1024);
        let split = Split::of(4 * PIECE, &there, 7);
        let mut ranges = Vec::new();
        while let Take::Piece(_, piece) = split.take(&BTreeSet::new()) {
            ranges.push(piece);
        }
        let piece = |a: u64, b: u64| ChunkRanges::bytes(a..b);
        let whole = |number: u64| piece(number * PIECE, (number + 1) * PIECE);
        assert_eq!(ranges, [whole(3), piece(PIECE + 1024, 2 * PIECE), whole(2)]);
        assert!(matches!(Split::of(0, &there, 3).take(&BTreeSet::new()), Take::Nothing));
        assert!(matches!(Split::of(PIECE, &there, 3).take(&BTreeSet::new()), Take::Nothing));
    }
}
