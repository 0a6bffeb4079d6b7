//! Loss of the network on samples, and its derivative with respect to every weight.

use ringrift_player::{ACCUMULATOR, AUXILIARY, Encoder, HIDDEN, MAX_SEATS, POLICY, Weights};

use serde::{Deserialize, Serialize};

use super::auxiliary::Ending;
use crate::samples::Samples;

/// Sums of losses over rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Loss {
    /// Cross entropy of the policy, summed over `policies` rows.
    pub(super) policy: f64,
    /// Rows with a policy target.
    pub(super) policies: u32,
    /// Cross entropy of the chances to win, summed over `rows` rows.
    pub(super) value: f64,
    /// What the auxiliary outputs miss, summed over `rows` rows.
    pub(super) auxiliary: f64,
    /// All rows.
    pub(super) rows: u32,
}

impl Loss {
    pub(super) fn add(&mut self, other: Self) {
        self.policy += other.policy;
        self.policies += other.policies;
        self.value += other.value;
        self.auxiliary += other.auxiliary;
        self.rows += other.rows;
    }

    /// Mean per row with a policy target.
    pub(super) fn mean_policy(&self) -> f64 {
        self.policy / f64::from(self.policies)
    }

    /// Mean per row.
    pub(super) fn mean_value(&self) -> f64 {
        self.value / f64::from(self.rows)
    }
}

/// Translations that turn a stored row into any of its symmetric images and views.
pub(super) struct Tables {
    views: Vec<Vec<u32>>,
    features: Vec<Vec<u32>>,
    rows: Vec<Vec<u16>>,
}

impl Tables {
    pub(super) fn new(encoder: &Encoder) -> Self {
        let seats = usize::from(encoder.config().players);
        Self {
            views: (0..seats).map(|turn| encoder.view(turn).to_vec()).collect(),
            features: encoder.feature_symmetries(),
            rows: encoder.row_symmetries(),
        }
    }

    pub(super) fn symmetries(&self) -> usize {
        self.features.len()
    }
}

/// Memory for one row, kept between rows.
#[derive(Default)]
pub(super) struct Workspace {
    features: Vec<usize>,
    sums: Vec<[f32; POLICY]>,
    probabilities: Vec<f32>,
}

/// What the forward pass keeps of one view.
struct View {
    accumulator: [f32; ACCUMULATOR],
    hidden: [f32; HIDDEN],
}

/// Forward and backward pass over one row, seen through a symmetry of the board.
pub(super) struct Pass<'a> {
    pub(super) samples: &'a Samples,
    pub(super) tables: &'a Tables,
    /// Value target of every row, as utilities from the mover's seat on.
    pub(super) targets: &'a [f32],
    /// Weight of the value loss against the policy loss.
    pub(super) value_weight: f32,
    /// Weight of the auxiliary loss against the policy loss.
    pub(super) auxiliary_weight: f32,
    pub(super) weights: &'a Weights,
}

