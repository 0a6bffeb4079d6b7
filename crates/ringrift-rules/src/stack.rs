//! Stacks of rings.

use crate::config::Seat;
use crate::geometry::CellId;
use crate::state::hash;
use alloc::vec::Vec;

/// Rings that fit into one word at two bits each.
///
/// A stack moves at least as far as it is high, so one that moves has at most 24 rings, the steps of
/// the longest ray, and a capture adds one: no game makes a stack of more than 25. Taller ones come
/// with positions that are read, and only shrink.
const WORD: u16 = 32;

/// A stack that stands on a cell; height 0 only while it is being changed.
///
/// As a spare entry of [`Stacks`], 32 further rings of the stack on its cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    pub(crate) cell: CellId,
    height: u16,
    cap: u16,
    controller: Seat,
    /// The lowest 32, bottom first; unused bits are zero.
    rings: u64,
}

/// All stacks of a position.
///
/// Those of more than 32 rings go on in spare entries before the first stack, in their order. A game
/// from the first position has none, and no move needs another one, so moves ask for no memory.
#[derive(Debug)]
pub(crate) struct Stacks {
    entries: Vec<Stack>,
    spare: usize,
}

const fn seat_of(bits: u64) -> Seat {
    Seat::ALL[(bits & 3) as usize]
}

const fn bits_of(seat: Seat) -> u64 {
    seat.index() as u64
}

/// The lower bit of every ring.
const EVERY: u64 = 0x5555_5555_5555_5555;

/// The bits of the lowest rings.
const fn mask(rings: u16) -> u64 {
    if rings >= WORD { u64::MAX } else { (1 << (2 * rings)) - 1 }
}

/// The lower bit of each ring of a colour, among the lowest ones.
const fn of_colour(word: u64, seat: Seat, rings: u16) -> u64 {
    let others = word ^ (bits_of(seat) * EVERY);
    !(others | (others >> 1)) & EVERY & mask(rings)
}

/// All copies have the same room, so that each can be copied over any other.
impl Clone for Stacks {
    fn clone(&self) -> Self {
        let mut entries = Vec::with_capacity(self.entries.capacity());
        entries.extend_from_slice(&self.entries);
        Self { entries, spare: self.spare }
    }

    fn clone_from(&mut self, source: &Self) {
        let Self { entries, spare } = source;
        self.entries.clear();
        self.entries.reserve(entries.capacity());
        self.entries.extend_from_slice(entries);
        self.spare = *spare;
    }
}

impl Stacks {
    /// No stack, with room for some.
    pub(crate) fn with_room(most: usize) -> Self {
        Self { entries: Vec::with_capacity(most), spare: 0 }
    }

    /// The stacks, in no particular order.
    pub(crate) fn all(&self) -> &[Stack] {
        &self.entries[self.spare..]
    }

    pub(crate) const fn count(&self) -> usize {
        self.entries.len() - self.spare
    }

    /// A stack by its slot.
    pub(crate) fn get(&self, slot: usize) -> &Stack {
        &self.entries[slot]
    }

    /// Adds a stack; gives its slot.
    pub(crate) fn push(&mut self, stack: Stack) -> usize {
        self.entries.push(stack);
        self.entries.len() - 1
    }

    /// Takes a stack out; gives it with the cell of the one that has got its slot.
    pub(crate) fn take(&mut self, slot: usize) -> (Stack, Option<CellId>) {
        let stack = self.entries.swap_remove(slot);
        (stack, self.entries.get(slot).map(|moved| moved.cell))
    }

    /// Moves all stacks to other cells.
    pub(crate) fn relocate(&mut self, to: impl Fn(CellId) -> CellId) {
        for entry in &mut self.entries {
            entry.cell = to(entry.cell);
        }
    }

