//! Records of running workers on disk, so that a later life can end what survived this one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::process::{self, Stat};

/// Variable that every process of a worker inherits; its value is in the record.
pub(super) const MARK: &str = "WARDEN_WORKER";
/// Longest wait for a survivor to die after SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    pid: u32,
    start: u64,
    boot: String,
    mark: String,
    program: PathBuf,
}

#[derive(Debug)]
pub(super) struct Records {
    dir: PathBuf,
    boot: String,
    /// Unique for this life; a number is added per worker.
    life: String,
    count: u64,
}

impl Records {
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        fs_err::create_dir_all(dir)?;
        let boot = process::boot()?;
        let own = std::process::id();
        let start = Stat::of(own).context("read our own entry in /proc")?.start;
        Ok(Self { dir: dir.to_owned(), boot, life: format!("{own}.{start}"), count: 0 })
    }

    /// A value for [`MARK`] that no other worker has.
    pub(super) fn next_mark(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.life, self.count)
    }

    pub(super) fn write(&self, pid: u32, mark: &str, program: &Path) -> std::io::Result<()> {
        // A leader that is dead already is a zombie until we reap it, so this cannot miss.
        let start = Stat::of(pid).map_or(0, |stat| stat.start);
        let record = Record {
            pid,
            start,
            boot: self.boot.clone(),
            mark: mark.to_owned(),
            program: program.to_owned(),
        };
        let draft = self.dir.join(format!(".{pid}"));
        fs_err::write(&draft, serde_json::to_vec(&record)?)?;
        fs_err::rename(draft, self.path(pid))
    }

    pub(super) fn remove(&self, pid: u32) {
        if let Err(error) = fs_err::remove_file(self.path(pid)) {
            tracing::warn!(%error, "record of an ended worker not removed");
        }
    }

    fn path(&self, pid: u32) -> PathBuf {
        self.dir.join(pid.to_string())
    }

    /// Kills the groups of recorded workers that still live; gives their pids.
    pub(super) fn end_survivors(&self) -> anyhow::Result<Vec<u32>> {
        let mut ended = Vec::new();
        for entry in fs_err::read_dir(&self.dir)? {
            let path = entry?.path();
            match read(&path) {
                Ok(record) if self.survives(&record)? => {
                    self.kill(&record)?;
                    ended.push(record.pid);
                }
                Ok(_) => {}
                // A draft cut short: its worker was being started when its parent died, so the
                // parent-death signal has ended it.
                Err(error) => tracing::warn!(%error, "unreadable record of a worker removed"),
            }
            fs_err::remove_file(&path)?;
        }
        Ok(ended)
    }

    fn survives(&self, record: &Record) -> anyhow::Result<bool> {
        if record.boot != self.boot {
            return Ok(false);
        }
        if let Some(leader) = Stat::of(record.pid)
            && !leader.zombie
        {
            // Another start time: the number went to a stranger, so the group had died out.
            return Ok(leader.start == record.start && leader.group == record.pid);
        }
        // Without a leader only the inherited variable tells ours from strangers.
        let mut members = process::all()?.into_iter().filter(|stat| stat.group == record.pid);
        Ok(members.any(|stat| !stat.zombie && process::has_variable(stat.pid, MARK, &record.mark)))
    }

    fn kill(&self, record: &Record) -> anyhow::Result<()> {
        let begun = Instant::now();
        process::signal_group(record.pid, Signal::KILL);
        while self.survives(record)? {
            if begun.elapsed() > DEATH {
                bail!(
                    "worker {} ({}) of an earlier life does not die",
                    record.pid,
                    record.program.display()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<Record> {
    let bytes = fs_err::read(path)?;
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}
