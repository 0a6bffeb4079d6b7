//! Carries out what the lifecycle decides: tasks, channels, the published snapshot.
//!
//! One state behind one lock, and two kinds of threads that move it on. The supervisor's own serves
//! requests, watches the time and shows what is. A daemon's thread reports the end of a run itself:
//! so the next one begins where the last one ended, without a way to another thread and back.

use std::{
    any::Any,
    collections::HashMap,
    future::{Future, poll_fn},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::Instrument as _;

use crate::{
    Clock, Cx, DaemonId, GraphError, Handle, MemoryGauge, Missing, Notice, RestartPolicy, Runnable,
    ShutdownReport, Snapshot, Transition,
    bell::Bell,
    cx::{Pulse, PulseSpec},
    handle::{Refusal, Reply, Request, Slot, Started},
    lifecycle::{At, Begun, Command, End, Lifecycle, Obstacle, Rules, Vitals},
    runnable::Task,
    sync::{Mutex, lock},
    told::Told,
};

mod show;

/// Requests that wait for the supervisor; a caller waits when they are full.
const REQUESTS_WAITING: usize = 64;
/// Transitions, or notices, kept for a slow listener; it then misses the oldest and is told how
/// many.
const TRANSITIONS_KEPT: usize = 1024;

/// The limits of a supervisor.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where daemons run. Drive the supervisor on another runtime, with a thread of its own: on a
    /// shared one, a daemon that blocks its thread may hold the supervisor's wake-up there.
    pub runtime: tokio::runtime::Handle,
    /// When a crashed daemon is tried again.
    pub restart: RestartPolicy,
    /// Time between two readings of health. Source: runbook, 30 s.
    pub health_interval: Duration,
    /// The same for critical daemons, if it is shorter. Source: manager contract, 15 s.
    pub critical_health_interval: Duration,
    /// Time that a stop, or one level of a shutdown, has in all. Source: runbook, 30 s.
    pub shutdown_timeout: Duration,
    /// A need that is not ready for so long is a warning. Source: manager contract, 30 s.
    pub dependency_wait: Duration,
    /// A task that does not end so long after its abort is called hung; ours, 1 s.
    pub abort_grace: Duration,
    /// Bad results in a row that restart. Source: manager contract, 3.
    pub bad_results: u32,
    /// How full the machine's memory is.
    pub memory: MemoryGauge,
    /// From so many percent on only critical daemons start. Source: manager contract, 90.
    pub memory_limit: u8,
    /// Shortest pause between two cycles when wake-ups pour in; ours, 50 ms.
    pub wake_gap: Duration,
    /// All ages are shown anew, and the loop proves that it turns, at least so often; ours, 2 s.
    pub turn: Duration,
}

impl Settings {
    /// The usual limits.
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self {
            runtime,
            restart: RestartPolicy::default(),
            health_interval: Duration::from_secs(30),
            critical_health_interval: Duration::from_secs(15),
            shutdown_timeout: Duration::from_secs(30),
            dependency_wait: Duration::from_secs(30),
            abort_grace: Duration::from_secs(1),
            bad_results: 3,
            memory: MemoryGauge::none(),
            memory_limit: 90,
            wake_gap: Duration::from_millis(50),
            turn: Duration::from_secs(2),
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            restart: Arc::new(self.restart.clone()),
            health_interval: self.health_interval,
            critical_health_interval: self.critical_health_interval,
            shutdown_timeout: self.shutdown_timeout,
            dependency_wait: self.dependency_wait,
            abort_grace: self.abort_grace,
            bad_results: self.bad_results,
            memory_limit: self.memory_limit,
        }
    }
}

/// The task of one run.
struct Running {
    run: u64,
    pulse: Arc<Pulse>,
    abort: AbortHandle,
    /// The lifecycle was told that it is ready.
    ready: bool,
    /// Results that the lifecycle has seen.
    results: u64,
}

/// The supervision of a fixed set of daemons.
pub struct Supervisor {
    /// What tasks hold of it; whoever drives it keeps it alive.
    this: Weak<Mutex<Self>>,
    lifecycle: Lifecycle,
    runnables: Vec<Runnable>,
    settings: Settings,
    clock: Clock,
    epoch: Instant,
    slots: Arc<[Slot]>,
    tasks: JoinSet<()>,
    owners: HashMap<Id, (usize, u64)>,
    running: Vec<Option<Running>>,
    /// What the last run of each daemon told, for as long as there is no newer one.
    told: Vec<(Told, Option<i64>)>,
    bell: Arc<Bell>,
    transitions: broadcast::Sender<Transition>,
    notices: broadcast::Sender<Notice>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Those of whom the snapshot is not true any more.
    stale: Vec<usize>,
    /// When all is shown anew.
    turn_at: At,
    /// When memory was looked at last.
    weighed_at: Option<At>,
    stops: Vec<Stop>,
    answers: Vec<Answer>,
    shutdown: Option<Shutdown>,
}

