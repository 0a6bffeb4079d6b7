//! `train`: the learning loop without a manager, for benchmarks and for whoever wants to see it learn.

mod linear;
mod overrides;
mod view;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use ringrift_learn::session::{
    self, Duel, Host, Limit, Live, Order, Point, Report, Settings, Stand,
};
use ringrift_rules::Config;
use tokio::time::Instant;

use crate::{
    cli::{Place, Print},
    console,
    exit::{Failure, OrExit as _, Outcome},
    interrupt::Interrupt,
};

/// Folder of the runs in a data directory.
const RUNS: &str = "runs";
/// Shortest time between two live lines.
const PAUSE: Duration = Duration::from_millis(200);

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct TrainArgs {
    /// Config of the game, e.g. `square8_2p`
    #[arg(long, value_name = "CONFIG", required_unless_present = "show")]
    config: Option<Config>,
    /// What learns: a network, or the linear baseline that a network has to beat
    #[arg(long, value_enum, default_value_t = Learner::Network)]
    learner: Learner,
    /// Learn for so many minutes
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["steps", "games"], required_unless_present_any = ["steps", "games", "show"])]
    minutes: Option<f64>,
    /// Learn from so many games; the linear learner alone
    #[arg(long, value_name = "GAMES", conflicts_with = "steps")]
    games: Option<u64>,
    /// Learn for so many steps of the optimiser; with one thread the run repeats to the byte
    #[arg(long, value_name = "STEPS")]
    steps: Option<u32>,
    /// Threads that work
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where all chance comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Change a number of the schedule, e.g. selfplay.games=200; docs/learning.md lists all
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write the last champion, or the linear function, to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show a run that was kept, by its folder or its name in the data directory
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "minutes", "steps", "games", "learner", "out", "set"])]
    show: Option<PathBuf>,
    /// Keep the run in a folder of its own below DIR/runs [env: `RINGRIFT_DATA_DIR`]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    print: Print,
}

/// What learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Learner {
    /// A network, by self-play with search
    Network,
    /// A sum of learned numbers, by TD(lambda) one move ahead; one thread learns, all play the closing matches
    Linear,
}

const AFTER: &str = "\
Without --data (or RINGRIFT_DATA_DIR) the run lies in a temporary folder and is gone afterwards, but for --out.
The matches at the end take time beyond the minutes. Ctrl-C ends the learning and prints what there is.";

impl TrainArgs {
    /// The data directory, if somebody said one.
    fn data(&self) -> Option<PathBuf> {
        Place { data: self.data.clone() }.given()
    }
}

/// Runs the command.
pub fn run(args: &TrainArgs) -> Outcome {
    if let Some(name) = &args.show {
        return show(args, name);
    }
    let config = args.config.context("a run needs --config").or_usage()?;
    if args.learner == Learner::Linear {
        return linear::run(args, config);
    }
    if args.games.is_some() {
        let sentence = "--games is for --learner linear; a network learns for --minutes or --steps";
        return Err(Failure::usage(anyhow!(sentence)));
    }
    let limit = match (args.minutes, args.steps) {
        (Some(minutes), None) => Limit::Minutes(minutes),
        (None, Some(steps)) => Limit::Steps(steps),
        _ => return Err(Failure::usage(anyhow!("a run needs either --minutes or --steps"))),
    };
    let settings = overrides::apply(Settings::default(), &args.set)
        .map_err(|sentence| Failure::usage(anyhow!(sentence)))?;
    let interrupt = Interrupt::listen()?;
    let order = Order {
        config,
        limit,
        threads: args.threads,
        seed: args.seed,
        settings: &settings,
        folder: Path::new(""),
    };
    order.check().or_usage()?;
    let kept = Kept::make(args, config)?;
    let order = Order { folder: kept.folder(), ..order };
    let host = Console {
        began: Instant::now(),
        interrupt,
        quiet: args.print.json,
        shown: Mutex::new((None, 0)),
    };
    let mut report = session::run(&order, &host)?;
    if let Some(out) = &args.out {
        copy(&report, &order, out)?;
    }
    if report.stand == Stand::Learned {
        session::close(&order, &mut report, &host)?;
    }
    console::status("");
    print(args, &report)?;
    if !args.print.json
        && let Kept::Folder(folder) = &kept
    {
        console::say(&format!("show:   ringrift train --show {}", folder.display()));
    }
    Ok(())
}

fn print(args: &TrainArgs, report: &Report) -> Outcome {
    if !args.print.json {
        return Ok(view::summary(report)?);
    }
    let mut value = serde_json::to_value(report)?;
    value["repeat"] = view::repeat(report)?.into();
    Ok(console::say_json(&value)?)
}

fn copy(report: &Report, order: &Order<'_>, out: &Path) -> anyhow::Result<()> {
    let champion = report.nets.get(report.champion).context("a run has a champion")?;
    fs_err::copy(order.folder.join(&champion.file), out)?;
    Ok(())
}

/// `--show`.
fn show(args: &TrainArgs, name: &Path) -> Outcome {
    let folder = match args.data() {
        Some(data) if !name.exists() => data.join(RUNS).join(name),
        _ => name.to_owned(),
    };
    let report = Report::read(&folder).or_usage()?;
    if !args.print.json {
        for (number, point) in (1..).zip(&report.points) {
            console::say(&view::point_line(number, point, champion_after(&report, number)));
        }
    }
    print(args, &report)
}

/// The champion after an iteration, counted from 1.
fn champion_after(report: &Report, number: usize) -> usize {
    let promoted = |point: &&Point| point.verdict == session::Verdict::Promoted;
    let last = report.points.iter().take(number).rfind(promoted);
    last.and_then(|point| point.net).unwrap_or(0)
}

/// Where a run lies.
enum Kept {
    Folder(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Kept {
    /// The first free name in the data directory, or a temporary folder.
    fn make(args: &TrainArgs, config: Config) -> Result<Self, Failure> {
        let Some(data) = args.data() else {
            return Ok(Self::Temporary(tempfile::tempdir()?));
        };
        let runs = data.join(RUNS);
        fs_err::create_dir_all(&runs)?;
        for number in 1..=10_000_u32 {
            let folder = runs.join(format!("{config}-seed{}-{number}", args.seed));
            match fs_err::create_dir(&folder) {
                Ok(()) => return Ok(Self::Folder(folder)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure::usage(anyhow!("{} is full of runs of this seed", runs.display())))
    }

    fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// Shows a run while it goes on.
struct Console {
    began: Instant,
    interrupt: Interrupt,
    quiet: bool,
    /// When the last live line was drawn; iterations so far.
    shown: Mutex<(Option<Duration>, usize)>,
}

impl Host for Console {
    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn stopping(&self) -> bool {
        self.interrupt.is_asked()
    }

    fn live(&self, live: &Live) {
        if self.quiet || !console::is_terminal() {
            return;
        }
        let now = self.elapsed();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.0.is_none_or(|drawn| now.saturating_sub(drawn) >= PAUSE) {
            shown.0 = Some(now);
            console::status(&view::live_line(live, now));
        }
    }

    fn iterated(&self, point: &Point, champion: usize) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.1 += 1;
        if !self.quiet {
            console::status("");
            console::say(&view::point_line(shown.1, point, champion));
        }
    }

    fn dueled(&self, duel: &Duel) {
        if !self.quiet {
            console::status("");
            console::say(&view::duel_line(duel));
        }
    }
}
