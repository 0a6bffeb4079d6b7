use std::{os::unix::fs::PermissionsExt as _, path::Path};

use hosts::{Budget, Guard, Programs, Reach, Ssh};
use ringrift_pipeline::{NodeDrained, NodeRemoved};

use super::*;
use crate::{
    Machine, Provided,
    alarms::alarm_of,
    testbed::{Bed, Street, done, stops_in_mid_cycle},
};

const DOWN: u64 = 200;

fn row(step: RecoveryStep, attempt: u32, outcome: Option<RecoveryOutcome>) -> RecoveryRow {
    RecoveryRow {
        node: NodeId("there".into()),
        is_open: true,
        step,
        attempt,
        outcome,
        sentence: "-".into(),
        position: 1,
        began_ms: 0,
        changed_ms: 0,
    }
}

#[test]
fn the_ladder_repeats_each_mild_step_before_the_next_harder_one() {
    use RecoveryOutcome::{Done, Dry, Failed, Held, Unsupported};
    use RecoveryStep::{GiveUp, Notify, Reboot, Restart};
    let config = Config::default();
    let check = |last: (RecoveryStep, u32, Option<RecoveryOutcome>), seconds, then| {
        let (step, attempt, outcome) = last;
        let found = ladder(&row(step, attempt, outcome), &config);
        assert_eq!(found, (Duration::from_secs(seconds), then), "{last:?}");
    };
    check((Notify, 1, Some(Done)), 60, Some((Restart, 1)));
    check((Restart, 1, Some(Done)), 300, Some((Restart, 2)));
    check((Restart, 2, Some(Failed)), 300, Some((Restart, 3)));
    check((Restart, 3, Some(Failed)), 300, Some((Reboot, 1)));
    check((Restart, 1, Some(Unsupported)), 0, Some((Reboot, 1)));
    // Whoever took it was cut off: it may have been done.
    check((Restart, 1, None), 300, Some((Restart, 2)));
    check((Reboot, 1, Some(Done)), 900, Some((Reboot, 2)));
    check((Reboot, 1, Some(Held)), 900, Some((Reboot, 1)));
    check((Reboot, 1, Some(Dry)), 900, Some((Reboot, 2)));
    check((Reboot, 2, Some(Done)), 900, Some((GiveUp, 1)));
    check((Reboot, 1, Some(Unsupported)), 0, Some((GiveUp, 1)));
    check((GiveUp, 1, Some(Done)), 0, None);
    let none = Config { restarts: 0, ..Config::default() };
    assert_eq!(above(Notify, &none), Reboot);
    assert_eq!(above(Notify, &Config { reboots: 0, ..none }), GiveUp);
}

#[test]
fn only_a_lease_that_stands_still_is_a_reason_and_only_one_that_moves_is_the_end() {
    let config = Config::default();
    let member = |draining| NodeRow {
        node: NodeId("there".into()),
        peer: String::new(),
        addresses: Vec::new(),
        role: String::new(),
        version: String::new(),
        speaks: 1,
        slots: 1,
        playing: 1,
        can: None,
        position: 1,
        since_ms: 0,
        draining,
        removed: false,
    };
    let (works, drained) = (member(false), member(true));
    let still = |seconds| Sight::Still(Duration::from_secs(seconds));
    let open = row(RecoveryStep::Restart, 1, Some(RecoveryOutcome::Done));
    let closed = RecoveryRow { is_open: false, ..open.clone() };
    let long = Duration::from_hours(1);
    let check = |member, sight, row, waited, expected| {
        assert_eq!(next(member, sight, row, waited, &config), expected, "{sight:?}");
    };
    let end = |why: &str| Next::End(why.into());
    for calm in [None, Some(&closed)] {
        check(Some(&works), Sight::Untold, calm, long, Next::Nothing);
        check(Some(&works), Sight::Left, calm, long, Next::Nothing);
        check(Some(&works), still(0), calm, long, Next::Nothing);
        check(Some(&works), still(119), calm, long, Next::Nothing);
        check(Some(&works), still(120), calm, Duration::ZERO, Next::Take(RecoveryStep::Notify, 1));
        check(Some(&drained), still(900), calm, long, Next::Nothing);
        check(None, still(900), calm, long, Next::Nothing);
    }
    let open = Some(&open);
    check(Some(&works), Sight::Untold, open, long, Next::Nothing);
    check(Some(&works), Sight::Left, open, long, end("it ended in good order"));
    check(Some(&works), still(14), open, Duration::ZERO, end("its lease moves again"));
    check(Some(&works), still(15), open, long, Next::Wait);
    check(Some(&works), still(600), open, Duration::from_secs(299), Next::Wait);
    let again = Next::Take(RecoveryStep::Restart, 2);
    check(Some(&works), still(600), open, Duration::from_mins(5), again);
    let in_hand = end("it is drained: who did that has it in hand");
    check(Some(&drained), still(600), open, long, in_hand);
    check(None, still(600), open, long, end("it is no member any more"));
}

