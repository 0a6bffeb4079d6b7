//! What the supervisor shows: states, a snapshot of everything, transitions.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{BreakerStatus, DaemonId, Health, History, Priority, Tier};

/// The eight states of a daemon; printed in upper case, lower case in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not asked for, stopped on request, or finished.
    #[default]
    Stopped,
    /// Waits for what it needs, or has not said yet that it is ready.
    Starting,
    /// Has said that it is ready.
    Running,
    /// Asked to end.
    Stopping,
    /// Given up after too many crashes; waits for a person.
    Failed,
    /// Crashed or unhealthy; ends, waits for its next try, or is in it.
    Restarting,
    /// The machine lacks something it needs; not tried again.
    ImportFailed,
    /// Too many restarts in an hour; the next try comes much later.
    Degraded,
}

impl State {
    /// The name in upper case, as the status command prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Failed => "FAILED",
            Self::Restarting => "RESTARTING",
            Self::ImportFailed => "IMPORT_FAILED",
            Self::Degraded => "DEGRADED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// Why a state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Somebody asked for it, or for a daemon that needs it.
    StartRequested,
    /// The daemon said that it is ready.
    Ready,
    /// Ready again after a crash.
    RestartComplete,
    /// It returned an error or panicked.
    Exception,
    /// It did not say in time that it is ready.
    NotReady,
    /// Too many bad results in a row.
    Unhealthy,
    /// One crash more than it may have.
    MaxRestartsExceeded,
    /// Too many crashes in an hour.
    HourlyLimitExceeded,
    /// The pause after a crash is over.
    AutoRestart,
    /// It is critical, and the breaker over all restarts has closed.
    CascadeRecovery,
    /// The machine lacks something.
    ImportError,
    /// Somebody asked to stop or restart it.
    StopRequested,
    /// It is leader-only, and this node does not lead.
    LeadershipLost,
    /// It is leader-only, and this node leads now.
    LeadershipGained,
    /// The whole supervisor shuts down.
    Shutdown,
    /// It ended after it had been asked to.
    Ended,
    /// It ended by itself and well.
    Finished,
}

impl Reason {
    /// The reason in snake case, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::StartRequested => "start_requested",
            Self::Ready => "ready",
            Self::RestartComplete => "restart_complete",
            Self::Exception => "exception",
            Self::NotReady => "not_ready",
            Self::Unhealthy => "unhealthy",
            Self::MaxRestartsExceeded => "max_restarts_exceeded",
            Self::HourlyLimitExceeded => "hourly_limit_exceeded",
            Self::AutoRestart => "auto_restart",
            Self::CascadeRecovery => "cascade_recovery",
            Self::ImportError => "import_error",
            Self::StopRequested => "stop_requested",
            Self::LeadershipLost => "leadership_lost",
            Self::LeadershipGained => "leadership_gained",
            Self::Shutdown => "shutdown",
            Self::Ended => "ended",
            Self::Finished => "finished",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// Whose state.
    pub daemon: DaemonId,
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// The error behind it, whole chain in one line.
    pub error: Option<String>,
    /// Wall clock, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// What is worth keeping or telling beside states; they are no transitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Another history of a daemon: keep it, and hand it to the next supervisor with
    /// [`crate::Runnable::remembering`].
    History {
        /// Whose.
        daemon: DaemonId,
        /// The whole of it; earlier ones are void.
        history: History,
    },
    /// Three crashes within five minutes, told once until there are fewer.
    CrashLoop {
        /// Whose.
        daemon: DaemonId,
        /// How many there are by now.
        crashes: u32,
    },
    /// There were too many restarts: none for a while.
    BreakerTripped(BreakerStatus),
    /// Restarts go on.
    BreakerClosed {
        /// Critical daemons that were started for it.
        revived: Vec<DaemonId>,
    },
}

/// The crashes of one daemon, beside those in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Crashes {
    /// Crashes under this supervisor that were followed by a restart.
    pub total_restarts: u64,
    /// Crashes within the last five minutes, of this and of earlier lives.
    pub recent: u32,
    /// They are three or more.
    pub looping: bool,
    /// Its tier; `None` unless restarts go by the hour.
    pub tier: Option<Tier>,
}

/// Everything about one daemon at one moment.
#[derive(Debug, Clone)]
pub struct DaemonView {
    /// Its name.
    pub id: DaemonId,
    /// From its spec.
    pub priority: Priority,
    /// From its spec.
    pub critical: bool,
    /// Somebody wants it to run here: by name, or as a need of another, and if it is leader-only,
    /// this node leads.
    pub asked: bool,
    /// Its state.
    pub state: State,
    /// What explains the state: `waiting for X`, `hung`, `restart 2 of 5` ...
    pub cause: Option<String>,
    /// Health as the supervisor judges it.
    pub health: Health,
    /// The last status that the daemon published; null before the first.
    pub details: serde_json::Value,
    /// Crashes in a row that were followed by a restart; 0 again after an hour of running.
    pub restarts: u32,
    /// More about them.
    pub crashes: Crashes,
    /// The last error, whole chain in one line; stays visible after a recovery.
    pub last_error: Option<String>,
    /// Wall clock of the last start of its task.
    pub started_at_ms: Option<i64>,
    /// Time since it became ready; zero unless running.
    pub uptime: Duration,
    /// Time since its last sign of life; `None` without a task.
    pub last_beat_age: Option<Duration>,
    /// How long the cycle at work lasts already.
    pub in_cycle: Option<Duration>,
    /// Cycles ended since its task began.
    pub cycles: u64,
    /// Length of the last cycle.
    pub last_cycle: Option<Duration>,
    /// Time until the next try; `None` while failed: a person must act.
    pub next_retry_in: Option<Duration>,
}

/// Everything at one moment; probes and pages read this and ask nobody.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// All registered daemons, in start order.
    pub daemons: Vec<DaemonView>,
    /// Age of the supervisor.
    pub uptime: Duration,
    /// Wall clock at which its loop last turned; old = the supervisor itself is stuck.
    pub turned_at_ms: i64,
    /// A shutdown is going on or over.
    pub stopping: bool,
    /// The breaker over all restarts.
    pub breaker: BreakerStatus,
}

impl Snapshot {
    /// The view of one daemon.
    pub fn get(&self, id: DaemonId) -> Option<&DaemonView> {
        self.daemons.iter().find(|view| view.id == id)
    }

    /// Critical daemons that are asked for and neither running well nor starting in time.
    ///
    /// Empty = the process is alive in the sense of a liveness probe.
    pub fn dead_criticals(&self) -> Vec<&DaemonView> {
        self.daemons
            .iter()
            .filter(|view| view.critical && view.asked)
            .filter(|view| match view.state {
                State::Running => matches!(view.health, Health::Unhealthy(_)),
                State::Starting => matches!(view.health, Health::Degraded(_)),
                _ => true,
            })
            .collect()
    }

    /// Daemons that are asked for and not running; empty = ready in the sense of a readiness probe.
    pub fn not_running(&self) -> Vec<&DaemonView> {
        self.daemons.iter().filter(|view| view.asked && view.state != State::Running).collect()
    }
}
