//! Standard output: lines of the contract, whole, from any thread.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use ringrift_pipeline::{Artefact, BlobHash, WorkerLine};
use serde::Serialize;

/// Whether the report is said; it is the last line, so the pulse that still beats then goes unheard.
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Says one line.
///
/// # Errors
/// Nobody listens any more.
pub fn say(line: &WorkerLine) -> anyhow::Result<()> {
    let text = serde_json::to_string(line).context("write a line of the contract")?;
    // The lock orders the lines: whoever comes after the report finds it said.
    let mut out = io::stdout().lock();
    if REPORTED.load(Ordering::Relaxed) {
        return Ok(());
    }
    REPORTED.store(matches!(line, WorkerLine::Result { .. }), Ordering::Relaxed);
    writeln!(out, "{text}").and_then(|()| out.flush()).context("tell the manager")
}

/// Hands a finished file of the job's folder over.
pub fn hand_over(dir: &Path, role: &str, file: &str) -> anyhow::Result<()> {
    let mut opened = fs_err::File::open(dir.join(file))?;
    let (hash, bytes) = depot::Hash::of_reader(&mut opened, |_| Ok(()))?;
    say(&WorkerLine::Artefact(Artefact {
        role: role.to_owned(),
        file: file.to_owned(),
        hash: BlobHash(hash.to_string()),
        bytes,
    }))
}

/// Says the report, the last line.
pub fn report(report: &impl Serialize) -> anyhow::Result<()> {
    let report = serde_json::to_value(report).context("write the report")?;
    say(&WorkerLine::Result { report })
}
