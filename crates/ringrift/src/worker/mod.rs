//! `ringrift worker`: the built-in end of the worker contract.
//!
//! The job is the first line of standard input, which then stays open: its end means that the
//! manager died, and this process leaves at once. Standard output carries JSON lines only; what
//! people should know goes to standard error. SIGTERM means: finish the unit in hand, hand over what
//! is complete, leave.

mod jobs;
mod learning;
mod line;
mod meter;
mod pulse;

use std::io::{self, BufRead as _, Read as _};

use anyhow::{Context as _, anyhow, bail, ensure};
use ringrift_pipeline::{WORKER_CONTRACT, WorkerJob};

use crate::exit::{FAILED, Failure, NEVER_AGAIN, Outcome, TRY_AGAIN};

/// Longest job, bytes: a line of the contract is at most that long in either direction.
const JOB_MAX: u64 = 16 << 20;

/// Does one job.
///
/// Exit codes: 0 done, 75 try again, 125 never again, 1 failed.
pub fn run() -> Outcome {
    let job = read_job().map_err(|error| Failure::new(NEVER_AGAIN, error))?;
    let pulse = pulse::Pulse::start()?;
    jobs::run(&job, pulse).map_err(|error| {
        let code = if is_bad_input(&error) {
            NEVER_AGAIN
        } else if is_obstacle(&error) {
            TRY_AGAIN
        } else {
            FAILED
        };
        Failure::new(code, error)
    })
}

fn read_job() -> anyhow::Result<WorkerJob> {
    let mut line = String::new();
    io::stdin().lock().take(JOB_MAX).read_line(&mut line).context("read the job")?;
    ensure!(line.ends_with('\n'), "the job is not one line of at most {JOB_MAX} bytes");
    // The version first: the rest of another version's job may well not be readable.
    let raw: serde_json::Value = serde_json::from_str(&line).context("read the job")?;
    let contract = raw.get("contract").and_then(serde_json::Value::as_u64);
    if contract != Some(u64::from(WORKER_CONTRACT)) {
        let found = contract.map_or("none".to_owned(), |version| version.to_string());
        bail!(
            "the job follows version {found} of the worker contract, this worker {WORKER_CONTRACT}"
        );
    }
    let job: WorkerJob = serde_json::from_value(raw).context("read the job")?;
    ensure!(job.dir.is_dir(), "the folder {} is not there", job.dir.display());
    Ok(job)
}

/// The job itself is wrong: doing it again would end the same way.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadInput(String);

fn bad_input(sentence: impl Into<String>) -> anyhow::Error {
    anyhow!(BadInput(sentence.into()))
}

fn is_bad_input(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error>::is::<BadInput>)
}

/// Something is in the way that is not the job's fault.
fn is_obstacle(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::OutOfMemory
                | io::ErrorKind::ResourceBusy
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_obstacle_and_a_wrong_input_is_final() {
        let full = anyhow!(io::Error::from(io::ErrorKind::StorageFull)).context("write games");
        assert!(is_obstacle(&full) && !is_bad_input(&full));
        let wrong = bad_input("no such file").context("train");
        assert!(is_bad_input(&wrong) && !is_obstacle(&wrong));
        let other = anyhow!(io::Error::from(io::ErrorKind::InvalidData)).context("read games");
        assert!(!is_obstacle(&other) && !is_bad_input(&other));
    }
}