impl Pass<'_> {
    /// Loss of a row; with `gradient`, its derivative times `scale` is added there.
    pub(super) fn row(
        &self,
        row: usize,
        symmetry: usize,
        gradient: Option<(&mut Weights, f32)>,
        work: &mut Workspace,
    ) -> Loss {
        let seats = self.samples.seats();
        let turned = &self.tables.features[symmetry];
        let views: Vec<View> = (0..seats)
            .map(|view| {
                self.list_features(row, turned, view, work);
                self.forward(&work.features)
            })
            .collect();
        let mut raw = [0.0; MAX_SEATS];
        for (raw, view) in raw.iter_mut().zip(&views) {
            *raw = view.hidden.iter().zip(&self.weights.value).map(|(x, w)| x * w).sum();
        }
        let (value, slope) = self.value_loss(row, &raw[..seats]);
        let mut loss = Loss { value, rows: 1, ..Loss::default() };
        let mut endings = [[0.0; AUXILIARY]; MAX_SEATS];
        if self.auxiliary_weight > 0.0 {
            for (index, (view, slopes)) in views.iter().zip(&mut endings).enumerate() {
                let ending = Ending::of(self.samples, row, index);
                loss.auxiliary += ending.loss(&self.auxiliary(&view.hidden), slopes);
            }
        }

        let vector = self.policy_vector(&views[0].accumulator);
        let has_policy = !self.samples.policy(row).is_empty();
        if has_policy {
            loss.policy = self.policy_loss(row, symmetry, &vector, work);
            loss.policies = 1;
        }
        let Some((gradient, scale)) = gradient else { return loss };

        for (index, view) in views.iter().enumerate() {
            let mut back = [0.0; ACCUMULATOR];
            let ending = endings[index].map(|x| x * self.auxiliary_weight * scale);
            self.value_backward(view, slope[index] * scale, &ending, gradient, &mut back);
            if index == 0 && has_policy {
                let up = self.moves_backward(row, symmetry, &vector, scale, gradient, work);
                self.policy_backward(view, &up, gradient, &mut back);
            }
            for (back, x) in back.iter_mut().zip(&view.accumulator) {
                if *x <= 0.0 {
                    *back = 0.0;
                }
            }
            self.list_features(row, turned, index, work);
            for &feature in &work.features {
                add(&mut gradient.features[feature], &back);
            }
            for (sum, x) in gradient.features_bias.iter_mut().zip(&back) {
                *sum += x;
            }
        }
        loss
    }

    fn list_features(&self, row: usize, turned: &[u32], view: usize, work: &mut Workspace) {
        let view = &self.tables.views[view];
        work.features.clear();
        work.features.extend(self.samples.features(row).iter().map(|&feature| {
            let feature = usize::try_from(feature).expect("samples are checked when read");
            view[turned[feature] as usize] as usize
        }));
    }

    fn forward(&self, features: &[usize]) -> View {
        let weights = self.weights;
        let mut accumulator = [0.0; ACCUMULATOR];
        accumulator.copy_from_slice(&weights.features_bias);
        for &feature in features {
            add(&mut accumulator, &weights.features[feature]);
        }
        for x in &mut accumulator {
            *x = x.max(0.0);
        }
        let mut hidden = [0.0; HIDDEN];
        hidden.copy_from_slice(&weights.hidden_bias);
        for (&x, row) in accumulator.iter().zip(&weights.hidden) {
            if x > 0.0 {
                add_scaled(&mut hidden, row, x);
            }
        }
        for x in &mut hidden {
            *x = x.max(0.0);
        }
        View { accumulator, hidden }
    }

    fn auxiliary(&self, hidden: &[f32; HIDDEN]) -> [f32; AUXILIARY] {
        let mut outputs = [0.0; AUXILIARY];
        outputs.copy_from_slice(&self.weights.auxiliary_bias);
        for (&x, row) in hidden.iter().zip(&self.weights.auxiliary) {
            add_scaled(&mut outputs, row, x);
        }
        outputs
    }

    /// Cross entropy between the chances the network gives and the target, and its slope per raw value.
    fn value_loss(&self, row: usize, raw: &[f32]) -> (f64, [f32; MAX_SEATS]) {
        let seats = raw.len();
        let targets = &self.targets[row * seats..][..seats];
        let highest = raw.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = raw.iter().map(|x| (x - highest).exp()).sum();
        let (mut loss, mut slope) = (0.0, [0.0; MAX_SEATS]);
        for seat in 0..seats {
            let target = if seats == 2 { targets[seat].midpoint(1.0) } else { targets[seat] };
            let log = raw[seat] - highest - sum.ln();
            loss -= f64::from(target * log);
            slope[seat] = (log.exp() - target) * self.value_weight;
        }
        (loss, slope)
    }

    fn policy_vector(&self, accumulator: &[f32; ACCUMULATOR]) -> [f32; POLICY] {
        let mut vector = [0.0; POLICY];
        vector.copy_from_slice(&self.weights.policy_bias);
        for (&x, row) in accumulator.iter().zip(&self.weights.policy) {
            if x > 0.0 {
                add_scaled(&mut vector, row, x);
            }
        }
        vector
    }

    /// Cross entropy of the policy; leaves the probabilities and the sums of move rows in `work`.
    fn policy_loss(
        &self,
        row: usize,
        symmetry: usize,
        vector: &[f32; POLICY],
        work: &mut Workspace,
    ) -> f64 {
        let turned = &self.tables.rows[symmetry];
        let range = self.samples.policy(row);
        work.sums.clear();
        work.probabilities.clear();
        for rows in &self.samples.policy_rows[range.clone()] {
            let (mut sum, mut bias) = ([0.0; POLICY], 0.0);
            for &row in rows {
                let row = usize::from(turned[usize::from(row)]);
                add(&mut sum, &self.weights.moves[row]);
                bias += self.weights.moves_bias[row];
            }
            work.probabilities.push(bias + dot(&sum, vector));
            work.sums.push(sum);
        }
        let highest = work.probabilities.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = work.probabilities.iter().map(|x| (x - highest).exp()).sum();
        let mut loss = 0.0;
        for (x, &target) in work.probabilities.iter_mut().zip(&self.samples.policy_values[range]) {
            let log = *x - highest - sum.ln();
            loss -= f64::from(target * log);
            *x = log.exp();
        }
        loss
    }

    fn value_backward(
        &self,
        view: &View,
        slope: f32,
        ending: &[f32; AUXILIARY],
        gradient: &mut Weights,
        back: &mut [f32; ACCUMULATOR],
    ) {
        for (sum, x) in gradient.auxiliary_bias.iter_mut().zip(ending) {
            *sum += x;
        }
        let mut up = [0.0; HIDDEN];
        for (lane, up) in up.iter_mut().enumerate() {
            gradient.value[lane] += slope * view.hidden[lane];
            add_scaled(&mut gradient.auxiliary[lane], ending, view.hidden[lane]);
            if view.hidden[lane] > 0.0 {
                let aside: f32 =
                    self.weights.auxiliary[lane].iter().zip(ending).map(|(w, x)| w * x).sum();
                *up = slope * self.weights.value[lane] + aside;
                gradient.hidden_bias[lane] += *up;
            }
        }
        for (lane, back) in back.iter_mut().enumerate() {
            let x = view.accumulator[lane];
            if x > 0.0 {
                add_scaled(&mut gradient.hidden[lane], &up, x);
                *back += dot(&self.weights.hidden[lane], &up);
            }
        }
    }

    /// Through the rows of the legal moves; gives the slope per lane of the policy vector.
    fn moves_backward(
        &self,
        row: usize,
        symmetry: usize,
        vector: &[f32; POLICY],
        scale: f32,
        gradient: &mut Weights,
        work: &Workspace,
    ) -> [f32; POLICY] {
        let turned = &self.tables.rows[symmetry];
        let mut up = [0.0; POLICY];
        for (index, at) in self.samples.policy(row).enumerate() {
            let slope = (work.probabilities[index] - self.samples.policy_values[at]) * scale;
            add_scaled(&mut up, &work.sums[index], slope);
            for &row in &self.samples.policy_rows[at] {
                let row = usize::from(turned[usize::from(row)]);
                add_scaled(&mut gradient.moves[row], vector, slope);
                gradient.moves_bias[row] += slope;
            }
        }
        up
    }

    fn policy_backward(
        &self,
        view: &View,
        up: &[f32; POLICY],
        gradient: &mut Weights,
        back: &mut [f32; ACCUMULATOR],
    ) {
        for (sum, x) in gradient.policy_bias.iter_mut().zip(up) {
            *sum += x;
        }
        for (lane, back) in back.iter_mut().enumerate() {
            let x = view.accumulator[lane];
            if x > 0.0 {
                add_scaled(&mut gradient.policy[lane], up, x);
                *back += dot(&self.weights.policy[lane], up);
            }
        }
    }
}

fn add<const N: usize>(sum: &mut [f32; N], row: &[f32; N]) {
    for (sum, x) in sum.iter_mut().zip(row) {
        *sum += x;
    }
}

fn add_scaled<const N: usize>(sum: &mut [f32; N], row: &[f32; N], factor: f32) {
    for (sum, x) in sum.iter_mut().zip(row) {
        *sum += x * factor;
    }
}

/// Eight running sums: a single one could not use vector registers, as its order of additions is fixed.
fn dot<const N: usize>(a: &[f32; N], b: &[f32; N]) -> f32 {
    let mut lanes = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum()
}
