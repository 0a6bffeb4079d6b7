//! `IDLE_RESOURCE`: gives idle cores self-play to do.
//!
//! Reads   queued self-play items, the model that this node was handed, free worker slots, how much of what it
//!         played waits to be replayed.
//! Writes  claims of self-play items and how they end: `games.committed`, or why there are none.
//! Never   decides what is played how often: it takes the oldest item that it can run. On a node of a cluster it
//!         takes them in turn, so that a config whose items last long does not hold every slot there is.
//!
//! A node that cannot reach the log of its cluster plays on: the jobs that it knows, with seeds of its own. What
//! it plays, and what it had in hand, waits in the outbox. Games are nobody's claim, so they are taken in whatever
//! became of the item that they were played for.

use ringrift_pipeline::{
    BlobHash, Catalogue, CatalogueError, Config as GameConfig, GamesCommitted, Job,
    ModelDistributed, Record, SelfplayJob, Topic as _, WorkCancelled, WorkId, WorkKind, WorkQueued,
    WorkRow, WorkState,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, EPHEMERAL, Emits, Loop, Order, Pressure, Report, Running, SELFPLAY,
    SELFPLAY_FULL, STANDALONE, TRAINING_FULL, Topics, WorkError, Workshop,
    at_hand::own_lag,
    claims::{ClaimCounts, Claims, Done},
    cycle::{EVENT_ROUTER, brake, denied, first_closed, seed, settled, tell},
    on,
    queue::job_scheduler::turns,
    resource::played::facts_of,
};

/// Pause before a log out of reach is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// `[daemons.idle_resource]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most self-play workers at a time; the workshop's slots bound them as well.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_workers: usize,
    /// Most batches of games that wait in the outbox of a node that is cut off; then it plays no more: the older its
    /// model, the less they are worth.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_kept_batches: usize,
}

impl Default for Config {
    fn default() -> Self {
        // Source of the first: IDLE_RESOURCE, "already >= 50 jobs".
        Self { max_workers: 50, max_kept_batches: 256 }
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
    /// Batches of games that wait for a log out of reach.
    kept: u64,
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
    last: LastOrders,
}

/// What is played while the log is out of reach.
#[derive(Default)]
struct LastOrders {
    /// The newest job of each config that was queued, whoever took it.
    jobs: BTreeMap<GameConfig, SelfplayJob>,
    running: Vec<Running>,
    /// Runs begun, for names and seeds.
    begun: u64,
    /// Results of claimed items that are in the outbox already.
    kept: BTreeSet<BlobHash>,
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
        let last = LastOrders::default();
        Self { config, catalogue, workshop, the_loop, pressure, claims, games: 0, last }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let result = self.pass(cx).await;
        match result.as_ref().err().and_then(out_of_reach) {
            Some(why) if self.the_loop.shared => self.play_on(&why, cx).await,
            _ => settled(result),
        }
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.claims.wind_down().await;
        let settled = self.settle(cx).await;
        if settled.as_ref().is_err_and(|error| out_of_reach(error).is_some()) {
            self.keep_results(cx).await?;
        }
        settled
    }

    fn health(&self, _: &Status) -> Health {
        self.claims.health()
    }
}