/// A command that runs this, as a shell or as a program of its own.
fn script(path: &Path, text: &str) -> Vec<String> {
    let aside = path.with_extension("new");
    fs_err::write(&aside, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs_err::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).unwrap();
    fs_err::rename(&aside, path).unwrap();
    ["/bin/sh", path.to_str().unwrap()].map(str::to_owned).to_vec()
}

/// A node `there` of a cluster, whose machine has scripts for everything that note what they do in a file.
struct Scene {
    bed: Bed,
    there: NodeId,
    machines: Machines,
}

impl Scene {
    async fn new(is_dry: bool) -> Self {
        let bed = Bed::new().await.in_a_cluster();
        let there = bed.node("there").await;
        let at = |name: &str| bed.data().join(name);
        let notes = at("notes");
        let note = |word: &str| format!("echo {word} \"$@\" >>{}", notes.display());
        let listing = r#"{"instances": [{"id": "i-1", "state": "running"}]}"#;
        let programs = Programs {
            list: script(&at("list"), &format!("echo '{listing}'")),
            start: None,
            stop: None,
            reboot: Some(script(&at("reboot"), &note("reboot"))),
            limit: Duration::from_secs(10),
        };
        let guard = Guard::new(programs, is_dry, Budget { actions: 2, per_instance: 1 });
        let machine = Machine {
            reach: Reach::Here,
            restart: Some(script(&at("restart"), &note("restart"))),
            provided: Some(Provided {
                provider: "cupboard".into(),
                instance: "i-1".parse().unwrap(),
                guard: Arc::new(guard),
            }),
        };
        let machines = Machines::new([(there.clone(), machine)].into());
        Self { bed, there, machines }
    }

    fn daemon(&self, config: Config) -> NodeRecovery {
        let catalogue = self.bed.catalogue_of::<NodeRecovery>();
        let (the_loop, machines) = (self.bed.the_loop.clone(), self.machines.clone());
        NodeRecovery::new(config, (catalogue, the_loop, machines, Neighbours::default()))
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.bed.data().join(name)
    }

    /// What was done to the machine.
    fn notes(&self) -> String {
        let notes = self.at("notes");
        if notes.exists() { fs_err::read_to_string(notes).unwrap() } else { String::new() }
    }

    /// The steps that the log tells, from the one of this number on.
    async fn told(&self, from: usize) -> Vec<String> {
        let log = self.bed.catalogue.log();
        let facts = log.read(courier::Stream::Pipeline, 0, 1000).await.unwrap();
        let of_it = facts.iter().filter(|fact| fact.subject == "recovery.there");
        let told = of_it.map(|fact| {
            let body = &fact.body;
            let word = |key: &str| body[key].as_str().unwrap_or("-").to_owned();
            let topic = word("topic").replace("recovery.", "");
            match topic.as_str() {
                "ended" => format!("ended: {}", word("sentence")),
                "begun" => format!("begun {} {}", word("step"), body["attempt"]),
                _ => format!("{} {} {}", word("step"), body["attempt"], word("outcome")),
            }
        });
        told.skip(from).collect()
    }
}

