//! The watch over one worker: its limits, its lines, its end.

use std::{
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, unix::AsyncFd},
    net::unix::pipe,
    sync::{mpsc, oneshot, watch as slot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Cause, Exit, LINE_MAX_BYTES, Limits, WorkerEnd, WorkerLine, birth::Child, log, process,
};

/// Longest wait for a pipe to close after the group was killed; only a process that left the
/// group on purpose can hold it open.
const PIPES: Duration = Duration::from_secs(1);

/// A process group of ours; killed when this is dropped.
#[derive(Debug)]
pub(super) struct Group(Option<u32>);

impl Group {
    pub(super) fn new(leader: u32) -> Self {
        Self(Some(leader))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            process::signal_group(group, signal);
        }
    }

    /// Kills what is left. Must come before the leader is reaped: until then its number is ours.
    fn end(&mut self) {
        self.signal(Signal::KILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Our ends of the pipes of a worker.
pub(super) struct Pipes {
    pub(super) stdin: pipe::Sender,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

pub(super) struct Watch {
    /// Before `child`: dropped first, so the group dies while the leader's number is ours.
    pub(super) group: Group,
    pub(super) child: Child,
    pub(super) pid: u32,
    /// Readable when the leader has ended; it is not reaped by that.
    pub(super) exit: AsyncFd<OwnedFd>,
    pub(super) job: String,
    pub(super) limits: Limits,
    pub(super) started: Instant,
    pub(super) lines: mpsc::Sender<WorkerLine>,
    pub(super) log: log::Shared,
    pub(super) pen: log::Pen,
    pub(super) memory: slot::Receiver<u64>,
    pub(super) terminate: CancellationToken,
    pub(super) abandoned: CancellationToken,
}

impl Watch {
    pub(super) async fn until_ended(mut self, pipes: Pipes) -> WorkerEnd {
        let ear = Arc::new(Ear::default());
        let ended = CancellationToken::new();
        let Pipes { stdin, stdout, stderr } = pipes;
        let mut pipes = JoinSet::new();
        pipes.spawn(hand_over(stdin, std::mem::take(&mut self.job), ended.clone()));
        pipes.spawn(listen(stdout, self.lines.clone(), ear.clone(), self.started, ended.clone()));
        let (last, mut last_words) = oneshot::channel();
        let copy = log::copy(self.pid, stderr, self.log.clone(), self.pen.clone());
        pipes.spawn(async move {
            // Nobody waits any more: a stranger held the pipe open for too long.
            drop(last.send(copy.await));
        });
        let (asked, peak_memory) = self.until_leader_ended(&ear).await;
        self.group.end();
        let status = self.child.reap().await;
        let duration = self.started.elapsed();
        ended.cancel();
        let last_words =
            timeout(PIPES, &mut last_words).await.ok().and_then(Result::ok).unwrap_or_default();
        let exit = match status {
            Ok(status) => judge(status, asked),
            Err(error) => {
                tracing::error!(%error, "end of a worker not known");
                Exit::Failed(-1)
            }
        };
        // The owner may still be reading lines that lie in the queue or in the pipe.
        pipes.detach_all();
        WorkerEnd { exit, asked, last_words, duration, peak_memory }
    }

    /// Gives why it was asked to end, if it was, and the most memory seen.
    async fn until_leader_ended(&mut self, ear: &Ear) -> (Option<Cause>, u64) {
        let mut asked: Option<(Cause, Instant)> = None;
        let mut killed = false;
        let mut peak = 0;
        let too_long = self.limits.run.map(|run| self.started + run);
        loop {
            let waiting = asked.is_none();
            let silent_at = ear.last_line(self.started) + self.limits.beat;
            let cause = tokio::select! {
                biased;
                // An error cannot come from a pidfd; if it did, waiting to reap the child is right.
                _ = self.exit.readable() => break,
                () = self.abandoned.cancelled(), if !killed => {
                    asked.get_or_insert((Cause::Stopped, Instant::now()));
                    killed = true;
                    self.group.signal(Signal::KILL);
                    continue;
                }
                () = at(asked.map(|(_, kill_at)| kill_at)), if !killed => {
                    killed = true;
                    self.group.signal(Signal::KILL);
                    continue;
                }
                Ok(()) = self.memory.changed() => {
                    let bytes = *self.memory.borrow_and_update();
                    peak = peak.max(bytes);
                    if !killed && self.limits.memory.is_some_and(|limit| bytes > limit) {
                        // No grace: what eats memory may take the machine down within it.
                        killed = true;
                        asked = Some((Cause::Memory, Instant::now()));
                        self.group.signal(Signal::KILL);
                    }
                    continue;
                }
                () = self.terminate.cancelled(), if waiting => Cause::Stopped,
                () = at(too_long), if waiting => Cause::TooLong,
                () = sleep_until(silent_at), if waiting => {
                    if !ear.is_silent(silent_at, self.started, self.limits.beat) {
                        continue;
                    }
                    Cause::Silence
                }
            };
            asked = Some((cause, Instant::now() + self.limits.grace));
            self.group.signal(Signal::TERM);
        }
        (asked.map(|(cause, _)| cause), peak)
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn judge(status: ExitStatus, asked: Option<Cause>) -> Exit {
    match (status.code(), status.signal(), asked) {
        (Some(0), _, _) => Exit::Done,
        (Some(75), _, _) => Exit::TryAgain,
        (Some(125), _, _) => Exit::NeverAgain,
        // 128 + signal is how shells and interpreters report the death that we asked for.
        (Some(137 | 143) | None, _, Some(cause)) => Exit::KilledFor(cause),
        (Some(code), _, _) => Exit::Failed(code),
        (None, Some(signal), None) => Exit::Signal(signal),
        (None, None, None) => Exit::Failed(-1),
    }
}

/// When the worker was last heard.
#[derive(Debug, Default)]
struct Ear {
    /// Milliseconds after the start.
    last: AtomicU64,
    /// We hold a line that our own reader does not take, so we are deaf.
    busy: AtomicBool,
}

impl Ear {
    fn hear(&self, started: Instant) {
        let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Release);
    }

    fn last_line(&self, started: Instant) -> Instant {
        started + Duration::from_millis(self.last.load(Ordering::Acquire))
    }

    fn is_silent(&self, silent_at: Instant, started: Instant, beat: Duration) -> bool {
        if self.busy.load(Ordering::Acquire) {
            self.hear(started);
        }
        self.last_line(started) + beat <= silent_at
    }
}

/// Writes the job and holds the pipe open: its end of file means that we are dead.
async fn hand_over(mut stdin: pipe::Sender, job: String, ended: CancellationToken) {
    let write = async {
        stdin.write_all(job.as_bytes()).await?;
        stdin.write_all(b"\n").await?;
        stdin.flush().await
    };
    tokio::select! {
        () = ended.cancelled() => {}
        written = write => match written {
            Ok(()) => ended.cancelled().await,
            // It closed its input or died; its exit says more than we could.
            Err(error) => tracing::debug!(%error, "job not read to its end"),
        },
    }
}

async fn listen(
    stdout: pipe::Receiver,
    lines: mpsc::Sender<WorkerLine>,
    ear: Arc<Ear>,
    started: Instant,
    ended: CancellationToken,
) {
    let mut lines = Some(lines);
    let mut source = Lines::new(BufReader::new(stdout));
    let deaf = async {
        ended.cancelled().await;
    };
    tokio::pin!(deaf);
    loop {
        let line = tokio::select! {
            biased;
            line = source.next() => line,
            // Whatever the worker wrote is in the pipe by now; more can only come from a stranger.
            () = &mut deaf => match timeout(PIPES, source.next()).await {
                Ok(line) => line,
                Err(_) => break,
            },
        };
        let line = match line {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "output of a worker not read to its end");
                break;
            }
        };
        ear.hear(started);
        if let Some(sender) = &lines {
            ear.busy.store(true, Ordering::Release);
            if sender.send(line).await.is_err() {
                lines = None;
            }
            ear.hear(started);
            ear.busy.store(false, Ordering::Release);
        }
    }
}

/// Lines of bounded length from a source that nobody trusts.
struct Lines<R> {
    source: R,
    line: Vec<u8>,
    /// Length so far, which goes on counting when `line` is full.
    length: u64,
}

impl<R: tokio::io::AsyncBufRead + Unpin> Lines<R> {
    fn new(source: R) -> Self {
        Self { source, line: Vec::new(), length: 0 }
    }

    /// The next line, or what stands after the last line end. May be dropped while waiting.
    async fn next(&mut self) -> std::io::Result<Option<WorkerLine>> {
        loop {
            let chunk = self.source.fill_buf().await?;
            if chunk.is_empty() {
                return Ok((self.length > 0).then(|| self.take()));
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            self.length += part.len() as u64;
            let room = LINE_MAX_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.source.consume(used);
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> WorkerLine {
        let bytes = std::mem::take(&mut self.length);
        let line = std::mem::take(&mut self.line);
        if bytes > LINE_MAX_BYTES as u64 {
            return WorkerLine::Oversized { bytes };
        }
        let mut text = match String::from_utf8(line) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        text.truncate(text.trim_end_matches('\r').len());
        WorkerLine::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8]) -> Vec<WorkerLine> {
        let mut lines = Lines::new(bytes);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn lines_end_at_line_ends_and_at_the_end_of_the_file() {
        let text = |text: &str| WorkerLine::Text(text.into());
        assert_eq!(all(b"a\r\n\nb").await, [text("a"), text(""), text("b")]);
        assert_eq!(all(b"\xff!\n").await, [text("\u{fffd}!")]);
        assert_eq!(all(b"").await, []);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_counted_and_thrown_away() {
        let mut bytes = vec![b'x'; LINE_MAX_BYTES + 5];
        bytes.extend(b"\nnext\n");
        let length = LINE_MAX_BYTES as u64 + 5;
        let next = WorkerLine::Text("next".into());
        assert_eq!(all(&bytes).await, [WorkerLine::Oversized { bytes: length }, next]);
    }

    #[test]
    fn exit_codes_of_the_contract_mean_what_they_mean_even_after_a_request_to_stop() {
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        let signal = ExitStatus::from_raw;
        for (status, asked, expected) in [
            (code(0), None, Exit::Done),
            (code(0), Some(Cause::Stopped), Exit::Done),
            (code(75), None, Exit::TryAgain),
            (code(75), Some(Cause::TooLong), Exit::TryAgain),
            (code(125), None, Exit::NeverAgain),
            (code(1), None, Exit::Failed(1)),
            (code(1), Some(Cause::Stopped), Exit::Failed(1)),
            (code(143), None, Exit::Failed(143)),
            (code(143), Some(Cause::Silence), Exit::KilledFor(Cause::Silence)),
            (signal(9), None, Exit::Signal(9)),
            (signal(9), Some(Cause::Memory), Exit::KilledFor(Cause::Memory)),
            (signal(15), Some(Cause::Stopped), Exit::KilledFor(Cause::Stopped)),
        ] {
            assert_eq!(judge(status, asked), expected, "{status:?} {asked:?}");
        }
    }
}
