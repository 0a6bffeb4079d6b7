//! `AUTO_EXPORT`: makes sample files of accepted games.
//!
//! Reads   accepted batches of which there are no samples.
//! Writes  `samples.exported`; `games.rejected` for a batch that cannot be exported.
//! Never   reads a batch that was not replayed before.

use std::{sync::Arc, time::Duration};

use ringrift_pipeline::{
    BatchAccepted, BatchRejected, Catalogue, Config as GameConfig, ExportJob, Job, Record,
    SamplesExported, SamplesReport, Topic as _, WorkId,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Finished, Loop, Order, Pressure, STANDALONE, TRAINING_FULL, Topics,
    WorkError, Workshop,
    at_hand::AtHand,
    cycle::{EVENT_ROUTER, brake, denied, settled, tell},
    on,
    runs::{Ended, Runs},
};

/// `[daemons.auto_export]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most batches of one sample file.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_batches_per_file: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_batches_per_file: 16 }
    }
}

/// What was exported since the daemon started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Exports at work.
    pub exporting: usize,
    /// Sample files made.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Batches refused.
    pub rejected: u64,
}

/// The daemon.
pub struct AutoExport {
    config: Config,
    catalogue: Catalogue,
    workshop: Workshop,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    runs: Runs<GameConfig>,
    at_hand: AtHand,
    /// A set of batches was refused: go one by one until the bad one is found.
    one_by_one: bool,
    status: Status,
}

impl Emits for AutoExport {
    const EMITS: Topics = &[&[BatchRejected::TOPIC, SamplesExported::TOPIC], crate::cycle::EMITS];
}

impl Daemon for AutoExport {
    const SPEC: Spec = Spec {
        id: DaemonId("AUTO_EXPORT"),
        about: "makes sample files of accepted games",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL, TRAINING_FULL, STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[on::<BatchAccepted>()],
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Workshop, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, workshop, the_loop, pressure): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            workshop,
            the_loop,
            pressure,
            runs: Runs::default(),
            at_hand: AtHand::default(),
            one_by_one: false,
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, _: &Status) -> Health {
        self.runs.health()
    }
}

impl AutoExport {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        for ended in self.runs.ended() {
            self.take(ended, cx).await?;
        }
        let gate = brake(&self.pressure);
        tell(&self.catalogue, &gate, Self::ID, None, cx.now()).await?;
        if gate.is_open() {
            for config in self.the_loop.configs.clone() {
                cx.beat()?;
                self.export(config, cx).await?;
            }
        }
        self.status.exporting = self.runs.at_work();
        Ok(denied(&gate, self.status.clone()))
    }

    async fn export(&mut self, config: GameConfig, cx: &Cx) -> anyhow::Result<()> {
        if !self.runs.may_start(config) {
            return Ok(());
        }
        let limit = if self.one_by_one { 1 } else { self.config.max_batches_per_file };
        let asked = limit.saturating_add(self.at_hand.more());
        let batches = self.catalogue.unexported(config, asked).await?;
        let wanted = batches.iter().map(|batch| (batch.hash.clone(), None)).collect();
        let inputs = self.at_hand.take(self.workshop.blobs(), wanted, limit, cx).await?;
        let Some(first) = batches.iter().find(|batch| Some(&batch.hash) == inputs.first()) else {
            return Ok(());
        };
        let order = Order {
            work: WorkId(format!("export-{config}-{}", first.position)),
            attempt: 1,
            config,
            job: Job::Export(ExportJob { batches: inputs }),
            owner: Self::ID,
        };
        self.runs.start(config, order, &self.workshop, cx);
        Ok(())
    }

    async fn take(&mut self, ended: Ended<GameConfig>, cx: &Cx) -> anyhow::Result<()> {
        let Job::Export(job) = &ended.order.job else { return Ok(()) };
        let facts = ended.end.and_then(|finished| facts_of(ended.key, job, &finished));
        match facts {
            Ok(exported) => {
                let (rows, batches) = (exported.rows, exported.batches.len());
                self.catalogue.record(vec![Record::first(exported)], cx.now()).await?;
                info!(config = %ended.key, rows, batches, "samples exported");
                self.runs.succeeded(ended.key);
                self.one_by_one = false;
                self.status.files += 1;
                self.status.rows += rows;
            }
            Err(WorkError::Never(why)) if job.batches.len() == 1 => {
                self.reject(ended.key, job, why, cx).await?;
                self.runs.succeeded(ended.key);
            }
            Err(error) => {
                self.one_by_one |= matches!(error, WorkError::Never(_));
                self.runs.failed(ended.key, &error);
            }
        }
        Ok(())
    }

    async fn reject(
        &mut self,
        config: GameConfig,
        job: &ExportJob,
        why: String,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        let Some(batch) = self.catalogue.batch(&job.batches[0]).await? else { return Ok(()) };
        let reason = format!("no samples can be made of it: {why}");
        warn!(batch = %batch.hash, %config, reason, "batch rejected");
        let rejected = BatchRejected { batch: batch.hash, config, reason };
        self.catalogue.record(vec![Record::after(rejected, batch.position)], cx.now()).await?;
        self.status.rejected += 1;
        Ok(())
    }
}