/// An answer that waits until the snapshot shows what it speaks of.
type Answer = Box<dyn FnOnce() + Send>;

/// Somebody waits for the end of this run.
struct Stop {
    at: usize,
    run: u64,
    reply: oneshot::Sender<Result<(), Refusal>>,
}

struct Shutdown {
    began: Instant,
    report: ShutdownReport,
    waiters: Vec<oneshot::Sender<ShutdownReport>>,
}

impl Supervisor {
    /// Makes a supervisor in which nothing runs yet, and the future that drives it.
    ///
    /// The future ends after [`Handle::shutdown`], or when every handle is dropped, which counts
    /// as one. Dropping it aborts all daemons. The order of `runnables` breaks ties in the order
    /// of start.
    ///
    /// # Errors
    /// The needs do not form a sound graph.
    #[expect(clippy::new_ret_no_self, reason = "the supervisor itself is only the future")]
    pub fn new(
        runnables: Vec<Runnable>,
        settings: Settings,
        clock: Clock,
    ) -> Result<(Handle, impl Future<Output = ShutdownReport> + Send + 'static), GraphError> {
        let specs: Vec<_> = runnables.iter().map(|runnable| runnable.spec).collect();
        let mut lifecycle = Lifecycle::new(&specs, settings.rules())?;
        for (at, runnable) in runnables.iter().enumerate() {
            if let Some(history) = &runnable.history {
                lifecycle.remember(at, history, clock.now_ms());
            }
        }
        let slots: Arc<[Slot]> = specs.iter().map(|spec| Slot::new(spec)).collect();
        let (request, requests) = mpsc::channel(REQUESTS_WAITING);
        let (transitions, _) = broadcast::channel(TRANSITIONS_KEPT);
        let (notices, _) = broadcast::channel(TRANSITIONS_KEPT);
        let (snapshot, seen) = watch::channel(Arc::default());
        let handle =
            Handle::new(request, slots.clone(), seen, transitions.clone(), notices.clone());
        let bell = Arc::<Bell>::default();
        let supervisor = Self {
            this: Weak::new(),
            lifecycle,
            settings,
            clock,
            epoch: Instant::now(),
            slots,
            tasks: JoinSet::new(),
            owners: HashMap::new(),
            running: runnables.iter().map(|_| None).collect(),
            told: runnables.iter().map(|_| Default::default()).collect(),
            runnables,
            bell: bell.clone(),
            transitions,
            notices,
            snapshot,
            stale: Vec::new(),
            turn_at: At::ZERO,
            weighed_at: None,
            stops: Vec::new(),
            answers: Vec::new(),
            shutdown: None,
        };
        let shared = Arc::new_cyclic(|this| {
            let mut supervisor = Self { this: this.clone(), ..supervisor };
            supervisor.show_all();
            Mutex::new(supervisor)
        });
        Ok((handle, drive(shared, bell, requests)))
    }

