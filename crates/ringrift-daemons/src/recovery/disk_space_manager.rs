//! `DISK_SPACE_MANAGER`: holds production back while the disk runs out, and empties the trash.
//!
//! Reads   free bytes of the data directory's file system, the store, what the log names.
//! Writes  the brake; files that no fact names into the trash; the trash into nothing.
//! Never   needs the database to do so: on a full disk that is what cannot write.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use courier::Stream;
use depot::{Depot, Emptied, Hash, Warrant};
use hosts::Disk;
use ringrift_pipeline::Catalogue;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, EPHEMERAL, Emits, Loop, Obstacle, Pressure, SELFPLAY, STANDALONE, TRAINING,
    TRAINING_FULL, Topics,
    alarms::Alarms,
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
};

/// Name of the alarm.
pub(crate) const ALARM: &str = "disk";

/// Longest wait for an answer about the disk; a file system that hangs gives none.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes set aside: freed when the disk is so full that not even the reason of a deletion can be
/// written. A few file system blocks would do; a megabyte lets the log write as well.
const BALLAST: usize = 1 << 20;
/// Steps towards the sweep that are taken before somebody is let in.
const SWEEP_STEP: usize = 64;

/// `[daemons.disk_space_manager]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// On one machine production stops below so many free bytes, or below `least_share` of the file
    /// system if that is less; it goes on at twice the limit.
    pub least_bytes: u64,
    /// See `least_bytes`.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub least_share: f64,
    /// In a cluster production stops above this share in use. Source: disk contract, "emergency".
    #[serde(deserialize_with = "crate::ranges::share")]
    pub most_used: f64,
    /// In a cluster production goes on below this share in use. Source: disk contract, "critical".
    #[serde(deserialize_with = "crate::ranges::share")]
    pub calm_used: f64,
    /// How long a deleted file stays in the trash while there is space.
    #[serde(with = "crate::seconds")]
    pub trash_grace: Duration,
    /// Age at which a file that no fact names is an orphan: what a worker handed over a moment ago is
    /// named a moment later.
    #[serde(with = "crate::seconds")]
    pub orphan_age: Duration,
    /// How often orphans are looked for and the trash is emptied.
    #[serde(with = "crate::seconds")]
    pub sweep_every: Duration,
    /// Orphans that one sweep removes.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_orphans_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            least_bytes: 2 << 30,
            least_share: 0.02,
            most_used: 0.85,
            calm_used: 0.7,
            trash_grace: Duration::from_hours(24),
            orphan_age: Duration::from_hours(1),
            sweep_every: Duration::from_mins(10),
            max_orphans_per_cycle: 500,
        }
    }
}

/// What the last look saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Size of the file system, bytes.
    pub total: u64,
    /// Free bytes.
    pub available: u64,
    /// Below so many production stops.
    pub limit: u64,
    /// Production is held back.
    pub holding: bool,
    /// Bytes that emptying the trash gave back since the daemon started.
    pub freed: u64,
    /// Files that no fact named, removed since the daemon started.
    pub orphans: u64,
}

/// Asks the operating system; tests put another answer in its place.
type Look = Arc<dyn Fn(&Path) -> std::io::Result<Disk> + Send + Sync>;

/// The daemon.
pub struct DiskSpaceManager {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    alarms: Alarms,
    look: Look,
    next_sweep_ms: i64,
    /// While a disk was full a moment ago, results may wait in memory for their fact: their files
    /// are no orphans.
    last_full_ms: Option<i64>,
    status: Status,
}

