//! Health: what a daemon says of itself, how old its last beat is, whether a cycle is late.

use std::time::Duration;

use super::At;
use crate::{Health, Spec};

/// What a reading of a running daemon saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vitals {
    pub(crate) health: Health,
    pub(crate) bad_in_a_row: u32,
    pub(crate) in_cycle: bool,
    pub(crate) last_beat: At,
    pub(crate) due: Option<At>,
}

/// The next instant at which daemons of this interval are read: all at once, so that an idle
/// supervisor wakes once for all of them.
pub(super) fn next_on_grid(now: At, interval: Duration) -> At {
    let interval = interval.max(Duration::from_millis(1));
    let past = u64::try_from(now.as_nanos() % interval.as_nanos()).unwrap_or(0);
    now + interval.saturating_sub(Duration::from_nanos(past))
}

/// Health, and how many bad results in a row stand behind it.
pub(super) fn judge(spec: &Spec, now: At, vitals: &Vitals) -> (Health, u32) {
    let limit = spec.cycle_limit.max(Duration::from_millis(1));
    let silence = now.saturating_sub(vitals.last_beat);
    if vitals.in_cycle && silence >= limit {
        // Each full limit of silence is one result, so that reading often does not count double.
        let silent = u32::try_from(silence.as_millis() / limit.as_millis()).unwrap_or(u32::MAX);
        let message = format!("no beat for {} s", silence.as_secs());
        return (Health::Unhealthy(message), vitals.bad_in_a_row.saturating_add(silent));
    }
    let overdue = vitals.due.and_then(|due| now.checked_sub(due + limit));
    let health = match (&vitals.health, overdue) {
        // Its runtime is starved, mostly by others: a restart would not help, so only degraded.
        (Health::Healthy | Health::Unknown, Some(over)) => {
            Health::Degraded(format!("cycle overdue by {} s", (over + limit).as_secs()))
        }
        (health, _) => health.clone(),
    };
    (health, vitals.bad_in_a_row)
}
