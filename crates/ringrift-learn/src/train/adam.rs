//! The optimiser: `AdamW`, with a shared step for rows that say the same of different cells.

use ringrift_player::{ACCUMULATOR, AdamStep, Classes, Encoder, Kernels, POLICY, TENSORS, Weights};

use super::gradient::{Gradient, Slopes};

/// Decay of the running mean of gradients and of their squares. Source: Kingma and Ba 2015.
const MEAN_DECAY: f32 = 0.9;
const SQUARE_DECAY: f32 = 0.999;
/// Keeps the division finite. Source: as above.
const TINY: f32 = 1e-8;

/// What `Adam` remembers: a running mean of the gradient and of its square per weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moments {
    pub(super) mean: Vec<f32>,
    pub(super) square: Vec<f32>,
}

impl Moments {
    fn new(len: usize) -> Self {
        Self { mean: vec![0.0; len], square: vec![0.0; len] }
    }
}

/// State of the optimiser.
///
/// Besides its own step, every feature row and move row takes the step of its class, whose gradient is the sum over the class: what
/// is learned on one cell moves all cells. This is as if each row were the sum of an own and a common row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adam {
    /// Steps done.
    pub(super) step: u32,
    /// One entry per tensor of the weights.
    pub(super) own: Vec<Moments>,
    /// Common rows of features, of moves, and common biases of moves.
    pub(super) shared: [Moments; 3],
    /// Rows of features and of moves that ever had a slope: the others are spared most of the work.
    live: [Vec<bool>; 2],
}

/// Size of one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepSize {
    pub(super) rate: f32,
    pub(super) decay: f32,
}

/// Classes of feature and move rows.
pub(super) struct Sharing {
    features: Classes,
    moves: Classes,
}

impl Sharing {
    pub(super) fn new(encoder: &Encoder) -> Self {
        Self { features: encoder.feature_classes(), moves: encoder.row_classes() }
    }
}

impl Adam {
    pub(super) fn new(weights: &Weights, sharing: &Sharing) -> Self {
        Self {
            step: 0,
            own: weights.tensors().iter().map(|tensor| Moments::new(tensor.len())).collect(),
            shared: [
                Moments::new(sharing.features.count * ACCUMULATOR),
                Moments::new(sharing.moves.count * POLICY),
                Moments::new(sharing.moves.count),
            ],
            live: [vec![false; weights.features.len()], vec![false; weights.moves.len()]],
        }
    }

    /// Finds out which rows ever had a slope, after the moments were read from a file.
    pub(super) fn revive(&mut self) {
        for (name, live) in BY_ROW.into_iter().zip(&mut self.live) {
            let squares = &self.own[place(name)].square;
            let width = squares.len() / live.len();
            for (live, squares) in live.iter_mut().zip(squares.chunks(width)) {
                *live = squares.iter().any(|square| *square > 0.0);
            }
        }
    }

