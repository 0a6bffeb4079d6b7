//! What the supervisor tells the world: changes of state, and the snapshot.

use std::sync::Arc;

use super::Supervisor;
use crate::{
    DaemonView, Notice, Reason, Snapshot, State, Transition,
    lifecycle::{At, Command},
};

impl Supervisor {
    pub(super) fn tell(
        &mut self,
        at: usize,
        from: State,
        to: State,
        reason: Reason,
        error: Option<String>,
    ) {
        let daemon = self.id(at);
        let restarts = self.lifecycle.restarts(at);
        let why = error.as_deref();
        match to {
            State::Failed | State::ImportFailed => {
                tracing::error!(%daemon, %from, %to, %reason, restarts, error = why, "daemon given up");
            }
            State::Restarting | State::Degraded => {
                tracing::warn!(%daemon, %from, %to, %reason, restarts, error = why, "daemon restarts");
            }
            State::Stopped if error.is_some() => {
                tracing::warn!(%daemon, %from, %to, %reason, error = why, "daemon stopped badly");
            }
            State::Stopped | State::Starting | State::Running | State::Stopping => {
                tracing::info!(%daemon, %from, %to, %reason, "daemon changed state");
            }
        }
        if to == State::Stopped
            && let Some(shutdown) = &mut self.shutdown
        {
            shutdown.report.stopped.push(daemon);
        }
        let at_ms = self.clock.now_ms();
        // Without a listener there is nobody to tell.
        drop(self.transitions.send(Transition { daemon, from, to, reason, error, at_ms }));
    }

    pub(super) fn give_notice(&mut self, command: Command) {
        let notice = match command {
            Command::Remember { at } => {
                let history = self.lifecycle.history(self.now(), at, self.clock.now_ms());
                Notice::History { daemon: self.id(at), history }
            }
            Command::CrashLoop { at, crashes } => {
                let daemon = self.id(at);
                tracing::warn!(%daemon, crashes, "crash loop: so many crashes within five minutes");
                Notice::CrashLoop { daemon, crashes }
            }
            Command::Tripped { at } => {
                let status = self.lifecycle.breaker(self.now());
                tracing::error!(
                    daemon = %self.id(at),
                    restarts = status.recent_restart_count,
                    threshold = status.threshold,
                    seconds = status.cooldown_remaining,
                    "too many restarts of all daemons: none for a while"
                );
                Notice::BreakerTripped(status)
            }
            Command::Closed { revived } => {
                let revived: Vec<_> = revived.into_iter().map(|at| self.id(at)).collect();
                tracing::info!(revived = ?revived, "automatic restarts go on");
                Notice::BreakerClosed { revived }
            }
            _ => return,
        };
        // Without a listener there is nobody to tell.
        drop(self.notices.send(notice));
    }

    /// Shows what changed, and when that is due, what has aged.
    pub(super) fn show(&mut self) {
        let is_due = self.turn_at <= self.now();
        if is_due {
            self.age();
        }
        self.stale.append(&mut self.lifecycle.take_changed());
        if self.stale.is_empty() && !is_due {
            return;
        }
        self.stale.sort_unstable();
        self.stale.dedup();
        let stale = std::mem::take(&mut self.stale);
        let now = self.now();
        self.snapshot.send_modify(|snapshot| {
            // In place, unless somebody still reads the last one.
            let snapshot = Arc::make_mut(snapshot);
            for &at in &stale {
                snapshot.daemons[self.lifecycle.graph().rank(at)] = self.view(now, at);
            }
            self.stamp(now, snapshot);
        });
        self.stale = stale;
        self.stale.clear();
    }

    /// Looks at all daemons for whom time passes. Who neither runs nor waits looks as before, unless
    /// an old crash counts no more: of a whole registry that is nearly everybody.
    fn age(&mut self) {
        let now = self.now();
        self.turn_at = now + self.settings.turn;
        let shown = self.snapshot.borrow();
        for (at, running) in self.running.iter().enumerate() {
            if let Some(running) = running {
                running.pulse.glance(&mut self.told[at].0);
            }
            let crashes = shown.daemons[self.lifecycle.graph().rank(at)].crashes;
            let ages = running.is_some()
                || self.lifecycle.state(at) != State::Stopped
                || self.lifecycle.crashes(now, at) != crashes;
            if ages {
                self.stale.push(at);
            }
        }
    }

    /// Shows every daemon for the first time.
    pub(super) fn show_all(&mut self) {
        let now = self.now();
        self.turn_at = now + self.settings.turn;
        drop(self.lifecycle.take_changed());
        let order = self.lifecycle.graph().order();
        let mut snapshot = Snapshot {
            daemons: order.iter().map(|&at| self.view(now, at)).collect(),
            ..Snapshot::default()
        };
        self.stamp(now, &mut snapshot);
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    fn stamp(&self, now: At, snapshot: &mut Snapshot) {
        snapshot.uptime = now;
        snapshot.turned_at_ms = self.clock.now_ms();
        snapshot.stopping = self.lifecycle.draining();
        snapshot.breaker = self.lifecycle.breaker(now);
    }

    fn view(&self, now: At, at: usize) -> DaemonView {
        let spec = self.runnables[at].spec;
        let task = self.running[at].as_ref();
        let (told, last_start) = &self.told[at];
        DaemonView {
            id: spec.id,
            priority: spec.priority,
            critical: spec.critical,
            asked: self.lifecycle.asked(at),
            state: self.lifecycle.state(at),
            cause: self.lifecycle.cause(at),
            health: self.lifecycle.health(at),
            details: told.details.clone(),
            restarts: self.lifecycle.restarts(at),
            crashes: self.lifecycle.crashes(now, at),
            last_error: self.lifecycle.last_error(at).map(str::to_owned),
            started_at_ms: *last_start,
            uptime: self.lifecycle.uptime(now, at),
            last_beat_age: task.map(|task| now.saturating_sub(task.pulse.last_beat())),
            in_cycle: told.in_cycle.map(|began| now.saturating_sub(began)),
            cycles: told.cycles,
            last_cycle: told.last_cycle,
            next_retry_in: self.lifecycle.next_retry_in(now, at),
        }
    }
}
