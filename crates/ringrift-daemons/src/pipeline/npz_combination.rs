//! `NPZ_COMBINATION`: merges the newest sample files into the window that the next training reads.
//!
//! Reads   sample files newer than the newest window, whether a training could use one.
//! Writes  `samples.combined`.
//! Never   merges a window into a window: its inputs are sample files only.

use std::{sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, CombineJob, Config as GameConfig, Gate, Job, ModelPromoted, ModelRejected, Record,
    SamplesExported, SamplesReport, SamplesRow, WindowCombined, WorkCompleted, WorkId, WorkKind,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Loop, Order, Pressure, STANDALONE, TRAINING_FULL, Workshop,
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
    pub min_new_rows: u64,
    /// Most rows of a window before the config's own factor.
    pub max_rows: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_new_rows: 8_000, max_rows: 100_000 }
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
}

/// The daemon.
pub struct NpzCombination {
    config: Config,
    catalogue: Catalogue,
    workshop: Workshop,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    runs: Runs<GameConfig>,
    status: Status,
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
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Workshop, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, workshop, the_loop, pressure): Self::Ports) -> Self {
        let (runs, status) = (Runs::default(), Status::default());
        Self { config, catalogue, workshop, the_loop, pressure, runs, status }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, _: &Status) -> Health {
        self.runs.health()
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
        let files = self.catalogue.samples(config, MOST_FILES).await?;
        let samples = newest_files(&files, max_rows);
        let head = files.first().map_or(0, |file| file.position);
        let order = Order {
            work: WorkId(format!("combine-{config}-{head}")),
            attempt: 1,
            config,
            job: Job::Combine(CombineJob {
                samples: samples.iter().map(|file| file.hash.clone()).collect(),
                max_rows,
            }),
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
                return Err(crate::WorkError::Lied(format!(
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
