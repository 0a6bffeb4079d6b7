//! The crashes of one daemon, and what follows the next one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{Hourly, RestartPolicy, Tier};
use crate::Spec;

const HOUR_MS: i64 = 3_600_000;
/// Longer than this ago and nothing is remembered. Source: manager contract, section 14.
const MEMORY_MS: i64 = 24 * HOUR_MS;
/// Window of the notice about a crash loop. Source: manager contract, section 7.
const LOOP_MS: i64 = 300_000;
/// Crashes in that window that make it one. Source: the same.
const LOOP_CRASHES: usize = 3;

/// Instants within a span, oldest first; all operations cost the same however many there were.
#[derive(Debug)]
pub(super) struct Window {
    span: i64,
    /// More are not kept: beyond it every rule says the same.
    most: usize,
    times: VecDeque<i64>,
}

impl Window {
    pub(super) fn new(span: i64, most: usize) -> Self {
        Self { span, most, times: VecDeque::new() }
    }

    pub(super) fn push(&mut self, now: i64) {
        while self.times.front().is_some_and(|&time| time + self.span < now)
            || self.times.len() >= self.most
        {
            self.times.pop_front();
        }
        self.times.push_back(now);
    }

    /// How many lie within the span that ends now.
    pub(super) fn count(&self, now: i64) -> usize {
        self.count_within(now, self.span)
    }

    fn count_within(&self, now: i64, span: i64) -> usize {
        self.times.len() - self.times.partition_point(|&time| time + span < now)
    }

    pub(super) fn clear(&mut self) {
        self.times.clear();
    }
}

/// What a supervisor should know of a daemon's past under an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Crashes in a row that were followed by a restart.
    pub crashes: u32,
    /// Those of the last hour, milliseconds since the Unix epoch, oldest first.
    pub recent_ms: Vec<i64>,
    /// It was given up and waits for a person.
    pub given_up: bool,
    /// Where it stands in the degraded tier, if it is there.
    pub degraded: Option<Degraded>,
    /// Its last error.
    pub last_error: Option<String>,
    /// When this was so; a day later it is forgotten.
    pub noted_ms: i64,
}

/// A stay in the degraded tier, milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Degraded {
    /// When it was entered.
    pub since_ms: i64,
    /// When the daemon is tried again.
    pub retry_ms: i64,
}

/// What follows a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Retry(Duration),
    Park(Duration),
    Fail,
}

/// Decides for one daemon, alone. Times are milliseconds of the supervisor's age; those of an
/// earlier life are negative.
#[derive(Debug)]
pub(crate) struct Restarts {
    policy: Arc<RestartPolicy>,
    spec: &'static Spec,
    in_a_row: u32,
    total: u64,
    recent: Window,
    /// The same in milliseconds of the supervisor's age.
    degraded: Option<Degraded>,
    given_up: bool,
    /// The present crash loop was told.
    told: bool,
    changes: u64,
}

impl Restarts {
    pub(crate) fn new(policy: Arc<RestartPolicy>, spec: &'static Spec) -> Self {
        let most = policy.hourly.as_ref().map_or(0, |hourly| hourly.elevated_max as usize + 1);
        Self {
            policy,
            spec,
            in_a_row: 0,
            total: 0,
            recent: Window::new(HOUR_MS, most.max(64)),
            degraded: None,
            given_up: false,
            told: false,
            changes: 0,
        }
    }

    /// Takes over what an earlier supervisor knew; true if it had given up.
    pub(crate) fn remember(&mut self, history: &History, now_ms: i64) -> bool {
        if now_ms.saturating_sub(history.noted_ms) > MEMORY_MS {
            return false;
        }
        self.in_a_row = history.crashes;
        self.given_up = history.given_up;
        // A clock that was put back must not make crashes of the future.
        let ages = history.recent_ms.iter().map(|&crash| now_ms.saturating_sub(crash).max(0));
        for age in ages.filter(|&age| age <= HOUR_MS) {
            self.recent.push(-age);
        }
        if self.policy.hourly.is_some() {
            self.degraded = history.degraded.map(|Degraded { since_ms, retry_ms }| Degraded {
                since_ms: since_ms.saturating_sub(now_ms).min(0),
                retry_ms: retry_ms.saturating_sub(now_ms),
            });
        }
        history.given_up
    }

    /// Until when an earlier supervisor wanted this daemon to rest, if that is still to come.
    pub(crate) fn rests_until(&self, now: i64) -> Option<i64> {
        self.degraded.map(|degraded| degraded.retry_ms).filter(|&retry| retry > now)
    }

