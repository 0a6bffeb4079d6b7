//! `status`: what the running manager says of its daemons.

use std::{thread, time::Duration};

use clap::Args;
use serde_json::Value;

use crate::{
    cli::{Place, Print},
    console,
    control::{Request, ask, status},
    data_dir::DataDir,
    exit::{NO_MANAGER, Outcome},
};

/// A manager that is too busy to answer for so long is in trouble itself.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
    /// Print again and again, until Ctrl-C or the end of the manager
    #[arg(long)]
    watch: bool,
    /// Seconds between two prints of --watch
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// How a status is printed.
#[derive(Clone, Copy)]
pub enum Shape {
    /// The runbook's lines.
    Text,
    /// JSON, made of the manager's answer.
    Json(fn(&Value) -> Value),
}

/// Runs the command.
pub fn run(args: &StatusArgs) -> Outcome {
    let dir = args.place.dir()?;
    let shape = if args.print.json { Shape::Json(Value::clone) } else { Shape::Text };
    if args.watch {
        watch(&dir, shape, Duration::from_secs(args.interval), None)
    } else {
        once(&dir, shape)
    }
}

/// Prints the status.
pub fn once(dir: &DataDir, shape: Shape) -> Outcome {
    let answer = ask(dir, &Request::Status, PATIENCE)?;
    match shape {
        Shape::Text => console::say(&status::text(&answer)),
        Shape::Json(of) => console::say_json(&of(&answer))?,
    }
    Ok(())
}

/// Prints it again and again, until the manager has ended; `foot` stands below.
///
/// On a terminal only what somebody asked for: 89 lines do not fit, and the last ones stand still.
pub fn watch(dir: &DataDir, shape: Shape, every: Duration, foot: Option<&str>) -> Outcome {
    let mut answer = ask(dir, &Request::Status, PATIENCE)?;
    loop {
        match shape {
            Shape::Text => {
                if console::is_terminal() {
                    console::say("\x1b[2J\x1b[H");
                    console::say(&status::short_text(&answer));
                } else {
                    console::say(&status::text(&answer));
                }
                foot.into_iter().for_each(console::say);
            }
            // One value a line when there are many, so that they can be told apart.
            Shape::Json(of) => console::say(&of(&answer).to_string()),
        }
        thread::sleep(every);
        answer = match ask(dir, &Request::Status, PATIENCE) {
            Ok(answer) => answer,
            Err(failure) if failure.code == NO_MANAGER => return Ok(()),
            Err(failure) => return Err(failure),
        };
    }
}
