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

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt as _,
        process::{Child, Command},
    };

    use super::*;

    /// A record of a live process, changed, at the next start: is the process ended?
    fn check(change: impl FnOnce(&mut Record), ended: bool) {
        let folder = tempfile::tempdir().unwrap();
        let mut records = Records::open(folder.path()).unwrap();
        let mark = records.next_mark();
        let mut child: Child =
            Command::new("sleep").arg("1000").env(MARK, &mark).process_group(0).spawn().unwrap();
        records.write(child.id(), &mark, Path::new("sleep")).unwrap();
        let path = records.path(child.id());
        let mut record = read(&path).unwrap();
        change(&mut record);
        fs_err::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        let found = Records::open(folder.path()).unwrap().end_survivors().unwrap();
        assert_eq!(found, if ended { vec![child.id()] } else { vec![] });
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
        if !ended {
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_survivor_is_ended_and_a_stranger_with_its_number_is_not() {
        check(|_| {}, true);
        check(|record| record.start += 1, false);
        check(|record| record.boot = "another".into(), false);
    }

    #[test]
    fn an_unreadable_record_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join(".12"), "{\"pid\":").unwrap();
        assert!(Records::open(folder.path()).unwrap().end_survivors().unwrap().is_empty());
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    }
}
