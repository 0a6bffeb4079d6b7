//! `NODE_RECOVERY`: brings nodes back that fell silent, one mild step after the other.
//!
//! Reads   whose lease stands still, as seen from here; what was tried with them already.
//! Writes  `recovery.begun` before each step that does something, what became of it, and the end; an
//!         alarm while a node is down. So a leader that was replaced is refused before it acts.
//! Never   believes the clock of another machine; touches a node that ended in good order or is drained, or
//!         that answers here and is only cut off from the log; ends or replaces a machine. What a silent node had in hand others give back without us.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hosts::{ActError, Acted, Limits, ProviderError, State};
use ringrift_pipeline::{
    Catalogue, Event, NodeId, NodeRecovered, NodeRow, NodeUnhealthy, Record, RecoveryAttempted,
    RecoveryBegun, RecoveryEnded, RecoveryOutcome, RecoveryRow, RecoveryStep, Topic as _,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Loop, Machines, Neighbours, Sight, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    nodes::LIVES,
    on,
};

/// Time for a command that restarts a service.
const RESTART_LIMIT: Duration = Duration::from_secs(45);
/// Time for a provider: its own limit, twice, is shorter.
const PROVIDER_LIMIT: Duration = Duration::from_secs(130);

/// Time for one node to answer; it is given up after 5 s.
const ASK_LIMIT: Duration = Duration::from_secs(15);
/// Why a node that answers is not restarted: it goes on with what it knows, and without the log it could not
/// begin again.
const CUT_OFF: &str = "its manager answers here, so it is cut off from the log and goes on alone";

/// What is said at the end of the ladder.
const NOTHING_MORE: &str = "nothing more is tried; when its lease moves again it is as before, and `ringrift \
     node remove` puts it out for good";

/// `[daemons.node_recovery]`. Where nothing says how a node's machine is reached, see `[machines.NAME]`,
/// people are told, and that is all.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A node whose lease stood still for so long is down. After 30 s its work is given back.
    #[serde(with = "crate::seconds")]
    pub silence: Duration,
    /// Time between telling people and the first restart.
    #[serde(with = "crate::seconds")]
    pub notify_wait: Duration,
    /// How often its service is restarted.
    pub restarts: u32,
    /// Time that a restart gets to help.
    #[serde(with = "crate::seconds")]
    pub restart_wait: Duration,
    /// How often its machine is rebooted after that.
    pub reboots: u32,
    /// Time that a reboot gets to help.
    #[serde(with = "crate::seconds")]
    pub reboot_wait: Duration,
    /// Most steps of one cycle, each on another node.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_steps_per_cycle: u32,
}

impl Default for Config {
    fn default() -> Self {
        // Waits: NODE_RECOVERY, "Waits between actions on one node". It climbs by time, not by cycles, and
        // repeats each mild step before the next harder one.
        Self {
            silence: Duration::from_mins(2),
            notify_wait: Duration::from_mins(1),
            restarts: 3,
            restart_wait: Duration::from_mins(5),
            reboots: 2,
            reboot_wait: Duration::from_mins(15),
            max_steps_per_cycle: 3,
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there is nothing to do for it at all.
    pub idle: Option<&'static str>,
    /// Other nodes.
    pub others: usize,
    /// Those that are down, by name.
    pub down: BTreeMap<String, Down>,
    /// Steps taken since the daemon started.
    pub steps: u64,
    /// Nodes that came back, or need no more help for another reason, since the daemon started.
    pub ended: u64,
}

/// A node that is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Down {
    /// The last step.
    pub step: RecoveryStep,
    /// How often it was tried.
    pub attempt: u32,
    /// What became of it; none = that was not told.
    pub outcome: Option<RecoveryOutcome>,
    /// The same in words.
    pub sentence: String,
}

/// The daemon.
pub struct NodeRecovery {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    machines: Machines,
    neighbours: Neighbours,
    alarms: Alarms,
    /// The last fact on each node, and when it was first seen here. What was tried before this process
    /// looked counts as just tried: nobody's clock says when it was.
    since: BTreeMap<NodeId, (u64, Instant)>,
    status: Status,
}

impl Emits for NodeRecovery {
    const EMITS: Topics = &[
        &[RecoveryBegun::TOPIC, RecoveryAttempted::TOPIC, RecoveryEnded::TOPIC],
        crate::alarms::EMITS,
    ];
}

impl Daemon for NodeRecovery {
    const SPEC: Spec = Spec {
        id: DaemonId("NODE_RECOVERY"),
        about: "brings nodes back that fell silent",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL],
        // Shorter than the shortest wait between two steps. A look costs one question to the catalogue.
        period: Duration::from_mins(1),
        wakes_on: &[on::<NodeUnhealthy>(), on::<NodeRecovered>()],
        leader_only: true,
        health_interval: Some(Duration::from_mins(2)),
        cycle_limit: Duration::from_mins(3),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>, Machines, Neighbours);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop, machines, neighbours): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            the_loop,
            machines,
            neighbours,
            alarms: Alarms::default(),
            since: BTreeMap::new(),
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if last.down.is_empty() {
            return Health::Healthy;
        }
        let each =
            last.down.iter().map(|(node, down)| format!("{node} is down: {}", down.sentence));
        Health::Degraded(each.collect::<Vec<_>>().join("; "))
    }
}

