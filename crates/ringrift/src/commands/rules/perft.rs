//! `rules perft`: numbers of move sequences, to compare engines by.

use clap::Args;
use ringrift_rules::{Config, Options, Placements, State, perft};
use serde_json::json;

use crate::{cli::Print, console, exit::Outcome};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct PerftArgs {
    /// Config of the game
    #[arg(long, value_name = "CONFIG")]
    config: Config,
    /// Moves of a sequence, bookkeeping moves included
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=30))]
    depth: u32,
    /// Show the count of each first move
    #[arg(long)]
    divide: bool,
    /// Place one ring at a time only
    #[arg(long)]
    single_ring: bool,
    /// The pie rule is on
    #[arg(long)]
    swap_rule: bool,
    #[command(flatten)]
    print: Print,
}

/// Runs the command.
pub fn run(args: &PerftArgs) -> Outcome {
    let placements = if args.single_ring { Placements::SingleRing } else { Placements::All };
    let options = Options { swap_rule: args.swap_rule, ..Options::default() };
    let start = State::new(args.config, options);
    let mut moves = Vec::new();
    if args.depth > 0 {
        start.legal_moves(&mut moves);
        moves.retain(|mv| placements.follows(mv));
    }
    let mut divided: Vec<(String, u64)> = Vec::new();
    let mut total = u64::from(args.depth == 0);
    for (done, mv) in moves.iter().enumerate() {
        let mut next = start.clone();
        next.apply_legal(mv);
        let count = perft(&next, args.depth - 1, placements);
        total += count;
        divided.push((start.notate(mv), count));
        if !args.print.json {
            console::status(&format!("{} of {} first moves, {total}", done + 1, moves.len()));
        }
    }
    divided.sort_unstable();
    console::status("");
    if args.print.json {
        let mut value = json!({ "config": args.config, "depth": args.depth, "count": total });
        if args.divide {
            value["divide"] = divided
                .into_iter()
                .map(|(mv, count)| (mv, count.into()))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        console::say_json(&value)?;
        return Ok(());
    }
    if args.divide {
        for (mv, count) in &divided {
            console::say(&format!("{mv}: {count}"));
        }
    }
    console::say(&format!("{}, depth {}: {total}", args.config, args.depth));
    Ok(())
}
