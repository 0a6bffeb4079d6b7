//! The workshop: heavy work in worker processes, as many at a time as there are slots.
//!
//! It runs what it is given and hands back what came out, verified; which work is due, and what its
//! result means, is the daemons' affair.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use ringrift_pipeline::{
    Artefact, BlobHash, Config, Job, WORKER_CONTRACT, WorkId, WorkKind, WorkerJob, WorkerLine,
};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{info, warn};
use warden::{
    Clock, DaemonId,
    worker::{Cause, Exit, Limits, WorkerEnd, WorkerLine as Line, WorkerSpec, Workers},
};

use crate::{Bell, Blobs, Pressure, blobs::parse};

/// How workers are run.
#[derive(Debug, Clone)]
pub struct WorkshopSettings {
    /// Long-running workers at a time; one per core, each with one thread. Short derivations (check,
    /// export, combine) have one slot of their own beside these.
    pub slots: usize,
    /// The built-in worker program and its first arguments.
    pub program: Vec<String>,
    /// Programs that replace it, by kind of job.
    pub plugins: BTreeMap<String, Vec<String>>,
    /// Folder for the working directories.
    pub work_dir: PathBuf,
    /// Folder for the workers' stderr.
    pub log_dir: PathBuf,
    /// Most resident memory of one worker and its children, bytes.
    pub memory: u64,
    /// Longest silence on stdout.
    pub silence: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// Work to run.
#[derive(Debug, Clone)]
pub struct Order {
    /// Names the run in logs and in its folder.
    pub work: WorkId,
    /// Counts from 1.
    pub attempt: u32,
    /// Configuration of the game.
    pub config: Config,
    /// What to do.
    pub job: Job,
    /// Who is woken when it ends.
    pub owner: DaemonId,
}

/// A file that a worker made, safe in the depot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// What it is.
    pub role: String,
    /// Its hash.
    pub hash: BlobHash,
    /// Its size.
    pub bytes: u64,
}

/// A run that ended well.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// What it made.
    pub products: Vec<Product>,
    /// What it reported; one of the pipeline's `...Report` types.
    pub report: serde_json::Value,
    /// Wall seconds.
    pub seconds: f64,
    /// It was asked to stop on the way, so it may have done less than its job.
    pub early: bool,
}

impl Finished {
    /// The one product of a role.
    pub fn product(&self, role: &str) -> Result<&Product, WorkError> {
        let mut found = self.products.iter().filter(|product| product.role == role);
        match (found.next(), found.next()) {
            (Some(product), None) => Ok(product),
            (None, _) => Err(WorkError::Lied(format!("the worker handed over no file '{role}'"))),
            (Some(_), Some(_)) => {
                Err(WorkError::Lied(format!("the worker handed over two files '{role}'")))
            }
        }
    }

    /// The report as its type.
    pub fn report_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, WorkError> {
        serde_json::from_value(self.report.clone())
            .map_err(|e| WorkError::Lied(format!("the worker's report has another shape: {e}")))
    }
}

/// Why a run gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// It was stopped on request; nothing is wrong.
    #[error("stopped on request")]
    Stopped,
    /// An obstacle that is not the work's fault: give it back, no attempt is used up.
    #[error("{0}")]
    Obstacle(String),
    /// The attempt failed; another may succeed.
    #[error("{0}")]
    Failed(String),
    /// Trying again is pointless.
    #[error("{0}")]
    Never(String),
    /// The worker handed over something that is not so; nothing of it is used.
    #[error("the worker lied: {0}")]
    Lied(String),
}

/// What a running worker says.
#[derive(Debug)]
pub enum Report {
    /// It lives and is so far.
    Progress,
    /// It handed over a file before its end (a checkpoint).
    Product(Product),
    /// It ended.
    End(Result<Finished, WorkError>),
}

/// A run in progress; dropping it stops the worker.
#[derive(Debug)]
pub struct Running {
    reports: mpsc::Receiver<Report>,
    stop: CancellationToken,
    _dropped: DropGuard,
    /// What was ordered.
    pub order: Order,
}

