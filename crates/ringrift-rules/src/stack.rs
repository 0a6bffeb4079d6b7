//! A stack of rings.

use crate::config::Seat;
use crate::geometry::CellId;
use crate::state::hash;
use alloc::vec::Vec;

/// Rings that fit into one integer at two bits each.
const SHORT: u16 = 64;

/// The rings of a stack, bottom first.
///
/// Two bits a ring in one integer serve every stack of a real game, so copying a position allocates
/// nothing per stack. Taller ones (possible on the large boards, and with many rings per player) are
/// spelled out. The form follows from the height alone, and unused bits are zero, so equality of the
/// form is equality of the rings.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rings {
    Short(Packed),
    Tall(Vec<Seat>),
}

/// A `u128` in two words, so that a stack is aligned to 8 bytes and takes 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed([u64; 2]);

impl Packed {
    #[cfg(feature = "json")]
    const EMPTY: Self = Self([0; 2]);

    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    const fn of(bits: u128) -> Self {
        Self([bits as u64, (bits >> 64) as u64])
    }

    const fn bits(self) -> u128 {
        self.0[0] as u128 | ((self.0[1] as u128) << 64)
    }
}

/// A stack that stands on a cell; height 0 only while it is being changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stack {
    pub(crate) cell: CellId,
    height: u16,
    cap: u16,
    controller: Seat,
    rings: Rings,
}

const fn seat_of(bits: u128) -> Seat {
    Seat::ALL[(bits & 3) as usize]
}

const fn bits_of(seat: Seat) -> u128 {
    seat.index() as u128
}

/// The bits of the lowest rings.
const fn mask(height: u16) -> u128 {
    if height >= SHORT { u128::MAX } else { (1 << (2 * height)) - 1 }
}

impl Stack {
    /// `count` rings of one colour, 1 to 64.
    pub(crate) fn of(cell: CellId, seat: Seat, count: u16) -> Self {
        // Each pair of bits of the pattern is the seat's; placements have at most 3 rings.
        let pattern = bits_of(seat) * 0x5555_5555_5555_5555_5555_5555_5555_5555;
        let rings = Rings::Short(Packed::of(pattern & mask(count)));
        Self { cell, height: count, cap: count, controller: seat, rings }
    }

    /// A stack from its rings, bottom first.
    #[cfg(feature = "json")]
    pub(crate) fn from_bottom(cell: CellId, rings: Vec<Seat>) -> Self {
        let mut stack = Self {
            cell,
            height: 0,
            cap: 0,
            controller: Seat::ALL[0],
            rings: Rings::Short(Packed::EMPTY),
        };
        stack.set(rings);
        stack
    }

    /// Key of this stack in the hash of a position.
    pub(crate) fn key(&self) -> u64 {
        match &self.rings {
            Rings::Short(packed) => hash::of_rings(self.cell, self.height, packed.0),
            Rings::Tall(rings) => {
                let rings = rings.iter().map(|ring| u64::from(ring.number()));
                hash::of_rings(self.cell, self.height, rings)
            }
        }
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
    fn level(&self, level: u16) -> Seat {
        match &self.rings {
            Rings::Short(packed) => seat_of(packed.bits() >> (2 * level)),
            Rings::Tall(rings) => rings[usize::from(level)],
        }
    }

    fn to_vec(&self) -> Vec<Seat> {
        (0..self.height).map(|level| self.level(level)).collect()
    }

    #[expect(clippy::cast_possible_truncation, reason = "rings per player fit into u16 by far")]
    fn set(&mut self, rings: Vec<Seat>) {
        self.height = rings.len() as u16;
        self.rings = if self.height <= SHORT {
            let bits = rings.iter().rev().fold(0, |bits, &ring| (bits << 2) | bits_of(ring));
            Rings::Short(Packed::of(bits))
        } else {
            Rings::Tall(rings)
        };
        self.crown();
    }

    /// Controller and cap height from the rings.
    fn crown(&mut self) {
        let Some(top) = self.height.checked_sub(1) else {
            self.cap = 0;
            return;
        };
        self.controller = self.level(top);
        if let Rings::Short(packed) = &self.rings {
            // Rings of other colours differ from the repeated top ring; the highest of them ends
            // the cap.
            let pattern = bits_of(self.controller) * 0x5555_5555_5555_5555_5555_5555_5555_5555;
            let others = (packed.bits() ^ pattern) & mask(self.height);
            #[expect(clippy::cast_possible_truncation, reason = "at most 128 bits")]
            let below = (128 - others.leading_zeros()).div_ceil(2) as u16;
            self.cap = self.height - below;
            return;
        }
        self.cap = 1;
        while self.cap < self.height && self.level(top - self.cap) == self.controller {
            self.cap += 1;
        }
    }

    /// Puts one ring on top.
    pub(crate) fn push_top(&mut self, seat: Seat) {
        if let Rings::Short(packed) = &mut self.rings
            && self.height < SHORT
        {
            *packed = Packed::of(packed.bits() | (bits_of(seat) << (2 * self.height)));
            self.height += 1;
            self.crown();
            return;
        }
        let mut rings = self.to_vec();
        rings.push(seat);
        self.set(rings);
    }

    /// Puts one ring at the bottom.
    pub(crate) fn push_bottom(&mut self, seat: Seat) {
        if let Rings::Short(packed) = &mut self.rings
            && self.height < SHORT
        {
            *packed = Packed::of((packed.bits() << 2) | bits_of(seat));
            self.height += 1;
            self.crown();
            return;
        }
        let mut rings = self.to_vec();
        rings.insert(0, seat);
        self.set(rings);
    }

    /// Takes the top ring; the stack has one.
    pub(crate) fn pop_top(&mut self) -> Seat {
        let ring = self.controller;
        self.truncate(self.height - 1);
        ring
    }

    /// Takes the whole cap: its colour and number of rings.
    pub(crate) fn pop_cap(&mut self) -> (Seat, u16) {
        let taken = (self.controller, self.cap);
        self.truncate(self.height - self.cap);
        taken
    }

    fn truncate(&mut self, height: u16) {
        if let Rings::Short(packed) = &mut self.rings {
            *packed = Packed::of(packed.bits() & mask(height));
            self.height = height;
            self.crown();
            return;
        }
        let mut rings = self.to_vec();
        rings.truncate(usize::from(height));
        self.set(rings);
    }

    /// Takes the bottom-most ring of a colour; says whether there was one.
    pub(crate) fn extract(&mut self, seat: Seat) -> bool {
        let Some(level) = (0..self.height).find(|&level| self.level(level) == seat) else {
            return false;
        };
        if let Rings::Short(packed) = &mut self.rings {
            let bits = packed.bits();
            let (below, above) = (bits & mask(level), bits & !mask(level + 1));
            *packed = Packed::of(below | (above >> 2));
            self.height -= 1;
            self.crown();
            return true;
        }
        let mut rings = self.to_vec();
        rings.remove(usize::from(level));
        self.set(rings);
        true
    }

    /// Whether a ring of the colour lies below the top ring.
    pub(crate) fn buries(&self, seat: Seat) -> bool {
        (0..self.height.saturating_sub(1)).any(|level| self.level(level) == seat)
    }

    /// The rings, top first.
    pub(crate) fn rings(&self) -> impl ExactSizeIterator<Item = Seat> + '_ {
        (0..self.height).rev().map(|level| self.level(level))
    }
}

