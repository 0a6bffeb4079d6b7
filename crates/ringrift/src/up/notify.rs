//! What an init system is told (the protocol of `sd_notify`); without one nothing is sent.

use std::{convert::Infallible, time::Duration};

use ringrift_daemons::Bell;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;
use warden::{Snapshot, State};

/// Time between two looks, unless the watchdog wants to hear more often.
const LOOK: Duration = Duration::from_secs(1);

/// Tells it until it is dropped. It lives on the supervisor's runtime: if that stands still, so does
/// the watchdog's sign of life.
pub async fn tell(bell: Bell) -> Infallible {
    let watchdog = watchdog_enabled();
    let every = watchdog.map_or(LOOK, |limit| LOOK.min(limit / 3)).max(Duration::from_millis(10));
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told { watched: watchdog.is_some(), ..Told::default() };
    loop {
        looks.tick().await;
        if let Some(snapshot) = bell.snapshot() {
            send(&told.next(&snapshot));
        }
    }
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
    fn next(&mut self, snapshot: &Snapshot) -> Vec<NotifyState<'_>> {
        let mut news = Vec::new();
        let asked = snapshot.daemons.iter().filter(|view| view.asked).count();
        let waiting = snapshot.not_running();
        // Ready means that all that were asked for run, as for a readiness probe. Said once: what
        // falls later is restarted by the supervisor, not by systemd.
        if !self.ready && asked > 0 && waiting.is_empty() {
            self.ready = true;
            news.push(NotifyState::Ready);
        }
        if snapshot.stopping && !self.stopping {
            self.stopping = true;
            news.push(NotifyState::Stopping);
        }
        // Not the clock but the turn counts: a machine that slept is no supervisor that hangs.
        if self.watched && snapshot.turned_at_ms != self.turned_at_ms {
            self.turned_at_ms = snapshot.turned_at_ms;
            news.push(NotifyState::Watchdog);
        }
        let failed = waiting
            .iter()
            .filter(|view| matches!(view.state, State::Failed | State::ImportFailed))
            .map(|view| view.id.0)
            .collect::<Vec<_>>();
        let status = match (snapshot.stopping, failed.is_empty()) {
            (true, _) => "stops".to_owned(),
            (false, true) => format!("{} of {asked} daemons run", asked - waiting.len()),
            (false, false) => {
                let run = asked - waiting.len();
                format!("{run} of {asked} daemons run, failed: {}", failed.join(", "))
            }
        };
        if status != self.status {
            self.status = status;
            news.push(NotifyState::Status(&self.status));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use warden::{DaemonId, DaemonView, Health, Priority};

    use super::*;

    fn snapshot(states: &[State], turned_at_ms: i64, stopping: bool) -> Snapshot {
        let daemons = states.iter().map(|state| DaemonView {
            id: DaemonId("A"),
            priority: Priority::High,
            critical: false,
            asked: true,
            state: *state,
            cause: None,
            health: Health::Healthy,
            details: serde_json::Value::Null,
            restarts: 0,
            last_error: None,
            started_at_ms: None,
            uptime: Duration::ZERO,
            last_beat_age: None,
            in_cycle: None,
            cycles: 0,
            last_cycle: None,
            next_retry_in: None,
        });
        Snapshot { daemons: daemons.collect(), uptime: Duration::ZERO, turned_at_ms, stopping }
    }

    #[test]
    fn ready_is_said_once_and_a_sign_of_life_only_after_a_turn() {
        let mut told = Told { watched: true, ..Told::default() };
        let mut check = |snapshot: &Snapshot, expected: &[&str]| {
            let news: Vec<String> = told.next(snapshot).iter().map(ToString::to_string).collect();
            assert_eq!(news, expected);
        };
        check(&snapshot(&[], 1, false), &["WATCHDOG=1", "STATUS=0 of 0 daemons run"]);
        check(
            &snapshot(&[State::Running, State::Starting], 2, false),
            &["WATCHDOG=1", "STATUS=1 of 2 daemons run"],
        );
        check(&snapshot(&[State::Running, State::Starting], 2, false), &[]);
        check(
            &snapshot(&[State::Running; 2], 3, false),
            &["READY=1", "WATCHDOG=1", "STATUS=2 of 2 daemons run"],
        );
        check(
            &snapshot(&[State::Running, State::Failed], 4, false),
            &["WATCHDOG=1", "STATUS=1 of 2 daemons run, failed: A"],
        );
        check(
            &snapshot(&[State::Running; 2], 5, true),
            &["STOPPING=1", "WATCHDOG=1", "STATUS=stops"],
        );
    }
}
