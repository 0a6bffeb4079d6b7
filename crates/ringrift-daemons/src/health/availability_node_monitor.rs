//! `AVAILABILITY_NODE_MONITOR`: looks at each node layer by layer: its lease, a command on its machine, its
//! provider.
//!
//! Reads   whose lease stands still, as seen from here; whether `ssh` gets through; what providers list.
//! Writes  `node.unhealthy` after some failed looks in a row, `node.recovered` after that and not before.
//! Never   takes "could not ask" for a fault; acts: `NODE_RECOVERY` does, and judges by the lease alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hosts::{Limits, Listing, ProviderError, Reach, Standing, State};
use ringrift_pipeline::{
    Catalogue, Event, Layer, NodeHealthRow, NodeId, NodeRecovered, NodeUnhealthy, Record,
    Topic as _,
};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Instant};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, Loop, Machine, Machines, Sight, Topics,
    cycle::{EVENT_ROUTER, settled},
    nodes::GONE,
};

/// Time for a command that does nothing.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// Time for all machines and providers of one cycle: each has a limit of its own, and they run side by side.
const DEEP_LIMIT: Duration = Duration::from_secs(70);

/// `[daemons.availability_node_monitor]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Failed looks in a row after which a node is unhealthy.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub failures: u32,
    /// Time between two looks at the machine of a node whose lease moves: a command and a provider cost
    /// more than a lease, and say less.
    #[serde(with = "crate::seconds")]
    pub deep_interval: Duration,
    /// Most machines that one cycle looks at.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_machines_per_cycle: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { failures: 3, deep_interval: Duration::from_mins(10), max_machines_per_cycle: 16 }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there is nothing to look at.
    pub idle: Option<&'static str>,
    /// Nodes that are looked at.
    pub nodes: usize,
    /// Machines that the last cycle looked at.
    pub machines: usize,
    /// Nodes that are unhealthy, and why.
    pub unhealthy: BTreeMap<String, String>,
    /// Nodes with failed looks that are not unhealthy for that yet, and how many in a row.
    pub suspects: BTreeMap<String, u32>,
}

/// The daemon.
pub struct AvailabilityNodeMonitor {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    machines: Machines,
    /// What is remembered of each node; a restart begins to count anew.
    tracks: BTreeMap<NodeId, Track>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Track {
    failures: u32,
    /// When its machine was looked at last.
    deep_at: Option<Instant>,
}

impl Emits for AvailabilityNodeMonitor {
    const EMITS: Topics = &[&[NodeUnhealthy::TOPIC, NodeRecovered::TOPIC]];
}

impl Daemon for AvailabilityNodeMonitor {
    const SPEC: Spec = Spec {
        id: DaemonId("AVAILABILITY_NODE_MONITOR"),
        about: "looks at the nodes layer by layer",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        period: Duration::from_secs(30),
        leader_only: true,
        health_interval: Some(Duration::from_secs(30)),
        cycle_limit: Duration::from_mins(2),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>, Machines);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop, machines): Self::Ports) -> Self {
        Self { config, catalogue, the_loop, machines, tracks: BTreeMap::new() }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    // The nodes are sick then, not who looks at them.
    fn health(&self, last: &Status) -> Health {
        if last.unhealthy.is_empty() {
            return Health::Healthy;
        }
        let each = last.unhealthy.iter().map(|(node, reason)| format!("{node}: {reason}"));
        Health::Degraded(each.collect::<Vec<_>>().join("; "))
    }
}

