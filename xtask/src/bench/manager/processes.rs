//! Processes of one contender: who they are, what they use, how they end.
//!
//! All that a contender starts inherits a variable with a value of its own. So whatever becomes of
//! a supervisor, its processes are found, counted and ended one by one, by their numbers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

pub use rustix::process::Signal as Message;

/// The variable that marks processes: `<pid of the bench>.<its start>.<contender>`.
pub const MARK: &str = "WORKSPACE_BENCH";

/// Nanoseconds of the clock that the measured child reads too.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// The part of the mark that all contenders of this run share.
pub fn run_mark() -> anyhow::Result<String> {
    let own = std::process::id();
    let start = Stat::of(own).context("read our own entry in /proc")?.start;
    Ok(format!("{own}.{start}"))
}

#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub mark: Option<String>,
    /// Runs the measured child.
    pub is_child: bool,
}

struct Stat {
    zombie: bool,
    parent: u32,
    start: u64,
}

impl Stat {
    // Gone between two looks is the normal case, so no error leaves here.
    fn of(pid: u32) -> Option<Self> {
        let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, tail) = text.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        Some(Self {
            zombie: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

/// All living processes that we may look into.
fn living(child: &Path) -> anyhow::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(stat) = Stat::of(pid).filter(|stat| !stat.zombie) else { continue };
        let mark = mark_of(pid);
        let is_child = mark.is_some()
            && fs_err::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == child);
        found.push(Process { pid, parent: stat.parent, mark, is_child });
    }
    Ok(found)
}

fn mark_of(pid: u32) -> Option<String> {
    let block = fs_err::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{MARK}=");
    let mut entries = block.split(|&byte| byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(prefix.as_bytes()))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// What a contender has running.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// Copies of the measured child.
    pub children: Vec<Process>,
    /// All else: the supervisor and its helpers.
    pub others: Vec<Process>,
}

impl Family {
    /// Those with the mark, and children of the supervisor that cleared it.
    pub fn of(mark: &str, supervisor: Option<u32>, child: &Path) -> anyhow::Result<Self> {
        let ours = |process: &Process| {
            process.mark.as_deref() == Some(mark) || supervisor == Some(process.parent)
        };
        let (children, others) =
            living(child)?.into_iter().filter(ours).partition(|process| process.is_child);
        Ok(Self { children, others })
    }

    /// A process between supervisor and children, or beside them, if this contender has one.
    pub fn helper(&self, supervisor: u32) -> Option<u32> {
        let is_helper = |pid: u32| pid != supervisor && self.others.iter().any(|it| it.pid == pid);
        let between = self.children.iter().map(|child| child.parent).find(|&pid| is_helper(pid));
        let beside = self.others.iter().find(|it| it.parent == supervisor && is_helper(it.pid));
        between.or(beside.map(|process| process.pid))
    }

    /// Kills until none is left: a supervisor may start children between two looks.
    pub fn end(mark: &str, child: &Path) -> anyhow::Result<()> {
        for _ in 0..50 {
            let family = Self::of(mark, None, child)?;
            if family.others.is_empty() && family.children.is_empty() {
                return Ok(());
            }
            // Supervisors first, so that nobody replaces the children.
            for process in family.others.iter().chain(&family.children) {
                send(process.pid, Signal::KILL)?;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        anyhow::bail!("processes marked {mark} do not end")
    }
}

/// Ends what a bench that was killed left running; gives how many.
pub fn end_leftovers() -> anyhow::Result<usize> {
    let mut ended = 0;
    for process in living(Path::new(""))? {
        let Some(mark) = process.mark else { continue };
        let mut parts = mark.splitn(3, '.');
        let (pid, start) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let alive = pid.parse().ok().and_then(Stat::of);
        if alive.is_none_or(|stat| stat.start.to_string() != start) {
            send(process.pid, Signal::KILL)?;
            ended += 1;
        }
    }
    Ok(ended)
}

/// Sends a signal; a process that is gone is no error.
pub fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("send {signal:?} to {pid:?}")),
    }
}

/// Waits for processes that are not our own children.
pub struct Departure(Vec<OwnedFd>);

impl Departure {
    pub fn of(processes: &[Process]) -> anyhow::Result<Self> {
        let mut open = Vec::new();
        for process in processes {
            let pid = Pid::from_raw(i32::try_from(process.pid)?).context("a process id")?;
            match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                Ok(handle) => open.push(handle),
                Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).context("watch a process"),
            }
        }
        Ok(Self(open))
    }

    /// When the last one was gone; none if some live on after `limit` seconds.
    pub fn wait(mut self, limit: u64) -> anyhow::Result<Option<u64>> {
        let until = now() + limit * 1_000_000_000;
        while !self.0.is_empty() {
            let left = until.saturating_sub(now());
            if left == 0 {
                return Ok(None);
            }
            let mut polls: Vec<PollFd<'_>> =
                self.0.iter().map(|handle| PollFd::new(handle, PollFlags::IN)).collect();
            let time = Timespec {
                tv_sec: i64::try_from(left / 1_000_000_000)?,
                tv_nsec: i64::try_from(left % 1_000_000_000)?,
            };
            rustix::event::poll(&mut polls, Some(&time))?;
            let gone: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
            let mut gone = gone.into_iter();
            self.0.retain(|_| !gone.next().unwrap_or(false));
        }
        Ok(Some(now()))
    }
}

/// What processes use.
#[derive(Default)]
pub struct Usage {
    /// Resident bytes.
    pub memory: u64,
    /// Nanoseconds that each thread has run, by process and thread.
    threads: BTreeMap<(u32, u32), u64>,
}

impl Usage {
    pub fn of(processes: &[Process]) -> Self {
        let mut sum = Self::default();
        for process in processes {
            sum.memory += resident(process.pid).unwrap_or_default();
            sum.threads.extend(run_times(process.pid).unwrap_or_default());
        }
        sum
    }

    /// Nanoseconds run since an earlier look. A thread that ended meanwhile is left out: it takes along
    /// what it ran before, so that a difference of sums would hide what others ran.
    pub fn ran_since(&self, earlier: &Self) -> u64 {
        let ran = |(thread, ran): (&(u32, u32), &u64)| {
            ran.saturating_sub(earlier.threads.get(thread).copied().unwrap_or_default())
        };
        self.threads.iter().map(ran).sum()
    }
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

fn run_times(pid: u32) -> Option<Vec<((u32, u32), u64)>> {
    let mut found = Vec::new();
    for thread in fs_err::read_dir(format!("/proc/{pid}/task")).ok()? {
        let path = thread.ok()?.path();
        let number = path.file_name()?.to_str()?.parse().ok()?;
        // A thread may end between the list and the look.
        let Ok(text) = fs_err::read_to_string(path.join("schedstat")) else { continue };
        found.push(((pid, number), text.split(' ').next()?.parse().ok()?));
    }
    Some(found)
}

/// Whether a file name in `PATH`, or where system programs lie, is there.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path).filter(|folder| folder.as_os_str().as_bytes() != b"");
    let system = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(Into::into);
    own.chain(system).map(|folder| folder.join(program)).find(|file| file.is_file())
}
