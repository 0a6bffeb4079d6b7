//! `HIGH_QUALITY_SYNC`: watches whether new games come in, and has the best of them on this node.
//!
//! Reads   the newest batches of each config, and who played them.
//! Writes  into the store batches that other nodes have, the best first: the closer its player is to the
//!         champion, the better a batch.
//! Never   believes the clocks of other machines: how old games are is how long ago this node saw the log name
//!         newer ones.
//!
//! Games that come in no more make it degraded; those and too few games here have whoever runs here of `TRAINING_DATA_SYNC`, `GOSSIP_SYNC`
//! and `AUTO_SYNC` look once more. On one machine there is nothing to fetch, and `PROGRESS_WATCHDOG` watches.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use hosts::Disk;
use ringrift_pipeline::{BatchRow, BatchState, Catalogue, Config as GameConfig, ModelId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use super::{
    auto_sync::AutoSync, gossip_sync::GossipSync, training_data_sync::TrainingDataSync,
    whereabouts::ALONE,
};
use crate::{
    Bell, Blobs, Emits, Loop, OutOfReach, Pressure, Topics,
    cycle::{EVENT_ROUTER, brake, denied, settled},
};

/// Longest wait for an answer about the disk.
const ANSWER: Duration = Duration::from_secs(5);
/// Who looks once more when no new games come in; which of them run depends on the profile.
const LOOK_ONCE_MORE: [DaemonId; 3] = [TrainingDataSync::ID, GossipSync::ID, AutoSync::ID];
/// Generations in which the worth of a player's games falls to half.
const HALF: f64 = 4.0;

/// `[daemons.high_quality_sync]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Games that came in longer ago are stale. Source: sync contract, 1 h.
    #[serde(with = "crate::seconds")]
    pub stale_after: Duration,
    /// Fewer games here, of the newest batches of a config, are too few. Source: sync contract, 1000 games.
    pub least_games: u64,
    /// Batches of less quality stay where they are. Source: sync contract, "quality above 0.7".
    #[serde(deserialize_with = "crate::ranges::share")]
    pub least_quality: f64,
    /// The newest batches of a config among which is chosen.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub newest_batches: u32,
    /// Above this share of the disk in use nothing is fetched.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub fetch_below: f64,
    /// Bytes that one cycle fetches.
    pub max_bytes_per_cycle: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_hours(1),
            least_games: 1000,
            least_quality: 0.7,
            newest_batches: 64,
            fetch_below: 0.5,
            max_bytes_per_cycle: 256 << 20,
        }
    }
}

/// What it sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Why there is nothing to do, if so.
    pub idle: Option<String>,
    /// Each config that has games.
    pub configs: BTreeMap<String, Games>,
    /// Batches fetched since the daemon started.
    pub fetched: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Why something is not fetched, if so.
    pub out_of_reach: Option<String>,
}

/// The games of a config.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Games {
    /// Time since this node saw the newest ones come in.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub age: Duration,
    /// None came in for too long.
    pub stale: bool,
    /// Games here of the newest batches.
    pub here: u64,
    /// They are too few.
    pub few: bool,
    /// Batches that are good enough.
    pub good: usize,
    /// Those of them that are here.
    pub at_hand: usize,
    /// Mean quality of the newest batches, 0 to 1.
    pub quality: f64,
}

/// Asks the operating system; tests put another answer in its place.
type Look = Arc<dyn Fn(&Path) -> std::io::Result<Disk> + Send + Sync>;

/// The daemon.
pub struct HighQualitySync {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    bell: Bell,
    look: Look,
    /// Where the newest games of each config were in the log, and when that was seen.
    newest: BTreeMap<GameConfig, (u64, Instant)>,
    status: Status,
}

impl Emits for HighQualitySync {
    const EMITS: Topics = &[];
}

impl Daemon for HighQualitySync {
    const SPEC: Spec = Spec {
        id: DaemonId("HIGH_QUALITY_SYNC"),
        about: "watches for new games and fetches the best",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        period: Duration::from_mins(5),
        // Fetching is the work, and beats come per file.
        cycle_limit: Duration::from_mins(10),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, Pressure, Bell);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, pressure, bell): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            the_loop,
            pressure,
            bell,
            look: Arc::new(hosts::disk),
            newest: BTreeMap::new(),
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        if !self.the_loop.shared {
            self.status.idle = Some(ALONE.to_owned());
            return Ok(Outcome::Done(self.status.clone()));
        }
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        let stale: Vec<String> = last
            .configs
            .iter()
            .filter(|(_, games)| games.stale)
            .map(|(config, games)| format!("{config} for {} min", games.age.as_secs() / 60))
            .collect();
        if !stale.is_empty() {
            return Health::Degraded(format!("no new games of {}", stale.join(", ")));
        }
        match &last.out_of_reach {
            Some(why) => Health::Degraded(why.clone()),
            None => Health::Healthy,
        }
    }
}

