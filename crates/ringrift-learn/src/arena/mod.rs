//! Matches: two players, paired openings, seats exchanged.

mod openings;
mod sprt;
mod threads;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use ringrift_player::Player;
use ringrift_rules::record::{GameRecord, GameResult};
use ringrift_rules::{Config, Options};
use serde::{Deserialize, Serialize};

use crate::games::write_lines;
use crate::progress::{Flow, Progress, float};
pub use openings::{Opening, book};
pub use sprt::{Bounds, Decision, elo, interval, score};
pub use threads::run_on;

/// Name of the file with the games of a match in the output folder.
pub const MATCH_FILE: &str = "match.jsonl.gz";

/// Fewest distinct games, as a share, that a match may have. Source: spec/learning.md section 4.1.
const DISTINCT_SHARE: f64 = 0.9;

/// How a match is played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most pairs of games.
    pub pairs: u32,
    /// The sequential test that may end the match early; none = all pairs are played.
    pub test: Option<Bounds>,
    /// Draws the openings, and what random players do.
    pub seed: u64,
}

impl Default for Settings {
    /// Source: spec/learning.md section 4.1, cap 600 games in the loop.
    fn default() -> Self {
        Self { pairs: 300, test: Some(Bounds::default()), seed: 1 }
    }
}

/// How a match ended, seen from A.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The players.
    pub a: String,
    /// The players.
    pub b: String,
    /// Games played, two per pair.
    pub games: u64,
    /// Games that A won.
    pub wins: u64,
    /// Games that B won.
    pub losses: u64,
    /// Pairs in which A won 0, 1, 2 games.
    pub pairs: [u64; 3],
    /// A's share of the points, 0..=1.
    pub score: f64,
    /// Elo of A above B.
    pub elo: f64,
    /// Lower end of its 95 % interval.
    pub elo_low: f64,
    /// Upper end of its 95 % interval.
    pub elo_high: f64,
    /// Games with distinct last positions.
    pub distinct_games: u64,
    /// Log-likelihood ratio of the test, if there was one.
    pub llr: Option<f64>,
    /// What the test says, if there was one.
    pub decision: Option<Decision>,
    /// The test, if there was one.
    pub test: Option<Bounds>,
    /// The games, if they were to be kept.
    pub file: Option<PathBuf>,
    /// Recorded moves in all.
    pub moves: u64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Whether the caller stopped the match; then the test may not have been allowed to end.
    pub stopped: bool,
}

/// Plays a match of `a` against `b`; with `out_dir` its games go to [`MATCH_FILE`] there.
///
/// Every pair of games starts from an opening of its own and is played with exchanged seats. With three or four seats the players
/// share the table: in the second game of a pair each seat has the other player, so that equal players get one point of two.
///
/// # Errors
/// Settings out of range, too few openings, a match in which fewer than 9 of 10 games are distinct, a file that cannot be written.
pub fn run(
    settings: &Settings,
    config: Config,
    a: &mut dyn Player,
    b: &mut dyn Player,
    out_dir: Option<&Path>,
    progress: &mut dyn Progress,
) -> anyhow::Result<Report> {
    settings.check()?;
    let mut tally = Tally::default();
    let mut stopped = false;
    for (number, opening) in (0_u32..).zip(book(config, settings.pairs, settings.seed)?) {
        if progress.beat(number.into(), settings.pairs.into()) == Flow::Stop {
            stopped = true;
            break;
        }
        let pair = play_pair(config, settings.seed, number, &opening, [&mut *a, &mut *b]);
        if tally.add(settings, pair) {
            break;
        }
    }
    tally.finish(settings, [a.name(), b.name()], out_dir, progress, stopped)
}

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.pairs > 0, "pairs is 0, a match needs at least 1");
        if let Some(test) = self.test {
            let chance = |x: f64| x > 0.0 && x < 0.5;
            ensure!(
                chance(test.alpha) && chance(test.beta),
                "alpha and beta must lie within 0 and 0.5"
            );
            ensure!(test.elo0 < test.elo1, "elo0 must be below elo1");
        }
        Ok(())
    }
}

/// Both games from one opening, and the points of A.
struct Pair {
    points: usize,
    records: [GameRecord; 2],
}

