//! The commands' end of the socket.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use serde_json::Value;
use tokio::time::Instant;

use super::{Answer, Request};
use crate::{
    data_dir::DataDir,
    exit::{FAILED, Failure, NO_MANAGER},
};

/// Longest answer; a status of 89 daemons with their details has some hundred kilobytes.
const ANSWER_MAX: u64 = 64 << 20;

/// What is said where a manager is needed and none is running.
pub fn nobody(dir: &DataDir) -> Failure {
    let data = dir.root().display();
    Failure::new(NO_MANAGER, anyhow!("no manager is running on {data}; `ringrift up` starts one"))
}

/// What is said of one that has not begun yet.
fn begins(dir: &DataDir) -> Failure {
    let sentence = format!(
        "the manager on {} begins, or ends, and takes no orders meanwhile: {} says what it waits for; Ctrl-C or SIGTERM \
         ends it",
        dir.root().display(),
        dir.logs().join("daemons.log").display()
    );
    Failure::new(NO_MANAGER, anyhow!(sentence))
}

/// A manager that has taken the directory and has no socket yet, or no longer, is waited for.
fn connect(dir: &DataDir, limit: Duration) -> Result<UnixStream, Failure> {
    let began = Instant::now();
    loop {
        // Asked first: one that ends gives the socket up before the directory.
        let locked = dir.is_locked();
        if let Ok(path) = dir.socket() {
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(stream),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::ConnectionRefused
                    ) => {}
                Err(error) => {
                    return Err(anyhow!(error).context(format!("reach {}", path.display())).into());
                }
            }
        }
        if !locked {
            return Err(nobody(dir));
        }
        if began.elapsed() > limit {
            return Err(begins(dir));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Asks the manager of a data directory and waits for its answer.
///
/// # Errors
/// Exit code 3 if none is running.
pub fn ask(dir: &DataDir, request: &Request, limit: Duration) -> Result<Value, Failure> {
    let stream = connect(dir, limit)?;
    let mut answer = String::new();
    let mut talk = || -> anyhow::Result<()> {
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        writeln!(&stream, "{}", serde_json::to_string(request)?)?;
        BufReader::new(&stream).take(ANSWER_MAX).read_line(&mut answer)?;
        Ok(())
    };
    talk().context("talk to the manager")?;
    if answer.is_empty() {
        return Err(anyhow!("the manager ended before it answered").into());
    }
    match serde_json::from_str(&answer).context("read the manager's answer")? {
        Answer::Ok(value) => Ok(value),
        Answer::Refused(sentence) => Err(Failure::usage(anyhow!(sentence))),
        Answer::Failed(sentence) => Err(Failure::new(FAILED, anyhow!(sentence))),
    }
}
