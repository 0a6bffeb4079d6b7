//! Ratings of a config's models, from nothing but the stored matches.

use std::collections::{BTreeMap, BTreeSet};

use ringrift_learn::rating::{self, Rating, rate};
use ringrift_pipeline::{
    Catalogue, CatalogueError, Config, MatchResult, MatchRow, ModelId, ModelRow, ModelStatus,
};
use serde::Serialize;
use tracing::warn;

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
    games: u64,
    /// What the rating rests on, the newest first.
    matches: Vec<Met>,
}

/// A match as one of its players sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Met {
    #[serde(rename = "match")]
    id: String,
    against: String,
    wins: u32,
    losses: u32,
    created_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Other {
    name: String,
    elo: f64,
    elo_low: f64,
    elo_high: f64,
    games: u64,
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

/// The curve, pure. Of players that no chain of matches connects with the anchor nothing is known,
/// so they are left out.
fn curve(matches: &[MatchRow], models: &[ModelRow]) -> Curve {
    let results: Vec<rating::MatchResult> = matches
        .iter()
        .map(|row| rating::MatchResult {
            a: player(&row.result.a).to_owned(),
            b: player(&row.result.b).to_owned(),
            wins: row.result.wins.into(),
            losses: row.result.losses.into(),
            finishes: row.result.finishes.iter().flatten().map(finish).collect(),
        })
        // The same model at two budgets tells nothing here, where budgets are left out.
        .filter(|result| result.a != result.b)
        .collect();
    let first = models.iter().filter(|row| row.generation == 0).map(|row| row.id.as_str());
    let played = |name: &&str| results.iter().any(|result| result.a == *name || result.b == *name);
    let Some(anchor) = std::iter::once("random").chain(first).find(played).map(str::to_owned)
    else {
        return Curve::default();
    };
    let results = connected(results, &anchor);
    let rated = match rate(&results, &anchor) {
        Ok(rated) => rated,
        Err(error) => {
            warn!(error = format!("{error:#}"), "the matches give no rating");
            return Curve::default();
        }
    };
    let mut rated: BTreeMap<String, Rating> =
        rated.into_iter().map(|rating| (rating.player.clone(), rating)).collect();
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
                elo_low: rating.low,
                elo_high: rating.high,
                games: rating.games,
                matches: met(row.id.as_str(), matches),
            })
        })
        .collect();
    points.sort_by_key(|point| point.generation);
    let others = rated.into_values().map(|rating| Other {
        name: rating.player,
        elo: rating.elo,
        elo_low: rating.low,
        elo_high: rating.high,
        games: rating.games,
    });
    Curve { anchor: Some(anchor), models: points, others: others.collect() }
}

/// The matches of a player; those against itself tell nothing of its strength.
fn met(name: &str, matches: &[MatchRow]) -> Vec<Met> {
    let seen = |row: &MatchRow| {
        let MatchResult { a, b, wins, losses, .. } = &row.result;
        let (against, wins, losses) = match (player(a) == name, player(b) == name) {
            (true, false) => (b, wins, losses),
            (false, true) => (a, losses, wins),
            _ => return None,
        };
        let (id, against) = (row.id.clone(), against.clone());
        Some(Met { id, against, wins: *wins, losses: *losses, created_ms: row.created_ms })
    };
    matches.iter().filter_map(seen).collect()
}

fn finish((seats, games): (&String, &u32)) -> (String, u64) {
    (seats.clone(), u64::from(*games))
}

/// The matches among players that a chain of matches connects with the anchor.
fn connected(mut results: Vec<rating::MatchResult>, anchor: &str) -> Vec<rating::MatchResult> {
    let mut reached = BTreeSet::from([anchor.to_owned()]);
    loop {
        let before = reached.len();
        for result in &results {
            if reached.contains(&result.a) || reached.contains(&result.b) {
                reached.extend([result.a.clone(), result.b.clone()]);
            }
        }
        if reached.len() == before {
            break;
        }
    }
    results.retain(|result| reached.contains(&result.a));
    results
}

/// The player in a match's text: `model:hex8_2p-m0003@32` is the model `hex8_2p-m0003`. Its budget
/// is left out, because all matches of a config's gauntlets have the same.
fn player(text: &str) -> &str {
    let text = text.strip_prefix("model:").unwrap_or(text);
    text.split_once('@').map_or(text, |(name, _)| name)
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
        assert!((one.elo_high - one.elo - 12.43).abs() < 2.5, "{one:?}");
    }

    #[test]
    fn games_of_four_are_rated_by_every_place() {
        let with = |finish: &str| {
            let mut row = played(ONE, ZERO, [0, 100, 0]);
            row.result.finishes = Some([(finish.to_owned(), row.result.games)].into());
            curve(&[row], &[model(0), model(1)]).models[1].elo
        };
        let [good, shared, bad] = ["b>a>b>a", "b>a=b>a", "b>b>a>a"].map(with);
        assert!(good > shared && shared > bad, "{good} {shared} {bad}");
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
        let behind = |index: usize| -> Vec<_> {
            let met = curve.models[index].matches.iter();
            met.map(|met| (met.against.as_str(), met.wins, met.losses)).collect()
        };
        assert_eq!(behind(0), [(ONE, 1000, 3000), ("random", 3000, 1000)]);
        assert_eq!(behind(2), [(ONE, 3000, 1000)]);
    }

    #[test]
    fn a_clean_sweep_stays_finite_and_strangers_are_left_out() {
        let matches = [
            played(ONE, ZERO, [0, 0, 20]),
            played("rollout:32", "rollout:8", [0, 5, 5]),
            played(ZERO, "model:hex8_2p-m0000@64", [0, 5, 5]),
        ];
        let curve = curve(&matches, &[model(0), model(1)]);
        let one = &curve.models[1];
        assert!(one.elo > 400.0 && one.elo.is_finite() && one.elo_low < one.elo, "{one:?}");
        assert_eq!(curve.others, []);
        assert_eq!(super::curve(&[], &[model(0)]), Curve::default());
    }
}