    /// One step against the gradient, which is zero afterwards.
    pub(super) fn update(
        &mut self,
        weights: &mut Weights,
        gradient: &mut Gradient,
        size: StepSize,
        sharing: &Sharing,
        kernels: Kernels,
    ) {
        self.step += 1;
        let step = f32::from(u16::try_from(self.step).unwrap_or(u16::MAX));
        let step = AdamStep {
            rate: size.rate,
            shrink: 1.0 - size.rate * size.decay,
            mean_gain: 1.0 - MEAN_DECAY,
            square_gain: 1.0 - SQUARE_DECAY,
            mean_scale: 1.0 / (1.0 - MEAN_DECAY.powf(step)),
            square_scale: 1.0 / (1.0 - SQUARE_DECAY.powf(step)),
            tiny: TINY,
        };
        let rule = Rule { step, kernels };
        let Slopes { sums, features, moves } = gradient.complete(kernels);

        // The biases of moves come first, as their slopes are needed whole.
        let mut common = vec![0.0; sharing.moves.count];
        for (class, slope) in sharing.moves.of.iter().zip(&sums.moves_bias) {
            if let Some(class) = class {
                common[*class] += slope;
            }
        }
        let common = rule.common(common, &mut self.shared[2]);

        let tensors = weights.tensors_mut().into_iter().zip(sums.tensors_mut());
        for (name, ((tensor, slopes), moments)) in TENSORS.iter().zip(tensors.zip(&mut self.own)) {
            if !BY_ROW.contains(name) {
                kernels.adam(&step, tensor, slopes, &mut moments.mean, &mut moments.square);
            }
        }
        for (class, bias) in sharing.moves.of.iter().zip(&mut weights.moves_bias) {
            if let Some(class) = class {
                *bias += common[*class];
            }
        }

        let Self { own, shared: [shared_features, shared_moves, _], live, .. } = self;
        let [features_at, moves_at] = BY_ROW.map(place);
        rule.rows(
            &mut weights.features,
            Sloping { slopes: &mut sums.features, touched: features },
            &sharing.features,
            (&mut own[features_at], &mut live[0]),
            shared_features,
        );
        rule.rows(
            &mut weights.moves,
            Sloping { slopes: &mut sums.moves, touched: moves },
            &sharing.moves,
            (&mut own[moves_at], &mut live[1]),
            shared_moves,
        );
    }
}

/// Tensors of which most rows rest in any one step.
const BY_ROW: [&str; 2] = ["features.weight", "moves.weight"];

/// Place of a tensor among those of the weights.
fn place(name: &str) -> usize {
    TENSORS.iter().position(|known| *known == name).expect("it is the name of a tensor")
}

/// Rows of slopes, and which of them are not zero throughout.
struct Sloping<'a, const N: usize> {
    slopes: &'a mut [[f32; N]],
    touched: &'a mut [bool],
}

/// One step, and how it is calculated.
struct Rule {
    step: AdamStep,
    kernels: Kernels,
}

impl Rule {
    /// The common step of every class, from the sum of its members' slopes.
    fn common(&self, mut slopes: Vec<f32>, moments: &mut Moments) -> Vec<f32> {
        // From zero, the updated number is the step itself.
        let mut steps = vec![0.0; slopes.len()];
        let Moments { mean, square } = moments;
        self.kernels.adam(&self.step, &mut steps, &mut slopes, mean, square);
        steps
    }

    /// Every row takes its own step and that of its class.
    fn rows<const N: usize>(
        &self,
        rows: &mut [[f32; N]],
        sloping: Sloping<'_, N>,
        classes: &Classes,
        (moments, live): (&mut Moments, &mut [bool]),
        shared: &mut Moments,
    ) {
        let Sloping { slopes, touched } = sloping;
        let kernels = self.kernels;
        let mut sums = vec![0.0; classes.count * N];
        for ((class, slope), touched) in classes.of.iter().zip(&*slopes).zip(&*touched) {
            if let (Some(class), true) = (class, touched) {
                kernels.add(slope, &mut sums[class * N..][..N]);
            }
        }
        let common = self.common(sums, shared);
        let means = moments.mean.as_chunks_mut::<N>().0.iter_mut();
        let moments = means.zip(moments.square.as_chunks_mut::<N>().0);
        let marks = live.iter_mut().zip(touched).zip(&classes.of);
        for (((row, slope), (mean, square)), ((live, touched), class)) in
            rows.iter_mut().zip(slopes).zip(moments).zip(marks)
        {
            *live |= std::mem::take(touched);
            if *live {
                kernels.adam(&self.step, row, slope, mean, square);
            } else {
                // What never had a slope has no step of its own.
                for x in row.iter_mut() {
                    *x *= self.step.shrink;
                }
            }
            if let Some(class) = class {
                kernels.add(&common[class * N..][..N], row);
            }
        }
    }
}
