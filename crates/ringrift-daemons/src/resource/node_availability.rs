//! `NODE_AVAILABILITY`: follows what the providers say of the nodes' machines.
//!
//! Reads   what each provider lists; the machines that the configuration names; the members.
//! Writes  `node.availability_changed` when a provider says something else than before; an alarm while it has
//!         a member's machine no more.
//! Never   takes an outage, an empty or a partial listing for machines that are gone; changes a configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hosts::{Listing, ProviderError, Standing, State};
use ringrift_pipeline::{
    Availability, AvailabilityRow, Catalogue, NodeAvailabilityChanged, NodeId, Record, Topic as _,
};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Instant};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, Loop, Machines, Provided, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
};

/// Time for all providers: each has a limit of its own, and they are asked side by side.
const LIMIT: Duration = Duration::from_secs(70);
/// Looks in a row that must agree before a machine is gone.
const LOOKS: u32 = 2;

/// `[daemons.node_availability]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A machine that its provider does not have any more must be seen so for so long, and twice at least,
    /// before it is gone. Whatever else changes is told at once.
    #[serde(with = "crate::seconds")]
    pub grace_period: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { grace_period: Duration::from_mins(1) }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Why there is nothing to follow.
    pub idle: Option<&'static str>,
    /// What each provider answered.
    pub providers: BTreeMap<String, String>,
    /// What is known of each node's machine.
    pub machines: BTreeMap<String, Availability>,
    /// Names in the configuration that no member has.
    pub strangers: Vec<String>,
    /// Instances, as `provider/id`, that run and that the configuration does not name: nobody uses them here.
    pub unclaimed: Vec<String>,
    /// Changes told since the daemon started.
    pub changes: u64,
    /// Providers that could not be asked or understood, and why.
    pub silent: BTreeMap<String, String>,
}

/// The daemon.
pub struct NodeAvailability {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    machines: Machines,
    alarms: Alarms,
    /// Since when, and how often in a row, a machine was seen to be gone.
    missing: BTreeMap<NodeId, (Instant, u32)>,
    changes: u64,
}

impl Emits for NodeAvailability {
    const EMITS: Topics = &[&[NodeAvailabilityChanged::TOPIC], crate::alarms::EMITS];
}

impl Daemon for NodeAvailability {
    const SPEC: Spec = Spec {
        id: DaemonId("NODE_AVAILABILITY"),
        about: "follows the providers' word on the nodes",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        period: Duration::from_mins(5),
        leader_only: true,
        cycle_limit: Duration::from_mins(2),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>, Machines);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop, machines): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            the_loop,
            machines,
            alarms: Alarms::default(),
            missing: BTreeMap::new(),
            changes: 0,
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if last.silent.is_empty() {
            return Health::Healthy;
        }
        let each = last.silent.iter().map(|(provider, why)| format!("{provider}: {why}"));
        Health::Degraded(each.collect::<Vec<_>>().join("; "))
    }
}

