//! Ratings: one number per player from all stored results, whatever their order.
//!
//! A game says who finished before whom. The model is that of Plackett and Luce: whoever is left, a seat comes next with a chance in
//! proportion to the strength of its player. Of two seats that is the model of Bradley and Terry, so that one fit does for all.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::progress::float;

/// Result of one match between two players of the same config, search included in their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchResult {
    /// One player.
    pub a: String,
    /// The other one.
    pub b: String,
    /// Games that A won.
    pub wins: u64,
    /// Games that B won.
    pub losses: u64,
    /// Games by how the seats finished, such as `a>b=b`: a seat of A before two of B that share a place. Empty where two played.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub finishes: BTreeMap<String, u64>,
}

/// Strength of one player.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rating {
    /// The player.
    pub player: String,
    /// Elo above the anchor.
    pub elo: f64,
    /// Lower end of the 95 % interval against the anchor.
    pub low: f64,
    /// Upper end of the 95 % interval against the anchor.
    pub high: f64,
    /// Games the number rests on.
    pub games: u64,
}

/// Elo per unit of log-odds: 400 / ln 10.
const ELO: f64 = 400.0 / std::f64::consts::LN_10;
/// Games of two that every pair of players that met is taken to have drawn, beyond the real ones: keeps a player that never lost finite.
const PRIOR_GAMES: f64 = 1.0;
/// Largest step of one iteration, in log-odds.
const LONGEST_STEP: f64 = 2.0;
/// Fits to weights drawn anew, which the intervals come from: their ends are good to some 7 % of the half width.
const RESAMPLES: u32 = 400;
/// Accuracy of these fits, in log-odds.
const RESAMPLE_ACCURACY: f64 = 1e-4;

/// Ratings of all players, best first; the anchor has 0 Elo.
///
/// Maximum likelihood of the Plackett-Luce model, found by Newton's method; each order of seats that share a place counts alike.
/// Intervals by the Bayesian bootstrap: each game, the prior ones included, gets a weight by chance, and the ends cut off 2.5 % of the
/// fits on either side. The plain bootstrap would call a player that never lost certain.
///
/// # Errors
/// A match of a player with itself, or players that no chain of matches connects with the anchor: their difference is unknown.
pub fn rate(matches: &[MatchResult], anchor: &str) -> anyhow::Result<Vec<Rating>> {
    let names: BTreeSet<&str> = matches.iter().flat_map(|m| [m.a.as_str(), m.b.as_str()]).collect();
    // The anchor comes last, so that the others are the unknowns 0..n.
    let others: Vec<&str> = names.into_iter().filter(|name| *name != anchor).collect();
    let index: BTreeMap<&str, usize> =
        others.iter().copied().chain([anchor]).enumerate().map(|(i, name)| (name, i)).collect();
    let mut orders = BTreeMap::new();
    let mut met = BTreeSet::new();
    let mut games = vec![0; index.len()];
    for result in matches {
        let [a, b] = [index[result.a.as_str()], index[result.b.as_str()]];
        ensure!(a != b, "{} has a match against itself", result.a);
        met.insert((a.min(b), a.max(b)));
        let played = result.wins + result.losses;
        games[a] += played;
        games[b] += played;
        if result.finishes.is_empty() {
            add(&mut orders, vec![a, b], float(result.wins));
            add(&mut orders, vec![b, a], float(result.losses));
        }
        for (finish, count) in &result.finishes {
            let all = orders_of(finish, [a, b])
                .with_context(|| format!("the match of {} and {}", result.a, result.b))?;
            let each = float(*count) / float(all.len() as u64);
            for order in all {
                add(&mut orders, order, each);
            }
        }
    }
    check_connected(&met, &others, anchor)?;
    for (a, b) in met {
        add(&mut orders, vec![a, b], PRIOR_GAMES / 2.0);
        add(&mut orders, vec![b, a], PRIOR_GAMES / 2.0);
    }

    let orders: Vec<(Vec<usize>, f64)> = orders.into_iter().collect();
    let strength = fit(&orders, vec![0.0; index.len()], 1e-9)?;
    let ends = intervals(&orders, &strength)?;
    let mut ratings: Vec<Rating> = (others.iter().copied().chain([anchor]).enumerate())
        .map(|(i, player)| Rating {
            player: player.to_owned(),
            elo: strength[i] * ELO,
            low: ends[i][0] * ELO,
            high: ends[i][1] * ELO,
            games: games[i],
        })
        .collect();
    ratings.sort_by(|x, y| y.elo.total_cmp(&x.elo).then_with(|| x.player.cmp(&y.player)));
    Ok(ratings)
}

