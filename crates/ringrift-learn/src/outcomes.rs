//! Who wins, and by what: the figures that a fault of the rules or of the search moves first.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use ringrift_rules::record::GameResult;
use serde::{Deserialize, Serialize};

use crate::games::Games;
use crate::progress::float;

/// Fewest games whose shares are compared: below, chance alone reaches any share.
const COMPARED_GAMES: u64 = 40;

/// Wins per reason of the end and seat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outcomes(BTreeMap<String, Vec<u64>>);

/// How far a batch may lie from those before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Deviations beyond which a share is no chance. Source: spec/learning.md section 5, row 7.
    pub sigmas: f64,
    /// Deviation of a seat's share of the wins that learning itself causes between two batches.
    pub seat_drift: f64,
    /// Deviation of a reason's share of the ends that learning itself causes between two batches.
    pub reason_drift: f64,
    /// Least share of the wins of a reason that every seat has, as a part of an equal share.
    pub least_share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sigmas: 4.0, seat_drift: 0.05, reason_drift: 0.08, least_share: 0.04 }
    }
}

impl Outcomes {
    /// Counts the games of game files, without replaying them.
    ///
    /// # Errors
    /// An unreadable file, and a game without a result.
    pub fn of_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<Self> {
        let mut outcomes = Self::default();
        for path in paths {
            let read = || format!("count the ends of {}", path.display());
            for game in Games::open(path).with_context(read)? {
                let record = game.with_context(read)?.record;
                let result =
                    record.result.with_context(|| format!("game {}: it has no result", record.id));
                outcomes.add(usize::from(record.config.players), &result.with_context(read)?);
            }
        }
        Ok(outcomes)
    }

    /// Counts a game of so many seats.
    pub(crate) fn add(&mut self, seats: usize, result: &GameResult) {
        let wins = self.0.entry(result.reason.clone()).or_insert_with(|| vec![0; seats]);
        if let Some(won) = wins.get_mut(usize::from(result.winner).saturating_sub(1)) {
            *won += 1;
        }
    }

    /// Adds the games of another count.
    pub fn merge(&mut self, other: &Self) {
        for (reason, wins) in &other.0 {
            let sums = self.0.entry(reason.clone()).or_insert_with(|| vec![0; wins.len()]);
            for (sum, won) in sums.iter_mut().zip(wins) {
                *sum += won;
            }
        }
    }

    /// Was no game counted?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Games counted.
    pub fn games(&self) -> u64 {
        self.0.values().flatten().sum()
    }

    /// Wins per seat, whatever the reason.
    fn seats(&self) -> Vec<u64> {
        let mut sums = Vec::new();
        for wins in self.0.values() {
            sums.resize(wins.len().max(sums.len()), 0);
            for (sum, won) in sums.iter_mut().zip(wins) {
                *sum += won;
            }
        }
        sums
    }

    /// Refuses ends that no sound loop has, and ends unlike those of `earlier` games.
    ///
    /// # Errors
    /// One sentence with the seat or the reason, its share, and what would be usual.
    pub fn judge(&self, earlier: &Self, limits: &Limits) -> anyhow::Result<()> {
        let mut together = earlier.clone();
        together.merge(self);
        for (reason, wins) in &together.0 {
            let games = wins.iter().sum::<u64>();
            let expected = limits.least_share / float(wins.len() as u64) * float(games);
            for (seat, &won) in (1..).zip(wins) {
                ensure!(
                    float(won) >= expected - limits.sigmas * expected.sqrt(),
                    "seat {seat} won {won} of {games} games that ended by {reason}, an equal share is 1 of {}",
                    wins.len()
                );
            }
        }
        let all = (self.games(), earlier.games());
        let mut seats = vec![("all games".to_owned(), self.seats(), earlier.seats())];
        for (reason, wins) in &self.0 {
            let before = earlier.0.get(reason).cloned().unwrap_or_else(|| vec![0; wins.len()]);
            seats.push((format!("games that ended by {reason}"), wins.clone(), before));
        }
        for (which, now, before) in seats {
            let games = (now.iter().sum(), before.iter().sum());
            for (seat, (&now, &before)) in (1..).zip(now.iter().zip(&before)) {
                let usual = compare((now, before), games, limits.sigmas, limits.seat_drift);
                ensure!(
                    usual.is_none(),
                    "seat {seat} won {} of {which}: {}",
                    percent(now, games.0),
                    usual.unwrap_or_default()
                );
            }
        }
        let reasons = self.0.keys().chain(earlier.0.keys());
        for reason in reasons {
            let count = |of: &Self| of.0.get(reason).map_or(0, |wins| wins.iter().sum());
            let ends = (count(self), count(earlier));
            let usual = compare(ends, all, limits.sigmas, limits.reason_drift);
            ensure!(
                usual.is_none(),
                "{} of the games ended by {reason}: {}",
                percent(ends.0, all.0),
                usual.unwrap_or_default()
            );
        }
        Ok(())
    }
}

