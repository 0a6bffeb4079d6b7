//! PyTorch, by package name, in a virtual environment that the long suite `torch` uses too.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::workspace::{Workspace, capture, present};

/// An interpreter that knows numpy and torch; made if it is not there.
pub fn python(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let place = workspace.root().join("target/tmp/torch-venv");
    let python = place.join("bin/python");
    let works = || {
        let mut command = workspace.command(&python);
        command.args(["-c", "import numpy, torch"]);
        present(command)
    };
    if works() {
        return Ok(python);
    }
    eprintln!("torch: installing numpy and torch, a download of 2.8 GB, once");
    let mut make = workspace.command("python3");
    make.args(["-m", "venv"]).arg(&place);
    capture(make).context("make a virtual environment")?;
    let mut install = workspace.command(&python);
    install.args(["-m", "pip", "install", "--quiet", "numpy", "torch"]);
    capture(install).context("pip install numpy torch")?;
    ensure!(works(), "numpy and torch are installed but do not load");
    Ok(python)
}
