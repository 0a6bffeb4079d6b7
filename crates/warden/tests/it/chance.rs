//! Random lives of random graphs, on paused time, against the oracle.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::{prelude::*, test_runner::TestRunner};
use tokio::{sync::Notify, task::JoinSet};
use warden::{
    Clock, Cx, Daemon, DaemonId, Handle, Health, Leadership, Missing, Refusal, Runnable, Settings,
    ShutdownReport, Spec, State, Supervisor, Transition,
};

use crate::oracle::{self, Begin, Fate, Oracle, READY_WITHIN, SLOW, STOP_WITHIN};

/// Most daemons of a graph.
const MOST: usize = 6;

/// What happens next.
#[derive(Debug, Clone)]
pub enum Step {
    Start(usize),
    Stop(usize),
    Restart(usize),
    Retry(usize, bool),
    Pause(usize),
    Resume(usize),
    /// From now on its starts come to this.
    Begins(usize, Begin),
    Suffers(usize, Fate),
    Lead(bool),
    /// Milliseconds.
    Wait(u64),
}

/// One daemon: bits of the earlier ones that it needs, leader-only, slow to stop.
type Plan = (u8, bool, bool);

fn begin() -> impl Strategy<Value = Begin> {
    prop_oneof![
        4 => Just(Begin::Quick),
        2 => Just(Begin::Slow),
        1 => Just(Begin::Never),
        1 => Just(Begin::Fails),
        1 => Just(Begin::Lacks),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Crash),
        2 => Just(Fate::Panic),
        2 => Just(Fate::Sick),
        1 => Just(Fate::Finish),
        1 => Just(Fate::Hang),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..MOST;
    prop_oneof![
        6 => who().prop_map(Step::Start),
        2 => who().prop_map(Step::Stop),
        2 => who().prop_map(Step::Restart),
        2 => (who(), any::<bool>()).prop_map(|(at, force)| Step::Retry(at, force)),
        1 => who().prop_map(Step::Pause),
        1 => who().prop_map(Step::Resume),
        3 => (who(), begin()).prop_map(|(at, begin)| Step::Begins(at, begin)),
        9 => (who(), fate()).prop_map(|(at, fate)| Step::Suffers(at, fate)),
        1 => any::<bool>().prop_map(Step::Lead),
        9 => (1..20_000_u64).prop_map(Step::Wait),
        1 => (3_500_000..3_700_000_u64).prop_map(Step::Wait),
    ]
}

/// What the driver and one daemon share.
#[derive(Debug)]
struct Puppet {
    begin: Mutex<Begin>,
    stop: Duration,
    order: Mutex<Option<Fate>>,
    ordered: Notify,
    lives: AtomicU64,
    born: AtomicU64,
    ready: AtomicBool,
    /// Two tasks lived at once.
    doubled: AtomicBool,
}

/// One task of it; its end is noted however it comes.
struct Life(Arc<Puppet>);

