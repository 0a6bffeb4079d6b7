//! Running the binary: nothing of the caller's environment reaches it.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// The binary under test.
pub const RINGRIFT: &str = env!("CARGO_BIN_EXE_ringrift");

/// A command in a folder, without any variable of ours.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    command_of(RINGRIFT, folder, args)
}

/// The same of another binary.
pub fn command_of(program: &str, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("RINGRIFT_") {
            command.env_remove(key);
        }
    }
    command
}

/// What a command printed, and its exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// The output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a command to its end.
pub fn run(folder: &Path, args: &[&str]) -> Ended {
    command(folder, args).output().unwrap().into()
}

/// Runs it with variables.
pub fn run_with(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Ended {
    command(folder, args).envs(env.iter().copied()).output().unwrap().into()
}

/// The exit code, and one line on standard error that has all the parts.
pub fn check_refused(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, code, "{ended:?}");
    assert_eq!(ended.err.trim_end().lines().count(), 1, "one sentence: {ended:?}");
    for part in parts {
        assert!(ended.err.contains(part), "{part} is missing: {ended:?}");
    }
    assert!(!ended.err.contains("panicked"), "{ended:?}");
}

/// Waits until a condition holds, or fails with what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
