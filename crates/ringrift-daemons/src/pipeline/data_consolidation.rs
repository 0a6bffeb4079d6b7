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
    CheckReport, Config as GameConfig, GamesCommitted, Job, Record, Topic as _, WorkId,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Loop, Order, Pressure, STANDALONE, Topics, WorkError, Workshop,
    at_hand::AtHand,
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
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
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
    at_hand: AtHand,
    /// A set of batches was refused: go one by one until the bad one is found.
    one_by_one: bool,
    status: Status,
}

impl Emits for DataConsolidation {
    const EMITS: Topics = &[&[BatchAccepted::TOPIC, BatchRejected::TOPIC], crate::cycle::EMITS];
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
        let limit = if self.one_by_one { 1 } else { self.config.max_batches_per_check };
        let of_each = limit.saturating_add(self.at_hand.more());
        let batches = self.catalogue.unchecked(config, of_each).await?;
        let wanted = batches.iter().map(|(hash, _, node)| (hash.clone(), node.clone())).collect();
        let inputs = self.at_hand.take(self.workshop.blobs(), wanted, limit, cx).await?;
        let first = batches.iter().find(|(hash, ..)| Some(hash) == inputs.first());
        let Some((_, position, _)) = first else { return Ok(()) };
        let order = Order {
            work: WorkId(format!("check-{config}-{position}")),
            attempt: 1,
            config,
            job: Job::Check(CheckJob { batches: inputs }),
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
                self.one_by_one |= matches!(error, WorkError::Never(_));
                self.runs.failed(ended.key, &error);
                return Ok(());
            }
        };
        self.runs.succeeded(ended.key);
        self.one_by_one = false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, blocked, done, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed, mode: &str) -> DataConsolidation {
        let shop = bed.workshop(mode);
        let ports = (
            bed.catalogue_of::<DataConsolidation>(),
            shop,
            bed.the_loop.clone(),
            bed.pressure.clone(),
        );
        DataConsolidation::new(Config::default(), ports)
    }

    async fn state(bed: &Bed, batch: &BlobHash) -> (BatchState, String) {
        let row = bed.catalogue.batch(batch).await.unwrap().unwrap();
        (row.state, row.reason.unwrap_or_default())
    }

    async fn consolidate(bed: &Bed, mode: &str) -> DataConsolidation {
        let mut daemon = daemon(bed, mode);
        let (cx, _probe) = bed.cx::<DataConsolidation>();
        bed.cycle_until(&mut daemon, &cx, async |_| {
            let left = bed.catalogue.batches(hex(), BatchState::Committed, 9).await.unwrap();
            left.is_empty()
        })
        .await;
        daemon
    }

    #[tokio::test]
    async fn games_count_once_wherever_they_come_from() {
        let bed = Bed::new().await;
        let good = bed.batch(hex(), &["a", "b"]).await;
        let half_known = bed.batch(hex(), &["b", "c"]).await;
        let doubled = bed.batch(hex(), &["d", "d"]).await;
        let fresh = bed.batch(hex(), &["c"]).await;
        consolidate(&bed, "honest").await;
        assert_eq!(state(&bed, &good).await.0, BatchState::Accepted);
        assert_eq!(state(&bed, &fresh).await.0, BatchState::Accepted);
        let (refused, why) = state(&bed, &half_known).await;
        assert_eq!(refused, BatchState::Rejected);
        let expected =
            format!("1 of its 2 games count already, the first is b in the batch {good}");
        assert_eq!(why, expected);
        let (refused, why) = state(&bed, &doubled).await;
        assert_eq!(refused, BatchState::Rejected);
        assert_eq!(why, "only 1 of its 2 games are different ones");
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::new().await;
        bed.batch(hex(), &["a", "b"]).await;
        let mut daemon = consolidate(&bed, "honest").await;
        let (facts, (cx, _probe)) = (bed.facts().await, bed.cx::<DataConsolidation>());
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.accepted, status.games, status.checking), (1, 2, 0));
        assert_eq!(bed.facts().await, facts);
    }

    #[tokio::test]
    async fn a_game_that_does_not_replay_refuses_its_batch_with_the_sentence() {
        let bed = Bed::new().await;
        let batch = bed.batch(hex(), &["a"]).await;
        consolidate(&bed, "finds-fault").await;
        let (refused, why) = state(&bed, &batch).await;
        assert_eq!(refused, BatchState::Rejected);
        assert_eq!(why, "game 3, move 17: no such move");
    }

    #[tokio::test]
    async fn a_batch_that_is_gone_is_refused_and_the_others_are_not() {
        let bed = Bed::new().await;
        let gone = bed.batch(hex(), &["a"]).await;
        let good = bed.batch(hex(), &["b"]).await;
        let path = bed.blobs.path_of(&gone).await.unwrap().unwrap();
        fs_err::remove_file(path).unwrap();
        consolidate(&bed, "honest").await;
        let (refused, why) = state(&bed, &gone).await;
        assert_eq!(refused, BatchState::Rejected);
        assert!(why.contains("is not in the store"), "{why}");
        assert_eq!(state(&bed, &good).await.0, BatchState::Accepted);
    }

    #[tokio::test]
    async fn a_worker_that_fails_degrades_and_refuses_nothing() {
        let bed = Bed::new().await;
        let batch = bed.batch(hex(), &["a"]).await;
        let mut daemon = daemon(&bed, "fails");
        let (cx, _probe) = bed.cx::<DataConsolidation>();
        let mut last = Status::default();
        while daemon.health(&last) == Health::Healthy {
            last = done(daemon.cycle(&cx).await);
            bed.woken().await;
        }
        let Health::Degraded(sentence) = daemon.health(&last) else { panic!("no sentence") };
        assert!(sentence.starts_with("failed 1 times in a row"), "{sentence}");
        assert_eq!(state(&bed, &batch).await.0, BatchState::Committed);
    }

    #[tokio::test]
    async fn an_obstacle_is_degraded_and_starts_nothing() {
        let bed = Bed::new().await;
        bed.batch(hex(), &["a"]).await;
        let obstacle = crate::Obstacle { reason: "full".into(), needs: "room".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        let mut daemon = daemon(&bed, "honest");
        let (cx, _probe) = bed.cx::<DataConsolidation>();
        assert_eq!(blocked(daemon.cycle(&cx).await), "full; needs room");
        assert_eq!(daemon.runs.at_work(), 0);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        bed.batch(hex(), &["a"]).await;
        let daemon = daemon(&bed, "honest");
        stops_in_mid_cycle(&bed, daemon).await;
    }
}