impl AvailabilityNodeMonitor {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let mut status = Status::default();
        if !self.the_loop.shared {
            status.idle = Some(crate::nodes::ALONE);
            return Ok(Outcome::Done(status));
        }
        let nodes = self.nodes().await?;
        status.idle = nodes.is_empty().then_some("no other node runs");
        status.nodes = nodes.len();
        self.tracks.retain(|node, _| nodes.contains_key(node));
        let due = self.due(&nodes);
        status.machines = due.len();
        let mut deep = cx.within(DEEP_LIMIT, look_deep(due)).await?;
        let known = self.catalogue.node_health().await?;
        for (node, still) in nodes {
            cx.beat()?;
            let row = known.iter().find(|row| row.node == node);
            let look = Look { lease: lease(still), deep: deep.remove(&node) };
            self.judge(&node, row, &look, &mut status, cx).await?;
        }
        Ok(Outcome::Done(status))
    }

    /// The other members that did not end in good order and are not in somebody's hands, and for how long
    /// their lease stands still.
    async fn nodes(&self) -> anyhow::Result<BTreeMap<NodeId, Duration>> {
        let rows = self.catalogue.nodes().await?;
        let others = rows.into_iter().filter(|row| row.node != self.the_loop.node);
        let here = others.filter(|row| !row.removed && !row.draining);
        let seen = here.filter_map(|row| match self.the_loop.nodes.sight(&row.node) {
            Sight::Still(still) => Some((row.node, still)),
            Sight::Untold | Sight::Left => None,
        });
        Ok(seen.collect())
    }

    /// Whose machine is looked at now.
    fn due(&mut self, nodes: &BTreeMap<NodeId, Duration>) -> BTreeMap<NodeId, Machine> {
        let mut due = BTreeMap::new();
        let most = usize::try_from(self.config.max_machines_per_cycle).unwrap_or(usize::MAX);
        for (node, still) in nodes {
            let Some(machine) = self.machines.of(node).filter(|_| due.len() < most) else {
                continue;
            };
            let track = self.tracks.entry(node.clone()).or_default();
            let rested = track.deep_at.is_none_or(|at| at.elapsed() >= self.config.deep_interval);
            let fails = lease(*still).is_some() || track.failures > 0;
            // Until it is known what is wrong, and from time to time after that.
            if rested || (fails && track.failures < self.config.failures) {
                track.deep_at = Some(Instant::now());
                due.insert(node.clone(), machine.clone());
            }
        }
        due
    }

    async fn judge(
        &mut self,
        node: &NodeId,
        row: Option<&NodeHealthRow>,
        look: &Look,
        status: &mut Status,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        let track = self.tracks.entry(node.clone()).or_default();
        let failed = row.and_then(|row| row.failed);
        let reason = look.sentence();
        let (failures, news) = verdict(track.failures, failed, look, self.config.failures);
        track.failures = failures;
        let node = node.clone();
        let name = node.0.clone();
        let position = row.map_or(0, |row| row.position);
        let event: Option<Event> = match news {
            News::None => None,
            News::Unhealthy(layer) => {
                warn!(%node, ?layer, reason, "a node is unhealthy");
                Some(NodeUnhealthy { node, layer, reason: reason.clone() }.into())
            }
            News::Recovered => {
                info!(%node, reason, "a node is well again");
                Some(NodeRecovered { node, reason: reason.clone() }.into())
            }
        };
        if let Some(event) = event {
            self.catalogue.record(vec![Record::after(event, position)], cx.now()).await?;
        }
        match news {
            News::Unhealthy(_) => drop(status.unhealthy.insert(name, reason)),
            News::None if failed.is_some() => {
                let reason = row.map_or_else(String::new, |row| row.reason.clone());
                status.unhealthy.insert(name, reason);
            }
            News::None if failures > 0 => drop(status.suspects.insert(name, failures)),
            News::None | News::Recovered => {}
        }
        Ok(())
    }
}

/// What is wrong with a lease that stands still for so long.
fn lease(still: Duration) -> Option<String> {
    (still >= GONE).then(|| format!("its lease has stood still for {} s", still.as_secs()))
}

/// What one look saw of a node.
#[derive(Debug, Default)]
struct Look {
    /// What is wrong with its lease.
    lease: Option<String>,
    /// What its machine said; none = it was not asked this time.
    deep: Option<Deep>,
}

