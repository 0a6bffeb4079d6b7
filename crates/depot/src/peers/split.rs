//! A thing in pieces, and who is at which: what several peers give at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt as _};
use tokio::{sync::watch, time::Instant};

use super::PeerId;

/// Bytes that are verified together.
const GROUP: u64 = 16 << 10;
/// Bytes of a piece of the smallest and of the largest things: large enough that asking costs nothing, small enough
/// that a few peers share a file of some megabytes.
const PIECE: u64 = 512 << 10;
const LARGEST: u64 = 2 << 20;
/// Pieces of what is between, at least: those that fetch the same at once give each other what is not on its way.
const PIECES: u64 = 64;
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
    /// Those who fetch the same and say what they have got of it.
    helpers: HashMap<PeerId, Helper>,
}

struct Helper {
    there: ChunkRanges,
    /// The same, piece by piece.
    has: Vec<bool>,
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

/// A piece that somebody is at; it is for others when this is dropped.
pub(super) struct Taken<'a> {
    split: &'a Split,
    pub(super) number: usize,
    /// Its chunks that are missing.
    pub(super) ranges: ChunkRanges,
}

impl Taken<'_> {
    /// It has arrived.
    pub(super) fn done(self) {
        self.split.done(self.number);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.split.back(self.number);
    }
}

/// What there is to do.
pub(super) enum Take<'a> {
    /// This piece.
    Piece(Taken<'a>),
    /// Others are at what is left.
    Wait,
    /// It is whole.
    Nothing,
}

