//! `WORK_QUEUE_MONITOR`: tells when work waits too long, is stuck, or was given up.
//!
//! Reads   work items.
//! Writes  alarms.
//! Never   moves an item: who claimed it ends it, a new life of the manager gives it back.

use std::{collections::BTreeMap, time::Duration};

use ringrift_pipeline::{Catalogue, WorkCancelled, WorkFailed, WorkKind, WorkRow, WorkState};
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, STANDALONE, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    on,
    queue::queue_populator::QueuePopulator,
};

/// Name of the alarm on items that are claimed for too long.
pub(crate) const STUCK: &str = "work.stuck";
/// Name of the alarm on items that failed for good.
pub(crate) const DEAD: &str = "work.dead";
/// Name of the alarm on too many waiting items.
pub(crate) const DEPTH: &str = "work.depth";

/// Newest items that are looked at for latency and deaths.
const LOOK_BACK: u32 = 200;

/// `[daemons.work_queue_monitor]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Waiting items at which the alarm is raised; it is cleared at 70 % of it. Source: health
    /// contract.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub most_waiting: usize,
    /// Time in one worker's hands after which an item counts as stuck. The contract's 5 minutes are
    /// between claim and start; here a claim is a start, and a training on one core may take an hour.
    #[serde(with = "crate::seconds")]
    pub stuck_after: Duration,
    /// How long an item that failed for good stays an alarm.
    #[serde(with = "crate::seconds")]
    pub mourn: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            most_waiting: 100,
            stuck_after: Duration::from_hours(2),
            mourn: Duration::from_hours(1),
        }
    }
}

/// The items of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// Waiting.
    pub waiting: usize,
    /// In work.
    pub claimed: usize,
    /// Age of the oldest waiting item, seconds.
    pub oldest_waiting_seconds: u64,
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// By kind of work.
    pub kinds: BTreeMap<&'static str, Depth>,
    /// Items that are in work for too long.
    pub stuck: Vec<String>,
    /// Items that failed for good lately.
    pub dead: Vec<String>,
    /// Mean time from queue to end of the newest items, seconds.
    pub mean_latency_seconds: u64,
    /// Longest of them, seconds.
    pub longest_latency_seconds: u64,
    /// Too many items wait.
    pub overfull: bool,
}

/// The daemon.
pub struct WorkQueueMonitor {
    config: Config,
    catalogue: Catalogue,
    alarms: Alarms,
    overfull: bool,
}

