//! What tests of daemons stand on: a real log, a real depot, real worker processes, a clock that is
//! set by hand.

mod street;

use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use courier::{
    Answer, AppendError, Batch, Courier, DeadLetter, Embedded, Engine, Error, Fact, Fence, Folder,
    Lease, LeaseError, LetterCounts, LetterFilter, LetterState, NewLetter, Options, Page, Repeats,
    Standing, Stream,
};
use ringrift_pipeline::{
    BlobHash, Catalogue, ChampionInstalled, Config, EvaluationCompleted, Event, GamesCommitted,
    Job, MatchResult, ModelCreated, ModelDistributed, ModelId, ModelRef, NodeId, NodeJoined,
    PipelineFold, Record, SamplesExported, SelfplayJob, TestDecision, WindowCombined, WorkId,
};
use tempfile::TempDir;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use warden::{
    Clock, Cx, Daemon, DaemonId, DaemonView, Health, Outcome, Priority, Probe, Snapshot, State,
    Wake, worker::Workers,
};

pub(crate) use street::Street;

use crate::{
    Bell, Blobs, Emits, Loop, Neighbours, Nodes, Pressure, Supervision, Workshop, WorkshopSettings,
};

/// Longest wait for a worker process.
const PATIENCE: Duration = Duration::from_secs(20);

/// The config that tests play.
pub(crate) fn hex() -> Config {
    "hex8_2p".parse().unwrap()
}

/// Another one.
pub(crate) fn square() -> Config {
    "square8_2p".parse().unwrap()
}

/// A short job of self-play.
pub(crate) fn selfplay(model: ModelRef, seed: u64) -> Job {
    Job::Selfplay(SelfplayJob {
        model,
        opponents: Vec::new(),
        opponent_share: 0.0,
        games: 4,
        simulations: 8,
        fast_simulations: 2,
        full_share: 0.5,
        opening_moves: 2,
        temperature_moves: 4,
        temperature: 1.0,
        seed,
    })
}

pub(crate) struct Bed {
    pub(crate) catalogue: Catalogue,
    pub(crate) blobs: Blobs,
    pub(crate) neighbours: Neighbours,
    pub(crate) pressure: Pressure,
    pub(crate) bell: Bell,
    pub(crate) the_loop: Arc<Loop>,
    pub(crate) now: Arc<AtomicI64>,
    woken: Arc<Notify>,
    // Last, so that it goes last.
    dir: TempDir,
}

/// A catalogue as this daemon gets it.
pub(crate) fn handed_to<D: Daemon + Emits>(catalogue: &Catalogue) -> Catalogue {
    catalogue.for_source(format!("{}@here", D::ID)).that_emits(D::EMITS)
}

/// A daemon that runs well, as the supervisor shows it.
pub(crate) fn view_of(id: DaemonId) -> DaemonView {
    DaemonView {
        id,
        priority: Priority::Medium,
        critical: false,
        asked: true,
        state: State::Running,
        cause: None,
        health: Health::Healthy,
        details: serde_json::Value::Null,
        restarts: 0,
        crashes: warden::Crashes::default(),
        last_error: None,
        started_at_ms: None,
        uptime: Duration::ZERO,
        last_beat_age: None,
        in_cycle: None,
        cycles: 0,
        last_cycle: None,
        next_retry_in: None,
    }
}

/// A supervisor that only notes that somebody was woken.
struct Ears(Arc<Notify>);

impl Supervision for Ears {
    fn wake(&self, _: Wake) {
        self.0.notify_one();
    }

    fn wake_daemon(&self, _: DaemonId) {
        self.0.notify_one();
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::default()
    }
}

/// A supervisor under which the daemons run that it was told; it notes whom it wakes. A clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Roster(Arc<Mutex<(Vec<DaemonId>, Vec<DaemonId>)>>);

impl Roster {
    /// The line to it.
    pub(crate) fn bell(&self) -> Bell {
        let bell = Bell::default();
        bell.connect(self.clone());
        bell
    }

    /// These run, no others.
    pub(crate) fn run(&self, daemons: &[DaemonId]) {
        self.0.lock().unwrap().0 = daemons.to_vec();
    }

    /// Whom it woke since it was asked last.
    pub(crate) fn woken(&self) -> Vec<DaemonId> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

impl Supervision for Roster {
    fn wake(&self, _: Wake) {}

