//! What the rules cost, for `cargo xtask bench rules`: prints one JSON object.
//! `cargo run --release -p ringrift-rules --example bench -- [SECONDS] [CONFIG]...`

#![expect(clippy::print_stdout, reason = "it is what the example is for")]
#![expect(clippy::disallowed_types, reason = "it measures real time, nothing waits for it")]

use std::time::{Duration, Instant};

use ringrift_rules::Config;
use ringrift_rules::bench::{CONFIGS, Cost, measure, signature};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(2.0, |n| n.parse().expect("a number of seconds"));
    let mut configs: Vec<Config> =
        arguments.map(|name| name.parse().expect("a configuration")).collect();
    if configs.is_empty() {
        configs = CONFIGS.to_vec();
    }
    let began = Instant::now();
    let clock = || began.elapsed();
    let costs: Vec<Cost> = configs
        .into_iter()
        .map(|config| measure(config, Duration::from_secs_f64(seconds), &clock))
        .collect();
    let signature = signature();
    println!("{}", serde_json::json!({ "signature": signature, "costs": costs }));
}
