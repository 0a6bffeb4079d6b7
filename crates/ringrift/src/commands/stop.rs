//! `stop`: the manager and all it runs, or one daemon.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use ringrift_daemons::{Found, find};
use tokio::time::Instant;

use super::status::PATIENCE;
use crate::{
    cli::{Place, Print},
    console,
    control::{Request, ask},
    exit::{FAILED, Failure, OrExit as _, Outcome},
};

/// Levels times their 30 s, and some more: after that something is wrong.
const LONGEST_STOP: Duration = Duration::from_mins(10);

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Stop this daemon only
    daemon: Option<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// Runs the command: it returns when what was to stop has stopped.
pub fn run(args: &StopArgs) -> Outcome {
    let dir = args.place.dir()?;
    let daemon = match &args.daemon {
        Some(name) => Some(known(name)?),
        None => None,
    };
    let one = daemon.is_some();
    // A daemon may take all of its 30 s.
    let limit = if one { Duration::from_mins(2) } else { PATIENCE };
    let answer = ask(&dir, &Request::Stop { daemon }, limit)?;
    if !one {
        let began = Instant::now();
        while dir.is_locked() {
            if began.elapsed() > LONGEST_STOP {
                return Err(Failure::new(
                    FAILED,
                    anyhow!("the manager still runs after 10 minutes"),
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    if args.print.json {
        console::say_json(&answer)?;
    } else {
        console::say(
            &answer["stopped"]
                .as_str()
                .map_or_else(|| "stopped".to_owned(), |name| format!("{name} is stopped")),
        );
    }
    Ok(())
}

fn known(name: &str) -> Result<String, Failure> {
    match find(name).or_usage()? {
        Found::Active(_, entry) => Ok(entry.spec.id.0.to_owned()),
        Found::Retired(retired) => Err(Failure::usage(anyhow!(
            "{} is retired and never runs: {}",
            retired.name,
            retired.sentence
        ))),
    }
}