/// A stack as the outside sees it.
#[derive(Debug, Clone, Copy)]
pub struct StackView<'a>(pub(crate) &'a Stack);

impl<'a> StackView<'a> {
    /// Number of rings.
    pub const fn height(self) -> u16 {
        self.0.height()
    }

    /// Length of the run of rings of the controller's colour at the top, at least 1.
    pub const fn cap(self) -> u16 {
        self.0.cap()
    }

    /// Owner of the top ring.
    pub const fn controller(self) -> Seat {
        self.0.controller()
    }

    /// Owner of a ring, 0 = top; `None` below the bottom.
    pub fn ring(self, from_top: u16) -> Option<Seat> {
        (from_top < self.height()).then(|| self.0.level(self.height() - 1 - from_top))
    }

    /// Owners of the rings, top first.
    pub fn rings(self) -> impl ExactSizeIterator<Item = Seat> + 'a {
        self.0.rings()
    }

    /// Whether a ring of the colour lies below the top ring.
    pub fn buries(self, seat: Seat) -> bool {
        self.0.buries(seat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// The packed stack against a plain list under random changes, across the border between forms.
    #[test]
    fn a_stack_behaves_like_a_plain_list_of_rings() {
        let mut random = SplitMix64::new(11);
        for grow in [5, 7] {
            let mut stack = Stack::of(CellId(0), Seat::ALL[0], 1);
            let mut plain = vec![Seat::ALL[0]];
            for _ in 0..3000 {
                let seat = Seat::ALL[random.below(3)];
                match random.below(10) {
                    n if n < grow => {
                        if random.below(2) == 0 {
                            stack.push_top(seat);
                            plain.push(seat);
                        } else {
                            stack.push_bottom(seat);
                            plain.insert(0, seat);
                        }
                    }
                    7 if plain.len() > 8 => {
                        let (colour, count) = stack.pop_cap();
                        for _ in 0..count {
                            assert_eq!(plain.pop(), Some(colour));
                        }
                        assert_ne!(plain.last(), Some(&colour));
                    }
                    8 if plain.len() > 1 => {
                        let found = plain.iter().position(|ring| *ring == seat);
                        assert_eq!(stack.extract(seat), found.is_some());
                        if let Some(at) = found {
                            plain.remove(at);
                        }
                    }
                    _ if plain.len() > 1 => assert_eq!(Some(stack.pop_top()), plain.pop()),
                    _ => {}
                }
                if plain.is_empty() {
                    plain.push(seat);
                    stack.push_top(seat);
                }
                assert_eq!(stack, Stack::from_bottom(CellId(0), plain.clone()));
                assert_eq!(stack.height() as usize, plain.len());
                assert_eq!(Some(&stack.controller()), plain.last());
                let cap = plain.iter().rev().take_while(|r| Some(*r) == plain.last()).count();
                assert_eq!(usize::from(stack.cap()), cap);
                assert!(stack.rings().eq(plain.iter().rev().copied()));
                let buried = plain[..plain.len() - 1].contains(&seat);
                assert_eq!(stack.buries(seat), buried);
            }
        }
    }
}