impl NodeRecovery {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        if !self.the_loop.shared {
            self.status.idle = Some(crate::nodes::ALONE);
            return Ok(Outcome::Done(self.status.clone()));
        }
        let nodes = self.others().await?;
        let mut rows: BTreeMap<NodeId, RecoveryRow> = BTreeMap::new();
        for row in self.catalogue.recoveries().await? {
            self.notice(&row);
            rows.insert(row.node.clone(), row);
        }
        let mut steps = 0;
        let everybody: BTreeSet<NodeId> = nodes.keys().chain(rows.keys()).cloned().collect();
        for node in everybody {
            cx.beat()?;
            let row = rows.get(&node);
            let member = nodes.get(&node);
            let sight = self.the_loop.nodes.sight(&node);
            let waited = self.since.get(&node).map_or(Duration::ZERO, |(_, at)| at.elapsed());
            match next(member, sight, row, waited, &self.config) {
                Next::Nothing | Next::Wait => {}
                Next::End(sentence) => self.end(&node, row, sentence, cx).await?,
                Next::Take(..) if steps >= self.config.max_steps_per_cycle => {}
                Next::Take(step, attempt) => {
                    steps += 1;
                    self.take(&node, row, step, attempt, cx).await?;
                }
            }
        }
        self.tell(nodes.len(), cx).await?;
        Ok(Outcome::Done(self.status.clone()))
    }

    /// The other members, by name.
    async fn others(&self) -> anyhow::Result<BTreeMap<NodeId, NodeRow>> {
        let rows = self.catalogue.nodes().await?;
        let others = rows.into_iter().filter(|row| row.node != self.the_loop.node && !row.removed);
        Ok(others.map(|row| (row.node.clone(), row)).collect())
    }

    /// Sees what was tried last with a node. What an earlier process asked of a provider is part of this
    /// one's budget.
    fn notice(&mut self, row: &RecoveryRow) {
        let known = self.since.get(&row.node).map(|(position, _)| *position);
        if known == Some(row.position) {
            return;
        }
        self.since.insert(row.node.clone(), (row.position, Instant::now()));
        let asked = match row.outcome {
            Some(RecoveryOutcome::Dry | RecoveryOutcome::Unsupported) => 0,
            Some(RecoveryOutcome::Held) => row.attempt.saturating_sub(1),
            None | Some(RecoveryOutcome::Done | RecoveryOutcome::Failed) => row.attempt,
        };
        if row.is_open
            && row.step == RecoveryStep::Reboot
            && let Some(provided) = self.provided(&row.node)
        {
            provided.guard.remember(&provided.instance, asked);
        }
    }

    fn provided(&self, node: &NodeId) -> Option<&crate::Provided> {
        self.machines.of(node)?.provided.as_ref()
    }

    async fn end(
        &mut self,
        node: &NodeId,
        row: Option<&RecoveryRow>,
        sentence: String,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        info!(%node, sentence, "a node needs no more help");
        let ended = RecoveryEnded { node: node.clone(), sentence };
        self.record(node, row.map_or(0, |row| row.position), ended, cx).await?;
        self.status.ended += 1;
        Ok(())
    }

    async fn take(
        &mut self,
        node: &NodeId,
        row: Option<&RecoveryRow>,
        step: RecoveryStep,
        attempt: u32,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        let mut at =
            At { node: node.clone(), position: row.map_or(0, |row| row.position), step, attempt };
        let acts = matches!(step, RecoveryStep::Restart | RecoveryStep::Reboot);
        let (outcome, sentence) = if acts && self.answers(node, cx).await? {
            (RecoveryOutcome::Held, CUT_OFF.to_owned())
        } else {
            match step {
                RecoveryStep::Notify => (RecoveryOutcome::Done, self.silence(node)),
                RecoveryStep::Restart => self.restart(&mut at, cx).await?,
                RecoveryStep::Reboot => self.reboot(&mut at, cx).await?,
                RecoveryStep::GiveUp => (RecoveryOutcome::Done, NOTHING_MORE.to_owned()),
            }
        };
        // The same obstacle again is no news.
        let is_news = outcome != RecoveryOutcome::Held
            || row.is_none_or(|row| row.outcome != Some(outcome) || row.sentence != sentence);
        if !is_news {
            self.since.insert(node.clone(), (at.position, Instant::now()));
            return Ok(());
        }
        warn!(%node, ?step, attempt, ?outcome, sentence, "a step to bring a node back");
        let node = node.clone();
        let attempted = RecoveryAttempted { node, step, attempt, outcome, sentence };
        self.record(&at.node, at.position, attempted, cx).await?;
        self.status.steps += u64::from(outcome != RecoveryOutcome::Held);
        Ok(())
    }

    /// Does its manager answer here although its lease stands still?
    async fn answers(&self, node: &NodeId, cx: &Cx) -> anyhow::Result<bool> {
        let Some(neighbours) = self.neighbours.get() else { return Ok(false) };
        Ok(cx.within(ASK_LIMIT, neighbours.reach(node)).await?.is_ok())
    }

    fn silence(&self, node: &NodeId) -> String {
        let still = match self.the_loop.nodes.sight(node) {
            Sight::Still(still) => still.as_secs(),
            Sight::Untold | Sight::Left => 0,
        };
        format!("its lease has stood still for {still} s")
    }

    async fn restart(&mut self, at: &mut At, cx: &Cx) -> anyhow::Result<(RecoveryOutcome, String)> {
        let machine = self.machines.of(&at.node).cloned();
        let Some((machine, command)) = machine.and_then(|machine| {
            let command = machine.restart.clone()?;
            Some((machine, command))
        }) else {
            let key = format!("the configuration has no machines.{}.restart", at.node);
            return Ok((RecoveryOutcome::Unsupported, key));
        };
        let how = format!("`{}` {}", command.join(" "), machine.reach);
        self.begin(at, &how, cx).await?;
        let run = machine.reach.run(&command, Limits::of(RESTART_LIMIT));
        // Its own limit is the shorter one.
        Ok(match cx.within(RESTART_LIMIT * 2, run).await? {
            Ok(_) => (RecoveryOutcome::Done, format!("{how} was done")),
            Err(error) => (RecoveryOutcome::Failed, error.to_string()),
        })
    }

    async fn reboot(&mut self, at: &mut At, cx: &Cx) -> anyhow::Result<(RecoveryOutcome, String)> {
        let Some(provided) = self.provided(&at.node).cloned() else {
            let key = format!("the configuration has no machines.{}.provider", at.node);
            return Ok((RecoveryOutcome::Unsupported, key));
        };
        let crate::Provided { provider, instance, guard } = provided;
        let plan = match cx.within(PROVIDER_LIMIT, guard.revival(&instance)).await? {
            Ok(plan) => plan,
            Err(error) => return Ok((verdict(&error), format!("{provider}: {error}"))),
        };
        let how = format!("{} {instance} at {provider}", plan.action);
        if !plan.is_dry {
            self.begin(at, &how, cx).await?;
        }
        Ok(match cx.within(PROVIDER_LIMIT, guard.take(&plan)).await? {
            Ok(Acted::Asked) => (RecoveryOutcome::Done, format!("{how} was asked for")),
            Ok(Acted::Dry) => (RecoveryOutcome::Dry, format!("dry run: {how} was not asked for")),
            Err(error) => (RecoveryOutcome::Failed, format!("{provider}: {error}")),
        })
    }

    /// Says what is about to be done, which only the leader can, and nobody else at the same time.
    async fn begin(&mut self, at: &mut At, how: &str, cx: &Cx) -> anyhow::Result<()> {
        let begun = RecoveryBegun {
            node: at.node.clone(),
            step: at.step,
            attempt: at.attempt,
            how: how.to_owned(),
            by: self.the_loop.node.clone(),
        };
        let node = at.node.clone();
        at.position = self.record(&node, at.position, begun, cx).await?;
        Ok(())
    }

    async fn record(
        &mut self,
        node: &NodeId,
        after: u64,
        event: impl Into<Event>,
        cx: &Cx,
    ) -> anyhow::Result<u64> {
        let records = vec![Record::after(event, after)];
        let position = self.catalogue.record(records, cx.now()).await?;
        self.since.insert(node.clone(), (position, Instant::now()));
        Ok(position)
    }

    /// What people see: the status, and an alarm for each node that is down.
    async fn tell(&mut self, others: usize, cx: &Cx) -> anyhow::Result<()> {
        self.status.others = others;
        self.status.idle = (others == 0).then_some("there is no other node");
        self.status.down.clear();
        for row in self.catalogue.recoveries().await? {
            let sentence = row.is_open.then(|| format!("{} is down: {}", row.node, row.sentence));
            let alarm = format!("node.{}", row.node);
            self.alarms.set(&self.catalogue, &alarm, sentence, cx.now()).await?;
            if row.is_open {
                let RecoveryRow { node, step, attempt, outcome, sentence, .. } = row;
                let down = Down { step, attempt, outcome, sentence };
                self.status.down.insert(node.0, down);
            }
        }
        Ok(())
    }
}