/// How a game of A and B ended: seats by rank, best first, in the words of [`MatchResult::finishes`].
pub(crate) fn finish(seats: impl Iterator<Item = (bool, u8)>) -> String {
    let mut places: Vec<(u8, Vec<&str>)> = Vec::new();
    for (is_a, rank) in seats {
        let letter = if is_a { "a" } else { "b" };
        match places.last_mut() {
            Some((same, place)) if *same == rank => place.push(letter),
            _ => places.push((rank, vec![letter])),
        }
    }
    let words = places.into_iter().map(|(_, mut place)| {
        place.sort_unstable();
        place.join("=")
    });
    words.collect::<Vec<_>>().join(">")
}

/// All orders that a finish may stand for.
fn orders_of(finish: &str, [a, b]: [usize; 2]) -> anyhow::Result<Vec<Vec<usize>>> {
    let mut orders = vec![Vec::new()];
    for place in finish.split('>') {
        let place = place.split('=').map(|letter| match letter {
            "a" => Ok(a),
            "b" => Ok(b),
            _ => bail!("{finish:?} is no finish; one is written like a>b=b"),
        });
        let tails = permutations(&place.collect::<anyhow::Result<Vec<_>>>()?);
        orders = orders
            .iter()
            .flat_map(|head| tails.iter().map(move |tail| [&head[..], tail].concat()))
            .collect();
    }
    Ok(orders)
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let first = |at: usize| {
        let rest = [&items[..at], &items[at + 1..]].concat();
        permutations(&rest).into_iter().map(move |tail| [&[items[at]], &tail[..]].concat())
    };
    (0..items.len()).flat_map(first).collect()
}

/// Adds games that ended in an order.
fn add(orders: &mut BTreeMap<Vec<usize>, f64>, order: Vec<usize>, games: f64) {
    if games > 0.0 {
        *orders.entry(order).or_default() += games;
    }
}

fn check_connected(
    met: &BTreeSet<(usize, usize)>,
    others: &[&str],
    anchor: &str,
) -> anyhow::Result<()> {
    let mut reached = vec![false; others.len() + 1];
    reached[others.len()] = true;
    loop {
        let mut grew = false;
        for &(a, b) in met {
            if reached[a] != reached[b] {
                (reached[a], reached[b]) = (true, true);
                grew = true;
            }
        }
        if !grew {
            break;
        }
    }
    if let Some(lost) = reached.iter().position(|reached| !reached) {
        bail!("no chain of matches connects {} with {anchor}", others[lost]);
    }
    Ok(())
}

/// The most likely strengths, in log-odds above that of the last player; `strength` is where the search starts.
fn fit(
    orders: &[(Vec<usize>, f64)],
    mut strength: Vec<f64>,
    accuracy: f64,
) -> anyhow::Result<Vec<f64>> {
    for _ in 0..200 {
        let (slope, curvature) = derivatives(orders, &strength);
        let step = solve(curvature, slope)?;
        let longest = step.iter().fold(0.0_f64, |longest, x| longest.max(x.abs()));
        let damping = if longest > LONGEST_STEP { LONGEST_STEP / longest } else { 1.0 };
        for (x, step) in strength.iter_mut().zip(&step) {
            *x += step * damping;
        }
        if longest < accuracy {
            break;
        }
    }
    Ok(strength)
}