impl Running {
    /// The next report; after [`Report::End`] none follows.
    pub async fn next(&mut self) -> Report {
        self.reports.recv().await.unwrap_or_else(Self::lost)
    }

    /// The next report if there is one already.
    pub fn try_next(&mut self) -> Option<Report> {
        match self.reports.try_recv() {
            Ok(report) => Some(report),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => Some(Self::lost()),
        }
    }

    /// Asks the worker to finish the unit in hand; its end is still reported.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    fn lost() -> Report {
        Report::End(Err(WorkError::Failed("the workshop dropped the run".into())))
    }
}

/// A running worker, for people.
#[derive(Debug, Clone, Serialize)]
pub struct LiveWork {
    /// Names the run.
    pub work: WorkId,
    /// Its kind.
    pub kind: &'static str,
    /// Configuration of the game.
    pub config: Config,
    /// Counts from 1.
    pub attempt: u32,
    /// The worker process; none while it waits for a slot.
    pub pid: Option<u32>,
    /// Since when, ms.
    pub since_ms: i64,
    /// Units done.
    pub done: u64,
    /// Units in all, 0 when unknown.
    pub total: u64,
    /// One short phrase.
    pub note: String,
    /// Anything that a page may draw.
    pub view: Option<serde_json::Value>,
}

impl LiveWork {
    /// Whether it has the slot of short derivations.
    pub fn is_short(&self) -> bool {
        is_short(self.kind)
    }
}

/// The workshop; a clone is the same one.
#[derive(Clone)]
pub struct Workshop(Arc<Shop>);

struct Shop {
    settings: WorkshopSettings,
    workers: Workers,
    blobs: Blobs,
    pressure: Pressure,
    bell: Bell,
    clock: Clock,
    slots: Arc<Semaphore>,
    /// The one slot of short derivations: they would wait behind games most of their life.
    aside: Arc<Semaphore>,
    /// What is claimed here, by how many.
    kinds: Mutex<BTreeMap<WorkKind, usize>>,
    /// By the number of the run: an item that is given back and taken again has, for a moment, two.
    live: Mutex<BTreeMap<u64, LiveWork>>,
    runs: AtomicU64,
    tasks: TaskTracker,
}

impl Workshop {
    /// Opens the workshop; working directories of an earlier life are removed.
    pub fn open(
        settings: WorkshopSettings,
        workers: Workers,
        blobs: Blobs,
        pressure: Pressure,
        bell: Bell,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        if settings.work_dir.exists() {
            fs_err::remove_dir_all(&settings.work_dir).context("clear the working directories")?;
        }
        fs_err::create_dir_all(&settings.work_dir)?;
        fs_err::create_dir_all(&settings.log_dir)?;
        let slots = Arc::new(Semaphore::new(settings.slots));
        Ok(Self(Arc::new(Shop {
            settings,
            workers,
            blobs,
            pressure,
            bell,
            clock,
            slots,
            aside: Arc::new(Semaphore::new(1)),
            kinds: Mutex::default(),
            live: Mutex::new(BTreeMap::new()),
            runs: AtomicU64::new(0),
            tasks: TaskTracker::new(),
        })))
    }

    /// The store that it takes inputs from.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// Workers that may run at a time.
    pub fn slots(&self) -> usize {
        self.0.settings.slots
    }

    /// Slots that nobody uses or waits for now.
    pub fn free(&self) -> usize {
        let taken = self.0.lock_live().values().filter(|live| !live.is_short()).count();
        self.0.settings.slots.saturating_sub(taken)
    }

    /// Somebody here claims work of this kind from now on, or no more.
    pub(crate) fn claims(&self, kind: WorkKind, claims: bool) {
        let mut kinds = self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let count = kinds.entry(kind).or_default();
        *count = if claims { *count + 1 } else { count.saturating_sub(1) };
    }

    /// The kinds of work that are claimed here.
    pub(crate) fn kinds(&self) -> BTreeSet<WorkKind> {
        let kinds = self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.iter().filter(|(_, count)| **count > 0).map(|(kind, _)| *kind).collect()
    }

