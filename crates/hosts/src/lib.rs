//! What a machine is: its name, cores, memory and disks, as far as this process may use them; how a
//! command gets to another machine ([`Reach`]); who provides it ([`Provider`], behind a [`Guard`]).
//!
//! The functions of this file ask the operating system when called and keep nothing. They take
//! microseconds on a sound machine; [`disk`] hangs when the file system does, so a caller that must not
//! hang asks from a thread of its own.

mod guard;
mod programs;
mod provider;
mod reach;
mod run;

pub use guard::{ActError, Acted, Budget, Guard, Plan};
pub use programs::Programs;
pub use provider::{
    Action, Asking, BadId, Instance, InstanceId, Listing, Provider, ProviderError, Standing, State,
};
pub use reach::{BadDestination, Reach, Ssh};
pub use run::{Limits, Output, RunError, run};

use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// A machine at one instant, as this process sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name in the network, `unknown` if it has none.
    pub name: String,
    /// Operating system and architecture, such as `linux/x86_64`.
    pub platform: String,
    /// Threads that can run at the same time.
    pub cores: usize,
    /// Main memory.
    pub memory: Memory,
    /// The file system that was asked for.
    pub disk: Disk,
    /// Load average over one minute: threads that run or want to.
    pub load: f64,
    /// Main memory of this process in bytes.
    pub own_memory: u64,
}

impl Machine {
    /// Looks at this machine and at the file system of `path`.
    ///
    /// # Errors
    /// If the file system of `path` or the operating system cannot be asked.
    pub fn look(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            name: name(),
            platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
            cores: cores(),
            memory: memory()?,
            disk: disk(path)?,
            load: load()?,
            own_memory: process_memory(std::process::id())?.unwrap_or(0),
        })
    }
}

/// Main memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What the machine, or the control group of this process, has.
    pub total: u64,
    /// What could be had without swapping.
    pub available: u64,
}

impl Memory {
    /// The share that is in use, 0 to 1.
    pub fn used_share(self) -> f64 {
        share(self.total.saturating_sub(self.available), self.total)
    }
}

/// A file system in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What is in use and what can still be written: without what is kept for the superuser, or otherwise out of
    /// reach, as `df` counts.
    pub total: u64,
    /// What an ordinary user can still write.
    pub available: u64,
}