impl NodeAvailability {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let mut status = Status::default();
        if !self.the_loop.shared {
            status.idle = Some(crate::nodes::ALONE);
            return Ok(Outcome::Done(status));
        }
        let listings = cx.within(LIMIT, ask(&self.machines)).await?;
        status.idle =
            listings.is_empty().then_some("no machine of the configuration has a provider");
        for (provider, listing) in &listings {
            let words = match listing {
                Ok(listing) => format!("lists {}", listing.instances().count()),
                Err(error) => {
                    status.silent.insert(provider.clone(), error.to_string());
                    error.to_string()
                }
            };
            status.providers.insert(provider.clone(), words);
        }
        let members = self.catalogue.nodes().await?;
        let members: BTreeSet<NodeId> =
            members.into_iter().filter(|row| !row.removed).map(|row| row.node).collect();
        let known = self.catalogue.availability().await?;
        let mut claimed = BTreeSet::new();
        for (node, machine) in self.machines.clone().iter() {
            cx.beat()?;
            let Some(provided) = &machine.provided else { continue };
            claimed.insert((provided.provider.clone(), provided.instance.clone()));
            if !members.contains(node) {
                status.strangers.push(node.to_string());
                self.alarm(node, provided, None, cx).await?;
                continue;
            }
            let row = known.iter().find(|row| row.node == *node && is_of(row, provided));
            let standing = match listings.get(&provided.provider) {
                Some(Ok(listing)) => listing.standing(&provided.instance),
                Some(Err(_)) | None => Standing::Untold("the provider could not be asked"),
            };
            let told = self.settle(node, &standing, row.map(|row| row.state));
            let last = known.iter().find(|row| row.node == *node).map_or(0, |row| row.position);
            if let Some(state) = told
                && row.is_none_or(|row| row.state != state)
            {
                self.record(node, provided, state, last, cx).await?;
            }
            let state = told.or(row.map(|row| row.state));
            self.alarm(node, provided, state, cx).await?;
            status.machines.extend(state.map(|state| (node.to_string(), state)));
        }
        for (provider, listing) in &listings {
            let listed = listing.iter().flat_map(Listing::instances);
            let unclaimed = listed.filter(|instance| {
                instance.state == State::Running
                    && !claimed.contains(&(provider.clone(), instance.id.clone()))
            });
            status.unclaimed.extend(unclaimed.map(|of| format!("{provider}/{}", of.id)));
        }
        status.changes = self.changes;
        Ok(Outcome::Done(status))
    }

    /// What is known of a machine after this look; none = what was known before.
    fn settle(
        &mut self,
        node: &NodeId,
        standing: &Standing,
        before: Option<Availability>,
    ) -> Option<Availability> {
        let state = match seen(standing) {
            Seen::Is(state) => {
                // Who comes back has his whole grace the next time.
                self.missing.remove(node);
                return Some(state);
            }
            Seen::Nothing => return None,
            Seen::Missing => Availability::Gone,
        };
        if before == Some(state) {
            return Some(state);
        }
        let (since, looks) = self.missing.entry(node.clone()).or_insert((Instant::now(), 0));
        *looks += 1;
        (*looks >= LOOKS && since.elapsed() >= self.config.grace_period).then_some(state)
    }

    async fn record(
        &mut self,
        node: &NodeId,
        provided: &Provided,
        state: Availability,
        last: u64,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        info!(%node, provider = provided.provider, ?state, "a provider says something else");
        let changed = NodeAvailabilityChanged {
            node: node.clone(),
            provider: provided.provider.clone(),
            instance: provided.instance.to_string(),
            state,
        };
        self.catalogue.record(vec![Record::after(changed, last)], cx.now()).await?;
        self.changes += 1;
        Ok(())
    }

    async fn alarm(
        &mut self,
        node: &NodeId,
        provided: &Provided,
        state: Option<Availability>,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        let Provided { provider, instance, .. } = provided;
        let sentence = (state == Some(Availability::Gone)).then(|| {
            format!("{provider} has {instance} no more, the machine of node {node}: `ringrift node remove` if it stays so")
        });
        let alarm = format!("machine.{node}");
        self.alarms.set(&self.catalogue, &alarm, sentence, cx.now()).await?;
        Ok(())
    }
}

/// Is the row about this machine? A node may have got another.
fn is_of(row: &AvailabilityRow, provided: &Provided) -> bool {
    row.provider == provided.provider && row.instance == provided.instance.as_str()
}

/// Asks each provider once, all at the same time.
async fn ask(machines: &Machines) -> BTreeMap<String, Result<Listing, ProviderError>> {
    let mut asking = JoinSet::new();
    for (name, guard) in machines.providers() {
        let (name, guard) = (name.to_owned(), Arc::clone(guard));
        asking.spawn(async move { (name, guard.list().await) });
    }
    asking.join_all().await.into_iter().collect()
}

/// What a look says of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Is(Availability),
    /// The provider has it no more.
    Missing,
    /// Nothing can be said.
    Nothing,
}

