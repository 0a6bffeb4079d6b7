//! Daemons that do what a script says, and the bench on which they run.

use std::{
    marker::PhantomData,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::broadcast, task::JoinSet, time::Instant};
use warden::{
    Clock, Cx, Daemon, DaemonId, Handle, Health, Missing, Outcome, Runnable, Settings,
    ShutdownReport, Snapshot, Spec, State, Supervisor, Transition, Wake,
};

pub const WAKE: Wake = Wake("bell");

/// The constant half of a puppet.
pub trait Role: Send + 'static {
    const SPEC: Spec;
}

macro_rules! role {
    ($name:ident, $($field:ident : $value:expr),* $(,)?) => {
        pub struct $name;
        impl Role for $name {
            const SPEC: Spec = Spec {
                id: DaemonId(stringify!($name)),
                period: Duration::from_secs(10),
                $($field: $value,)*
                ..Spec::DEFAULT
            };
        }
        impl $name {
            pub const ID: DaemonId = <Self as Role>::SPEC.id;
        }
    };
}

role!(A, critical: true, wakes_on: &[WAKE]);
role!(B, needs: &[A::ID]);
role!(C, needs: &[B::ID], wakes_on: &[WAKE]);
role!(Slow, ready_within: Duration::from_mins(2));
role!(AfterSlow, needs: &[Slow::ID]);
role!(Leads, leader_only: true);
role!(Follows, needs: &[Leads::ID]);
role!(Quick, cycle_limit: Duration::from_millis(200));

/// What a puppet does at one place of its script.
#[derive(Debug, Clone)]
pub enum Act {
    Done,
    /// Done, and says that it is unhealthy.
    Sick,
    Blocked,
    Fail,
    Panic,
    Lack,
    /// Takes so long, without a beat.
    Take(Duration),
    /// Never ends by itself; heeds a stop.
    Pend,
    /// Never ends, heeds nothing but an abort.
    Deaf,
    /// Blocks its thread until the flag is set.
    Jam(Arc<AtomicBool>),
}

/// Acts by number of the call; the last one repeats.
#[derive(Debug, Clone)]
pub struct Script {
    pub start: Vec<Act>,
    pub cycle: Vec<Act>,
    pub stop: Act,
}

impl Default for Script {
    fn default() -> Self {
        Self { start: vec![Act::Done], cycle: vec![Act::Done], stop: Act::Done }
    }
}

impl Script {
    pub fn start(mut self, acts: impl Into<Vec<Act>>) -> Self {
        self.start = acts.into();
        self
    }

    pub fn cycle(mut self, acts: impl Into<Vec<Act>>) -> Self {
        self.cycle = acts.into();
        self
    }

    pub fn stop(mut self, act: Act) -> Self {
        self.stop = act;
        self
    }
}

/// What puppets did, and when, in milliseconds of the bench's time.
#[derive(Debug, Clone)]
pub struct Diary {
    epoch: Instant,
    lines: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Diary {
    fn new() -> Self {
        Self { epoch: Instant::now(), lines: Arc::default() }
    }

    pub fn ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap()
    }

    fn write(&self, line: String) {
        self.lines.lock().unwrap().push((self.ms(), line));
    }

    pub fn all(&self) -> Vec<(u64, String)> {
        self.lines.lock().unwrap().clone()
    }

    pub fn times(&self, wanted: &str) -> Vec<u64> {
        let all = self.all();
        all.iter().filter(|(_, line)| line == wanted).map(|(at, _)| *at).collect()
    }
}

pub struct Puppet<R> {
    script: Arc<Script>,
    diary: Diary,
    calls: Arc<[AtomicUsize; 2]>,
    role: PhantomData<fn() -> R>,
}

impl<R: Role> Puppet<R> {
    pub fn runnable(script: Script, diary: &Diary) -> Runnable {
        let (script, diary, calls) = (Arc::new(script), diary.clone(), Arc::default());
        Runnable::of::<Self>(move || {
            Ok(Self::new((), (script.clone(), diary.clone(), Arc::clone(&calls))))
        })
    }

