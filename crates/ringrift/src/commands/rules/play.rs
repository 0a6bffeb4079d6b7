//! `rules play`: a person on the terminal, by default against random.

use clap::Args;
use ringrift_player::PlayerSpec;

use super::super::table::{self, SeatArgs};
use crate::exit::Outcome;

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// Who plays the other seats: random, heuristic, linear:FILE, rollout:SIMS or model:FILE@SIMS, where an id of the data directory will do for FILE
    #[arg(long, value_name = "PLAYER", default_value = "random")]
    against: PlayerSpec,
    #[command(flatten)]
    seat: SeatArgs,
}

/// Runs the command.
pub fn run(args: &PlayArgs) -> Outcome {
    table::sit(&args.seat, &args.against)
}
