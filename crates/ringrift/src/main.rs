//! `ringrift`: keeps a self-play training pipeline running unattended.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringrift::main()
}
