//! Standard error of workers, into files of bounded size.
//!
//! The house reads the pipes itself, so that the last words of a worker are there as soon as it has
//! ended. One thread writes: a file may block for long on a sick disk, and nobody but those who
//! write may wait for it then. Refused: a thread for each worker, which made every fork dearer.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    sync::{mpsc, oneshot},
};

use super::WorkerSpec;

/// Lines of standard error that the end of a worker reports.
const LAST_WORDS: usize = 20;
/// Longest piece of a line that is kept; longer lines are cut into pieces.
const PIECE_BYTES: u64 = 8 << 10;
/// Lines that wait for the writer; then the workers wait.
const LINES_WAITING: usize = 256;

/// A file that is put aside when it is full.
#[derive(Debug)]
pub(super) struct RotatingLog {
    path: PathBuf,
    file: fs_err::File,
    size: u64,
    max_bytes: u64,
    keep: u32,
    /// Lines lost since the last one that could be written.
    missed: u64,
}

impl RotatingLog {
    fn open(path: &Path, max_bytes: u64, keep: u32) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        let file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, max_bytes, keep, missed: 0 })
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.size += length;
        Ok(())
    }

    /// A full disk must not stop the workers, so a line that cannot be written is only counted.
    fn note(&mut self, line: &str) {
        match self.write_line(line) {
            Ok(()) if self.missed > 0 => {
                tracing::warn!(log = %self.path.display(), missed = self.missed, "lines of a log were lost");
                self.missed = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.missed == 0 {
                    tracing::warn!(log = %self.path.display(), %error, "a log of workers cannot be written");
                }
                self.missed += 1;
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..self.keep).rev() {
            let old = self.aside(age);
            if old.exists() {
                fs_err::rename(old, self.aside(age + 1))?;
            }
        }
        if self.keep == 0 {
            fs_err::remove_file(&self.path)?;
        } else {
            fs_err::rename(&self.path, self.aside(1))?;
        }
        *self = Self::open(&self.path, self.max_bytes, self.keep)?;
        Ok(())
    }

    fn aside(&self, age: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{age}"));
        name.into()
    }
}

pub(super) type Shared = Arc<Mutex<RotatingLog>>;

/// The open files: two writers that rotate one file apart would lose lines.
#[derive(Debug, Default)]
pub(super) struct Logs(HashMap<PathBuf, Weak<Mutex<RotatingLog>>>);

impl Logs {
    pub(super) fn open(&mut self, spec: &WorkerSpec) -> io::Result<Shared> {
        self.0.retain(|_, log| log.strong_count() > 0);
        if let Some(log) = self.0.get(&spec.log).and_then(Weak::upgrade) {
            return Ok(log);
        }
        let log = RotatingLog::open(&spec.log, spec.log_max_bytes, spec.log_keep)?;
        let log = Arc::new(Mutex::new(log));
        self.0.insert(spec.log.clone(), Arc::downgrade(&log));
        Ok(log)
    }
}

enum Entry {
    Line(Shared, String),
    /// Answered when all lines before it are written.
    Flush(oneshot::Sender<()>),
}

/// The thread that writes, and the end that tells of it.
#[derive(Debug)]
pub(super) struct Writer {
    entries: Pen,
    done: std::sync::mpsc::Receiver<()>,
}

impl Writer {
    pub(super) fn start() -> anyhow::Result<Self> {
        let (entries, receiver) = mpsc::channel(LINES_WAITING);
        let (alive, done) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("worker-logs".into())
            .spawn(move || {
                write(receiver);
                drop(alive);
            })
            .context("start the thread that writes the workers' logs")?;
        Ok(Self { entries: Pen(entries), done })
    }

    pub(super) fn pen(&self) -> Pen {
        self.entries.clone()
    }

    /// Waits, not for ever, until what was handed over is written.
    pub(super) fn finish(self, limit: Duration) {
        drop(self.entries);
        if self.done.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("logs of workers are not written to their end");
        }
    }
}

