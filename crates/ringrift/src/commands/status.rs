//! `status`: what the running manager says of its daemons.

use std::time::Duration;

use clap::Args;

use crate::{
    cli::{Place, Print},
    console,
    control::{Request, ask, status},
    exit::Outcome,
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

/// Runs the command.
pub fn run(args: &StatusArgs) -> Outcome {
    let dir = args.place.dir()?;
    loop {
        let answer = ask(&dir, &Request::Status, PATIENCE)?;
        if args.print.json {
            // One value a line when there are many, so that they can be told apart.
            if args.watch {
                console::say(&answer.to_string());
            } else {
                console::say_json(&answer)?;
            }
        } else {
            if args.watch && console::is_terminal() {
                console::say("\x1b[2J\x1b[H");
            }
            console::say(&status::text(&answer));
        }
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(args.interval));
    }
}
