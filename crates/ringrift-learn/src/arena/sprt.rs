//! The sequential test on pairs of games, and what a score means in Elo.

use serde::{Deserialize, Serialize};

/// What the test is to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// H0: the candidate is better by this much at most, in Elo (logistic).
    pub elo0: f64,
    /// H1: the candidate is better by this much at least, in Elo (logistic).
    pub elo1: f64,
    /// Chance to accept H1 although H0 holds.
    pub alpha: f64,
    /// Chance to accept H0 although H1 holds.
    pub beta: f64,
}

impl Default for Bounds {
    /// Source: spec/learning.md section 4.1, in the loop.
    fn default() -> Self {
        Self { elo0: 0.0, elo1: 50.0, alpha: 0.05, beta: 0.05 }
    }
}

/// Where the test stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The candidate is no better.
    H0,
    /// The candidate is better.
    H1,
    /// Not enough pairs to say.
    Undecided,
}

impl Bounds {
    /// Log-likelihood ratios at which the test ends: accept H0, accept H1. Source: Wald 1945.
    pub fn limits(&self) -> (f64, f64) {
        ((self.beta / (1.0 - self.alpha)).ln(), ((1.0 - self.beta) / self.alpha).ln())
    }

    /// Log-likelihood ratio of H1 against H0, for pairs in which the candidate got 0, 1 or 2 points.
    ///
    /// Generalised: for each hypothesis the most likely distribution of pair results with that expectation is taken. Source: Van den
    /// Bergh, "The generalized sequential probability ratio test", as used by Fishtest (there with five results, as it has draws).
    pub fn llr(&self, pairs: [u64; 3]) -> f64 {
        // An empty class would make a likelihood infinite; Fishtest adds the same thousandth.
        let counts = pairs.map(|n| if n == 0 { 1e-3 } else { crate::progress::float(n) });
        let total: f64 = counts.iter().sum();
        let shares = counts.map(|n| n / total);
        let (h0, h1) =
            (most_likely(shares, score(self.elo0)), most_likely(shares, score(self.elo1)));
        (0..3).map(|i| counts[i] * (h1[i] / h0[i]).ln()).sum()
    }

    /// What the test says after these pairs.
    pub fn decide(&self, pairs: [u64; 3]) -> Decision {
        let (low, high) = self.limits();
        match self.llr(pairs) {
            llr if llr >= high => Decision::H1,
            llr if llr <= low => Decision::H0,
            _ => Decision::Undecided,
        }
    }
}

