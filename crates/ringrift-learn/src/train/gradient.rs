//! Loss of the network on samples, and its derivative with respect to every weight.

use ringrift_player::{
    ACCUMULATOR, AUXILIARY, AlignedRows, Encoder, HIDDEN, Kernels, Long, MAX_SEATS, MoveRows,
    Short, Weights,
};
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
    /// By symmetry and view, for every feature, what it becomes.
    features: Vec<Vec<Vec<u32>>>,
    /// By symmetry, for every move row, what it becomes.
    rows: Vec<Vec<u16>>,
}

impl Tables {
    pub(super) fn new(encoder: &Encoder) -> Self {
        let seats = usize::from(encoder.config().players);
        let views = |turned: Vec<u32>| {
            let view = |turn| turned.iter().map(|&f| encoder.view(turn)[f as usize]).collect();
            (0..seats).map(view).collect()
        };
        Self {
            features: encoder.feature_symmetries().into_iter().map(views).collect(),
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
    features: Vec<u32>,
    views: Vec<View>,
    rows: Vec<MoveRows>,
    logits: Vec<f32>,
    probabilities: Vec<f32>,
    shares: Shares,
}

/// What the forward pass keeps of one view.
struct View {
    accumulator: Long,
    hidden: Short,
}

/// How much of the slope falls on each move row.
#[derive(Default)]
struct Shares {
    by_row: Vec<Option<f32>>,
    met: Vec<u16>,
    list: Vec<(u16, f32)>,
}

impl Shares {
    fn add(&mut self, row: u16, share: f32) {
        let at = usize::from(row);
        if at >= self.by_row.len() {
            self.by_row.resize(at + 1, None);
        }
        match &mut self.by_row[at] {
            Some(sum) => *sum += share,
            none => {
                *none = Some(share);
                self.met.push(row);
            }
        }
    }

    /// The sums by row, in the order of their first share; starts anew.
    fn take(&mut self) -> &[(u16, f32)] {
        self.list.clear();
        for row in self.met.drain(..) {
            let sum = self.by_row[usize::from(row)].take();
            self.list.push((row, sum.expect("a row that was met has a sum")));
        }
        &self.list
    }
}

/// Rows whose products with their slopes are still to be added up: that goes faster with many at a time.
#[derive(Default)]
struct Pending {
    inputs: Vec<Long>,
    slopes: Vec<Short>,
}

impl Pending {
    /// As many as stay close to the processor.
    const MOST: usize = 32;

    fn push(&mut self, input: &Long, slope: &Short, kernels: Kernels, sums: &mut [Short]) {
        self.inputs.push(*input);
        self.slopes.push(*slope);
        if self.inputs.len() == Self::MOST {
            self.flush(kernels, sums);
        }
    }

    fn flush(&mut self, kernels: Kernels, sums: &mut [Short]) {
        kernels.outer(&self.inputs, &self.slopes, sums);
        self.inputs.clear();
        self.slopes.clear();
    }
}

/// The derivative of the loss with respect to every weight, summed over rows.
pub(super) struct Gradient {
    sums: Weights,
    /// Feature rows and move rows that are not zero throughout.
    features: Vec<bool>,
    moves: Vec<bool>,
    hidden: Pending,
    policy: Pending,
}

/// The parts of a complete gradient.
pub(super) struct Slopes<'a> {
    pub(super) sums: &'a mut Weights,
    pub(super) features: &'a mut [bool],
    pub(super) moves: &'a mut [bool],
}

impl Gradient {
    pub(super) fn zero(encoder: &Encoder) -> Self {
        Self {
            sums: Weights::zero(encoder),
            features: vec![false; encoder.features()],
            moves: vec![false; encoder.rows()],
            hidden: Pending::default(),
            policy: Pending::default(),
        }
    }

    /// Adds up what is still pending; whoever uses the sums leaves them zero and their rows unmarked.
    pub(super) fn complete(&mut self, kernels: Kernels) -> Slopes<'_> {
        self.hidden.flush(kernels, &mut self.sums.hidden);
        self.policy.flush(kernels, &mut self.sums.policy);
        let Self { sums, features, moves, .. } = self;
        Slopes { sums, features, moves }
    }
}