    /// Makes room for more stacks.
    #[cfg(feature = "json")]
    pub(crate) fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
    }

    /// Sets up tall stacks of a position: their rings above the lowest 32, before any stack is there.
    #[cfg(feature = "json")]
    pub(crate) fn set_up_upper(&mut self, cell: CellId, bottom_first: &[Seat]) {
        for rings in bottom_first.chunks(usize::from(WORD)).skip(1) {
            self.entries.push(Stack::of_rings(cell, rings));
        }
        self.spare = self.entries.len();
    }

    /// Where the rings of a stack above the lowest 32 begin.
    fn upper(&self, stack: &Stack) -> usize {
        let spare = self.entries[..self.spare].iter();
        spare.take_while(|entry| entry.cell != stack.cell).count()
    }

    /// 32 rings of a stack.
    fn word(&self, stack: &Stack, number: u16) -> u64 {
        match number.checked_sub(1) {
            None => stack.rings,
            Some(above) => self.entries[self.upper(stack) + usize::from(above)].rings,
        }
    }

    fn set_word(&mut self, stack: &mut Stack, number: u16, rings: u64) {
        match number.checked_sub(1) {
            None => stack.rings = rings,
            Some(above) => {
                let at = self.upper(stack) + usize::from(above);
                self.entries[at].rings = rings;
            }
        }
    }

    /// The words of a stack, bottom first, each with its number of rings.
    fn words(
        &self,
        stack: &Stack,
    ) -> impl DoubleEndedIterator<Item = (u64, u16)> + ExactSizeIterator {
        let stack = *stack;
        (0..stack.word_count()).map(move |number| {
            let rings = (stack.height - number * WORD).min(WORD);
            (self.word(&stack, number), rings)
        })
    }

    /// Whether two stacks of two positions are the same.
    pub(crate) fn are_equal(&self, stack: &Stack, others: &Self, other: &Stack) -> bool {
        stack.height == other.height && self.words(stack).eq(others.words(other))
    }
}

impl Stack {
    /// `count` rings of one colour, 1 to 32.
    pub(crate) const fn of(cell: CellId, seat: Seat, count: u16) -> Self {
        let rings = (bits_of(seat) * EVERY) & mask(count);
        Self { cell, height: count, cap: count, controller: seat, rings }
    }

    /// The lowest 32 of these rings, bottom first.
    #[cfg(feature = "json")]
    fn of_rings(cell: CellId, rings: &[Seat]) -> Self {
        let word = rings.iter().take(usize::from(WORD)).rev();
        let rings = word.fold(0, |word, ring| (word << 2) | bits_of(*ring));
        Self { cell, height: 0, cap: 0, controller: Seat::ALL[0], rings }
    }

    /// A stack from its rings, bottom first, of which the upper ones are set up already.
    #[cfg(feature = "json")]
    #[expect(clippy::cast_possible_truncation, reason = "a position has at most 10,000 rings")]
    pub(crate) fn from_bottom(cell: CellId, rings: &[Seat], all: &Stacks) -> Self {
        let mut stack = Self::of_rings(cell, rings);
        stack.height = rings.len() as u16;
        stack.crown(all);
        stack
    }

    /// Key of this stack in the hash of a position.
    pub(crate) fn key(&self, all: &Stacks) -> u64 {
        if self.height <= WORD {
            return hash::of_rings(self.cell, self.height, [self.rings]);
        }
        hash::of_rings(self.cell, self.height, all.words(self).map(|(word, _)| word))
    }

    const fn word_count(&self) -> u16 {
        self.height.div_ceil(WORD)
    }

    pub(crate) const fn height(&self) -> u16 {
        self.height
    }

    pub(crate) const fn cap(&self) -> u16 {
        self.cap
    }

    pub(crate) const fn controller(&self) -> Seat {
        self.controller
    }

    /// The ring at a level, 0 = bottom; the level is below the height.
    fn level(&self, level: u16, all: &Stacks) -> Seat {
        seat_of(all.word(self, level / WORD) >> (2 * (level % WORD)))
    }

    /// Controller and cap height from the rings.
    fn crown(&mut self, all: &Stacks) {
        let Some(top) = self.height.checked_sub(1) else {
            self.cap = 0;
            return;
        };
        if self.height <= WORD {
            self.controller = seat_of(self.rings >> (2 * top));
            self.cap = self.height - below_cap(self.rings, self.controller, self.height);
            return;
        }
        self.controller = self.level(top, all);
        let mut cap = 0;
        for (word, rings) in all.words(self).rev() {
            let below = below_cap(word, self.controller, rings);
            cap += rings - below;
            if below > 0 {
                break;
            }
        }
        self.cap = cap;
    }

