//! `NPZ_COMBINATION`: merges the newest sample files into the window that the next training reads.
//!
//! Reads   sample files newer than the newest window, whether a training could use one.
//! Writes  `samples.combined`.
//! Never   merges a window into a window: its inputs are sample files only.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ringrift_pipeline::{
    BlobHash, Catalogue, CombineJob, Config as GameConfig, Gate, Job, ModelPromoted, ModelRejected,
    Record, SamplesExported, SamplesReport, SamplesRow, Topic as _, WindowCombined, WorkCompleted,
    WorkId, WorkKind,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR_FULL, Emits, Loop, Order, Pressure, STANDALONE, TRAINING_FULL, Topics,
    WorkError, Workshop,
    at_hand::AtHand,
    cycle::{EVENT_ROUTER, brake, denied, first_closed, settled, tell},
    on,
    pipeline::data_pipeline::DataPipeline,
    runs::{Ended, Runs},
};

/// `[daemons.npz_combination]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Rows since the newest window that make a new one due.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub min_new_rows: u64,
    /// Most rows of a window before the config's own factor.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_rows: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_new_rows: 10_000, max_rows: 200_000 }
    }
}

/// What was combined since the daemon started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Combinations at work.
    pub combining: usize,
    /// Windows made.
    pub windows: u64,
    /// Rows of the last one.
    pub last_rows: u64,
    /// Sample files that are left out because they are missing or damaged.
    pub left_out: usize,
}

/// The daemon.
pub struct NpzCombination {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    workshop: Workshop,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    runs: Runs<GameConfig>,
    at_hand: AtHand,
    /// Sample files that a worker stumbled over: a window is made without them.
    unsound: BTreeSet<BlobHash>,
    status: Status,
}

impl Emits for NpzCombination {
    const EMITS: Topics = &[&[WindowCombined::TOPIC], crate::cycle::EMITS];
}

impl Daemon for NpzCombination {
    const SPEC: Spec = Spec {
        id: DaemonId("NPZ_COMBINATION"),
        about: "merges the newest samples into a training window",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER, DataPipeline::ID],
        profiles: &[COORDINATOR_FULL, TRAINING_FULL, STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[
            on::<SamplesExported>(),
            on::<WorkCompleted>(),
            on::<ModelPromoted>(),
            on::<ModelRejected>(),
        ],
        health_interval: Some(Duration::from_mins(1)),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Workshop, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, workshop, the_loop, pressure): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            workshop,
            the_loop,
            pressure,
            runs: Runs::default(),
            at_hand: AtHand::of_all(),
            unsound: BTreeSet::new(),
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match self.runs.health() {
            Health::Healthy if last.left_out > 0 => {
                Health::Degraded(format!("{} sample files are not sound", last.left_out))
            }
            health => health,
        }
    }
}