    /// What runs or waits for a slot now.
    pub fn live(&self) -> Vec<LiveWork> {
        self.0.lock_live().values().cloned().collect()
    }

    /// Starts a run; it waits for a slot in order of arrival. It ends early when `stop` is cancelled
    /// or the [`Running`] is dropped.
    pub fn start(&self, order: Order, stop: &CancellationToken) -> Running {
        let (send, reports) = mpsc::channel(64);
        let stop = stop.child_token();
        let running = Running {
            reports,
            stop: stop.clone(),
            _dropped: stop.clone().drop_guard(),
            order: order.clone(),
        };
        let inner = Arc::clone(&self.0);
        let number = inner.runs.fetch_add(1, Ordering::Relaxed);
        inner.enter(number, &order);
        self.0.tasks.spawn(async move {
            let end =
                Run { shop: &inner, number, order: &order, stop: &stop, send: &send }.all().await;
            inner.lock_live().remove(&number);
            match &end {
                // Somebody wanted it so; that shows no fault.
                Err(WorkError::Stopped) => info!(work = %order.work, "worker stopped on request"),
                Err(error) => {
                    warn!(work = %order.work, attempt = order.attempt, %error, "worker gave nothing");
                }
                Ok(_) => {}
            }
            // A closed channel: the owner is gone, and with it the interest in the end.
            drop(send.send(Report::End(end)).await);
            inner.bell.wake_daemon(order.owner);
        });
        running
    }

    /// Waits until nothing runs any more.
    pub async fn closed(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Shop {
    fn lock_live(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, LiveWork>> {
        // Only plain assignments happen under the lock; a poisoned one holds no broken state.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, number: u64, order: &Order) {
        let live = LiveWork {
            work: order.work.clone(),
            kind: order.job.kind(),
            config: order.config,
            attempt: order.attempt,
            pid: None,
            since_ms: self.clock.now_ms(),
            done: 0,
            total: 0,
            note: "waits for a slot".into(),
            view: None,
        };
        self.lock_live().insert(number, live);
    }
}

/// Derivations of seconds, against games and trainings of minutes.
fn is_short(kind: &str) -> bool {
    matches!(kind, "seed" | "check" | "export" | "combine")
}

/// One run: a slot, a directory, a worker.
struct Run<'a> {
    shop: &'a Shop,
    number: u64,
    order: &'a Order,
    stop: &'a CancellationToken,
    send: &'a mpsc::Sender<Report>,
}

impl Run<'_> {
    async fn all(&self) -> Result<Finished, WorkError> {
        let shop = self.shop;
        let slots = if is_short(self.order.job.kind()) { &shop.aside } else { &shop.slots };
        let slot = tokio::select! {
            () = self.stop.cancelled() => return Err(WorkError::Stopped),
            slot = Arc::clone(slots).acquire_owned() => slot,
        };
        let Ok(_slot) = slot else { return Err(WorkError::Stopped) };
        if let Some((_, obstacle)) = shop.pressure.obstacle() {
            return Err(WorkError::Obstacle(obstacle.reason));
        }
        let dir = shop.settings.work_dir.join(format!("{}-{}", self.order.work, self.number));
        let result = self.within(&dir).await;
        // Whatever is worth keeping is in the depot by now.
        if let Err(error) = fs_err::tokio::remove_dir_all(&dir).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(work = %self.order.work, %error, "working directory stays behind");
        }
        result
    }