    /// Puts one ring on top of fewer than 32.
    pub(crate) fn push_top(&mut self, seat: Seat) {
        debug_assert!(self.height < WORD);
        self.rings |= bits_of(seat) << (2 * self.height);
        self.cap = if self.controller == seat { self.cap + 1 } else { 1 };
        self.controller = seat;
        self.height += 1;
    }

    /// Puts one ring at the bottom of fewer than 32.
    pub(crate) fn push_bottom(&mut self, seat: Seat) {
        debug_assert!(0 < self.height && self.height < WORD);
        self.rings = (self.rings << 2) | bits_of(seat);
        self.cap += u16::from(self.cap == self.height && self.controller == seat);
        self.height += 1;
    }

    /// Takes the top ring; the stack has one.
    pub(crate) fn pop_top(&mut self, all: &mut Stacks) -> Seat {
        let ring = self.controller;
        self.truncate(self.height - 1, all);
        ring
    }

    /// Takes the whole cap: its colour and number of rings.
    pub(crate) fn pop_cap(&mut self, all: &mut Stacks) -> (Seat, u16) {
        let taken = (self.controller, self.cap);
        self.truncate(self.height - self.cap, all);
        taken
    }

    fn truncate(&mut self, height: u16, all: &mut Stacks) {
        if self.height > WORD {
            for number in height / WORD..self.word_count() {
                let kept = mask(height.saturating_sub(number * WORD));
                all.set_word(self, number, all.word(self, number) & kept);
            }
        }
        self.rings &= mask(height);
        self.height = height;
        self.crown(all);
    }

    /// Takes the bottom-most ring of a colour; says whether there was one.
    pub(crate) fn extract(&mut self, seat: Seat, all: &mut Stacks) -> bool {
        let mut found = false;
        for number in 0..self.word_count() {
            let word = all.word(self, number);
            let own = of_colour(word, seat, self.height - number * WORD);
            // Where a ring is gone below, all of the word moves down.
            let gap = if found { 0 } else { own.trailing_zeros() };
            if gap == u64::BITS {
                continue;
            }
            found = true;
            let next = if number + 1 < self.word_count() { all.word(self, number + 1) } else { 0 };
            let stays = !(u64::MAX << gap);
            let moved = (word >> 2) | (next << 62);
            all.set_word(self, number, (word & stays) | (moved & !stays));
        }
        if found {
            self.height -= 1;
            self.crown(all);
        }
        found
    }

    /// Whether a ring of the colour lies below the top ring.
    pub(crate) fn buries(&self, seat: Seat, all: &Stacks) -> bool {
        let below = self.height.saturating_sub(1);
        if below <= WORD {
            return of_colour(self.rings, seat, below) != 0;
        }
        let mut words = (0u16..).step_by(usize::from(WORD)).zip(all.words(self));
        words.any(|(first, (word, _))| of_colour(word, seat, below.saturating_sub(first)) != 0)
    }
}

/// Number of the lowest rings of a word that are not part of a cap of this colour above them.
#[expect(clippy::cast_possible_truncation, reason = "a word has 64 bits")]
const fn below_cap(word: u64, controller: Seat, rings: u16) -> u16 {
    // Rings of other colours differ from the repeated top ring; the highest of them ends the cap.
    let others = (word ^ (bits_of(controller) * EVERY)) & mask(rings);
    (u64::BITS - others.leading_zeros()).div_ceil(2) as u16
}

/// A stack as the outside sees it.
#[derive(Debug, Clone, Copy)]
pub struct StackView<'a> {
    pub(crate) stack: &'a Stack,
    pub(crate) all: &'a Stacks,
}

impl<'a> StackView<'a> {
    /// Number of rings.
    pub const fn height(self) -> u16 {
        self.stack.height()
    }

    /// Length of the run of rings of the controller's colour at the top, at least 1.
    pub const fn cap(self) -> u16 {
        self.stack.cap()
    }

    /// Owner of the top ring.
    pub const fn controller(self) -> Seat {
        self.stack.controller()
    }

