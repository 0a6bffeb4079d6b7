//! Programs of others, run with an end in time, an end of what they say, and nothing left behind.
//!
//! A command is a list of arguments, never a line for a shell. Secrets do not belong into arguments,
//! which every user of the machine sees: a program takes them from its own files or its environment.

use std::{io, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::timeout,
};
use tracing::debug;

/// What somebody whom the program started still says after its end is waited for so long.
const LINGER: Duration = Duration::from_secs(1);
/// A program that was ended by force is waited for so long; one that the kernel holds ends later.
const REAP: Duration = Duration::from_secs(5);
/// Most characters of what a program said that an error quotes.
const QUOTED: usize = 200;

/// How long a program may take, and how much it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From its start to its end.
    pub time: Duration,
    /// Bytes kept of each of its two outputs; what comes after them is read and dropped.
    pub output: usize,
}

impl Limits {
    /// The usual ones, with this time.
    pub const fn of(time: Duration) -> Self {
        Self { time, output: 1 << 20 }
    }
}

/// What a program said that ended well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// It said more than was kept.
    pub cut: bool,
}

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The list of arguments is empty.
    #[error("no program is named")]
    Nothing,
    /// An argument cannot be told to the shell of another machine.
    #[error("an argument of {program} cannot be quoted: {what}")]
    Unquotable {
        /// The program.
        program: String,
        /// Why.
        what: String,
    },
    /// It could not be started.
    #[error("start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It was not done in time, and was ended with all that it had started. What it did up to then is
    /// done.
    #[error("{program} was not done within {} s and was ended", .limit.as_secs_f64())]
    Late {
        /// The program.
        program: String,
        /// The time that it had.
        limit: Duration,
    },
    /// The machine that it should have run on was not reached: nothing was done there.
    #[error("{destination} cannot be reached: {said}")]
    Unreachable {
        /// The machine.
        destination: String,
        /// What was said.
        said: String,
    },
    /// It ended with another code than 0.
    #[error("{program} ended with {how}{}", quoted(.said))]
    Failed {
        /// The program.
        program: String,
        /// Its exit code, or the signal that ended it.
        how: String,
        /// The last line that it said.
        said: String,
    },
    /// Its end could not be waited for.
    #[error("wait for {program}: {source}")]
    Lost {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Runs a program to its end, with nothing on its standard input.
///
/// It has a process group of its own. If its time is over, or nobody waits for it any more, the whole
/// group is ended by force. What it leaves behind when it ends by itself is left alone: a command that
/// starts a service has done its work then.
///
/// # Errors
/// [`RunError`]; only a program that ended with 0 is none.
pub async fn run(command: &[String], limits: Limits) -> Result<Output, RunError> {
    let Some((name, arguments)) = command.split_first() else { return Err(RunError::Nothing) };
    let program = || name.clone();
    let child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| RunError::Start { program: program(), source })?;
    let mut ours = Ours(child);
    let (stdout, stderr) = (ours.0.stdout.take(), ours.0.stderr.take());
    let (mut said, mut complained) = (Kept::new(limits.output), Kept::new(limits.output));
    let ended = {
        let reading = async { tokio::join!(said.all_of(stdout), complained.all_of(stderr)) };
        tokio::pin!(reading);
        let whole = async {
            tokio::select! {
                // It may close its outputs long before it ends.
                _ = &mut reading => ours.0.wait().await,
                status = ours.0.wait() => {
                    // Somebody whom it started may hold its outputs open for ever.
                    drop(timeout(LINGER, &mut reading).await);
                    status
                }
            }
        };
        timeout(limits.time, whole).await
    };
    let Ok(status) = ended else {
        ours.end().await;
        return Err(RunError::Late { program: program(), limit: limits.time });
    };
    let status = status.map_err(|source| RunError::Lost { program: program(), source })?;
    if status.success() {
        let cut = said.cut || complained.cut;
        return Ok(Output { stdout: said.bytes, stderr: complained.bytes, cut });
    }
    let last = last_line(&complained.bytes).or_else(|| last_line(&said.bytes));
    let how = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
    Err(RunError::Failed { program: program(), how, said: last.unwrap_or_default() })
}

/// A program whose group ends with this.
struct Ours(Child);

impl Ours {
    fn kill(&mut self) {
        // Without an id it was waited for already, and its number may be another's by now.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = id
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            debug!(%error, "a process group could not be ended");
        }
    }

    /// Ends it by force and waits for its end.
    async fn end(&mut self) {
        self.kill();
        if timeout(REAP, self.0.wait()).await.is_err() {
            debug!("a program that was ended by force is still there");
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The beginning of what a program says.
struct Kept {
    bytes: Vec<u8>,
    most: usize,
    cut: bool,
}

impl Kept {
    fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, cut: false }
    }

    /// Reads to the end, or to the first fault: what a program says is not what it does.
    async fn all_of(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut piece = vec![0_u8; 16 << 10];
        while let Ok(read @ 1..) = pipe.read(&mut piece).await {
            let room = (self.most - self.bytes.len()).min(read);
            self.bytes.extend_from_slice(&piece[..room]);
            self.cut |= room < read;
        }
    }
}

/// The last line with anything in it, fit to be quoted in a sentence.
pub(crate) fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(quotable(line))
}

/// A piece of what somebody said, on one line, of bounded length.
pub(crate) fn quotable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(QUOTED).map(plain).collect()
}