    async fn within(&self, dir: &Path) -> Result<Finished, WorkError> {
        let (shop, order) = (self.shop, self.order);
        let obstacle =
            |e: std::io::Error| WorkError::Obstacle(format!("prepare {}: {e}", order.work));
        fs_err::tokio::create_dir_all(dir).await.map_err(obstacle)?;
        let spec = self.spec(dir).await?;
        let started = tokio::time::Instant::now();
        let mut worker = shop
            .workers
            .start(spec)
            .await
            .map_err(|e| WorkError::Failed(format!("start the worker: {e:#}")))?;
        if let Some(live) = shop.lock_live().get_mut(&self.number) {
            live.pid = Some(worker.pid());
            live.note.clear();
        }
        let mut talk = Talk { shop, number: self.number, dir, products: Vec::new(), report: None };
        let mut fault = None;
        let mut stopping = false;
        loop {
            let line = tokio::select! {
                // A worker that is asked to stop finishes the unit in hand: what it hands over on
                // its way out counts.
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    worker.terminate();
                    continue;
                }
                line = worker.next_line() => line,
            };
            let Some(line) = line else { break };
            if fault.is_some() {
                continue; // read to its end, so that it is never blocked on a full pipe
            }
            match talk.hear(line).await {
                // "So far" is old news when the owner has not listened to the one before.
                Ok(Some(Report::Progress)) => drop(self.send.try_send(Report::Progress)),
                // A closed channel: the owner is gone; `stop` is cancelled by its drop.
                Ok(Some(report)) => {
                    drop(self.send.send(report).await);
                    shop.bell.wake_daemon(order.owner);
                }
                Ok(None) => {}
                Err(found) => {
                    worker.terminate();
                    fault = Some(found);
                }
            }
        }
        let Talk { products, report, .. } = talk;
        let end = worker.finished().await;
        if let Some(fault) = fault {
            return Err(fault);
        }
        let seconds = started.elapsed().as_secs_f64();
        let last = last_words(&end);
        match end.exit {
            Exit::Done if stopping && report.is_none() => Err(WorkError::Stopped),
            Exit::Done => {
                let report = report
                    .ok_or_else(|| WorkError::Lied("it ended well without a report".into()))?;
                info!(work = %order.work, attempt = order.attempt, seconds, "worker done");
                Ok(Finished { products, report, seconds, early: stopping })
            }
            Exit::TryAgain => {
                Err(WorkError::Obstacle(format!("the worker asks to try again{last}")))
            }
            Exit::NeverAgain => Err(WorkError::Never(format!("the worker refuses the job{last}"))),
            Exit::Failed(code) => {
                Err(WorkError::Failed(format!("the worker left with code {code}{last}")))
            }
            Exit::Signal(signal) => {
                Err(WorkError::Failed(format!("the worker was ended by signal {signal}{last}")))
            }
            Exit::KilledFor(Cause::Stopped) => Err(WorkError::Stopped),
            Exit::KilledFor(cause) => {
                let why = match cause {
                    Cause::Memory => {
                        format!("it held more than {} bytes of memory", shop.settings.memory)
                    }
                    Cause::Silence => format!("it said nothing for {:?}", shop.settings.silence),
                    Cause::TooLong | Cause::Stopped => "it ran too long".to_owned(),
                };
                Err(WorkError::Failed(format!("the worker was ended: {why}{last}")))
            }
        }
    }

    async fn spec(&self, dir: &Path) -> Result<WorkerSpec, WorkError> {
        let (settings, order) = (&self.shop.settings, self.order);
        let mut inputs = BTreeMap::new();
        for hash in order.job.inputs() {
            let path = self
                .shop
                .blobs
                .path_of(&hash)
                .await
                .map_err(|e| WorkError::Obstacle(format!("look for the input {hash}: {e:#}")))?
                .ok_or_else(|| WorkError::Never(format!("the input {hash} is not in the store")))?;
            inputs.insert(hash, path);
        }
        let kind = order.job.kind();
        let job = WorkerJob {
            contract: WORKER_CONTRACT,
            work: order.work.clone(),
            attempt: order.attempt,
            dir: dir.to_path_buf(),
            config: order.config,
            inputs,
            job: order.job.clone(),
        };
        let job = serde_json::to_string(&job)
            .map_err(|e| WorkError::Never(format!("write the job as JSON: {e}")))?;
        let command = settings.plugins.get(kind).unwrap_or(&settings.program);
        let (program, args) = command
            .split_first()
            .ok_or_else(|| WorkError::Never(format!("workers.{kind}: no program is named")))?;
        Ok(WorkerSpec {
            program: program.into(),
            args: args.to_vec(),
            // One thread each: intra-op pools of two workers fight for the same cores
            // (measured: PyTorch falls to a hundredth when a core is busy).
            env: vec![("OMP_NUM_THREADS".into(), "1".into())],
            dir: dir.to_path_buf(),
            job,
            limits: Limits {
                memory: Some(settings.memory),
                beat: settings.silence,
                run: None,
                grace: settings.grace,
            },
            log: settings.log_dir.join(format!("{kind}.log")),
            log_max_bytes: 4 << 20,
            log_keep: 3,
        })
    }
}

