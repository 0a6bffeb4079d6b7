//! `rules bench`: what the rules cost on this machine, on one core.

use std::time::Duration;

use clap::Args;
use ringrift_rules::{
    Config,
    bench::{CONFIGS, measure, signature},
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::{cli::Print, console, exit::Outcome};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Only this config of the game [default: all with 2 and 4 players]
    #[arg(long, value_name = "CONFIG")]
    config: Option<Config>,
    /// Seconds of processor time for each config
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    #[command(flatten)]
    print: Print,
}

/// Time of this thread on a processor: others on the machine cost it nothing.
fn clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> Outcome {
    let configs = args.config.map_or_else(|| CONFIGS.to_vec(), |config| vec![config]);
    let mut costs = Vec::new();
    for config in configs {
        if !args.print.json {
            console::status(&format!("{config}: {} s", args.seconds));
        }
        costs.push(measure(config, Duration::from_secs(args.seconds), &clock));
    }
    let signature = signature();
    console::status("");
    if args.print.json {
        console::say_json(&json!({ "signature": signature, "costs": costs }))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = costs
        .iter()
        .map(|cost| {
            vec![
                cost.config.to_string(),
                format!("{:>10.1}", cost.games_per_second),
                format!("{:>10.0}", cost.moves_per_second),
                format!("{:>10.0}", cost.sampled_moves_per_second),
                format!("{:>8.0}", cost.list_ns),
                format!("{:>8.0}", cost.apply_ns),
                format!("{:>8.0}", cost.copy_ns),
                format!("{:>9.0}", cost.sample_ns),
            ]
        })
        .collect();
    console::table(
        &[
            "config",
            "games/s",
            "moves/s",
            "sampled/s",
            "list ns",
            "apply ns",
            "copy ns",
            "sample ns",
        ],
        &rows,
    );
    for cost in &costs {
        let (config, longest, bound) = (cost.config, cost.longest, cost.bound);
        console::say(&format!("{config}: longest game {longest} moves, none exceeds {bound}"));
    }
    console::say(&format!("bench signature: {signature}"));
    Ok(())
}
