//! `DATA_CONSOLIDATION`: lets games count once every one of them replays.
//!
//! Reads   committed batches, ids of the games that count already.
//! Writes  `games.accepted` or `games.rejected`, one per batch.
//! Never   changes or deletes a batch: a refused one stays where people can look at it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ringrift_pipeline::{
    BatchAccepted, BatchCheck, BatchRejected, BatchRow, BatchState, BlobHash, Catalogue, CheckJob,
    CheckReport, Config as GameConfig, GamesCommitted, Job, Record, WorkId,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Loop, Order, Pressure, STANDALONE, WorkError, Workshop,
    cycle::{EVENT_ROUTER, brake, denied, settled, tell},
    on,
    pipeline::data_pipeline::DataPipeline,
    runs::{Ended, Runs},
};

/// `[daemons.data_consolidation]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most batches that one worker replays.
    pub max_batches_per_check: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_batches_per_check: 16 }
    }
}

/// What became of batches since the daemon started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Batches at work.
    pub checking: usize,
    /// Batches accepted.
    pub accepted: u64,
    /// Games in them.
    pub games: u64,
    /// Batches refused.
    pub rejected: u64,
    /// The last refusal.
    pub last_refusal: Option<String>,
}

/// The daemon.
pub struct DataConsolidation {
    config: Config,
    catalogue: Catalogue,
    workshop: Workshop,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    runs: Runs<GameConfig>,
    status: Status,
}

impl Daemon for DataConsolidation {
    const SPEC: Spec = Spec {
        id: DaemonId("DATA_CONSOLIDATION"),
        about: "replays game batches and lets them count",
        priority: Priority::High,
        needs: &[EVENT_ROUTER, DataPipeline::ID],
        profiles: &[COORDINATOR_FULL, STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[on::<GamesCommitted>()],
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

impl DataConsolidation {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        for ended in self.runs.ended() {
            self.take(ended, cx).await?;
        }
        let gate = brake(&self.pressure);
        tell(&self.catalogue, &gate, Self::ID, None, cx.now()).await?;
        if gate.is_open() {
            for config in self.the_loop.configs.clone() {
                cx.beat()?;
                self.check(config, cx).await?;
            }
        }
        self.status.checking = self.runs.at_work();
        Ok(denied(&gate, self.status.clone()))
    }

    async fn check(&mut self, config: GameConfig, cx: &Cx) -> anyhow::Result<()> {
        if !self.runs.may_start(config) {
            return Ok(());
        }
        let limit = self.config.max_batches_per_check;
        let batches = self.catalogue.batches(config, BatchState::Committed, limit).await?;
        let Some(first) = batches.first() else { return Ok(()) };
        let order = Order {
            work: WorkId(format!("check-{config}-{}", first.position)),
            attempt: 1,
            config,
            job: Job::Check(CheckJob { batches: batches.iter().map(|b| b.hash.clone()).collect() }),
            owner: Self::ID,
        };
        self.runs.start(config, order, &self.workshop, cx);
        Ok(())
    }

    async fn take(&mut self, ended: Ended<GameConfig>, cx: &Cx) -> anyhow::Result<()> {
        let Job::Check(job) = &ended.order.job else { return Ok(()) };
        let report = ended.end.and_then(|finished| {
            let report: CheckReport = finished.report_as()?;
            complete(&report, &job.batches)?;
            Ok(report)
        });
        let report = match report {
            Ok(report) => report,
            // The worker cannot even open one of them; alone, it is known which.
            Err(WorkError::Never(why)) if job.batches.len() == 1 => CheckReport {
                batches: vec![BatchCheck {
                    batch: job.batches[0].clone(),
                    games: Vec::new(),
                    fault: Some(why),
                }],
            },
            Err(error) => {
                if matches!(error, WorkError::Never(_)) {
                    self.config.max_batches_per_check = 1;
                }
                self.runs.failed(ended.key, &error);
                return Ok(());
            }
        };
        self.runs.succeeded(ended.key);
        for check in report.batches {
            self.judge(check, cx).await?;
        }
        Ok(())
    }

    async fn judge(&mut self, check: BatchCheck, cx: &Cx) -> anyhow::Result<()> {
        let Some(batch) = self.catalogue.batch(&check.batch).await? else { return Ok(()) };
        if batch.state != BatchState::Committed {
            return Ok(());
        }
        let known = self.catalogue.known_games(check.games.clone()).await?;
        match verdict(&batch, &check, &known) {
            Ok(()) => {
                let accepted = BatchAccepted {
                    batch: batch.hash.clone(),
                    config: batch.config,
                    games: batch.games,
                    ids: check.games,
                };
                self.catalogue
                    .record(vec![Record::after(accepted, batch.position)], cx.now())
                    .await?;
                info!(batch = %batch.hash, config = %batch.config, games = batch.games, "batch accepted");
                self.status.accepted += 1;
                self.status.games += u64::from(batch.games);
            }
            Err(reason) => {
                warn!(batch = %batch.hash, config = %batch.config, reason, "batch rejected");
                let rejected = BatchRejected {
                    batch: batch.hash.clone(),
                    config: batch.config,
                    reason: reason.clone(),
                };
                self.catalogue
                    .record(vec![Record::after(rejected, batch.position)], cx.now())
                    .await?;
                self.status.rejected += 1;
                self.status.last_refusal = Some(reason);
            }
        }
        Ok(())
    }
}

/// A verdict on each batch that was asked for, in order.
fn complete(report: &CheckReport, asked: &[BlobHash]) -> Result<(), WorkError> {
    if report.batches.iter().map(|check| &check.batch).eq(asked) {
        return Ok(());
    }
    Err(WorkError::Lied(format!(
        "it was asked for {} batches and speaks of {} others",
        asked.len(),
        report.batches.len()
    )))
}

/// The whole policy: may this batch count?
fn verdict(
    batch: &BatchRow,
    check: &BatchCheck,
    known: &[(String, BlobHash)],
) -> Result<(), String> {
    if let Some(fault) = &check.fault {
        return Err(fault.clone());
    }
    let count = u32::try_from(check.games.len()).unwrap_or(u32::MAX);
    if count != batch.games {
        return Err(format!("it holds {count} games, {} were reported", batch.games));
    }
    let different: BTreeSet<&String> = check.games.iter().collect();
    if different.len() < check.games.len() {
        return Err(format!("only {} of its {count} games are different ones", different.len()));
    }
    let elsewhere: BTreeMap<&String, &BlobHash> = known
        .iter()
        .filter(|(_, other)| *other != batch.hash)
        .map(|(id, other)| (id, other))
        .collect();
    match elsewhere.first_key_value() {
        None => Ok(()),
        Some((id, other)) => Err(format!(
            "{} of its {count} games count already, the first is {id} in the batch {other}",
            elsewhere.len()
        )),
    }
}