/// Distribution over the results 0, 1/2, 1 with expectation `mean` that makes `shares` most likely.
///
/// It is share / (1 + x (result - mean)), with x such that the expectation is right.
fn most_likely(shares: [f64; 3], mean: f64) -> [f64; 3] {
    let results = [0.0, 0.5, 1.0];
    let excess = |x: f64| -> f64 {
        (0..3).map(|i| shares[i] * (results[i] - mean) / (1.0 + x * (results[i] - mean))).sum()
    };
    // All three probabilities stay positive between these; the function falls from one end to the other.
    let (mut low, mut high) = (-1.0 / (1.0 - mean), 1.0 / mean);
    for _ in 0..200 {
        let middle = low.midpoint(high);
        if excess(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let x = low.midpoint(high);
    [0, 1, 2].map(|i| shares[i] / (1.0 + x * (results[i] - mean)))
}

/// Expected score of a player that is better by `elo`.
pub fn score(elo: f64) -> f64 {
    1.0 / (1.0 + 10_f64.powf(-elo / 400.0))
}

/// Elo difference that a score means. A score of 0 or 1 is cut to what `games` games can tell.
pub fn elo(score: f64, games: u64) -> f64 {
    let edge = 0.5 / crate::progress::float(games.max(1));
    let score = score.clamp(edge, 1.0 - edge);
    -400.0 * (1.0 / score - 1.0).log10()
}

/// 95 % interval of a score (Wilson), from openings of which the player won no game, 1 game, and so on up to all.
///
/// The games of a pair share an opening, so they are no independent tries: where pairs scatter more than independent games would,
/// the number of games that counts is lowered accordingly. It is never raised.
pub fn interval(pairs: &[u64]) -> (f64, f64) {
    let counts = || pairs.iter().map(|n| crate::progress::float(*n)).zip(0_u32..);
    let total: f64 = counts().map(|(n, _)| n).sum();
    let most = f64::from(counts().map(|(_, won)| won).max().unwrap_or(0));
    if total == 0.0 || most == 0.0 {
        return (0.0, 1.0);
    }
    let share = |won: u32| f64::from(won) / most;
    let mean = counts().map(|(n, won)| n * share(won)).sum::<f64>() / total;
    let scatter = counts().map(|(n, won)| n * (share(won) - mean).powi(2)).sum::<f64>() / total;
    let independent = mean * (1.0 - mean) / most;
    let effect = if independent > 0.0 { (scatter / independent).clamp(1.0, most) } else { 1.0 };
    wilson(mean, most * total / effect)
}

/// Wilson's interval of a share of `tries`, 95 %.
fn wilson(share: f64, tries: f64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    let z2 = Z * Z / tries;
    let centre = (share + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (share * (1.0 - share) / tries + z2 / (4.0 * tries)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_near(got: f64, want: f64, tolerance: f64) {
        assert!((got - want).abs() <= tolerance, "{got} is not {want}");
    }

    #[test]
    fn the_limits_are_the_published_ones() {
        let (low, high) = Bounds::default().limits();
        check_near(low, -2.944_44, 1e-5);
        check_near(high, 2.944_44, 1e-5);
    }

    #[test]
    fn the_ratio_agrees_with_a_constrained_maximisation_done_otherwise() {
        // Found by maximising sum(n ln p) under the two constraints on a fine grid over p(1/2), see `grid`.
        let bounds = Bounds { elo0: 0.0, elo1: 50.0, alpha: 0.05, beta: 0.05 };
        for pairs in [[20, 50, 30], [5, 10, 25], [40, 40, 20], [1, 1, 1]] {
            check_near(bounds.llr(pairs), grid(pairs, 50.0) - grid(pairs, 0.0), 1e-3);
        }
    }

    /// Largest log-likelihood of pairs at an expectation, by search: given the share of split pairs, the rest follows.
    fn grid(pairs: [u64; 3], elo: f64) -> f64 {
        let mean = score(elo);
        let counts = pairs.map(crate::progress::float);
        (1..100_000)
            .map(|step| f64::from(step) / 100_000.0)
            .filter_map(|split| {
                let two = mean - split / 2.0;
                let none = 1.0 - split - two;
                (two > 0.0 && none > 0.0)
                    .then(|| counts[0] * none.ln() + counts[1] * split.ln() + counts[2] * two.ln())
            })
            .fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn a_clear_winner_is_accepted_and_an_equal_one_is_not() {
        let bounds = Bounds::default();
        assert_eq!(bounds.decide([0, 5, 45]), Decision::H1);
        assert_eq!(bounds.decide([90, 100, 60]), Decision::H0);
        assert_eq!(bounds.decide([0, 0, 0]), Decision::Undecided);
        assert_eq!(bounds.decide([3, 6, 4]), Decision::Undecided);
    }

    #[test]
    fn the_test_errs_as_seldom_as_it_states() {
        // Equal players (H0 with Elo 0): pairs are 0, 1, 2 points with 1/4, 1/2, 1/4.
        let bounds = Bounds::default();
        let mut rng = fastrand::Rng::with_seed(3);
        let mut wrong = 0;
        for _ in 0..300 {
            let mut pairs = [0_u64; 3];
            for _ in 0..400 {
                pairs[usize::from(rng.bool()) + usize::from(rng.bool())] += 1;
                match bounds.decide(pairs) {
                    Decision::H1 => {
                        wrong += 1;
                        break;
                    }
                    Decision::H0 => break,
                    Decision::Undecided => {}
                }
            }
        }
        // 5 % of 300 is 15; 28 is more than three standard deviations above.
        assert!(wrong <= 28, "{wrong}");
    }

    #[test]
    fn elo_and_score_are_inverse_and_known_points_hold() {
        check_near(score(400.0), 10.0 / 11.0, 1e-9);
        check_near(elo(0.75, 1000), 190.848, 1e-3);
        check_near(elo(score(-123.0), 1000), -123.0, 1e-9);
        assert!(elo(1.0, 200).is_finite());
    }

    #[test]
    fn wilsons_interval_has_the_published_ends() {
        // 200 of 200: lower end 98.1 % (spec/learning.md, L1).
        let (low, high) = interval(&[0, 0, 100]);
        check_near(low, 0.981, 5e-4);
        check_near(high, 1.0, 1e-9);
        // Pairs that are always 2:0 or 0:2 count as one try each: 50 of 100 gives 40.4 to 59.6 %.
        let (low, high) = interval(&[50, 0, 50]);
        check_near(low, 0.404, 1e-3);
        check_near(high, 0.596, 1e-3);
    }

    #[test]
    fn rounds_of_four_games_have_the_interval_of_their_games() {
        // Scattered as independent games of a chance of one half: 1, 4, 6, 4, 1 of 16, so 320 games count.
        let (low, high) = interval(&[5, 20, 30, 20, 5]);
        check_near(low, 0.4455, 1e-3);
        check_near(high, 0.5545, 1e-3);
        // Never more than one game of four: as one in four of 400 games.
        let (low, high) = interval(&[0, 100, 0, 0, 0]);
        check_near(low, 0.2100, 1e-3);
        check_near(high, 0.2948, 1e-3);
    }
}
