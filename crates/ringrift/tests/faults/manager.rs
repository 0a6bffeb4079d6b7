//! A manager as its operator has it: a process, a data directory, commands beside it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use courier::Reader;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// The binary under test.
pub const RINGRIFT: &str = env!("CARGO_BIN_EXE_ringrift");

/// Generator of the suite's random choices: same seed, same choices.
pub use ringrift_rules::SplitMix64;

/// A running `ringrift up`; dropping it kills the manager.
pub struct Manager {
    child: Child,
}

impl Manager {
    /// Starts `ringrift up` on `data` for `hex8_2p`, with more arguments; its output is appended to
    /// `<data>/../up.log`.
    pub fn up(data: &Path, more: &[&str]) -> Self {
        let log = data.parent().unwrap().join("up.log");
        let out = fs_err::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = Command::new(RINGRIFT)
            .args(["up", "--configs", "hex8_2p", "--port", "0", "--seed", "7", "--data"])
            .arg(data)
            .args(more)
            .env_clear()
            .envs(
                std::env::vars_os()
                    .filter(|(key, _)| !key.to_string_lossy().starts_with("RINGRIFT_")),
            )
            .stdin(Stdio::null())
            .stdout(out.file().try_clone().unwrap())
            .stderr(out.into_file())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// The manager's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it ended by itself?
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its worker processes now, without their own children.
    pub fn workers(&self) -> Vec<u32> {
        children(self.pid()).into_iter().filter(|pid| is_worker(*pid)).collect()
    }

    /// SIGKILL; returns every process that descended from it.
    pub fn kill(mut self) -> Vec<Process> {
        let family = descendants(self.pid());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        family
    }

    /// SIGTERM, and its exit status.
    pub fn stop(mut self) -> ExitStatus {
        signal(self.pid(), Signal::TERM);
        wait_for("the manager to leave", Duration::from_mins(3), || self.ended())
    }

    /// Its exit status, within a limit.
    pub fn finish(mut self, limit: Duration) -> ExitStatus {
        wait_for("the manager to reach its goal", limit, || self.ended())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command of the binary to its end.
pub fn ringrift(args: &[&str], data: &Path) -> Output {
    Command::new(RINGRIFT).args(args).arg("--data").arg(data).stdin(Stdio::null()).output().unwrap()
}

/// Waits until a condition holds, or fails with what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process that this suite's manager started.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended since it was listed.
        let _ = kill_process(pid, signal);
    }
}

/// A process, safe from reuse of its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    started: String,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        let (state, started) = stat(pid)?;
        (state != 'Z').then_some(Self { pid, started })
    }

    /// Does this very process still run?
    pub fn lives(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// State and start time of a process.
fn stat(pid: u32) -> Option<(char, String)> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; fields are counted from its end.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, (*fields.get(19)?).to_owned()))
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs_err::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .filter_map(Result::ok)
        .filter_map(|task| fs_err::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// A worker, not the guardian of their groups, which is a child as well.
fn is_worker(pid: u32) -> bool {
    fs_err::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"worker"))
}

fn descendants(pid: u32) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut open = children(pid);
    while let Some(pid) = open.pop() {
        found.extend(Process::of(pid));
        open.extend(children(pid));
    }
    found
}

/// Processes whose working directory lies in a folder: orphans would betray themselves here.
pub fn processes_in(folder: &Path) -> Vec<u32> {
    let Ok(all) = fs_err::read_dir("/proc") else { return Vec::new() };
    all.filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs_err::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
        })
        .collect()
}

/// Batches that the manager has reported: hash -> games. Empty before there is a catalogue.
pub fn reported(data: &Path) -> BTreeMap<String, u32> {
    let file = data.join("catalogue.sqlite");
    if !file.exists() {
        return BTreeMap::new();
    }
    Reader::new(&file)
        .read_blocking(|db| {
            let mut rows =
                db.prepare("SELECT hash, games FROM batches WHERE state != 'rejected'")?;
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .unwrap_or_default()
}

/// Promotions so far.
pub fn promotions(data: &Path) -> u32 {
    let file: PathBuf = data.join("catalogue.sqlite");
    if !file.exists() {
        return 0;
    }
    Reader::new(&file)
        .read_blocking(|db| db.query_row("SELECT COUNT(*) FROM promotions", [], |row| row.get(0)))
        .unwrap_or(0)
}