    /// One more crash, after so long a run.
    pub(crate) fn crashed(&mut self, now: i64, ran: Duration) -> Next {
        self.changes += 1;
        if ran >= self.policy.reset_after {
            self.in_a_row = 0;
        }
        let policy = self.policy.clone();
        if let Some(hourly) = &policy.hourly
            && self.is_over(hourly, now)
        {
            self.degraded = None;
            self.recent.clear();
        }
        self.recent.push(now);
        let next = match &policy.hourly {
            Some(hourly) => self.by_the_hour(hourly, now),
            None if self.in_a_row >= self.limit() => Next::Fail,
            None => Next::Retry(policy.pause(self.in_a_row + 1)),
        };
        if next == Next::Fail {
            self.given_up = true;
        } else {
            self.in_a_row = self.in_a_row.saturating_add(1);
            self.total += 1;
        }
        next
    }

    fn by_the_hour(&mut self, hourly: &Hourly, now: i64) -> Next {
        let in_hour = self.in_hour(now);
        let pause = hourly.pause(self.spec, in_hour);
        if hourly.tier(in_hour) < Tier::Degraded {
            self.degraded = None;
            return Next::Retry(pause);
        }
        self.degraded = Some(Degraded {
            since_ms: self.degraded.map_or(now, |degraded| degraded.since_ms),
            retry_ms: now.saturating_add(millis(pause)),
        });
        Next::Park(pause)
    }

    fn is_over(&self, hourly: &Hourly, now: i64) -> bool {
        let leave_after = millis(hourly.leave_after);
        self.degraded.is_some_and(|degraded| degraded.since_ms.saturating_add(leave_after) <= now)
    }

    fn in_hour(&self, now: i64) -> u32 {
        u32::try_from(self.recent.count(now)).unwrap_or(u32::MAX)
    }

    /// Begins a crash loop with this crash? Told once for each.
    pub(crate) fn tell_loop(&mut self, now: i64) -> Option<u32> {
        let looping = self.is_looping(now);
        let news = looping && !self.told;
        self.told = looping;
        news.then(|| self.recent(now))
    }

    /// An hour of running, or a person: the count in a row begins anew.
    pub(crate) fn forgive(&mut self) {
        if self.in_a_row > 0 {
            self.in_a_row = 0;
            self.changes += 1;
        }
    }

    /// A person tries it by force: nothing that was counts any more.
    pub(crate) fn forget(&mut self) {
        self.forgive();
        self.recent.clear();
        self.degraded = None;
        self.changes += 1;
    }

    /// It is tried again, or was stopped.
    pub(crate) fn take_up(&mut self) {
        if std::mem::take(&mut self.given_up) {
            self.changes += 1;
        }
        if let Some(degraded) = &mut self.degraded
            && degraded.retry_ms != degraded.since_ms
        {
            // It rests no longer; the tier is left by time, or by force.
            degraded.retry_ms = degraded.since_ms;
            self.changes += 1;
        }
    }

    /// Grows with everything that the history tells.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn history(&self, now: i64, now_ms: i64, last_error: Option<&str>) -> History {
        let kept = self.recent.times.iter().filter(|&&time| time + HOUR_MS >= now);
        History {
            crashes: self.in_a_row,
            recent_ms: kept.map(|&time| now_ms.saturating_sub(now - time)).collect(),
            given_up: self.given_up,
            degraded: self.degraded.map(|Degraded { since_ms, retry_ms }| Degraded {
                since_ms: now_ms.saturating_add(since_ms - now),
                retry_ms: now_ms.saturating_add(retry_ms - now),
            }),
            last_error: last_error.map(str::to_owned),
            noted_ms: now_ms,
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.policy.limit(self.spec)
    }

    /// `None`: the ladder has no tiers.
    pub(crate) fn tier(&self, now: i64) -> Option<Tier> {
        let hourly = self.policy.hourly.as_ref()?;
        let over = self.is_over(hourly, now);
        Some(if over { Tier::Normal } else { hourly.tier(self.in_hour(now)) })
    }

    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Crashes of the last five minutes.
    pub(crate) fn recent(&self, now: i64) -> u32 {
        u32::try_from(self.recent.count_within(now, LOOP_MS)).unwrap_or(u32::MAX)
    }

