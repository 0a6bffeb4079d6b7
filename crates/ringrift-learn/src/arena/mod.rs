//! Matches: two players, the same openings for both, seats exchanged or rotated.

mod openings;
mod sprt;
mod threads;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use ringrift_player::Player;
use ringrift_rules::record::{GameRecord, GameResult};
use ringrift_rules::{Config, Options};
use serde::{Deserialize, Serialize};

use crate::games::write_lines;
use crate::progress::{Flow, Progress, float};
use crate::rating::{self, MatchResult};
pub use openings::{Book, Opening, book};
pub use sprt::{Bounds, Decision, elo, interval, score};
pub use threads::run_on;

/// Name of the file with the games of a match in the output folder.
pub const MATCH_FILE: &str = "match.jsonl.gz";

/// Fewest distinct games, as a share, that a match may have. Source: spec/learning.md section 4.1.
const DISTINCT_SHARE: f64 = 0.9;

/// Who sits where in matches of three and four; of two seats both ways are one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seating {
    /// Two games per opening: the players share the table, and in the second game each seat has the other player, so that equal
    /// players get one point of two. Tests need it.
    #[default]
    Shared,
    /// A game per opening and seat: A has that seat, B all others. Equal players get an equal share of the wins.
    Rotated,
}

/// How a match is played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most openings, each of which is played with exchanged seats: a pair of games, or one of each seat.
    pub pairs: u32,
    /// The sequential test that may end the match early; none = all pairs are played.
    pub test: Option<Bounds>,
    /// Draws the openings, and what random players do.
    pub seed: u64,
    /// Who sits where.
    pub seating: Seating,
}

impl Default for Settings {
    /// Source: spec/learning.md section 4.1, cap 600 games in the loop.
    fn default() -> Self {
        Self { pairs: 300, test: Some(Bounds::default()), seed: 1, seating: Seating::Shared }
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
    /// The openings.
    pub book: Book,
    /// Games played.
    pub games: u64,
    /// Games that A won.
    pub wins: u64,
    /// Games that B won.
    pub losses: u64,
    /// Openings of which A won no game, 1 game, and so on.
    pub pairs: Vec<u64>,
    /// A's share of the wins, 0..=1.
    pub score: f64,
    /// The share of equal players.
    pub equal_score: f64,
    /// Elo of A above B.
    pub elo: f64,
    /// Lower end of its 95 % interval.
    pub elo_low: f64,
    /// Upper end of its 95 % interval.
    pub elo_high: f64,
    /// Games of three and four seats by how the seats finished, see [`crate::rating::MatchResult`].
    pub finishes: BTreeMap<String, u64>,
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
/// Every pair of games starts from an opening of its own and is played with exchanged seats, see [`Seating`].
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
    settings.check(config)?;
    let openings = book(config, settings.pairs, settings.seed)?;
    let mut tally = Tally::new(settings, config, Book::of(&openings));
    let mut stopped = false;
    for (number, opening) in (0_u32..).zip(&openings) {
        if progress.beat(number.into(), settings.pairs.into()) == Flow::Stop {
            stopped = true;
            break;
        }
        let pair = play_pair(settings, config, number, opening, [&mut *a, &mut *b]);
        if tally.add(pair) {
            break;
        }
    }
    tally.finish([a.name(), b.name()], out_dir, progress, stopped)
}

impl Settings {
    /// Games of one opening.
    pub fn games_per_opening(&self, config: Config) -> u32 {
        match self.seating {
            Seating::Shared => 2,
            Seating::Rotated => config.players.into(),
        }
    }

