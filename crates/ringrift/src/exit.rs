//! Exit codes: what a script may rely on.

use std::process::ExitCode;

/// Why a command did not do what was asked, and the code that says so.
///
/// Source: decisions, "Commands": 0 done; 1 a check or a run failed; 2 usage or configuration; 3 no
/// manager is running; 4 goal not reached; 75 and 125 only for workers.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub code: u8,
    /// One sentence for people; none if everything was said.
    pub error: Option<anyhow::Error>,
}

/// How a command ends.
pub type Outcome = Result<(), Failure>;

/// A check or a run failed.
pub const FAILED: u8 = 1;
/// Wrong usage or configuration; nothing was done.
pub const USAGE: u8 = 2;
/// No manager is running.
pub const NO_MANAGER: u8 = 3;
/// The time was over before the goal was reached.
pub const GOAL_MISSED: u8 = 4;
/// Worker: the same job may succeed later.
pub const TRY_AGAIN: u8 = 75;
/// Worker: the same job can never succeed.
pub const NEVER_AGAIN: u8 = 125;

impl Failure {
    /// A failure with this code.
    pub fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: Some(error.into()) }
    }

    /// Wrong usage or configuration.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(USAGE, error)
    }

    /// Everything that is to be said stands on standard output already.
    pub fn told(code: u8) -> Self {
        Self { code, error: None }
    }

    /// Prints what is to be said; gives the exit code.
    pub fn end(self) -> ExitCode {
        if let Some(error) = &self.error {
            crate::console::complain(&format!("error: {error:#}"));
        }
        ExitCode::from(self.code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(FAILED, error)
    }
}

/// A failure of another code out of any error.
pub trait OrExit<T> {
    /// Wrong usage or configuration.
    fn or_usage(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_usage(self) -> Result<T, Failure> {
        self.map_err(Failure::usage)
    }
}
