//! The arithmetic of Gumbel search, apart from any tree.
//!
//! Source: Danihelka, Guez, Schrittwieser, Silver, "Policy improvement by planning with Gumbel", ICLR 2022: sequential halving
//! (section 4.1 and appendix), completed Q (equation 10), the mixed value (equation 33), the non-root rule (equation 14).

use crate::kernels::{Arms, Kernels};

/// The two constants of sigma(q) = (`visit` + largest visit count) * `scale` * q, with q as a chance to win.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sigma {
    /// How many visits the prior is worth; 50 in the paper.
    pub visit: f32,
    /// Weight of a value against a logit; 1.0 in the paper's board games.
    pub scale: f32,
}

impl Sigma {
    /// What a value counts against a logit, when the most visited move has `most` visits.
    pub fn factor(self, most: f32) -> f32 {
        (self.visit + most) * self.scale
    }
}

/// What the visited moves of a node add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// All visits.
    pub visits: f32,
    /// Visits of the most visited move.
    pub most: f32,
    /// Prior probability of all visited moves together.
    pub prior: f32,
}

impl Tally {
    /// Counts a visit of a move that has `visits` with it.
    pub fn count(&mut self, visits: f32, prior: f32) {
        self.visits += 1.0;
        self.most = self.most.max(visits);
        if visits <= 1.0 {
            self.prior += prior;
        }
    }

    /// The value of a node as the search sees it: the network's own, mixed with what the visited moves returned.
    ///
    /// `weighted` is the sum of prior times q over the visited moves.
    pub fn mixed_value(&self, network: f32, weighted: f32) -> f32 {
        if self.visits <= 0.0 || self.prior <= 0.0 {
            return network;
        }
        (network + self.visits * weighted / self.prior) / (1.0 + self.visits)
    }
}

/// What a node knows about its moves.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// One entry per move; q is zero where a move has no visit.
    pub arms: Arms<'a>,
    /// The network's probability of each move.
    pub priors: &'a [f32],
    /// Sums over the visited moves.
    pub tally: Tally,
    /// The network's chance to win for the player to move.
    pub network: f32,
}

impl Known<'_> {
    /// Softmax of logit + sigma(completed Q): a visited move has its own Q, another one the mixed value.
    pub fn improved_policy(&self, kernels: Kernels, sigma: Sigma, out: &mut Vec<f32>) {
        let mixed = self.tally.mixed_value(self.network, kernels.dot(self.priors, self.arms.q));
        out.resize(self.priors.len(), 0.0);
        kernels.improve(&self.arms, mixed, sigma.factor(self.tally.most), out);
    }

    /// Which move an inner node tries next: the one whose share of visits lags most behind the improved policy.
    pub fn inner_choice(&self, kernels: Kernels, sigma: Sigma, work: &mut Vec<f32>) -> usize {
        self.improved_policy(kernels, sigma, work);
        kernels.laggard(work, self.arms.visits, 1.0 + self.tally.visits)
    }
}

/// For each simulation in turn, the visit count of the root moves that may be tried next.
///
/// `considered` moves share `simulations` by sequential halving: all get the same number of visits, then the better half goes on.
pub fn considered_visits(considered: usize, simulations: usize) -> Vec<u32> {
    if considered <= 1 {
        return (0..simulations).map(|n| u32::try_from(n).unwrap_or(u32::MAX)).collect();
    }
    let rounds = considered.next_power_of_two().ilog2() as usize;
    let mut visits = vec![0_u32; considered];
    let mut sequence = Vec::with_capacity(simulations + considered);
    let mut left = considered;
    while sequence.len() < simulations {
        for _ in 0..(simulations / (rounds * left)).max(1) {
            for count in &mut visits[..left] {
                sequence.push(*count);
                *count += 1;
            }
        }
        left = (left / 2).max(2);
    }
    sequence.truncate(simulations);
    sequence
}

/// Index of the largest value, the first one on ties; 0 without any.
pub fn best(values: impl Iterator<Item = f32>) -> usize {
    let mut chosen = (0, f32::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > chosen.1 {
            chosen = (index, value);
        }
    }
    chosen.0
}

/// A standard Gumbel number: the noise that turns "largest logit" into a sample.
pub fn noise(rng: &mut fastrand::Rng) -> f32 {
    // `f32()` may be 0, whose logarithm is infinite.
    let uniform = rng.f32().max(f32::MIN_POSITIVE);
    -(-uniform.ln()).max(f32::MIN_POSITIVE).ln()
}