impl NpzCombination {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        for ended in self.runs.ended() {
            self.take(ended, cx).await?;
        }
        let brake = brake(&self.pressure);
        tell(&self.catalogue, &brake, Self::ID, None, cx.now()).await?;
        if brake.is_open() {
            for config in self.the_loop.configs.clone() {
                cx.beat()?;
                self.combine(config, cx).await?;
            }
        }
        self.status.combining = self.runs.at_work();
        self.status.left_out = self.unsound.len();
        Ok(denied(&brake, self.status.clone()))
    }

    async fn combine(&mut self, config: GameConfig, cx: &Cx) -> anyhow::Result<()> {
        if !self.runs.may_start(config) {
            return Ok(());
        }
        let newest = self.catalogue.windows(config, 1).await?.pop();
        let since = newest.as_ref().map_or(0, |window| window.newest_samples);
        let (new_rows, _) = self.catalogue.rows_after(config, since).await?;
        let trainings = self.catalogue.work_counts(WorkKind::Train, Some(config)).await?;
        let candidates = self.catalogue.candidates(config).await?;
        let gate = first_closed([
            enough(new_rows, self.config.min_new_rows),
            in_time(trainings.queued + trainings.claimed > 0, candidates.len()),
        ]);
        tell(&self.catalogue, &gate, Self::ID, Some(config), cx.now()).await?;
        if !gate.is_open() {
            return Ok(());
        }
        let scale = self.catalogue.parameters_or_default(config).await?.window_scale;
        let max_rows = scaled(self.config.max_rows, scale);
        let mut files = self.catalogue.samples(config, MOST_FILES).await?;
        files.retain(|file| !self.unsound.contains(&file.hash));
        if files.is_empty() {
            return Ok(());
        }
        let newest = newest_files(&files, max_rows);
        let picked = newest.into_iter().map(|file| (file.hash.clone(), None)).collect();
        let samples = self.at_hand.take(&self.blobs, picked, u32::MAX, cx).await?;
        if samples.is_empty() {
            return Ok(());
        }
        let head = files.first().map_or(0, |file| file.position);
        let order = Order {
            work: WorkId(format!("combine-{config}-{head}")),
            attempt: 1,
            config,
            job: Job::Combine(CombineJob { samples, max_rows }),
            owner: Self::ID,
        };
        self.runs.start(config, order, &self.workshop, cx);
        Ok(())
    }

    async fn take(&mut self, ended: Ended<GameConfig>, cx: &Cx) -> anyhow::Result<()> {
        let Job::Combine(job) = &ended.order.job else { return Ok(()) };
        let facts = ended.end.and_then(|finished| {
            let report: SamplesReport = finished.report_as()?;
            let product = finished.product("window")?;
            if report.rows == 0 || report.rows > job.max_rows {
                return Err(WorkError::Lied(format!(
                    "a window of {} rows, where 1 to {} were asked for",
                    report.rows, job.max_rows
                )));
            }
            Ok(WindowCombined {
                window: product.hash.clone(),
                bytes: product.bytes,
                config: ended.key,
                samples: job.samples.clone(),
                rows: report.rows,
                games: report.games,
            })
        });
        let combined = match facts {
            Ok(combined) => combined,
            Err(error) => {
                if matches!(error, WorkError::Never(_)) {
                    self.set_aside(&job.samples).await?;
                }
                self.runs.failed(ended.key, &error);
                return Ok(());
            }
        };
        let rows = combined.rows;
        let position = self.catalogue.windows(ended.key, 1).await?.pop().map_or(0, |w| w.position);
        self.catalogue.record(vec![Record::after(combined, position)], cx.now()).await?;
        info!(config = %ended.key, rows, files = job.samples.len(), "window combined");
        self.runs.succeeded(ended.key);
        self.status.windows += 1;
        self.status.last_rows = rows;
        Ok(())
    }
}

impl NpzCombination {
    /// Finds out which of these files made a worker refuse.
    async fn set_aside(&mut self, samples: &[BlobHash]) -> anyhow::Result<()> {
        for hash in samples {
            if let Err(fault) = self.blobs.verify(hash).await? {
                warn!(samples = %hash, %fault, "sample file is left out");
                self.unsound.insert(hash.clone());
            }
        }
        Ok(())
    }
}

/// Sample files that one window may be made of: bounds the query and the worker's open files.
const MOST_FILES: u32 = 512;

/// Code of the gate while there are too few new rows.
pub(crate) const TOO_FEW_ROWS: &str = "rows";

fn enough(new_rows: u64, least: u64) -> Gate {
    if new_rows >= least {
        return Gate::Allow;
    }
    Gate::deny(
        TOO_FEW_ROWS,
        format!("{new_rows} new rows since the last window, {least} make a new one"),
        "more games",
    )
}

/// A window made while nobody can train from it is old when somebody can.
fn in_time(training: bool, candidates: usize) -> Gate {
    if training {
        return Gate::deny("training", "a training is in work", "its end");
    }
    if candidates > 0 {
        return Gate::deny("candidate", "a candidate waits for its verdict", "the verdict");
    }
    Gate::Allow
}

/// The newest files until `max_rows` are reached, oldest first.
fn newest_files(newest_first: &[SamplesRow], max_rows: u64) -> Vec<&SamplesRow> {
    let mut rows = 0;
    let mut files: Vec<&SamplesRow> = newest_first
        .iter()
        .take_while(|file| {
            let more = rows < max_rows;
            rows += file.rows;
            more
        })
        .collect();
    files.reverse();
    files
}

