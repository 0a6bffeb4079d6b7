//! `--learner linear`: the baseline that a network has to beat.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use ringrift_learn::{
    Flow, Progress,
    arena::{self, Seating},
    linear::{self, Settings},
    session::Duel,
};
use ringrift_player::{Player, PlayerSpec};
use ringrift_rules::Config;
use serde_json::json;
use tokio::time::Instant;

use super::{PAUSE, TrainArgs, overrides, view};
use crate::{
    console,
    exit::{Failure, OrExit as _, Outcome},
    interrupt::Interrupt,
};

/// Whom it meets at the end, and in how many games.
const RULERS: [(&str, u32); 2] = [("random", 200), ("heuristic", 400)];
/// Games of the match with a network that is proposed.
const PROPOSED: u32 = 400;

/// Runs the command.
pub fn run(args: &TrainArgs, config: Config) -> Outcome {
    let usage = |sentence: &str| Failure::usage(anyhow!("--learner linear: {sentence}"));
    if args.steps.is_some() {
        return Err(usage("it learns for --minutes or --games, not --steps"));
    }
    if args.data.is_some() {
        return Err(usage("it keeps no run in --data, only its file, see --out"));
    }
    let out = args.out.as_deref().ok_or_else(|| usage("it needs --out, the file to write"))?;
    let (games, until) = match (args.games, args.minutes) {
        (Some(games), None) => (games, None),
        (None, Some(minutes)) if minutes > 0.0 && minutes <= 1e6 => {
            (u64::MAX, Some(Duration::from_secs_f64(minutes * 60.0)))
        }
        (None, Some(minutes)) => {
            return Err(usage(&format!(
                "minutes is {minutes}; allowed is more than 0, at most 1000000"
            )));
        }
        _ => return Err(usage("it needs either --minutes or --games")),
    };
    let settings = overrides::apply(Settings::default(), &args.set)
        .map_err(|sentence| Failure::usage(anyhow!(sentence)))?;
    let changes = overrides::differences(&settings)?;
    let settings = Settings { games, seed: args.seed, ..settings };
    settings.check().or_usage()?;

    let folder = tempfile::tempdir()?;
    let mut watch = Watch {
        began: Instant::now(),
        until,
        interrupt: Interrupt::listen()?,
        quiet: args.print.json,
        drawn: None,
        what: What::Learns,
    };
    let report = linear::run(&settings, config, None, folder.path(), &mut watch)?;
    console::status("");
    fs_err::copy(&report.file, out)?;
    if !args.print.json {
        console::say(&format!(
            "{config}, seed {}: {} games of {:.0} moves in {:.1} minutes, mean square error {:.4}, written to {}",
            args.seed,
            report.games,
            per_game(report.moves, report.games),
            report.seconds / 60.0,
            report.error,
            out.display()
        ));
    }
    let mut duels = Vec::new();
    for (ruler, games) in RULERS {
        if watch.interrupt.is_asked() {
            break;
        }
        let Some(duel) = meet(args, config, out, (ruler, games), &mut watch)? else { break };
        if !args.print.json {
            console::say(&view::duel_line(&duel));
        }
        duels.push(duel);
    }

    let seats = u32::from(config.players);
    let against = format!(
        "ringrift match model:champion.safetensors@64 {} --config {config} --games {}",
        view::quoted(&format!("linear:{}", out.display())),
        PROPOSED / seats * seats
    );
    // What was learned depends on the games alone, so that a run by minutes can be repeated too.
    let mut repeat = format!(
        "ringrift train --learner linear --config {config} --games {} --seed {} --out {}",
        report.games,
        args.seed,
        view::quoted(&out.to_string_lossy())
    );
    for change in changes {
        repeat.push_str(" --set ");
        repeat.push_str(&view::quoted(&change));
    }
    if args.print.json {
        return Ok(console::say_json(&json!({
            "config": config,
            "seed": args.seed,
            "file": out,
            "games": report.games,
            "positions": report.positions,
            "moves": report.moves,
            "error": report.error,
            "seconds": report.seconds,
            "closing": duels,
            "against": against,
            "repeat": repeat,
        }))?);
    }
    view::closing(config, &duels);
    console::say("");
    console::say(&format!("a network against it: {against}"));
    console::say(&format!("repeat: {repeat}"));
    Ok(())
}

/// A match against a ruler; none if it was stopped before its first game.
fn meet(
    args: &TrainArgs,
    config: Config,
    file: &Path,
    (ruler, games): (&str, u32),
    watch: &mut Watch,
) -> anyhow::Result<Option<Duel>> {
    let settings = arena::Settings {
        pairs: games.div_ceil(config.players.into()),
        test: None,
        seed: args.seed,
        seating: Seating::Rotated,
    };
    let bytes = Arc::new(fs_err::read(file)?);
    let ours = PlayerSpec::Linear { source: file.to_string_lossy().into_owned() };
    let theirs: PlayerSpec = ruler.parse()?;
    let open = || -> anyhow::Result<[Box<dyn Player>; 2]> {
        let ours = ours.open(config, |_| Ok(bytes.to_vec())).context("open what was learned")?;
        Ok([ours, theirs.open(config, |source| Err(anyhow!("{source} is no fixed player")))?])
    };
    (watch.began, watch.until, watch.what) = (Instant::now(), None, What::Meets);
    let result = arena::run_on(args.threads, &settings, config, &open, None, watch)?;
    console::status("");
    ensure!(result.stopped || result.games > 0, "the match against {ruler} has no game");
    Ok((result.games > 0).then(|| Duel::new(ruler.to_owned(), 0, result)))
}

fn per_game(moves: u64, games: u64) -> f64 {
    let count = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    count(moves) / count(games.max(1))
}

/// What is going on.
enum What {
    Learns,
    Meets,
}

/// Shows the work while it goes on, and ends it.
struct Watch {
    began: Instant,
    until: Option<Duration>,
    interrupt: Interrupt,
    quiet: bool,
    /// When the last live line was drawn.
    drawn: Option<Duration>,
    what: What,
}

impl Progress for Watch {
    fn beat(&mut self, done: u64, total: u64) -> Flow {
        let now = self.began.elapsed();
        let is_due = self
            .drawn
            .is_none_or(|drawn| now.checked_sub(drawn).is_none_or(|since| since >= PAUSE));
        if !self.quiet && is_due && console::is_terminal() {
            self.drawn = Some(now);
            let of = if total == u64::MAX { String::new() } else { format!(" of {total}") };
            console::status(&match self.what {
                What::Learns => {
                    let rate = f64::from(u32::try_from(done).unwrap_or(u32::MAX))
                        / now.as_secs_f64().max(0.1);
                    format!("learned from {done}{of} games, {rate:.1} games/s")
                }
                What::Meets => format!("closing match: {done}{of} openings"),
            });
        }
        let is_over = self.until.is_some_and(|until| now >= until);
        if is_over || self.interrupt.is_asked() { Flow::Stop } else { Flow::Continue }
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