    fn wake_daemon(&self, id: DaemonId) {
        self.0.lock().unwrap().1.push(id);
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let daemons = self.0.lock().unwrap().0.iter().map(|id| view_of(*id)).collect();
        Arc::new(Snapshot { daemons, ..Snapshot::default() })
    }
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with(vec![hex()]).await
    }

    pub(crate) async fn with(configs: Vec<Config>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts.sqlite"), Options::default()).unwrap();
        let folder = Folder::open(&dir.path().join("catalogue.sqlite"), PipelineFold, log.clone())
            .await
            .unwrap();
        let depot = depot::Depot::open(dir.path(), depot::Options::default()).unwrap();
        let bell = Bell::default();
        let woken = Arc::new(Notify::new());
        bell.connect(Ears(Arc::clone(&woken)));
        Self {
            catalogue: Catalogue::new(log, folder),
            blobs: Blobs::new(depot),
            neighbours: Neighbours::default(),
            pressure: Pressure::default(),
            bell,
            the_loop: Arc::new(Loop {
                configs,
                node: NodeId("here".into()),
                seed: 7,
                data: dir.path().to_path_buf(),
                profile: crate::STANDALONE,
                standalone: true,
                shared: false,
                memory: 8 << 30,
                nodes: Nodes::default(),
            }),
            now: Arc::new(AtomicI64::new(1_700_000_000_000)),
            woken,
            dir,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    pub(crate) fn clock(&self) -> Clock {
        let now = Arc::clone(&self.now);
        Clock::new(move || now.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn pass_time(&self, time: Duration) {
        self.now.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn cx<D: Daemon>(&self) -> (Cx, Probe) {
        Cx::detached(D::ID, self.clock())
    }

    /// A workshop of two slots whose workers behave like this; see `examples/worker.rs`.
    pub(crate) fn workshop(&self, mode: &str) -> Workshop {
        self.workshop_with(mode, |_| {})
    }

    pub(crate) fn workshop_with(
        &self,
        mode: &str,
        change: impl FnOnce(&mut WorkshopSettings),
    ) -> Workshop {
        let program = vec![worker_program(), mode.to_owned()];
        let mut settings = WorkshopSettings {
            slots: 2,
            program,
            plugins: BTreeMap::new(),
            work_dir: self.dir.path().join("work"),
            log_dir: self.dir.path().join("logs"),
            memory: 1 << 30,
            silence: Duration::from_secs(10),
            grace: Duration::from_millis(500),
        };
        change(&mut settings);
        let workers = Workers::new(&self.dir.path().join("run")).unwrap();
        Workshop::open(
            settings,
            workers,
            self.blobs.clone(),
            self.pressure.clone(),
            self.bell.clone(),
            self.clock(),
        )
        .unwrap()
    }

    /// The catalogue as this daemon gets it: what it records must be declared.
    pub(crate) fn catalogue_of<D: Daemon + Emits>(&self) -> Catalogue {
        handed_to::<D>(&self.catalogue)
    }

    /// The catalogue of a new life of the manager: claims of older epochs are void.
    pub(crate) async fn next_epoch(&self) -> Catalogue {
        let now = self.now.load(Ordering::Relaxed);
        let lease = self
            .catalogue
            .log()
            .acquire("manager", "here", Duration::from_hours(1), now)
            .await
            .unwrap();
        self.catalogue.fenced(lease.fence())
    }

    /// Records events without any expectation.
    pub(crate) async fn record(&self, events: Vec<Event>) {
        for event in events {
            let now = self.now.fetch_add(1, Ordering::Relaxed);
            self.catalogue.record(vec![Record::always(event)], now).await.unwrap();
        }
    }

    pub(crate) fn put(&self, text: &str) -> BlobHash {
        let stored = self.blobs.depot().put_bytes(text.as_bytes(), "bin").unwrap();
        BlobHash(stored.hash.to_string())
    }

    /// A champion of generation 0, handed to this node.
    pub(crate) async fn champion(&self, config: Config) -> ModelId {
        let model = ModelId::new(config, 0);
        let weights = self.put(&format!("weights of {model}"));
        self.record(vec![
            ModelCreated {
                model: model.clone(),
                config,
                generation: 0,
                parent: None,
                weights: weights.clone(),
                bytes: 1,
            }
            .into(),
            ChampionInstalled { model: model.clone(), config }.into(),
            ModelDistributed {
                model: model.clone(),
                config,
                weights,
                node: self.the_loop.node.clone(),
            }
            .into(),
        ])
        .await;
        model
    }

    /// A committed batch with games of these names.
    pub(crate) async fn batch(&self, config: Config, games: &[&str]) -> BlobHash {
        let batch = self.put(&games.join("\n"));
        let count = u32::try_from(games.len()).unwrap();
        self.record(vec![
            GamesCommitted {
                batch: batch.clone(),
                bytes: 1,
                config,
                work: WorkId(format!("work-{batch}")),
                model: ModelId::new(config, 0),
                games: count,
                positions: u64::from(count) * 30,
                seat_wins: vec![count, 0],
                seconds: 1.0,
            }
            .into(),
        ])
        .await;
        batch
    }

    /// A node of the cluster that the log knows.
    pub(crate) async fn node(&self, node: &str) -> NodeId {
        let node = NodeId(node.to_owned());
        let joined = NodeJoined {
            node: node.clone(),
            peer: "ab".repeat(32),
            addresses: vec!["10.0.0.2:4433".into()],
            role: "profile selfplay".into(),
            version: "0.0.0".into(),
            speaks: 1,
            slots: 2,
            playing: 2,
            can: None,
        };
        self.record(vec![joined.into()]).await;
        node
    }

    /// Lets this node have seen these leases, by name, each still for so long; what is not named was
    /// given back.
    pub(crate) fn sees(&self, leases: &[(String, Duration)]) {
        let now = Instant::now();
        let longest = leases.iter().map(|(_, still)| *still).max().unwrap_or_default();
        let held = |number: u64, name: &str| Lease {
            name: name.to_owned(),
            holder: name.to_owned(),
            epoch: number,
            expires_ms: 0,
            note: String::new(),
        };
        // As often as somebody who was never cut off.
        let looks = longest.as_secs() / 2;
        for look in (0..=looks).rev() {
            let ago = Duration::from_secs(look * 2);
            let seen = leases.iter().map(|(name, still)| {
                // Before its last change it had another number.
                held(if ago > *still { 1_000_000 + look } else { still.as_secs() }, name)
            });
            self.the_loop.nodes.note(seen.collect(), now.checked_sub(ago).unwrap());
        }
    }

    /// The same of leases of nodes alone.
    pub(crate) fn sees_nodes(&self, nodes: &[(&NodeId, u64)]) {
        let leases: Vec<(String, Duration)> = nodes
            .iter()
            .map(|(node, still)| (crate::lease_of(node), Duration::from_secs(*still)))
            .collect();
        self.sees(&leases);
    }

    /// The same machine as a node of a cluster.
    pub(crate) fn in_a_cluster(mut self) -> Self {
        let the_loop = (*self.the_loop).clone();
        self.the_loop = Arc::new(Loop { shared: true, standalone: false, ..the_loop });
        self
    }

    /// How many pipeline facts there are.
    pub(crate) async fn facts(&self) -> u64 {
        self.catalogue.log().head(courier::Stream::Pipeline).await.unwrap()
    }

    /// Topics of all pipeline facts, in order.
    pub(crate) async fn topics(&self) -> Vec<String> {
        let facts = self.catalogue.log().read(courier::Stream::Pipeline, 0, 100_000).await.unwrap();
        facts.iter().map(|fact| fact.body["topic"].as_str().unwrap().to_owned()).collect()
    }

    /// An append past the catalogue.
    pub(crate) async fn append(&self, batch: Batch) {
        self.catalogue.log().append(courier::Stream::Pipeline, batch, 1).await.unwrap();
    }

    /// Waits until a worker hands something over or ends, at most as long as a short period.
    pub(crate) async fn woken(&self) {
        // An elapsed period is as good a reason for a cycle as a wake-up.
        drop(tokio::time::timeout(Duration::from_millis(50), self.woken.notified()).await);
    }

    /// Cycles a daemon, waiting for its workers in between, until it says so.
    pub(crate) async fn cycle_until<D, F>(
        &self,
        daemon: &mut D,
        cx: &Cx,
        mut enough: impl FnMut(Outcome<D::Status>) -> F,
    ) where
        D: Daemon,
        F: Future<Output = bool>,
    {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let outcome = daemon.cycle(cx).await.unwrap();
            if enough(outcome).await {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{} does not get there", D::ID);
            self.woken().await;
        }
    }
}

/// A stop in the middle of a cycle ends it there, and leaves no fact half made.
pub(crate) async fn stops_in_mid_cycle<D: Daemon>(bed: &Bed, mut daemon: D) {
    let (cx, probe) = bed.cx::<D>();
    probe.stop_at_beat(1);
    let before = bed.facts().await;
    let Err(error) = daemon.cycle(&cx).await else { panic!("{} does not notice", D::ID) };
    assert!(error.is::<warden::Stopping>(), "{error:#}");
    assert_eq!(bed.facts().await, before);
}

/// The status of a cycle that was done.
pub(crate) fn done<S>(outcome: anyhow::Result<Outcome<S>>) -> S {
    match outcome.unwrap() {
        Outcome::Done(status) => status,
        Outcome::Blocked { reason, .. } => panic!("blocked: {reason}"),
    }
}

/// The reason of a cycle that was blocked.
pub(crate) fn blocked<S>(outcome: anyhow::Result<Outcome<S>>) -> String {
    match outcome.unwrap() {
        Outcome::Done(_) => panic!("not blocked"),
        Outcome::Blocked { reason, .. } => reason,
    }
}

fn worker_program() -> String {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples/worker");
    assert!(program.exists(), "{}: build it with `cargo build --examples`", program.display());
    program.to_str().unwrap().to_owned()
}

/// A match of this many pairs, won or lost clearly.
pub(crate) fn match_result(a: &str, b: &str, score: f64, elo: f64) -> MatchResult {
    let decision = if elo > 0.0 { TestDecision::Stronger } else { TestDecision::NotStronger };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let wins = (score * 100.0).round() as u32;
    // Every pair is even or swept, so that they add up for any even number of wins.
    MatchResult {
        a: a.into(),
        b: b.into(),
        games: 100,
        wins,
        losses: 100 - wins,
        pairs: [50 - wins / 2, 0, wins / 2],
        score,
        elo,
        elo_low: elo - 30.0,
        elo_high: elo + 30.0,
        llr: 3.0 * elo.signum(),
        decision: Some(decision),
        finishes: None,
        distinct_games: 100,
        book: None,
        seconds: 1.0,
    }
}

/// A candidate of this generation with a gauntlet against `against`.
pub(crate) async fn evaluated(
    bed: &Bed,
    config: Config,
    generation: u32,
    against: u32,
    elo: f64,
) -> ModelId {
    let model = candidate(bed, config, generation).await;
    let main = match_result(model.as_str(), "the champion", if elo > 0.0 { 0.7 } else { 0.3 }, elo);
    let guard = (elo > 0.0).then(|| match_result(model.as_str(), "random", 0.9, 380.0));
    bed.record(vec![
        EvaluationCompleted {
            model: model.clone(),
            config,
            against: ModelId::new(config, against),
            main: Some(main),
            guard: guard.map(Box::new),
            heuristic: None,
            fault: None,
        }
        .into(),
    ])
    .await;
    model
}

/// A candidate of this generation.
pub(crate) async fn candidate(bed: &Bed, config: Config, generation: u32) -> ModelId {
    let model = ModelId::new(config, generation);
    let weights = bed.put(&format!("weights of {model}"));
    bed.record(vec![
        ModelCreated {
            model: model.clone(),
            config,
            generation,
            parent: Some(ModelId::new(config, 0)),
            weights,
            bytes: 1,
        }
        .into(),
    ])
    .await;
    model
}

/// A sample file with so many rows.
pub(crate) async fn samples(bed: &Bed, config: Config, name: &str, rows: u64) -> BlobHash {
    let samples = bed.put(&format!("samples {name}"));
    bed.record(vec![
        SamplesExported {
            samples: samples.clone(),
            bytes: 1,
            config,
            batches: Vec::new(),
            rows,
            games: rows / 30,
            encoder: "test-1".into(),
        }
        .into(),
    ])
    .await;
    samples
}

/// A window of these sample files.
pub(crate) async fn window(bed: &Bed, config: Config, samples: &[BlobHash], rows: u64) -> BlobHash {
    let window = bed.put(&format!("window of {samples:?}"));
    bed.record(vec![
        WindowCombined {
            window: window.clone(),
            bytes: 1,
            config,
            samples: samples.to_vec(),
            rows,
            games: rows / 30,
        }
        .into(),
    ])
    .await;
    window
}

/// A log that says "no space is left" while it is told to, and else is the log behind it.
pub(crate) struct FullDisk {
    log: Courier,
    full: Arc<AtomicBool>,
    error: fn() -> Error,
}

impl FullDisk {
    /// A catalogue beside the bed's, on the same log, and its switch.
    /// It shows what was recorded before this call.
    pub(crate) async fn below(bed: &Bed) -> (Catalogue, Arc<AtomicBool>) {
        Self::with(bed, || Error::Full { path: "facts.sqlite".into() }).await
    }

    /// The same with a log that is out of reach.
    pub(crate) async fn beyond(bed: &Bed) -> (Catalogue, Arc<AtomicBool>) {
        Self::with(bed, || Error::Unavailable("nobody answers".into())).await
    }

    async fn with(bed: &Bed, error: fn() -> Error) -> (Catalogue, Arc<AtomicBool>) {
        let log = bed.catalogue.log().clone();
        let path = bed.data().join("beside.sqlite");
        let folder = Folder::open(&path, PipelineFold, log.clone()).await.unwrap();
        let head = log.head(Stream::Pipeline).await.unwrap();
        folder.caught_up(head, PATIENCE).await.unwrap();
        let full = Arc::new(AtomicBool::new(false));
        let disk = Self { log, full: Arc::clone(&full), error };
        (Catalogue::new(Courier::new(disk), folder), full)
    }
}

macro_rules! delegate {
    ($(fn $name:ident$(<$life:lifetime>)?($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name$(<$life>)?(&$($life)? self, $($arg: $type),*) -> $answer {
            self.log.$name($($arg),*)
        })*
    };
}

type Said<'a, T> = Answer<'a, Result<T, Error>>;

impl Engine for FullDisk {
    fn append(
        &self,
        stream: Stream,
        batch: Batch,
        now_ms: i64,
    ) -> Answer<'_, Result<Vec<u64>, AppendError>> {
        if self.full.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err((self.error)().into())));
        }
        self.log.append(stream, batch, now_ms)
    }

    delegate! {
        fn read<'a>(stream: Stream, after: u64, limit: usize) -> Said<'a, Vec<Fact>>;
        fn last_on<'a>(stream: Stream, subject: &'a str) -> Said<'a, Option<Fact>>;
        fn last_below<'a>(stream: Stream, subject: &'a str) -> Said<'a, Vec<Fact>>;
        fn head<'a>(stream: Stream) -> Said<'a, u64>;
        fn identity<'a>() -> Said<'a, String>;
        fn position<'a>(stream: Stream, subscriber: &'a str) -> Said<'a, u64>;
        fn advance<'a>(stream: Stream, subscriber: &'a str, to: u64) -> Said<'a, ()>;
        fn standings<'a>() -> Said<'a, Vec<Standing>>;
        fn next<'a>(stream: Stream, after: u64, prefix: &'a str, limit: usize) -> Said<'a, Page>;
        fn attempt<'a>(stream: Stream, subscriber: &'a str, position: u64) -> Said<'a, u32>;
        fn bury<'a>(letter: NewLetter, now_ms: i64) -> Said<'a, u64>;
        fn dead_letters<'a>(filter: LetterFilter) -> Said<'a, Vec<DeadLetter>>;
        fn letter_counts<'a>() -> Said<'a, LetterCounts>;
        fn retry<'a>(letter: u64, fence: Option<Fence>, now_ms: i64) -> Said<'a, ()>;
        fn settle<'a>(letter: u64, fence: Option<Fence>, state: LetterState, error: Option<String>) -> Said<'a, ()>;
        fn purge_letters<'a>(fence: Option<Fence>, buried_before_ms: i64) -> Said<'a, u64>;
        fn acquire<'a>(name: &'a str, holder: &'a str, ttl: Duration, now_ms: i64)
            -> Answer<'a, Result<Lease, LeaseError>>;
        fn renew<'a>(lease: &'a Lease, ttl: Duration, now_ms: i64)
            -> Answer<'a, Result<Lease, LeaseError>>;
        fn release<'a>(lease: &'a Lease) -> Said<'a, ()>;
        fn lease<'a>(name: &'a str, now_ms: i64) -> Said<'a, Option<Lease>>;
        fn leases<'a>(prefix: &'a str, now_ms: i64) -> Said<'a, Vec<Lease>>;
    }

    fn repeats(&self, stream: Stream) -> Repeats {
        self.log.repeats(stream)
    }

    fn tail(&self, stream: Stream) -> watch::Receiver<u64> {
        self.log.tail(stream)
    }
}