impl Disk {
    /// The share that is in use, 0 to 1.
    pub fn used_share(self) -> f64 {
        share(self.total.saturating_sub(self.available), self.total)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Threads that can run at the same time: hardware, affinity and CPU quota taken together, at least
/// one.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The name of the machine in the network, `unknown` if it has none.
pub fn name() -> String {
    let name = System::host_name().ok().filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "unknown".to_owned())
}

/// Main memory; where a control group sets a limit, that is the total.
pub fn memory() -> std::io::Result<Memory> {
    let mut system = System::new().map_err(std::io::Error::other)?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let mut memory = Memory { total: system.total_memory(), available: system.available_memory() };
    if let Some(limits) = system.cgroup_limits()
        && limits.total_memory > 0
        && limits.total_memory < memory.total
    {
        memory.total = limits.total_memory;
        // Not the group's free memory: that counts the page cache as used.
        let unused = limits.total_memory.saturating_sub(limits.rss);
        memory.available = memory.available.min(unused);
    }
    Ok(memory)
}

/// The file system that holds `path`, which must exist.
pub fn disk(path: &Path) -> std::io::Result<Disk> {
    let found = rustix::fs::statvfs(path).map_err(|error| {
        let error = std::io::Error::from(error);
        let kind = error.kind();
        std::io::Error::new(kind, format!("ask for the disk of {}: {error}", path.display()))
    })?;
    Ok(Disk {
        total: found
            .f_blocks
            .saturating_sub(found.f_bfree)
            .saturating_add(found.f_bavail)
            .saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// Load average over one minute.
pub fn load() -> std::io::Result<f64> {
    System::load_average().map(|load| load.one).map_err(std::io::Error::other)
}

/// Main memory of a process in bytes (resident set); none if there is no such process.
pub fn process_memory(pid: u32) -> std::io::Result<Option<u64>> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new().map_err(std::io::Error::other)?;
    let what = ProcessRefreshKind::nothing().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, what);
    Ok(system.process(pid).map(sysinfo::Process::memory))
}

/// The name under which this installation is known, kept in `file`: the machine's name and eight
/// random digits, made at the first call.
///
/// It stays when the machine is renamed, and two machines of one name differ. Not a proof of
/// identity: for that there are keys.
///
/// # Errors
/// If the file cannot be read or written, or contains something else.
pub fn identity(file: &Path) -> std::io::Result<String> {
    match fs_err::read_to_string(file) {
        Ok(text) => check_identity(file, &text),
        Err(error) if error.kind() == ErrorKind::NotFound => make_identity(file),
        Err(error) => Err(error),
    }
}

fn make_identity(file: &Path) -> std::io::Result<String> {
    let mut random = [0_u8; 4];
    fs_err::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let identity = format!("{}-{:08x}", token(&name()), u32::from_le_bytes(random));
    // Written aside and linked, so that another process at the same point sees all of it or nothing,
    // and one of the two names wins.
    let mut aside = file.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let mut written = fs_err::File::create(&aside)?;
    written.write_all(format!("{identity}\n").as_bytes())?;
    written.sync_all()?;
    let linked = fs_err::hard_link(&aside, file);
    fs_err::remove_file(&aside)?;
    match linked {
        Ok(()) => Ok(identity),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            check_identity(file, &fs_err::read_to_string(file)?)
        }
        Err(error) => Err(error),
    }
}

fn check_identity(file: &Path, text: &str) -> std::io::Result<String> {
    let text = text.trim();
    if !text.is_empty() && text == token(text) {
        return Ok(text.to_owned());
    }
    let why = format!("{} does not contain the name of an installation", file.display());
    Err(std::io::Error::new(ErrorKind::InvalidData, why))
}

/// Lower case letters, digits and hyphens only, at most 64.
fn token(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.chars().take(64).map(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_what_machines_have() {
        let machine = Machine::look(Path::new("/")).unwrap();
        assert!(machine.cores >= 1);
        assert!(machine.memory.total > 64 << 20);
        assert!(machine.memory.available <= machine.memory.total);
        assert!(machine.disk.total >= machine.disk.available);
        assert!(machine.own_memory > 1 << 20, "a test runner takes more than 1 MiB");
        assert!(machine.load >= 0.0);
        assert!((0.0..=1.0).contains(&machine.memory.used_share()));
        assert!((0.0..=1.0).contains(&machine.disk.used_share()));
    }

    #[test]
    fn a_disk_is_as_full_as_df_says() {
        let told = std::process::Command::new("df").args(["--output=pcent", "/"]).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let told: f64 = told.lines().nth(1).unwrap().trim().trim_end_matches('%').parse().unwrap();
        let here = disk(Path::new("/")).unwrap().used_share() * 100.0;
        // It rounds up, and somebody may write meanwhile.
        assert!((here - told).abs() <= 2.0, "{here:.1} % here, {told} % there");
    }

    #[test]
    fn memory_of_a_process_grows_with_it() {
        let before = process_memory(std::process::id()).unwrap().unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = process_memory(std::process::id()).unwrap().unwrap();
        assert!(after >= before + (48 << 20), "{before} -> {after}");
        drop(block);
    }

    #[test]
    fn a_process_that_is_not_there_has_no_memory() {
        assert_eq!(process_memory(u32::MAX - 1).unwrap(), None);
    }

    #[test]
    fn the_disk_of_a_path_that_is_not_there_is_an_error_with_its_name() {
        let error = disk(Path::new("/no/such/place")).unwrap_err().to_string();
        assert!(error.contains("/no/such/place"), "{error}");
    }

    #[test]
    fn an_identity_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node");
        let first = identity(&file).unwrap();
        assert_eq!(identity(&file).unwrap(), first);
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1, "nothing is left aside");
        let other = identity(&dir.path().join("other")).unwrap();
        assert_ne!(other, first);
    }

    #[test]
    fn an_identity_file_with_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node");
        for text in ["", "two words", "../up"] {
            fs_err::write(&file, text).unwrap();
            assert!(identity(&file).is_err(), "{text:?}");
        }
    }
}