    fn check(&self, config: Config) -> anyhow::Result<()> {
        ensure!(self.pairs > 0, "pairs is 0, a match needs at least 1");
        if let Some(test) = self.test {
            let chance = |x: f64| x > 0.0 && x < 0.5;
            ensure!(
                chance(test.alpha) && chance(test.beta),
                "alpha and beta must lie within 0 and 0.5"
            );
            ensure!(test.elo0 < test.elo1, "elo0 must be below elo1");
            let paired = self.games_per_opening(config) == 2;
            ensure!(paired, "a test is of pairs of games: its players share the table");
        }
        Ok(())
    }
}

/// All games from one opening.
struct Pair {
    games: Vec<Game>,
}

struct Game {
    record: GameRecord,
    a_won: bool,
    /// How the seats finished.
    finish: String,
}

/// Plays the games of an opening, by its number: they depend on nothing that was played before.
fn play_pair(
    settings: &Settings,
    config: Config,
    number: u32,
    opening: &Opening,
    [a, b]: [&mut dyn Player; 2],
) -> Pair {
    let count = u64::from(settings.games_per_opening(config));
    let games = seats_of_a(settings.seating, config, number).into_iter().zip(0_u64..);
    let games = games.map(|(a_plays, index)| {
        let seed = crate::selfplay::game_seed(settings.seed, u64::from(number) * count + index);
        play(config, opening, seed, &a_plays, [&mut *a, &mut *b])
    });
    Pair { games: games.collect() }
}

/// Which seats A has in each game of an opening. Who shares a table of three or four goes through all divisions in turn.
fn seats_of_a(seating: Seating, config: Config, opening: u32) -> Vec<Vec<bool>> {
    let seats = usize::from(config.players);
    if seating == Seating::Rotated {
        return (0..seats).map(|a| (0..seats).map(|seat| seat == a).collect()).collect();
    }
    let all: &[&[usize]] = match seats {
        2 => &[&[0]],
        3 => &[&[0], &[1], &[2]],
        _ => &[&[0, 2], &[0, 1], &[0, 3]],
    };
    let chosen = all[opening as usize % all.len()];
    let first: Vec<bool> = (0..seats).map(|seat| chosen.contains(&seat)).collect();
    let second = first.iter().map(|a| !a).collect();
    vec![first, second]
}

/// Plays one game.
fn play(
    config: Config,
    opening: &Opening,
    seed: u64,
    a_plays: &[bool],
    [a, b]: [&mut dyn Player; 2],
) -> Game {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut state, mut texts) = (opening.state.clone(), opening.moves.clone());
    let (a_won, finish) = loop {
        if let Some(outcome) = state.outcome() {
            let seats = outcome.ranking.iter().map(|seat| a_plays[seat.index()]);
            let finish = rating::finish(seats.zip(outcome.ranks.iter().copied()));
            break (a_plays[outcome.winner.index()], finish);
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
    Game { record, a_won, finish }
}

struct Tally<'a> {
    settings: &'a Settings,
    config: Config,
    book: Book,
    pairs: Vec<u64>,
    finishes: BTreeMap<String, u64>,
    records: Vec<GameRecord>,
    digests: BTreeSet<String>,
}

impl<'a> Tally<'a> {
    fn new(settings: &'a Settings, config: Config, book: Book) -> Self {
        Self {
            settings,
            config,
            book,
            pairs: vec![0; settings.games_per_opening(config) as usize + 1],
            finishes: BTreeMap::new(),
            records: Vec::new(),
            digests: BTreeSet::new(),
        }
    }

    /// Adds the games of an opening; tells whether the match is decided.
    fn add(&mut self, pair: Pair) -> bool {
        self.pairs[pair.games.iter().filter(|game| game.a_won).count()] += 1;
        for Game { record, finish, .. } in pair.games {
            if let Some(result) = &record.result {
                self.digests.insert(result.digest.clone());
            }
            if self.config.players > 2 {
                *self.finishes.entry(finish).or_default() += 1;
            }
            self.records.push(record);
        }
        self.test().is_some_and(|(test, pairs)| test.decide(pairs) != Decision::Undecided)
    }

    /// The test and what it looks at.
    fn test(&self) -> Option<(Bounds, [u64; 3])> {
        let pairs = self.pairs.as_slice().try_into().ok()?;
        self.settings.test.map(|test| (test, pairs))
    }

    /// The report; refuses a match of repeated games, and writes the games if they are to be kept.
    fn finish(
        &self,
        names: [String; 2],
        out_dir: Option<&Path>,
        progress: &dyn Progress,
        stopped: bool,
    ) -> anyhow::Result<Report> {
        let mut report = self.report(names);
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

    fn report(&self, [a, b]: [String; 2]) -> Report {
        let games = self.records.len() as u64;
        let wins = self.pairs.iter().zip(0..).map(|(pairs, won)| pairs * won).sum();
        let equal_score = match self.settings.seating {
            Seating::Shared => 0.5,
            Seating::Rotated => 1.0 / f64::from(self.config.players),
        };
        let score = if games == 0 { equal_score } else { float(wins) / float(games) };
        let (low, high) = interval(&self.pairs);
        // One seat against several: the odds of a player that is as strong as each of them are those of the equal share.
        let elo = |share| elo(share, games) - elo(equal_score, u64::MAX);
        Report {
            a,
            b,
            book: self.book.clone(),
            games,
            wins,
            losses: games - wins,
            pairs: self.pairs.clone(),
            score,
            equal_score,
            elo: elo(score),
            elo_low: elo(low),
            elo_high: elo(high),
            finishes: self.finishes.clone(),
            distinct_games: self.digests.len() as u64,
            llr: self.test().map(|(test, pairs)| test.llr(pairs)),
            decision: self.test().map(|(test, pairs)| test.decide(pairs)),
            test: self.settings.test,
            file: None,
            moves: self.records.iter().map(|record| record.moves.len() as u64).sum(),
            seconds: 0.0,
            stopped: false,
        }
    }
}

impl Report {
    /// What ratings rest on.
    pub fn result(&self) -> MatchResult {
        MatchResult {
            a: self.a.clone(),
            b: self.b.clone(),
            wins: self.wins,
            losses: self.losses,
            finishes: self.finishes.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
