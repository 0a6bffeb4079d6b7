//! Real threads and real time: a daemon that blocks its thread, and a supervisor on its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use warden::{
    Clock, Cx, Daemon, DaemonId, Health, Refusal, Runnable, Settings, Spec, State, Supervisor,
};

use crate::puppet::{A, Act, B, Bench, Puppet, Quick, Script};

/// Nothing takes so long unless it never comes.
const LONG: Duration = Duration::from_mins(1);

/// Frees the blocked thread however the test ends, since its runtime waits for it.
struct Free(Arc<AtomicBool>);

impl Drop for Free {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A runtime for the supervisor and another, with `threads` threads, for the daemons.
///
/// On one runtime the blocked thread may hold the very wake-up of the supervisor.
fn apart<T>(
    threads: usize,
    script: impl FnOnce(Arc<AtomicBool>) -> Script,
    test: impl AsyncFnOnce(Bench, &Free) -> T,
) -> T {
    let daemons = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap();
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let free = Free(Arc::default());
    own.block_on(async {
        let script = script(free.0.clone());
        let bench = Bench::with(
            |diary| {
                vec![
                    Puppet::<A>::runnable(script, diary),
                    Puppet::<B>::runnable(Script::default(), diary),
                ]
            },
            |settings| {
                settings.runtime = daemons.handle().clone();
                settings.shutdown_timeout = Duration::from_millis(100);
                settings.abort_grace = Duration::from_millis(50);
                settings.turn = Duration::from_millis(10);
            },
        );
        test(bench, &free).await
    })
}

async fn until_jammed(bench: &Bench) {
    bench.until(|s| s.get(A::ID).unwrap().in_cycle.is_some()).await;
}

#[test]
fn a_blocked_thread_is_called_hung_and_not_started_twice() {
    let script = |free| Script::default().cycle([Act::Jam(free), Act::Done]);
    apart(2, script, async |bench, free| {
        bench.handle.start(&[A::ID]).await.unwrap();
        until_jammed(&bench).await;
        assert_eq!(bench.handle.stop(A::ID).await, Err(Refusal::Hung(A::ID)));
        let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
        assert_eq!((view.state, view.cause.as_deref()), (State::Stopping, Some("hung")));
        assert_eq!(view.health, Health::Unhealthy("hung".into()));

        bench.handle.start(&[A::ID]).await.unwrap();
        assert_eq!(bench.diary.times("A start").len(), 1);
        free.0.store(true, Ordering::SeqCst);
        bench.until_state(A::ID, State::Running).await;
        assert_eq!(bench.diary.times("A start").len(), 2);
    });
}

#[test]
fn a_supervisor_on_its_own_thread_lives_while_every_daemon_thread_is_blocked() {
    let script = |free| Script::default().cycle([Act::Jam(free)]);
    apart(1, script, async |bench, _free| {
        bench.handle.start(&[B::ID]).await.unwrap();
        until_jammed(&bench).await;
        let turned = bench.handle.snapshot().turned_at_ms;
        bench.until(|s| s.turned_at_ms > turned + 50).await;
        let report = bench.handle.shutdown().await.unwrap();
        // A cannot leave its thread, and B has none to leave on.
        assert_eq!((report.aborted, report.hung), (vec![B::ID, A::ID], vec![B::ID, A::ID]));
    });
}

#[test]
fn a_blocked_thread_is_named_while_others_go_on_and_the_shutdown_ends_in_time() {
    let daemons =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let free = Free(Arc::default());
    own.block_on(async {
        let jam = Script::default().cycle([Act::Jam(free.0.clone())]);
        let bench = Bench::with(
            |diary| {
                vec![
                    Puppet::<Quick>::runnable(jam, diary),
                    Puppet::<A>::runnable(Script::default(), diary).every(Duration::from_millis(1)),
                ]
            },
            |settings| {
                settings.runtime = daemons.handle().clone();
                settings.shutdown_timeout = Duration::from_millis(100);
                settings.abort_grace = Duration::from_millis(50);
                // Only its own limit makes the supervisor look at it.
                settings.health_interval = Duration::from_hours(1);
                settings.bad_results = u32::MAX;
            },
        );
        bench.handle.start(&[Quick::ID, A::ID]).await.unwrap();
        let named = |health: &Health| {
            health.message().is_some_and(|message| message.starts_with("no beat for "))
        };
        let seen = bench.until(|s| named(&s.get(Quick::ID).unwrap().health)).await;
        let cycles = seen.get(A::ID).unwrap().cycles;
        bench.until(|s| s.get(A::ID).unwrap().cycles > cycles + 10).await;
        let report = bench.handle.shutdown().await.unwrap();
        assert_eq!((report.hung, report.stopped), (vec![Quick::ID], vec![A::ID]));
    });
}

/// Serves instead of cycling.
struct Server;

impl Daemon for Server {
    const SPEC: Spec = Spec { id: DaemonId("Server"), ..Spec::DEFAULT };
    type Config = ();
    type Ports = ();
    type Status = u32;

