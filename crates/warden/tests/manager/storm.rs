//! Everything falls all the time, and nothing is lost, doubled or left behind.

use std::{collections::BTreeSet, time::Duration};

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{task::JoinSet, time::Instant};
use warden::{
    Clock, Cx, Daemon, DaemonId, Health, RestartPolicy, Runnable, Settings, Snapshot, Spec, State,
    Supervisor,
    worker::{WorkerSpec, Workers},
};

use crate::{
    chance::{Step, World},
    oracle::Fate,
};

const DAEMONS: usize = 89;
const FALLS: usize = 1000;
const PARENTS: usize = 10;
const KILLS: usize = 200;
/// Longest wait for something that takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_mins(1);

/// A value of a strategy; every run of the suite sees the same ones.
fn draw<S: Strategy>(runner: &mut TestRunner, strategy: S) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

/// What a process holds: open files, threads, children.
fn holdings() -> (usize, usize, usize) {
    let count = |path: &str| fs_err::read_dir(path).unwrap().count();
    // Reading the first opens one more, each time.
    (count("/proc/self/fd"), count("/proc/self/task"), children().len())
}

fn children() -> BTreeSet<u32> {
    let tasks = fs_err::read_dir("/proc/self/task").unwrap();
    let lists = tasks.map(|task| task.unwrap().path().join("children"));
    lists
        // A thread may end between the two looks.
        .filter_map(|list| fs_err::read_to_string(list).ok())
        .flat_map(|text| {
            text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

fn zombies() -> usize {
    let states = children().into_iter().filter_map(|pid| {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit_once(')')?.1.trim_start().starts_with('Z'))
    });
    states.filter(|dead| *dead).count()
}

#[test]
fn a_thousand_falls_of_89_daemons_end_where_policy_says_with_exact_counts() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Panics of puppets are part of the play.
        if panic.payload_as_str() != Some("ordered") {
            hook(panic);
        }
    }));
    let before = holdings();
    let mut runner = TestRunner::deterministic();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let members = (0..DAEMONS).map(|at| {
            let needs = if at == 0 { Vec::new() } else { vec![draw(&mut runner, 0..at.min(9))] };
            (needs, false, draw(&mut runner, any::<bool>()))
        });
        let mut world = World::new(members.collect());
        for at in 0..DAEMONS {
            world.take(&Step::Start(at)).await;
        }
        world.check();
        let mut fallen = 0;
        while fallen < FALLS {
            let at = draw(&mut runner, 0..DAEMONS);
            let fate = draw(
                &mut runner,
                prop_oneof![
                    4 => Just(Fate::Crash),
                    3 => Just(Fate::Panic),
                    1 => Just(Fate::Sick),
                    1 => Just(Fate::Hang),
                ],
            );
            fallen += usize::from(world.take(&Step::Suffers(at, fate)).await);
            world.check();
            // A person now and then: frees what hangs, and what was given up.
            if draw(&mut runner, 0..8) == 0 {
                let at = draw(&mut runner, 0..DAEMONS);
                let asks = [Step::Restart(at), Step::Retry(at, true), Step::Start(at)];
                world.take(&asks[draw(&mut runner, 0..3_usize)]).await;
                world.check();
            }
            world.take(&Step::Wait(draw(&mut runner, 1..4_000_u64))).await;
            world.check();
        }
        world.take(&Step::Wait(7_200_000)).await;
        world.check();
        world.shut_down(None).await;
    });
    drop(runtime);
    assert_eq!(holdings(), before, "open files, threads, children");
}

/// Lives as long as its child.
struct Parent(Workers, WorkerSpec);

impl Daemon for Parent {
    const SPEC: Spec = Spec::DEFAULT;
    type Config = WorkerSpec;
    type Ports = Workers;
    type Status = u32;

    fn new(spec: WorkerSpec, workers: Workers) -> Self {
        Self(workers, spec)
    }

