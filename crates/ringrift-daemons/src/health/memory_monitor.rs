//! `MEMORY_MONITOR`: holds production back while main memory runs out.
//!
//! Reads   how much memory could be had without swapping.
//! Writes  the brake; an alarm while it holds.
//! Never   ends a process: a worker over its own limit is ended by who started it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use hosts::Memory;
use ringrift_pipeline::Catalogue;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, Obstacle, Pressure, STANDALONE, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
};

/// Name of the alarm.
pub(crate) const ALARM: &str = "memory";

/// `[daemons.memory_monitor]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Production stops when less than this share of the memory is available. The contract's limit
    /// is 90 % in use.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub least_share: f64,
    /// But never while more than this is available: on a large machine a tenth is plenty.
    pub enough_bytes: u64,
    /// Looks in a row with twice the limit available before production goes on.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub calm_looks: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { least_share: 0.1, enough_bytes: 1 << 30, calm_looks: 2 }
    }
}

/// What the last look saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Main memory, bytes.
    pub total: u64,
    /// What could be had, bytes.
    pub available: u64,
    /// Below this production stops, bytes.
    pub limit: u64,
    /// Production is held back.
    pub holding: bool,
    /// How often that began since the daemon started.
    pub times_held: u64,
}

/// Asks the operating system; tests put another answer in its place.
type Look = Arc<dyn Fn() -> std::io::Result<Memory> + Send + Sync>;

/// The daemon.
pub struct MemoryMonitor {
    config: Config,
    catalogue: Catalogue,
    pressure: Pressure,
    alarms: Alarms,
    look: Look,
    calm: u32,
    status: Status,
}

impl Emits for MemoryMonitor {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for MemoryMonitor {
    const SPEC: Spec = Spec {
        id: DaemonId("MEMORY_MONITOR"),
        about: "holds production back while memory runs out",
        priority: Priority::Critical,
        needs: &[EVENT_ROUTER],
        profiles: &[STANDALONE],
        period: Duration::from_secs(5),
        critical: true,
        max_restarts: Some(10),
        health_interval: Some(Duration::from_mins(1)),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, pressure): Self::Ports) -> Self {
        // A restart takes over the brake that the last life set.
        let holding = pressure.obstacles().contains_key(Self::ID.0);
        Self {
            config,
            catalogue,
            pressure,
            alarms: Alarms::default(),
            look: Arc::new(hosts::memory),
            calm: 0,
            status: Status { holding, ..Status::default() },
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    async fn stop(&mut self, _: &Cx) -> anyhow::Result<()> {
        // Who no longer looks must not hold anybody.
        self.pressure.set(Self::ID, None);
        Ok(())
    }

    fn health(&self, last: &Status) -> Health {
        if last.holding {
            return Health::Degraded(sentence(last));
        }
        Health::Healthy
    }
}

impl MemoryMonitor {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let memory = (self.look)().context("ask for the main memory")?;
        self.status.total = memory.total;
        self.status.available = memory.available;
        self.status.limit = limit(memory.total, &self.config);
        self.calm = if memory.available >= self.status.limit * 2 { self.calm + 1 } else { 0 };
        let held = self.status.holding;
        let holds = if held {
            self.calm < self.config.calm_looks
        } else {
            memory.available < self.status.limit
        };
        self.status.holding = holds;
        if holds && !held {
            self.status.times_held += 1;
            let reason = sentence(&self.status);
            warn!(available = memory.available, limit = self.status.limit, "memory runs out");
            let needs = format!("{} available", mib(self.status.limit * 2));
            self.pressure.set(Self::ID, Some(Obstacle { reason, needs }));
        } else if held && !holds {
            info!(available = memory.available, "memory is enough again");
            self.pressure.set(Self::ID, None);
        }
        // The brake first: a full disk must not keep it from being set.
        let sentence = holds.then(|| sentence(&self.status));
        self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
        Ok(Outcome::Done(self.status.clone()))
    }
}

/// Below so many bytes production stops.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit needs no 53 bits, and a share of a size is none below 0"
)]
fn limit(total: u64, config: &Config) -> u64 {
    ((total as f64 * config.least_share.clamp(0.0, 1.0)) as u64).min(config.enough_bytes)
}

fn sentence(status: &Status) -> String {
    format!("{} of {} of memory are available", mib(status.available), mib(status.total))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        alarms::alarm_of,
        testbed::{Bed, done},
    };

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_limit_is_a_share_but_never_more_than_enough() {
        let config = Config::default();
        assert_eq!(limit(4000 * MIB, &config), 400 * MIB);
        assert_eq!(limit(128 << 30, &config), 1 << 30);
        assert_eq!(limit(0, &config), 0);
    }

    fn monitor(bed: &Bed) -> (MemoryMonitor, Arc<AtomicU64>) {
        let mut daemon = MemoryMonitor::new(
            Config::default(),
            (bed.catalogue_of::<MemoryMonitor>(), bed.pressure.clone()),
        );
        let available = Arc::new(AtomicU64::new(0));
        let told = available.clone();
        daemon.look = Arc::new(move || {
            Ok(Memory { total: 4000 * MIB, available: told.load(Ordering::Relaxed) })
        });
        (daemon, available)
    }

    #[tokio::test]
    async fn it_holds_below_the_limit_and_lets_go_after_two_calm_looks_at_twice_of_it() {
        let bed = Bed::new().await;
        let (mut daemon, available) = monitor(&bed);
        let (cx, _probe) = bed.cx::<MemoryMonitor>();
        for (mib, holds) in [
            (400, false),
            (399, true),
            (799, true), // better, but it would be back at once
            (800, true), // calm, once
            (700, true),
            (800, true),
            (900, false),
            (500, false), // between the two: as before
        ] {
            available.store(mib * MIB, Ordering::Relaxed);
            let status = done(daemon.cycle(&cx).await);
            assert_eq!(status.holding, holds, "{mib} MiB");
            assert_eq!(bed.pressure.obstacle().is_some(), holds, "{mib} MiB");
        }
        assert_eq!(daemon.status.times_held, 1);
    }

    #[tokio::test]
    async fn while_it_holds_everybody_can_read_why_and_a_stop_lets_go() {
        let bed = Bed::new().await;
        let (mut daemon, available) = monitor(&bed);
        let (cx, _probe) = bed.cx::<MemoryMonitor>();
        available.store(100 * MIB, Ordering::Relaxed);
        let status = done(daemon.cycle(&cx).await);
        let why = "100 MiB of 4000 MiB of memory are available";
        assert_eq!(daemon.health(&status), Health::Degraded(why.into()));
        let (owner, obstacle) = bed.pressure.obstacle().unwrap();
        assert_eq!((owner, obstacle.reason.as_str()), ("MEMORY_MONITOR", why));
        assert_eq!(obstacle.needs, "800 MiB available");
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap().unwrap().0, why);

        let (next_life, _) = monitor(&bed);
        assert!(next_life.status.holding, "a restart takes the brake over");
        daemon.stop(&cx).await.unwrap();
        assert!(bed.pressure.obstacle().is_none());
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_changes_nothing() {
        let bed = Bed::new().await;
        let (mut daemon, _) = monitor(&bed);
        let (cx, probe) = bed.cx::<MemoryMonitor>();
        probe.stop_at_beat(1);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert!(bed.pressure.obstacle().is_none());
    }
}