/// What a look at a machine saw.
#[derive(Debug, Default)]
struct Deep {
    command: Answer,
    provider: Answer,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Answer {
    /// There is nobody who could be asked.
    #[default]
    Nobody,
    /// It is as it should be.
    Fine(String),
    /// Nothing can be said, and why. That is no fault of the node.
    Untold(String),
    /// It is not as it should be.
    Fault(String),
}

impl Answer {
    fn words(&self) -> Option<&String> {
        match self {
            Self::Nobody => None,
            Self::Fine(words) | Self::Untold(words) | Self::Fault(words) => Some(words),
        }
    }
}

impl Look {
    /// The first layer that fails.
    fn failed(&self) -> Option<Layer> {
        let fault = |answer: &Answer| matches!(answer, Answer::Fault(_));
        if self.lease.is_some() {
            return Some(Layer::Lease);
        }
        let deep = self.deep.as_ref()?;
        if fault(&deep.command) {
            return Some(Layer::Command);
        }
        fault(&deep.provider).then_some(Layer::Provider)
    }

    /// What all layers said.
    fn sentence(&self) -> String {
        let mut words = vec![self.lease.clone().unwrap_or_else(|| "its lease moves".to_owned())];
        let deep = self.deep.iter().flat_map(|deep| [&deep.command, &deep.provider]);
        words.extend(deep.filter_map(Answer::words).cloned());
        words.join("; ")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    Unhealthy(Layer),
    Recovered,
}

/// The whole policy, pure: failures in a row after this look, and what is to be told. `failed` is what is
/// told already.
fn verdict(failures: u32, failed: Option<Layer>, look: &Look, most: u32) -> (u32, News) {
    if let Some(layer) = look.failed() {
        let failures = failures.saturating_add(1);
        let is_news = failures >= most && failed.is_none();
        return (failures, if is_news { News::Unhealthy(layer) } else { News::None });
    }
    // What was not looked at is as it was.
    let was_seen = look.deep.is_some() || failed == Some(Layer::Lease);
    match failed {
        Some(_) if was_seen => (0, News::Recovered),
        Some(_) => (failures, News::None),
        None => (0, News::None),
    }
}

/// Looks at machines, all at the same time.
async fn look_deep(machines: BTreeMap<NodeId, Machine>) -> BTreeMap<NodeId, Deep> {
    let mut commands = JoinSet::new();
    let mut listings = JoinSet::new();
    let mut asked: BTreeSet<String> = BTreeSet::new();
    for (node, machine) in &machines {
        if let Reach::Ssh(_) = &machine.reach {
            let (node, reach) = (node.clone(), machine.reach.clone());
            commands.spawn(async move { (node, command(&reach).await) });
        }
        if let Some(provided) = &machine.provided
            && asked.insert(provided.provider.clone())
        {
            let (provider, guard) = (provided.provider.clone(), Arc::clone(&provided.guard));
            listings.spawn(async move { (provider, guard.list().await) });
        }
    }
    let commands: BTreeMap<NodeId, Answer> = commands.join_all().await.into_iter().collect();
    let listings: BTreeMap<String, Result<Listing, ProviderError>> =
        listings.join_all().await.into_iter().collect();
    let look = |(node, machine): (NodeId, Machine)| {
        let command = commands.get(&node).cloned().unwrap_or_default();
        let provider = machine.provided.map_or(Answer::Nobody, |provided| {
            let name = &provided.provider;
            match listings.get(name) {
                None => Answer::Nobody,
                Some(Err(error)) => Answer::Untold(format!("{name}: {error}")),
                Some(Ok(listing)) => provider(name, &listing.standing(&provided.instance)),
            }
        });
        (node, Deep { command, provider })
    };
    machines.into_iter().map(look).collect()
}

async fn command(reach: &Reach) -> Answer {
    match reach.run(&["true".to_owned()], Limits::of(COMMAND_LIMIT)).await {
        Ok(_) => Answer::Fine("its machine takes commands".to_owned()),
        Err(error) => Answer::Fault(error.to_string()),
    }
}

fn provider(name: &str, standing: &Standing) -> Answer {
    match standing {
        Standing::Listed(State::Running) => Answer::Fine(format!("{name} says that it runs")),
        Standing::Listed(State::Unknown) => {
            Answer::Untold(format!("{name} does not know how its machine is"))
        }
        Standing::Listed(state) => {
            Answer::Fault(format!("{name} says that its machine is {state}"))
        }
        Standing::Absent => Answer::Fault(format!("{name} does not list its machine")),
        Standing::Untold(why) => Answer::Untold(format!("{name}: {why}")),
    }
}

#[cfg(test)]
mod tests;
