//! `IDLE_RESOURCE`: gives idle cores self-play to do.
//!
//! Reads   queued self-play items, the model that this node was handed, free worker slots, how much of what it
//!         played waits to be replayed.
//! Writes  claims of self-play items and how they end: `games.committed`, or why there are none.
//! Never   decides what is played how often: it takes the oldest item that it can run. On a node of a cluster it
//!         takes them in turn, so that a config whose items last long does not hold every slot there is.
//!
//! A node that cannot reach the log of its cluster, or whose cluster nobody leads when nothing is queued any more,
//! plays on: the jobs that it knows, with seeds of its own. What it plays, and what it had in hand, waits in the outbox. Games are nobody's claim, so they are taken in whatever
//! became of the item that they were played for.

#[cfg(test)]
mod tests;

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
    COORDINATOR_FULL, EPHEMERAL, Emits, GONE, Loop, Order, Pressure, Report, Running, SELFPLAY,
    SELFPLAY_FULL, STANDALONE, TRAINING_FULL, Topics, WorkError, Workshop,
    at_hand::own_lag,
    claims::{ClaimCounts, Claims, Done},
    cycle::{EVENT_ROUTER, brake, denied, first_closed, seed, settled, tell},
    on,
    queue::job_scheduler::turns,
    resource::played::facts_of,
};

/// Items of a config that are looked through for one of self-play.
const LOOKED_THROUGH: u32 = 50;
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

/// What is played while nobody gives orders, or none arrive.
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

impl LastOrders {
    /// Takes the jobs of these items for the newest ones.
    fn learn<'a>(&mut self, items: impl Iterator<Item = &'a WorkRow>) {
        for item in items {
            if let Job::Selfplay(job) = &item.job {
                self.jobs.insert(item.config, job.clone());
            }
        }
    }
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
        self.last.learn(queued.iter().copied());
        let lag = own_lag(&self.catalogue, &self.the_loop).await?;
        let gate = first_closed([brake(&self.pressure), lag]);
        tell(&self.catalogue, &gate, Self::ID, None, cx.now()).await?;
        if gate.is_open() && self.claims.resting().is_none() {
            if self.the_loop.shared {
                queued = turns(&self.catalogue, queued, &open).await?;
            }
            self.claim(&queued, &open, cx).await?;
            if let Some(why) = self.without_orders(&queued) {
                self.know_last_orders().await?;
                self.follow_last_orders(cx).await?;
                let reason = format!("{why}; it plays on on its last orders");
                let status = self.status(0).await?;
                return Ok(Outcome::blocked_for(reason, ASK_AGAIN).with_status(status));
            }
        }
        Ok(denied(&gate, self.status(queued.len()).await?))
    }

    /// Why nothing will be queued, if nothing is: nobody leads, and that is no change of leaders.
    fn without_orders(&self, queued: &[&WorkRow]) -> Option<String> {
        let unled = self.the_loop.nodes.leaderless();
        (self.the_loop.shared && queued.is_empty() && unled >= GONE)
            .then(|| format!("nobody has led for {} s, and nothing is queued", unled.as_secs()))
    }

    /// A life that began without a leader has seen nothing queued: the newest items say what was played.
    async fn know_last_orders(&mut self) -> anyhow::Result<()> {
        for config in &self.the_loop.configs {
            if !self.last.jobs.contains_key(config) {
                let items = self.catalogue.works(Some(*config), LOOKED_THROUGH).await?;
                self.last.learn(items.iter().rev());
            }
        }
        Ok(())
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