impl HighQualitySync {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let gate = brake(&self.pressure);
        let mut room = gate.is_open() && self.has_room(cx).await?;
        let (before, mut bytes) = (self.status.fetched, 0_u64);
        self.status.out_of_reach = None;
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            let batches =
                self.catalogue.recent_batches(Some(config), self.config.newest_batches).await?;
            let Some(newest) = batches.iter().map(|batch| batch.position).max() else { continue };
            self.watch(config, newest);
            let rated = self.rated(config, batches).await?;
            let mut games = self.status.configs.remove(&config.to_string()).unwrap_or_default();
            games.quality = mean(rated.iter().map(|(quality, _)| *quality));
            (games.good, games.at_hand, games.here) = (0, 0, 0);
            for (quality, batch) in rated {
                let is_good = quality >= self.config.least_quality;
                games.good += usize::from(is_good);
                let mut is_here = self.blobs.is_here(&batch.hash).await?;
                room &= bytes < self.config.max_bytes_per_cycle;
                if !is_here && is_good && room {
                    cx.beat()?;
                    is_here = self.fetch(&batch).await?;
                    bytes = bytes.saturating_add(if is_here { batch.bytes } else { 0 });
                }
                games.at_hand += usize::from(is_here && is_good);
                games.here += if is_here { u64::from(batch.games) } else { 0 };
            }
            let were_few = games.few;
            games.few = games.here < self.config.least_games;
            if games.few && !were_few {
                info!(%config, here = games.here, "too few games are here");
                self.bell.wake_running(&LOOK_ONCE_MORE);
            }
            self.status.configs.insert(config.to_string(), games);
        }
        if self.status.fetched > before {
            self.bell.wake_daemon(GossipSync::ID);
        }
        Ok(denied(&gate, self.status.clone()))
    }

    /// Brings a batch here, if somebody gives it.
    async fn fetch(&mut self, batch: &BatchRow) -> anyhow::Result<bool> {
        if let Err(error) = self.blobs.path_of(&batch.hash).await {
            let why = error.downcast::<OutOfReach>()?;
            warn!(batch = %batch.hash, error = %why, "games are not fetched");
            self.status.out_of_reach = Some(why.to_string());
            return Ok(false);
        }
        info!(batch = %batch.hash, config = %batch.config, model = %batch.model, "games fetched");
        self.status.fetched += 1;
        self.status.fetched_bytes += batch.bytes;
        Ok(true)
    }

    /// Says how old the newest games are, and has others look when they become stale.
    fn watch(&mut self, config: GameConfig, newest: u64) {
        let seen = self.newest.entry(config).or_insert_with(|| (newest, Instant::now()));
        if seen.0 < newest {
            *seen = (newest, Instant::now());
        }
        let games = self.status.configs.entry(config.to_string()).or_default();
        let was_stale = games.stale;
        games.age = seen.1.elapsed();
        games.stale = games.age > self.config.stale_after;
        if games.stale && !was_stale {
            warn!(%config, age = ?games.age, "no new games come in");
            self.bell.wake_running(&LOOK_ONCE_MORE);
        }
        if was_stale && !games.stale {
            info!(%config, "new games come in again");
        }
    }

    /// The batches that may count, the best first, of equal ones the newest.
    async fn rated(
        &self,
        config: GameConfig,
        mut batches: Vec<BatchRow>,
    ) -> anyhow::Result<Vec<(f64, BatchRow)>> {
        batches.retain(|batch| batch.state != BatchState::Rejected);
        let champion = self.catalogue.champion(config).await?;
        let best = champion.map_or(0, |champion| champion.model.generation);
        let models = self.catalogue.models(Some(config)).await?;
        let generations: BTreeMap<ModelId, u32> =
            models.into_iter().map(|model| (model.id, model.generation)).collect();
        let rate = |batch: BatchRow| {
            let generation = generations.get(&batch.model).copied().unwrap_or(0);
            (quality(generation, best), batch)
        };
        let mut rated: Vec<(f64, BatchRow)> = batches.into_iter().map(rate).collect();
        rated.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.position.cmp(&a.1.position)));
        Ok(rated)
    }

    async fn has_room(&self, cx: &Cx) -> anyhow::Result<bool> {
        let (look, data) = (Arc::clone(&self.look), self.the_loop.data.clone());
        let asked = tokio::task::spawn_blocking(move || look(&data));
        // A disk that cannot be measured is taken for full; its own watcher says so.
        match cx.within(ANSWER, asked).await {
            Ok(Ok(Ok(disk))) => Ok(disk.used_share() < self.config.fetch_below),
            Ok(_) => Ok(false),
            Err(error) if error.is::<warden::TimedOut>() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What games are worth by who played them: 1 for the champion or newer, half for each four generations before.
fn quality(generation: u32, best: u32) -> f64 {
    0.5_f64.powf(f64::from(best.saturating_sub(generation)) / HALF)
}

#[expect(clippy::cast_precision_loss, reason = "a few batches")]
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let number = values.len().max(1);
    values.sum::<f64>() / number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, Roster, Street, candidate, done, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed, used: u64) -> HighQualitySync {
        let ports = (
            bed.catalogue_of::<HighQualitySync>(),
            bed.blobs.clone(),
            bed.shared(),
            bed.pressure.clone(),
            bed.bell.clone(),
        );
        let mut daemon = HighQualitySync::new(Config::default(), ports);
        daemon.look = Arc::new(move |_| Ok(Disk { total: 100, available: 100 - used }));
        daemon
    }

    #[test]
    fn games_of_the_champion_are_best_and_older_players_are_worth_less() {
        let check = |generation: u32, best: u32, is_good: bool| {
            let found = quality(generation, best);
            assert!((0.0..=1.0).contains(&found));
            assert_eq!(found >= Config::default().least_quality, is_good, "{generation} of {best}");
        };
        check(0, 0, true);
        check(7, 5, true);
        check(5, 5, true);
        check(3, 5, true);
        check(2, 5, false);
        check(0, 50, false);
    }

    #[tokio::test]
    async fn good_games_are_fetched_once_and_not_on_a_disk_that_fills() {
        let bed = Bed::new().await;
        let street = Street::default();
        street.open(&bed);
        bed.champion(hex()).await;
        let batch = bed.elsewhere(&street, "g1").await;
        let lost = bed.named_only("lost").await;
        let (cx, _probe) = bed.cx::<HighQualitySync>();
        let mut full = daemon(&bed, 60);
        assert_eq!(done(full.cycle(&cx).await).fetched, 0);
        let mut daemon = daemon(&bed, 10);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.fetched, status.configs["hex8_2p"].good), (1, 2));
        assert!(bed.has_file(&batch) && !bed.has_file(&lost));
        assert!(matches!(daemon.health(&status), Health::Degraded(_)), "one is out of reach");
        let again = done(daemon.cycle(&cx).await);
        assert_eq!((again.fetched, again.configs["hex8_2p"].at_hand), (1, 1));
        stops_in_mid_cycle(&bed, daemon).await;
    }

    #[tokio::test]
    async fn games_of_players_long_beaten_stay_where_they_are() {
        let bed = Bed::new().await;
        let street = Street::default();
        street.open(&bed);
        bed.champion(hex()).await;
        let old = bed.elsewhere(&street, "g1").await;
        let model = candidate(&bed, hex(), 9).await;
        let promoted = ringrift_pipeline::ModelPromoted {
            model,
            config: hex(),
            over: ModelId::new(hex(), 0),
            elo: 50.0,
            elo_low: 20.0,
            elo_high: 80.0,
            games: 100,
        };
        bed.record(vec![promoted.into()]).await;
        let mut daemon = daemon(&bed, 10);
        let (cx, _probe) = bed.cx::<HighQualitySync>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.fetched, status.configs["hex8_2p"].good), (0, 0));
        assert!(status.configs["hex8_2p"].quality < 0.3 && !bed.has_file(&old));
    }

    #[tokio::test]
    async fn too_few_games_here_have_others_look_once() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        bed.batch(hex(), &["g1"]).await;
        let roster = Roster::default();
        roster.run(&[GossipSync::ID]);
        let mut daemon = daemon(&bed, 10);
        daemon.bell = roster.bell();
        daemon.config.least_games = 2;
        let (cx, _probe) = bed.cx::<HighQualitySync>();
        for _ in 0..2 {
            let games = done(daemon.cycle(&cx).await).configs["hex8_2p"].clone();
            assert_eq!((games.here, games.few), (1, true));
        }
        assert_eq!(roster.woken(), [GossipSync::ID]);
        bed.batch(hex(), &["g2"]).await;
        let games = done(daemon.cycle(&cx).await).configs["hex8_2p"].clone();
        assert_eq!((games.here, games.few), (2, false));
    }

    #[tokio::test]
    async fn games_that_come_in_no_more_degrade_until_new_ones_come() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        bed.batch(hex(), &["g1"]).await;
        let (cx, _probe) = bed.cx::<HighQualitySync>();
        let mut daemon = daemon(&bed, 10);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy);
        daemon.config.stale_after = Duration::ZERO;
        // As on a node of the profile `training` in a cluster.
        let roster = Roster::default();
        roster.run(&[TrainingDataSync::ID, GossipSync::ID]);
        daemon.bell = roster.bell();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(roster.woken(), [TrainingDataSync::ID, GossipSync::ID]);
        let Health::Degraded(why) = daemon.health(&status) else { panic!("{status:?}") };
        assert!(why.contains("no new games of hex8_2p"), "{why}");
        daemon.config.stale_after = Duration::from_hours(1);
        bed.batch(hex(), &["g2"]).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy);
        let mut alone = HighQualitySync::new(
            Config::default(),
            (
                bed.catalogue_of::<HighQualitySync>(),
                bed.blobs.clone(),
                bed.the_loop.clone(),
                bed.pressure.clone(),
                bed.bell.clone(),
            ),
        );
        assert_eq!(done(alone.cycle(&cx).await).idle.as_deref(), Some(ALONE));
    }
}
