//! `rules`: the rules engine by itself, on files of vectors and games, on counts, on the terminal.

mod bench;
mod input;
mod perft;
mod play;
mod replay;
mod verify;

use clap::{Args, Subcommand};

use crate::exit::Outcome;

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Judge published vectors: per kind passed, failed, not applicable
    Verify(verify::VerifyArgs),
    /// Replay recorded games and compare every position
    Replay(replay::ReplayArgs),
    /// Count the sequences of moves from the first position
    Perft(perft::PerftArgs),
    /// Measure what the rules cost on one core of this machine
    Bench(bench::BenchArgs),
    /// Play on the terminal against random or a model
    Play(play::PlayArgs),
}

/// Runs the command.
pub fn run(args: &RulesArgs) -> Outcome {
    match &args.command {
        RulesCommand::Verify(args) => verify::run(args),
        RulesCommand::Replay(args) => replay::run(args),
        RulesCommand::Perft(args) => perft::run(args),
        RulesCommand::Bench(args) => bench::run(args),
        RulesCommand::Play(args) => play::run(args),
    }
}