/// Slope of the log-likelihood per unknown, and its negated curvature.
fn derivatives(orders: &[(Vec<usize>, f64)], strength: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let unknowns = strength.len() - 1;
    let mut slope = vec![0.0; unknowns];
    let mut curvature = vec![vec![0.0; unknowns]; unknowns];
    let mut chances = Vec::new();
    for (order, games) in orders {
        // Whoever is left over has the last place without a contest.
        for next in 0..order.len().saturating_sub(1) {
            let left = &order[next..];
            let best = left.iter().fold(f64::MIN, |best, player| best.max(strength[*player]));
            chances.clear();
            chances.extend(left.iter().map(|player| (strength[*player] - best).exp()));
            let sum: f64 = chances.iter().sum();
            for chance in &mut chances {
                *chance /= sum;
            }
            if left[0] < unknowns {
                slope[left[0]] += games;
            }
            for (player, chance) in left.iter().zip(&chances).filter(|(p, _)| **p < unknowns) {
                slope[*player] -= games * chance;
                curvature[*player][*player] += games * chance;
                for (other, as_well) in left.iter().zip(&chances).filter(|(p, _)| **p < unknowns) {
                    curvature[*player][*other] -= games * chance * as_well;
                }
            }
        }
    }
    (slope, curvature)
}

/// The 95 % interval of each player, in log-odds.
fn intervals(orders: &[(Vec<usize>, f64)], strength: &[f64]) -> anyhow::Result<Vec<[f64; 2]>> {
    let mut rng = fastrand::Rng::with_seed(0);
    let mut drawn = vec![Vec::new(); strength.len()];
    for _ in 0..RESAMPLES {
        let weights = orders.iter().map(|(order, games)| (order.clone(), gamma(*games, &mut rng)));
        let weights: Vec<(Vec<usize>, f64)> = weights.collect();
        let fitted = fit(&weights, strength.to_vec(), RESAMPLE_ACCURACY)?;
        for (drawn, x) in drawn.iter_mut().zip(fitted) {
            drawn.push(x);
        }
    }
    let cut = RESAMPLES as usize / 40;
    let ends = drawn.into_iter().map(|mut drawn| {
        drawn.sort_by(f64::total_cmp);
        [drawn[cut], drawn[drawn.len() - 1 - cut]]
    });
    Ok(ends.collect())
}

/// Sum of the weights of so many games, each drawn from the exponential distribution: the gamma distribution.
/// Source: Marsaglia and Tsang 2000, "A simple method for generating gamma variables".
fn gamma(shape: f64, rng: &mut fastrand::Rng) -> f64 {
    if shape < 1.0 {
        // A weight of nothing at all would leave a strength without end.
        let part = (1.0 - rng.f64()).powf(1.0 / shape).max(1e-6);
        return part * gamma(shape + 1.0, rng);
    }
    let size = shape - 1.0 / 3.0;
    let scatter = 1.0 / (9.0 * size).sqrt();
    loop {
        let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
        let normal = radius * (2.0 * std::f64::consts::PI * rng.f64()).cos();
        let cube = (1.0 + scatter * normal).powi(3);
        let limit = 0.5 * normal * normal + size * (1.0 - cube + cube.ln());
        if cube > 0.0 && (1.0 - rng.f64()).ln() < limit {
            return size * cube;
        }
    }
}

