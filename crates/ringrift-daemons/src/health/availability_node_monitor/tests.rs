use std::os::unix::fs::PermissionsExt as _;

use hosts::{Budget, Guard, Programs, Ssh};
use ringrift_pipeline::NodeDrained;

use super::*;
use crate::{
    Provided,
    testbed::{Bed, done, stops_in_mid_cycle},
};

fn fault(lease: bool, command: bool, provider: bool) -> Look {
    let words = |bad: bool| {
        if bad { Answer::Fault("bad".into()) } else { Answer::Fine("fine".into()) }
    };
    Look {
        lease: lease.then(|| "bad".to_owned()),
        deep: Some(Deep { command: words(command), provider: words(provider) }),
    }
}

#[test]
fn the_first_layer_that_fails_is_told_after_three_looks_in_a_row_and_its_end_after_that() {
    let check = |before: u32, failed, look: &Look, expected| {
        assert_eq!(verdict(before, failed, look, 3), expected, "{before} {failed:?} {look:?}");
    };
    let fine = fault(false, false, false);
    check(0, None, &fine, (0, News::None));
    check(2, None, &fine, (0, News::None));
    check(0, None, &fault(true, true, true), (1, News::None));
    check(1, None, &fault(true, true, true), (2, News::None));
    check(2, None, &fault(true, true, true), (3, News::Unhealthy(Layer::Lease)));
    check(2, None, &fault(false, true, true), (3, News::Unhealthy(Layer::Command)));
    check(2, None, &fault(false, false, true), (3, News::Unhealthy(Layer::Provider)));
    // It is told once, and an end only after a beginning.
    check(3, Some(Layer::Lease), &fault(true, true, true), (4, News::None));
    check(9, Some(Layer::Lease), &fine, (0, News::Recovered));
    check(0, Some(Layer::Command), &fine, (0, News::Recovered));
    // A lease that moves says nothing of a machine that takes no commands.
    let shallow = Look::default();
    check(9, Some(Layer::Lease), &shallow, (0, News::Recovered));
    check(9, Some(Layer::Command), &shallow, (9, News::None));
    check(2, None, &shallow, (0, News::None));
}

#[test]
fn nothing_that_could_not_be_asked_is_a_fault() {
    let check = |standing, is_fault| {
        let answer = provider("cupboard", &standing);
        assert_eq!(matches!(answer, Answer::Fault(_)), is_fault, "{answer:?}");
    };
    check(Standing::Listed(State::Running), false);
    check(Standing::Listed(State::Unknown), false);
    check(Standing::Untold("the listing is empty"), false);
    for state in [State::Starting, State::Stopping, State::Stopped, State::Gone] {
        check(Standing::Listed(state), true);
    }
    check(Standing::Absent, true);
}

/// A cluster with the nodes `a` and `b`, whose machines are scripts.
struct Scene {
    bed: Bed,
    nodes: [NodeId; 2],
    machines: Machines,
}

impl Scene {
    async fn new() -> Self {
        let bed = Bed::new().await.in_a_cluster();
        let nodes = [bed.node("a").await, bed.node("b").await];
        let at = |name: &str| bed.data().join(name).to_str().unwrap().to_owned();
        let programs = Programs {
            list: vec!["/bin/sh".into(), at("list")],
            start: None,
            stop: None,
            reboot: None,
            limit: Duration::from_secs(10),
        };
        let guard = Arc::new(Guard::new(programs, true, Budget { actions: 0, per_instance: 0 }));
        let machine = |instance: &str| Machine {
            reach: Reach::Ssh(Ssh::to(instance).unwrap().by(at("ssh"))),
            restart: None,
            provided: Some(Provided {
                provider: "cupboard".into(),
                instance: instance.parse().unwrap(),
                guard: Arc::clone(&guard),
            }),
        };
        let [a, b] = nodes.clone();
        let machines = Machines::new([(a, machine("i-1")), (b, machine("i-2"))].into());
        let scene = Self { bed, nodes, machines };
        scene.script("ssh", "echo ssh >>\"$0.notes\"");
        let running = r#"{"id": "i-1", "state": "running"}, {"id": "i-2", "state": "running"}"#;
        scene.script("list", &format!("echo '{{\"instances\": [{running}]}}'"));
        scene
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.bed.data().join(name);
        let aside = path.with_extension("new");
        fs_err::write(&aside, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs_err::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).unwrap();
        fs_err::rename(&aside, &path).unwrap();
    }

    fn daemon(&self, deep_interval: Duration) -> AvailabilityNodeMonitor {
        let config = Config { deep_interval, ..Config::default() };
        let catalogue = self.bed.catalogue_of::<AvailabilityNodeMonitor>();
        let ports = (catalogue, self.bed.the_loop.clone(), self.machines.clone());
        AvailabilityNodeMonitor::new(config, ports)
    }

    fn sees(&self, a: u64, b: u64) {
        self.bed.sees_nodes(&[(&self.nodes[0], a), (&self.nodes[1], b)]);
    }

