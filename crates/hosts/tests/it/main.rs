//! Commands, `ssh` and providers against real programs.

#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

mod programs;
mod provider;
mod ssh;

use std::{os::unix::fs::PermissionsExt as _, path::Path};

/// A command that a shell runs.
fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// An executable script.
fn script(path: &Path, text: &str) -> String {
    // Under another name first: a file that is still open for writing cannot be run.
    let aside = path.with_extension("new");
    fs_err::write(&aside, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs_err::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).unwrap();
    fs_err::rename(&aside, path).unwrap();
    path.to_str().unwrap().to_owned()
}