impl Life {
    fn begin(puppet: Arc<Puppet>) -> Self {
        puppet.born.fetch_add(1, Ordering::SeqCst);
        if puppet.lives.fetch_add(1, Ordering::SeqCst) > 0 {
            puppet.doubled.store(true, Ordering::SeqCst);
        }
        Self(puppet)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.ready.store(false, Ordering::SeqCst);
        self.0.lives.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Actor(Arc<Puppet>);

impl Daemon for Actor {
    const SPEC: Spec = Spec { period: Duration::from_hours(10_000), ..Spec::DEFAULT };
    type Config = ();
    type Ports = Arc<Puppet>;
    type Status = ();

    fn new((): (), puppet: Self::Ports) -> Self {
        Self(puppet)
    }

    async fn run(self, cx: Cx) -> anyhow::Result<()> {
        let life = Life::begin(self.0);
        let puppet = &life.0;
        let begin = *puppet.begin.lock().unwrap();
        match begin {
            Begin::Quick => {}
            Begin::Slow => tokio::select! {
                () = cx.stopped() => return Ok(()),
                () = tokio::time::sleep(Duration::from_millis(SLOW)) => {}
            },
            Begin::Never => std::future::pending().await,
            Begin::Fails => anyhow::bail!("cannot begin"),
            Begin::Lacks => return Err(Missing("driver".into()).into()),
        }
        puppet.ready.store(true, Ordering::SeqCst);
        cx.ready();
        loop {
            tokio::select! {
                biased;
                () = cx.stopped() => {
                    tokio::time::sleep(puppet.stop).await;
                    return Ok(());
                }
                () = puppet.ordered.notified() => {}
            }
            let order = puppet.order.lock().unwrap().take();
            match order {
                Some(Fate::Crash) => anyhow::bail!("boom"),
                Some(Fate::Panic) => panic!("ordered"),
                Some(Fate::Finish) => return Ok(()),
                Some(Fate::Hang) => std::future::pending().await,
                Some(Fate::Sick) => {
                    for _ in 0..3 {
                        cx.report(&(), Health::Unhealthy("ordered".into()))?;
                    }
                }
                None => {}
            }
        }
    }
}

/// A supervisor, its puppets, and what the oracle says of them.
pub struct World {
    handle: Handle,
    puppets: Vec<Arc<Puppet>>,
    ids: Vec<DaemonId>,
    oracle: Oracle,
    now: u64,
    moves: tokio::sync::broadcast::Receiver<Transition>,
    states: Vec<State>,
    driver: JoinSet<ShutdownReport>,
    /// Requests whose answer nobody waits for at once.
    open: JoinSet<Result<(), Refusal>>,
    asked: usize,
}

impl World {
    fn of_plans(plans: &[Plan]) -> Self {
        let members = plans.iter().enumerate().map(|(at, &(needs, leader_only, slow_stop))| {
            ((0..at).filter(|need| needs & (1 << need) != 0).collect(), leader_only, slow_stop)
        });
        Self::new(members.collect())
    }

    /// Each member: the earlier ones that it needs, leader-only, slow to stop.
    pub fn new(members: Vec<(Vec<usize>, bool, bool)>) -> Self {
        let mut puppets = Vec::new();
        let mut runnables = Vec::new();
        let mut daemons = Vec::new();
        let names: Vec<DaemonId> =
            (0..members.len()).map(|at| DaemonId(format!("PUPPET_{at}").leak())).collect();
        for (at, (needs, leader_only, slow_stop)) in members.into_iter().enumerate() {
            let stop = if slow_stop { 5_000 } else { 0 };
            let puppet = Arc::new(Puppet {
                begin: Mutex::new(Begin::Quick),
                stop: Duration::from_millis(stop),
                order: Mutex::default(),
                ordered: Notify::new(),
                lives: AtomicU64::new(0),
                born: AtomicU64::new(0),
                ready: AtomicBool::new(false),
                doubled: AtomicBool::new(false),
            });
            let ids: Vec<DaemonId> = needs.iter().map(|&need| names[need]).collect();
            let mut runnable = {
                let puppet = puppet.clone();
                Runnable::of(move || Ok(Actor::new((), puppet.clone())))
            };
            runnable.spec = Box::leak(Box::new(Spec {
                id: names[at],
                needs: ids.leak(),
                leader_only,
                ready_within: Duration::from_millis(READY_WITHIN),
                ..Actor::SPEC
            }));
            runnables.push(runnable);
            puppets.push(puppet);
            daemons.push(oracle::Daemon {
                needs,
                leader_only,
                stop,
                begin: Begin::Quick,
                asked: false,
                crashes: 0,
                at: oracle::At::Off,
                born: 0,
            });
        }
        let settings = Settings {
            shutdown_timeout: Duration::from_millis(STOP_WITHIN),
            // Health is only what it reports, so reading it need not wake anybody.
            health_interval: Duration::from_hours(24),
            turn: Duration::from_hours(24),
            ..Settings::new(tokio::runtime::Handle::current())
        };
        let (handle, drive) = Supervisor::new(runnables, settings, Clock::new(|| 0)).unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(drive);
        Self {
            moves: handle.transitions(),
            handle,
            states: vec![State::Stopped; names.len()],
            ids: names,
            puppets,
            oracle: Oracle { daemons, leads: true },
            now: 0,
            driver,
            open: JoinSet::new(),
            asked: 0,
        }
    }

    /// Lets a step happen, and all that it causes at once; false: there was nothing to do.
    pub async fn take(&mut self, step: &Step) -> bool {
        let mut done = true;
        let (now, count) = (self.now, self.ids.len());
        let handle = self.handle.clone();
        match *step {
            Step::Start(at) => {
                let at = at % count;
                handle.start(&[self.ids[at]]).await.unwrap();
                self.oracle.start(now, at);
            }
            Step::Stop(at) => {
                let (at, id) = (at % count, self.ids[at % count]);
                self.asked += 1;
                self.open.spawn(async move { handle.stop(id).await });
                settle().await;
                self.oracle.stop(now, at);
            }
            Step::Restart(at) => {
                let at = at % count;
                handle.restart(self.ids[at]).await.unwrap();
                self.oracle.restart(now, at);
            }
            Step::Retry(at, force) => {
                let at = at % count;
                let tried = handle.retry(self.ids[at], force).await;
                done = self.oracle.retry(now, at, force);
                assert_eq!(tried.is_ok(), done, "{tried:?}");
            }
            // Changes no state, and no request may be lost by it.
            Step::Pause(at) => handle.pause(&[self.ids[at % count]], "chance").await.unwrap(),
            Step::Resume(at) => handle.resume(&[self.ids[at % count]], "chance").await.unwrap(),
            Step::Begins(at, begin) => {
                let at = at % count;
                *self.puppets[at].begin.lock().unwrap() = begin;
                self.oracle.daemons[at].begin = begin;
            }
            Step::Suffers(at, fate) => {
                let at = at % count;
                done = self.oracle.suffers(now, at, fate);
                if done {
                    *self.puppets[at].order.lock().unwrap() = Some(fate);
                    self.puppets[at].ordered.notify_one();
                }
            }
            Step::Lead(leads) => {
                let leadership = if leads { Leadership::Held } else { Leadership::Lost };
                handle.lead(leadership).await.unwrap();
                self.oracle.lead(now, leads);
            }
            Step::Wait(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.now += ms;
                self.oracle.pass(now, self.now);
            }
        }
        settle().await;
        done
    }

    /// What must hold at any time, and what the oracle says.
    pub fn check(&mut self) {
        while let Ok(moved) = self.moves.try_recv() {
            let at = self.ids.iter().position(|&id| id == moved.daemon).unwrap();
            assert_eq!(self.states[at], moved.from, "{moved:?}: states follow each other");
            assert!(allowed(moved.from, moved.to), "{moved:?} is forbidden");
            self.states[at] = moved.to;
        }
        let snapshot = self.handle.snapshot();
        for (at, expected) in self.oracle.daemons.iter().enumerate() {
            let (view, puppet) = (snapshot.get(self.ids[at]).unwrap(), &self.puppets[at]);
            assert!(!puppet.doubled.load(Ordering::SeqCst), "two tasks of {}", view.id);
            let context = format!("{} at {} ms\n{view:?}\n{expected:?}", view.id, self.now);
            assert_eq!(view.state, expected.state(), "{context}");
            assert_eq!(view.state, self.states[at], "a change was not told: {context}");
            assert_eq!(view.restarts, expected.crashes, "{context}");
            assert_eq!(puppet.born.load(Ordering::SeqCst), expected.born, "tasks: {context}");
            let stands_by = expected.leader_only && !self.oracle.leads;
            assert_eq!(view.asked, expected.asked && !stands_by, "{context}");
            if view.state == State::Running {
                assert!(puppet.ready.load(Ordering::SeqCst), "running before ready: {context}");
            }
        }
    }

    /// Shuts down, once or twice, and checks how that ends.
    pub async fn shut_down(mut self, again_after: Option<u64>) {
        // Each chain of needs is at most as long as there are daemons.
        let levels = self.ids.len() as u64;
        let handle = self.handle.clone();
        self.open.spawn(async move { handle.shutdown().await.map(drop) });
        if let Some(ms) = again_after {
            let handle = self.handle.clone();
            self.open.spawn(async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                // It may be over by then.
                match handle.shutdown().await {
                    Ok(_) | Err(Refusal::Gone) => Ok(()),
                    Err(refusal) => Err(refusal),
                }
            });
        }
        let report = self.driver.join_next().await.unwrap().unwrap();
        let limit = again_after.unwrap_or(u64::MAX).min(levels * STOP_WITHIN) + 1_000;
        assert!(report.took <= Duration::from_millis(limit), "{report:?}");
        assert_eq!(report.hung, [], "nobody blocks a thread here");
        for puppet in &self.puppets {
            assert_eq!(puppet.lives.load(Ordering::SeqCst), 0, "a task outlived the supervisor");
            assert!(!puppet.doubled.load(Ordering::SeqCst));
        }
        // Whatever was asked is answered, if only by the shutdown.
        let mut answered = 0;
        while let Some(answer) = self.open.join_next().await {
            assert_eq!(answer.unwrap(), Ok(()));
            answered += 1;
        }
        assert_eq!(answered, self.asked + 1 + usize::from(again_after.is_some()));
    }
}

async fn settle() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}

fn allowed(from: State, to: State) -> bool {
    use State::{Failed, ImportFailed, Restarting, Running, Starting, Stopped, Stopping};
    match to {
        Starting => matches!(from, Stopped | Failed | ImportFailed),
        Running => matches!(from, Starting | Restarting),
        Restarting => matches!(from, Starting | Running),
        Stopping | Failed | ImportFailed => matches!(from, Starting | Running | Restarting),
        Stopped => true,
        // Only by the hour, which is off.
        State::Degraded => false,
    }
}

/// Tries so many random lives.
pub fn try_lives(cases: u32) {
    // Panics of puppets are part of the play, and those of a check come back with its case.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let plans = prop::collection::vec(any::<Plan>(), 2..=MOST);
    let steps = prop::collection::vec(step(), 1..60);
    let again = prop::option::of(0..70_000_u64);
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&(plans, steps, again), |(plans, steps, again)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::of_plans(&plans);
            for step in &steps {
                world.take(step).await;
                world.check();
            }
            world.shut_down(again).await;
        });
        Ok(())
    });
    std::panic::set_hook(hook);
    if let Err(error) = tried {
        panic!("{error}");
    }
}
