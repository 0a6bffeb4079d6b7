//! Standard error of workers, into files of bounded size.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, BufRead, BufReader, Read, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::oneshot;

use super::WorkerSpec;

/// Lines of standard error that the end of a worker reports.
const LAST_WORDS: usize = 20;
/// Longest piece of a line that is kept; longer lines are cut into pieces.
const PIECE_BYTES: u64 = 8 << 10;

/// A file that is put aside when it is full.
#[derive(Debug)]
pub(super) struct RotatingLog {
    path: PathBuf,
    file: fs_err::File,
    size: u64,
    max_bytes: u64,
    keep: u32,
}

impl RotatingLog {
    fn open(path: &Path, max_bytes: u64, keep: u32) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        let file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, max_bytes, keep })
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

type Shared = Arc<Mutex<RotatingLog>>;

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

/// Copies a worker's standard error on a thread of its own; gives its last lines at the end.
///
/// A thread, because a file may block for long on a sick disk, and not one of the runtime's, which
/// would wait for it when it shuts down.
pub(super) fn copy(
    pid: u32,
    stderr: OwnedFd,
    log: Shared,
) -> io::Result<oneshot::Receiver<Vec<String>>> {
    let (done, words) = oneshot::channel();
    std::thread::Builder::new().name(format!("stderr-{pid}")).spawn(move || {
        let last = pump(pid, BufReader::new(std::fs::File::from(stderr)), &log);
        // Nobody waits any more: the worker was dropped.
        drop(done.send(last));
    })?;
    Ok(words)
}

fn pump(pid: u32, mut source: impl BufRead, log: &Mutex<RotatingLog>) -> Vec<String> {
    let mut last = VecDeque::new();
    let mut piece = Vec::new();
    let mut missed = 0_u64;
    loop {
        piece.clear();
        match source.by_ref().take(PIECE_BYTES).read_until(b'\n', &mut piece) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(pid, %error, "standard error of a worker not read to its end");
                break;
            }
        }
        let text = String::from_utf8_lossy(&piece);
        let text = text.trim_end_matches(['\n', '\r']);
        // The lock covers one line, so that lines of several workers do not mix.
        let written = log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_line(&format!("[{pid}] {text}\n"));
        if let Err(error) = written {
            // A full disk must not stop the worker, which would wait for us to read on.
            if missed == 0 {
                tracing::warn!(pid, %error, "log of a worker cannot be written");
            }
            missed += 1;
        }
        if last.len() == LAST_WORDS {
            last.pop_front();
        }
        last.push_back(text.to_owned());
    }
    if missed > 0 {
        tracing::warn!(pid, missed, "lines of a worker's log were lost");
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

    #[test]
    fn an_endless_line_is_cut_and_only_the_last_lines_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let log = RotatingLog::open(&folder.path().join("x.log"), 1 << 20, 0).unwrap();
        let mut text = "x".repeat(20_000).into_bytes();
        text.push(b'\n');
        text.extend((0..30).flat_map(|n| format!("line {n}\n").into_bytes()));
        let last = pump(7, &text[..], &Mutex::new(log));
        assert_eq!(last.len(), LAST_WORDS);
        assert_eq!(last.last().unwrap(), "line 29");
        let written = fs_err::read_to_string(folder.path().join("x.log")).unwrap();
        assert_eq!(written.lines().count(), 33);
        assert!(written.starts_with("[7] xxx"));
    }
}
