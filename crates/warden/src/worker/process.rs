//! What `/proc` tells of processes, and signals to their groups.

use std::io;

use rustix::process::{Pid, Signal};

/// The fields of `/proc/<pid>/stat` that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    /// Dead, and only waits for its parent to notice.
    pub(super) zombie: bool,
    pub(super) group: u32,
    /// Clock ticks after boot: with the pid it names one process for as long as the machine runs.
    pub(super) start: u64,
    pub(super) resident_pages: u64,
}

impl Stat {
    pub(super) fn of(pid: u32) -> Option<Self> {
        // Gone between two looks is the normal case, so no error leaves here.
        Self::parse(&fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    // The name in brackets may hold brackets and blanks; only its last bracket is a border.
    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let pid = head.split(' ').next()?.parse().ok()?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            zombie: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
            resident_pages: fields.get(21)?.parse().ok()?,
        })
    }
}

/// All processes of this machine that we may see.
pub(super) fn all() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        found.extend(pid.and_then(Stat::of));
    }
    Ok(found)
}

/// The environment of `pid` holds `name=value`; false if it cannot be read.
pub(super) fn has_variable(pid: u32, name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    fs_err::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|block| block.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes()))
}

/// Id of this boot of the machine; start times mean nothing across boots.
pub(super) fn boot() -> io::Result<String> {
    Ok(fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Sends `signal` to every member of the group; nobody left to receive it is not an error.
pub(super) fn signal_group(group: u32, signal: Signal) {
    let pid = i32::try_from(group).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return };
    match rustix::process::kill_process_group(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::warn!(group, %error, "process group not signalled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let text = "42 (a) R 1 (b) S 7 40 40 0 -1 4194304 90 0 0 0 1 2 0 0 20 0 1 0 5555 8192000 321 18446744073709551615";
        assert_eq!(
            Stat::parse(text),
            Some(Stat { pid: 42, zombie: false, group: 40, start: 5555, resident_pages: 321 })
        );
        assert_eq!(Stat::parse("42 (a) S 7"), None);
    }

    #[test]
    fn this_process_is_found_with_memory_and_a_start() {
        let own = Stat::of(std::process::id()).unwrap();
        assert!(own.resident_pages > 0 && own.start > 0 && !own.zombie);
        assert!(all().unwrap().iter().any(|stat| stat.pid == own.pid && stat.start == own.start));
    }
}