    /// Owner of a ring, 0 = top; `None` below the bottom.
    pub fn ring(self, from_top: u16) -> Option<Seat> {
        let height = self.height();
        (from_top < height).then(|| self.stack.level(height - 1 - from_top, self.all))
    }

    /// Owners of the rings, top first.
    pub fn rings(self) -> impl ExactSizeIterator<Item = Seat> + 'a {
        (0..self.height()).rev().map(move |level| self.stack.level(level, self.all))
    }

    /// Whether a ring of the colour lies below the top ring.
    pub fn buries(self, seat: Seat) -> bool {
        self.stack.buries(seat, self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// A stack on its own, with its rings bottom first beside.
    struct Pair {
        all: Stacks,
        stack: Stack,
        plain: Vec<Seat>,
    }

    impl Pair {
        fn of(plain: Vec<Seat>) -> Self {
            let mut all = Stacks::with_room(0);
            // A neighbour, so that the stack's spare entries are not the first.
            all.set_up_upper(CellId(3), &[Seat::ALL[2]; 70]);
            all.set_up_upper(CellId(7), &plain);
            let stack = Stack::from_bottom(CellId(7), &plain, &all);
            Self { all, stack, plain }
        }

        fn check(&self) {
            let Self { all, stack, plain } = self;
            let again = Self::of(plain.clone());
            assert!(all.are_equal(stack, &again.all, &again.stack), "{plain:?}");
            assert_eq!(stack.key(all), again.stack.key(&again.all));
            assert_eq!(usize::from(stack.height()), plain.len());
            let Some(top) = plain.last() else { return };
            assert_eq!(stack.controller(), *top);
            let cap = plain.iter().rev().take_while(|ring| *ring == top).count();
            assert_eq!(usize::from(stack.cap()), cap);
            let view = StackView { stack, all };
            assert!(view.rings().eq(plain.iter().rev().copied()));
            for seat in Seat::ALL {
                assert_eq!(view.buries(seat), plain[..plain.len() - 1].contains(&seat));
            }
        }

        fn pop_cap(&mut self) {
            let (colour, count) = self.stack.pop_cap(&mut self.all);
            for _ in 0..count {
                assert_eq!(self.plain.pop(), Some(colour));
            }
            assert_ne!(self.plain.last(), Some(&colour));
        }

        fn extract(&mut self, seat: Seat) {
            let found = self.plain.iter().position(|ring| *ring == seat);
            assert_eq!(self.stack.extract(seat, &mut self.all), found.is_some());
            if let Some(at) = found {
                self.plain.remove(at);
            }
        }
    }

    #[test]
    fn a_stack_behaves_like_a_plain_list_of_rings() {
        let mut random = SplitMix64::new(11);
        let mut pair = Pair::of(vec![Seat::ALL[0]]);
        for _ in 0..6000 {
            let seat = Seat::ALL[random.below(4)];
            match random.below(10) {
                0..=2 if pair.plain.len() < 32 => {
                    pair.stack.push_top(seat);
                    pair.plain.push(seat);
                }
                3..=6 if pair.plain.len() < 32 => {
                    pair.stack.push_bottom(seat);
                    pair.plain.insert(0, seat);
                }
                7 => pair.pop_cap(),
                8 => pair.extract(seat),
                _ => assert_eq!(Some(pair.stack.pop_top(&mut pair.all)), pair.plain.pop()),
            }
            pair.check();
            if pair.plain.is_empty() {
                pair.stack.push_top(seat);
                pair.plain.push(seat);
            }
        }
    }

    #[test]
    fn a_tall_stack_shrinks_like_a_plain_list_of_rings() {
        let mut random = SplitMix64::new(12);
        for height in [31, 32, 33, 63, 64, 65, 96, 97, 200] {
            for colours in 1..=4 {
                let rings = (0..height).map(|_| Seat::ALL[random.below(colours)]).collect();
                let mut pair = Pair::of(rings);
                while !pair.plain.is_empty() {
                    pair.check();
                    match random.below(6) {
                        0 => pair.pop_cap(),
                        1 => {
                            assert_eq!(Some(pair.stack.pop_top(&mut pair.all)), pair.plain.pop());
                        }
                        _ => pair.extract(Seat::ALL[random.below(colours)]),
                    }
                }
            }
        }
    }
}
