//! Ratings: one number per player from all stored results, whatever their order.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};
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
/// Games that every pair of players that met is taken to have drawn, beyond the real ones: keeps a player that never lost finite.
const PRIOR_GAMES: f64 = 1.0;
/// Largest step of one iteration, in log-odds.
const LONGEST_STEP: f64 = 2.0;

/// Ratings of all players, best first; the anchor has 0 Elo.
///
/// Maximum likelihood of the Bradley-Terry model, found by Newton's method; intervals from the curvature at the maximum.
///
/// # Errors
/// A match of a player with itself, or players that no chain of matches connects with the anchor: their difference is unknown.
pub fn rate(matches: &[MatchResult], anchor: &str) -> anyhow::Result<Vec<Rating>> {
    let names: BTreeSet<&str> = matches.iter().flat_map(|m| [m.a.as_str(), m.b.as_str()]).collect();
    // The anchor comes last, so that the others are the unknowns 0..n.
    let others: Vec<&str> = names.into_iter().filter(|name| *name != anchor).collect();
    let index: BTreeMap<&str, usize> =
        others.iter().copied().chain([anchor]).enumerate().map(|(i, name)| (name, i)).collect();
    let mut met: BTreeMap<(usize, usize), (f64, f64)> = BTreeMap::new();
    let mut games = vec![0; index.len()];
    for result in matches {
        let (a, b) = (index[result.a.as_str()], index[result.b.as_str()]);
        ensure!(a != b, "{} has a match against itself", result.a);
        let half = PRIOR_GAMES / 2.0;
        let entry = met.entry((a.min(b), a.max(b))).or_insert((half, half));
        let (first, second) =
            if a < b { (result.wins, result.losses) } else { (result.losses, result.wins) };
        entry.0 += float(first);
        entry.1 += float(second);
        games[a] += result.wins + result.losses;
        games[b] += result.wins + result.losses;
    }
    check_connected(&met, &others, anchor)?;

    let unknowns = others.len();
    let mut strength = vec![0.0; unknowns + 1];
    for _ in 0..200 {
        let (slope, curvature) = derivatives(&met, &strength);
        let inverse = invert(curvature)?;
        let step: Vec<f64> =
            (0..unknowns).map(|i| (0..unknowns).map(|j| inverse[i][j] * slope[j]).sum()).collect();
        let longest = step.iter().fold(0.0_f64, |longest, x| longest.max(x.abs()));
        let damping = if longest > LONGEST_STEP { LONGEST_STEP / longest } else { 1.0 };
        for (x, step) in strength.iter_mut().zip(&step) {
            *x += step * damping;
        }
        if longest < 1e-9 {
            break;
        }
    }
    let variance = invert(derivatives(&met, &strength).1)?;
    let mut ratings: Vec<Rating> = (others.iter().copied().chain([anchor]).enumerate())
        .map(|(i, player)| {
            let deviation = if i < unknowns { variance[i][i].max(0.0).sqrt() } else { 0.0 };
            let elo = strength[i] * ELO;
            let half = 1.959_964 * deviation * ELO;
            let player = player.to_owned();
            Rating { player, elo, low: elo - half, high: elo + half, games: games[i] }
        })
        .collect();
    ratings.sort_by(|x, y| y.elo.total_cmp(&x.elo).then_with(|| x.player.cmp(&y.player)));
    Ok(ratings)
}

type Met = BTreeMap<(usize, usize), (f64, f64)>;

fn check_connected(met: &Met, others: &[&str], anchor: &str) -> anyhow::Result<()> {
    let mut reached = vec![false; others.len() + 1];
    reached[others.len()] = true;
    loop {
        let mut grew = false;
        for &(a, b) in met.keys() {
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

/// Slope of the log-likelihood per unknown, and its negated curvature.
fn derivatives(met: &Met, strength: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let unknowns = strength.len() - 1;
    let mut slope = vec![0.0; unknowns];
    let mut curvature = vec![vec![0.0; unknowns]; unknowns];
    for (&(a, b), &(wins, losses)) in met {
        let expected = 1.0 / (1.0 + (strength[b] - strength[a]).exp());
        let surplus = wins - (wins + losses) * expected;
        let weight = (wins + losses) * expected * (1.0 - expected);
        for (player, sign) in [(a, 1.0), (b, -1.0)] {
            if player < unknowns {
                slope[player] += sign * surplus;
                curvature[player][player] += weight;
            }
        }
        if a < unknowns && b < unknowns {
            curvature[a][b] -= weight;
            curvature[b][a] -= weight;
        }
    }
    (slope, curvature)
}

/// Inverse of a matrix, by Gauss-Jordan elimination with pivots.
fn invert(mut matrix: Vec<Vec<f64>>) -> anyhow::Result<Vec<Vec<f64>>> {
    let size = matrix.len();
    for (i, row) in matrix.iter_mut().enumerate() {
        row.extend((0..size).map(|j| if i == j { 1.0 } else { 0.0 }));
    }
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|&i, &j| matrix[i][column].abs().total_cmp(&matrix[j][column].abs()))
            .unwrap_or(column);
        matrix.swap(column, pivot);
        let head = matrix[column][column];
        ensure!(head.abs() > 1e-300, "the results are too one-sided to rate");
        for x in &mut matrix[column] {
            *x /= head;
        }
        let lead = matrix[column].clone();
        for (i, row) in matrix.iter_mut().enumerate() {
            let factor = row[column];
            if i != column && factor != 0.0 {
                for (x, y) in row.iter_mut().zip(&lead) {
                    *x -= factor * y;
                }
            }
        }
    }
    Ok(matrix.into_iter().map(|mut row| row.split_off(size)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(a: &str, b: &str, wins: u64, losses: u64) -> MatchResult {
        MatchResult { a: a.to_owned(), b: b.to_owned(), wins, losses }
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
        assert!((a.high - 21.5).abs() < 0.2 && a.elo.abs() < 1e-9, "{a:?}");
    }

    #[test]
    fn islands_and_matches_against_oneself_are_refused() {
        let islands = [played("a", "random", 1, 1), played("b", "c", 1, 1)];
        let error = rate(&islands, "random").unwrap_err();
        assert!(error.to_string().contains("no chain of matches connects b with random"));
        assert!(rate(&[played("a", "a", 1, 1)], "a").is_err());
        assert!(rate(&[played("a", "b", 1, 1)], "c").is_err());
    }
}
