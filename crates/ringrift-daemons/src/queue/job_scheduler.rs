//! `JOB_SCHEDULER`: sees to it that no work waits for ever, and says how the slots of a cluster are shared.
//!
//! Reads   open items, shares of self-play, the nodes and their slots.
//! Writes  `work.raised` for an item that waited too long: from then on it is taken before others.
//! Never   gives an item to a node: a node takes what it is able to do, under its own lease.
//!
//! Most of what a scheduler does holds by construction. A claim is a fact that only one node can record; it
//! is void when the node's lease is, and giving it back uses up no attempt; what failed three times is dead,
//! and told. What is left are two rules that every node applies for itself to what all of them see, so that
//! a scheduler that is gone holds nothing up:
//!
//! * [`allowance`]: of the slots of a node that does several kinds of work, self-play has 60 %, training 30 %
//!   and matches 10 %, each at least one; more only while nothing of another kind waits for that node.
//! * [`in_turn`]: the next item is of the config that has least of the slots for its share. With one config
//!   waiting there is nothing to share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ringrift_pipeline::{
    Catalogue, CatalogueError, Config as GameConfig, Record, Topic as _, WorkId, WorkKind,
    WorkRaised, WorkRow, WorkState,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Loop, Topics,
    cycle::{EVENT_ROUTER, settled},
};

/// `[daemons.job_scheduler]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time after which an item that waits is taken before others. Source: job contract, 4 h.
    #[serde(with = "crate::seconds")]
    pub starved_after: Duration,
    /// Waiting items that are too many; who asks for work asks for far fewer. Source: job contract.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub most_waiting: usize,
    /// Most items that one cycle raises.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_raised_per_cycle: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            starved_after: Duration::from_hours(4),
            most_waiting: 1000,
            max_raised_per_cycle: 16,
        }
    }
}

/// Raised items that wait, above which something is wrong. Source: job contract.
const MANY_RAISED: usize = 10;
/// Configs that hold more than their share while others wait, above which something is wrong. Source: as above.
const MANY_OVER_SHARE: usize = 3;

/// The items of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// Waiting.
    pub waiting: usize,
    /// In work.
    pub claimed: usize,
    /// Time that the longest waiting one waits, seconds.
    pub longest_wait_seconds: u64,
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// By kind of work.
    pub kinds: BTreeMap<&'static str, Kind>,
    /// Raised items that still wait.
    pub raised: Vec<String>,
    /// Items raised since the daemon started.
    pub raised_in_all: u64,
    /// Configs whose self-play holds more slots than its share while another config waits.
    pub over_share: Vec<String>,
}

/// The daemon.
pub struct JobScheduler {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    raised: u64,
}

impl Emits for JobScheduler {
    const EMITS: Topics = &[&[WorkRaised::TOPIC]];
}

impl Daemon for JobScheduler {
    const SPEC: Spec = Spec {
        id: DaemonId("JOB_SCHEDULER"),
        about: "sees to it that no work waits for ever",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL],
        period: Duration::from_secs(30),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop): Self::Ports) -> Self {
        Self { config, catalogue, the_loop, raised: 0 }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        let waiting: usize = last.kinds.values().map(|kind| kind.waiting).sum();
        let mut complaints = Vec::new();
        if waiting * 10 > self.config.most_waiting * 9 {
            complaints
                .push(format!("{waiting} items wait, {} are the most", self.config.most_waiting));
        }
        if last.raised.len() > MANY_RAISED {
            complaints.push(format!("{} items waited too long", last.raised.len()));
        }
        if last.over_share.len() > MANY_OVER_SHARE {
            complaints.push(format!("more than their share have {}", last.over_share.join(", ")));
        }
        if complaints.is_empty() {
            Health::Healthy
        } else {
            Health::Degraded(complaints.join("; "))
        }
    }
}