/// The dense layers with rows and columns exchanged, for the way back.
pub(super) struct Transposed {
    hidden: AlignedRows<ACCUMULATOR>,
    policy: AlignedRows<ACCUMULATOR>,
}

impl Transposed {
    pub(super) fn of(weights: &Weights) -> Self {
        let transposed = |matrix: &[Short]| {
            let mut columns = AlignedRows::zero(HIDDEN);
            for (lane, row) in matrix.iter().enumerate() {
                for (column, x) in columns.iter_mut().zip(row) {
                    column[lane] = *x;
                }
            }
            columns
        };
        Self { hidden: transposed(&weights.hidden), policy: transposed(&weights.policy) }
    }
}

/// Forward and backward pass over one row, seen through a symmetry of the board.
pub(super) struct Pass<'a> {
    pub(super) kernels: Kernels,
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

/// Where the derivative of a row goes.
pub(super) struct Learning<'a> {
    pub(super) gradient: &'a mut Gradient,
    pub(super) transposed: &'a Transposed,
    /// What every derivative is multiplied by.
    pub(super) scale: f32,
}

impl Pass<'_> {
    /// Loss of a row, whose derivative is added up if there is somebody who learns from it.
    pub(super) fn row(
        &self,
        row: usize,
        symmetry: usize,
        learning: Option<Learning<'_>>,
        work: &mut Workspace,
    ) -> Loss {
        let (kernels, weights) = (self.kernels, self.weights);
        self.forward(row, symmetry, work);
        let mut raw = [0.0; MAX_SEATS];
        for (raw, view) in raw.iter_mut().zip(&work.views) {
            *raw = kernels.value(&view.hidden, &weights.value);
        }
        let (value, slope) = self.value_loss(row, &raw[..work.views.len()]);
        let mut loss = Loss { value, rows: 1, ..Loss::default() };
        let mut endings = [[0.0; AUXILIARY]; MAX_SEATS];
        if self.auxiliary_weight > 0.0 {
            for (index, (view, slopes)) in work.views.iter().zip(&mut endings).enumerate() {
                let ending = Ending::of(self.samples, row, index);
                loss.auxiliary += ending.loss(&self.auxiliary(&view.hidden), slopes);
            }
        }

        let mut vector = [0.0; HIDDEN];
        let mover = &work.views[0].accumulator;
        kernels.product(&weights.policy_bias, &weights.policy, mover, &mut vector);
        let has_policy = !self.samples.policy(row).is_empty();
        if has_policy {
            loss.policy = self.policy_loss(row, symmetry, &vector, work);
            loss.policies = 1;
        }
        let Some(Learning { gradient, transposed, scale }) = learning else { return loss };

        for index in 0..work.views.len() {
            let mut back = [0.0; ACCUMULATOR];
            if index == 0 && has_policy {
                let up = self.moves_backward(row, &vector, scale, gradient, work);
                kernels.add(&up, &mut gradient.sums.policy_bias);
                kernels.product_back(&up, &transposed.policy, &mut back);
                let mover = &work.views[0].accumulator;
                gradient.policy.push(mover, &up, kernels, &mut gradient.sums.policy);
            }
            let View { accumulator, hidden } = &work.views[index];
            let ending = endings[index].map(|x| x * self.auxiliary_weight * scale);
            let up = self.hidden_slopes(hidden, slope[index] * scale, &ending, gradient);
            kernels.add(&up, &mut gradient.sums.hidden_bias);
            kernels.product_back(&up, &transposed.hidden, &mut back);
            gradient.hidden.push(accumulator, &up, kernels, &mut gradient.sums.hidden);

            kernels.gate(accumulator, &mut back);
            let view = &self.tables.features[symmetry][index];
            kernels.scatter(&back, view, &work.features, &mut gradient.sums.features);
            for &feature in &work.features {
                gradient.features[view[feature as usize] as usize] = true;
            }
            kernels.add(&back, &mut gradient.sums.features_bias);
        }
        loss
    }

    /// Accumulator and hidden layer of every view.
    fn forward(&self, row: usize, symmetry: usize, work: &mut Workspace) {
        let (kernels, weights) = (self.kernels, self.weights);
        let features = self.samples.features(row).iter().map(|feature| feature.cast_unsigned());
        work.features.clear();
        work.features.extend(features);
        work.views.clear();
        for view in &self.tables.features[symmetry] {
            let (mut accumulator, mut hidden) = ([0.0; ACCUMULATOR], [0.0; HIDDEN]);
            let (bias, table) = (&weights.features_bias, &weights.features);
            kernels.accumulate(bias, table, view, &work.features, &mut accumulator);
            kernels.product(&weights.hidden_bias, &weights.hidden, &accumulator, &mut hidden);
            for x in &mut hidden {
                *x = x.max(0.0);
            }
            work.views.push(View { accumulator, hidden });
        }
    }

    fn auxiliary(&self, hidden: &Short) -> [f32; AUXILIARY] {
        let mut outputs = self.weights.auxiliary_bias;
        for (&x, row) in hidden.iter().zip(&self.weights.auxiliary).filter(|(x, _)| **x > 0.0) {
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

    /// Cross entropy of the policy; leaves the turned rows and the probabilities in `work`.
    fn policy_loss(
        &self,
        row: usize,
        symmetry: usize,
        vector: &Short,
        work: &mut Workspace,
    ) -> f64 {
        let (kernels, weights) = (self.kernels, self.weights);
        let turned = &self.tables.rows[symmetry];
        let range = self.samples.policy(row);
        work.rows.clear();
        let stored = self.samples.policy_rows[range.clone()].iter();
        work.rows.extend(stored.map(|rows| rows.map(|row| turned[usize::from(row)])));
        work.logits.resize(work.rows.len(), 0.0);
        work.probabilities.resize(work.rows.len(), 0.0);
        kernels.logits(vector, &weights.moves, &weights.moves_bias, &work.rows, &mut work.logits);
        let log_sum = kernels.softmax(&work.logits, &mut work.probabilities);
        let targets = &self.samples.policy_values[range];
        let whole: f32 = targets.iter().sum();
        f64::from(log_sum * whole) - f64::from(kernels.dot(&work.logits, targets))
    }

    /// Slope per lane of the hidden layer, for what its outputs missed.
    fn hidden_slopes(
        &self,
        hidden: &Short,
        value: f32,
        ending: &[f32; AUXILIARY],
        gradient: &mut Gradient,
    ) -> Short {
        for (sum, x) in gradient.sums.auxiliary_bias.iter_mut().zip(ending) {
            *sum += x;
        }
        let mut up = [0.0; HIDDEN];
        // A silent lane passes nothing on in either direction.
        for (lane, &x) in hidden.iter().enumerate().filter(|(_, x)| **x > 0.0) {
            gradient.sums.value[lane] += value * x;
            add_scaled(&mut gradient.sums.auxiliary[lane], ending, x);
            let weights = &self.weights.auxiliary[lane];
            let aside: f32 = weights.iter().zip(ending).map(|(w, x)| w * x).sum();
            up[lane] = value * self.weights.value[lane] + aside;
        }
        up
    }

    /// Through the rows of the legal moves; gives the slope per lane of the policy vector.
    fn moves_backward(
        &self,
        row: usize,
        vector: &Short,
        scale: f32,
        gradient: &mut Gradient,
        work: &mut Workspace,
    ) -> Short {
        let targets = &self.samples.policy_values[self.samples.policy(row)];
        let mut unused = 0.0;
        for ((rows, probability), target) in work.rows.iter().zip(&work.probabilities).zip(targets)
        {
            let slope = (probability - target) * scale;
            for &row in rows {
                // Row 0 stands in all unused places.
                if row == 0 {
                    unused += slope;
                } else {
                    work.shares.add(row, slope);
                }
            }
        }
        work.shares.add(0, unused);
        let mut up = [0.0; HIDDEN];
        let shares = work.shares.take();
        let Gradient { sums, moves, .. } = gradient;
        self.kernels.moves_back(vector, shares, &self.weights.moves, &mut sums.moves, &mut up);
        for &(row, share) in shares {
            sums.moves_bias[usize::from(row)] += share;
            moves[usize::from(row)] = true;
        }
        up
    }
}

fn add_scaled<const N: usize>(sum: &mut [f32; N], row: &[f32; N], factor: f32) {
    for (sum, x) in sum.iter_mut().zip(row) {
        *sum += x * factor;
    }
}
