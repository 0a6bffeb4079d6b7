//! What a daemon holds of its supervisor: beats, the request to stop, time.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, DaemonId, Health,
    bell::Bell,
    sync::{Mutex, lock},
    told::Told,
};

/// A stop was requested; passing it up with `?` ends the cycle in the right way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stop was requested")]
pub struct Stopping;

/// A wait inside a cycle took longer than its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not done within {0:?}")]
pub struct TimedOut(
    /// The bound.
    pub Duration,
);

/// The daemon's side of its supervision; cheap to clone and to hand to helpers.
#[derive(Debug, Clone)]
pub struct Cx {
    pulse: Arc<Pulse>,
    stop: CancellationToken,
}

impl Cx {
    pub(crate) fn new(pulse: Arc<Pulse>) -> Self {
        let stop = pulse.stop.clone();
        Self { pulse, stop }
    }

    /// A context without a supervisor, with the means to stop and watch it: for tests of a daemon.
    pub fn detached(id: DaemonId, clock: Clock) -> (Self, Probe) {
        let pulse = Arc::new(Pulse::new(PulseSpec::detached(id, clock)));
        (Self::new(pulse.clone()), Probe { pulse })
    }

    /// Name of the daemon.
    pub fn id(&self) -> DaemonId {
        self.pulse.id
    }

    /// Wall clock, milliseconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        self.pulse.clock.now_ms()
    }

    /// "I progress"; answers [`Stopping`] when a stop is requested.
    pub fn beat(&self) -> Result<(), Stopping> {
        self.pulse.beat();
        if self.stop.is_cancelled() { Err(Stopping) } else { Ok(()) }
    }

    /// A stop is requested.
    pub fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when a stop is requested.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// A token that is cancelled at the stop; cancelling it here does not stop the daemon.
    pub fn token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Somebody paused this daemon: no new cycle begins, and a long one may end early.
    pub fn paused(&self) -> bool {
        *self.pulse.paused.borrow()
    }

    /// Says that the daemon is ready; the default [`crate::Daemon::run`] does it after `start`.
    pub fn ready(&self) {
        self.pulse.beat();
        self.pulse.tell(|told| told.ready = true);
    }

    /// Waits for `future` for at most `limit`, with a beat before and after it.
    ///
    /// # Errors
    /// [`TimedOut`] after the limit, [`Stopping`] when a stop is requested first; either way
    /// `future` is dropped where it stands.
    pub async fn within<F: Future>(&self, limit: Duration, future: F) -> anyhow::Result<F::Output> {
        self.beat()?;
        let output = tokio::select! {
            biased;
            () = self.stopped() => return Err(Stopping.into()),
            output = tokio::time::timeout(limit, future) => output.map_err(|_| TimedOut(limit))?,
        };
        self.pulse.beat();
        Ok(output)
    }

    /// Sleeps, unless a stop is requested first; beats before and after, not in between.
    pub async fn sleep(&self, time: Duration) -> Result<(), Stopping> {
        self.beat()?;
        tokio::select! {
            biased;
            () = self.stopped() => Err(Stopping),
            () = tokio::time::sleep(time) => self.beat(),
        }
    }

    /// Shows `status` at once, in the middle of a cycle or of a long start; a beat as well.
    ///
    /// # Errors
    /// `status` cannot be written as JSON.
    pub fn publish<S: Serialize>(&self, status: &S) -> anyhow::Result<()> {
        let details = to_json(status)?;
        self.pulse.beat();
        lock(&self.pulse.told).show(details);
        Ok(())
    }

    /// One result of a daemon that serves instead of cycling: its status and its health.
    ///
    /// Counts like the end of a cycle: three unhealthy ones in a row restart the daemon. From the
    /// first one on, another is due within each period of the spec.
    ///
    /// # Errors
    /// `status` cannot be written as JSON.
    pub fn report<S: Serialize>(&self, status: &S, health: Health) -> anyhow::Result<()> {
        let details = to_json(status)?;
        self.pulse.beat();
        let due = self.pulse.now() + self.pulse.period;
        self.pulse.tell(|told| {
            told.result(Some(details), health);
            told.due = Some(due);
        });
        Ok(())
    }

    /// The same daemon with a stop that never comes, for the work after the real one.
    pub(crate) fn for_last_work(&self) -> Self {
        Self { pulse: self.pulse.clone(), stop: CancellationToken::new() }
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }
}

fn to_json<S: Serialize>(status: &S) -> anyhow::Result<serde_json::Value> {
    serde_json::to_value(status).context("write the status as JSON")
}

/// The other end of [`Cx::detached`].
#[derive(Debug, Clone)]
pub struct Probe {
    pulse: Arc<Pulse>,
}

impl Probe {
    /// Requests a stop now.
    pub fn stop(&self) {
        self.pulse.stop.cancel();
    }

    /// Requests a stop at the beat number `count` from the very first, so that it answers
    /// [`Stopping`].
    pub fn stop_at_beat(&self, count: u64) {
        self.pulse.stop_at.store(count, Ordering::Release);
    }