/// No waits between steps.
fn at_once() -> Config {
    let none = Duration::ZERO;
    Config { notify_wait: none, restart_wait: none, reboot_wait: none, ..Config::default() }
}

#[tokio::test]
async fn a_silent_node_is_told_restarted_rebooted_within_the_budget_and_back_when_its_lease_moves()
{
    let scene = Scene::new(false).await;
    let bed = &scene.bed;
    let mut daemon = scene.daemon(Config { restarts: 2, ..at_once() });
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&[(&scene.there, DOWN)]);
    let status = done(daemon.cycle(&cx).await);
    let sentence = &status.down["there"].sentence;
    assert!(sentence.starts_with("its lease has stood still for 20"), "{sentence}");
    assert!(matches!(daemon.health(&status), Health::Degraded(_)));
    let alarm = alarm_of(&bed.catalogue, "node.there").await.unwrap().unwrap();
    assert_eq!(alarm.0, format!("there is down: {sentence}"));
    assert_eq!(scene.notes(), "", "people first");
    for _ in 0..3 {
        done(daemon.cycle(&cx).await);
    }
    assert_eq!(scene.notes(), "restart\nrestart\nreboot i-1\n");
    let before = scene.told(0).await;
    assert_eq!(
        before,
        [
            "notify 1 done",
            "begun restart 1",
            "restart 1 done",
            "begun restart 2",
            "restart 2 done",
            "begun reboot 1",
            "reboot 1 done",
        ]
    );
    let status = done(daemon.cycle(&cx).await);
    let over = "cupboard: 1 actions within an hour are all that is allowed on i-1";
    assert_eq!(status.down["there"].sentence, over);
    assert_eq!(scene.told(7).await, ["reboot 2 held"]);
    let facts = bed.facts().await;
    done(daemon.cycle(&cx).await);
    assert_eq!(bed.facts().await, facts, "the same obstacle is told once");

    bed.sees_nodes(&[(&scene.there, 0)]);
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.down.len(), status.ended), (0, 1));
    assert_eq!(daemon.health(&status), Health::Healthy);
    assert_eq!(scene.told(8).await, ["ended: its lease moves again"]);
    assert_eq!(alarm_of(&bed.catalogue, "node.there").await.unwrap(), None);
    let facts = bed.facts().await;
    done(daemon.cycle(&cx).await);
    assert_eq!(bed.facts().await, facts, "a second cycle finds nothing to do");
    assert_eq!(scene.notes(), "restart\nrestart\nreboot i-1\n");
}

#[tokio::test]
async fn a_step_gets_its_time_also_from_the_next_leader_who_counts_what_was_asked_before() {
    let scene = Scene::new(false).await;
    let bed = &scene.bed;
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&[(&scene.there, DOWN)]);
    let mut first = scene.daemon(Config { restarts: 0, ..at_once() });
    done(first.cycle(&cx).await);
    done(first.cycle(&cx).await);
    assert_eq!(scene.notes(), "reboot i-1\n");
    // Another process: a guard that knows of nothing, and a clock that is years away.
    let elsewhere = Scene::new(false).await;
    bed.pass_time(Duration::from_hours(50_000));
    let ports = (
        bed.catalogue_of::<NodeRecovery>(),
        bed.the_loop.clone(),
        elsewhere.machines.clone(),
        Neighbours::default(),
    );
    let mut second = NodeRecovery::new(Config { restarts: 0, ..Config::default() }, ports);
    done(second.cycle(&cx).await);
    assert_eq!(second.status.steps, 0, "it waits as long as if that were now");
    second.config.reboot_wait = Duration::ZERO;
    let status = done(second.cycle(&cx).await);
    assert!(status.down["there"].sentence.contains("are all that is allowed on i-1"), "{status:?}");
    assert_eq!(elsewhere.notes(), "");
}

