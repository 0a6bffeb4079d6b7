//! `up`: the whole loop in one process, in the foreground.
//!
//! Two runtimes. The supervisor, the socket and the page have this thread and a runtime of one
//! thread; the daemons have one of their own, so that a daemon that blocks holds up other daemons at
//! most, never whoever watches them.

mod capable;
mod feed;
mod goal;
mod history;
mod leader;
mod manage;
mod notify;
#[cfg(not(feature = "cluster"))]
#[path = "alone.rs"]
mod others;
#[cfg(feature = "cluster")]
mod others;
mod parts;
mod wait;

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::Args;
use ringrift_daemons::HttpPort as _;

use crate::{
    cli::{Places, warn},
    config::{Settings, kind::positive_time},
    console,
    data_dir::DataDir,
    exit::{FAILED, Failure, GOAL_MISSED, OrExit as _, Outcome},
    http::Http,
    log_server::LogServer,
    logs,
    plan::{Selection, Wanted},
};
use goal::Goal;
use manage::{End, Signals};
pub use parts::KEEP_FREE;
use parts::Parts;

/// Daemons never have fewer threads: one that blocks for a moment must not stop the rest.
const LEAST_DAEMON_THREADS: usize = 4;
/// Time that threads of daemons get to end after everything was stopped.
const LAST_MOMENTS: Duration = Duration::from_secs(2);

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    places: Places,
    /// Which daemons are started [default: standalone, the whole loop on one machine]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Configs of the game that are played, joined by commas [default: `hex8_2p,square8_2p`]
    #[arg(long, value_name = "LIST")]
    configs: Option<String>,
    /// Port of probes and page on 127.0.0.1; 0 = any free one [default: 8790]
    #[arg(long)]
    port: Option<String>,
    /// Seed of the loop: same seed, same model 0 [default: 1]
    #[arg(long)]
    seed: Option<String>,
    /// End well as soon as this is so: 'promotions>=N'
    #[arg(long, value_name = "GOAL")]
    until: Option<Goal>,
    /// End after this time, e.g. 20m; with an unreached --until the exit code is 4
    #[arg(long, value_name = "TIME", value_parser = positive_time)]
    timeout: Option<Duration>,
}

impl UpArgs {
    fn settings(&self) -> Result<Settings, Failure> {
        let flags = [
            ("manager.profile", "--profile", &self.profile),
            ("loop.configs", "--configs", &self.configs),
            ("http.port", "--port", &self.port),
            ("loop.seed", "--seed", &self.seed),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(key, flag, text)| text.clone().map(|text| (key, flag, text)));
        self.places.settings(given.collect())
    }
}

/// What a manager is to do.
pub struct Run {
    /// Everything that is configured.
    pub settings: Settings,
    /// Which daemons it starts.
    pub selections: Vec<Selection>,
    /// What ends it well.
    pub until: Option<Goal>,
    /// After which time it ends.
    pub timeout: Option<Duration>,
}

/// Runs the command.
pub fn run(args: &UpArgs) -> Outcome {
    let settings = args.settings()?;
    let selections = vec![Selection::Profile(settings.profile.clone())];
    warn(&settings);
    manage(&Run { settings, selections, until: args.until, timeout: args.timeout })
}

