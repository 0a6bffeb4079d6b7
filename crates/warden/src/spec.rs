//! What the supervisor must know of a daemon before it has one.

use std::{fmt, time::Duration};

use serde::Serialize;

/// Name of a daemon, upper case: `"AUTO_SYNC"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct DaemonId(pub &'static str);

impl DaemonId {
    /// The name as written, upper case.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for DaemonId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.0)
    }
}

/// How much a daemon matters to people who read a list of them; it changes no behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Nothing works without it.
    Critical,
    /// The main work.
    High,
    /// Work that may be late.
    Medium,
    /// Comfort.
    Low,
}

/// Name of a set of daemons that a kind of node starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Profile(pub &'static str);

/// A token that wakes every daemon whose spec names it; what it stands for is the caller's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Wake(pub &'static str);

/// The constant description of one daemon type.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spec {
    /// Name, unique in a supervisor.
    pub id: DaemonId,
    /// What it does, one clause for people.
    pub about: &'static str,
    /// See [`Priority`].
    pub priority: Priority,
    /// Daemons that must be running, and not unhealthy, before this one starts.
    pub needs: &'static [DaemonId],
    /// Profiles that contain it.
    pub profiles: &'static [Profile],
    /// Pause between the end of a cycle and the next one, if nothing wakes it earlier.
    pub period: Duration,
    /// Tokens that cut that pause short.
    pub wakes_on: &'static [Wake],
    /// Liveness of the whole process depends on it, and its health is read more often.
    pub critical: bool,
    /// Only the leader of a cluster runs it, see [`crate::Handle::lead`].
    pub leader_only: bool,
    /// Restarts in a row before it is given up; `None` = the supervisor's default.
    pub max_restarts: Option<u32>,
    /// Time between two readings of its health; `None` = the supervisor's default.
    pub health_interval: Option<Duration>,
    /// A start that has not reported ready for so long has failed.
    pub ready_within: Duration,
    /// Longest silence between two beats inside a cycle; each such silence is one bad result.
    pub cycle_limit: Duration,
}

impl Spec {
    /// The usual values, so that a spec states only what is particular: `..Spec::DEFAULT`.
    ///
    /// `ready_within` is 30 s (source: manager contract, section 5). A cycle of 60 s is a choice
    /// of ours: long enough for any period in use, short enough to be noticed within minutes.
    pub const DEFAULT: Self = Self {
        id: DaemonId(""),
        about: "",
        priority: Priority::Medium,
        needs: &[],
        profiles: &[],
        period: Duration::from_mins(1),
        wakes_on: &[],
        critical: false,
        leader_only: false,
        max_restarts: None,
        health_interval: None,
        ready_within: Duration::from_secs(30),
        cycle_limit: Duration::from_mins(1),
    };
}
