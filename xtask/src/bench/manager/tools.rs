//! Where the peers come from: package registries, by name, into the system or `target/tools`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::processes::find;
use crate::workspace::{Workspace, capture};

/// A package, and the program in it that is run.
#[derive(Debug, Clone, Copy)]
pub enum Package {
    Debian {
        name: &'static str,
        program: &'static str,
    },
    /// The versions are pinned: a figure belongs to a version.
    Python {
        name: &'static str,
        version: &'static str,
        program: &'static str,
    },
    Node {
        name: &'static str,
        version: &'static str,
        program: &'static str,
    },
}

impl Package {
    /// The program, installed if need be; the error is one sentence that says how to install it.
    pub fn program(self, workspace: &Workspace) -> anyhow::Result<PathBuf> {
        if let Some(found) = self.installed(workspace) {
            return Ok(found);
        }
        let (name, how) = self.how();
        eprintln!("installing {name} ({how})");
        self.install(workspace).with_context(|| format!("{name} is not installed: {how}"))?;
        let found = self.installed(workspace);
        found.with_context(|| format!("{name} lacks its program after: {how}"))
    }

    fn installed(self, workspace: &Workspace) -> Option<PathBuf> {
        let tools = workspace.root().join("target/tools");
        let program = match self {
            Self::Debian { program, .. } => return find(program),
            Self::Python { program, .. } => tools.join("python/bin").join(program),
            Self::Node { program, .. } => tools.join("node/node_modules/.bin").join(program),
        };
        program.is_file().then_some(program)
    }

    fn how(self) -> (&'static str, String) {
        match self {
            Self::Debian { name, .. } => (name, format!("as root, apt-get install {name}")),
            Self::Python { name, version, .. } => (name, format!("pip install {name}=={version}")),
            Self::Node { name, version, .. } => (name, format!("npm install {name}@{version}")),
        }
    }

    fn install(self, workspace: &Workspace) -> anyhow::Result<()> {
        let tools = workspace.root().join("target/tools");
        let run = |program: PathBuf, words: &[&str]| {
            let mut command = workspace.command(program);
            command.args(words);
            capture(command).map(drop)
        };
        match self {
            Self::Debian { name, .. } => {
                anyhow::ensure!(rustix::process::geteuid().is_root(), "this user may not");
                let apt = find("apt-get").context("there is no apt-get here")?;
                let install = ["install", "-y", "-qq", "--no-install-recommends", name];
                if run(apt.clone(), &install).is_ok() {
                    return Ok(());
                }
                // The list of packages may be older than the packages.
                run(apt.clone(), &["update", "-qq"])?;
                run(apt, &install)
            }
            Self::Python { name, version, .. } => {
                let python = find("python3").context("there is no python3 here")?;
                let place = tools.join("python");
                if !place.join("bin/pip").is_file() {
                    run(python, &["-m", "venv", &place.to_string_lossy()])?;
                }
                run(place.join("bin/pip"), &["install", "-q", &format!("{name}=={version}")])
            }
            Self::Node { name, version, .. } => {
                let npm = find("npm").context("there is no npm here")?;
                let place = tools.join("node");
                let prefix = ["install", "--silent", "--no-fund", "--no-audit", "--prefix"];
                let package = format!("{name}@{version}");
                run(npm, &[&prefix[..], &[&*place.to_string_lossy(), &package]].concat())
            }
        }
    }
}
