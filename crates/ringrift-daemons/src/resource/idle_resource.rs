//! `IDLE_RESOURCE`: gives idle cores self-play to do.
//!
//! Reads   queued self-play items, the model that this node was handed, free worker slots.
//! Writes  claims of self-play items and how they end: `games.committed`, or why there are none.
//! Never   decides what is played how often: it takes the oldest item that it can run.

use ringrift_pipeline::{
    Catalogue, GamesCommitted, Job, ModelDistributed, Record, SelfplayReport, WorkCancelled,
    WorkKind, WorkQueued, WorkRow, WorkState,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, EPHEMERAL, Finished, Loop, Order, Pressure, SELFPLAY, SELFPLAY_FULL,
    STANDALONE, TRAINING_FULL, WorkError, Workshop,
    claims::{ClaimCounts, Claims, Done},
    cycle::{EVENT_ROUTER, brake, denied, settled, tell},
    on,
};

/// `[daemons.idle_resource]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most self-play workers at a time; the workshop's slots bound them as well.
    pub max_workers: usize,
}

impl Default for Config {
    fn default() -> Self {
        // Source: IDLE_RESOURCE, "already >= 50 jobs".
        Self { max_workers: 50 }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    #[serde(flatten)]
    items: ClaimCounts,
    /// Games committed since the daemon started.
    games: u64,
    /// Worker slots that nobody used.
    free_slots: usize,
    /// Items that wait.
    queued: usize,
}

/// The daemon.
pub struct IdleResource {
    config: Config,
    catalogue: Catalogue,
    workshop: Workshop,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    claims: Claims,
    games: u64,
}

impl Daemon for IdleResource {
    const SPEC: Spec = Spec {
        id: DaemonId("IDLE_RESOURCE"),
        about: "runs self-play on idle cores",
        priority: Priority::Critical,
        needs: &[EVENT_ROUTER],
        profiles: &[
            SELFPLAY,
            COORDINATOR_FULL,
            TRAINING_FULL,
            EPHEMERAL,
            SELFPLAY_FULL,
            STANDALONE,
        ],
        period: Duration::from_secs(5),
        wakes_on: &[on::<WorkQueued>(), on::<ModelDistributed>()],
        critical: true,
        health_interval: Some(Duration::from_mins(2)),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Workshop, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, workshop, the_loop, pressure): Self::Ports) -> Self {
        let claims = Claims::new(
            WorkKind::Selfplay,
            Self::ID,
            the_loop.node.clone(),
            catalogue.clone(),
            workshop.clone(),
        );
        Self { config, catalogue, workshop, the_loop, pressure, claims, games: 0 }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.claims.wind_down().await;
        self.settle(cx).await
    }

    fn health(&self, _: &Status) -> Health {
        self.claims.health()
    }
}

impl IdleResource {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        self.settle(cx).await?;
        let open = self.catalogue.open_works().await?;
        self.claims.release_lost(&open, cx.now()).await?;
        let queued: Vec<&WorkRow> = open
            .iter()
            .filter(|item| item.kind == WorkKind::Selfplay && item.state == WorkState::Queued)
            .collect();
        let gate = brake(&self.pressure);
        tell(&self.catalogue, &gate, Self::ID, None, cx.now()).await?;
        if gate.is_open() && self.claims.resting().is_none() {
            self.claim(&queued, cx).await?;
        }
        let status = Status {
            items: self.claims.counts(),
            games: self.games,
            free_slots: self.workshop.free(),
            queued: queued.len(),
        };
        Ok(denied(&gate, status))
    }

    async fn claim(&mut self, queued: &[&WorkRow], cx: &Cx) -> anyhow::Result<()> {
        for item in queued {
            let room = self.config.max_workers.saturating_sub(self.claims.counts().held);
            if self.workshop.free().min(room) == 0 {
                return Ok(());
            }
            cx.beat()?;
            let handed = self.catalogue.distribution(item.config, &self.the_loop.node).await?;
            let (Some(handed), Job::Selfplay(job)) = (handed, &item.job) else { continue };
            // The newest model that this node holds, even if the item was queued before it came.
            let job = Job::Selfplay(ringrift_pipeline::SelfplayJob {
                model: handed.model,
                ..job.clone()
            });
            self.claims.take(item, job, cx).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.claims.poll();
        while let Some(done) = self.claims.next_done() {
            // Not `cx.beat()?` : a result in hand is recorded even at a stop.
            let (games, facts) = match &done.end {
                Ok(finished) => match facts_of(&done.order, finished) {
                    Ok(committed) if committed.games == 0 && finished.early => {
                        (0, Err(WorkError::Stopped))
                    }
                    Ok(committed) if committed.games == 0 => {
                        (0, Err(WorkError::Lied("it says that it is done, without a game".into())))
                    }
                    Ok(committed) => {
                        if self.catalogue.batch(&committed.batch).await?.is_some() {
                            self.void(&done, &committed, cx).await?;
                            continue;
                        }
                        let record = Record::first(committed.clone());
                        (u64::from(committed.games), Ok(vec![record]))
                    }
                    Err(error) => (0, Err(error)),
                },
                Err(error) => (0, Err(error.clone())),
            };
            self.claims.settle(done, facts, cx.now()).await?;
            self.games += games;
        }
        Ok(())
    }

    /// The very same games came in before, under another item: they count once.
    async fn void(&self, done: &Done, committed: &GamesCommitted, cx: &Cx) -> anyhow::Result<()> {
        let reason = format!("its games are those of the batch {}, known before", committed.batch);
        info!(work = %done.order.work, reason, "item cancelled");
        let Some(item) = self.catalogue.work(&done.order.work).await? else { return Ok(()) };
        let cancelled = WorkCancelled { work: item.id.clone(), reason };
        self.catalogue.record(vec![Record::after(cancelled, item.position)], cx.now()).await?;
        Ok(())
    }
}

/// What a finished worker says it played; the games themselves are replayed later, before they count.
fn facts_of(order: &Order, finished: &Finished) -> Result<GamesCommitted, WorkError> {
    let Job::Selfplay(job) = &order.job else {
        return Err(WorkError::Never("it is no self-play".into()));
    };
    let report: SelfplayReport = finished.report_as()?;
    let product = finished.product("games")?;
    let lie = |what: String| Err(WorkError::Lied(what));
    let wins: u32 = report.seat_wins.iter().sum();
    if report.games > job.games {
        return lie(format!("{} games, where {} were asked for", report.games, job.games));
    }
    if report.seat_wins.len() != usize::from(order.config.players) || wins != report.games {
        return lie(format!("{:?} wins per seat in {} games", report.seat_wins, report.games));
    }
    if report.positions < u64::from(report.games) {
        return lie(format!("{} decisions in {} games", report.positions, report.games));
    }
    if !report.seconds.is_finite() || report.seconds < 0.0 {
        return lie(format!("{} seconds of play", report.seconds));
    }
    Ok(GamesCommitted {
        batch: product.hash.clone(),
        bytes: product.bytes,
        config: order.config,
        work: order.work.clone(),
        model: job.model.id.clone(),
        games: report.games,
        positions: report.positions,
        seat_wins: report.seat_wins,
        seconds: report.seconds,
    })
}
