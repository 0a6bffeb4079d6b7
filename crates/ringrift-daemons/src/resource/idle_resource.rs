//! `IDLE_RESOURCE`: gives idle cores self-play to do.
//!
//! Reads   queued self-play items, the model that this node was handed, free worker slots.
//! Writes  claims of self-play items and how they end: `games.committed`, or why there are none.
//! Never   decides what is played how often: it takes the oldest item that it can run.

use ringrift_pipeline::{
    Catalogue, GamesCommitted, Job, ModelDistributed, Record, SelfplayReport, Topic as _,
    WorkCancelled, WorkKind, WorkQueued, WorkRow, WorkState,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, EPHEMERAL, Emits, Finished, Loop, Order, Pressure, SELFPLAY, SELFPLAY_FULL,
    STANDALONE, TRAINING_FULL, Topics, WorkError, Workshop,
    claims::{ClaimCounts, Claims, Done},
    cycle::{EVENT_ROUTER, brake, denied, settled, tell},
    on,
};

/// `[daemons.idle_resource]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most self-play workers at a time; the workshop's slots bound them as well.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
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

impl Emits for IdleResource {
    const EMITS: Topics = &[
        &[GamesCommitted::TOPIC, WorkCancelled::TOPIC],
        crate::claims::EMITS,
        crate::cycle::EMITS,
    ];
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
            the_loop.clone(),
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
            // What an earlier life was asked to play waits until it is asked for again.
            .filter(|item| self.the_loop.configs.contains(&item.config))
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
        let Some(item) = self.catalogue.work(&done.order.work).await? else { return Ok(()) };
        if item.state != WorkState::Claimed {
            // It is in the log already: the answer to an earlier append was lost.
            return Ok(());
        }
        let reason = format!("its games are those of the batch {}, known before", committed.batch);
        info!(work = %done.order.work, reason, "item cancelled");
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

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{Config as GameConfig, ModelRef, SelfplayJob, WorkId};
    use warden::Stopping;

    use super::*;
    use crate::testbed::{Bed, blocked, done, hex};

    fn daemon(bed: &Bed, mode: &str) -> IdleResource {
        daemon_of(bed, bed.workshop(mode))
    }

    fn daemon_of(bed: &Bed, shop: Workshop) -> IdleResource {
        let ports =
            (bed.catalogue_of::<IdleResource>(), shop, bed.the_loop.clone(), bed.pressure.clone());
        IdleResource::new(Config::default(), ports)
    }

    async fn queue(bed: &Bed, number: u64, seed: u64) -> WorkId {
        let config: GameConfig = hex();
        let work = WorkId::new(WorkKind::Selfplay, config, number);
        let champion = bed.catalogue.champion(config).await.unwrap().unwrap();
        let old =
            ModelRef { id: ringrift_pipeline::ModelId("old".into()), ..champion.model.reference() };
        let job = Job::Selfplay(SelfplayJob {
            model: old,
            opponents: Vec::new(),
            opponent_share: 0.0,
            games: 4,
            simulations: 8,
            fast_simulations: 2,
            full_share: 0.5,
            opening_moves: 2,
            temperature_moves: 4,
            temperature: 1.0,
            seed,
        });
        let queued = WorkQueued { work: work.clone(), config, job, reason: "test".into() };
        bed.record(vec![queued.into()]).await;
        work
    }

