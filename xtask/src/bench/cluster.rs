//! `cluster`: the log on `JetStream` beside bare `async-nats`, on one server, in one run.

use std::process::ExitCode;

use crate::workspace::{Workspace, succeed};

/// Gets at most one word, the seconds of each row.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let seconds = match words {
        [] => "5",
        [seconds] if seconds.parse::<f64>().is_ok_and(|seconds| seconds > 0.0) => seconds,
        _ => {
            eprintln!("usage: cargo xtask bench cluster [SECONDS]");
            return Ok(ExitCode::from(2));
        }
    };
    let mut command = workspace.cargo(&["run", "--release", "--package", "courier"]);
    command.args(["--features", "jetstream", "--example", "cluster_bench", "--", seconds]);
    let ours = workspace.root().join("target/tools/nats/bin/nats-server");
    if std::env::var_os("NATS_SERVER").is_none() && ours.is_file() {
        command.env("NATS_SERVER", ours);
    }
    succeed(command)?;
    Ok(ExitCode::SUCCESS)
}