impl JobScheduler {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let open = self.catalogue.open_works().await?;
        let mut raised = self.catalogue.raised_works().await?;
        let starved: Vec<&WorkRow> = open
            .iter()
            .filter(|item| self.the_loop.configs.contains(&item.config))
            .filter(|item| is_starved(item, &raised, self.config.starved_after, cx.now()))
            .take(self.config.max_raised_per_cycle)
            .collect();
        for item in starved {
            cx.beat()?;
            let waited = seconds(item.queued_ms, cx.now()) / 60;
            let reason = format!("it has waited for {waited} min");
            info!(work = %item.id, reason, "item raised");
            let fact = WorkRaised { work: item.id.clone(), reason };
            match self.catalogue.record(vec![Record::after(fact, item.position)], cx.now()).await {
                Ok(_) => {
                    self.raised += 1;
                    raised.insert(item.id.clone());
                }
                // Somebody took it at last.
                Err(error) if error.is_superseded() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let allocation = self.catalogue.allocation().await?;
        let shares = allocation.iter().map(|row| (row.config, row.share)).collect();
        let mut status = sum(&open, &raised, cx.now());
        status.over_share = over_share(&open, &shares);
        status.raised_in_all = self.raised;
        Ok(Outcome::Done(status))
    }
}

fn seconds(from_ms: i64, to_ms: i64) -> u64 {
    u64::try_from((to_ms - from_ms) / 1000).unwrap_or(0)
}

fn is_starved(
    item: &WorkRow,
    raised: &BTreeSet<WorkId>,
    starved_after: Duration,
    now_ms: i64,
) -> bool {
    item.state == WorkState::Queued
        && !raised.contains(&item.id)
        && seconds(item.queued_ms, now_ms) >= starved_after.as_secs()
}

fn sum(open: &[WorkRow], raised: &BTreeSet<WorkId>, now_ms: i64) -> Status {
    let mut status = Status::default();
    for item in open {
        let kind = status.kinds.entry(item.kind.as_str()).or_default();
        if item.state == WorkState::Claimed {
            kind.claimed += 1;
            continue;
        }
        kind.waiting += 1;
        kind.longest_wait_seconds = kind.longest_wait_seconds.max(seconds(item.queued_ms, now_ms));
        if raised.contains(&item.id) {
            status.raised.push(item.id.to_string());
        }
    }
    status
}

/// Parts of the slots that a kind of work has. Source: the issue, 60 / 30 / 10.
fn weight(kind: WorkKind) -> usize {
    match kind {
        WorkKind::Selfplay => 6,
        WorkKind::Train => 3,
        WorkKind::Gauntlet => 1,
    }
}

/// Slots of a node that a kind of work may always have, of those kinds that the node does.
pub(crate) fn allowance(kind: WorkKind, slots: usize, kinds: &BTreeSet<WorkKind>) -> usize {
    let others = kinds.iter().filter(|other| **other != kind).map(|other| weight(*other));
    let all = weight(kind) + others.sum::<usize>();
    (slots * weight(kind) / all).max(1)
}

/// How many slots each config holds for self-play, in units of its share: who has least is next.
struct Held<'a> {
    claimed: BTreeMap<GameConfig, usize>,
    shares: &'a BTreeMap<GameConfig, f64>,
}

impl<'a> Held<'a> {
    fn of(open: &[WorkRow], shares: &'a BTreeMap<GameConfig, f64>) -> Self {
        let mut claimed = BTreeMap::new();
        for item in open {
            if item.kind == WorkKind::Selfplay && item.state == WorkState::Claimed {
                *claimed.entry(item.config).or_default() += 1;
            }
        }
        Self { claimed, shares }
    }

    /// What a config would hold with one more.
    fn with_one_more(&self, config: GameConfig) -> f64 {
        let held = self.claimed.get(&config).copied().unwrap_or(0) + 1;
        let share = self.shares.get(&config).copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
        f64::from(u32::try_from(held).unwrap_or(u32::MAX)) / share
    }
}

/// Waiting self-play in the order in which the nodes of a cluster take it.
pub(crate) async fn turns<'a>(
    catalogue: &Catalogue,
    waiting: Vec<&'a WorkRow>,
    open: &[WorkRow],
) -> Result<Vec<&'a WorkRow>, CatalogueError> {
    let allocation = catalogue.allocation().await?;
    let shares = allocation.iter().map(|row| (row.config, row.share)).collect();
    let raised = catalogue.raised_works().await?;
    Ok(in_turn(waiting, open, &shares, &raised))
}

