//! `match`: two players, paired openings, seats exchanged.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use ringrift_learn::{Flow, Progress, arena};
use ringrift_pipeline::{Config, ModelId};
use ringrift_player::{Player, PlayerSpec};
use serde_json::json;
use tokio::time::Instant;

use super::{
    lists::elo_text,
    offline::{Offline, block_on},
};
use crate::{
    cli::{Place, Print},
    config::nearest,
    console,
    exit::{Failure, OrExit as _, Outcome},
    matches::result_of,
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
    /// Games; an even number, as each opening is played twice
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    games: u32,
    /// Seed of openings and searches
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// Runs the command.
pub fn run(args: &MatchArgs) -> Outcome {
    if !args.games.is_multiple_of(2) {
        return Err(Failure::usage(anyhow!(
            "--games: {} is odd; each opening is played twice, so allowed are even numbers",
            args.games
        )));
    }
    let mut a = open(&args.a, args.config, &args.place)?;
    let mut b = open(&args.b, args.config, &args.place)?;
    let settings = arena::Settings { pairs: args.games / 2, test: None, seed: args.seed };
    let mut watch = Watch { began: Instant::now(), quiet: args.print.json };
    let report = arena::run(&settings, args.config, a.as_mut(), b.as_mut(), None, &mut watch)?;
    console::status("");
    let result = result_of(&report)?;
    if args.print.json {
        console::say_json(&json!({
            "config": args.config,
            "a": result.a,
            "b": result.b,
            "score": result.score,
            "games": result.games,
            "wins": result.wins,
            "losses": result.losses,
            "pairs": result.pairs,
            "elo": result.elo,
            "elo_low": result.elo_low,
            "elo_high": result.elo_high,
            "distinct_games": result.distinct_games,
            "seed": args.seed,
            "seconds": result.seconds,
        }))?;
        return Ok(());
    }
    console::say(&format!("{} against {} on {}", result.a, result.b, args.config));
    console::say(&format!(
        "{} wins, {} losses in {} games ({} distinct): score {:.3}, Elo {}",
        result.wins,
        result.losses,
        result.games,
        result.distinct_games,
        result.score,
        elo_text(&result)
    ));
    Ok(())
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
}

impl Progress for Watch {
    fn beat(&mut self, done: u64, total: u64) -> Flow {
        if !self.quiet {
            console::status(&format!("{} of {} games", done * 2, total * 2));
        }
        Flow::Continue
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