impl Emits for DiskSpaceManager {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for DiskSpaceManager {
    const SPEC: Spec = Spec {
        id: DaemonId("DISK_SPACE_MANAGER"),
        about: "holds production back while the disk runs out",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[TRAINING, SELFPLAY, TRAINING_FULL, EPHEMERAL, STANDALONE],
        period: Duration::from_secs(5),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, pressure): Self::Ports) -> Self {
        // A restart takes over the brake that the last life set.
        let holding = pressure.obstacles().contains_key(Self::ID.0);
        Self {
            config,
            catalogue,
            blobs,
            the_loop,
            pressure,
            alarms: Alarms::default(),
            look: Arc::new(hosts::disk),
            next_sweep_ms: 0,
            last_full_ms: None,
            status: Status { holding, ..Status::default() },
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    async fn stop(&mut self, _: &Cx) -> anyhow::Result<()> {
        // Who no longer looks must not hold anybody. The store keeps its own reserve.
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

impl DiskSpaceManager {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let disk = match self.ask(cx).await? {
            Ok(disk) => disk,
            Err(why) => {
                // What cannot be measured is taken for full.
                self.status.holding = true;
                let reason = format!("the disk cannot be measured: {why}");
                let needs = "a disk that answers".to_owned();
                self.pressure.set(Self::ID, Some(Obstacle { reason: reason.clone(), needs }));
                return Ok(Outcome::blocked(reason).with_status(self.status.clone()));
            }
        };
        self.brake(disk);
        if self.status.holding {
            self.last_full_ms = Some(cx.now());
            self.make_room(cx).await?;
            let again = self.ask(cx).await?;
            if let Ok(disk) = again {
                self.brake(disk);
            }
        } else {
            self.keep_ballast().await?;
        }
        if cx.now() >= self.next_sweep_ms {
            self.sweep(cx).await?;
            let every = i64::try_from(self.config.sweep_every.as_millis()).unwrap_or(i64::MAX);
            self.next_sweep_ms = cx.now().saturating_add(every);
        }
        // Last: a full disk keeps the alarm from being written, and nothing else.
        let sentence = self.status.holding.then(|| sentence(&self.status));
        self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
        Ok(Outcome::Done(self.status.clone()))
    }

    async fn ask(&self, cx: &Cx) -> anyhow::Result<Result<Disk, String>> {
        let (look, data) = (Arc::clone(&self.look), self.the_loop.data.clone());
        let asked = tokio::task::spawn_blocking(move || look(&data));
        match cx.within(ANSWER, asked).await {
            Ok(Ok(Ok(disk))) => Ok(Ok(disk)),
            Ok(Ok(Err(error))) => Ok(Err(error.to_string())),
            Ok(Err(error)) => Ok(Err(error.to_string())),
            Err(error) if error.is::<warden::TimedOut>() => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Sets or releases the brake.
    fn brake(&mut self, disk: Disk) {
        let held = self.status.holding;
        let (limit, calm) = limits(disk.total, self.the_loop.standalone, &self.config);
        self.status.total = disk.total;
        self.status.available = disk.available;
        self.status.limit = limit;
        self.status.holding = disk.available < if held { calm } else { limit };
        if self.status.holding {
            let reason = sentence(&self.status);
            if !held {
                warn!(available = disk.available, limit, "disk runs out");
            }
            // Not anew for every byte: only those who wait for a change are to be woken.
            if !held || !self.pressure.obstacles().contains_key(Self::ID.0) {
                let needs = format!("{} free", mib(calm));
                self.pressure.set(Self::ID, Some(Obstacle { reason, needs }));
            }
        } else if self.pressure.set(Self::ID, None) {
            info!(available = disk.available, "disk has room again");
        }
    }

    /// Frees what may be freed at once: the trash, whatever its age.
    async fn make_room(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let now_ms = cx.now();
        let emptied =
            self.blobs.with(move |depot| depot.empty_trash(Duration::ZERO, now_ms)).await??;
        self.note_freed(emptied);
        if emptied.files == 0 && self.status.available < BALLAST as u64 {
            match fs_err::tokio::remove_file(self.ballast()).await {
                Ok(()) => info!("ballast dropped"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn note_freed(&mut self, emptied: Emptied) {
        self.status.freed += emptied.bytes;
        if emptied.files > 0 {
            info!(files = emptied.files, bytes = emptied.bytes, "trash emptied");
        }
    }

    fn ballast(&self) -> PathBuf {
        self.the_loop.data.join("run").join("ballast")
    }

    async fn keep_ballast(&self) -> anyhow::Result<()> {
        let path = self.ballast();
        if fs_err::tokio::metadata(&path).await.is_ok() {
            return Ok(());
        }
        fs_err::tokio::create_dir_all(self.the_loop.data.join("run")).await?;
        match fs_err::tokio::write(&path, vec![0x55; BALLAST]).await {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            written => Ok(written?),
        }
    }

    /// Empties the old trash, and trashes files that no fact names.
    async fn sweep(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let (grace, now_ms) = (self.config.trash_grace, cx.now());
        let emptied = self.blobs.with(move |depot| depot.empty_trash(grace, now_ms)).await??;
        self.note_freed(emptied);
        let age = i64::try_from(self.config.orphan_age.as_millis()).unwrap_or(i64::MAX);
        if self.last_full_ms.is_some_and(|full| now_ms.saturating_sub(full) < age) {
            return Ok(());
        }
        // The files first: one that is named between the two looks is then known.
        let born_before = now_ms.saturating_sub(age);
        let old = self.blobs.with(move |depot| older_than(depot, born_before)).await??;
        if old.is_empty() {
            return Ok(());
        }
        // A catalogue that is behind the log does not know yet what it will name.
        let head = self.catalogue.log().head(Stream::Pipeline).await?;
        if self.catalogue.position().await? < head {
            return Ok(());
        }
        let named: HashSet<Hash> = self
            .catalogue
            .blobs(None)
            .await?
            .iter()
            .map(|row| parse(&row.hash))
            .collect::<anyhow::Result<_>>()?;
        let mut orphans: Vec<Hash> = old.into_iter().filter(|hash| !named.contains(hash)).collect();
        orphans.truncate(self.config.max_orphans_per_cycle);
        for step in orphans.chunks(SWEEP_STEP) {
            cx.beat()?;
            let step = step.to_vec();
            let age = humantime::format_duration(self.config.orphan_age).to_string();
            let removed =
                self.blobs.with(move |depot| trash_orphans(depot, &step, &age, now_ms)).await?;
            self.status.orphans += removed?;
        }
        Ok(())
    }
}

fn older_than(depot: &Depot, born_before_ms: i64) -> depot::Result<Vec<Hash>> {
    let mut old = Vec::new();
    for entry in depot.list()? {
        let born = fs_err::metadata(&entry.path).and_then(|meta| meta.modified());
        // Gone meanwhile, or of no known age: no orphan.
        let Ok(born) = born else { continue };
        let since = born.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        if i64::try_from(since.as_millis()).unwrap_or(i64::MAX) <= born_before_ms {
            old.push(entry.hash);
        }
    }
    Ok(old)
}

fn trash_orphans(depot: &Depot, orphans: &[Hash], age: &str, now_ms: i64) -> depot::Result<u64> {
    let mut removed = 0;
    for hash in orphans {
        let warrant = Warrant::Retention(format!("no fact has named it for {age}"));
        match depot.trash(hash, &warrant, now_ms) {
            Ok(()) => removed += 1,
            Err(depot::Error::Fault(depot::Fault::Missing { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Free bytes below which production stops, and at which it goes on.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit needs no 53 bits, and a share of a size is none below 0"
)]
fn limits(total: u64, standalone: bool, config: &Config) -> (u64, u64) {
    let share = |of: f64| (total as f64 * of.clamp(0.0, 1.0)) as u64;
    if standalone {
        let limit = share(config.least_share).min(config.least_bytes);
        (limit, limit * 2)
    } else {
        (share(1.0 - config.most_used), share(1.0 - config.calm_used))
    }
}

fn sentence(status: &Status) -> String {
    format!(
        "{} are free on the disk of the data directory, less than {}",
        mib(status.available),
        mib(status.limit)
    )
}

fn mib(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        alarms::alarm_of,
        testbed::{Bed, FullDisk, blocked, done, hex},
    };

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn one_machine_goes_by_free_bytes_and_a_cluster_by_shares() {
        let check = |total, standalone, expected: (u64, u64)| {
            assert_eq!(limits(total, standalone, &Config::default()), expected);
        };
        check(1000 * GIB, true, (2 * GIB, 4 * GIB));
        check(50 * GIB, true, (GIB, 2 * GIB));
        check(500 * MIB, true, (10 * MIB, 20 * MIB));
        check(0, true, (0, 0));
        let (limit, calm) = limits(1000, false, &Config::default());
        assert!((149..=151).contains(&limit) && (299..=301).contains(&calm), "{limit} {calm}");
    }

    /// A manager on a file system of 5000 MiB (limit 100, calm 200) with so much free.
    fn manager(bed: &Bed, config: Config) -> (DiskSpaceManager, Arc<AtomicU64>) {
        let ports = (
            bed.catalogue_of::<DiskSpaceManager>(),
            bed.blobs.clone(),
            bed.the_loop.clone(),
            bed.pressure.clone(),
        );
        let mut daemon = DiskSpaceManager::new(config, ports);
        let free = Arc::new(AtomicU64::new(5000));
        let told = free.clone();
        daemon.look = Arc::new(move |_| {
            Ok(Disk { total: 5000 * MIB, available: told.load(Ordering::Relaxed) * MIB })
        });
        (daemon, free)
    }

    fn trash(bed: &Bed, text: &str, at_ms: i64) -> Hash {
        let hash = parse(&bed.put(text)).unwrap();
        let warrant = Warrant::Retention("test".into());
        bed.blobs.depot().trash(&hash, &warrant, at_ms).unwrap();
        hash
    }

    #[tokio::test]
    async fn it_holds_below_the_limit_and_lets_go_at_twice_of_it() {
        let bed = Bed::new().await;
        let (mut daemon, free) = manager(&bed, Config::default());
        let (cx, _probe) = bed.cx::<DiskSpaceManager>();
        for (mib, holds) in
            [(5000, false), (100, false), (99, true), (100, true), (199, true), (200, false)]
        {
            free.store(mib, Ordering::Relaxed);
            let status = done(daemon.cycle(&cx).await);
            assert_eq!(status.holding, holds, "{mib} MiB");
            assert_eq!(bed.pressure.obstacle().is_some(), holds, "{mib} MiB");
            assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some(), holds);
        }
        free.store(99, Ordering::Relaxed);
        let status = done(daemon.cycle(&cx).await);
        let why = "99 MiB are free on the disk of the data directory, less than 100 MiB";
        assert_eq!(daemon.health(&status), Health::Degraded(why.into()));
        let (owner, obstacle) = bed.pressure.obstacle().unwrap();
        assert_eq!((owner, obstacle.reason.as_str()), ("DISK_SPACE_MANAGER", why));
        assert_eq!(obstacle.needs, "200 MiB free");
        daemon.stop(&cx).await.unwrap();
        assert!(bed.pressure.obstacle().is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_measured_counts_as_full() {
        let bed = Bed::new().await;
        let (mut daemon, _) = manager(&bed, Config::default());
        daemon.look = Arc::new(|_| Err(std::io::Error::other("it is gone")));
        let (cx, _probe) = bed.cx::<DiskSpaceManager>();
        let reason = blocked(daemon.cycle(&cx).await);
        assert_eq!(reason, "the disk cannot be measured: it is gone");
        assert!(bed.pressure.obstacle().is_some());
    }

    #[tokio::test]
    async fn the_trash_is_emptied_after_its_grace_and_at_once_when_the_disk_is_full() {
        let bed = Bed::new().await;
        let now = bed.now.load(Ordering::Relaxed);
        let config = Config { sweep_every: Duration::ZERO, ..Config::default() };
        let (mut daemon, free) = manager(&bed, config);
        let (cx, _probe) = bed.cx::<DiskSpaceManager>();
        let day = 24 * 3_600_000;
        trash(&bed, "old", now - day);
        let young = trash(&bed, "young", now - day + 60_000);
        let left = || bed.blobs.depot().trashed().unwrap();
        assert_eq!(done(daemon.cycle(&cx).await).freed, 3);
        assert_eq!(left().iter().map(|trashed| trashed.hash).collect::<Vec<_>>(), [young]);
        assert_eq!(done(daemon.cycle(&cx).await).freed, 3, "a second cycle finds nothing");
        free.store(50, Ordering::Relaxed);
        assert_eq!(done(daemon.cycle(&cx).await).freed, 8);
        assert!(left().is_empty());
    }

    #[tokio::test]
    async fn only_old_files_that_no_fact_names_are_orphans() {
        let bed = Bed::new().await;
        let named = bed.batch(hex(), &["g1"]).await;
        let orphan = bed.put("nobody's");
        let present = |hash: &ringrift_pipeline::BlobHash| {
            bed.blobs.depot().contains(&parse(hash).unwrap()).unwrap()
        };
        // Files get the machine's time, so the bed's clock must follow it.
        let born = fs_err::metadata(bed.blobs.path_of(&orphan).await.unwrap().unwrap())
            .unwrap()
            .modified()
            .unwrap()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        bed.now.store(i64::try_from(born.as_millis()).unwrap(), Ordering::Relaxed);
        let config = Config { sweep_every: Duration::ZERO, ..Config::default() };
        let (mut daemon, free) = manager(&bed, config);
        let (cx, _probe) = bed.cx::<DiskSpaceManager>();
        bed.pass_time(Duration::from_mins(59));
        done(daemon.cycle(&cx).await);
        assert!(present(&orphan), "too young");

        free.store(50, Ordering::Relaxed);
        done(daemon.cycle(&cx).await);
        free.store(5000, Ordering::Relaxed);
        bed.pass_time(Duration::from_mins(30));
        done(daemon.cycle(&cx).await);
        assert!(present(&orphan), "the disk was full: its fact may not have been written yet");

        bed.pass_time(Duration::from_mins(31));
        assert_eq!(done(daemon.cycle(&cx).await).orphans, 1);
        assert!(!present(&orphan) && present(&named));
        let trashed = bed.blobs.depot().trashed().unwrap();
        assert_eq!(trashed[0].why, "retention: no fact has named it for 1h");
        assert_eq!(done(daemon.cycle(&cx).await).orphans, 1, "a second cycle finds nothing");
    }

    #[tokio::test]
    async fn it_brakes_and_makes_room_when_nothing_can_be_written() {
        let bed = Bed::new().await;
        let (mut daemon, free) = manager(&bed, Config::default());
        let (catalogue, full) = FullDisk::below(&bed).await;
        daemon.catalogue = catalogue;
        full.store(true, Ordering::Relaxed);
        free.store(0, Ordering::Relaxed);
        trash(&bed, "young", bed.now.load(Ordering::Relaxed));
        let (cx, _probe) = bed.cx::<DiskSpaceManager>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.holding, status.freed), (true, 5));
        assert!(bed.pressure.obstacle().is_some());
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
        full.store(false, Ordering::Relaxed);
        done(daemon.cycle(&cx).await);
        assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some(), "told when it can be");
    }

    #[tokio::test]
    async fn ballast_is_kept_in_good_times_and_dropped_in_the_worst() {
        let bed = Bed::new().await;
        let (mut daemon, free) = manager(&bed, Config::default());
        let (cx, _probe) = bed.cx::<DiskSpaceManager>();
        done(daemon.cycle(&cx).await);
        let ballast = bed.data().join("run").join("ballast");
        assert_eq!(fs_err::metadata(&ballast).unwrap().len(), BALLAST as u64);
        free.store(50, Ordering::Relaxed);
        done(daemon.cycle(&cx).await);
        assert!(ballast.exists());
        free.store(0, Ordering::Relaxed);
        done(daemon.cycle(&cx).await);
        assert!(!ballast.exists());
        free.store(5000, Ordering::Relaxed);
        done(daemon.cycle(&cx).await);
        assert!(ballast.exists());
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_keeps_the_brake_set() {
        let bed = Bed::new().await;
        let (mut daemon, free) = manager(&bed, Config::default());
        free.store(50, Ordering::Relaxed);
        let (cx, probe) = bed.cx::<DiskSpaceManager>();
        // The beat before the disk is measured again.
        probe.stop_at_beat(4);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert!(bed.pressure.obstacle().is_some());
        assert!(manager(&bed, Config::default()).0.status.holding, "the next life takes it over");
    }
}