impl IdleResource {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        self.hear_last_orders(cx).await?;
        let handed_in = self.catalogue.hand_in().await?;
        if handed_in > 0 {
            info!(batches = handed_in, "games that were played while cut off are handed in");
        }
        self.settle(cx).await?;
        self.last.kept.clear();
        let open = self.catalogue.open_works().await?;
        self.claims.release_lost(&open, cx.now()).await?;
        let mut queued: Vec<&WorkRow> = open
            .iter()
            .filter(|item| item.kind == WorkKind::Selfplay && item.state == WorkState::Queued)
            // What an earlier life was asked to play waits until it is asked for again.
            .filter(|item| self.the_loop.configs.contains(&item.config))
            .collect();
        for item in &queued {
            if let Job::Selfplay(job) = &item.job {
                self.last.jobs.insert(item.config, job.clone());
            }
        }
        let lag = own_lag(&self.catalogue, &self.the_loop).await?;
        let gate = first_closed([brake(&self.pressure), lag]);
        tell(&self.catalogue, &gate, Self::ID, None, cx.now()).await?;
        if gate.is_open() && self.claims.resting().is_none() {
            if self.the_loop.shared {
                queued = turns(&self.catalogue, queued, &open).await?;
            }
            self.claim(&queued, &open, cx).await?;
        }
        Ok(denied(&gate, self.status(queued.len()).await?))
    }

    async fn status(&self, queued: usize) -> anyhow::Result<Status> {
        Ok(Status {
            items: self.claims.counts(),
            games: self.games,
            free_slots: self.workshop.free(),
            queued,
            kept: self.catalogue.kept().await?,
        })
    }

    /// The log is out of reach: plays on without claims.
    async fn play_on(&mut self, why: &str, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        self.keep_results(cx).await?;
        self.hear_last_orders(cx).await?;
        let kept = self.catalogue.kept().await?;
        let most = u64::try_from(self.config.max_kept_batches).unwrap_or(u64::MAX);
        let gate = brake(&self.pressure);
        if gate.is_open() && kept < most {
            self.follow_last_orders(cx).await?;
        }
        let status = self.status(0).await?;
        if !gate.is_open() {
            return Ok(denied(&gate, status));
        }
        let what = if kept < most { "plays on" } else { "plays no more" };
        let reason =
            format!("{why}; it {what} on its last orders, and {kept} batches of games wait");
        Ok(Outcome::blocked_for(reason, ASK_AGAIN).with_status(status))
    }

    /// Gives the free slots jobs that are known, in turn, with the model that this node was handed.
    async fn follow_last_orders(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let mut jobs: Vec<(GameConfig, SelfplayJob)> = Vec::new();
        for (config, job) in &self.last.jobs {
            let handed = self.catalogue.distribution(*config, &self.the_loop.node).await?;
            let Some(handed) = handed else { continue };
            // Former champions may lie elsewhere.
            jobs.push((
                *config,
                SelfplayJob { model: handed.model, opponents: Vec::new(), ..job.clone() },
            ));
        }
        for (config, job) in jobs.iter().cycle() {
            let working = self.claims.counts().held.saturating_sub(self.claims.in_hand().count());
            let busy = self.last.running.len() + working;
            if self.workshop.free().min(self.config.max_workers.saturating_sub(busy)) == 0 {
                return Ok(());
            }
            cx.beat()?;
            let (node, epoch) = (&self.the_loop.node, self.catalogue.epoch());
            let begun = self.last.begun;
            self.last.begun += 1;
            let work = WorkId(format!("{}-{config}-{node}.{epoch}.{begun}", WorkKind::Selfplay));
            let job = SelfplayJob { seed: seed(self.the_loop.seed, work.as_str()), ..job.clone() };
            let job = Job::Selfplay(job);
            let order = Order { work, attempt: 1, config: *config, job, owner: Self::ID };
            self.last.running.push(self.workshop.start(order, &cx.token()));
        }
        Ok(())
    }

    /// Keeps what the workers played that nobody claimed.
    async fn hear_last_orders(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let mut ended = Vec::new();
        self.last.running.retain_mut(|running| {
            while let Some(report) = running.try_next() {
                if let Report::End(end) = report {
                    ended.push((running.order.clone(), end));
                    return false;
                }
            }
            true
        });
        for (order, end) in ended {
            match end.and_then(|finished| facts_of(&order, &finished)) {
                Ok(committed) if committed.games > 0 => {
                    self.games += u64::from(committed.games);
                    self.catalogue.keep(vec![Record::first(committed)], cx.now()).await?;
                }
                Ok(_) | Err(WorkError::Stopped) => {}
                Err(error) => warn!(work = %order.work, %error, "nothing was played while cut off"),
            }
        }
        Ok(())
    }

    /// Keeps the games of claimed items that cannot be recorded now; whether the items count as done is
    /// settled when the log is back.
    async fn keep_results(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let in_hand: Vec<GamesCommitted> = self
            .claims
            .in_hand()
            .filter_map(|(order, finished)| facts_of(order, finished).ok())
            .filter(|committed| committed.games > 0 && !self.last.kept.contains(&committed.batch))
            .collect();
        for committed in in_hand {
            let batch = committed.batch.clone();
            self.catalogue.keep(vec![Record::first(committed)], cx.now()).await?;
            self.last.kept.insert(batch);
        }
        Ok(())
    }

    async fn claim(
        &mut self,
        queued: &[&WorkRow],
        open: &[WorkRow],
        cx: &Cx,
    ) -> anyhow::Result<()> {
        for item in queued {
            let room = self.config.max_workers.saturating_sub(self.claims.counts().held);
            if self.workshop.free().min(room) == 0 || !self.claims.has_turn(open) {
                return Ok(());
            }
            // Given back while we were silent, and still in our hands: its games are kept when they are played.
            if self.claims.holds(&item.id) {
                continue;
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
            let mut given_back = None;
            let (games, facts) = match &done.end {
                Ok(finished) => match facts_of(&done.order, finished) {
                    Ok(committed) if committed.games == 0 && finished.early => {
                        (0, Err(WorkError::Stopped))
                    }
                    Ok(committed) if committed.games == 0 => {
                        (0, Err(WorkError::Lied("it says that it is done, without a game".into())))
                    }
                    Ok(committed) => match self.catalogue.batch(&committed.batch).await? {
                        // They came by the outbox.
                        Some(known) if known.work == committed.work => {
                            (u64::from(committed.games), Ok(Vec::new()))
                        }
                        Some(_) => {
                            self.void(&done, &committed, cx).await?;
                            continue;
                        }
                        None => {
                            let games = u64::from(committed.games);
                            let record = Record::first(committed.clone());
                            given_back = Some(committed);
                            (games, Ok(vec![record]))
                        }
                    },
                    Err(error) => (0, Err(error)),
                },
                Err(error) => (0, Err(error.clone())),
            };
            let counts = self.claims.settle(done, facts, cx.now()).await?;
            if let Some(committed) = given_back
                && !counts
            {
                self.keep_games(committed, cx).await?;
            }
            self.games += games;
        }
        Ok(())
    }

    /// The item went to somebody else meanwhile; its games are games.
    async fn keep_games(&self, committed: GamesCommitted, cx: &Cx) -> anyhow::Result<()> {
        let batch = committed.batch.clone();
        match self.catalogue.record(vec![Record::first(committed)], cx.now()).await {
            Ok(_) => info!(%batch, "the games of an item that was given back are kept"),
            // Somebody else played the very same.
            Err(error) if error.is_superseded() => {}
            Err(error) => return Err(error.into()),
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

/// The sentence of a log out of reach.
fn out_of_reach(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let away = match cause.downcast_ref::<CatalogueError>() {
            Some(known) => known.is_out_of_reach(),
            None => matches!(cause.downcast_ref(), Some(courier::Error::Unavailable(_))),
        };
        away.then(|| cause.to_string())
    })
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::ModelRef;
    use warden::Stopping;

    use super::*;
    use crate::testbed::{Bed, FullDisk, blocked, done, handed_to, hex, selfplay};

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
        let job = selfplay(old, seed);
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

    /// A daemon of a cluster, whose log can be put out of reach; with its outbox.
    async fn cut_off(bed: &Bed, mode: &str) -> (IdleResource, Arc<std::sync::atomic::AtomicBool>) {
        let (catalogue, away) = FullDisk::beyond(bed).await;
        let outbox = courier::Outbox::open(&bed.data().join("outbox")).unwrap();
        let catalogue = handed_to::<IdleResource>(&catalogue.with_outbox(outbox));
        let the_loop = Arc::new(Loop { shared: true, ..(*bed.the_loop).clone() });
        let ports = (catalogue, bed.workshop(mode), the_loop, bed.pressure.clone());
        (IdleResource::new(Config { max_workers: 1, max_kept_batches: 3 }, ports), away)
    }

    #[tokio::test]
    async fn a_node_that_is_cut_off_plays_on_and_hands_its_games_in_later() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let work = queue(&bed, 1, 1).await;
        let (mut daemon, away) = cut_off(&bed, "honest").await;
        let (cx, _probe) = bed.cx::<IdleResource>();
        assert_eq!(done(daemon.cycle(&cx).await).items.held, 1);

        away.store(true, std::sync::atomic::Ordering::Relaxed);
        let facts = bed.facts().await;
        bed.cycle_until(&mut daemon, &cx, async |outcome| match outcome {
            // As long as there is nothing to say, nobody sees that nobody listens.
            Outcome::Done(_) => false,
            outcome @ Outcome::Blocked { .. } => {
                let said = blocked(Ok(outcome));
                assert!(said.contains("nobody answers"), "{said}");
                said.contains("plays no more") && said.contains("3 batches of games wait")
            }
        })
        .await;
        assert_eq!(bed.facts().await, facts);
        drop(daemon);

        // What was kept survives; the item counts as done, because nobody else took it.
        away.store(false, std::sync::atomic::Ordering::Relaxed);
        let (mut next, _away) = cut_off(&bed, "honest").await;
        next.pass(&cx).await.unwrap();
        let batches = bed.catalogue.recent_batches(None, 9).await.unwrap();
        assert_eq!(batches.len(), 3, "{batches:?}");
        let of_item = batches.iter().filter(|batch| batch.work == work).count();
        assert_eq!(of_item, 1, "{batches:?}");
        let alone = batches.iter().filter(|batch| batch.work.as_str().contains("here.0.")).count();
        assert_eq!(alone, 2, "{batches:?}");
        assert_eq!(next.catalogue.kept().await.unwrap(), 0);
    }

    #[tokio::test]
    async fn games_of_an_item_that_was_given_back_are_games() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let work = queue(&bed, 1, 1).await;
        let mut daemon = daemon(&bed, "honest");
        let (cx, _probe) = bed.cx::<IdleResource>();
        done(daemon.cycle(&cx).await);
        let claimed = bed.catalogue.work(&work).await.unwrap().unwrap();
        let reason = "silent".to_owned();
        let released = ringrift_pipeline::WorkReleased { work: work.clone(), reason };
        let record = Record::after(released, claimed.position);
        bed.catalogue.for_source("another").record(vec![record], 1).await.unwrap();
        // It is taken and played again, to the same games.
        bed.cycle_until(&mut daemon, &cx, async |_| {
            bed.catalogue.work(&work).await.unwrap().unwrap().state == WorkState::Done
        })
        .await;
        let topics = bed.topics().await;
        let last: Vec<&str> = topics
            .iter()
            .skip_while(|topic| *topic != "work.released")
            .map(String::as_str)
            .collect();
        let expected = ["work.released", "games.committed", "work.claimed", "work.completed"];
        assert_eq!(last, expected, "the games count once, before the item does");
    }
}
