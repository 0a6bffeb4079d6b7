//! The contract of a daemon: an object with a cycle, and what it says of itself.

use std::{fmt, future::Future, time::Duration};

use serde::Serialize;

use crate::{Cx, DaemonId, Spec, drive};

/// A task that the supervisor starts, watches, restarts and stops.
///
/// The future made from a daemon *is* its loop: nothing runs beside it that could die unseen.
/// Each start makes a fresh object, so a restart needs no code of its own.
pub trait Daemon: Send + Sized + 'static {
    /// The constant description.
    const SPEC: Spec;
    /// Its name; a cycle of `needs` does not compile because of this line.
    const ID: DaemonId = Self::SPEC.id;
    /// Settings of this daemon.
    type Config: Send + 'static;
    /// What it may reach outside itself.
    type Ports: Send + 'static;
    /// What a cycle tells people; `()` if nothing.
    type Status: Clone + Default + Serialize + Send + Sync + 'static;

    /// Makes the object; does no work and cannot fail.
    fn new(config: Self::Config, ports: Self::Ports) -> Self;

    /// Runs once before the first cycle; the daemon is ready when it has returned `Ok`.
    ///
    /// An error that contains [`Missing`] ends in `IMPORT_FAILED`, any other is a crash.
    fn start(&mut self, cx: &Cx) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// One pass over the work; takes no input and looks for itself what there is to do.
    ///
    /// An error is a crash; an expected obstacle is [`Outcome::Blocked`].
    fn cycle(
        &mut self,
        cx: &Cx,
    ) -> impl Future<Output = anyhow::Result<Outcome<Self::Status>>> + Send {
        let id = cx.id();
        async move { Err(anyhow::anyhow!("{id} has neither a cycle nor a run of its own")) }
    }

    /// The whole life; the default starts, reports ready and cycles until a stop.
    ///
    /// A daemon that serves writes this one instead of [`Daemon::cycle`]; it then calls
    /// [`Cx::ready`] itself, [`Cx::report`] from time to time, and returns at [`Cx::stopped`].
    fn run(self, cx: Cx) -> impl Future<Output = anyhow::Result<()>> + Send {
        drive::cycles(self, cx)
    }

    /// Last work at an orderly stop, inside the time that the stop leaves.
    ///
    /// The [`Cx`] given here does not answer [`crate::Stopping`] to a beat.
    fn stop(&mut self, cx: &Cx) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// What the daemon thinks of itself after a cycle that was done.
    ///
    /// Part of the cycle: it works on what the cycle found, and if it hangs, the age of the last
    /// beat shows it.
    fn health(&self, last: &Self::Status) -> Health {
        let _ = last;
        Health::Healthy
    }
}

/// How a cycle ended, when it ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<S> {
    /// The work that there was is done.
    Done(S),
    /// An expected obstacle: shown as degraded, never a crash.
    Blocked {
        /// The obstacle, for people.
        reason: String,
        /// When it may be gone; the next cycle comes then, or after the period if that is sooner.
        retry_in: Option<Duration>,
        /// What can be said of the work all the same; `None` keeps the last status.
        status: Option<S>,
    },
}

impl<S> Outcome<S> {
    /// Blocked for a time that nobody knows.
    pub fn blocked(reason: impl Into<String>) -> Self {
        Self::Blocked { reason: reason.into(), retry_in: None, status: None }
    }

    /// Blocked, with a time after which it is worth to look again.
    pub fn blocked_for(reason: impl Into<String>, retry_in: Duration) -> Self {
        Self::Blocked { reason: reason.into(), retry_in: Some(retry_in), status: None }
    }

    /// The same obstacle with a status beside it; a done cycle takes the new status.
    #[must_use]
    pub fn with_status(self, status: S) -> Self {
        match self {
            Self::Done(_) => Self::Done(status),
            Self::Blocked { reason, retry_in, .. } => {
                Self::Blocked { reason, retry_in, status: Some(status) }
            }
        }
    }
}

/// The four words of health, three of them with a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "status", content = "message", rename_all = "snake_case")]
pub enum Health {
    /// Normal operation.
    Healthy,
    /// Works, with issues; never a reason to restart.
    Degraded(String),
    /// Does not work; three such results in a row restart the daemon.
    Unhealthy(String),
    /// Nothing is known: not running, or no result yet.
    #[default]
    Unknown,
}

impl Health {
    /// The bare word: `healthy`, `degraded`, `unhealthy` or `unknown`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded(_) => "degraded",
            Self::Unhealthy(_) => "unhealthy",
            Self::Unknown => "unknown",
        }
    }

    /// The sentence, if there is one.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Degraded(message) | Self::Unhealthy(message) => Some(message),
            Self::Healthy | Self::Unknown => None,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            Some(message) => write!(out, "{} - {message}", self.word()),
            None => out.write_str(self.word()),
        }
    }
}

/// An error that says: this machine lacks something, so trying again is pointless.
///
/// Anywhere in the chain of an error it ends the daemon in `IMPORT_FAILED`, without a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("missing: {0}")]
pub struct Missing(
    /// What is missing: a binary, a driver, a feature.
    pub String,
);
