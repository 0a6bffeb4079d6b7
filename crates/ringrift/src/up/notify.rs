//! What an init system is told (the protocol of `sd_notify`); without one nothing is sent.

use std::{convert::Infallible, time::Duration};

use ringrift_daemons::Bell;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;
use warden::{Snapshot, State};

/// Time between two looks, unless the watchdog wants to hear more often.
const LOOK: Duration = Duration::from_secs(1);

/// What a start that is alive and not ready yet gets more, in microseconds.
const MORE_TIME: u32 = 120_000_000;

/// Tells it until it is dropped. It lives on the supervisor's runtime: if that stands still, so does
/// the watchdog's sign of life.
pub async fn tell(bell: Bell) -> Infallible {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    let watchdog = watchdog_enabled();
    let every = watchdog.map_or(LOOK, |limit| LOOK.min(limit / 3)).max(Duration::from_millis(10));
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told { watched: watchdog.is_some(), ..Told::default() };
    loop {
        looks.tick().await;
        if let Some(snapshot) = bell.snapshot() {
            send(&told.next(&Glance::of(&snapshot)));
        }
    }
}

/// It has not begun, because it waits for something: that is no start that hangs.
pub fn waits(why: &str) {
    send(&[NotifyState::Status(why), NotifyState::ExtendTimeoutUsec(MORE_TIME)]);
}

/// It stops, in whatever way that came.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState]) {
    // Nobody to tell is no error. A socket that takes nothing changes nothing for us.
    if !states.is_empty()
        && let Err(error) = notify(states)
    {
        warn!(%error, "the init system cannot be told");
    }
}

/// What there is to tell of a snapshot.
#[derive(Debug, Clone, Default)]
struct Glance {
    asked: usize,
    running: usize,
    failed: Vec<&'static str>,
    stopping: bool,
    turned_at_ms: i64,
}

impl Glance {
    fn of(snapshot: &Snapshot) -> Self {
        let waiting = snapshot.not_running();
        let asked = snapshot.daemons.iter().filter(|view| view.asked).count();
        let failed = waiting
            .iter()
            .filter(|view| matches!(view.state, State::Failed | State::ImportFailed))
            .map(|view| view.id.0);
        Self {
            asked,
            running: asked - waiting.len(),
            failed: failed.collect(),
            stopping: snapshot.stopping,
            turned_at_ms: snapshot.turned_at_ms,
        }
    }

    fn status(&self) -> String {
        let Self { asked, running, failed, .. } = self;
        match (self.stopping, failed.is_empty()) {
            (true, _) => "stops".to_owned(),
            (false, true) => format!("{running} of {asked} daemons run"),
            (false, false) => {
                format!("{running} of {asked} daemons run, failed: {}", failed.join(", "))
            }
        }
    }
}

/// What it knows already.
#[derive(Debug, Default)]
struct Told {
    watched: bool,
    ready: bool,
    stopping: bool,
    turned_at_ms: i64,
    status: String,
}

impl Told {
    fn next(&mut self, seen: &Glance) -> Vec<NotifyState<'_>> {
        let mut news = Vec::new();
        // Ready means that all that were asked for run, as for a readiness probe. Said once: what
        // falls later is restarted by the supervisor, not by systemd.
        if !self.ready && seen.asked > 0 && seen.running == seen.asked {
            self.ready = true;
            news.push(NotifyState::Ready);
        }
        if seen.stopping && !self.stopping {
            self.stopping = true;
            news.push(NotifyState::Stopping);
        }
        // Not the clock but the turn counts: a machine that slept is no supervisor that hangs.
        if seen.turned_at_ms != self.turned_at_ms {
            self.turned_at_ms = seen.turned_at_ms;
            if self.watched {
                news.push(NotifyState::Watchdog);
            }
            // One daemon that lacks something must not cost the others their lives.
            if !self.ready {
                news.push(NotifyState::ExtendTimeoutUsec(MORE_TIME));
            }
        }
        let status = seen.status();
        if status != self.status {
            self.status = status;
            news.push(NotifyState::Status(&self.status));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_said_once_and_a_sign_of_life_only_after_a_turn() {
        let mut told = Told { watched: true, ..Told::default() };
        let mut check = |asked, running, turned_at_ms, expected: &[&str]| {
            let seen = Glance { asked, running, turned_at_ms, ..Glance::default() };
            let news: Vec<String> = told.next(&seen).iter().map(ToString::to_string).collect();
            assert_eq!(news, expected);
        };
        let more = "EXTEND_TIMEOUT_USEC=120000000";
        check(0, 0, 1, &["WATCHDOG=1", more, "STATUS=0 of 0 daemons run"]);
        check(2, 1, 2, &["WATCHDOG=1", more, "STATUS=1 of 2 daemons run"]);
        check(2, 1, 2, &[]);
        check(2, 2, 3, &["READY=1", "WATCHDOG=1", "STATUS=2 of 2 daemons run"]);
        check(2, 1, 4, &["WATCHDOG=1", "STATUS=1 of 2 daemons run"]);
        check(2, 2, 5, &["WATCHDOG=1", "STATUS=2 of 2 daemons run"]);
    }

    #[test]
    fn the_end_is_said_once_and_failures_are_named() {
        let mut told = Told::default();
        let failed = Glance { asked: 2, running: 1, failed: vec!["A"], ..Glance::default() };
        let news: Vec<String> = told.next(&failed).iter().map(ToString::to_string).collect();
        assert_eq!(news, ["STATUS=1 of 2 daemons run, failed: A"]);
        let stopping = Glance { stopping: true, ..failed };
        let news: Vec<String> = told.next(&stopping).iter().map(ToString::to_string).collect();
        assert_eq!(news, ["STOPPING=1", "STATUS=stops"]);
        assert!(told.next(&stopping).is_empty());
    }
}