    /// Looks at all that is there, and only then once at what came of it; gives when to look again
    /// at the latest, or the report of the end.
    fn turn(&mut self) -> ControlFlow<ShutdownReport, Instant> {
        self.listen();
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            self.joined(joined);
        }
        self.let_time_pass();
        self.carry_out();
        self.answer_stops();
        self.show();
        for answer in self.answers.drain(..) {
            answer();
        }
        if self.lifecycle.drained() {
            return ControlFlow::Break(self.leave());
        }
        let next = self.lifecycle.next_deadline().map_or(self.turn_at, |at| at.min(self.turn_at));
        ControlFlow::Continue(self.epoch + next)
    }

    fn now(&self) -> At {
        self.epoch.elapsed()
    }

    fn id(&self, at: usize) -> DaemonId {
        self.runnables[at].spec.id
    }

    // ---- from the daemons

    fn listen(&mut self) {
        for at in self.bell.take() {
            self.listen_to(at);
        }
    }

    fn listen_to(&mut self, at: usize) {
        let now = self.now();
        let Some(task) = &mut self.running[at] else { return };
        let told = &mut self.told[at].0;
        task.pulse.copy_to(told);
        self.stale.push(at);
        let news = told.results > task.results;
        task.results = told.results;
        if told.ready && !task.ready {
            task.ready = true;
            self.lifecycle.ready(now, at, task.run);
        }
        if news || self.lifecycle.read_due(now, at) {
            let vitals = Vitals {
                health: told.health.clone(),
                bad_in_a_row: told.bad_in_a_row,
                in_cycle: told.in_cycle.is_some(),
                last_beat: task.pulse.last_beat(),
                due: told.due,
            };
            self.lifecycle.read(now, at, task.run, &vitals);
        }
    }

    fn let_time_pass(&mut self) {
        let now = self.now();
        let due = self.lifecycle.due(now);
        if (!due.is_empty() || self.turn_at <= now) && self.lifecycle.anybody_starts(now) {
            self.weigh();
        }
        for at in due {
            self.listen_to(at);
        }
        self.lifecycle.tick(now);
    }

    /// Looks at the memory before something starts, once a turn at most.
    fn weigh(&mut self) {
        let now = self.now();
        if self.weighed_at.is_none_or(|at| at + self.settings.turn <= now) {
            self.weighed_at = Some(now);
            self.lifecycle.weigh(now, self.settings.memory.percent());
        }
    }

    /// Never ready without a task: whoever makes one calls.
    fn poll_joined(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Id, ()), JoinError>> {
        match self.tasks.poll_join_next_with_id(cx) {
            Poll::Ready(Some(joined)) => Poll::Ready(joined),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// A task is gone. Its run has ended before, unless it was aborted or broke while it was dropped.
    fn joined(&mut self, joined: Result<(Id, ()), JoinError>) {
        let (id, end) = match joined {
            Ok((id, ())) => (id, End::Finished),
            Err(error) if error.is_panic() => (error.id(), panicked(error.into_panic())),
            Err(error) => (error.id(), End::Aborted),
        };
        if let Some((at, run)) = self.owners.remove(&id) {
            self.ended(at, run, end);
        }
    }

    fn ended(&mut self, at: usize, run: u64, end: End) {
        if self.task(at, run).is_none() {
            return;
        }
        // What it told last comes before its end.
        self.listen_to(at);
        self.running[at] = None;
        self.told[at].0.in_cycle = None;
        self.lifecycle.ended(self.now(), at, run, end);
    }

    // ---- from the handles

    fn serve(&mut self, request: Request) {
        let now = self.now();
        if matches!(
            request,
            Request::Start { .. } | Request::Restart { .. } | Request::Retry { .. }
        ) {
            self.weigh();
        }
        match request {
            Request::Start { ids, by, reply } => {
                let result = self.positions(&ids).map(|asked| {
                    let begun = self.lifecycle.start(now, &asked, by);
                    self.started(&begun, &ids)
                });
                self.answer(reply, result);
            }
            Request::Stop { id, reply } => match self.position(id) {
                Ok(at) => {
                    self.lifecycle.stop(now, at);
                    self.stops.push(Stop { at, run: self.lifecycle.run(at), reply });
                }
                Err(refusal) => self.answer(reply, Err(refusal)),
            },
            Request::Restart { id, reply } => {
                let result = self.position(id).map(|at| {
                    let begun = self.lifecycle.restart(now, at);
                    self.started(&begun, &[id])
                });
                self.answer(reply, result);
            }
            Request::Retry { id, force, reply } => {
                let result = self.position(id).and_then(|at| {
                    let state = self.lifecycle.state(at);
                    match self.lifecycle.retry(now, at, force) {
                        Some(begun) => Ok(self.started(&begun, &[id])),
                        None => Err(Refusal::NothingToRetry { id, state }),
                    }
                });
                self.answer(reply, result);
            }
            Request::Pause { ids, cause, reply } => {
                let result = self.positions(&ids).map(|asked| {
                    for at in asked {
                        self.lifecycle.pause(now, at, &cause);
                    }
                });
                self.answer(reply, result);
            }
            Request::Resume { ids, cause, reply } => {
                let result = self.positions(&ids).map(|asked| {
                    for at in asked {
                        self.lifecycle.resume(now, at, &cause);
                    }
                });
                self.answer(reply, result);
            }
            Request::Lead { leadership, reply } => {
                self.lifecycle.lead(now, leadership);
                self.answer(reply, Ok(()));
            }
            Request::Shutdown { reply } => self.begin_shutdown(Some(reply)),
        }
    }

    /// Answers as soon as the snapshot shows what was done: who asks and then looks sees it.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, result: Result<T, Refusal>) {
        // A caller that does not wait for its answer does not need it.
        self.answers.push(Box::new(move || drop(reply.send(result))));
    }

    fn position(&self, id: DaemonId) -> Result<usize, Refusal> {
        if self.lifecycle.draining() {
            return Err(Refusal::ShuttingDown);
        }
        self.lifecycle.graph().position(id).ok_or(Refusal::Unknown(id))
    }

    fn positions(&self, ids: &[DaemonId]) -> Result<Vec<usize>, Refusal> {
        ids.iter().map(|&id| self.position(id)).collect()
    }

    fn started(&self, begun: &Begun, asked: &[DaemonId]) -> Started {
        let started: Vec<DaemonId> = begun.started.iter().map(|&at| self.id(at)).collect();
        let added = started.iter().copied().filter(|id| !asked.contains(id)).collect();
        let missing = begun
            .missing
            .iter()
            .map(|&at| (self.id(at), self.lifecycle.last_error(at).unwrap_or_default().to_owned()))
            .collect();
        let failed = begun.failed.iter().map(|&at| self.id(at)).collect();
        Started { started, added, missing, failed }
    }

    fn answer_stops(&mut self) {
        for stop in std::mem::take(&mut self.stops) {
            // A later run means that this one ended, and somebody wanted another.
            let ended =
                !self.lifecycle.has_task(stop.at) || self.lifecycle.run(stop.at) != stop.run;
            if ended {
                self.answer(stop.reply, Ok(()));
            } else if self.lifecycle.is_hung(stop.at) {
                let refusal = Refusal::Hung(self.id(stop.at));
                self.answer(stop.reply, Err(refusal));
            } else {
                self.stops.push(stop);
            }
        }
    }

    fn begin_shutdown(&mut self, waiter: Option<oneshot::Sender<ShutdownReport>>) {
        if self.shutdown.is_none() {
            tracing::info!("supervisor shuts down");
        } else {
            tracing::warn!("supervisor stops at once");
        }
        let shutdown = self.shutdown.get_or_insert_with(|| Shutdown {
            began: Instant::now(),
            report: ShutdownReport::default(),
            waiters: Vec::new(),
        });
        shutdown.waiters.extend(waiter);
        self.lifecycle.shutdown(self.epoch.elapsed());
    }

    fn leave(&mut self) -> ShutdownReport {
        let Some(mut shutdown) = self.shutdown.take() else { return ShutdownReport::default() };
        shutdown.report.took = shutdown.began.elapsed();
        for waiter in shutdown.waiters {
            drop(waiter.send(shutdown.report.clone()));
        }
        shutdown.report
    }

    // ---- to the daemons and to the world

    fn carry_out(&mut self) {
        loop {
            let commands = self.lifecycle.take_commands();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                self.carry_out_one(command);
            }
        }
    }

    fn carry_out_one(&mut self, command: Command) {
        match command {
            Command::Spawn { at, run } => self.spawn(at, run),
            Command::Ask { at, run } => {
                if let Some(task) = self.task(at, run) {
                    task.pulse.stop.cancel();
                }
            }
            Command::Abort { at, run } => {
                if let Some(task) = self.task(at, run) {
                    task.abort.abort();
                }
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.report.aborted.push(self.runnables[at].spec.id);
                }
            }
            Command::Pause { at, paused } => {
                self.slots[at].pause.send_replace(paused);
            }
            Command::Late { at, obstacle: Obstacle::Need(need) } => {
                let (daemon, need) = (self.id(at), self.id(need));
                tracing::warn!(%daemon, %need, "need not ready for long, still waiting");
            }
            Command::Late { at, obstacle: Obstacle::Memory(percent) } => {
                let daemon = self.id(at);
                tracing::warn!(%daemon, percent, "memory in use for long, still waiting");
            }
            Command::Hung { at } => {
                let daemon = self.id(at);
                tracing::error!(%daemon, "daemon blocks its thread and cannot be ended");
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.report.hung.push(daemon);
                }
            }
            Command::Moved { at, from, to, reason, error } => {
                self.tell(at, from, to, reason, error);
            }
            Command::Remember { .. }
            | Command::CrashLoop { .. }
            | Command::Tripped { .. }
            | Command::Closed { .. } => self.give_notice(command),
        }
    }

    fn task(&self, at: usize, run: u64) -> Option<&Running> {
        self.running[at].as_ref().filter(|task| task.run == run)
    }

    fn spawn(&mut self, at: usize, run: u64) {
        let runnable = &self.runnables[at];
        let slot = &self.slots[at];
        let id = runnable.spec.id;
        let pulse = Arc::new(Pulse::new(PulseSpec {
            id,
            at,
            clock: self.clock.clone(),
            epoch: self.epoch,
            bell: self.bell.clone(),
            wake: slot.wake.clone(),
            paused: slot.pause.subscribe(),
            period: runnable.period.unwrap_or(runnable.spec.period),
            wake_gap: self.settings.wake_gap,
        }));
        let span = tracing::info_span!("daemon", daemon = %id);
        let life = whole(runnable.task(Cx::new(pulse.clone()))).instrument(span);
        let this = self.this.clone();
        let task = async move {
            let end = life.await;
            report(&this, at, run, end).await;
        };
        let abort = self.tasks.spawn_on(task, &self.settings.runtime);
        self.owners.insert(abort.id(), (at, run));
        let started_at_ms = self.clock.now_ms();
        let (told, last_start) = &mut self.told[at];
        // The last status stays visible until the new run publishes its own.
        pulse.keep_details(std::mem::take(&mut told.details));
        *told = Told::default();
        pulse.copy_to(told);
        *last_start = Some(started_at_ms);
        self.stale.push(at);
        self.running[at] = Some(Running { run, pulse, abort, ready: false, results: 0 });
    }
}