    /// Beats so far.
    pub fn beats(&self) -> u64 {
        self.pulse.beats.load(Ordering::Acquire)
    }

    /// The daemon has said that it is ready.
    pub fn is_ready(&self) -> bool {
        lock(&self.pulse.told).ready
    }

    /// Last published status; null before the first.
    pub fn details(&self) -> serde_json::Value {
        lock(&self.pulse.told).details.clone()
    }

    /// Last published health.
    pub fn health(&self) -> Health {
        lock(&self.pulse.told).health.clone()
    }
}

/// What one run of a daemon and its supervisor share.
#[derive(Debug)]
pub(crate) struct Pulse {
    id: DaemonId,
    /// Its number, by which it calls.
    at: usize,
    clock: Clock,
    /// Zero of all times that the supervisor counts in.
    epoch: Instant,
    /// Milliseconds after `epoch` of the last sign of life.
    beat_at: AtomicU64,
    beats: AtomicU64,
    stop_at: AtomicU64,
    told: Mutex<Told>,
    /// Calls the supervisor when `told` holds something that it must act on.
    bell: Arc<Bell>,
    pub(crate) stop: CancellationToken,
    /// One permit at most: so many wake-ups are one cycle, and none is lost between runs.
    pub(crate) wake: Arc<Notify>,
    pub(crate) paused: watch::Receiver<bool>,
    pub(crate) period: Duration,
    pub(crate) wake_gap: Duration,
}

pub(crate) struct PulseSpec {
    pub(crate) id: DaemonId,
    pub(crate) at: usize,
    pub(crate) clock: Clock,
    pub(crate) epoch: Instant,
    pub(crate) bell: Arc<Bell>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) paused: watch::Receiver<bool>,
    pub(crate) period: Duration,
    pub(crate) wake_gap: Duration,
}

impl PulseSpec {
    fn detached(id: DaemonId, clock: Clock) -> Self {
        Self {
            id,
            at: 0,
            clock,
            epoch: Instant::now(),
            bell: Arc::default(),
            wake: Arc::default(),
            paused: watch::channel(false).1,
            period: Duration::ZERO,
            wake_gap: Duration::ZERO,
        }
    }
}

impl Pulse {
    pub(crate) fn new(spec: PulseSpec) -> Self {
        let now = millis(spec.epoch.elapsed());
        Self {
            id: spec.id,
            at: spec.at,
            clock: spec.clock,
            epoch: spec.epoch,
            beat_at: AtomicU64::new(now),
            beats: AtomicU64::new(0),
            stop_at: AtomicU64::new(u64::MAX),
            told: Mutex::default(),
            bell: spec.bell,
            stop: CancellationToken::new(),
            wake: spec.wake,
            paused: spec.paused,
            period: spec.period,
            wake_gap: spec.wake_gap,
        }
    }

    /// Changes what is told, and calls the supervisor unless it was called already.
    fn tell(&self, change: impl FnOnce(&mut Told)) {
        let must_call = {
            let mut told = lock(&self.told);
            change(&mut told);
            told.must_call()
        };
        if must_call {
            self.bell.call(self.at);
        }
    }

    /// Brings a copy of what was told up to date.
    pub(crate) fn copy_to(&self, copy: &mut Told) {
        lock(&self.told).copy_to(copy);
    }

    /// Copies what may be shown between two calls of the daemon.
    pub(crate) fn glance(&self, copy: &mut Told) {
        lock(&self.told).show_to(copy);
    }

    pub(crate) fn keep_details(&self, details: serde_json::Value) {
        lock(&self.told).show(details);
    }

    pub(crate) fn last_beat(&self) -> Duration {
        Duration::from_millis(self.beat_at.load(Ordering::Acquire))
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn beat(&self) {
        self.beat_at.store(millis(self.now()), Ordering::Release);
        let count = self.beats.fetch_add(1, Ordering::AcqRel) + 1;
        if count >= self.stop_at.load(Ordering::Acquire) {
            self.stop.cancel();
        }
    }

    pub(crate) fn begin_cycle(&self) {
        // What woke us before this moment is seen by this very cycle.
        let woken = pin!(self.wake.notified());
        woken.enable();
        self.beat();
        let now = self.now();
        let mut told = lock(&self.told);
        told.in_cycle = Some(now);
        told.due = None;
    }

    pub(crate) fn end_cycle<S: Serialize>(
        &self,
        status: Option<&S>,
        health: Health,
    ) -> anyhow::Result<()> {
        let details = status.map(to_json).transpose()?;
        self.beat();
        let now = self.now();
        self.tell(|told| {
            told.cycles += 1;
            told.last_cycle = told.in_cycle.take().map(|began| now.saturating_sub(began));
            told.result(details, health);
        });
        Ok(())
    }

    pub(crate) fn set_due(&self, rest: Option<Duration>) {
        let due = rest.map(|rest| self.now() + rest);
        lock(&self.told).due = due;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
