//! `logs` and `log-level`: what the manager wrote down, and how much it writes.

use std::{thread, time::Duration};

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::status::PATIENCE;
use crate::{
    cli::{Place, Print},
    config::JOB_KINDS,
    console,
    control::{Request, ask, nobody},
    exit::{Failure, Outcome},
    log_lines::{Follower, LogLine, Of, last},
    plan::built,
};

/// Time between two looks at the file.
const LOOK: Duration = Duration::from_millis(200);

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Only lines of this daemon
    name: Option<String>,
    /// What the workers of this kind said on their standard error, instead
    #[arg(long, value_name = "KIND", value_parser = JOB_KINDS, conflicts_with = "name")]
    worker: Option<String>,
    /// Go on with what is written from now on, until Ctrl-C or the end of the manager
    #[arg(short, long)]
    follow: bool,
    /// Newest lines to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    lines: usize,
    #[command(flatten)]
    place: Place,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command; only --follow needs a running manager.
pub fn logs(args: &LogsArgs) -> Outcome {
    let of = match &args.name {
        Some(name) => {
            let id = built(name).map_err(|sentence| Failure::usage(anyhow!(sentence)))?;
            Of(Some(id.0.to_owned()))
        }
        None => Of(None),
    };
    let dir = args.place.dir()?;
    if args.follow && !dir.is_locked() {
        return Err(nobody(&dir));
    }
    let file = args.worker.as_ref().map_or_else(|| dir.log(), |kind| dir.worker_log(kind));
    // Made before the old lines are read, so that none falls between the two.
    let follower = if args.follow { Some(Follower::new(&file, of.clone())?) } else { None };
    let show = |lines: Vec<LogLine>| {
        for line in lines {
            if args.json {
                console::say(&line.as_json().to_string());
            } else {
                console::say(line.as_text());
            }
        }
    };
    show(last(&file, &of, args.lines)?);
    let Some(mut follower) = follower else { return Ok(()) };
    loop {
        // Asked before the rest is read: its last words are read too.
        let ended = !dir.is_locked();
        show(follower.new_lines()?);
        if ended {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}

/// How much is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Failures only
    Error,
    /// What shows a fault
    Warn,
    /// Work that was done
    Info,
    /// Also that there was nothing to do
    Debug,
    /// Everything
    Trace,
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct LevelArgs {
    /// From now on, until the manager ends; without it the present level is shown
    level: Option<Level>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// Shows or changes the least level that the log takes.
pub fn level(args: &LevelArgs) -> Outcome {
    let level = args.level.map(|level| format!("{level:?}").to_lowercase());
    let answer = ask(&args.place.dir()?, &Request::LogLevel { level }, PATIENCE)?;
    if args.print.json {
        console::say_json(&answer)?;
    } else {
        console::say(answer["level"].as_str().unwrap_or_default());
    }
    Ok(())
}
