//! What a log on `JetStream` costs, beside what its servers cost without us.
//!
//! `cargo run --release -p courier --features jetstream --example cluster_bench -- WHAT [SECONDS]` prints one JSON object.
//! The servers are the program named by `NATS_SERVER`, or `nats-server` in `PATH`: children with stores in the
//! current folder, alone. WHAT is `appends`, `growth` or `failover`; see the modules.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

mod appends;
mod failover;
mod growth;
mod servers;

use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_else(|| "appends".to_owned());
    let seconds = words.next().map(|text| text.parse()).transpose()?;
    let time = |default: f64| Duration::try_from_secs_f64(seconds.unwrap_or(default));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = match what.as_str() {
        "appends" => runtime.block_on(appends::figures(time(5.0)?))?,
        "growth" => runtime.block_on(growth::figures(time(30.0)?))?,
        "failover" => runtime.block_on(failover::figures())?,
        other => return Err(format!("no {other:?}: appends, growth or failover").into()),
    };
    println!("{figures:#}");
    Ok(())
}
