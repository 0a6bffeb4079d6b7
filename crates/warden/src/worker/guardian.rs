//! A small shell that outlives us by a moment, to end the groups that we leave behind.
//!
//! The parent-death signal reaches a worker, not what the worker started. Nothing in the kernel
//! that an ordinary user may use does more (a PID namespace and a writable cgroup need rights), so
//! somebody must be alive after us: a shell that reads our list of groups from a pipe and, at end
//! of file, kills those that are still on it. Refused: one watcher per worker (twice the processes)
//! and a fork of ourselves without exec (only signal-safe calls, all our memory).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

// One variable for each group, so that a line costs the same however many there are.
const SCRIPT: &str = r#"
while read -r what group; do
  case $what in
    +) eval "group_$group=1" ;;
    -) unset "group_$group" ;;
  esac
done
set | while IFS== read -r name value; do
  case $name in
    group_*) kill -9 "-${name#group_}" 2>/dev/null ;;
  esac
done
"#;

#[derive(Debug)]
pub(super) struct Guardian {
    shell: Child,
    groups: BTreeSet<u32>,
}

impl Guardian {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { shell: start()?, groups: BTreeSet::new() })
    }

    pub(super) fn add(&mut self, group: u32) {
        self.groups.insert(group);
        self.tell(&format!("+ {group}\n"));
    }

    pub(super) fn remove(&mut self, group: u32) {
        self.groups.remove(&group);
        self.tell(&format!("- {group}\n"));
    }

    fn tell(&mut self, line: &str) {
        let told =
            self.shell.stdin.as_mut().is_some_and(|pipe| pipe.write_all(line.as_bytes()).is_ok());
        if !told && let Err(error) = self.replace() {
            // Work goes on: a lost guardian matters only if we are killed as well, and then only
            // for what workers started themselves.
            tracing::warn!(%error, "guardian of the process groups is gone and cannot be replaced");
        }
    }

    // Somebody killed the shell. A new one gets the whole list.
    fn replace(&mut self) -> io::Result<()> {
        let mut old = std::mem::replace(&mut self.shell, start()?);
        old.stdin.take();
        old.wait()?;
        let pipe = self.shell.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        for group in &self.groups {
            pipe.write_all(format!("+ {group}\n").as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.shell.stdin.take();
        if let Err(error) = self.shell.wait() {
            tracing::warn!(%error, "guardian of the process groups not reaped");
        }
    }
}

fn start() -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", SCRIPT, "worker-guardian"])
        .env_clear()
        .current_dir("/")
        // A Ctrl-C at the terminal, or a kill of our own group, must not reach it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    }

    fn killed(mut child: Child) -> Option<i32> {
        ExitStatus::signal(&child.wait().unwrap())
    }

    #[test]
    fn at_the_end_it_kills_the_groups_on_its_list_and_no_other() {
        let (mut done, left) = (sleeper(), sleeper());
        let mut guardian = Guardian::new().unwrap();
        guardian.add(done.id());
        guardian.add(left.id());
        guardian.remove(done.id());
        drop(guardian);
        assert_eq!(killed(left), Some(9));
        assert!(done.try_wait().unwrap().is_none());
        done.kill().unwrap();
        done.wait().unwrap();
    }

    #[test]
    fn a_killed_shell_is_replaced_and_the_new_one_knows_all() {
        let (first, second) = (sleeper(), sleeper());
        let mut guardian = Guardian::new().unwrap();
        guardian.add(first.id());
        guardian.shell.kill().unwrap();
        guardian.shell.wait().unwrap();
        guardian.add(second.id());
        drop(guardian);
        assert_eq!((killed(first), killed(second)), (Some(9), Some(9)));
    }
}
