//! `DISK_SPACE_MANAGER`: holds production back while the disk runs out, and empties the trash.
//!
//! Reads   free bytes of the data directory's file system, the store, what the log and the outbox name.
//! Writes  the brake; files that no fact names into the trash, and back if one names them after all; the trash
//!         into nothing.
//! Never   needs to write into the database to do so: on a full disk that is what cannot be done.

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
/// The grounds on which orphans go to the trash, up to their age: by them they are known there.
const ORPHAN: &str = "no fact has named it for";

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
    /// Those that a fact named after all, taken out of the trash since the daemon started.
    pub restored: u64,
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
        self.bring_back(cx).await?;
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

    /// Takes out of the trash what went there as an orphan and is named by a fact now: who played it may have
    /// been cut off when it was swept. If it cannot be told what is named, all orphans come back, for a sweep
    /// that can tell.
    async fn bring_back(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let trashed = self.blobs.with(Depot::trashed).await??;
        let mut orphans: Vec<Hash> = trashed
            .into_iter()
            .filter(|trashed| trashed.why.contains(ORPHAN))
            .map(|trashed| trashed.hash)
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        let named = async {
            // The outbox first: what is handed in meanwhile was in it.
            let mut named = self.kept().await?;
            named.extend(self.named().await?);
            anyhow::Ok(named)
        };
        match named.await {
            Ok(named) => orphans.retain(|hash| named.contains(hash)),
            Err(error) => warn!(error = format!("{error:#}"), "what facts name cannot be told"),
        }
        for step in orphans.chunks(SWEEP_STEP) {
            cx.beat()?;
            let step = step.to_vec();
            self.status.restored +=
                self.blobs.with(move |depot| restore_orphans(depot, &step)).await??;
        }
        Ok(())
    }

    /// What the outbox names.
    async fn kept(&self) -> anyhow::Result<HashSet<Hash>> {
        self.catalogue.kept_artefacts().await?.iter().map(parse).collect()
    }

    /// What the log names, as far as it is folded.
    async fn named(&self) -> anyhow::Result<HashSet<Hash>> {
        self.catalogue.blobs(None).await?.iter().map(|row| parse(&row.hash)).collect()
    }

    /// Empties the old trash, and trashes files that no fact names.
    async fn sweep(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.bring_back(cx).await?;
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
        // What waits for a log out of reach is named, too. The outbox before the log: what is handed in between
        // the two looks is then in either.
        let kept = self.kept().await?;
        // A catalogue that is behind the log does not know yet what it will name.
        let head = self.catalogue.log().head(Stream::Pipeline).await?;
        if self.catalogue.position().await? < head {
            return Ok(());
        }
        let mut named = self.named().await?;
        named.extend(kept);
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
        let warrant = Warrant::Retention(format!("{ORPHAN} {age}"));
        match depot.trash(hash, &warrant, now_ms) {
            Ok(()) => removed += 1,
            Err(depot::Error::Fault(depot::Fault::Missing { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

fn restore_orphans(depot: &Depot, orphans: &[Hash]) -> depot::Result<u64> {
    let mut restored = 0;
    for hash in orphans {
        match depot.restore(hash) {
            Ok(was_there) => restored += u64::from(was_there),
            // Not worth keeping; whoever names it finds it missing, and says so.
            Err(depot::Error::Fault(fault @ depot::Fault::Wrong { .. })) => {
                warn!(%hash, %fault, "a file of the trash that a fact names is damaged");
                continue;
            }
            Err(error) => return Err(error),
        }
        warn!(%hash, "a fact names a file of the trash: it is back");
    }
    Ok(restored)
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
mod tests;