/// What a worker says, taken at its word only as far as it can be checked.
struct Talk<'a> {
    shop: &'a Shop,
    number: u64,
    dir: &'a Path,
    products: Vec<Product>,
    report: Option<serde_json::Value>,
}

impl Talk<'_> {
    async fn hear(&mut self, line: Line) -> Result<Option<Report>, WorkError> {
        let line = match line {
            Line::Text(line) => line,
            Line::Oversized { bytes } => {
                return Err(WorkError::Lied(format!("a line of {bytes} bytes")));
            }
        };
        let line: WorkerLine = serde_json::from_str(&line).map_err(|e| {
            let start: String = line.chars().take(80).collect();
            WorkError::Lied(format!("a line that the contract does not know ('{start}'): {e}"))
        })?;
        match line {
            WorkerLine::Beat => Ok(Some(Report::Progress)),
            WorkerLine::Progress { done, total, note, view } => {
                if let Some(live) = self.shop.lock_live().get_mut(&self.number) {
                    live.done = done;
                    live.total = total;
                    live.note = note;
                    live.view = view.or_else(|| live.view.take());
                }
                Ok(Some(Report::Progress))
            }
            WorkerLine::Artefact(artefact) => {
                let product = self.take_in(&artefact).await?;
                self.products.push(product.clone());
                Ok(Some(Report::Product(product)))
            }
            WorkerLine::Result { report } => {
                if self.report.replace(report).is_some() {
                    return Err(WorkError::Lied("two reports".into()));
                }
                Ok(None)
            }
        }
    }

    /// Moves a file into the depot if it is what the worker says it is.
    async fn take_in(&self, artefact: &Artefact) -> Result<Product, WorkError> {
        let name = &artefact.file;
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if !plain {
            return Err(WorkError::Lied(format!("'{name}' is no plain file name")));
        }
        let claimed = parse(&artefact.hash)
            .map_err(|_| WorkError::Lied(format!("'{}' is no hash", artefact.hash)))?;
        let path = self.dir.join(name);
        let meta = fs_err::tokio::symlink_metadata(&path).await.map_err(|_| {
            WorkError::Lied(format!("it names the file '{name}', which is not there"))
        })?;
        if !meta.is_file() {
            return Err(WorkError::Lied(format!("'{name}' is not a plain file")));
        }
        if meta.len() != artefact.bytes {
            return Err(WorkError::Lied(format!(
                "'{name}' has {} bytes, not {}",
                meta.len(),
                artefact.bytes
            )));
        }
        let extension = name.rsplit_once('.').map_or("bin", |(_, last)| last).to_owned();
        let stored = self
            .shop
            .blobs
            .with(move |depot| depot.put_file_as(&path, &extension, &claimed))
            .await
            .map_err(|e| WorkError::Failed(format!("{e:#}")))?;
        match stored {
            Ok(stored) => Ok(Product {
                role: artefact.role.clone(),
                hash: BlobHash(stored.hash.to_string()),
                bytes: stored.bytes,
            }),
            Err(depot::Error::NotAsPromised { actual, .. }) => Err(WorkError::Lied(format!(
                "'{name}' has the hash {actual}, not {}",
                artefact.hash
            ))),
            Err(error) if error.is_full() => {
                Err(WorkError::Obstacle(format!("no space is left for '{name}': {error}")))
            }
            Err(depot::Error::Extension(_)) => {
                Err(WorkError::Lied(format!("'{name}' has no ending that the store takes")))
            }
            Err(error) => Err(WorkError::Failed(format!("store '{name}': {error}"))),
        }
    }
}

/// The end of its standard error, for a message.
fn last_words(end: &WorkerEnd) -> String {
    match end.last_words.last() {
        Some(line) => format!(": {}", line.trim()),
        None => String::new(),
    }
}