fn facts_of(
    config: GameConfig,
    job: &ExportJob,
    finished: &Finished,
) -> Result<SamplesExported, WorkError> {
    let report: SamplesReport = finished.report_as()?;
    let product = finished.product("samples")?;
    if report.rows == 0 || report.games == 0 {
        return Err(WorkError::Lied(format!(
            "{} rows of {} games in an export of {} batches",
            report.rows,
            report.games,
            job.batches.len()
        )));
    }
    Ok(SamplesExported {
        samples: product.hash.clone(),
        bytes: product.bytes,
        config,
        batches: job.batches.clone(),
        rows: report.rows,
        games: report.games,
        encoder: report.encoder,
    })
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{BatchState, BlobHash};

    use super::*;
    use crate::testbed::{Bed, blocked, done, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed, mode: &str) -> AutoExport {
        let shop = bed.workshop(mode);
        let ports =
            (bed.catalogue_of::<AutoExport>(), shop, bed.the_loop.clone(), bed.pressure.clone());
        AutoExport::new(Config::default(), ports)
    }

    async fn accepted(bed: &Bed, games: &[&str]) -> BlobHash {
        let batch = bed.batch(hex(), games).await;
        let ids: Vec<String> = games.iter().map(|game| (*game).to_owned()).collect();
        let count = u32::try_from(ids.len()).unwrap();
        let accepted = BatchAccepted { batch: batch.clone(), config: hex(), games: count, ids };
        bed.record(vec![accepted.into()]).await;
        batch
    }

    async fn export_all(bed: &Bed, mode: &str) -> AutoExport {
        let mut daemon = daemon(bed, mode);
        let (cx, _probe) = bed.cx::<AutoExport>();
        bed.cycle_until(&mut daemon, &cx, async |_| {
            bed.catalogue.unexported(hex(), 9).await.unwrap().is_empty()
        })
        .await;
        daemon
    }

    #[tokio::test]
    async fn several_batches_become_one_file_once() {
        let bed = Bed::new().await;
        accepted(&bed, &["a", "b"]).await;
        accepted(&bed, &["c"]).await;
        let mut daemon = export_all(&bed, "honest").await;
        let files = bed.catalogue.samples(hex(), 9).await.unwrap();
        assert_eq!(files.iter().map(|file| (file.rows, file.games)).collect::<Vec<_>>(), [(90, 3)]);
        let (facts, (cx, _probe)) = (bed.facts().await, bed.cx::<AutoExport>());
        assert_eq!(done(daemon.cycle(&cx).await).exporting, 0);
        assert_eq!(bed.facts().await, facts, "a second cycle finds nothing to do");
    }

    #[tokio::test]
    async fn games_that_were_not_replayed_are_not_exported() {
        let bed = Bed::new().await;
        bed.batch(hex(), &["a"]).await;
        let mut daemon = daemon(&bed, "honest");
        let (cx, _probe) = bed.cx::<AutoExport>();
        assert_eq!(done(daemon.cycle(&cx).await).exporting, 0);
    }

    #[tokio::test]
    async fn one_bad_batch_does_not_hold_up_the_others() {
        let bed = Bed::new().await;
        let gone = accepted(&bed, &["a"]).await;
        accepted(&bed, &["b"]).await;
        let path = bed.blobs.path_of(&gone).await.unwrap().unwrap();
        fs_err::remove_file(path).unwrap();
        export_all(&bed, "honest").await;
        let row = bed.catalogue.batch(&gone).await.unwrap().unwrap();
        assert_eq!(row.state, BatchState::Rejected);
        assert!(row.reason.unwrap().starts_with("no samples can be made of it: the input"));
        assert_eq!(bed.catalogue.samples(hex(), 9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_worker_that_lies_degrades_and_nothing_is_taken_in() {
        let bed = Bed::new().await;
        accepted(&bed, &["a"]).await;
        let mut daemon = daemon(&bed, "wrong-hash");
        let (cx, _probe) = bed.cx::<AutoExport>();
        let mut last = Status::default();
        while daemon.health(&last) == Health::Healthy {
            last = done(daemon.cycle(&cx).await);
            bed.woken().await;
        }
        assert!(bed.catalogue.samples(hex(), 9).await.unwrap().is_empty());
        assert!(bed.blobs.depot().list().unwrap().len() == 1, "only the batch");
    }

    #[tokio::test]
    async fn an_obstacle_is_degraded_and_starts_nothing() {
        let bed = Bed::new().await;
        accepted(&bed, &["a"]).await;
        let obstacle = crate::Obstacle { reason: "full".into(), needs: "room".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        let (cx, _probe) = bed.cx::<AutoExport>();
        assert_eq!(blocked(daemon(&bed, "honest").cycle(&cx).await), "full; needs room");
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        accepted(&bed, &["a"]).await;
        let daemon = daemon(&bed, "honest");
        stops_in_mid_cycle(&bed, daemon).await;
    }
}