fn scaled(rows: u64, scale: f32) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "rows are far below 2^53, and the scale is positive"
    )]
    let scaled = (rows as f64 * f64::from(scale)) as u64;
    scaled.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, blocked, candidate, done, hex, samples, stops_in_mid_cycle};

    fn daemon(bed: &Bed, mode: &str) -> NpzCombination {
        let shop = bed.workshop(mode);
        let ports = (
            bed.catalogue_of::<NpzCombination>(),
            bed.blobs.clone(),
            shop,
            bed.the_loop.clone(),
            bed.pressure.clone(),
        );
        NpzCombination::new(Config { min_new_rows: 100, max_rows: 1_000 }, ports)
    }

    #[test]
    fn a_window_is_made_of_the_newest_files_oldest_first() {
        let file = |position: u64, rows: u64| SamplesRow {
            hash: ringrift_pipeline::BlobHash(position.to_string()),
            config: hex(),
            rows,
            games: 1,
            bytes: 1,
            encoder: String::new(),
            position,
            created_ms: 0,
        };
        let files = [file(4, 50), file(3, 40), file(2, 30), file(1, 20)];
        let check = |max_rows, expected: &[u64]| {
            let found: Vec<u64> =
                newest_files(&files, max_rows).iter().map(|file| file.position).collect();
            assert_eq!(found, expected, "{max_rows}");
        };
        check(1, &[4]);
        check(50, &[4]);
        check(51, &[3, 4]);
        check(1_000, &[1, 2, 3, 4]);
    }

    #[test]
    fn a_window_waits_for_rows_and_for_somebody_to_read_it() {
        assert!(enough(100, 100).is_open());
        assert!(!enough(99, 100).is_open());
        assert!(in_time(false, 0).is_open());
        assert!(!in_time(true, 0).is_open());
        assert!(!in_time(false, 1).is_open());
    }

    #[test]
    fn the_window_scales_with_the_parameters() {
        assert_eq!(scaled(1_000, 1.25), 1_250);
        assert_eq!(scaled(1_000, 0.0), 1);
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::new().await;
        let mut daemon = daemon(&bed, "honest");
        let (cx, _probe) = bed.cx::<NpzCombination>();
        samples(&bed, hex(), "one", 60).await;
        assert_eq!(done(daemon.cycle(&cx).await).combining, 0, "too few");
        samples(&bed, hex(), "two", 60).await;
        bed.cycle_until(&mut daemon, &cx, async |_| {
            !bed.catalogue.windows(hex(), 1).await.unwrap().is_empty()
        })
        .await;
        let facts = bed.facts().await;
        assert_eq!(done(daemon.cycle(&cx).await).combining, 0);
        assert_eq!(bed.facts().await, facts);
        let window = bed.catalogue.windows(hex(), 1).await.unwrap().remove(0);
        assert_eq!(window.samples.len(), 2);
        samples(&bed, hex(), "three", 120).await;
        assert_eq!(done(daemon.cycle(&cx).await).combining, 1, "new rows make a new window");
    }

    #[tokio::test]
    async fn no_window_is_made_while_a_candidate_waits() {
        let bed = Bed::new().await;
        samples(&bed, hex(), "one", 600).await;
        candidate(&bed, hex(), 1).await;
        let (cx, _probe) = bed.cx::<NpzCombination>();
        assert_eq!(done(daemon(&bed, "honest").cycle(&cx).await).combining, 0);
        let (gate, _) = bed.catalogue.gate("NPZ_COMBINATION", Some(hex())).await.unwrap().unwrap();
        assert_eq!(gate.reason, "a candidate waits for its verdict");
    }

    #[tokio::test]
    async fn a_sample_file_that_is_lost_is_left_out_and_degrades() {
        let bed = Bed::new().await;
        let lost = samples(&bed, hex(), "one", 600).await;
        samples(&bed, hex(), "two", 60).await;
        let path = bed.blobs.path_of(&lost).await.unwrap().unwrap();
        fs_err::remove_file(path).unwrap();
        let mut daemon = daemon(&bed, "honest");
        let (cx, _probe) = bed.cx::<NpzCombination>();
        bed.cycle_until(&mut daemon, &cx, async |_| {
            !bed.catalogue.windows(hex(), 1).await.unwrap().is_empty()
        })
        .await;
        assert_eq!(bed.catalogue.windows(hex(), 1).await.unwrap()[0].samples.len(), 1);
        let status = done(daemon.cycle(&cx).await);
        let expected = Health::Degraded("1 sample files are not sound".into());
        assert_eq!(daemon.health(&status), expected);
    }

    #[tokio::test]
    async fn a_worker_that_fails_degrades() {
        let bed = Bed::new().await;
        samples(&bed, hex(), "one", 600).await;
        let mut daemon = daemon(&bed, "fails");
        let (cx, _probe) = bed.cx::<NpzCombination>();
        let mut last = Status::default();
        while daemon.health(&last) == Health::Healthy {
            last = done(daemon.cycle(&cx).await);
            bed.woken().await;
        }
        assert!(bed.catalogue.windows(hex(), 1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_obstacle_is_degraded_and_starts_nothing() {
        let bed = Bed::new().await;
        samples(&bed, hex(), "one", 600).await;
        let obstacle = crate::Obstacle { reason: "full".into(), needs: "room".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        let (cx, _probe) = bed.cx::<NpzCombination>();
        assert_eq!(blocked(daemon(&bed, "honest").cycle(&cx).await), "full; needs room");
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        samples(&bed, hex(), "one", 600).await;
        let daemon = daemon(&bed, "honest");
        stops_in_mid_cycle(&bed, daemon).await;
    }
}
