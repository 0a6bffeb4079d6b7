//! The arithmetic of networks, search and training, for the instructions that the processor has.
//!
//! Every operation is written once, over sixteen lanes, and compiled for AVX-512, for AVX2 with FMA, and for any processor. Which of
//! them runs is decided when a network is made, not in every call. AVX-512 and AVX2 give equal bits, as all sums have one order; the
//! portable form rounds a product before it is added to something, so it differs in the last bits. One machine always gives the same.

#![expect(
    clippy::inline_always,
    reason = "an operation is compiled for the instructions of the function it becomes a part of"
)]

mod lanes;
mod operations;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;

use crate::encoder::MoveRows;
use crate::weights::{ACCUMULATOR, HIDDEN, POLICY};

/// A row of an accumulator's length.
pub type Long = [f32; ACCUMULATOR];
/// A row of the hidden layer's length, which the policy vector shares.
pub type Short = [f32; HIDDEN];
const _: () = assert!(HIDDEN == POLICY, "one kind of short row");

/// What a search knows about the moves of a position, one entry per move.
#[derive(Debug, Clone, Copy)]
pub struct Arms<'a> {
    /// Logarithm of the network's probability, up to a constant.
    pub logits: &'a [f32],
    /// How often each move was tried.
    pub visits: &'a [f32],
    /// Mean chance to win of the player to move after these tries; meaningless without a visit.
    pub q: &'a [f32],
}

/// The numbers of one step of the optimiser. Source: Kingma and Ba 2015.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// Learning rate.
    pub rate: f32,
    /// What remains of a weight after its decay.
    pub shrink: f32,
    /// Share of the new slope in the running mean, and of its square in the mean of squares.
    pub mean_gain: f32,
    #[expect(missing_docs, reason = "see above")]
    pub square_gain: f32,
    /// What makes up for the start of the two means at zero.
    pub mean_scale: f32,
    #[expect(missing_docs, reason = "see above")]
    pub square_scale: f32,
    /// Keeps the division finite.
    pub tiny: f32,
}

/// Instructions that a processor may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// Those that every processor has for which this program was built.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F.
    Avx512,
}

impl Instructions {
    /// All, the best ones last.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Name on the command line of a bench.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Makes the table of operations, its forms for each kind of instructions, and the methods that call them.
macro_rules! operations {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;
    )*) => {
        struct Table {
            instructions: Instructions,
            $($name: unsafe fn($($type),*) $(-> $result)?,)*
        }

        static PORTABLE: Table = {
            $(fn $name($($argument: $type),*) $(-> $result)? {
                operations::$name::<lanes::Portable>($($argument),*)
            })*
            Table { instructions: Instructions::Portable, $($name,)* }
        };

        #[cfg(target_arch = "x86_64")]
        static AVX2: Table = {
            $(#[target_feature(enable = "avx2,fma")]
            fn $name($($argument: $type),*) $(-> $result)? {
                operations::$name::<x86::Avx2>($($argument),*)
            })*
            Table { instructions: Instructions::Avx2, $($name,)* }
        };

        #[cfg(target_arch = "x86_64")]
        static AVX512: Table = {
            $(#[target_feature(enable = "avx512f,avx2,fma")]
            fn $name($($argument: $type),*) $(-> $result)? {
                operations::$name::<x86::Avx512>($($argument),*)
            })*
            Table { instructions: Instructions::Avx512, $($name,)* }
        };

        impl Kernels {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $name(self, $($argument: $type),*) $(-> $result)? {
                    // SAFETY: the functions of a table ask for nothing but its instructions, and `Kernels::of` gives out a table
                    // only if the processor has them.
                    unsafe { (self.0.$name)($($argument),*) }
                }
            )*
        }
    };
}

/// The operations in the form for one kind of instructions.
#[derive(Clone, Copy)]
pub struct Kernels(&'static Table);

impl Kernels {
    /// The best that this processor can run.
    pub fn detect() -> Self {
        let best = Instructions::ALL.into_iter().rev().find_map(Self::of);
        best.unwrap_or(Self(&PORTABLE))
    }

    /// The form for these instructions; none if this processor lacks them.
    pub fn of(instructions: Instructions) -> Option<Self> {
        match instructions {
            Instructions::Portable => Some(Self(&PORTABLE)),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => {
                let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                has.then_some(Self(&AVX2))
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => {
                let small = Self::of(Instructions::Avx2).is_some();
                (small && is_x86_feature_detected!("avx512f")).then_some(Self(&AVX512))
            }
            #[cfg(not(target_arch = "x86_64"))]
            Instructions::Avx2 | Instructions::Avx512 => None,
        }
    }

    /// The instructions in use.
    pub const fn instructions(self) -> Instructions {
        self.0.instructions
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kernels").field(&self.instructions()).finish()
    }
}

operations! {
    /// `sum` = `start` plus the rows of `table` that belong to the features as `view` has them, cut off below zero.
    fn accumulate(start: &Long, table: &[Long], view: &[u32], features: &[u32], sum: &mut Long);

    /// `out` = `start` plus every row of `matrix` times the lane of `input` it belongs to, where that is above zero.
    fn product(start: &Short, matrix: &[Short], input: &Long, out: &mut Short);

    /// The product of two rows, the first one cut off below zero.
    fn value(hidden: &Short, weights: &Short) -> f32;

    /// For every move the product of `vector` with the sum of the move's rows, plus the sum of their biases.
    fn logits(vector: &Short, moves: &[Short], bias: &[f32], rows: &[MoveRows], out: &mut [f32]);

    /// Turns logits into probabilities; gives the logarithm of the sum of all e^logit.
    fn softmax(logits: &[f32], out: &mut [f32]) -> f32;

    /// Softmax of logit + `factor` times q, where an arm without a visit has `mixed` as its q.
    fn improve(arms: &Arms<'_>, mixed: f32, factor: f32, out: &mut [f32]);

    /// The first arm whose probability exceeds its share of visits, its part of `whole`, by most. The probabilities are used up.
    fn laggard(policy: &mut [f32], visits: &[f32], whole: f32) -> usize;

    /// The product of two vectors.
    fn dot(a: &[f32], b: &[f32]) -> f32;

    /// `back` += every row of `transposed` times the lane of `up` it belongs to.
    fn product_back(up: &Short, transposed: &[Long], back: &mut Long);

    /// Adds to row i of `slopes`, for every sample, the sample's row of `ups` times lane i of its row of `inputs`.
    fn outer(inputs: &[Long], ups: &[Short], slopes: &mut [Short]);

    /// Sets the lanes of `back` to zero where `input` is not above zero.
    fn gate(input: &Long, back: &mut Long);

    /// Adds `row` to the rows of `table` that belong to the features as `view` has them.
    fn scatter(row: &Long, view: &[u32], features: &[u32], table: &mut [Long]);

    /// For every share of a row: `up` += share times the row of `moves`, and the row of `slopes` += share times `vector`.
    fn moves_back(vector: &Short, shares: &[(u16, f32)], moves: &[Short], slopes: &mut [Short], up: &mut Short);

    /// `sum` += `values`.
    fn add(values: &[f32], sum: &mut [f32]);

    /// One step of the optimiser; the slopes are zero afterwards.
    fn adam(step: &AdamStep, values: &mut [f32], slopes: &mut [f32], means: &mut [f32], squares: &mut [f32]);
}

#[cfg(test)]
mod tests;