/// Plays the pair of a number: it depends on nothing that was played before.
fn play_pair(
    config: Config,
    seed: u64,
    number: u32,
    opening: &Opening,
    [a, b]: [&mut dyn Player; 2],
) -> Pair {
    let first = seats_of_a(config, number);
    let second: Vec<bool> = first.iter().map(|a| !a).collect();
    let mut points = 0;
    let mut game = |index: u64, a_plays: &[bool]| {
        let seed = crate::selfplay::game_seed(seed, u64::from(number) * 2 + index);
        let (record, winner) = play(config, opening, seed, a_plays, [&mut *a, &mut *b]);
        points += usize::from(a_plays[winner]);
        record
    };
    let records = [game(0, &first), game(1, &second)];
    Pair { points, records }
}

/// Which seats A has in the first game of a pair. With two seats the first one; with more, all divisions in turn.
fn seats_of_a(config: Config, pair: u32) -> Vec<bool> {
    let all: &[&[usize]] = match config.players {
        2 => &[&[0]],
        3 => &[&[0], &[1], &[2]],
        _ => &[&[0, 2], &[0, 1], &[0, 3]],
    };
    let chosen = all[pair as usize % all.len()];
    (0..usize::from(config.players)).map(|seat| chosen.contains(&seat)).collect()
}

/// Plays one game; gives its record and the 0-based seat that won.
fn play(
    config: Config,
    opening: &Opening,
    seed: u64,
    a_plays: &[bool],
    [a, b]: [&mut dyn Player; 2],
) -> (GameRecord, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut state, mut texts) = (opening.state.clone(), opening.moves.clone());
    let winner = loop {
        if let Some(outcome) = state.outcome() {
            break outcome.winner.index();
        }
        let player = if a_plays[state.to_move().index()] { &mut *a } else { &mut *b };
        let choice = player.choose(&state, &mut rng);
        texts.push(state.notate(choice.played()));
        state.apply_legal(choice.played());
    };
    let name = |a_plays: &bool| if *a_plays { a.name() } else { b.name() };
    let record = GameRecord {
        id: format!("{config}-match-{seed:016x}"),
        config,
        options: Options::default(),
        seed,
        players: a_plays.iter().map(name).collect(),
        moves: texts,
        result: GameResult::of(&state),
    };
    (record, winner)
}

#[derive(Default)]
struct Tally {
    pairs: [u64; 3],
    records: Vec<GameRecord>,
    digests: BTreeSet<String>,
}

impl Tally {
    /// Adds a pair; tells whether the match is decided.
    fn add(&mut self, settings: &Settings, pair: Pair) -> bool {
        self.pairs[pair.points] += 1;
        for record in pair.records {
            if let Some(result) = &record.result {
                self.digests.insert(result.digest.clone());
            }
            self.records.push(record);
        }
        settings.test.is_some_and(|test| test.decide(self.pairs) != Decision::Undecided)
    }

    /// The report; refuses a match of repeated games, and writes the games if they are to be kept.
    fn finish(
        &self,
        settings: &Settings,
        names: [String; 2],
        out_dir: Option<&Path>,
        progress: &dyn Progress,
        stopped: bool,
    ) -> anyhow::Result<Report> {
        let mut report = self.report(settings, names);
        let distinct = float(report.distinct_games) / float(report.games.max(1));
        ensure!(
            report.games == 0 || distinct >= DISTINCT_SHARE,
            "only {} of {} games are distinct: the match says nothing",
            report.distinct_games,
            report.games
        );
        if let Some(folder) = out_dir {
            let path = folder.join(MATCH_FILE);
            write_lines(&path, &self.records)?;
            report.file = Some(path);
        }
        report.seconds = progress.elapsed().as_secs_f64();
        report.stopped = stopped;
        Ok(report)
    }

    fn report(&self, settings: &Settings, [a, b]: [String; 2]) -> Report {
        let [none, one, two] = self.pairs;
        let games = 2 * (none + one + two);
        let wins = one + 2 * two;
        let score = if games == 0 { 0.5 } else { float(wins) / float(games) };
        let (low, high) = interval(self.pairs);
        Report {
            a,
            b,
            games,
            wins,
            losses: games - wins,
            pairs: self.pairs,
            score,
            elo: elo(score, games),
            elo_low: elo(low, games),
            elo_high: elo(high, games),
            distinct_games: self.digests.len() as u64,
            llr: settings.test.map(|test| test.llr(self.pairs)),
            decision: settings.test.map(|test| test.decide(self.pairs)),
            test: settings.test,
            file: None,
            moves: self.records.iter().map(|record| record.moves.len() as u64).sum(),
            seconds: 0.0,
            stopped: false,
        }
    }
}

#[cfg(test)]
mod tests;
