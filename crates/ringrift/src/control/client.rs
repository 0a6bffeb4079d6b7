//! The commands' end of the socket.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use serde_json::Value;

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

/// Asks the manager of a data directory and waits for its answer.
///
/// # Errors
/// Exit code 3 if none is running.
pub fn ask(dir: &DataDir, request: &Request, limit: Duration) -> Result<Value, Failure> {
    let Ok(path) = dir.socket() else { return Err(nobody(dir)) };
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Err(nobody(dir));
        }
        Err(error) => {
            return Err(anyhow!(error).context(format!("reach {}", path.display())).into());
        }
    };
    let mut answer = String::new();
    let mut talk = || -> anyhow::Result<()> {
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        writeln!(&stream, "{}", serde_json::to_string(request)?)?;
        BufReader::new(&stream).take(ANSWER_MAX).read_line(&mut answer)?;
        Ok(())
    };
    talk().with_context(|| format!("talk to the manager at {}", path.display()))?;
    if answer.is_empty() {
        return Err(anyhow!("the manager ended before it answered").into());
    }
    match serde_json::from_str(&answer).context("read the manager's answer")? {
        Answer::Ok(value) => Ok(value),
        Answer::Refused(sentence) => Err(Failure::usage(anyhow!(sentence))),
        Answer::Failed(sentence) => Err(Failure::new(FAILED, anyhow!(sentence))),
    }
}