    fn new((): (), (): ()) -> Self {
        Self
    }

    async fn run(self, cx: Cx) -> anyhow::Result<()> {
        cx.ready();
        cx.report(&1_u32, Health::Healthy)?;
        cx.stopped().await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_serving_daemon_reports_for_itself() {
    let settings = Settings::new(tokio::runtime::Handle::current());
    let runnable = Runnable::of::<Server>(|| Ok(Server::new((), ())));
    let (handle, drive) = Supervisor::new(vec![runnable], settings, Clock::new(|| 0)).unwrap();
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(drive);
    handle.start(&[Server::ID]).await.unwrap();
    let mut snapshots = handle.subscribe();
    let healthy =
        |id| move |s: &Arc<warden::Snapshot>| s.get(id).unwrap().health == Health::Healthy;
    let seen = snapshots.wait_for(healthy(Server::ID)).await.unwrap().clone();
    assert_eq!(seen.get(Server::ID).unwrap().details, 1);
    // One report and then silence: the next was due after a period.
    tokio::time::sleep(Duration::from_mins(4)).await;
    let view = handle.snapshot().get(Server::ID).unwrap().clone();
    assert!(matches!(view.health, Health::Degraded(_)), "{:?}", view.health);
    assert_eq!(handle.shutdown().await.unwrap().stopped, [Server::ID]);
}

/// Fails once, when it is told to; each run says that it began.
struct Phoenix {
    runs: std::sync::mpsc::Sender<()>,
    fall: Arc<tokio::sync::Notify>,
}

impl Daemon for Phoenix {
    const SPEC: Spec = Spec { id: DaemonId("Phoenix"), ..Spec::DEFAULT };
    type Config = std::sync::mpsc::Sender<()>;
    type Ports = Arc<tokio::sync::Notify>;
    type Status = ();

    fn new(runs: Self::Config, fall: Self::Ports) -> Self {
        Self { runs, fall }
    }

    async fn run(self, cx: Cx) -> anyhow::Result<()> {
        self.runs.send(())?;
        cx.ready();
        tokio::select! {
            () = cx.stopped() => Ok(()),
            () = self.fall.notified() => anyhow::bail!("as told"),
        }
    }
}

#[test]
fn what_follows_a_crash_at_once_does_not_wait_for_the_supervisors_thread() {
    let daemons =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (sender, runs) = std::sync::mpsc::channel();
    let fall = Arc::<tokio::sync::Notify>::default();
    let runnable = {
        let fall = fall.clone();
        Runnable::of(move || Ok(Phoenix::new(sender.clone(), fall.clone())))
    };
    let mut settings = Settings::new(daemons.handle().clone());
    settings.restart.base = Duration::ZERO;
    let (handle, drive) = Supervisor::new(vec![runnable], settings, Clock::new(|| 0)).unwrap();
    own.block_on(async {
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(drive);
        let mut moves = handle.transitions();
        handle.start(&[Phoenix::ID]).await.unwrap();
        let mut told = async |count| {
            let mut states = Vec::new();
            for _ in 0..count {
                states.push(moves.recv().await.unwrap().to);
            }
            states
        };
        assert_eq!(told(2).await, [State::Starting, State::Running]);
        runs.recv_timeout(LONG).unwrap();
        // From here on until the second run this thread, the supervisor's, does nothing else.
        fall.notify_one();
        runs.recv_timeout(LONG).unwrap();
        assert_eq!(told(2).await, [State::Restarting, State::Running]);
        let report = handle.shutdown().await.unwrap();
        assert_eq!((report.stopped, report.aborted), (vec![Phoenix::ID], vec![]));
    });
}
