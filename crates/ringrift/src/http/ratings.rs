//! Ratings of a config's models, from nothing but the stored matches.

use std::collections::{BTreeMap, BTreeSet};

use ringrift_pipeline::{
    Catalogue, CatalogueError, Config, MatchRow, ModelId, ModelRow, ModelStatus,
};
use serde::Serialize;

/// Most matches that a rating rests on, the newest. A fit over so many takes some milliseconds.
const MATCHES: u32 = 2000;

/// A config's rating curve.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Curve {
    /// Who is pinned at 0; none before the first match.
    anchor: Option<String>,
    /// The models that played, oldest first.
    models: Vec<Point>,
    /// Everybody else that played, such as `random`.
    others: Vec<Other>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Point {
    id: ModelId,
    generation: u32,
    status: ModelStatus,
    created_ms: i64,
    elo: f64,
    elo_low: f64,
    elo_high: f64,
    games: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Other {
    name: String,
    elo: f64,
    elo_low: f64,
    elo_high: f64,
    games: u32,
}

/// Curves that are made anew only when a match was added.
#[derive(Default)]
pub(super) struct Ratings(BTreeMap<Config, (u64, usize, Curve)>);

impl Ratings {
    /// The curve of a config.
    pub(super) async fn of_config(
        &mut self,
        catalogue: &Catalogue,
        config: Config,
    ) -> Result<Curve, CatalogueError> {
        let newest = catalogue.matches(Some(config), 1).await?;
        let newest = newest.first().map_or(0, |row| row.position);
        let models = catalogue.models(Some(config)).await?;
        // The status of a model is part of the curve and moves without a match.
        let judged = models.iter().filter(|row| row.status != ModelStatus::Candidate).count();
        if let Some((at, then, curve)) = self.0.get(&config)
            && (*at, *then) == (newest, judged)
        {
            return Ok(curve.clone());
        }
        let curve = fit(catalogue, config, models).await?;
        self.0.insert(config, (newest, judged, curve.clone()));
        Ok(curve)
    }
}

/// The curve of a config, made now.
pub(super) async fn of_config(
    catalogue: &Catalogue,
    config: Config,
) -> Result<Curve, CatalogueError> {
    let models = catalogue.models(Some(config)).await?;
    fit(catalogue, config, models).await
}

async fn fit(
    catalogue: &Catalogue,
    config: Config,
    models: Vec<ModelRow>,
) -> Result<Curve, CatalogueError> {
    let matches = catalogue.matches(Some(config), MATCHES).await?;
    let fitted = tokio::task::spawn_blocking(move || curve(&matches, &models)).await;
    // The blocking task is not cancelled by anybody; what is left is a panic of the fit itself.
    Ok(fitted.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
}

/// The fit, pure.
fn curve(matches: &[MatchRow], models: &[ModelRow]) -> Curve {
    let pairings: Vec<Pairing> = matches
        .iter()
        .map(|row| Pairing {
            a: player(&row.result.a).to_owned(),
            b: player(&row.result.b).to_owned(),
            wins: row.result.wins,
            losses: row.result.losses,
        })
        .collect();
    let players: BTreeSet<&str> =
        pairings.iter().flat_map(|pairing| [pairing.a.as_str(), pairing.b.as_str()]).collect();
    let first = models.iter().filter(|row| row.generation == 0).map(|row| row.id.as_str());
    let Some(anchor) = std::iter::once("random").chain(first).find(|name| players.contains(name))
    else {
        return Curve::default();
    };
    let mut rated: BTreeMap<String, Rating> =
        rate(&pairings, anchor).into_iter().map(|rating| (rating.name.clone(), rating)).collect();
    let mut points: Vec<Point> = models
        .iter()
        .filter_map(|row| {
            let rating = rated.remove(row.id.as_str())?;
            Some(Point {
                id: row.id.clone(),
                generation: row.generation,
                status: row.status,
                created_ms: row.created_ms,
                elo: rating.elo,
                elo_low: rating.elo_low,
                elo_high: rating.elo_high,
                games: rating.games,
            })
        })
        .collect();
    points.sort_by_key(|point| point.generation);
    let others = rated.into_values().map(|rating| Other {
        name: rating.name,
        elo: rating.elo,
        elo_low: rating.elo_low,
        elo_high: rating.elo_high,
        games: rating.games,
    });
    Curve { anchor: Some(anchor.to_owned()), models: points, others: others.collect() }
}

/// The player in a match's text: `model:hex8_2p-m0003@32` is the model `hex8_2p-m0003`. Its budget
/// is left out, because all matches of a config's gauntlets have the same.
fn player(text: &str) -> &str {
    let text = text.strip_prefix("model:").unwrap_or(text);
    text.split_once('@').map_or(text, |(name, _)| name)
}

/// What two players did to each other.
struct Pairing {
    a: String,
    b: String,
    wins: u32,
    losses: u32,
}

/// What a player is worth.
struct Rating {
    name: String,
    elo: f64,
    elo_low: f64,
    elo_high: f64,
    games: u32,
}

/// Elo per unit of log-odds.
const ELO: f64 = 400.0 / std::f64::consts::LN_10;

/// Half a won and half a lost game per pairing: keeps a player that won everything finite.
const PRIOR: f64 = 0.5;

/// Bradley-Terry by Newton's method, the anchor at 0; intervals of 95 % from the information matrix.
fn rate(pairings: &[Pairing], anchor: &str) -> Vec<Rating> {
    let mut players: BTreeMap<&str, u32> = BTreeMap::new();
    for pairing in pairings {
        for name in [&pairing.a, &pairing.b] {
            *players.entry(name).or_default() += pairing.wins + pairing.losses;
        }
    }
    let names: Vec<&str> = players.keys().copied().filter(|name| *name != anchor).collect();
    let index = |name: &str| names.iter().position(|known| *known == name);
    let mut strength: Vec<f64> = vec![0.0; names.len()];
    let mut variance = vec![0.0; names.len()];
    for _ in 0..50 {
        // The last column is the gradient, so that one elimination solves and inverts.
        let mut matrix = vec![vec![0.0; names.len()]; names.len()];
        let mut gradient = vec![0.0; names.len()];
        for pairing in pairings {
            let (a, b) = (index(&pairing.a), index(&pairing.b));
            let of = |player: Option<usize>| player.map_or(0.0, |player| strength[player]);
            let wins = f64::from(pairing.wins) + PRIOR;
            let games = f64::from(pairing.wins + pairing.losses) + 2.0 * PRIOR;
            let expected = 1.0 / (1.0 + (of(b) - of(a)).exp());
            let information = games * expected * (1.0 - expected);
            let surplus = wins - games * expected;
            for (player, sign) in [(a, 1.0), (b, -1.0)] {
                if let Some(player) = player {
                    gradient[player] += sign * surplus;
                    matrix[player][player] += information;
                }
            }
            if let (Some(a), Some(b)) = (a, b) {
                matrix[a][b] -= information;
                matrix[b][a] -= information;
            }
        }
        let inverse = invert(matrix);
        let mut longest: f64 = 0.0;
        for (row, value) in inverse.iter().zip(&mut strength) {
            let step: f64 = row.iter().zip(&gradient).map(|(factor, slope)| factor * slope).sum();
            // A bounded step: far from the solution Newton's method overshoots.
            let step = step.clamp(-1.0, 1.0);
            *value += step;
            longest = longest.max(step.abs());
        }
        variance = inverse.iter().enumerate().map(|(player, row)| row[player]).collect();
        if longest < 1e-9 {
            break;
        }
    }
    players
        .iter()
        .map(|(name, games)| {
            let place = index(name);
            let elo = place.map_or(0.0, |player| strength[player] * ELO);
            let half = place.map_or(0.0, |player| 1.96 * variance[player].max(0.0).sqrt() * ELO);
            Rating {
                name: (*name).to_owned(),
                elo,
                elo_low: elo - half,
                elo_high: elo + half,
                games: *games,
            }
        })
        .collect()
}

/// Gauss and Jordan; a group of players that never met the rest gives a singular matrix, of which
/// what can be solved is solved.
fn invert(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let size = matrix.len();
    let mut inverse = vec![vec![0.0; size]; size];
    for (index, row) in inverse.iter_mut().enumerate() {
        row[index] = 1.0;
    }
    for pivot in 0..size {
        let factor = matrix[pivot][pivot];
        if factor < 1e-12 {
            inverse[pivot].fill(0.0);
            continue;
        }
        for column in 0..size {
            matrix[pivot][column] /= factor;
            inverse[pivot][column] /= factor;
        }
        for row in (0..size).filter(|row| *row != pivot) {
            let factor = matrix[row][pivot];
            for column in 0..size {
                matrix[row][column] -= factor * matrix[pivot][column];
                inverse[row][column] -= factor * inverse[pivot][column];
            }
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fixture::{hash, result};

    fn played(a: &str, b: &str, pairs: [u32; 3]) -> MatchRow {
        MatchRow {
            id: format!("{a}-{b}"),
            config: "hex8_2p".parse().unwrap(),
            result: result(a, b, pairs, 0.0),
            records: None,
            position: 1,
            created_ms: 0,
        }
    }

    fn model(generation: u32) -> ModelRow {
        let config: Config = "hex8_2p".parse().unwrap();
        ModelRow {
            id: ModelId::new(config, generation),
            config,
            generation,
            parent: None,
            weights: hash(1),
            bytes: 1,
            status: ModelStatus::Former,
            verdict: None,
            evaluation: None,
            position: 1,
            created_ms: 0,
        }
    }

    const ZERO: &str = "model:hex8_2p-m0000@32";
    const ONE: &str = "model:hex8_2p-m0001@32";
    const TWO: &str = "model:hex8_2p-m0002@32";

    #[test]
    fn three_of_four_games_are_191_elo() {
        let curve = curve(&[played(ONE, ZERO, [250, 500, 1250])], &[model(0), model(1)]);
        assert_eq!(curve.anchor.as_deref(), Some("hex8_2p-m0000"));
        let [zero, one] = &curve.models[..] else { panic!("{curve:?}") };
        assert!(zero.elo.abs() < 1e-9 && zero.elo_high.abs() < 1e-9, "the anchor is certain");
        assert!((one.elo - 190.8).abs() < 0.5, "{one:?}");
        // 1.96 * 173.7 / sqrt(4001 * 0.75 * 0.25)
        assert!((one.elo_high - one.elo - 12.43).abs() < 0.05, "{one:?}");
    }

    #[test]
    fn differences_add_up_along_a_chain_and_random_is_the_anchor_if_it_played() {
        let matches = [
            played(ONE, ZERO, [250, 500, 1250]),
            played(TWO, ONE, [250, 500, 1250]),
            played(ZERO, "random", [250, 500, 1250]),
        ];
        let curve = curve(&matches, &[model(2), model(1), model(0)]);
        assert_eq!(curve.anchor.as_deref(), Some("random"));
        for (point, times) in curve.models.iter().zip([1.0, 2.0, 3.0]) {
            assert!((point.elo - times * 190.8).abs() < 1.5, "{point:?}");
        }
        let widths: Vec<f64> =
            curve.models.iter().map(|point| point.elo_high - point.elo_low).collect();
        assert!(widths.is_sorted(), "further from the anchor is less certain: {widths:?}");
        assert_eq!(curve.others.len(), 1);
    }

    #[test]
    fn a_clean_sweep_and_a_stranger_stay_finite() {
        let matches = [played(ONE, ZERO, [0, 0, 20]), played("rollout:32", "rollout:8", [0, 5, 5])];
        let curve = curve(&matches, &[model(0), model(1)]);
        let one = &curve.models[1];
        assert!(one.elo > 400.0 && one.elo.is_finite() && one.elo_low < one.elo, "{one:?}");
        assert!(curve.others.iter().all(|other| other.elo.is_finite()), "{curve:?}");
        assert_eq!(super::curve(&[], &[model(0)]), Curve::default());
    }
}