/// A step on a node, and the fact that it follows.
struct At {
    node: NodeId,
    position: u64,
    step: RecoveryStep,
    attempt: u32,
}

/// What it means for a step that nothing was asked of the provider. An outage is nobody's failure.
fn verdict(error: &ActError) -> RecoveryOutcome {
    match error {
        ActError::Provider(ProviderError::Unsupported(_)) => RecoveryOutcome::Unsupported,
        ActError::OverBudget { .. }
        | ActError::Untold { .. }
        | ActError::Unfit { state: State::Starting | State::Stopping, .. }
        | ActError::Provider(ProviderError::Unasked(_) | ProviderError::Garbled(_)) => {
            RecoveryOutcome::Held
        }
        ActError::Absent(_)
        | ActError::Unfit { .. }
        | ActError::Provider(ProviderError::Refused(_)) => RecoveryOutcome::Failed,
    }
}

/// What is to be done about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// It is well, or nobody knows.
    Nothing,
    /// What was tried last gets its time.
    Wait,
    /// It needs no more help, and why.
    End(String),
    /// This step, for the time of this number.
    Take(RecoveryStep, u32),
}

/// The whole policy, pure. A node that is no member any more has none.
fn next(
    member: Option<&NodeRow>,
    sight: Sight,
    row: Option<&RecoveryRow>,
    waited: Duration,
    config: &Config,
) -> Next {
    let open = row.filter(|row| row.is_open);
    let over = |why: &str| open.map_or(Next::Nothing, |_| Next::End(why.to_owned()));
    let still = match (member, sight) {
        (None, _) => return over("it is no member any more"),
        (Some(row), _) if row.draining => {
            return over("it is drained: who did that has it in hand");
        }
        (_, Sight::Untold) => return Next::Nothing,
        (_, Sight::Left) => return over("it ended in good order"),
        (_, Sight::Still(still)) if still < LIVES => return over("its lease moves again"),
        (_, Sight::Still(still)) => still,
    };
    let is_down = still >= config.silence;
    let Some(row) = open else {
        return if is_down { Next::Take(RecoveryStep::Notify, 1) } else { Next::Nothing };
    };
    let (wait, then) = ladder(row, config);
    match then {
        // Its lease moved since: the next look tells.
        _ if !is_down => Next::Wait,
        Some((step, attempt)) if waited >= wait => Next::Take(step, attempt),
        Some(_) | None => Next::Wait,
    }
}