#[tokio::test]
async fn a_dry_run_climbs_the_ladder_and_does_nothing_at_the_provider() {
    let scene = Scene::new(true).await;
    let bed = &scene.bed;
    let mut daemon = scene.daemon(Config { restarts: 0, ..at_once() });
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&[(&scene.there, DOWN)]);
    for _ in 0..6 {
        done(daemon.cycle(&cx).await);
    }
    let told = scene.told(0).await;
    assert_eq!(told, ["notify 1 done", "reboot 1 dry", "reboot 2 dry", "give_up 1 done"]);
    assert_eq!(scene.notes(), "");
    let status = daemon.status.clone();
    assert!(daemon.health(&status).message().unwrap().contains("nothing more is tried"));
}

#[tokio::test]
async fn where_nothing_says_how_people_are_told_and_that_is_all() {
    let scene = Scene::new(false).await;
    let bed = &scene.bed;
    let ports = (
        bed.catalogue_of::<NodeRecovery>(),
        bed.the_loop.clone(),
        Machines::default(),
        Neighbours::default(),
    );
    let mut daemon = NodeRecovery::new(at_once(), ports);
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&[(&scene.there, DOWN)]);
    for _ in 0..5 {
        done(daemon.cycle(&cx).await);
    }
    let told = scene.told(0).await;
    assert_eq!(
        told,
        ["notify 1 done", "restart 1 unsupported", "reboot 1 unsupported", "give_up 1 done"]
    );
}

#[tokio::test]
async fn a_command_that_fails_and_a_provider_that_cannot_be_asked_are_told_apart() {
    let scene = Scene::new(false).await;
    let bed = &scene.bed;
    script(&scene.at("restart"), "echo 'Unit not found.' >&2; exit 5");
    script(&scene.at("list"), "exit 1");
    let mut daemon = scene.daemon(Config { restarts: 1, ..at_once() });
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&[(&scene.there, DOWN)]);
    done(daemon.cycle(&cx).await);
    let failed = done(daemon.cycle(&cx).await).down["there"].clone();
    assert_eq!(failed.outcome, Some(RecoveryOutcome::Failed));
    assert!(failed.sentence.ends_with("exit code 5: Unit not found."), "{failed:?}");
    let held = done(daemon.cycle(&cx).await).down["there"].clone();
    assert_eq!((held.outcome, held.attempt), (Some(RecoveryOutcome::Held), 1));
    assert!(held.sentence.starts_with("cupboard: the provider could not be asked"), "{held:?}");

    // It answers, and has no such machine: that is a failure, and uses up the attempts.
    script(
        &scene.at("list"),
        "echo '{\"instances\": [{\"id\": \"i-2\", \"state\": \"running\"}]}'",
    );
    let absent = done(daemon.cycle(&cx).await).down["there"].clone();
    assert_eq!(absent.outcome, Some(RecoveryOutcome::Failed));
    assert_eq!(absent.sentence, "cupboard: the provider does not list i-1");
    script(
        &scene.at("list"),
        "echo '{\"instances\": [{\"id\": \"i-1\", \"state\": \"starting\"}]}'",
    );
    let starting = done(daemon.cycle(&cx).await).down["there"].clone();
    assert_eq!((starting.outcome, starting.attempt), (Some(RecoveryOutcome::Held), 2));
    assert_eq!(scene.notes(), "");
}

#[tokio::test]
async fn a_machine_that_ssh_does_not_reach_is_a_failed_step() {
    let scene = Scene::new(false).await;
    let bed = &scene.bed;
    let ssh = script(&scene.at("ssh"), "echo 'ssh: No route to host' >&2; exit 255");
    let machine = Machine {
        reach: Reach::Ssh(Ssh::to("gpu-a").unwrap().by(ssh[1].clone())),
        restart: Some(vec!["systemctl".into(), "restart".into(), "x".into()]),
        provided: None,
    };
    let machines = Machines::new([(scene.there.clone(), machine)].into());
    let ports =
        (bed.catalogue_of::<NodeRecovery>(), bed.the_loop.clone(), machines, Neighbours::default());
    let mut daemon = NodeRecovery::new(at_once(), ports);
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&[(&scene.there, DOWN)]);
    done(daemon.cycle(&cx).await);
    let down = done(daemon.cycle(&cx).await).down["there"].clone();
    assert_eq!(down.sentence, "gpu-a cannot be reached: ssh: No route to host");
}

