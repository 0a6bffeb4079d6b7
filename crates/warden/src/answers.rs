//! Questions to a [`Handle`] in the words of the runbook, answered from the last snapshot.

use std::time::Duration;

use serde::Serialize;

use crate::{BreakerStatus, DaemonId, DaemonView, Handle, State, Tier};

/// Health of one daemon, as programs ask for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DaemonHealth {
    /// `healthy`, `degraded`, `unhealthy` or `unknown`.
    pub status: &'static str,
    /// The sentence behind it; what explains the state, if health has none; else empty.
    pub message: String,
    /// The last status that the daemon published; null before the first.
    pub details: serde_json::Value,
}

impl From<&DaemonView> for DaemonHealth {
    fn from(view: &DaemonView) -> Self {
        let message = view.health.message().or(view.cause.as_deref()).unwrap_or_default();
        Self {
            status: view.health.word(),
            message: message.to_owned(),
            details: view.details.clone(),
        }
    }
}

/// What is known of one daemon beside its health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DaemonInfo {
    /// Its name.
    pub id: DaemonId,
    /// Its state.
    pub state: State,
    /// What explains the state.
    pub cause: Option<String>,
    /// Crashes in a row that were followed by a restart.
    pub restart_count: u32,
    /// The last error, whole chain in one line.
    pub last_error: Option<String>,
    /// Time since it became ready; zero unless running.
    pub uptime: Duration,
    /// Time until the next try; `None` if none is planned.
    pub next_retry_in: Option<Duration>,
    /// Somebody wants it to run here.
    pub asked: bool,
}

/// A daemon whose restarts are slowed down by its crashes of the last hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DegradedDaemon {
    /// Its name.
    pub id: DaemonId,
    /// Its tier.
    pub tier: Tier,
    /// Time until the next try; `None` while it runs.
    pub next_retry_in: Option<Duration>,
    /// Liveness of the process depends on it.
    pub critical: bool,
}

/// The lives of all daemons in a few figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LifecycleSummary {
    /// Age of the supervisor.
    pub manager_uptime: Duration,
    /// Restarts after crashes, of all daemons.
    pub total_restarts: u64,
    /// Of those that run.
    pub average_uptime: Duration,
    /// Of those that run.
    pub longest_uptime: Duration,
    /// Of those that run.
    pub shortest_uptime: Duration,
    /// Who was restarted most, and how often; `None` if nobody was.
    pub most_restarts: Option<(DaemonId, u64)>,
}

/// These read the last snapshot and wait for nobody.
impl Handle {
    /// Health of one daemon; `None` if nobody is called so.
    pub fn daemon_health(&self, id: DaemonId) -> Option<DaemonHealth> {
        self.snapshot().get(id).map(DaemonHealth::from)
    }

    /// Health of all, in start order.
    pub fn all_daemon_health(&self) -> Vec<(DaemonId, DaemonHealth)> {
        self.snapshot().daemons.iter().map(|view| (view.id, view.into())).collect()
    }

    /// Does every critical daemon that is asked for run, and not badly?
    pub fn liveness_probe(&self) -> bool {
        self.snapshot().dead_criticals().is_empty()
    }

    /// State, restarts and last error of one daemon; `None` if nobody is called so.
    pub fn daemon_info(&self, id: DaemonId) -> Option<DaemonInfo> {
        let snapshot = self.snapshot();
        let view = snapshot.get(id)?;
        Some(DaemonInfo {
            id,
            state: view.state,
            cause: view.cause.clone(),
            restart_count: view.restarts,
            last_error: view.last_error.clone(),
            uptime: view.uptime,
            next_retry_in: view.next_retry_in,
            asked: view.asked,
        })
    }

    /// Daemons in `FAILED` or `IMPORT_FAILED`, with the last error.
    pub fn failed_daemons(&self) -> Vec<(DaemonId, String)> {
        let snapshot = self.snapshot();
        let failed = snapshot
            .daemons
            .iter()
            .filter(|view| matches!(view.state, State::Failed | State::ImportFailed));
        failed.map(|view| (view.id, view.last_error.clone().unwrap_or_default())).collect()
    }

    /// Daemons that crashed within the last five minutes, and how often.
    pub fn recent_restarts(&self) -> Vec<(DaemonId, u32)> {
        let snapshot = self.snapshot();
        let crashed = snapshot.daemons.iter().filter(|view| view.crashes.recent > 0);
        crashed.map(|view| (view.id, view.crashes.recent)).collect()
    }

    /// Daemons beyond the normal tier; always empty unless restarts go by the hour.
    pub fn degraded_daemons(&self) -> Vec<DegradedDaemon> {
        let degraded = |view: &DaemonView| {
            let tier = view.crashes.tier.filter(|tier| *tier > Tier::Normal)?;
            let (id, critical) = (view.id, view.critical);
            Some(DegradedDaemon { id, tier, next_retry_in: view.next_retry_in, critical })
        };
        self.snapshot().daemons.iter().filter_map(degraded).collect()
    }

    /// The breaker over all restarts.
    pub fn circuit_breaker_status(&self) -> BreakerStatus {
        self.snapshot().breaker.clone()
    }

    /// All lives in a few figures.
    pub fn lifecycle_summary(&self) -> LifecycleSummary {
        let snapshot = self.snapshot();
        let running = || snapshot.daemons.iter().filter(|view| view.state == State::Running);
        let uptimes = || running().map(|view| view.uptime);
        let count = u32::try_from(running().count()).unwrap_or(u32::MAX);
        let restarts =
            || snapshot.daemons.iter().map(|view| (view.id, view.crashes.total_restarts));
        LifecycleSummary {
            manager_uptime: snapshot.uptime,
            total_restarts: restarts().map(|(_, count)| count).sum(),
            average_uptime: uptimes().sum::<Duration>().checked_div(count).unwrap_or_default(),
            longest_uptime: uptimes().max().unwrap_or_default(),
            shortest_uptime: uptimes().min().unwrap_or_default(),
            most_restarts: restarts()
                .filter(|&(_, count)| count > 0)
                .max_by_key(|&(_, count)| count),
        }
    }
}