impl Emits for WorkQueueMonitor {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for WorkQueueMonitor {
    const SPEC: Spec = Spec {
        id: DaemonId("WORK_QUEUE_MONITOR"),
        about: "tells when work waits too long or is stuck",
        priority: Priority::High,
        needs: &[EVENT_ROUTER, QueuePopulator::ID],
        profiles: &[STANDALONE],
        period: Duration::from_secs(30),
        wakes_on: &[on::<WorkFailed>(), on::<WorkCancelled>()],
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = Catalogue;
    type Status = Status;

    fn new(config: Config, catalogue: Catalogue) -> Self {
        Self { config, catalogue, alarms: Alarms::default(), overfull: false }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        let mut complaints = Vec::new();
        if last.overfull {
            let waiting: usize = last.kinds.values().map(|depth| depth.waiting).sum();
            complaints.push(format!("{waiting} items wait"));
        }
        if !last.stuck.is_empty() {
            complaints.push(format!("stuck: {}", last.stuck.join(", ")));
        }
        if !last.dead.is_empty() {
            complaints.push(format!("failed for good: {}", last.dead.join(", ")));
        }
        if complaints.is_empty() {
            return Health::Healthy;
        }
        Health::Degraded(complaints.join("; "))
    }
}

impl WorkQueueMonitor {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let open = self.catalogue.open_works().await?;
        let newest = self.catalogue.works(None, LOOK_BACK).await?;
        let status = survey(&open, &newest, &self.config, self.overfull, cx.now());
        self.overfull = status.overfull;
        cx.beat()?;
        let stuck = (!status.stuck.is_empty()).then(|| {
            let limit = humantime::format_duration(self.config.stuck_after);
            format!("in work for more than {limit}: {}", status.stuck.join(", "))
        });
        let dead = (!status.dead.is_empty())
            .then(|| format!("failed for good: {}", status.dead.join(", ")));
        let depth =
            status.overfull.then(|| format!("more than {} items wait", self.config.most_waiting));
        for (alarm, sentence) in [(STUCK, stuck), (DEAD, dead), (DEPTH, depth)] {
            self.alarms.set(&self.catalogue, alarm, sentence, cx.now()).await?;
        }
        Ok(Outcome::Done(status))
    }
}

/// The whole policy: what these items say.
fn survey(
    open: &[WorkRow],
    newest: &[WorkRow],
    config: &Config,
    was_overfull: bool,
    now_ms: i64,
) -> Status {
    let seconds = |from: i64, to: i64| u64::try_from((to - from) / 1000).unwrap_or(0);
    let mut status = Status::default();
    for kind in WorkKind::ALL {
        status.kinds.insert(kind.as_str(), Depth::default());
    }
    for item in open {
        let depth = status.kinds.entry(item.kind.as_str()).or_default();
        if item.state == WorkState::Claimed {
            depth.claimed += 1;
            if seconds(item.changed_ms, now_ms) >= config.stuck_after.as_secs() {
                status.stuck.push(item.id.to_string());
            }
        } else {
            depth.waiting += 1;
            let age = seconds(item.queued_ms, now_ms);
            depth.oldest_waiting_seconds = depth.oldest_waiting_seconds.max(age);
        }
    }
    let waiting: usize = status.kinds.values().map(|depth| depth.waiting).sum();
    status.overfull =
        waiting > config.most_waiting || (was_overfull && waiting > config.most_waiting * 7 / 10);
    let mut latencies = Vec::new();
    for item in newest {
        match item.state {
            WorkState::Done => latencies.push(seconds(item.queued_ms, item.changed_ms)),
            WorkState::Dead if seconds(item.changed_ms, now_ms) < config.mourn.as_secs() => {
                status.dead.push(match &item.error {
                    Some(error) => format!("{} ({error})", item.id),
                    None => item.id.to_string(),
                });
            }
            _ => {}
        }
    }
    if let Some(longest) = latencies.iter().max() {
        status.longest_latency_seconds = *longest;
        status.mean_latency_seconds = latencies.iter().sum::<u64>() / latencies.len() as u64;
    }
    status
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{CheckJob, Job, ModelRef, NodeId, WorkClaimed, WorkId, WorkQueued};

    use super::*;
    use crate::{
        alarms::alarm_of,
        testbed::{Bed, done, hex, selfplay},
    };

    const NOW: i64 = 1_000_000_000_000;

    fn item(number: u64, state: WorkState, queued_ago_s: i64, changed_ago_s: i64) -> WorkRow {
        WorkRow {
            id: WorkId::new(WorkKind::Train, hex(), number),
            kind: WorkKind::Train,
            config: hex(),
            state,
            job: Job::Check(CheckJob { batches: Vec::new() }),
            reason: String::new(),
            attempt: 1,
            node: None,
            epoch: 0,
            error: (state == WorkState::Dead).then(|| "no".into()),
            position: number,
            queued_ms: NOW - queued_ago_s * 1000,
            changed_ms: NOW - changed_ago_s * 1000,
        }
    }

    fn check(items: &[WorkRow], was_overfull: bool, change: impl FnOnce(&mut Status)) {
        let config = Config { most_waiting: 10, ..Config::default() };
        let open: Vec<_> = items
            .iter()
            .filter(|item| matches!(item.state, WorkState::Queued | WorkState::Claimed))
            .cloned()
            .collect();
        let mut expected = Status::default();
        for kind in WorkKind::ALL {
            expected.kinds.insert(kind.as_str(), Depth::default());
        }
        change(&mut expected);
        assert_eq!(survey(&open, items, &config, was_overfull, NOW), expected);
    }

    #[test]
    fn items_say_how_deep_stuck_and_dead_the_queue_is() {
        use WorkState::{Claimed, Dead, Done, Queued};
        check(&[], false, |_| {});
        check(&[item(1, Queued, 60, 60), item(2, Queued, 30, 5)], false, |status| {
            status
                .kinds
                .insert("train", Depth { waiting: 2, claimed: 0, oldest_waiting_seconds: 60 });
        });
        check(&[item(1, Claimed, 9000, 7199), item(2, Claimed, 9000, 7200)], false, |status| {
            status.kinds.get_mut("train").unwrap().claimed = 2;
            status.stuck = vec!["train-hex8_2p-000002".into()];
        });
        check(&[item(1, Dead, 9000, 3599), item(2, Dead, 9000, 3600)], false, |status| {
            status.dead = vec!["train-hex8_2p-000001 (no)".into()];
        });
        check(&[item(1, Done, 100, 90), item(2, Done, 100, 70)], false, |status| {
            status.mean_latency_seconds = 20;
            status.longest_latency_seconds = 30;
        });
    }

    #[test]
    fn a_queue_is_overfull_above_the_limit_until_it_is_well_below() {
        let waiting = |count: u64| -> Vec<WorkRow> {
            (1..=count).map(|n| item(n, WorkState::Queued, 0, 0)).collect()
        };
        let config = Config { most_waiting: 10, ..Config::default() };
        for (count, was, is) in [
            (10, false, false),
            (11, false, true),
            (8, true, true),
            (8, false, false),
            (7, true, false),
        ] {
            let status = survey(&waiting(count), &[], &config, was, NOW);
            assert_eq!(status.overfull, is, "{count} waiting, overfull before: {was}");
        }
    }

    #[tokio::test]
    async fn a_stuck_claim_is_an_alarm_until_it_ends_and_a_second_cycle_tells_nothing() {
        let bed = Bed::new().await;
        let work = WorkId::new(WorkKind::Selfplay, hex(), 1);
        let model = bed.champion(hex()).await;
        let weights = bed.catalogue.model(&model).await.unwrap().unwrap().weights;
        let job = selfplay(ModelRef { id: model, weights }, 1);
        bed.record(vec![
            WorkQueued { work: work.clone(), config: hex(), job, reason: "games".into() }.into(),
            WorkClaimed { work: work.clone(), attempt: 1, node: NodeId("here".into()), epoch: 0 }
                .into(),
        ])
        .await;
        let mut daemon =
            WorkQueueMonitor::new(Config::default(), bed.catalogue_of::<WorkQueueMonitor>());
        let (cx, probe) = bed.cx::<WorkQueueMonitor>();
        assert_eq!(done(daemon.cycle(&cx).await).stuck, Vec::<String>::new());
        bed.pass_time(Duration::from_hours(2));
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Degraded(format!("stuck: {work}")));
        let (sentence, _) = alarm_of(&bed.catalogue, STUCK).await.unwrap().unwrap();
        assert_eq!(sentence, format!("in work for more than 2h: {work}"));
        let told = bed.catalogue.log().head(courier::Stream::Operational).await.unwrap();
        done(daemon.cycle(&cx).await);
        assert_eq!(bed.catalogue.log().head(courier::Stream::Operational).await.unwrap(), told);

        probe.stop_at_beat(probe.beats() + 2);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        let (cx, _probe) = bed.cx::<WorkQueueMonitor>();
        bed.record(vec![WorkCancelled { work, reason: "enough".into() }.into()]).await;
        done(daemon.cycle(&cx).await);
        assert_eq!(alarm_of(&bed.catalogue, STUCK).await.unwrap(), None);
    }
}