/// Waiting self-play, oldest first, in the order in which it is to be taken: what was raised, then of the
/// config that holds least of the slots for its share; of one config the oldest.
fn in_turn<'a>(
    mut waiting: Vec<&'a WorkRow>,
    open: &[WorkRow],
    shares: &BTreeMap<GameConfig, f64>,
    raised: &BTreeSet<WorkId>,
) -> Vec<&'a WorkRow> {
    let mut held = Held::of(open, shares);
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let place =
            waiting.iter().position(|item| raised.contains(&item.id)).unwrap_or_else(|| {
                let load = |at: &usize| held.with_one_more(waiting[*at].config);
                // The first of equals is the oldest.
                (0..waiting.len()).min_by(|a, b| load(a).total_cmp(&load(b))).unwrap_or(0)
            });
        let next = waiting.remove(place);
        *held.claimed.entry(next.config).or_default() += 1;
        ordered.push(next);
    }
    ordered
}

/// Configs that hold more than their share of self-play, one slot aside, while another config waits.
fn over_share(open: &[WorkRow], shares: &BTreeMap<GameConfig, f64>) -> Vec<String> {
    let held = Held::of(open, shares);
    let waits: BTreeSet<GameConfig> = open
        .iter()
        .filter(|item| item.kind == WorkKind::Selfplay && item.state == WorkState::Queued)
        .map(|item| item.config)
        .collect();
    let all: usize = held.claimed.values().sum();
    let of_all = f64::from(u32::try_from(all).unwrap_or(u32::MAX));
    let is_over = |(config, count): (&GameConfig, &usize)| {
        let others_wait = waits.iter().any(|other| other != config);
        let share = shares.get(config).copied().unwrap_or(1.0);
        let count = f64::from(u32::try_from(*count).unwrap_or(u32::MAX));
        (others_wait && count > share * of_all + 1.0).then(|| config.to_string())
    };
    held.claimed.iter().filter_map(is_over).collect()
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{CheckJob, Job, ModelId, ModelRef, WorkClaimed, WorkQueued};

    use super::*;
    use crate::{
        claims::Claims,
        pipeline::training_trigger::TrainingTrigger,
        resource::idle_resource::IdleResource,
        testbed::{Bed, done, hex, selfplay, square},
    };

    fn item(number: u64, kind: WorkKind, config: GameConfig, state: WorkState) -> WorkRow {
        WorkRow {
            id: WorkId::new(kind, config, number),
            kind,
            config,
            state,
            job: Job::Check(CheckJob { batches: Vec::new() }),
            reason: String::new(),
            attempt: 0,
            node: None,
            epoch: 0,
            error: None,
            position: number,
            queued_ms: i64::try_from(number).unwrap() * 1000,
            changed_ms: 0,
        }
    }

    fn waits(number: u64, config: GameConfig) -> WorkRow {
        item(number, WorkKind::Selfplay, config, WorkState::Queued)
    }

    fn runs(number: u64, config: GameConfig) -> WorkRow {
        item(number, WorkKind::Selfplay, config, WorkState::Claimed)
    }

    #[test]
    fn slots_are_shared_by_weight_among_the_kinds_that_a_node_does() {
        use WorkKind::{Gauntlet, Selfplay, Train};
        let check = |slots: usize, kinds: &[WorkKind], expected: &[usize]| {
            let all: BTreeSet<WorkKind> = kinds.iter().copied().collect();
            let found: Vec<usize> =
                kinds.iter().map(|kind| allowance(*kind, slots, &all)).collect();
            assert_eq!(found, expected, "{slots} slots, {kinds:?}");
        };
        check(10, &[Selfplay, Train, Gauntlet], &[6, 3, 1]);
        check(32, &[Selfplay, Train, Gauntlet], &[19, 9, 3]);
        check(2, &[Selfplay, Train, Gauntlet], &[1, 1, 1]);
        check(1, &[Selfplay, Train], &[1, 1]);
        check(9, &[Selfplay, Train], &[6, 3]);
        check(4, &[Train], &[4]);
        check(4, &[Selfplay], &[4]);
    }

    #[test]
    fn the_config_that_holds_least_for_its_share_is_next_and_what_was_raised_before_it() {
        let check = |running: &[WorkRow],
                     waiting: &[WorkRow],
                     shares: &[(GameConfig, f64)],
                     raised: &[u64],
                     expected: &[u64]| {
            let raised = |item: &&WorkRow| raised.contains(&item.position);
            let raised = waiting.iter().filter(raised).map(|item| item.id.clone()).collect();
            let shares = shares.iter().copied().collect();
            let ordered = in_turn(waiting.iter().collect(), running, &shares, &raised);
            let numbers: Vec<u64> = ordered.iter().map(|item| item.position).collect();
            assert_eq!(numbers, expected);
        };
        let (h, s) = (hex(), square());
        let even = [(h, 0.5), (s, 0.5)];
        check(&[], &[waits(1, h), waits(2, h), waits(3, s)], &even, &[], &[1, 3, 2]);
        check(&[runs(9, h)], &[waits(1, h), waits(2, s)], &even, &[], &[2, 1]);
        // Items of one config last long: they hold all slots, although as many of each were asked for.
        let long = [runs(7, s), runs(8, s), runs(9, s)];
        let both = [waits(1, s), waits(2, h), waits(3, s), waits(4, h)];
        check(&long, &both, &even, &[], &[2, 4, 1, 3]);
        check(&long, &both, &[(h, 0.1), (s, 0.9)], &[], &[1, 3, 2, 4]);
        check(&long, &[waits(1, s), waits(2, s)], &even, &[], &[1, 2]);
        check(&long, &both, &even, &[3], &[3, 2, 4, 1]);
        check(&[], &[waits(1, h), waits(2, s)], &[], &[], &[1, 2]);
    }

    #[test]
    fn more_than_a_share_is_told_only_if_another_config_waits() {
        let (h, s) = (hex(), square());
        let shares = BTreeMap::from([(h, 0.5), (s, 0.5)]);
        let four = [runs(1, s), runs(2, s), runs(3, s), runs(4, s)];
        assert!(over_share(&four, &shares).is_empty());
        let with = |more: WorkRow| [four.to_vec(), vec![more]].concat();
        assert!(over_share(&with(waits(5, s)), &shares).is_empty());
        assert_eq!(over_share(&with(waits(5, h)), &shares), ["square8_2p"]);
        assert!(over_share(&[runs(1, s), waits(5, h)], &shares).is_empty(), "one slot aside");
    }

    #[test]
    fn an_item_starves_after_some_hours_and_once() {
        let old = waits(0, hex());
        let none = BTreeSet::new();
        let check = |item: &WorkRow, raised: &BTreeSet<WorkId>, now_ms: i64| {
            is_starved(item, raised, Duration::from_mins(1), now_ms)
        };
        assert!(!check(&old, &none, 59_999));
        assert!(check(&old, &none, 60_000));
        assert!(!check(&old, &BTreeSet::from([old.id.clone()]), 60_000));
        assert!(!check(&runs(0, hex()), &none, 60_000));
    }

    async fn queue(bed: &Bed, number: u64) -> WorkId {
        let work = WorkId::new(WorkKind::Selfplay, hex(), number);
        let model = ModelRef { id: ModelId::new(hex(), 0), weights: bed.put("weights") };
        let job = selfplay(model, number);
        let queued = WorkQueued { work: work.clone(), config: hex(), job, reason: "test".into() };
        bed.record(vec![queued.into()]).await;
        work
    }

    fn scheduler(bed: &Bed) -> JobScheduler {
        let ports = (bed.catalogue_of::<JobScheduler>(), bed.the_loop.clone());
        JobScheduler::new(Config::default(), ports)
    }

    #[tokio::test]
    async fn what_waited_for_hours_is_raised_once_comes_first_and_can_still_be_claimed() {
        let bed = Bed::new().await;
        let mut daemon = scheduler(&bed);
        let (cx, probe) = bed.cx::<JobScheduler>();
        let first = queue(&bed, 1).await;
        let second = queue(&bed, 2).await;
        let claimed =
            WorkClaimed { work: first, attempt: 1, node: bed.the_loop.node.clone(), epoch: 0 };
        bed.record(vec![claimed.into()]).await;
        assert_eq!(done(daemon.cycle(&cx).await).raised_in_all, 0);
        bed.pass_time(Duration::from_hours(4));
        let third = queue(&bed, 3).await;

        probe.stop_at_beat(probe.beats() + 2);
        let facts = bed.facts().await;
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert_eq!(bed.facts().await, facts);
        let (cx, _probe) = bed.cx::<JobScheduler>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.raised, [second.to_string()]);
        assert_eq!(status.kinds["selfplay"].waiting, 2);
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert_eq!(done(daemon.cycle(&cx).await).raised_in_all, 1, "a second cycle raises nothing");
        assert_eq!(bed.facts().await, facts + 1);

        let open = bed.catalogue.open_works().await.unwrap();
        let order: Vec<&str> = open.iter().map(|item| item.id.as_str()).collect();
        assert_eq!((order[0], order[2]), (second.as_str(), third.as_str()));
        let node = bed.the_loop.node.clone();
        let claim = WorkClaimed { work: second, attempt: 1, node, epoch: 0 };
        let record = Record::after(claim, open[0].position);
        bed.catalogue.record(vec![record], 1).await.unwrap();
        assert_eq!(done(daemon.cycle(&cx).await).raised, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_kind_takes_more_than_its_share_only_while_no_other_waits_for_its_own() {
        let bed = Bed::new().await;
        let the_loop = Arc::new(Loop { shared: true, ..(*bed.the_loop).clone() });
        let shop = bed.workshop("slow");
        let claims = |kind, owner| {
            Claims::new(kind, owner, the_loop.clone(), bed.catalogue.clone(), shop.clone())
        };
        let mut games = claims(WorkKind::Selfplay, IdleResource::ID);
        let trainings = claims(WorkKind::Train, TrainingTrigger::ID);
        let (cx, _probe) = bed.cx::<IdleResource>();
        queue(&bed, 1).await;
        let waiting = bed.catalogue.open_works().await.unwrap();
        let training = item(7, WorkKind::Train, hex(), WorkState::Queued);
        let with = |more: &[&WorkRow]| more.iter().map(|item| (*item).clone()).collect::<Vec<_>>();
        assert!(games.has_turn(&with(&[&training])), "the first of two slots is its own");
        assert!(games.take(&waiting[0], waiting[0].job.clone(), &cx).await.unwrap());
        assert!(games.has_turn(&[]), "nothing else waits");
        assert!(!games.has_turn(&with(&[&training])));
        let elsewhere = WorkRow { config: square(), ..training.clone() };
        assert!(games.has_turn(&with(&[&elsewhere])), "it is of a config that is not played here");
        let node = Some(the_loop.node.clone());
        let runs = WorkRow { node, state: WorkState::Claimed, ..training.clone() };
        assert!(games.has_turn(&with(&[&training, &runs])), "that kind has its share");
        assert!(trainings.has_turn(&with(&[&training])));
        drop(trainings);
        assert!(games.has_turn(&with(&[&training])), "nobody here trains");

        let small = Arc::new(Loop { memory: 900 << 20, ..(*the_loop).clone() });
        let of_small =
            Claims::new(WorkKind::Train, TrainingTrigger::ID, small, bed.catalogue.clone(), shop);
        assert!(!of_small.has_turn(&with(&[&training])), "it has not got the memory");
        let said = "this machine has 900 MiB of memory, and a training wants 1024: it leaves trainings to others";
        assert_eq!(of_small.health(), warden::Health::Degraded(said.to_owned()));
    }

    #[tokio::test]
    async fn a_queue_that_is_almost_full_and_shares_that_are_not_kept_degrade() {
        let status_of = |change: &dyn Fn(&mut Status)| {
            let mut status = Status::default();
            change(&mut status);
            status
        };
        let check = |change: &dyn Fn(&mut Status),
                     expected: Option<&str>,
                     daemon: &JobScheduler| {
            let expected = expected.map_or(Health::Healthy, |text| Health::Degraded(text.into()));
            assert_eq!(daemon.health(&status_of(change)), expected);
        };
        let daemon = scheduler(&Bed::new().await);
        let wait = |waiting| {
            move |status: &mut Status| {
                status.kinds.insert("train", Kind { waiting, ..Kind::default() });
            }
        };
        check(&wait(900), None, &daemon);
        check(&wait(901), Some("901 items wait, 1000 are the most"), &daemon);
        let names = |count: usize| vec!["x".to_owned(); count];
        check(&|status| status.raised = names(10), None, &daemon);
        check(&|status| status.raised = names(11), Some("11 items waited too long"), &daemon);
        check(&|status| status.over_share = names(3), None, &daemon);
        let over = Some("more than their share have x, x, x, x");
        check(&|status| status.over_share = names(4), over, &daemon);
    }
}
