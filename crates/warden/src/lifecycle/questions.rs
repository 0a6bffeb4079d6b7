//! What may be asked of the machine; nothing here changes it.

use std::time::Duration;

use super::{After, At, Life, Lifecycle, Obstacle, Phase, millis};
use crate::{BreakerStatus, Crashes, Health, History, State};

impl Lifecycle {
    pub(crate) fn draining(&self) -> bool {
        self.drain.is_some()
    }

    /// The shutdown is over: no task is left but hung ones.
    pub(crate) fn drained(&self) -> bool {
        self.drain.is_some_and(|drain| drain.over)
    }

    /// Daemons for whom something is due by time.
    pub(crate) fn due(&self, now: At) -> Vec<usize> {
        self.deadlines.range(..=(now, usize::MAX)).map(|&(_, at)| at).collect()
    }

    /// The health of this daemon should be read now.
    pub(crate) fn read_due(&self, now: At, at: usize) -> bool {
        let life = &self.lives[at];
        matches!(life.phase, Phase::Running { .. }) && life.read_at <= now
    }

    pub(crate) fn state(&self, at: usize) -> State {
        self.lives[at].phase.state()
    }

    pub(crate) fn has_task(&self, at: usize) -> bool {
        self.lives[at].phase.has_task()
    }

    /// Number of the newest task.
    pub(crate) fn run(&self, at: usize) -> u64 {
        self.lives[at].run
    }

    pub(crate) fn is_hung(&self, at: usize) -> bool {
        matches!(self.lives[at].phase, Phase::Ending { hung: true, .. })
    }

    pub(crate) fn asked(&self, at: usize) -> bool {
        self.lives[at].asked && !self.stands_by(at)
    }

    /// Somebody wants to start, now or within this turn.
    pub(crate) fn anybody_starts(&self, now: At) -> bool {
        self.lives.iter().any(|life| match life.phase {
            Phase::Waiting { .. } => true,
            Phase::Backoff { until, .. } | Phase::Parked { until, .. } => until <= now,
            _ => false,
        })
    }

    pub(crate) fn restarts(&self, at: usize) -> u32 {
        self.lives[at].restarts.in_a_row()
    }

    pub(crate) fn crashes(&self, now: At, at: usize) -> Crashes {
        let restarts = &self.lives[at].restarts;
        let now = millis(now);
        Crashes {
            total_restarts: restarts.total(),
            recent: restarts.recent(now),
            looping: restarts.is_looping(now),
            tier: restarts.tier(now),
        }
    }

    pub(crate) fn history(&self, now: At, at: usize, now_ms: i64) -> History {
        self.lives[at].restarts.history(millis(now), now_ms, self.last_error(at))
    }

    pub(crate) fn breaker(&self, now: At) -> BreakerStatus {
        let (running, asked) = self.criticals();
        self.cascade.status(now, running, asked)
    }

    /// Critical daemons that run, and that somebody asked for.
    pub(super) fn criticals(&self) -> (u32, u32) {
        let asked =
            (0..self.lives.len()).filter(|&at| self.lives[at].spec.critical && self.asked(at));
        asked.fold((0, 0), |(running, asked), at| {
            (running + u32::from(self.lives[at].seen.runs), asked + 1)
        })
    }

    pub(crate) fn last_error(&self, at: usize) -> Option<&str> {
        self.lives[at].last_error.as_deref()
    }

    pub(crate) fn uptime(&self, now: At, at: usize) -> Duration {
        match self.lives[at].phase {
            Phase::Running { since } => now.saturating_sub(since),
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn next_retry_in(&self, now: At, at: usize) -> Option<Duration> {
        match self.lives[at].phase {
            Phase::Backoff { until, .. } | Phase::Parked { until, .. } => {
                Some(until.saturating_sub(now))
            }
            _ => None,
        }
    }

    pub(crate) fn health(&self, at: usize) -> Health {
        let life = &self.lives[at];
        match &life.phase {
            Phase::Ending { hung: true, .. } => Health::Unhealthy("hung".into()),
            Phase::Waiting { late: true, .. } => match self.obstacle(at) {
                Some(Obstacle::Need(need)) => {
                    Health::Degraded(format!("{} is not ready", self.id(need)))
                }
                Some(Obstacle::Memory(used)) => {
                    Health::Degraded(format!("{used} % of memory is used"))
                }
                None => Health::Unknown,
            },
            Phase::Running { .. } => match (&life.health, self.fallen(at)) {
                (Health::Healthy | Health::Unknown, Some(need)) => {
                    Health::Degraded(format!("needs {}", self.id(need)))
                }
                (health, _) => health.clone(),
            },
            _ => Health::Unknown,
        }
    }

    pub(crate) fn cause(&self, at: usize) -> Option<String> {
        let life = &self.lives[at];
        match &life.phase {
            Phase::Stopped => life.finished.then(|| "finished".into()),
            Phase::StandingBy | Phase::Ending { after: After::StandBy, hung: false, .. } => {
                Some("another node leads".into())
            }
            Phase::Waiting { .. } => self.obstacle(at).map(|obstacle| match obstacle {
                Obstacle::Need(need) => format!("waiting for {}", self.id(need)),
                Obstacle::Memory(used) => format!("waiting for memory ({used} % used)"),
            }),
            Phase::Ending { hung: true, .. } => Some("hung".into()),
            Phase::Ending { after: After::Crash(error), .. } => Some(error.clone()),
            Phase::Backoff { held: true, .. } | Phase::Parked { held: true, .. } => {
                Some("too many restarts of all daemons".into())
            }
            Phase::Backoff { .. } | Phase::Starting { again: true, .. } => {
                let count = life.restarts.in_a_row();
                // By the hour there is no last restart.
                Some(match self.rules.restart.hourly {
                    Some(_) => format!("restart {count}"),
                    None => format!("restart {count} of {}", life.restarts.limit()),
                })
            }
            Phase::Parked { .. } => Some("too many crashes in an hour".into()),
            Phase::Failed => Some(format!("given up after {} restarts", life.restarts.in_a_row())),
            Phase::ImportFailed => life.last_error.clone(),
            Phase::Running { .. } if !life.pauses.is_empty() => {
                let causes: Vec<&str> = life.pauses.iter().map(String::as_str).collect();
                Some(format!("paused: {}", causes.join(", ")))
            }
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Ending { .. } => None,
        }
    }

    /// When something changes by time alone.
    pub(crate) fn next_deadline(&self) -> Option<At> {
        let first = self.deadlines.first().map(|&(deadline, _)| deadline);
        first.into_iter().chain(self.cascade.open_until()).min()
    }

    pub(super) fn deadline(&self, life: &Life) -> Option<At> {
        match life.phase {
            Phase::Waiting { since, late, .. } => {
                (!late).then(|| since + self.rules.dependency_wait)
            }
            Phase::Starting { ready_by, .. } => Some(ready_by),
            Phase::Running { since } => {
                let forgiven = since + self.rules.restart.reset_after;
                let forgive = (life.restarts.in_a_row() > 0).then_some(forgiven);
                forgive.into_iter().chain([life.read_at]).min()
            }
            Phase::Ending { aborted: Some(aborted), hung: false, .. } => {
                Some(aborted + self.rules.abort_grace)
            }
            Phase::Ending { abort_at, hung: false, .. } => Some(abort_at),
            Phase::Backoff { until, .. } | Phase::Parked { until, .. } => Some(until),
            Phase::Ending { hung: true, .. }
            | Phase::Stopped
            | Phase::StandingBy
            | Phase::Failed
            | Phase::ImportFailed => None,
        }
    }
}