    async fn told(&self) -> Vec<String> {
        let topics = self.bed.topics().await;
        topics.into_iter().filter(|topic| topic != "node.joined").collect()
    }
}

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_silent_node_is_unhealthy_at_the_third_look_and_recovered_when_its_lease_moves() {
    let scene = Scene::new().await;
    let mut daemon = scene.daemon(HOUR);
    let (cx, _probe) = scene.bed.cx::<AvailabilityNodeMonitor>();
    scene.sees(40, 0);
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.nodes, status.machines), (2, 2));
    assert_eq!(status.suspects, BTreeMap::from([("a".into(), 1)]));
    assert_eq!(daemon.health(&status), Health::Healthy, "a suspect is not unhealthy");
    assert_eq!(done(daemon.cycle(&cx).await).machines, 1, "what is wrong is looked at again");
    assert_eq!(scene.told().await, Vec::<String>::new());
    let status = done(daemon.cycle(&cx).await);
    let why = status.unhealthy["a"].clone();
    assert!(why.starts_with("its lease has stood still for 4"), "{why}");
    assert!(why.ends_with("; its machine takes commands; cupboard says that it runs"), "{why}");
    assert_eq!(daemon.health(&status), Health::Degraded(format!("a: {why}")));
    for _ in 0..3 {
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(
            (status.machines, status.unhealthy.len()),
            (0, 1),
            "what is known costs nothing"
        );
    }
    assert_eq!(scene.told().await, ["node.unhealthy"]);
    scene.sees(0, 0);
    done(daemon.cycle(&cx).await);
    let status = done(daemon.cycle(&cx).await);
    assert_eq!(status.unhealthy, BTreeMap::new());
    assert_eq!(scene.told().await, ["node.unhealthy", "node.recovered"]);
}

#[tokio::test]
async fn a_machine_that_takes_no_commands_is_a_fault_and_a_provider_that_is_away_is_none() {
    let scene = Scene::new().await;
    scene.script("ssh", "case \"$*\" in *i-2*) echo 'ssh: No route to host' >&2; exit 255; esac");
    scene.script("list", "echo 'rate limit' >&2; exit 1");
    scene.sees(0, 0);
    let mut daemon = scene.daemon(HOUR);
    let (cx, _probe) = scene.bed.cx::<AvailabilityNodeMonitor>();
    for _ in 0..2 {
        done(daemon.cycle(&cx).await);
    }
    let status = done(daemon.cycle(&cx).await);
    assert_eq!(status.unhealthy.keys().collect::<Vec<_>>(), ["b"]);
    assert!(status.unhealthy["b"].contains("i-2 cannot be reached: ssh: No route to host"));
    assert!(status.unhealthy["b"].contains("cupboard: the provider could not be asked"));
    // It is looked at again only after a while, and is not well before that.
    scene.script("ssh", "true");
    assert_eq!(done(daemon.cycle(&cx).await).unhealthy.len(), 1);
    daemon.config.deep_interval = Duration::ZERO;
    assert_eq!(done(daemon.cycle(&cx).await).unhealthy.len(), 0);
    assert_eq!(scene.told().await, ["node.unhealthy", "node.recovered"]);
}

#[tokio::test]
async fn a_flapping_node_is_not_told_and_a_machine_that_vanished_is() {
    let scene = Scene::new().await;
    let mut daemon = scene.daemon(Duration::ZERO);
    let (cx, _probe) = scene.bed.cx::<AvailabilityNodeMonitor>();
    scene.sees(0, 0);
    let gone = "echo '{\"instances\": [{\"id\": \"i-2\", \"state\": \"running\"}]}'";
    let both = "echo '{\"instances\": [{\"id\": 2, \"state\": \"gone\"}], \"partial\": true}'";
    for look in 0..6 {
        scene.script("list", if look % 3 == 2 { both } else { gone });
        done(daemon.cycle(&cx).await);
    }
    assert_eq!(scene.told().await, Vec::<String>::new());
    scene.script("list", gone);
    for _ in 0..3 {
        done(daemon.cycle(&cx).await);
    }
    assert_eq!(scene.told().await, ["node.unhealthy"]);
    let row = scene.bed.catalogue.node_health().await.unwrap().remove(0);
    assert_eq!((row.node.0.as_str(), row.failed), ("a", Some(Layer::Provider)));
}

#[tokio::test]
async fn nodes_that_are_drained_or_ended_in_good_order_are_not_looked_at() {
    let scene = Scene::new().await;
    let drained = NodeDrained { node: scene.nodes[0].clone(), draining: true };
    scene.bed.record(vec![drained.into()]).await;
    scene.bed.sees_nodes(&[(&scene.nodes[0], 100)]);
    let mut daemon = scene.daemon(HOUR);
    let (cx, _probe) = scene.bed.cx::<AvailabilityNodeMonitor>();
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.nodes, status.idle), (0, Some("no other node runs")));
}

#[tokio::test]
async fn a_machine_alone_and_a_stop_in_the_middle() {
    let bed = Bed::new().await;
    let ports =
        (bed.catalogue_of::<AvailabilityNodeMonitor>(), bed.the_loop.clone(), Machines::default());
    let mut daemon = AvailabilityNodeMonitor::new(Config::default(), ports);
    let (cx, _probe) = bed.cx::<AvailabilityNodeMonitor>();
    assert_eq!(done(daemon.cycle(&cx).await).idle, Some("this machine is alone"));
    let scene = Scene::new().await;
    scene.sees(100, 100);
    stops_in_mid_cycle(&scene.bed, scene.daemon(HOUR)).await;
}
