//! `bed`: several hosts on this machine with a loop over them, to look at until Ctrl-C.

use std::process::ExitCode;

use crate::workspace::{Workspace, succeed};

/// Builds what the long suite `cluster` runs, and runs its hosts without the tests. Gets nothing, or
/// `--hosts` and a number of hosts that have a manager.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let hosts = match words {
        [] => "5",
        ["--hosts", hosts] if hosts.parse().is_ok_and(|hosts: u8| (3..=40).contains(&hosts)) => {
            hosts
        }
        _ => {
            eprintln!("usage: cargo xtask bed [--hosts 3..40]");
            return Ok(ExitCode::from(2));
        }
    };
    let mut command =
        workspace.cargo(&["test", "--package", "ringrift", "--features", "cluster,long"]);
    command.args(["--test", "cluster", "--", "bed_by_hand", "--exact", "--ignored", "--nocapture"]);
    command.env("BED_HOSTS", hosts);
    succeed(command)?;
    Ok(ExitCode::SUCCESS)
}