    /// Runs one item of such a worker until it is done, dead or queued again.
    async fn run(bed: &Bed, mode: &str) -> WorkRow {
        bed.champion(hex()).await;
        let work = queue(bed, 1, 1).await;
        let mut daemon = daemon(bed, mode);
        let (cx, _probe) = bed.cx::<IdleResource>();
        bed.cycle_until(&mut daemon, &cx, async |_| {
            let item = bed.catalogue.work(&work).await.unwrap().unwrap();
            matches!(item.state, WorkState::Done | WorkState::Dead | WorkState::Cancelled)
                || (item.state == WorkState::Queued && item.error.is_some() && item.attempt == 0)
        })
        .await;
        bed.catalogue.work(&work).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn games_and_the_end_of_their_item_are_one_append() {
        let bed = Bed::new().await;
        let item = run(&bed, "honest").await;
        assert_eq!(item.state, WorkState::Done);
        let topics = bed.topics().await;
        assert_eq!(topics[topics.len() - 2..], ["work.completed", "games.committed"]);
        let batch = bed.catalogue.recent_batches(None, 1).await.unwrap().remove(0);
        assert_eq!((batch.games, batch.model.as_str()), (4, "hex8_2p-m0000"), "not the old one");
    }

    #[tokio::test]
    async fn lies_end_in_one_sentence_and_nothing_is_taken_in() {
        for (mode, sentence) in [
            ("wrong-hash", "has the hash"),
            ("wrong-size", "bytes, not"),
            ("no-hash", "is no hash"),
            ("missing-file", "which is not there"),
            ("path-trick", "'../../../facts.sqlite' is no plain file name"),
            ("link", "is not a plain file"),
            ("boasts", "40 games, where 4 were asked for"),
            ("chatter", "a line that the contract does not know ('hello, I am a worker')"),
            ("huge-line", "a line of 3145728 bytes"),
            ("two-reports", "two reports"),
            ("no-report", "without a report"),
        ] {
            let bed = Bed::new().await;
            let item = run(&bed, mode).await;
            assert_eq!(item.state, WorkState::Dead, "{mode}: {item:?}");
            assert_eq!(item.attempt, 3, "{mode}");
            let error = item.error.unwrap();
            assert!(error.starts_with("the worker lied: "), "{mode}: {error}");
            assert!(error.contains(sentence), "{mode}: {error}");
            assert!(bed.catalogue.recent_batches(None, 1).await.unwrap().is_empty(), "{mode}");
        }
    }

    #[tokio::test]
    async fn failures_count_and_obstacles_do_not() {
        for (mode, state, attempt, sentence) in [
            ("fails", WorkState::Dead, 3, "code 1: out of luck"),
            ("killed", WorkState::Dead, 3, "ended by signal 9"),
            ("never", WorkState::Dead, 1, "refuses the job: the job makes no sense"),
            ("try-again", WorkState::Queued, 0, "asks to try again"),
        ] {
            let bed = Bed::new().await;
            let item = run(&bed, mode).await;
            assert_eq!((item.state, item.attempt), (state, attempt), "{mode}: {item:?}");
            let error = item.error.unwrap();
            assert!(error.contains(sentence), "{mode}: {error}");
        }
    }

    #[tokio::test]
    async fn the_same_games_again_count_once() {
        let bed = Bed::new().await;
        run(&bed, "honest").await;
        let again = queue(&bed, 2, 1).await;
        let mut daemon = daemon(&bed, "honest");
        let (cx, _probe) = bed.cx::<IdleResource>();
        bed.cycle_until(&mut daemon, &cx, async |_| {
            let item = bed.catalogue.work(&again).await.unwrap().unwrap();
            item.state == WorkState::Cancelled
        })
        .await;
        assert_eq!(bed.catalogue.recent_batches(None, 9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn no_more_workers_than_slots_and_a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        for number in 1..=5 {
            queue(&bed, number, number).await;
        }
        let mut daemon = daemon(&bed, "slow");
        let (cx, _probe) = bed.cx::<IdleResource>();
        assert_eq!(done(daemon.cycle(&cx).await).items.held, 2);
        let facts = bed.facts().await;
        assert_eq!(done(daemon.cycle(&cx).await).items.held, 2);
        assert_eq!(bed.facts().await, facts);
    }

    #[tokio::test]
    async fn an_orderly_stop_gives_unfinished_items_back() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let work = queue(&bed, 1, 1).await;
        let shop = bed.workshop("slow");
        let mut daemon = daemon_of(&bed, shop.clone());
        let (cx, probe) = bed.cx::<IdleResource>();
        done(daemon.cycle(&cx).await);
        probe.stop();
        let (last, _probe) = bed.cx::<IdleResource>();
        daemon.stop(&last).await.unwrap();
        let item = bed.catalogue.work(&work).await.unwrap().unwrap();
        assert_eq!((item.state, item.attempt), (WorkState::Queued, 0));
        assert_eq!(item.error.unwrap(), "stopped on request");
        assert!(shop.live().is_empty());
    }

    #[tokio::test]
    async fn claims_of_an_earlier_life_are_given_back() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let work = queue(&bed, 1, 1).await;
        let (cx, _probe) = bed.cx::<IdleResource>();
        let mut first = daemon(&bed, "slow");
        assert_eq!(done(first.cycle(&cx).await).items.held, 1);
        drop(first);
        let mut second = daemon(&bed, "slow");
        let status = done(second.cycle(&cx).await);
        assert_eq!(status.items.released, 1);
        // The list it saw was read before; the item is taken in the next cycle, as attempt 1 again.
        done(second.cycle(&cx).await);
        let item = bed.catalogue.work(&work).await.unwrap().unwrap();
        assert_eq!((item.state, item.attempt), (WorkState::Claimed, 1));
    }

    #[tokio::test]
    async fn an_obstacle_is_degraded_and_claims_nothing() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        queue(&bed, 1, 1).await;
        let obstacle = crate::Obstacle { reason: "full".into(), needs: "room".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        let (cx, _probe) = bed.cx::<IdleResource>();
        let mut daemon = daemon(&bed, "honest");
        assert_eq!(blocked(daemon.cycle(&cx).await), "full; needs room");
        bed.pressure.set(DaemonId("DISK"), None);
        assert_eq!(done(daemon.cycle(&cx).await).items.held, 1);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_claims_nothing() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        queue(&bed, 1, 1).await;
        let mut daemon = daemon(&bed, "honest");
        let (cx, probe) = bed.cx::<IdleResource>();
        probe.stop_at_beat(1);
        let before = bed.facts().await;
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<Stopping>());
        assert_eq!(bed.facts().await, before);
    }
}
