//! What the measured children say at their first breath.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::processes::now;
use crate::workspace::{Workspace, succeed};

/// Compiles the child: C, static, so that its start costs next to nothing.
pub fn compile_child(workspace: &Workspace, dir: &Path) -> anyhow::Result<PathBuf> {
    let program = dir.join("child");
    let mut compiler = workspace.command("cc");
    compiler.args(["-O2", "-static", "-o"]).arg(&program).arg("bench/child.c");
    succeed(compiler).context("compile the measured child")?;
    Ok(program)
}

#[derive(Debug, Clone, Copy)]
pub struct Birth {
    pub pid: u32,
    /// When it began to run, by [`now`].
    pub at: u64,
}

/// The socket that the children of one contender speak to.
pub struct Births {
    socket: UnixDatagram,
    pub path: PathBuf,
}

impl Births {
    pub fn listen(path: PathBuf) -> anyhow::Result<Self> {
        let socket =
            UnixDatagram::bind(&path).with_context(|| format!("bind {}", path.display()))?;
        Ok(Self { socket, path })
    }

    /// The next one, or none within `limit` seconds.
    pub fn next(&self, limit: u64) -> anyhow::Result<Option<Birth>> {
        self.next_until(now() + limit * 1_000_000_000)
    }

    /// The next `count`; fewer when `limit` seconds are over.
    pub fn several(&self, count: usize, limit: u64) -> anyhow::Result<Vec<Birth>> {
        let until = now() + limit * 1_000_000_000;
        let mut births = Vec::new();
        while births.len() < count {
            let Some(birth) = self.next_until(until)? else { break };
            births.push(birth);
        }
        Ok(births)
    }

    /// Forgets what was said and not read.
    pub fn drain(&self) -> anyhow::Result<()> {
        while self.next_until(now() + 1_000_000)?.is_some() {}
        Ok(())
    }

    fn next_until(&self, until: u64) -> anyhow::Result<Option<Birth>> {
        let left = until.saturating_sub(now()).max(1_000);
        self.socket.set_read_timeout(Some(Duration::from_nanos(left)))?;
        let mut text = [0; 64];
        let length = match self.socket.recv(&mut text) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("read what a child says"),
        };
        let text = std::str::from_utf8(&text[..length])?;
        let (pid, at) = text.split_once(' ').context("a child says two numbers")?;
        Ok(Some(Birth { pid: pid.parse()?, at: at.parse()? }))
    }
}

/// A command that has the mark, works in `dir` and writes into `dir/output`.
pub fn marked(mut command: Command, mark: &str, dir: &Path) -> anyhow::Result<Command> {
    let output = fs_err::OpenOptions::new().create(true).append(true).open(dir.join("output"))?;
    let output = output.into_parts().0;
    command
        .current_dir(dir)
        .env(super::processes::MARK, mark)
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    Ok(command)
}