/// The whole policy of one look, pure.
fn seen(standing: &Standing) -> Seen {
    match standing {
        Standing::Listed(State::Running) => Seen::Is(Availability::Running),
        Standing::Listed(State::Starting) => Seen::Is(Availability::Starting),
        Standing::Listed(State::Stopping | State::Stopped) => Seen::Is(Availability::Offline),
        Standing::Listed(State::Gone) | Standing::Absent => Seen::Missing,
        Standing::Listed(State::Unknown) | Standing::Untold(_) => Seen::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use hosts::{Budget, Guard, Programs, Reach};

    use super::*;
    use crate::{
        Machine,
        alarms::alarm_of,
        testbed::{Bed, done, stops_in_mid_cycle},
    };

    #[test]
    fn only_a_whole_listing_without_it_says_that_a_machine_is_missing() {
        for (standing, expected) in [
            (Standing::Listed(State::Running), Seen::Is(Availability::Running)),
            (Standing::Listed(State::Starting), Seen::Is(Availability::Starting)),
            (Standing::Listed(State::Stopping), Seen::Is(Availability::Offline)),
            (Standing::Listed(State::Stopped), Seen::Is(Availability::Offline)),
            (Standing::Listed(State::Gone), Seen::Missing),
            (Standing::Absent, Seen::Missing),
            (Standing::Listed(State::Unknown), Seen::Nothing),
            (Standing::Untold("the listing is empty"), Seen::Nothing),
        ] {
            assert_eq!(seen(&standing), expected, "{standing:?}");
        }
    }

    /// A cluster of which `a` and `b` are members; `c` is only in the configuration.
    struct Scene {
        bed: Bed,
        machines: Machines,
    }

    impl Scene {
        async fn new() -> Self {
            let bed = Bed::new().await.in_a_cluster();
            bed.node("a").await;
            bed.node("b").await;
            let programs = Programs {
                list: vec!["/bin/sh".into(), bed.data().join("list").to_str().unwrap().into()],
                start: None,
                stop: None,
                reboot: None,
                limit: Duration::from_secs(10),
            };
            let guard =
                Arc::new(Guard::new(programs, true, Budget { actions: 0, per_instance: 0 }));
            let machine = |name: &str| {
                let provided = Provided {
                    provider: "cupboard".into(),
                    instance: format!("i-{name}").parse().unwrap(),
                    guard: Arc::clone(&guard),
                };
                let provided = Some(provided);
                (NodeId(name.into()), Machine { reach: Reach::Here, restart: None, provided })
            };
            let machines = Machines::new(["a", "b", "c"].map(machine).into());
            Self { bed, machines }
        }

        fn lists(&self, instances: &[(&str, &str)]) {
            let each = instances
                .iter()
                .map(|(id, state)| format!(r#"{{"id": "{id}", "state": "{state}"}}"#));
            let each: Vec<String> = each.collect();
            self.says(&format!("echo '{{\"instances\": [{}]}}'", each.join(", ")));
        }

        fn says(&self, text: &str) {
            let path = self.bed.data().join("list");
            let aside = path.with_extension("new");
            fs_err::write(&aside, format!("{text}\n")).unwrap();
            fs_err::rename(&aside, &path).unwrap();
        }

        fn daemon(&self, grace_period: Duration) -> NodeAvailability {
            let catalogue = self.bed.catalogue_of::<NodeAvailability>();
            let ports = (catalogue, self.bed.the_loop.clone(), self.machines.clone());
            NodeAvailability::new(Config { grace_period }, ports)
        }
    }

    #[tokio::test]
    async fn what_a_provider_says_is_told_when_it_changes() {
        let scene = Scene::new().await;
        let mut daemon = scene.daemon(Duration::ZERO);
        let (cx, _probe) = scene.bed.cx::<NodeAvailability>();
        scene.lists(&[
            ("i-a", "running"),
            ("i-b", "starting"),
            ("i-x", "running"),
            ("i-y", "gone"),
        ]);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(
            status.machines,
            [("a".into(), Availability::Running), ("b".into(), Availability::Starting)].into()
        );
        assert_eq!(status.strangers, ["c"]);
        assert_eq!(status.unclaimed, ["cupboard/i-x"]);
        assert_eq!(status.providers["cupboard"], "lists 4");
        let facts = scene.bed.facts().await;
        assert_eq!(done(daemon.cycle(&cx).await).changes, 2);
        assert_eq!(scene.bed.facts().await, facts, "a second cycle finds nothing to tell");
        scene.lists(&[("i-a", "stopped"), ("i-b", "running")]);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.machines["a"], Availability::Offline, "at once");
        assert_eq!(status.changes, 4);
    }

    #[tokio::test]
    async fn an_outage_an_empty_list_and_garbage_change_nothing() {
        let scene = Scene::new().await;
        let mut daemon = scene.daemon(Duration::ZERO);
        let (cx, _probe) = scene.bed.cx::<NodeAvailability>();
        scene.lists(&[("i-a", "running"), ("i-b", "running")]);
        let before = done(daemon.cycle(&cx).await).machines;
        let facts = scene.bed.facts().await;
        for (says, is_silent) in [
            ("exit 1", true),
            ("true", true),
            ("echo '{}'", true),
            ("echo '<html>'", true),
            ("echo '{\"error\": \"rate limit\"}'", true),
            ("echo '{\"instances\": []}'", false),
            (
                "echo '{\"instances\": [{\"id\": \"i-x\", \"state\": \"running\"}], \"partial\": true}'",
                false,
            ),
            (
                "echo '{\"instances\": [{\"id\": \"i-a\", \"state\": \"idle\"}], \"partial\": true}'",
                false,
            ),
        ] {
            scene.says(says);
            for _ in 0..3 {
                let status = done(daemon.cycle(&cx).await);
                assert_eq!(status.machines, before, "{says}");
                assert_eq!(!status.silent.is_empty(), is_silent, "{says}");
                let is_degraded = matches!(daemon.health(&status), Health::Degraded(_));
                assert_eq!(is_degraded, is_silent, "{says}");
            }
        }
        assert_eq!(scene.bed.facts().await, facts);
    }

    #[tokio::test]
    async fn a_machine_is_gone_after_its_grace_and_has_it_whole_again_when_it_came_back() {
        let scene = Scene::new().await;
        let bed = &scene.bed;
        let mut daemon = scene.daemon(Duration::ZERO);
        let (cx, _probe) = bed.cx::<NodeAvailability>();
        let mut a = async |state: Option<&str>| {
            let all = [("i-b", "running"), ("i-a", state.unwrap_or("-"))];
            scene.lists(&all[..if state.is_some() { 2 } else { 1 }]);
            done(daemon.cycle(&cx).await).machines["a"]
        };
        assert_eq!(a(Some("running")).await, Availability::Running);
        // It flaps.
        assert_eq!(a(None).await, Availability::Running, "one look is none");
        assert_eq!(a(Some("running")).await, Availability::Running);
        assert_eq!(a(Some("gone")).await, Availability::Running);
        assert_eq!(a(Some("unknown")).await, Availability::Running);
        assert_eq!(a(None).await, Availability::Gone);
        let alarm = alarm_of(&bed.catalogue, "machine.a").await.unwrap().unwrap().0;
        assert!(alarm.starts_with("cupboard has i-a no more"), "{alarm}");
        assert_eq!(a(None).await, Availability::Gone);
        assert_eq!(a(Some("running")).await, Availability::Running);
        assert_eq!(alarm_of(&bed.catalogue, "machine.a").await.unwrap(), None);
        assert_eq!(a(None).await, Availability::Running, "the grace is whole again");

        let mut patient = scene.daemon(Duration::from_hours(1));
        for _ in 0..4 {
            assert_eq!(done(patient.cycle(&cx).await).machines["a"], Availability::Running);
        }

        // What the alarm recommends ends it.
        assert_eq!(a(None).await, Availability::Gone);
        let node = NodeId("a".into());
        bed.record(vec![ringrift_pipeline::NodeRemoved { node }.into()]).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.strangers.len(), status.machines.len()), (2, 1));
        assert_eq!(alarm_of(&bed.catalogue, "machine.a").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_machine_alone_and_one_without_providers_have_nothing_to_follow() {
        let alone = Bed::new().await;
        for (bed, idle) in [
            (alone, "this machine is alone"),
            (Bed::new().await.in_a_cluster(), "no machine of the configuration has a provider"),
        ] {
            let catalogue = bed.catalogue_of::<NodeAvailability>();
            let ports = (catalogue, bed.the_loop.clone(), Machines::default());
            let mut daemon = NodeAvailability::new(Config::default(), ports);
            let (cx, _probe) = bed.cx::<NodeAvailability>();
            let status = done(daemon.cycle(&cx).await);
            assert_eq!(status.idle, Some(idle));
            assert_eq!(daemon.health(&status), Health::Healthy);
        }
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_tells_nothing() {
        let scene = Scene::new().await;
        scene.lists(&[("i-a", "running")]);
        stops_in_mid_cycle(&scene.bed, scene.daemon(Duration::ZERO)).await;
    }
}