/// Compares the shares of two counts; if they are further apart than chance and drift explain, says what would be usual.
fn compare(counts: (u64, u64), games: (u64, u64), sigmas: f64, drift: f64) -> Option<String> {
    if games.0 < COMPARED_GAMES || games.1 < COMPARED_GAMES {
        return None;
    }
    let games = (float(games.0), float(games.1));
    let (now, before) = (float(counts.0) / games.0, float(counts.1) / games.1);
    let pooled = float(counts.0 + counts.1) / (games.0 + games.1);
    let chance = pooled * (1.0 - pooled) * (games.0.recip() + games.1.recip());
    let most = sigmas * (chance + drift * drift).sqrt();
    ((now - before).abs() > most).then(|| {
        format!(
            "before it were {:.1} %, and more than {:.1} points away from that is no chance",
            before * 100.0,
            most * 100.0
        )
    })
}

fn percent(count: u64, games: u64) -> String {
    format!("{:.1} %", 100.0 * float(count) / float(games.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, &[u64])]) -> Outcomes {
        Outcomes(rows.iter().map(|(reason, wins)| ((*reason).to_owned(), wins.to_vec())).collect())
    }

    fn check(now: &Outcomes, earlier: &Outcomes, sentence: Option<&str>) {
        let judged = now.judge(earlier, &Limits::default()).map_err(|error| error.to_string());
        match (judged, sentence) {
            (Ok(()), None) => {}
            (Err(error), Some(sentence)) => assert!(error.contains(sentence), "{error}"),
            (judged, _) => panic!("{judged:?}, wanted {sentence:?}"),
        }
    }

    #[test]
    fn usual_ends_pass_and_unlikely_ones_are_named() {
        let usual = counts(&[("lines", &[200, 190]), ("standing", &[310, 300])]);
        check(&usual, &Outcomes::default(), None);
        check(&usual, &usual, None);
        check(&counts(&[("lines", &[30, 25]), ("standing", &[25, 30])]), &usual, None);
        // Too few games to say anything.
        check(&counts(&[("lines", &[0, 39])]), &usual, None);
        check(
            &counts(&[("lines", &[170, 230]), ("standing", &[100, 500])]),
            &usual,
            Some("seat 1 won 27.0 % of all games: before it were 51.0 %"),
        );
        check(
            &counts(&[("lines", &[350, 90]), ("standing", &[260, 300])]),
            &usual,
            Some("seat 1 won 79.5 % of games that ended by lines"),
        );
        check(
            &counts(&[("lines", &[500, 500])]),
            &usual,
            Some("100.0 % of the games ended by lines: before it were 39.0 %"),
        );
        // Some ends favour a seat; that no game of many goes to one of them is a fault, also bit by bit.
        let early = counts(&[("lines", &[400, 400]), ("standing", &[0, 500])]);
        check(&early, &Outcomes::default(), None);
        check(&early, &early, Some("seat 1 won 0 of 1000 games that ended by standing"));
    }

    #[test]
    fn counts_add_up() {
        let mut sum = counts(&[("a", &[1, 2])]);
        sum.merge(&counts(&[("a", &[1, 0]), ("b", &[0, 4])]));
        assert_eq!(sum, counts(&[("a", &[2, 2]), ("b", &[0, 4])]));
        assert_eq!((sum.games(), sum.seats()), (8, vec![2, 6]));
    }
}
