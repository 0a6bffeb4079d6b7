//! What the rules cost, for `cargo xtask bench rules`: prints one JSON object.
//! `cargo run --release -p ringrift-rules --example rules_bench -- [SECONDS] [CONFIG]...`

#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use std::time::Duration;

use ringrift_rules::Config;
use ringrift_rules::bench::{CONFIGS, Cost, measure, signature};
use rustix::time::{ClockId, clock_gettime};

/// Time of this thread on a processor: others on the machine cost it nothing.
fn clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("the clock starts at zero and goes on")
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(2.0, |n| n.parse().expect("a number of seconds"));
    let mut configs: Vec<Config> =
        arguments.map(|name| name.parse().expect("a configuration")).collect();
    if configs.is_empty() {
        configs = CONFIGS.to_vec();
    }
    let costs: Vec<Cost> = configs
        .into_iter()
        .map(|config| measure(config, Duration::from_secs_f64(seconds), &clock))
        .collect();
    let signature = signature();
    println!("{}", serde_json::json!({ "signature": signature, "costs": costs }));
}
