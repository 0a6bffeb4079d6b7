//! Records of running workers on disk, so that a later life can end what survived this one.
//!
//! One file that only grows while workers run: a line when one starts, a line when it has ended. A
//! file for each worker was refused: making and removing files cost more than the fork.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
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
/// Size at which the lines of those that have ended are thrown out.
const MAX_BYTES: u64 = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    pid: u32,
    start: u64,
    boot: String,
    mark: String,
    program: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Began(Record),
    Ended(u32),
}

#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
    file: fs_err::File,
    length: u64,
    running: BTreeMap<u32, Record>,
    boot: String,
    /// Unique for this life; a number is added per worker.
    life: String,
    count: u64,
}

impl Records {
    /// What an earlier life left in the folder is known, and waits for [`Records::end_survivors`].
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        fs_err::create_dir_all(dir)?;
        let path = dir.join("records");
        let file = fs_err::OpenOptions::new().create(true).append(true).read(true).open(&path)?;
        let running = fold(&fs_err::read(&path)?);
        let boot = process::boot()?;
        let own = std::process::id();
        let start = Stat::of(own).context("read our own entry in /proc")?.start;
        let length = file.metadata()?.len();
        let life = format!("{own}.{start}");
        Ok(Self { path, file, length, running, boot, life, count: 0 })
    }

    /// A value for [`MARK`] that no other worker has.
    pub(super) fn next_mark(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.life, self.count)
    }

    pub(super) fn write(&mut self, pid: u32, mark: &str, program: &Path) -> io::Result<()> {
        // A leader that is dead already is a zombie until we reap it, so this cannot miss.
        let start = Stat::of(pid).map_or(0, |stat| stat.start);
        let record = Record {
            pid,
            start,
            boot: self.boot.clone(),
            mark: mark.to_owned(),
            program: program.to_owned(),
        };
        self.append(&Line::Began(record.clone()))?;
        self.running.insert(pid, record);
        Ok(())
    }

    pub(super) fn remove(&mut self, pid: u32) {
        if self.running.remove(&pid).is_none() {
            return;
        }
        let removed = if self.running.is_empty() {
            self.cut(0)
        } else if self.length > MAX_BYTES {
            self.rewrite()
        } else {
            self.append(&Line::Ended(pid))
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "record of an ended worker not removed");
        }
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a line, left by a full disk, would swallow the next one.
            self.cut(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = length;
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let draft = self.path.with_extension("draft");
        let mut bytes = Vec::new();
        for record in self.running.values() {
            serde_json::to_writer(&mut bytes, &Line::Began(record.clone()))?;
            bytes.push(b'\n');
        }
        fs_err::write(&draft, &bytes)?;
        fs_err::rename(&draft, &self.path)?;
        self.file = fs_err::OpenOptions::new().append(true).open(&self.path)?;
        self.length = bytes.len() as u64;
        Ok(())
    }

    /// Kills the groups of recorded workers that still live; gives their pids.
    pub(super) fn end_survivors(&mut self) -> anyhow::Result<Vec<u32>> {
        let mut ended = Vec::new();
        // One look at all processes, however many records there are.
        let processes = process::all()?;
        for record in std::mem::take(&mut self.running).into_values() {
            if self.survives(&record, &processes) {
                self.kill(&record)?;
                ended.push(record.pid);
            }
        }
        self.cut(0)?;
        Ok(ended)
    }

    fn survives(&self, record: &Record, processes: &[Stat]) -> bool {
        if record.boot != self.boot {
            return false;
        }
        if let Some(leader) = Stat::of(record.pid)
            && !leader.zombie
        {
            // Another start time: the number went to a stranger, so the group had died out.
            return leader.start == record.start && leader.group == record.pid;
        }
        // Without a leader only the inherited variable tells ours from strangers.
        let mut members = processes.iter().filter(|stat| stat.group == record.pid);
        members.any(|stat| !stat.zombie && process::has_variable(stat.pid, MARK, &record.mark))
    }

    fn kill(&self, record: &Record) -> anyhow::Result<()> {
        let begun = Instant::now();
        process::signal_group(record.pid, Signal::KILL);
        while self.survives(record, &process::all()?) {
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

/// Who has begun and not ended.
fn fold(bytes: &[u8]) -> BTreeMap<u32, Record> {
    let mut running = BTreeMap::new();
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Line::Began(record)) => drop(running.insert(record.pid, record)),
            Ok(Line::Ended(pid)) => drop(running.remove(&pid)),
            // A line cut short: its worker was being started when its parent died, so the
            // parent-death signal has ended it.
            Err(error) => tracing::warn!(%error, "unreadable record of a worker passed over"),
        }
    }
    running
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
        change(records.running.get_mut(&child.id()).unwrap());
        records.rewrite().unwrap();
        let mut next = Records::open(folder.path()).unwrap();
        let found = next.end_survivors().unwrap();
        assert_eq!(found, if ended { vec![child.id()] } else { vec![] });
        assert_eq!(size(folder.path()), 0);
        if !ended {
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
        }
        child.wait().unwrap();
    }

    fn size(folder: &Path) -> u64 {
        fs_err::metadata(folder.join("records")).unwrap().len()
    }

    #[test]
    fn a_survivor_is_ended_and_a_stranger_with_its_number_is_not() {
        check(|_| {}, true);
        check(|record| record.start += 1, false);
        check(|record| record.boot = "another".into(), false);
    }

    #[test]
    fn an_unreadable_record_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("records"), "{\"began\":{\"pid\":").unwrap();
        assert!(Records::open(folder.path()).unwrap().end_survivors().unwrap().is_empty());
        assert_eq!(size(folder.path()), 0);
    }

    #[test]
    fn those_that_ended_are_forgotten_and_the_file_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let mut records = Records::open(folder.path()).unwrap();
        records.write(1, "stays", Path::new("one")).unwrap();
        for _ in 0..5_000 {
            records.write(2, "goes", Path::new("two")).unwrap();
            records.remove(2);
        }
        assert!(size(folder.path()) < MAX_BYTES + 1_000);
        let next = Records::open(folder.path()).unwrap();
        assert_eq!(next.running.keys().collect::<Vec<_>>(), [&1]);
        records.remove(1);
        assert_eq!(size(folder.path()), 0);
    }
}
