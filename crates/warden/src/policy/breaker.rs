//! One breaker over all daemons: when many fall at once, restarting them all only adds to it.

use std::time::Duration;

use serde::Serialize;

use super::restarts::Window;
use crate::DaemonId;

/// When all automatic restarts are suspended. Source of all numbers: manager contract, section 9.
#[derive(Debug, Clone)]
pub struct Breaker {
    /// Restarts of all daemons are counted over this time.
    pub window: Duration,
    /// More than this many suspend them, while three of five critical daemons run.
    pub threshold: u32,
    /// Others by the share of critical daemons that run, in percent; the first that is reached.
    pub thresholds: [(u32, u32); 3],
    /// The threshold below the last of these shares.
    pub threshold_least: u32,
    /// How long they are suspended.
    pub open_for: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(5),
            threshold: 15,
            thresholds: [(80, 20), (60, 15), (40, 12)],
            threshold_least: 10,
            open_for: Duration::from_mins(2),
        }
    }
}

/// Where the breaker stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BreakerStatus {
    /// It exists at all.
    pub enabled: bool,
    /// Automatic restarts are suspended.
    pub breaker_open: bool,
    /// Restarts within the window.
    pub recent_restart_count: u32,
    /// More than this many suspend them now.
    pub threshold: u32,
    /// The same without regard to critical daemons.
    pub base_threshold: u32,
    /// Length of the window.
    pub window_seconds: u64,
    /// Time until it closes; 0 if it is closed.
    pub cooldown_remaining: u64,
    /// Whose restart opened it last.
    pub triggered_by: Option<DaemonId>,
}

/// The answer to one restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    Yes,
    /// Not before this age of the supervisor.
    Later(Duration),
    /// The same, and it was this restart that opened the breaker.
    Tripped(Duration),
}

/// The breaker at work; times are ages of the supervisor.
#[derive(Debug)]
pub(crate) struct Cascade {
    breaker: Option<Breaker>,
    restarts: Window,
    open_until: Option<Duration>,
    triggered_by: Option<DaemonId>,
}

impl Cascade {
    pub(crate) fn new(breaker: Option<Breaker>) -> Self {
        // Counted without a breaker too: people look at it.
        let shown = breaker.clone().unwrap_or_default();
        Self {
            breaker,
            restarts: Window::new(millis(shown.window), 1024),
            open_until: None,
            triggered_by: None,
        }
    }

    /// May this daemon be restarted now? `running` and `asked` count critical daemons.
    pub(crate) fn ask(&mut self, now: Duration, id: DaemonId, running: u32, asked: u32) -> Grant {
        if let Some(until) = self.open_until {
            return Grant::Later(until);
        }
        self.restarts.push(millis(now));
        let Some(breaker) = &self.breaker else { return Grant::Yes };
        if self.restarts.count(millis(now)) <= breaker.threshold_at(running, asked) as usize {
            return Grant::Yes;
        }
        let until = now + breaker.open_for;
        self.open_until = Some(until);
        self.triggered_by = Some(id);
        Grant::Tripped(until)
    }

    /// True once, when its time is over.
    pub(crate) fn close(&mut self, now: Duration) -> bool {
        let over = self.open_until.is_some_and(|until| until <= now);
        if over {
            self.open_until = None;
            // Else the first restart after it would open it again.
            self.restarts.clear();
        }
        over
    }

    pub(crate) fn open_until(&self) -> Option<Duration> {
        self.open_until
    }

    pub(crate) fn status(&self, now: Duration, running: u32, asked: u32) -> BreakerStatus {
        let breaker = self.breaker.clone().unwrap_or_default();
        let left = self.open_until.map_or(Duration::ZERO, |until| until.saturating_sub(now));
        BreakerStatus {
            enabled: self.breaker.is_some(),
            breaker_open: self.open_until.is_some(),
            recent_restart_count: u32::try_from(self.restarts.count(millis(now)))
                .unwrap_or(u32::MAX),
            threshold: breaker.threshold_at(running, asked),
            base_threshold: breaker.threshold,
            window_seconds: breaker.window.as_secs(),
            cooldown_remaining: left.as_secs(),
            triggered_by: self.triggered_by,
        }
    }
}

impl Breaker {
    fn threshold_at(&self, running: u32, asked: u32) -> u32 {
        let share = (running * 100).checked_div(asked).unwrap_or(100);
        let reached = self.thresholds.iter().find(|(least, _)| share >= *least);
        reached.map_or(self.threshold_least, |&(_, threshold)| threshold)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: DaemonId = DaemonId("A");

    #[test]
    fn the_threshold_follows_the_share_of_critical_daemons_that_run() {
        let check = |running, asked| Breaker::default().threshold_at(running, asked);
        assert_eq!(
            [(8, 8), (4, 5), (3, 4), (3, 5), (2, 5), (1, 3), (0, 8), (0, 0)]
                .map(|(running, asked)| check(running, asked)),
            [20, 20, 15, 15, 12, 10, 10, 20]
        );
    }

    #[test]
    fn one_restart_too_many_opens_it_and_time_closes_it() {
        let secs = Duration::from_secs;
        let mut cascade = Cascade::new(Some(Breaker::default()));
        for second in 0..20 {
            assert_eq!(cascade.ask(secs(second), ID, 1, 1), Grant::Yes);
        }
        let status = cascade.status(secs(19), 1, 2);
        assert_eq!((status.recent_restart_count, status.threshold), (20, 12));
        assert_eq!(cascade.ask(secs(20), ID, 1, 1), Grant::Tripped(secs(140)));
        assert_eq!(cascade.ask(secs(21), ID, 1, 1), Grant::Later(secs(140)));
        let status = cascade.status(secs(21), 1, 1);
        assert_eq!((status.breaker_open, status.cooldown_remaining), (true, 119));
        assert_eq!((cascade.close(secs(139)), cascade.close(secs(140))), (false, true));
        assert_eq!(cascade.ask(secs(140), ID, 1, 1), Grant::Yes);
        assert_eq!(cascade.status(secs(140), 1, 1).recent_restart_count, 1);
    }

    #[test]
    fn restarts_outside_the_window_do_not_count_and_without_a_breaker_none_is_refused() {
        let mut cascade = Cascade::new(Some(Breaker::default()));
        for minute in 0..100 {
            assert_eq!(cascade.ask(Duration::from_mins(minute), ID, 1, 1), Grant::Yes);
        }
        let mut off = Cascade::new(None);
        for _ in 0..100 {
            assert_eq!(off.ask(Duration::ZERO, ID, 0, 1), Grant::Yes);
        }
        assert_eq!(off.status(Duration::ZERO, 1, 1).recent_restart_count, 100);
    }
}
