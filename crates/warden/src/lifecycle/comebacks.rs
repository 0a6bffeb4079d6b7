//! Falls and comebacks: crashes, the breaker over all restarts, leadership.

use std::time::Duration;

use super::{After, At, Begin, Command, Life, Lifecycle, Phase, millis};
use crate::{
    Reason,
    policy::{Grant, Next},
};

impl Lifecycle {
    pub(super) fn crashed(&mut self, now: At, at: usize, error: String) {
        let draining = self.draining();
        self.touched.insert(self.graph.rank(at));
        let life = &mut self.lives[at];
        life.last_error = Some(error.clone());
        if draining {
            return self.set(at, Phase::Stopped, Reason::Ended, Some(error));
        }
        let ran = match life.phase {
            Phase::Running { since } => now.saturating_sub(since),
            _ => Duration::ZERO,
        };
        let next = life.restarts.crashed(millis(now), ran);
        let looping = life.restarts.tell_loop(millis(now));
        let (phase, reason) = match next {
            Next::Retry(pause) => {
                (Phase::Backoff { until: now + pause, held: false }, Reason::Exception)
            }
            Next::Park(pause) => {
                (Phase::Parked { until: now + pause, held: false }, Reason::HourlyLimitExceeded)
            }
            Next::Fail => (Phase::Failed, Reason::MaxRestartsExceeded),
        };
        self.set(at, phase, reason, Some(error));
        self.commands.extend(looping.map(|crashes| Command::CrashLoop { at, crashes }));
    }

    /// Goes on with the long pause that an earlier supervisor began.
    pub(super) fn rest_on(&mut self, now: At, at: usize) {
        let life = &self.lives[at];
        let Some(until) = life.restarts.rests_until(millis(now)) else { return };
        let until = Duration::from_millis(until.unsigned_abs());
        let error = life.last_error.clone();
        self.set(at, Phase::Parked { until, held: false }, Reason::HourlyLimitExceeded, error);
    }

    /// Brings a leader-only daemon to where the leadership wants it.
    pub(super) fn follow(&mut self, now: At, at: usize) {
        let stands_by = self.stands_by(at);
        let draining = self.draining();
        match &mut self.lives[at].phase {
            Phase::StandingBy if !stands_by && !draining => {
                self.begin(now, at, Begin::Counted, Reason::LeadershipGained);
            }
            Phase::Ending { after: after @ After::StandBy, .. } if !stands_by => {
                *after = After::StartAgain;
            }
            Phase::Waiting { .. } | Phase::Backoff { .. } | Phase::Parked { .. } if stands_by => {
                self.set(at, Phase::StandingBy, Reason::LeadershipLost, None);
            }
            Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Ending { after: After::StartAgain | After::Crash(_), .. }
                if stands_by =>
            {
                self.end(now, at, After::StandBy, Reason::LeadershipLost);
            }
            _ => {}
        }
    }

    /// The pause after a crash is over: a restart, unless there are too many of them.
    pub(super) fn try_again(&mut self, now: At, at: usize) {
        let (running, asked) = self.criticals();
        match self.cascade.ask(now, self.id(at), running, asked) {
            Grant::Yes => {
                let waiting = Phase::Waiting { since: now, again: true, late: false };
                self.set(at, waiting, Reason::AutoRestart, None);
            }
            Grant::Later(open_until) => self.hold(at, open_until),
            Grant::Tripped(open_until) => {
                self.hold(at, open_until);
                self.commands.push(Command::Tripped { at });
            }
        }
    }

    fn hold(&mut self, at: usize, open_until: At) {
        match &mut self.touch(at).phase {
            Phase::Backoff { until, held } | Phase::Parked { until, held } => {
                (*until, *held) = (open_until, true);
            }
            _ => {}
        }
    }

    /// After the breaker: what the process cannot live without does not wait for its turn.
    pub(super) fn revive(&mut self, now: At) {
        let fallen = |life: &Life| {
            let phase = &life.phase;
            matches!(phase, Phase::Failed | Phase::Backoff { .. } | Phase::Parked { .. })
        };
        let mut revived = Vec::new();
        for at in self.graph.order().to_vec() {
            let life = &self.lives[at];
            if life.spec.critical && life.asked && fallen(life) {
                self.begin(now, at, Begin::Fresh, Reason::CascadeRecovery);
                revived.push(at);
            }
        }
        self.commands.push(Command::Closed { revived });
    }
}