fn write(mut entries: mpsc::Receiver<Entry>) {
    while let Some(entry) = entries.blocking_recv() {
        match entry {
            Entry::Line(log, line) => {
                log.lock().unwrap_or_else(PoisonError::into_inner).note(&line);
            }
            // Nobody waits any more: the worker was dropped.
            Entry::Flush(written) => drop(written.send(())),
        }
    }
}

/// Hands lines to the writer.
#[derive(Debug, Clone)]
pub(super) struct Pen(mpsc::Sender<Entry>);

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

/// Copies a worker's standard error into its log until it ends; gives its last lines.
pub(super) async fn copy(
    pid: u32,
    stderr: impl AsyncRead + Unpin,
    log: Shared,
    pen: Pen,
) -> Vec<String> {
    let mut source = BufReader::new(stderr);
    let mut last = VecDeque::new();
    let mut piece = Vec::new();
    loop {
        piece.clear();
        match (&mut source).take(PIECE_BYTES).read_until(b'\n', &mut piece).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(pid, %error, "standard error of a worker not read to its end");
                break;
            }
        }
        let text = String::from_utf8_lossy(&piece);
        let text = text.trim_end_matches(['\n', '\r']);
        // The writer only ends after us.
        drop(pen.0.send(Entry::Line(log.clone(), format!("[{pid}] {text}\n"))).await);
        if last.len() == LAST_WORDS {
            last.pop_front();
        }
        last.push_back(text.to_owned());
    }
    if !last.is_empty() {
        // Who learns of the end finds the log complete.
        let (written, wait) = oneshot::channel();
        if pen.0.send(Entry::Flush(written)).await.is_ok() {
            drop(wait.await);
        }
    }
    last.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(folder: &Path) -> Vec<(String, u64)> {
        let mut found: Vec<_> = fs_err::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len()))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut log = RotatingLog::open(&path, 10, 2).unwrap();
        for line in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n", "eeee\n", "ffff\n", "gggg\n"] {
            log.write_line(line).unwrap();
        }
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "gggg\n");
        let names: Vec<_> = sizes(folder.path());
        assert_eq!(names, [("x.log".into(), 5), ("x.log.1".into(), 10), ("x.log.2".into(), 10)]);
        assert_eq!(fs_err::read_to_string(folder.path().join("x.log.2")).unwrap(), "cccc\ndddd\n");
    }

    #[test]
    fn an_earlier_file_is_continued_and_its_size_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        RotatingLog::open(&path, 10, 1).unwrap().write_line("12345678\n").unwrap();
        RotatingLog::open(&path, 10, 1).unwrap().write_line("next\n").unwrap();
        assert_eq!(sizes(folder.path()), [("x.log".into(), 5), ("x.log.1".into(), 9)]);
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_and_only_the_last_lines_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let log = RotatingLog::open(&folder.path().join("x.log"), 1 << 20, 0).unwrap();
        let mut text = "x".repeat(20_000).into_bytes();
        text.push(b'\n');
        text.extend((0..30).flat_map(|n| format!("line {n}\n").into_bytes()));
        let writer = Writer::start().unwrap();
        let last = copy(7, &text[..], Arc::new(Mutex::new(log)), writer.pen()).await;
        assert_eq!(last.len(), LAST_WORDS);
        assert_eq!(last.last().unwrap(), "line 29");
        let written = fs_err::read_to_string(folder.path().join("x.log")).unwrap();
        assert_eq!(written.lines().count(), 33);
        assert!(written.starts_with("[7] xxx"));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_until_one_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut log = RotatingLog::open(&path, 10, 1).unwrap();
        log.note("12345678\n");
        // A folder in its way: the full file cannot be put aside.
        fs_err::create_dir_all(folder.path().join("x.log.1/in the way")).unwrap();
        log.note("lost\n");
        log.note("lost\n");
        assert_eq!(log.missed, 2);
        fs_err::remove_dir_all(folder.path().join("x.log.1")).unwrap();
        log.note("next\n");
        assert_eq!(log.missed, 0);
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "next\n");
    }
}
