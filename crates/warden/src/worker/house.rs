//! The thread that starts workers and keeps watch over them, and the hand that helps it.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{PoisonError, mpsc::TrySendError},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::unix::pipe,
    runtime::Runtime,
    sync::{mpsc, oneshot, watch as slot},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    LINES_WAITING, Row, StartError, Started, Table, WorkerSpec,
    birth::{self, Child, Ends},
    guardian::Guardian,
    log::{self, Logs},
    process,
    records::Records,
    watch,
};

/// Time between two readings of memory: at 1 GB/s a worker overshoots by half a gigabyte.
const CENSUS: Duration = Duration::from_millis(500);
/// The same if nobody at work has a limit; then the readings are for people only.
const LAZY_CENSUS: Duration = Duration::from_secs(20);
/// Longest wait for killed workers when the last handle is gone.
const REAP: Duration = Duration::from_secs(2);

pub(super) struct Request {
    pub(super) spec: WorkerSpec,
    pub(super) reply: oneshot::Sender<Result<Started, StartError>>,
}

/// Owned by the thread. Its runtime is its own too: daemons that block theirs do not stop the
/// watch over workers.
pub(super) struct House {
    runtime: Runtime,
    rooms: Rooms,
    writer: log::Writer,
    hand: Hand,
}

/// What is kept for the workers at work.
struct Rooms {
    records: Records,
    guardian: Guardian,
    logs: Logs,
    pen: log::Pen,
    table: Table,
    memory: HashMap<u32, Memory>,
    page: u64,
}

/// What is known of the memory of one group.
struct Memory {
    /// Where its watch learns it.
    bytes: slot::Sender<u64>,
    limited: bool,
}

impl House {
    pub(super) fn new(records: Records, table: Table) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make the runtime of the workers' thread")?;
        let guardian = Guardian::new().context("start /bin/sh to guard the workers' groups")?;
        let writer = log::Writer::start()?;
        let rooms = Rooms {
            records,
            guardian,
            logs: Logs::default(),
            pen: writer.pen(),
            table,
            memory: HashMap::new(),
            page: rustix::param::page_size() as u64,
        };
        let hand = Hand::new()?;
        Ok(Self { runtime, rooms, writer, hand })
    }

    pub(super) fn run(self, requests: mpsc::Receiver<Request>) {
        let Self { runtime, rooms, writer, hand } = self;
        runtime.block_on(rooms.serve(requests, hand));
        // With it goes whoever could still hand lines to the writer.
        drop(runtime);
        writer.finish(REAP);
    }
}

/// A start that is prepared.
struct Order {
    request: Request,
    mark: String,
    log: log::Shared,
}

/// An order and what became of it.
type Forked = (Order, io::Result<(Child, Ends)>);

/// A second thread that starts workers while the first one does: a start waits for the child's exec,
/// which another core runs meanwhile. It too lives as long as its children, whose parent it is.
struct Hand {
    orders: std::sync::mpsc::SyncSender<Order>,
    forked: mpsc::Receiver<Forked>,
}

impl Hand {
    fn new() -> anyhow::Result<Self> {
        let (orders, receiver) = std::sync::mpsc::sync_channel::<Order>(1);
        let (sender, forked) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("workers-hand".into())
            .spawn(move || {
                for order in receiver {
                    let child = birth::spawn(&order.request.spec, &order.mark);
                    // Nobody waits any more: dropping what was started kills it.
                    drop(sender.blocking_send((order, child)));
                }
            })
            .context("start the thread that helps to start workers")?;
        Ok(Self { orders, forked })
    }

    /// Gives the order back if the hand is busy.
    fn take(&self, order: Order) -> Option<Order> {
        match self.orders.try_send(order) {
            Ok(()) => None,
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => Some(order),
        }
    }
}

impl Rooms {
    async fn serve(mut self, mut requests: mpsc::Receiver<Request>, mut hand: Hand) {
        let mut watches = JoinSet::new();
        let mut counted = Instant::now();
        loop {
            let limited = self.memory.values().any(|memory| memory.limited);
            let census = counted + if limited { CENSUS } else { LAZY_CENSUS };
            tokio::select! {
                request = requests.recv() => {
                    let Some(order) = request else { break };
                    let Some(order) = self.prepare(order) else { continue };
                    // A single start is over sooner without another thread in between.
                    let mine =
                        if requests.is_empty() { Some(order) } else { hand.take(order) };
                    if let Some(order) = mine {
                        let child = birth::spawn(&order.request.spec, &order.mark);
                        self.answer((order, child), &mut watches);
                    }
                }
                Some(forked) = hand.forked.recv() => self.answer(forked, &mut watches),
                Some(ended) = watches.join_next(), if !watches.is_empty() => match ended {
                    Ok(pid) => self.forget(pid),
                    Err(error) => tracing::error!(%error, "the watch over a worker broke"),
                },
                () = sleep_until(census), if !self.memory.is_empty() => {
                    self.take_census();
                    counted = Instant::now();
                }
            }
        }
        // What the hand still holds is answered too: nobody hears it, which ends what was started.
        drop(hand.orders);
        while let Some(forked) = hand.forked.recv().await {
            self.answer(forked, &mut watches);
        }
        // All handles are gone, so every watch is about to kill and reap its group. What takes
        // longer is dropped, which kills as well but leaves the reaping to the end of the process.
        let all_reaped = async { while watches.join_next().await.is_some() {} };
        drop(tokio::time::timeout(REAP, all_reaped).await);
        watches.shutdown().await;
        let left: Vec<u32> = self.memory.keys().copied().collect();
        for pid in left {
            self.forget(pid);
        }
    }