/// The supervisor's own thread.
async fn drive(
    shared: Arc<Mutex<Supervisor>>,
    bell: Arc<Bell>,
    mut requests: mpsc::Receiver<Request>,
) -> ShutdownReport {
    let mut open = true;
    loop {
        let next = match lock(&shared).turn() {
            ControlFlow::Break(report) => return report,
            ControlFlow::Continue(next) => next,
        };
        tokio::select! {
            biased;
            request = requests.recv(), if open => {
                if let Some(request) = request {
                    lock(&shared).serve(request);
                } else {
                    open = false;
                    lock(&shared).begin_shutdown(None);
                }
            }
            joined = poll_fn(|cx| lock(&shared).poll_joined(cx)) => lock(&shared).joined(joined),
            () = bell.called() => {}
            () = sleep_until(next) => {}
        }
    }
}

/// The end of a run, reported from its own thread: what follows at once begins right here.
async fn report(this: &Weak<Mutex<Supervisor>>, at: usize, run: u64, end: End) {
    let Some((bell, replaced)) = take_end(this, at, run, end) else { return };
    if replaced {
        // The new run is next on this thread; to wake another thread takes longer than to begin it.
        tokio::task::yield_now().await;
    }
    bell.call(at);
}

/// Gives whom to call, and whether another run was started.
fn take_end(
    this: &Weak<Mutex<Supervisor>>,
    at: usize,
    run: u64,
    end: End,
) -> Option<(Arc<Bell>, bool)> {
    // Whoever drove it may be gone; then nothing is started any more.
    let shared = this.upgrade()?;
    let mut supervisor = lock(&shared);
    supervisor.ended(at, run, end);
    // All else that came of it is told by the supervisor's own thread, in its order.
    let spawns = supervisor.lifecycle.take_spawns();
    let replaced = !spawns.is_empty();
    for (at, run) in spawns {
        supervisor.spawn(at, run);
    }
    Some((supervisor.bell.clone(), replaced))
}

/// A run until its end, whatever that is; its daemon is dropped by then.
async fn whole(mut task: Task) -> End {
    let ended = poll_fn(|cx| {
        let poll = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx)));
        poll.map_or_else(|panic| Poll::Ready(Err(panic)), |poll| poll.map(Ok))
    });
    let ended = ended.await;
    drop(task);
    match ended {
        Ok(Ok(())) => End::Finished,
        Ok(Err(error)) => {
            let missing = error.chain().any(<dyn std::error::Error>::is::<Missing>)
                || error.downcast_ref::<Missing>().is_some();
            let text = format!("{error:#}");
            if missing { End::Missing(text) } else { End::Crashed(text) }
        }
        Err(panic) => panicked(panic),
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> End {
    let text = match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => "with something that is no text".into(),
        },
    };
    End::Crashed(format!("panicked: {text}"))
}