impl Split {
    /// All that is missing of so many bytes; the pieces are asked for in an order that the seed gives.
    pub(super) fn of(bytes: u64, there: &ChunkRanges, seed: u64) -> Self {
        let size = (bytes / PIECES).next_multiple_of(GROUP).clamp(PIECE, LARGEST);
        let piece = |number: u64| {
            let begin = number * size;
            &ChunkRanges::bytes(begin..bytes.min(begin + size)) - there
        };
        let mut order: Vec<u64> = (0..bytes.div_ceil(size)).collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut order);
        let pieces: Vec<Piece> = order
            .into_iter()
            .map(|number| Piece { ranges: piece(number), at: At::Open })
            .filter(|piece| !piece.ranges.is_empty())
            .collect();
        let left = watch::Sender::new(pieces.len());
        let state = State { pieces, moved: Instant::now(), helpers: HashMap::new() };
        Self { state: Mutex::new(state), left }
    }

    /// How many pieces are left; wakes when somebody has got more of them, too.
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

    /// Somebody who fetches the same has got this of it, beside what was said before.
    pub(super) fn has(&self, peer: PeerId, more: &ChunkRanges) {
        let mut state = self.lock();
        let State { pieces, helpers, .. } = &mut *state;
        let helper = helpers.entry(peer).or_insert_with(|| Helper {
            there: ChunkRanges::empty(),
            has: vec![false; pieces.len()],
        });
        helper.there |= more.clone();
        let mut has_more = false;
        for (piece, has) in pieces.iter().zip(&mut helper.has) {
            if !*has && (&piece.ranges - &helper.there).is_empty() {
                (*has, has_more) = (true, true);
            }
        }
        drop(state);
        if has_more {
            self.left.send_modify(|_| {});
        }
    }

    /// The next piece to ask this one for, but for those. Who has not said what it has got has all of it, and is
    /// asked first for what nobody else has.
    pub(super) fn take(&self, peer: PeerId, missed: &BTreeSet<usize>) -> Take<'_> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.pieces.iter().all(|piece| piece.at == At::Done) {
            return Take::Nothing;
        }
        let State { pieces, helpers, .. } = &mut *state;
        let given: Vec<usize> = if let Some(helper) = helpers.get(&peer) {
            (0..pieces.len()).filter(|number| helper.has[*number]).collect()
        } else {
            let alone = |number: &usize| !helpers.values().any(|helper| helper.has[*number]);
            let (first, then): (Vec<_>, Vec<_>) = (0..pieces.len()).partition(alone);
            first.into_iter().chain(then).collect()
        };
        let is_slow = |since: Instant| now.duration_since(since) >= SLOW;
        let open = |number: &&usize| pieces[**number].at == At::Open;
        let slow = |number: &&usize| matches!(pieces[**number].at, At::Drawn { since, by: 1 } if is_slow(since));
        let given = || given.iter().filter(|number| !missed.contains(number));
        let Some(number) = given().find(open).or_else(|| given().find(slow)).copied() else {
            return Take::Wait;
        };
        let piece = &mut pieces[number];
        let by = if let At::Drawn { by, .. } = piece.at { by + 1 } else { 1 };
        piece.at = At::Drawn { since: now, by };
        Take::Piece(Taken { split: self, number, ranges: piece.ranges.clone() })
    }

    /// A piece has arrived.
    fn done(&self, number: usize) {
        let mut state = self.lock();
        state.moved = Instant::now();
        state.pieces[number].at = At::Done;
        let left = state.pieces.iter().filter(|piece| piece.at != At::Done).count();
        self.left.send_if_modified(|known| std::mem::replace(known, left) != left);
    }

    /// Somebody gave it or does not give it: it is for others unless it is there.
    fn back(&self, number: usize) {
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

    fn peer(seed: u8) -> PeerId {
        PeerId(iroh::SecretKey::from_bytes(&[seed; 32]).public())
    }

    fn taken(split: &Split, missed: &[usize]) -> Option<usize> {
        asked(split, peer(1), missed)
    }

    fn asked(split: &Split, peer: PeerId, missed: &[usize]) -> Option<usize> {
        match split.take(peer, &missed.iter().copied().collect()) {
            Take::Piece(taken) => {
                let number = taken.number;
                // Somebody is at it until a test says otherwise.
                std::mem::forget(taken);
                Some(number)
            }
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
        assert!(matches!(split.take(peer(1), &BTreeSet::new()), Take::Nothing));
        assert_eq!(*split.left().borrow(), 0);
    }

    #[test]
    fn what_is_there_is_left_out_and_everybody_has_another_order() {
        let there = ChunkRanges::bytes(0..PIECE + 1024);
        let drawn = |seed: u64| {
            let split = Split::of(20 * PIECE, &there, seed);
            let mut ranges = Vec::new();
            while let Take::Piece(taken) = split.take(peer(1), &BTreeSet::new()) {
                ranges.push(taken.ranges.clone());
                taken.done();
            }
            ranges
        };
        let all = |ranges: Vec<ChunkRanges>| {
            assert_eq!(ranges.len(), 19);
            ranges.into_iter().fold(ChunkRanges::empty(), |sum, piece| sum | piece)
        };
        assert_eq!(all(drawn(7)), ChunkRanges::bytes(PIECE + 1024..20 * PIECE));
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let is_whole = |bytes| {
            let split = Split::of(bytes, &there, 3);
            matches!(split.take(peer(1), &BTreeSet::new()), Take::Nothing)
        };
        assert!(is_whole(0) && is_whole(PIECE) && !is_whole(2 * PIECE));
    }

    #[test]
    fn who_has_a_part_gives_that_and_who_has_all_gives_what_nobody_else_has() {
        let split = Split::of(4 * PIECE, &ChunkRanges::empty(), 0);
        // The place of a piece in the order.
        let of = |number: u64| {
            let piece = ChunkRanges::bytes(number * PIECE..(number + 1) * PIECE);
            split.lock().pieces.iter().position(|found| found.ranges == piece)
        };
        let (source, helper) = (peer(1), peer(2));
        split.has(helper, &ChunkRanges::empty());
        assert_eq!(asked(&split, helper, &[]), None, "it has nothing yet");
        split.has(helper, &ChunkRanges::bytes(0..PIECE - 1024));
        assert_eq!(asked(&split, helper, &[]), None, "nothing whole");
        split.has(helper, &ChunkRanges::bytes(PIECE - 1024..2 * PIECE));
        let first = asked(&split, source, &[]);
        assert!([of(2), of(3)].contains(&first), "{first:?}");
        let given = asked(&split, helper, &[]);
        assert!([of(0), of(1)].contains(&given), "{given:?}");
        let second = asked(&split, source, &[]);
        assert!([of(2), of(3)].contains(&second) && second != first, "{second:?}");
        assert!(asked(&split, source, &[]).is_some(), "better than nothing");
        assert_eq!(asked(&split, helper, &[]), None);
    }
}