#[tokio::test]
async fn a_node_that_is_drained_put_out_or_ended_in_good_order_is_left_alone() {
    let scene = Scene::new(false).await;
    let bed = &scene.bed;
    let there = scene.there.clone();
    let mut daemon = scene.daemon(at_once());
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&[(&there, DOWN)]);
    done(daemon.cycle(&cx).await);
    bed.sees_nodes(&[]);
    done(daemon.cycle(&cx).await);
    bed.sees_nodes(&[(&there, DOWN)]);
    done(daemon.cycle(&cx).await);
    bed.record(vec![NodeDrained { node: there.clone(), draining: true }.into()]).await;
    done(daemon.cycle(&cx).await);
    done(daemon.cycle(&cx).await);
    bed.record(vec![NodeDrained { node: there.clone(), draining: false }.into()]).await;
    done(daemon.cycle(&cx).await);
    bed.record(vec![NodeRemoved { node: there.clone() }.into()]).await;
    done(daemon.cycle(&cx).await);
    done(daemon.cycle(&cx).await);
    assert_eq!(
        scene.told(0).await,
        [
            "notify 1 done",
            "ended: it ended in good order",
            "notify 1 done",
            "ended: it is drained: who did that has it in hand",
            "notify 1 done",
            "ended: it is no member any more",
        ]
    );
    assert_eq!(scene.notes(), "");
}

#[tokio::test]
async fn one_cycle_takes_no_more_steps_than_it_may() {
    let bed = Bed::new().await.in_a_cluster();
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        nodes.push(bed.node(name).await);
    }
    let ports = (
        bed.catalogue_of::<NodeRecovery>(),
        bed.the_loop.clone(),
        Machines::default(),
        Neighbours::default(),
    );
    let mut daemon = NodeRecovery::new(Config::default(), ports);
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&nodes.iter().map(|node| (node, DOWN)).collect::<Vec<_>>());
    assert_eq!(done(daemon.cycle(&cx).await).down.len(), 3);
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.down.len(), status.steps), (4, 4), "those before have their wait");
}

#[tokio::test]
async fn a_machine_alone_has_nobody_to_help() {
    let bed = Bed::new().await;
    let ports = (
        bed.catalogue_of::<NodeRecovery>(),
        bed.the_loop.clone(),
        Machines::default(),
        Neighbours::default(),
    );
    let mut daemon = NodeRecovery::new(Config::default(), ports);
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    let status = done(daemon.cycle(&cx).await);
    assert_eq!(status.idle, Some("this machine is alone"));
    assert_eq!(daemon.health(&status), Health::Healthy);
}

#[tokio::test]
async fn a_stop_in_the_middle_leaves_no_step_half_told() {
    let scene = Scene::new(false).await;
    scene.bed.sees_nodes(&[(&scene.there, DOWN)]);
    let daemon = scene.daemon(Config::default());
    stops_in_mid_cycle(&scene.bed, daemon).await;
}

#[tokio::test]
async fn a_node_that_answers_is_only_cut_off_and_is_not_restarted() {
    let scene = Scene::new(false).await;
    let bed = &scene.bed;
    let mut daemon = scene.daemon(at_once());
    let street = Street::default();
    street.open(bed);
    daemon.neighbours = bed.neighbours.clone();
    let (cx, _probe) = bed.cx::<NodeRecovery>();
    bed.sees_nodes(&[(&scene.there, DOWN)]);
    for _ in 0..4 {
        done(daemon.cycle(&cx).await);
    }
    assert_eq!(scene.told(0).await, ["notify 1 done", "restart 1 held"], "told once");
    assert_eq!(daemon.status.down["there"].sentence, CUT_OFF);
    assert_eq!(scene.notes(), "");
    street.leaves("there");
    done(daemon.cycle(&cx).await);
    assert_eq!(scene.notes(), "restart\n");
}
