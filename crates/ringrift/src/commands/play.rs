//! `match`: two players, the same openings for both, each seat in turn.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use ringrift_learn::{
    Flow, Progress,
    arena::{self, Bounds, Decision, Seating},
    rating::{self, Rating},
};
use ringrift_pipeline::{Config, ModelId};
use ringrift_player::{Player, PlayerSpec};
use serde_json::json;
use tokio::time::Instant;

use super::offline::{Offline, block_on};
use crate::{
    cli::{Place, Print},
    config::nearest,
    console,
    exit::{Failure, OrExit as _, Outcome},
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct MatchArgs {
    /// First player: random, heuristic, linear:FILE, rollout:SIMS or model:FILE@SIMS, where an id of the data directory will do for FILE
    a: PlayerSpec,
    /// Second player
    b: PlayerSpec,
    /// Config of the game
    #[arg(long, value_name = "CONFIG")]
    config: Config,
    /// Games, a multiple of the seats, as A plays each opening from every seat, alone against B in the others [default: 100, of three 99]
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    games: Option<u32>,
    /// End, after --games at the latest, when the sequential test has told whether A is no more than ELO0 or no less than ELO1 better; for two seats
    #[arg(long, value_name = "ELO0,ELO1", value_parser = bounds, allow_hyphen_values = true)]
    test: Option<Bounds>,
    /// Seed of openings and searches
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the games, as records that `rules replay` reads
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

fn bounds(text: &str) -> Result<Bounds, String> {
    let (elo0, elo1) = text
        .split_once(',')
        .and_then(|(low, high)| {
            Some((low.trim().parse::<f64>().ok()?, high.trim().parse::<f64>().ok()?))
        })
        .filter(|(low, high)| -1000.0 <= *low && low < high && *high <= 1000.0)
        .ok_or_else(|| {
            "allowed are two numbers of Elo, -1000 to 1000, the smaller one first, like 0,50"
                .to_owned()
        })?;
    Ok(Bounds { elo0, elo1, ..Bounds::default() })
}

/// Runs the command.
pub fn run(args: &MatchArgs) -> Outcome {
    let seats = u32::from(args.config.players);
    if args.test.is_some() && seats != 2 {
        return Err(Failure::usage(anyhow!(
            "--test: {} has {seats} seats; a test is of pairs of games, so of two seats",
            args.config
        )));
    }
    let games = args.games.unwrap_or(100 / seats * seats);
    if !games.is_multiple_of(seats) {
        return Err(Failure::usage(anyhow!(
            "--games: {games} is no multiple of {seats}; each opening is played from every seat"
        )));
    }
    let mut a = open(&args.a, args.config, &args.place)?;
    let mut b = open(&args.b, args.config, &args.place)?;
    let settings = arena::Settings {
        pairs: games / seats,
        test: args.test,
        seed: args.seed,
        seating: Seating::Rotated,
    };
    let mut watch = Watch { began: Instant::now(), quiet: args.print.json, seats };
    if let Some(out) = &args.out {
        // Better refused now than after the games.
        fs_err::OpenOptions::new().create(true).append(true).open(out)?;
    }
    let folder = args.out.as_ref().map(|_| tempfile::tempdir()).transpose()?;
    let kept = folder.as_ref().map(tempfile::TempDir::path);
    let report = arena::run(&settings, args.config, a.as_mut(), b.as_mut(), kept, &mut watch)?;
    console::status("");
    if let (Some(out), Some(file)) = (&args.out, &report.file) {
        fs_err::copy(file, out)?;
    }
    if args.print.json { json(args, &report) } else { text(args, &report) }
}

fn json(args: &MatchArgs, report: &arena::Report) -> Outcome {
    let (low, high) = arena::interval(&report.pairs);
    console::say_json(&json!({
        "config": args.config,
        "a": report.a,
        "b": report.b,
        "score": report.score,
        "score_low": low,
        "score_high": high,
        "equal_score": report.equal_score,
        "games": report.games,
        "wins": report.wins,
        "losses": report.losses,
        "pairs": report.pairs,
        "elo": report.elo,
        "elo_low": report.elo_low,
        "elo_high": report.elo_high,
        "finishes": report.finishes,
        "rating": by_places(report)?,
        "distinct_games": report.distinct_games,
        "book": report.book,
        "test": report.test,
        "llr": report.llr,
        "decision": report.decision,
        "seed": args.seed,
        "seconds": report.seconds,
    }))?;
    Ok(())
}

fn text(args: &MatchArgs, report: &arena::Report) -> Outcome {
    console::say(&format!("{} against {} on {}", report.a, report.b, args.config));
    console::say(&format!(
        "{} wins, {} losses in {} games ({} distinct): score {:.3}, Elo {:+.0} ({:+.0} to {:+.0})",
        report.wins,
        report.losses,
        report.games,
        report.distinct_games,
        report.score,
        report.elo,
        report.elo_low,
        report.elo_high
    ));
    if args.config.players > 2 {
        let [low, high] = <[f64; 2]>::from(arena::interval(&report.pairs)).map(|x| x * 100.0);
        console::say(&format!(
            "share of wins {:.1} % ({low:.1} to {high:.1}), of equal players {:.1} %",
            report.score * 100.0,
            report.equal_score * 100.0
        ));
    }
    if let (Some(Bounds { elo0, elo1, .. }), Some(llr)) = (&report.test, report.llr) {
        let said = match report.decision {
            Some(Decision::H1) => format!("accepts H1, {elo1:+} Elo"),
            Some(Decision::H0) => format!("accepts H0, {elo0:+} Elo"),
            Some(Decision::Undecided) | None => "is not decided".to_owned(),
        };
        console::say(&format!("the test of [{elo0}, {elo1}] Elo {said}: LLR {llr:.2}"));
    }
    console::say(&format!("{} openings, book {}", report.book.openings, report.book.hash));
    if let Some(Rating { elo, low, high, .. }) = by_places(report)? {
        console::say(&format!("by all places: {elo:+.0} ({low:+.0} to {high:+.0}) Elo"));
    }
    Ok(())
}

/// How much A is above B by all places of games of three and four; a player has no rating against itself.
fn by_places(report: &arena::Report) -> anyhow::Result<Option<Rating>> {
    if report.finishes.is_empty() || report.a == report.b {
        return Ok(None);
    }
    let ratings = rating::rate(&[report.result()], &report.b)?;
    Ok(ratings.into_iter().find(|rating| rating.player == report.a))
}

/// A player of a config; a model comes from a file, or from the data directory, a linear function from its file.
pub fn open(spec: &PlayerSpec, config: Config, place: &Place) -> Result<Box<dyn Player>, Failure> {
    let weights = match spec {
        PlayerSpec::Model { source, .. } => Some(weights(source, config, place)?),
        PlayerSpec::Linear { source } => Some(fs_err::read(source).or_usage()?),
        PlayerSpec::Random | PlayerSpec::Heuristic | PlayerSpec::Rollout { .. } => None,
    };
    let opened = spec.open(config, |_| weights.context("this player has no weights"));
    opened.with_context(|| format!("open the player {spec}")).or_usage()
}

/// The weights in a file, or the verified ones of a model of the data directory.
fn weights(id: &str, config: Config, place: &Place) -> Result<Vec<u8>, Failure> {
    if std::path::Path::new(id).is_file() {
        return fs_err::read(id).or_usage();
    }
    let dir = place.existing()?;
    let model = block_on(async {
        let offline = Offline::open(&dir).await?;
        if let Some(model) = offline.catalogue.model(&ModelId(id.to_owned())).await? {
            return Ok(model);
        }
        let models = offline.catalogue.models(None).await?;
        let names = models.iter().map(|model| model.id.as_str());
        let hint = nearest(id, names)
            .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
        Err(Failure::usage(anyhow!("there is no model '{id}'{hint} `ringrift models` lists all")))
    })?;
    let read = || -> anyhow::Result<Vec<u8>> {
        ensure!(model.config == config, "{id} plays {}, not {config}", model.config);
        let hash: depot::Hash = model.weights.as_str().parse()?;
        // Far above any network of ours; bounds what a wrong file could make us read.
        let bytes = depot::Depot::open_existing(dir.root()).read_verified(&hash, 1 << 30)?;
        Ok(bytes)
    };
    read().with_context(|| format!("read the model {id}")).or_usage()
}

struct Watch {
    began: Instant,
    quiet: bool,
    seats: u32,
}

impl Progress for Watch {
    fn beat(&mut self, done: u64, total: u64) -> Flow {
        if !self.quiet {
            let games = |openings: u64| openings * u64::from(self.seats);
            console::status(&format!("{} of {} games", games(done), games(total)));
        }
        Flow::Continue
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