/// What comes after a step, and after which time.
fn ladder(row: &RecoveryRow, config: &Config) -> (Duration, Option<(RecoveryStep, u32)>) {
    let (most, wait) = match row.step {
        RecoveryStep::Notify => (1, config.notify_wait),
        RecoveryStep::Restart => (config.restarts, config.restart_wait),
        RecoveryStep::Reboot => (config.reboots, config.reboot_wait),
        RecoveryStep::GiveUp => return (Duration::ZERO, None),
    };
    match row.outcome {
        Some(RecoveryOutcome::Held) => (wait, Some((row.step, row.attempt))),
        Some(RecoveryOutcome::Unsupported) => (Duration::ZERO, Some((above(row.step, config), 1))),
        _ if row.attempt < most => (wait, Some((row.step, row.attempt + 1))),
        _ => (wait, Some((above(row.step, config), 1))),
    }
}

/// The next harder step that is to be tried at all.
fn above(step: RecoveryStep, config: &Config) -> RecoveryStep {
    match step {
        RecoveryStep::Notify if config.restarts > 0 => RecoveryStep::Restart,
        RecoveryStep::Notify | RecoveryStep::Restart if config.reboots > 0 => RecoveryStep::Reboot,
        _ => RecoveryStep::GiveUp,
    }
}

#[cfg(test)]
mod tests;
