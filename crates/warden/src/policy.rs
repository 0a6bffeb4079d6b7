//! The one place that decides when a crashed daemon is tried again.

use std::time::Duration;

use crate::Spec;

/// Restart after a crash: a ladder of growing pauses, then the end.
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    /// Pause after the first crash; each further one doubles it. Source: runbook, "Auto-Restart".
    pub base: Duration,
    /// Longest pause. Source: the same table.
    pub cap: Duration,
    /// Restarts in a row before a daemon is given up, unless its spec says another number.
    pub max: u32,
    /// An operator's explicit number: beats `max` and the specs.
    pub max_override: Option<u32>,
    /// Running for so long forgives all crashes. Source: manager contract, section 6.
    pub reset_after: Duration,
    /// Many restarts spread over an hour lead to a long pause; off by default.
    pub hourly: Option<Hourly>,
}

/// The long pause of a daemon that keeps crashing (manager contract, section 7).
#[derive(Debug, Clone)]
pub struct Hourly {
    /// More crashes than this within an hour put the daemon into `DEGRADED`.
    pub max: u32,
    /// Pause of a critical daemon.
    pub retry_critical: Duration,
    /// Pause of any other.
    pub retry_other: Duration,
}

impl Default for Hourly {
    fn default() -> Self {
        Self {
            max: 10,
            retry_critical: Duration::from_mins(30),
            retry_other: Duration::from_hours(4),
        }
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(16),
            max: 5,
            max_override: None,
            reset_after: Duration::from_hours(1),
            hourly: None,
        }
    }
}

/// What follows a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Retry(Duration),
    Park(Duration),
    Fail,
}

impl RestartPolicy {
    /// Restarts in a row that a daemon of this spec may have.
    pub fn limit(&self, spec: &Spec) -> u32 {
        self.max_override.or(spec.max_restarts).unwrap_or(self.max)
    }

    /// The pause after crash number `crash`, counted from 1.
    pub fn pause(&self, crash: u32) -> Duration {
        let doublings = crash.saturating_sub(1);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.base.checked_mul(factor).map_or(self.cap, |pause| pause.min(self.cap))
    }

    /// `crash` counts those in a row, `in_hour` those of the last hour, this one included.
    pub(crate) fn after(&self, spec: &Spec, crash: u32, in_hour: u32) -> Next {
        if let Some(hourly) = self.hourly.as_ref().filter(|hourly| in_hour > hourly.max) {
            return Next::Park(if spec.critical {
                hourly.retry_critical
            } else {
                hourly.retry_other
            });
        }
        if crash > self.limit(spec) { Next::Fail } else { Next::Retry(self.pause(crash)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_never_overflow() {
        let policy = RestartPolicy::default();
        let pauses: Vec<u64> = (1..=6).map(|crash| policy.pause(crash).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16]);
        assert_eq!(policy.pause(40), policy.cap);
        assert_eq!(policy.pause(u32::MAX), policy.cap);
    }

    #[test]
    fn the_operators_number_beats_the_spec_and_the_spec_beats_the_default() {
        let spec = Spec { max_restarts: Some(20), ..Spec::DEFAULT };
        let mut policy = RestartPolicy::default();
        assert_eq!((policy.limit(&Spec::DEFAULT), policy.limit(&spec)), (5, 20));
        policy.max_override = Some(2);
        assert_eq!((policy.limit(&Spec::DEFAULT), policy.limit(&spec)), (2, 2));
        assert_eq!(policy.after(&spec, 2, 2), Next::Retry(Duration::from_secs(2)));
        assert_eq!(policy.after(&spec, 3, 3), Next::Fail);
    }

    #[test]
    fn many_crashes_in_an_hour_park_the_daemon_if_that_is_switched_on() {
        let policy = RestartPolicy { hourly: Some(Hourly::default()), ..RestartPolicy::default() };
        let critical = Spec { critical: true, ..Spec::DEFAULT };
        assert_eq!(policy.after(&Spec::DEFAULT, 1, 10), Next::Retry(policy.base));
        assert_eq!(policy.after(&Spec::DEFAULT, 1, 11), Next::Park(Duration::from_hours(4)));
        assert_eq!(policy.after(&critical, 9, 11), Next::Park(Duration::from_mins(30)));
    }
}