    pub(crate) fn is_looping(&self, now: i64) -> bool {
        self.recent.count_within(now, LOOP_MS) >= LOOP_CRASHES
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    static OTHER: Spec = Spec::DEFAULT;

    fn restarts(policy: RestartPolicy) -> Restarts {
        Restarts::new(Arc::new(policy), &OTHER)
    }

    fn crash(restarts: &mut Restarts, second: i64) -> Next {
        restarts.crashed(second * 1000, Duration::ZERO)
    }

    #[test]
    fn one_crash_more_than_allowed_is_the_end_and_an_hour_of_running_forgives() {
        let mut daemon = restarts(RestartPolicy { max: 2, ..RestartPolicy::default() });
        let ends: Vec<Next> = (0..3).map(|second| crash(&mut daemon, second)).collect();
        let secs = |count| Next::Retry(Duration::from_secs(count));
        assert_eq!(ends, [secs(1), secs(2), Next::Fail]);
        assert_eq!((daemon.in_a_row(), daemon.total()), (2, 2));
        assert_eq!(daemon.crashed(9_000_000, Duration::from_hours(1)), secs(1));
    }

    #[test]
    fn a_crash_loop_is_told_once_until_it_is_over() {
        let mut daemon = restarts(RestartPolicy { max: 99, ..RestartPolicy::default() });
        let told: Vec<_> = [0, 100, 300, 301, 302, 800, 801, 802]
            .into_iter()
            .map(|second| {
                crash(&mut daemon, second);
                daemon.tell_loop(second * 1000)
            })
            .collect();
        assert_eq!(told, [None, None, Some(3), None, None, None, None, Some(3)]);
        assert!(daemon.is_looping(900_000) && !daemon.is_looping(1_200_000));
    }

    #[test]
    fn the_degraded_tier_is_left_after_its_time_with_nothing_held_against_it() {
        let hourly = Hourly { retry_other: Duration::from_mins(1), ..Hourly::default() };
        let policy = RestartPolicy { hourly: Some(hourly), ..RestartPolicy::default() };
        let mut daemon = restarts(policy);
        for second in 0..10 {
            assert!(matches!(crash(&mut daemon, second), Next::Retry(_)), "{second}");
        }
        for minute in 1..121 {
            let next = crash(&mut daemon, 10 + 60 * (minute - 1));
            assert_eq!(next, Next::Park(Duration::from_mins(1)), "{minute}");
            assert_eq!(daemon.tier(0), Some(Tier::Degraded));
        }
        assert_eq!(daemon.tier(7_210_000), Some(Tier::Normal));
        assert_eq!(crash(&mut daemon, 7210), Next::Retry(Duration::from_secs(5)));
    }

    #[test]
    fn a_history_lasts_a_day_and_its_crashes_an_hour() {
        let now = 1_000_000_000_000;
        let history = History {
            crashes: 4,
            recent_ms: vec![now - HOUR_MS - 1, now - HOUR_MS, now - 1, now + 5],
            given_up: true,
            degraded: None,
            last_error: Some("boom".into()),
            noted_ms: now - MEMORY_MS,
        };
        let mut daemon = restarts(RestartPolicy::default());
        assert!(daemon.remember(&history, now));
        let again = daemon.history(0, now, Some("boom"));
        let recent_ms = vec![now - HOUR_MS, now - 1, now];
        assert_eq!(again, History { recent_ms, noted_ms: now, ..history.clone() });

        let mut daemon = restarts(RestartPolicy::default());
        assert!(!daemon.remember(&history, now + 1));
        assert_eq!((daemon.in_a_row(), daemon.recent(0)), (0, 0));
    }

    #[test]
    fn the_long_pause_goes_on_under_the_next_supervisor() {
        let policy = RestartPolicy { hourly: Some(Hourly::default()), ..RestartPolicy::default() };
        let mut daemon = restarts(policy.clone());
        for second in 0..11 {
            crash(&mut daemon, second);
        }
        let pause = millis(Hourly::default().retry_other);
        assert_eq!(daemon.rests_until(10_000), Some(10_000 + pause));
        let kept = daemon.history(20_000, 1_000_000_000, None);
        let stay = Degraded { since_ms: 999_990_000, retry_ms: 999_990_000 + pause };
        assert_eq!(kept.degraded, Some(stay));

        // The next one begins a minute later.
        let mut daemon = restarts(policy);
        daemon.remember(&kept, 1_000_060_000);
        assert_eq!(daemon.rests_until(0), Some(pause - 70_000));
        assert_eq!(daemon.rests_until(pause), None);
        daemon.take_up();
        assert_eq!((daemon.rests_until(0), daemon.tier(0)), (None, Some(Tier::Degraded)));

        let mut daemon = restarts(RestartPolicy::default());
        daemon.remember(&kept, 1_000_060_000);
        assert_eq!(daemon.rests_until(0), None, "the ladder knows no such pause");
    }

    #[test]
    fn however_many_crashes_there_are_few_are_kept() {
        let mut daemon = restarts(RestartPolicy { max: u32::MAX, ..RestartPolicy::default() });
        for crash in 0..100_000 {
            daemon.crashed(crash, Duration::ZERO);
        }
        assert_eq!((daemon.recent.times.len(), daemon.total()), (64, 100_000));
    }
}