    async fn run(self, cx: Cx) -> anyhow::Result<()> {
        let mut child = self.0.start(self.1).await?;
        anyhow::ensure!(child.next_line().await.is_some(), "the child never spoke");
        cx.ready();
        cx.report(&child.pid(), Health::Healthy)?;
        tokio::select! {
            () = cx.stopped() => {
                child.terminate();
                child.finished().await;
                Ok(())
            }
            end = child.finished() => anyhow::bail!("the child ended: {:?}", end.exit),
        }
    }
}

#[test]
fn two_hundred_killed_children_are_replaced_and_nothing_of_them_stays() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The first child makes tokio open what it hears signals with, once for the process.
    let first = async { tokio::process::Command::new("/bin/true").status().await };
    assert!(runtime().block_on(first).unwrap().success());
    let before = holdings();
    runtime().block_on(kill_children());
    let began = Instant::now();
    while holdings() != before {
        let left = holdings();
        assert!(began.elapsed() < SOON, "open files, threads, children: {before:?}, now {left:?}");
        std::thread::yield_now();
    }
}

async fn kill_children() {
    let dir = tempfile::tempdir().unwrap();
    let workers = Workers::new(&dir.path().join("run")).unwrap();
    let house = children();
    let mut spec = WorkerSpec::new("/bin/sh", dir.path().join("work"), "{}".into());
    spec.args = vec!["-c".into(), "echo up; exec sleep 1000".into()];
    let names: Vec<DaemonId> =
        (0..PARENTS).map(|at| DaemonId(format!("PARENT_{at}").leak())).collect();
    let runnables = names.iter().map(|&id| {
        let (workers, spec) = (workers.clone(), spec.clone());
        let mut runnable = Runnable::of(move || Ok(Parent::new(spec.clone(), workers.clone())));
        runnable.spec = Box::leak(Box::new(Spec { id, ..Spec::DEFAULT }));
        runnable
    });
    let settings = Settings {
        restart: RestartPolicy {
            base: Duration::ZERO,
            cap: Duration::ZERO,
            max: u32::MAX,
            ..RestartPolicy::default()
        },
        ..Settings::new(tokio::runtime::Handle::current())
    };
    let runnables = runnables.collect();
    let (handle, drive) = Supervisor::new(runnables, settings, Clock::system()).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(drive);
    handle.start(&names).await.unwrap();
    let mut snapshots = handle.subscribe();
    let mut until = async |condition: &dyn Fn(&Snapshot) -> bool| {
        let seen = snapshots.wait_for(|snapshot| condition(snapshot));
        tokio::time::timeout(SOON, seen).await.expect("in time").unwrap().clone()
    };
    let pid = |snapshot: &Snapshot, at: usize| {
        let view = snapshot.get(names[at]).unwrap();
        (view.state == State::Running).then(|| view.details.as_u64()).flatten()
    };
    let mut runner = TestRunner::deterministic();
    let mut kills = [0_u64; PARENTS];
    for _ in 0..KILLS {
        let at = draw(&mut runner, 0..PARENTS);
        let seen = until(&|snapshot| pid(snapshot, at).is_some()).await;
        let old = pid(&seen, at).unwrap();
        let victim = Pid::from_raw(i32::try_from(old).unwrap()).unwrap();
        kill_process(victim, Signal::KILL).unwrap();
        kills[at] += 1;
        until(&|snapshot| pid(snapshot, at).is_some_and(|new| new != old)).await;
    }
    let seen = until(&|snapshot| (0..PARENTS).all(|at| pid(snapshot, at).is_some())).await;
    for (at, &killed) in kills.iter().enumerate() {
        let view = seen.get(names[at]).unwrap();
        assert_eq!((u64::from(view.restarts), view.crashes.total_restarts), (killed, killed));
    }
    assert_eq!(zombies(), 0);
    let mut expected = house;
    expected.extend((0..PARENTS).map(|at| u32::try_from(pid(&seen, at).unwrap()).unwrap()));
    assert_eq!(children(), expected, "the guardian and one child of each");
    let report = handle.shutdown().await.unwrap();
    assert_eq!((report.stopped.len(), report.aborted, report.hung), (PARENTS, vec![], vec![]));
}
