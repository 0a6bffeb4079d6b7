//! The optimiser: `AdamW`, with a shared step for rows that say the same of different cells.

use ringrift_player::{ACCUMULATOR, Classes, Encoder, POLICY, Weights};

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
        }
    }

    /// One step against the gradient.
    pub(super) fn update(
        &mut self,
        weights: &mut Weights,
        gradient: &Weights,
        size: StepSize,
        sharing: &Sharing,
    ) {
        self.step += 1;
        let step = f32::from(u16::try_from(self.step).unwrap_or(u16::MAX));
        let rule = Rule {
            rate: size.rate,
            shrink: 1.0 - size.rate * size.decay,
            mean: 1.0 / (1.0 - MEAN_DECAY.powf(step)),
            square: 1.0 / (1.0 - SQUARE_DECAY.powf(step)),
        };
        let tensors = weights.tensors_mut().into_iter().zip(gradient.tensors());
        for ((tensor, gradient), moments) in tensors.zip(&mut self.own) {
            rule.update(tensor, gradient, moments);
        }
        let [features, moves, biases] = &mut self.shared;
        rule.share(&mut weights.features, &gradient.features, &sharing.features, features);
        rule.share(&mut weights.moves, &gradient.moves, &sharing.moves, moves);
        let (bias, slope) = (&mut weights.moves_bias, &gradient.moves_bias);
        let (bias, _) = bias.as_chunks_mut::<1>();
        rule.share(bias, slope.as_chunks::<1>().0, &sharing.moves, biases);
    }
}

/// The numbers of one step.
struct Rule {
    rate: f32,
    shrink: f32,
    mean: f32,
    square: f32,
}

impl Rule {
    fn update(&self, tensor: &mut [f32], gradient: &[f32], moments: &mut Moments) {
        let moments = moments.mean.iter_mut().zip(&mut moments.square);
        for ((x, &slope), (mean, square)) in tensor.iter_mut().zip(gradient).zip(moments) {
            *mean += (slope - *mean) * (1.0 - MEAN_DECAY);
            *square += (slope * slope - *square) * (1.0 - SQUARE_DECAY);
            let step = *mean * self.mean / ((*square * self.square).sqrt() + TINY);
            *x = *x * self.shrink - self.rate * step;
        }
    }

    /// The common step of every class, taken by all its members.
    fn share<const N: usize>(
        &self,
        rows: &mut [[f32; N]],
        gradient: &[[f32; N]],
        classes: &Classes,
        moments: &mut Moments,
    ) {
        let mut sums = vec![[0.0; N]; classes.count];
        for (class, slope) in classes.of.iter().zip(gradient) {
            if let Some(class) = class {
                for (sum, x) in sums[*class].iter_mut().zip(slope) {
                    *sum += x;
                }
            }
        }
        // From zero, the updated number is the step itself.
        let mut steps = vec![[0.0; N]; classes.count];
        self.update(steps.as_flattened_mut(), sums.as_flattened(), moments);
        for (class, row) in classes.of.iter().zip(rows) {
            if let Some(class) = class {
                for (x, step) in row.iter_mut().zip(&steps[*class]) {
                    *x += step;
                }
            }
        }
    }
}