/// A number of visits, to calculate with.
#[expect(clippy::cast_precision_loss, reason = "visit counts stay far below 2^24")]
pub fn count(visits: u32) -> f32 {
    visits as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_visits(considered: usize, simulations: usize, expected: &[u32]) {
        assert_eq!(considered_visits(considered, simulations), expected);
    }

    #[test]
    fn sequential_halving_shares_the_simulations() {
        check_visits(1, 4, &[0, 1, 2, 3]);
        // Four moves, eight simulations: one visit each (8 / (2 * 4)), then two more for the better two.
        check_visits(4, 8, &[0, 0, 0, 0, 1, 1, 2, 2]);
        check_visits(4, 16, &[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        check_visits(3, 5, &[0, 0, 0, 1, 1]);
        check_visits(16, 3, &[0, 0, 0]);
    }

    /// The moves of a node, with what they add up to.
    struct Node {
        logits: Vec<f32>,
        priors: Vec<f32>,
        visits: Vec<f32>,
        q: Vec<f32>,
        tally: Tally,
    }

    impl Node {
        fn new(priors: &[f32], visits: &[u8], q: &[f32]) -> Self {
            let mut tally = Tally::default();
            for (&prior, &visits) in priors.iter().zip(visits) {
                (1..=visits).for_each(|visit| tally.count(visit.into(), prior));
            }
            Self {
                logits: priors.iter().map(|prior| prior.ln()).collect(),
                priors: priors.to_vec(),
                visits: visits.iter().map(|visits| f32::from(*visits)).collect(),
                q: q.to_vec(),
                tally,
            }
        }

        fn known(&self, network: f32) -> Known<'_> {
            let arms = Arms { logits: &self.logits, visits: &self.visits, q: &self.q };
            Known { arms, priors: &self.priors, tally: self.tally, network }
        }
    }

    fn example(visits: &[u8]) -> Node {
        Node::new(&[0.5, 0.3, 0.2], visits, &[0.6, 0.9, 0.0])
    }

    #[test]
    fn completed_q_agrees_with_the_example_done_by_hand() {
        let kernels = Kernels::detect();
        // By hand: visited prior 0.8, weighted Q (0.5*0.6 + 0.3*0.9)/0.8 = 0.7125, four visits, network 0.4:
        // mixed value (0.4 + 4*0.7125)/5 = 0.65.
        let node = example(&[3, 1, 0]);
        let known = node.known(0.4);
        let weighted = kernels.dot(&node.priors, &node.q);
        assert!((node.tally.mixed_value(0.4, weighted) - 0.65).abs() < 1e-6);
        // sigma factor (2 + 3) * 0.5 = 2.5: ln 0.5 + 1.5, ln 0.3 + 2.25, ln 0.2 + 1.625; that is 0.806853, 1.046027, 0.015562.
        // exp: 2.24084, 2.84632, 1.01568; sum 6.10285.
        let (sigma, mut policy) = (Sigma { visit: 2.0, scale: 0.5 }, Vec::new());
        known.improved_policy(kernels, sigma, &mut policy);
        for (got, want) in policy.iter().zip([0.367_180, 0.466_393, 0.166_428]) {
            assert!((got - want).abs() < 1e-4, "{got} {want}");
        }
        // Visit shares of 1 + 4: 0.6, 0.2, 0; the second move lags most (0.266 against -0.233 and 0.166).
        assert_eq!(known.inner_choice(kernels, sigma, &mut policy), 1);
    }

    #[test]
    fn without_a_visit_the_policy_stays_as_it_is() {
        let node = Node::new(&[0.5, 0.3, 0.2], &[0, 0, 0], &[0.0; 3]);
        let mut policy = Vec::new();
        let sigma = Sigma { visit: 50.0, scale: 1.0 };
        node.known(0.4).improved_policy(Kernels::detect(), sigma, &mut policy);
        for (got, prior) in policy.iter().zip(&node.priors) {
            assert!((got - prior).abs() < 1e-5);
        }
    }

    #[test]
    fn the_new_policy_is_never_worse_when_values_are_right() {
        // With exact Q for the visited moves and v = sum(prior * Q) for the node, the paper promises improvement.
        let mut rng = fastrand::Rng::with_seed(5);
        let kernels = Kernels::detect();
        for _ in 0..1000 {
            let moves = rng.usize(2..12);
            let logits: Vec<f32> = (0..moves).map(|_| rng.f32() * 4.0).collect();
            let mut prior = vec![0.0; moves];
            kernels.softmax(&logits, &mut prior);
            let q: Vec<f32> = (0..moves).map(|_| rng.f32()).collect();
            let before: f32 = prior.iter().zip(&q).map(|(p, q)| p * q).sum();
            let node = Node::new(&prior, &vec![1; moves], &q);
            let (sigma, mut improved) = (Sigma { visit: 50.0, scale: 1.0 }, Vec::new());
            node.known(before).improved_policy(kernels, sigma, &mut improved);
            let after: f32 = improved.iter().zip(&q).map(|(p, q)| p * q).sum();
            assert!(after >= before - 1e-5, "{after} < {before}");
        }
    }
}
