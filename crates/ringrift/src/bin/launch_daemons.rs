//! `launch_daemons`: the runbook's command for the same manager.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringrift::launch_daemons()
}
