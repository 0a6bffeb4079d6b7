//! `play`: a person on the terminal against a model.

use anyhow::anyhow;
use clap::Args;
use ringrift_player::PlayerSpec;

use super::table::{self, SeatArgs};
use crate::exit::{Failure, OrExit as _, Outcome};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// The model: a file, or an id of the data directory
    #[arg(long, value_name = "FILE|ID", required_unless_present = "against")]
    model: Option<String>,
    /// Its simulations per decision; 1 plays what its policy prefers
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "against")]
    simulations: u32,
    /// Any other player instead: random, heuristic, linear:FILE, rollout:SIMS, ...
    #[arg(long, value_name = "PLAYER", conflicts_with = "model")]
    against: Option<PlayerSpec>,
    #[command(flatten)]
    seat: SeatArgs,
}

/// Runs the command.
pub fn run(args: &PlayArgs) -> Outcome {
    let other = match (&args.against, &args.model) {
        (Some(player), _) => player.clone(),
        // Read as `match` would read it, so that the same numbers are allowed.
        (None, Some(model)) => format!("model:{model}@{}", args.simulations).parse().or_usage()?,
        (None, None) => return Err(Failure::usage(anyhow!("name a --model"))),
    };
    table::sit(&args.seat, &other)
}