/// Is the manager until it is asked to stop, reaches its goal, or its time is over.
pub fn manage(run: &Run) -> Outcome {
    let settings = &run.settings;
    let wanted =
        Wanted::of(&run.selections).map_err(|sentence| Failure::usage(anyhow!(sentence)))?;
    let dir = DataDir::new(&settings.data).or_usage()?;
    dir.check_whole().or_usage()?;
    dir.create().or_usage()?;
    let lock = dir.lock().or_usage()?;
    let log = logs::start(&dir.logs(), &settings.log_level, settings.log_format).or_usage()?;
    for warning in &wanted.warnings {
        tracing::warn!("{warning}");
    }
    // Before any work: a port that is taken must not leave half a manager behind.
    let http = Http::bind(settings.address()).or_usage()?;
    fs_err::write(dir.port(), format!("{}\n", http.address().port())).or_usage()?;
    dir.make_token().or_usage()?;

    let threads = hosts::cores().max(LEAST_DAEMON_THREADS);
    let daemons = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("daemons")
        .enable_all()
        .build()?;
    let supervisor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is opened, so that a signal that comes now is not missed.
    let signals = {
        let _here = supervisor.enter();
        Signals::listen()?
    };
    // What keeps the log ends after everything that uses it.
    let server = LogServer::start(&dir).or_usage()?;
    let asked = asked(&run.selections);
    let opened = daemons.block_on(wait::within_reach(async || {
        let (http, level) = (http.clone(), log.level.clone());
        Parts::open(settings, asked.clone(), &wanted, &dir, http, level).await
    }));
    let mut parts = match opened {
        Ok(Some(parts)) => parts,
        Ok(None) => {
            daemons.shutdown_timeout(LAST_MOMENTS);
            remove_marks(&dir);
            console::say("stopped before it began");
            return Ok(());
        }
        Err(failure) => {
            daemons.shutdown_timeout(LAST_MOMENTS);
            return Err(failure);
        }
    };
    if let Some(goal) = run.until {
        let configs = &parts.state.the_loop.configs;
        let (reached, count) = daemons.block_on(goal.reached(&parts.state.catalogue, configs))?;
        if reached {
            console::say(&format!("{goal} is reached already: there are {count}"));
            daemons.block_on(parts.close());
            daemons.shutdown_timeout(LAST_MOMENTS);
            return Ok(());
        }
    }
    let order = manage::Order { goal: run.until, timeout: run.timeout };
    let bell = parts.bell.clone();
    let ended = supervisor.block_on(async {
        tokio::select! {
            ended = manage::run(settings, &dir, &mut parts, &http, &order, daemons.handle(), signals) => ended,
            never = notify::tell(bell) => match never {},
        }
    });
    notify::stopping();
    drop(supervisor);
    http.close();
    let (end, saved) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            daemons.shutdown_timeout(LAST_MOMENTS);
            return Err(error.into());
        }
    };
    if !matches!(end, End::AtOnce(_)) {
        daemons.block_on(parts.close());
    }
    daemons.shutdown_timeout(LAST_MOMENTS);
    remove_marks(&dir);
    console::status("");
    console::say(&format!(
        "{end}; saved in this run: {} games, {} models, {} promotions, all in {}",
        saved.games,
        saved.models,
        saved.promotions,
        dir.root().display()
    ));
    // The databases are closed with their last handle. Only then the directory is free: whoever
    // waits for that may copy it.
    drop((parts, http));
    drop(server);
    drop(log);
    drop(lock);
    match end {
        End::Asked | End::Reached(_) => Ok(()),
        End::TimeOver if run.until.is_none() => Ok(()),
        End::TimeOver => Err(Failure::told(GOAL_MISSED)),
        End::AtOnce(_) | End::Deposed | End::Broken(_) => {
            Err(Failure::new(FAILED, anyhow!("{end}")))
        }
    }
}

/// What was asked for, in words.
fn asked(selections: &[Selection]) -> String {
    let words = selections.iter().map(|selection| match selection {
        Selection::All => "all types".to_owned(),
        Selection::Profile(name) => format!("profile {name}"),
        Selection::Daemons(names) => names.join(", ").to_uppercase(),
    });
    words.collect::<Vec<_>>().join(" and ")
}

/// The socket and the port are no longer there.
fn remove_marks(dir: &DataDir) {
    let socket: Option<PathBuf> = dir.socket().ok();
    for path in socket.into_iter().chain([dir.port()]) {
        // Another process reads these only to find a manager, and finds none either way.
        drop(fs_err::remove_file(path));
    }
}

/// The lines that a person sees first.
fn greet(settings: &Settings, parts: &Parts, order: &manage::Order, http: &Http) {
    let configs: Vec<String> = settings.configs.iter().map(ToString::to_string).collect();
    let plan = &parts.plan;
    let configs = configs.join(" and ");
    let closes = ["IDLE_RESOURCE", "TRAINING_TRIGGER", "AUTO_PROMOTION"];
    let is_whole = closes.iter().all(|name| plan.start.iter().any(|id| id.0 == *name));
    console::say(&if is_whole {
        format!("ringrift plays {configs}, trains on the games, promotes what beats the champion")
    } else {
        format!("ringrift runs {} for {configs}", parts.asked)
    });
    console::say(&format!("  page     http://{}/", http.address()));
    console::say(&format!("  data     {}", parts.state.the_loop.data.display()));
    if let Some(membership) = &parts.membership {
        let role = if parts.state.leases.leads() { "leads" } else { "follows" };
        console::say(&format!("  cluster  {membership}; {} {role}", parts.state.the_loop.node));
    }
    console::say("  log      logs/daemons.log in there; `ringrift status`, `ringrift why CONFIG`");
    let left_out = match plan.skipped.len() {
        0 => String::new(),
        skipped => format!("; {skipped} planned ones left out"),
    };
    console::say(&format!(
        "  runs     {} daemons ({}), {} workers{left_out}",
        plan.start.len(),
        parts.asked,
        parts.state.workshop.slots()
    ));
    match (order.goal, order.timeout) {
        (Some(goal), Some(timeout)) => console::say(&format!(
            "  until    {goal}, or {}",
            console::duration(timeout.as_secs_f64())
        )),
        (Some(goal), None) => console::say(&format!("  until    {goal}")),
        (None, Some(timeout)) => {
            console::say(&format!(
                "  until    {} have passed",
                console::duration(timeout.as_secs_f64())
            ));
        }
        (None, None) => {}
    }
    console::say("  stop     Ctrl-C, or `ringrift stop`");
}