/// Solves a system of linear equations, by Gaussian elimination with pivots.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> anyhow::Result<Vec<f64>> {
    let size = right.len();
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|&i, &j| matrix[i][column].abs().total_cmp(&matrix[j][column].abs()))
            .unwrap_or(column);
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let (done, below) = matrix.split_at_mut(column + 1);
        let lead = &done[column];
        ensure!(lead[column].abs() > 1e-300, "the results are too one-sided to rate");
        for (row, i) in below.iter_mut().zip(column + 1..) {
            let factor = row[column] / lead[column];
            if factor != 0.0 {
                for (x, y) in row[column..].iter_mut().zip(&lead[column..]) {
                    *x -= factor * y;
                }
                right[i] -= factor * right[column];
            }
        }
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|column| matrix[row][column] * right[column]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    Ok(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(a: &str, b: &str, wins: u64, losses: u64) -> MatchResult {
        MatchResult { a: a.to_owned(), b: b.to_owned(), wins, losses, finishes: BTreeMap::new() }
    }

    fn elo_of(ratings: &[Rating], player: &str) -> f64 {
        ratings.iter().find(|r| r.player == player).unwrap().elo
    }

    #[test]
    fn known_strengths_come_back_from_expected_results() {
        let known = [("random", 0.0), ("m0", 50.0), ("m1", 300.0), ("m2", 420.0), ("m3", 700.0)];
        let mut matches = Vec::new();
        for (i, (a, elo_a)) in known.iter().enumerate() {
            for (b, elo_b) in &known[..i] {
                let share = crate::arena::score(elo_a - elo_b);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "below a million"
                )]
                let wins = (share * 1e6).round() as u64;
                matches.push(played(a, b, wins, 1_000_000 - wins));
            }
        }
        let ratings = rate(&matches, "random").unwrap();
        for (player, elo) in known {
            let found = elo_of(&ratings, player);
            assert!((found - elo).abs() < 0.5, "{player}: {found}");
        }
        assert_eq!(ratings[0].player, "m3");
        // The order of matches does not matter.
        matches.reverse();
        for rating in rate(&matches, "random").unwrap() {
            assert!((rating.elo - elo_of(&ratings, &rating.player)).abs() < 1e-6);
        }
    }

    #[test]
    fn a_player_that_never_lost_has_a_finite_rating_and_a_wide_interval() {
        let ratings = rate(&[played("m1", "random", 200, 0)], "random").unwrap();
        // (200.5 / 0.5) to one: 1041 Elo.
        assert!((elo_of(&ratings, "m1") - 1041.3).abs() < 0.5, "{ratings:?}");
        assert!(ratings[0].high - ratings[0].low > 500.0);
        assert_eq!((ratings[1].elo, ratings[1].games), (0.0, 200));
    }

    #[test]
    fn one_match_has_the_interval_of_its_binomial_share() {
        let ratings = rate(&[played("b", "a", 500, 500)], "b").unwrap();
        // Deviation of the log-odds 1 / sqrt(1001 / 4) = 0.0632: 21.5 Elo at 95 %.
        let a = ratings.iter().find(|r| r.player == "a").unwrap();
        assert!((a.high - 21.5).abs() < 3.0 && (a.low + 21.5).abs() < 3.0, "{a:?}");
        assert!(a.elo.abs() < 1e-9, "{a:?}");
    }

    #[test]
    fn islands_and_matches_against_oneself_are_refused() {
        let islands = [played("a", "random", 1, 1), played("b", "c", 1, 1)];
        let error = rate(&islands, "random").unwrap_err();
        assert!(error.to_string().contains("no chain of matches connects b with random"));
        assert!(rate(&[played("a", "a", 1, 1)], "a").is_err());
        assert!(rate(&[played("a", "b", 1, 1)], "c").is_err());
    }

    #[test]
    fn two_seats_are_rated_as_by_bradley_and_terry() {
        // The likelihood of one match has its maximum at the odds of its games, the prior one included.
        let ratings = rate(&[played("m1", "random", 300, 100)], "random").unwrap();
        assert!((elo_of(&ratings, "m1") - 400.0 * (300.5_f64 / 100.5).log10()).abs() < 1e-6);
        // A triangle: at the maximum every player has won as many games as its rating makes it expect.
        let results =
            [played("a", "b", 60, 40), played("b", "c", 70, 30), played("c", "a", 45, 55)];
        let ratings = rate(&results, "c").unwrap();
        for player in ["a", "b", "c"] {
            let mut surplus = 0.0;
            for result in &results {
                let chance =
                    crate::arena::score(elo_of(&ratings, &result.a) - elo_of(&ratings, &result.b));
                let more = float(result.wins) + 0.5 - 101.0 * chance;
                surplus += match player {
                    _ if result.a == player => more,
                    _ if result.b == player => -more,
                    _ => 0.0,
                };
            }
            assert!(surplus.abs() < 1e-6, "{player}: {surplus}");
        }
        // Said as finishes, the same.
        let orders = results.map(|result| MatchResult {
            finishes: BTreeMap::from([
                ("a>b".to_owned(), result.wins),
                ("b>a".to_owned(), result.losses),
            ]),
            ..result
        });
        assert_eq!(rate(&orders, "c").unwrap(), ratings);
    }

    #[test]
    fn known_strengths_come_back_from_simulated_rankings() {
        let known = [("random", 0.0), ("m0", 80.0), ("m1", 250.0), ("m2", 330.0)];
        let mut rng = fastrand::Rng::with_seed(8);
        let mut matches = Vec::new();
        // A has one seat of four, two of four or one of three, as matches have it.
        for (number, seats) in ["abbb", "aabb", "abb"].into_iter().enumerate() {
            for (i, (a, elo_a)) in known.iter().enumerate() {
                for (b, elo_b) in &known[i + 1..] {
                    let mut result = played(a, b, 0, 0);
                    for _ in 0..1500 {
                        // The first of several waiting times is the shorter one in proportion to the rates.
                        let mut times: Vec<(f64, bool)> = seats
                            .chars()
                            .map(|seat| {
                                let elo = if seat == 'a' { elo_a } else { elo_b };
                                (-(1.0 - rng.f64()).ln() / (elo / ELO).exp(), seat == 'a')
                            })
                            .collect();
                        times.sort_by(|x, y| x.0.total_cmp(&y.0));
                        let ranked = times.iter().zip(1..).map(|((_, is_a), rank)| (*is_a, rank));
                        *result.finishes.entry(finish(ranked)).or_default() += 1;
                        if times[0].1 { result.wins += 1 } else { result.losses += 1 }
                    }
                    matches.push(result);
                }
            }
            let ratings = rate(&matches, "random").unwrap();
            for (player, elo) in known {
                let found = ratings.iter().find(|r| r.player == player).unwrap();
                assert!((found.elo - elo).abs() < 20.0, "match {number}: {elo}: {found:?}");
                assert!(
                    found.low - 1e-9 <= found.elo && found.elo <= found.high + 1e-9,
                    "{found:?}"
                );
                assert!(found.high - found.low < 50.0, "{found:?}");
            }
        }
    }

    #[test]
    fn seats_that_share_a_place_count_in_each_order_alike() {
        let ranked = [(false, 1), (false, 2), (true, 2), (false, 4)];
        assert_eq!(finish(ranked.into_iter()), "b>a=b>b");
        let with = |finishes: &[(&str, u64)]| {
            let finishes = finishes.iter().map(|(text, games)| ((*text).to_owned(), *games));
            let result =
                MatchResult { finishes: finishes.collect(), ..played("m", "random", 0, 60) };
            elo_of(&rate(&[result], "random").unwrap(), "m")
        };
        let shared = with(&[("b>a=b", 60)]);
        assert!((shared - with(&[("b>a>b", 30), ("b>b>a", 30)])).abs() < 1e-9);
        assert!(with(&[("b>a>b", 60)]) > shared && shared > with(&[("b>b>a", 60)]));
        let wrong =
            MatchResult { finishes: [("a>c".to_owned(), 1)].into(), ..played("a", "b", 1, 0) };
        let error = format!("{:#}", rate(&[wrong], "b").unwrap_err());
        assert!(error.contains("\"a>c\" is no finish"), "{error}");
    }
}