    /// None: refused, and the asker knows.
    fn prepare(&mut self, request: Request) -> Option<Order> {
        let prepared =
            fs_err::create_dir_all(&request.spec.dir).and_then(|()| self.logs.open(&request.spec));
        match prepared {
            Ok(log) => Some(Order { request, mark: self.records.next_mark(), log }),
            Err(source) => {
                let dir = request.spec.dir.clone();
                drop(request.reply.send(Err(StartError::Prepare { dir, source })));
                None
            }
        }
    }

    fn answer(&mut self, (order, child): Forked, watches: &mut JoinSet<u32>) {
        let Order { request: Request { spec, reply }, mark, log } = order;
        let started = match child {
            Ok(born) => self.move_in(&spec, &mark, log, born, watches),
            Err(source) => Err(StartError::Spawn { program: spec.program, source }),
        };
        // Nobody waits any more: dropping what was started kills it.
        drop(reply.send(started));
    }

    fn move_in(
        &mut self,
        spec: &WorkerSpec,
        mark: &str,
        log: log::Shared,
        (child, ends): (Child, Ends),
        watches: &mut JoinSet<u32>,
    ) -> Result<Started, StartError> {
        let pid = child.id();
        let group = watch::Group::new(pid);
        self.guardian.add(pid);
        // From here on an early return drops `group`, which kills what was started.
        let (exit, pipes) = match self.furnish(pid, mark, spec, ends) {
            Ok(furnished) => furnished,
            Err(source) => {
                drop(group);
                watches.spawn(async move {
                    reap(child).await;
                    pid
                });
                return Err(StartError::Prepare { dir: spec.dir.clone(), source });
            }
        };

        let (lines, line_receiver) = mpsc::channel(LINES_WAITING);
        let (end, end_receiver) = oneshot::channel();
        let (memory, memory_receiver) = slot::channel(0);
        let terminate = CancellationToken::new();
        let abandoned = CancellationToken::new();
        let started = Instant::now();
        let limited = spec.limits.memory.is_some();
        self.memory.insert(pid, Memory { bytes: memory, limited });
        let row = Row { program: name(&spec.program), started, memory: 0 };
        self.table.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, row);
        let watch = watch::Watch {
            group,
            child,
            pid,
            exit,
            log,
            pen: self.pen.clone(),
            job: spec.job.clone(),
            limits: spec.limits.clone(),
            started,
            lines,
            memory: memory_receiver,
            terminate: terminate.clone(),
            abandoned: abandoned.clone(),
        };
        watches.spawn(async move {
            let report = watch.until_ended(pipes).await;
            // Nobody waits any more: the worker was dropped.
            drop(end.send(report));
            pid
        });
        Ok(Started {
            pid,
            lines: line_receiver,
            end: end_receiver,
            terminate,
            _abandon: abandoned.drop_guard(),
        })
    }

    /// Notes a child down, and takes its ends into our runtime.
    fn furnish(
        &mut self,
        pid: u32,
        mark: &str,
        spec: &WorkerSpec,
        ends: Ends,
    ) -> io::Result<(AsyncFd<OwnedFd>, watch::Pipes)> {
        self.records.write(pid, mark, &spec.program)?;
        let pipes = watch::Pipes {
            stdin: pipe::Sender::from_owned_fd(ends.stdin)?,
            stdout: pipe::Receiver::from_owned_fd(ends.stdout)?,
            stderr: pipe::Receiver::from_owned_fd(ends.stderr)?,
        };
        Ok((wait_on(ends.exit)?, pipes))
    }

    fn forget(&mut self, pid: u32) {
        self.guardian.remove(pid);
        self.records.remove(pid);
        self.memory.remove(&pid);
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    fn take_census(&self) {
        let stats = match process::all() {
            Ok(stats) => stats,
            Err(error) => return tracing::warn!(%error, "memory of workers cannot be read"),
        };
        let mut pages: HashMap<u32, u64> = HashMap::new();
        for stat in stats.iter().filter(|stat| self.memory.contains_key(&stat.group)) {
            *pages.entry(stat.group).or_default() += stat.resident_pages;
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for (pid, memory) in &self.memory {
            let bytes = pages.get(pid).copied().unwrap_or(0) * self.page;
            // Whoever watches is woken by news only.
            memory.bytes.send_if_modified(|last| std::mem::replace(last, bytes) != bytes);
            if let Some(row) = table.get_mut(pid) {
                row.memory = bytes;
            }
        }
    }
}

/// Waits for one that was killed before it was looked after.
async fn reap(mut child: Child) {
    if let Err(error) = child.reap().await {
        tracing::error!(%error, "end of a worker not known");
    }
}

fn wait_on(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "the only way to await a descriptor that is no pipe or socket")]
    // SAFETY: an `OwnedFd` is open until it is dropped, always names the same descriptor, and the
    // `AsyncFd` owns it.
    let exit = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(exit?)
}

fn name(program: &Path) -> String {
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}
