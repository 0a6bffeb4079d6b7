//! Benches: our figures beside those of others, measured in one run.

mod cluster;
mod latency;
mod learn;
mod manager;
mod rules;
mod torch;

use std::process::ExitCode;

use crate::workspace::Workspace;

/// Gets the words after its name, and gives what this program exits with.
type Bench = fn(&Workspace, &[&str]) -> anyhow::Result<ExitCode>;

const BENCHES: &[(&str, Bench)] = &[
    ("cluster", cluster::run),
    ("latency", latency::run),
    ("learn", learn::run),
    ("manager", manager::run),
    ("rules", rules::run),
];

/// Runs the bench that the first word names; exit code 2 without such a bench.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
    let known = known.join(", ");
    let Some((name, words)) = words.split_first() else {
        eprintln!("which bench? there are: {known}");
        return Ok(ExitCode::from(2));
    };
    let Some((_, bench)) = BENCHES.iter().find(|(known, _)| known == name) else {
        eprintln!("no bench `{name}`; there are: {known}");
        return Ok(ExitCode::from(2));
    };
    bench(workspace, words)
}