    fn next(&self, acts: &[Act], place: usize) -> Act {
        let call = self.calls[place].fetch_add(1, Ordering::SeqCst);
        acts.get(call).or(acts.last()).unwrap().clone()
    }
}

async fn perform(act: Act, cx: &Cx) -> anyhow::Result<Outcome<Health>> {
    match act {
        Act::Done => {}
        Act::Sick => return Ok(Outcome::Done(Health::Unhealthy("sick".into()))),
        Act::Blocked => return Ok(Outcome::blocked("no disk")),
        Act::Fail => anyhow::bail!("boom"),
        Act::Panic => panic!("at the disco"),
        Act::Lack => return Err(anyhow::Error::new(Missing("driver".into())).context("open")),
        Act::Take(time) => tokio::time::sleep(time).await,
        Act::Pend => cx.sleep(Duration::MAX).await?,
        Act::Deaf => std::future::pending().await,
        Act::Jam(free) => {
            while !free.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    Ok(Outcome::Done(Health::Healthy))
}

impl<R: Role> Daemon for Puppet<R> {
    const SPEC: Spec = R::SPEC;
    type Config = ();
    type Ports = (Arc<Script>, Diary, Arc<[AtomicUsize; 2]>);
    type Status = Health;

    fn new((): (), (script, diary, calls): Self::Ports) -> Self {
        Self { script, diary, calls, role: PhantomData }
    }

    async fn start(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.diary.write(format!("{} start", cx.id()));
        perform(self.next(&self.script.start, 0), cx).await.map(drop)
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Health>> {
        self.diary.write(format!("{} cycle", cx.id()));
        perform(self.next(&self.script.cycle, 1), cx).await
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.diary.write(format!("{} stop", cx.id()));
        perform(self.script.stop.clone(), cx).await.map(drop)
    }

    fn health(&self, last: &Health) -> Health {
        last.clone()
    }
}

/// A supervisor at work on the runtime of the test.
pub struct Bench {
    pub handle: Handle,
    pub diary: Diary,
    pub moves: broadcast::Receiver<Transition>,
    driver: JoinSet<ShutdownReport>,
}

impl Bench {
    pub fn new(make: impl FnOnce(&Diary) -> Vec<Runnable>) -> Self {
        Self::with(make, |_| {})
    }

    pub fn with(
        make: impl FnOnce(&Diary) -> Vec<Runnable>,
        set: impl FnOnce(&mut Settings),
    ) -> Self {
        let diary = Diary::new();
        let clock = {
            let diary = diary.clone();
            Clock::new(move || i64::try_from(diary.ms()).unwrap())
        };
        let mut settings = Settings::new(tokio::runtime::Handle::current());
        set(&mut settings);
        let (handle, drive) = Supervisor::new(make(&diary), settings, clock).unwrap();
        let moves = handle.transitions();
        let mut driver = JoinSet::new();
        driver.spawn(drive);
        Self { handle, diary, moves, driver }
    }

    /// Waits until a snapshot fulfils the condition.
    pub async fn until(&self, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshots = self.handle.subscribe();
        let seen = snapshots.wait_for(|snapshot| condition(snapshot));
        let limit = Duration::from_hours(24);
        tokio::time::timeout(limit, seen).await.expect("the condition comes").unwrap().clone()
    }

    pub async fn until_state(&self, id: DaemonId, state: State) -> Arc<Snapshot> {
        self.until(|snapshot| snapshot.get(id).unwrap().state == state).await
    }

    /// Lets time pass, and then all that it caused.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.settle().await;
    }

    pub async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Changes of one daemon so far: time, state after, reason.
    pub fn moves_of(&mut self, id: DaemonId) -> Vec<(i64, State, &'static str)> {
        let mut found = Vec::new();
        while let Ok(moved) = self.moves.try_recv() {
            if moved.daemon == id {
                found.push((moved.at_ms, moved.to, moved.reason.name()));
            }
        }
        found
    }

    /// The report that the supervisor's own future ends with.
    pub async fn report(mut self) -> ShutdownReport {
        drop(self.handle);
        self.driver.join_next().await.unwrap().unwrap()
    }
}
