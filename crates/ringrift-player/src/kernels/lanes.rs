//! Sixteen numbers at a time, and what can be done with them.

/// Numbers that are worked on at a time.
pub(super) const LANES: usize = 16;

/// Sixteen numbers. Every instruction set does the same to them in the same order; [`Lanes::times_plus`] alone may round once or twice.
pub(super) trait Lanes: Copy {
    /// Whether a whole accumulator of these fits into registers.
    const MANY: bool;

    fn splat(x: f32) -> Self;
    fn load(values: &[f32; LANES]) -> Self;
    fn store(self, values: &mut [f32; LANES]);
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn over(self, other: Self) -> Self;
    fn root(self) -> Self;
    fn larger(self, other: Self) -> Self;
    fn smaller(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once where the processor can do so.
    fn times_plus(self, factor: Self, addend: Self) -> Self;
    /// These numbers where `gate` is above zero, else zero.
    fn where_positive(self, gate: Self) -> Self;
    /// These numbers where `gate` is above zero, else those of `other`.
    fn or_else(self, gate: Self, other: Self) -> Self;
    /// Two to the power of these whole numbers from -126 to 127.
    fn power_of_two(self) -> Self;

    /// A bit for each number above zero, the first one lowest.
    fn positive(self) -> u16;

    /// Asks for numbers that will be loaded soon.
    #[inline(always)]
    fn announce(values: &[[f32; LANES]]) {
        let _ = values;
    }

    /// The sum: halves are added, then their halves, and so on.
    fn sum(self) -> f32;

    /// The largest number.
    fn highest(self) -> f32 {
        let mut values = [0.0; LANES];
        self.store(&mut values);
        values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    /// The first numbers of a shorter slice, `fill` behind them.
    #[inline(always)]
    fn load_part(values: &[f32], fill: f32) -> Self {
        let mut padded = [fill; LANES];
        padded[..values.len()].copy_from_slice(values);
        Self::load(&padded)
    }

    /// Writes the first numbers to a shorter slice.
    #[inline(always)]
    fn store_part(self, values: &mut [f32]) {
        let mut padded = [0.0; LANES];
        self.store(&mut padded);
        values.copy_from_slice(&padded[..values.len()]);
    }
}

/// Adding this rounds a small number to a whole one and leaves that in the last bits.
pub(super) const ROUNDER: f32 = 12_582_912.0;

/// Plain numbers, in loops that a compiler turns into whatever vector instructions it may use.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut result = self.0;
        for (x, other) in result.iter_mut().zip(other.0) {
            *x = f(*x, other);
        }
        Self(result)
    }
}

impl Lanes for Portable {
    const MANY: bool = false;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        *values = self.0;
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn over(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn root(self) -> Self {
        self.map(f32::sqrt)
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, addend: Self) -> Self {
        // Not `mul_add`: without an instruction for it, it is a slow call of a library.
        self.times(factor).plus(addend)
    }

    #[inline(always)]
    fn where_positive(self, gate: Self) -> Self {
        self.zip(gate, |x, gate| if gate > 0.0 { x } else { 0.0 })
    }

    #[inline(always)]
    fn or_else(self, gate: Self, other: Self) -> Self {
        let mut result = other.0;
        for ((result, gate), x) in result.iter_mut().zip(gate.0).zip(self.0) {
            *result = if gate > 0.0 { x } else { *result };
        }
        Self(result)
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        self.map(|n| {
            let whole = (n + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits());
            f32::from_bits(whole.wrapping_add(127) << 23)
        })
    }

    #[inline(always)]
    fn positive(self) -> u16 {
        let bits = self.0.iter().enumerate().map(|(lane, x)| u16::from(*x > 0.0) << lane);
        bits.fold(0, |all, bit| all | bit)
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let mut x = self.0;
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                x[lane] += x[lane + half];
            }
        }
        x[0]
    }
}
