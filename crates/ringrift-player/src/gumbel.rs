//! The arithmetic of Gumbel search, apart from any tree.
//!
//! Source: Danihelka, Guez, Schrittwieser, Silver, "Policy improvement by planning with Gumbel", ICLR 2022: sequential halving
//! (section 4.1 and appendix), completed Q (equation 10), the mixed value (equation 33), the non-root rule (equation 14).

/// The two constants of sigma(q) = (`visit` + largest visit count) * `scale` * q, with q as a chance to win.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sigma {
    /// How many visits the prior is worth; 50 in the paper.
    pub visit: f32,
    /// Weight of a value against a logit; 1.0 in the paper's board games.
    pub scale: f32,
}

/// What a node knows about one move.
#[derive(Debug, Clone, Copy)]
pub struct Arm {
    /// Logarithm of the network's probability, up to a constant.
    pub logit: f32,
    /// The network's probability.
    pub prior: f32,
    /// How often the move was tried.
    pub visits: u32,
    /// Mean chance to win of the player to move after these tries; meaningless without a visit.
    pub q: f32,
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

/// The value of a node as the search sees it: the network's own, mixed with what the visited moves returned.
pub fn mixed_value(arms: &[Arm], network: f32) -> f32 {
    let (mut visits, mut prior, mut weighted) = (0_u32, 0.0_f32, 0.0_f32);
    for arm in arms.iter().filter(|arm| arm.visits > 0) {
        visits += arm.visits;
        prior += arm.prior;
        weighted += arm.prior * arm.q;
    }
    if visits == 0 || prior <= 0.0 {
        return network;
    }
    let visits = count(visits);
    (network + visits * weighted / prior) / (1.0 + visits)
}

/// logit + sigma(completed Q) of every arm: a visited move has its own Q, another one the mixed value.
///
/// `network` is the network's chance to win for the player to move.
pub fn improved_logits(arms: &[Arm], network: f32, sigma: Sigma, out: &mut Vec<f32>) {
    let mixed = mixed_value(arms, network);
    let most = arms.iter().map(|arm| arm.visits).max().unwrap_or(0);
    let factor = (sigma.visit + count(most)) * sigma.scale;
    out.clear();
    out.extend(
        arms.iter().map(|arm| arm.logit + factor * if arm.visits > 0 { arm.q } else { mixed }),
    );
}

/// Turns logits into probabilities in place.
pub fn softmax(logits: &mut [f32]) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in logits.iter_mut() {
        *x = (*x - highest).exp();
        sum += *x;
    }
    for x in logits.iter_mut() {
        *x /= sum;
    }
}

/// Which move an inner node tries next: the one whose share of visits lags most behind the improved policy.
pub fn inner_choice(arms: &[Arm], improved: &[f32]) -> usize {
    let total: u32 = arms.iter().map(|arm| arm.visits).sum();
    let whole = 1.0 + count(total);
    best((0..arms.len()).map(|i| improved[i] - count(arms[i].visits) / whole))
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

#[expect(clippy::cast_precision_loss, reason = "visit counts stay far below 2^24")]
fn count(n: u32) -> f32 {
    n as f32
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

    fn example() -> Vec<Arm> {
        let prior = [0.5, 0.3, 0.2];
        let visits = [3, 1, 0];
        let q = [0.6, 0.9, 0.0];
        (0..3)
            .map(|i| Arm { logit: f32::ln(prior[i]), prior: prior[i], visits: visits[i], q: q[i] })
            .collect()
    }

    #[test]
    fn completed_q_agrees_with_the_example_done_by_hand() {
        // By hand: visited prior 0.8, weighted Q (0.5*0.6 + 0.3*0.9)/0.8 = 0.7125, four visits, network 0.4:
        // mixed value (0.4 + 4*0.7125)/5 = 0.65.
        let arms = example();
        assert!((mixed_value(&arms, 0.4) - 0.65).abs() < 1e-6);
        // sigma factor (2 + 3) * 0.5 = 2.5: ln 0.5 + 1.5, ln 0.3 + 2.25, ln 0.2 + 1.625.
        let mut logits = Vec::new();
        improved_logits(&arms, 0.4, Sigma { visit: 2.0, scale: 0.5 }, &mut logits);
        for (got, want) in logits.iter().zip([0.806_853, 1.046_027, 0.015_562]) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
        softmax(&mut logits);
        // exp: 2.24084, 2.84632, 1.01568; sum 6.10285.
        for (got, want) in logits.iter().zip([0.367_180, 0.466_393, 0.166_428]) {
            assert!((got - want).abs() < 1e-4, "{got} {want}");
        }
        // Visit shares of 1 + 4: 0.6, 0.2, 0; the second move lags most (0.266 against -0.233 and 0.166).
        assert_eq!(inner_choice(&arms, &logits), 1);
    }

    #[test]
    fn without_a_visit_the_policy_stays_as_it_is() {
        let arms: Vec<Arm> = example().iter().map(|arm| Arm { visits: 0, ..*arm }).collect();
        let mut logits = Vec::new();
        improved_logits(&arms, 0.4, Sigma { visit: 50.0, scale: 1.0 }, &mut logits);
        softmax(&mut logits);
        for (got, arm) in logits.iter().zip(&arms) {
            assert!((got - arm.prior).abs() < 1e-5);
        }
    }

    #[test]
    fn the_new_policy_is_never_worse_when_values_are_right() {
        // With exact Q for the visited moves and v = sum(prior * Q) for the node, the paper promises improvement.
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..1000 {
            let moves = rng.usize(2..12);
            let mut prior: Vec<f32> = (0..moves).map(|_| rng.f32() * 4.0).collect();
            softmax(&mut prior);
            let q: Vec<f32> = (0..moves).map(|_| rng.f32()).collect();
            let before: f32 = prior.iter().zip(&q).map(|(p, q)| p * q).sum();
            let arms: Vec<Arm> = (0..moves)
                .map(|i| Arm { logit: prior[i].ln(), prior: prior[i], visits: 1, q: q[i] })
                .collect();
            let mut improved = Vec::new();
            improved_logits(&arms, before, Sigma { visit: 50.0, scale: 1.0 }, &mut improved);
            softmax(&mut improved);
            let after: f32 = improved.iter().zip(&q).map(|(p, q)| p * q).sum();
            assert!(after >= before - 1e-5, "{after} < {before}");
        }
    }
}
