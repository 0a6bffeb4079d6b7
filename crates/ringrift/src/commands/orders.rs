//! What an operator tells a running manager: start, stop, restart, retry, pause, resume.
//!
//! Names are judged before the manager is asked, so that nothing of a wrong request is done.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use ringrift_daemons::in_start_order;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::status::PATIENCE;
use crate::{
    cli::{Place, Print},
    console,
    control::{Request, Selection, ask},
    data_dir::DataDir,
    exit::{FAILED, Failure, Outcome},
    plan::{Wanted, built},
};

/// Levels times their 30 s, and some more: after that something is wrong.
const LONGEST_STOP: Duration = Duration::from_mins(10);
/// One daemon may take all of its 30 s to stop.
const ONE_STOP: Duration = Duration::from_mins(2);

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Daemons to start, in upper or lower case
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Start those of a profile that are built and enabled
    #[arg(long, value_name = "PROFILE", conflicts_with_all = ["names", "all"])]
    profile: Option<String>,
    /// Start all that are built and enabled
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Stop these daemons only; without a name the manager and all it runs
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct OneArgs {
    /// The daemon, in upper or lower case
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct RetryArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Forget its crashes, and try also what lacked something on this machine
    #[arg(long)]
    force: bool,
}

/// Brings daemons into motion; does not wait until they are ready.
pub fn start(args: &StartArgs) -> Outcome {
    let selection = match &args.profile {
        _ if args.all => Selection::All,
        Some(profile) => Selection::Profile(profile.clone()),
        None if args.names.is_empty() => {
            return Err(refused("nothing is named: say NAME.., --profile PROFILE or --all".into()));
        }
        None => Selection::Daemons(args.names.clone()),
    };
    start_all(&args.place.dir()?, vec![selection], args.print)
}

/// Asks for several selections at once; one that is wrong refuses all.
pub fn start_all(dir: &DataDir, selections: Vec<Selection>, print: Print) -> Outcome {
    Wanted::of(&selections).map_err(refused)?;
    let mut answers = Vec::new();
    for selection in selections {
        answers.push(ask(dir, &Request::Start(selection), PATIENCE)?);
    }
    let of = |key: &str| -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        for value in answers.iter().filter_map(|answer| answer[key].as_array()).flatten() {
            if !all.contains(value) {
                all.push(value.clone());
            }
        }
        all
    };
    let started = of("started");
    let mut running = of("running_already");
    running.retain(|name| !started.contains(name));
    let missing = of("missing");
    if print.json {
        console::say_json(&json!({
            "started": started, "running_already": running, "added": of("added"),
            "skipped": of("skipped"), "disabled": of("disabled"), "missing": missing,
            "warnings": of("warnings"),
        }))?;
    } else {
        for warning in of("warnings") {
            console::complain(&format!("warning: {}", text(&warning)));
        }
        let added = of("added");
        for name in &started {
            let why =
                if added.contains(name) { ", which others need or every node has" } else { "" };
            console::say(&format!("{} is started{why}", text(name)));
        }
        for name in running.iter().filter(|name| !added.contains(name)) {
            console::say(&format!("{} is running already", text(name)));
        }
        left_out("they are not built yet", &of("skipped"));
        left_out("the configuration switches them off", &of("disabled"));
        for lack in &missing {
            console::complain(&format!("error: {}", lacks(lack)));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Failure::told(FAILED)) }
}

fn left_out(why: &str, names: &[Value]) {
    if !names.is_empty() {
        let names: Vec<&str> = names.iter().map(text).collect();
        console::complain(&format!("warning: left out because {why}: {}", names.join(", ")));
    }
}

fn lacks(lack: &Value) -> String {
    format!(
        "{} lacks {}; when it is there: `ringrift retry {0} --force`",
        text(&lack["name"]),
        text(&lack["missing"])
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns when what was to stop has stopped.
pub fn stop(args: &StopArgs) -> Outcome {
    stop_in(&args.place.dir()?, &args.names, args.print)
}

/// Stops these, or everything if none is named.
pub fn stop_in(dir: &DataDir, names: &[String], print: Print) -> Outcome {
    if names.is_empty() {
        return stop_manager(dir, print);
    }
    let mut ids =
        names.iter().map(|name| built(name)).collect::<Result<Vec<_>, _>>().map_err(refused)?;
    // Whoever needs another one stops before it.
    let order: Vec<_> = in_start_order().iter().map(|(_, entry)| entry.spec.id).collect();
    ids.sort_by_key(|id| std::cmp::Reverse(order.iter().position(|known| known == id)));
    ids.dedup();
    for id in &ids {
        ask(dir, &Request::Stop { daemon: Some(id.0.to_owned()) }, ONE_STOP)?;
        if !print.json {
            console::say(&format!("{id} is stopped"));
        }
    }
    if print.json {
        console::say_json(&json!({ "stopped": ids }))?;
    }
    Ok(())
}

fn stop_manager(dir: &DataDir, print: Print) -> Outcome {
    let answer = ask(dir, &Request::Stop { daemon: None }, PATIENCE)?;
    let began = Instant::now();
    while dir.is_locked() {
        if began.elapsed() > LONGEST_STOP {
            return Err(Failure::new(FAILED, anyhow!("the manager still runs after 10 minutes")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if print.json {
        console::say_json(&answer)?;
    } else {
        console::say("stopped");
    }
    Ok(())
}

/// Ends one in good order and starts a fresh one.
pub fn restart(args: &OneArgs) -> Outcome {
    one(args, "restarted", |daemon| Request::Restart { daemon })
}

/// Tries one at once that was given up or waits for its next try.
pub fn retry(args: &RetryArgs) -> Outcome {
    one(&args.one, "retried", |daemon| Request::Retry { daemon, force: args.force })
}

/// Lets one begin no new cycle.
pub fn pause(args: &OneArgs) -> Outcome {
    one(args, "paused", |daemon| Request::Pause { daemon })
}

/// Takes the operator's pause back.
pub fn resume(args: &OneArgs) -> Outcome {
    one(args, "resumed", |daemon| Request::Resume { daemon })
}

fn one(args: &OneArgs, done: &str, request: impl FnOnce(String) -> Request) -> Outcome {
    let id = built(&args.name).map_err(refused)?;
    let dir = args.place.dir()?;
    let answer = ask(&dir, &request(id.0.to_owned()), ONE_STOP)?;
    let left = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let (own, of_needs): (Vec<Value>, Vec<Value>) =
        left("missing").into_iter().partition(|lack| text(&lack["name"]) == id.0);
    if args.print.json {
        console::say_json(&answer)?;
    } else {
        if own.is_empty() {
            console::say(&format!("{id} is {done}"));
        }
        for need in left("failed").iter().map(text) {
            console::complain(&format!(
                "warning: it waits for {need}, which was given up and is left so; \
                 `ringrift health {need}` says why, `ringrift retry {need}` tries it"
            ));
        }
        for lack in &of_needs {
            console::complain(&format!("warning: it waits for a daemon: {}", lacks(lack)));
        }
        for lack in &own {
            console::complain(&format!("error: {}", lacks(lack)));
        }
    }
    if own.is_empty() { Ok(()) } else { Err(Failure::told(FAILED)) }
}

fn refused(sentence: String) -> Failure {
    Failure::usage(anyhow!(sentence))
}
