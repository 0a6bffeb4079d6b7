//! The one place that decides when a crashed daemon is tried again.

use std::time::Duration;

use serde::Serialize;

use crate::Spec;

mod breaker;
mod restarts;

pub use breaker::{Breaker, BreakerStatus};
pub(crate) use breaker::{Cascade, Grant};
pub use restarts::{Degraded, History};
pub(crate) use restarts::{Next, Restarts};

/// What follows a crash: a ladder of growing pauses, then the end.
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
    /// Instead of the ladder: pauses by the crashes of the last hour, and no end; off by default.
    pub hourly: Option<Hourly>,
    /// Stops all restarts for a while when there are too many at once; off by default.
    pub breaker: Option<Breaker>,
}

/// Pauses by the crashes of the last hour, for machines that nobody looks at for days.
///
/// Source of all numbers: manager contract, section 7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hourly {
    /// Most crashes in an hour of the normal tier.
    pub normal_max: u32,
    /// Its first pause; each further crash of the hour doubles it.
    pub normal_base: Duration,
    /// Its longest pause.
    pub normal_cap: Duration,
    /// Most crashes in an hour of the elevated tier; beyond it a daemon is `DEGRADED`.
    pub elevated_max: u32,
    /// The first pause of the elevated tier.
    pub elevated_base: Duration,
    /// Its longest pause.
    pub elevated_cap: Duration,
    /// Pause of a critical daemon in the degraded tier.
    pub retry_critical: Duration,
    /// Pause of any other there.
    pub retry_other: Duration,
    /// So long after it entered the degraded tier a daemon leaves it, its crashes forgotten.
    pub leave_after: Duration,
}

/// Where a daemon stands by its crashes of the last hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Short pauses.
    #[default]
    Normal,
    /// Minutes.
    Elevated,
    /// Half an hour, or hours.
    Degraded,
}

impl Default for Hourly {
    fn default() -> Self {
        Self {
            normal_max: 5,
            normal_base: Duration::from_secs(5),
            normal_cap: Duration::from_secs(80),
            elevated_max: 10,
            elevated_base: Duration::from_secs(160),
            elevated_cap: Duration::from_secs(320),
            retry_critical: Duration::from_mins(30),
            retry_other: Duration::from_hours(4),
            leave_after: Duration::from_hours(2),
        }
    }
}

impl Hourly {
    fn tier(&self, in_hour: u32) -> Tier {
        if in_hour > self.elevated_max {
            Tier::Degraded
        } else if in_hour > self.normal_max {
            Tier::Elevated
        } else {
            Tier::Normal
        }
    }

    fn pause(&self, spec: &Spec, in_hour: u32) -> Duration {
        match self.tier(in_hour) {
            Tier::Normal => doubled(self.normal_base, self.normal_cap, in_hour),
            Tier::Elevated => {
                doubled(self.elevated_base, self.elevated_cap, in_hour - self.normal_max)
            }
            Tier::Degraded if spec.critical => self.retry_critical,
            Tier::Degraded => self.retry_other,
        }
    }
}

/// Pause number `step`, from 1 on, of pauses that double up to a cap.
fn doubled(base: Duration, cap: Duration, step: u32) -> Duration {
    let factor = 1_u32.checked_shl(step.saturating_sub(1)).unwrap_or(u32::MAX);
    base.checked_mul(factor).map_or(cap, |pause| pause.min(cap))
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
            breaker: None,
        }
    }
}

impl RestartPolicy {
    /// Restarts in a row that a daemon of this spec may have.
    pub fn limit(&self, spec: &Spec) -> u32 {
        self.max_override.or(spec.max_restarts).unwrap_or(self.max)
    }

    /// The pause after crash number `crash`, counted from 1.
    pub fn pause(&self, crash: u32) -> Duration {
        doubled(self.base, self.cap, crash)
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
    }

    #[test]
    fn the_pauses_of_an_hour_follow_its_tiers() {
        let hourly = Hourly::default();
        let pauses = |spec: &Spec| -> Vec<u64> {
            (1..=12).map(|crash| hourly.pause(spec, crash).as_secs()).collect()
        };
        let tiers = [5, 10, 20, 40, 80, 160, 320, 320, 320, 320];
        assert_eq!(pauses(&Spec::DEFAULT), [&tiers[..], &[14_400, 14_400]].concat());
        let critical = Spec { critical: true, ..Spec::DEFAULT };
        assert_eq!(pauses(&critical), [&tiers[..], &[1_800, 1_800]].concat());
    }
}
