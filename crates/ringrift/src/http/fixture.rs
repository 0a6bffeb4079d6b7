//! A manager for tests: a real log and catalogue in a folder of their own, and a snapshot that the
//! test writes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use courier::{Embedded, Folder, Lease};
use futures_util::future::BoxFuture;
use ringrift_daemons::{LEADER, LiveWork, Loop, NodeReport, Pressure, find, lease_of, profile};
use ringrift_pipeline::{
    BatchAccepted, BlobHash, Capabilities, Catalogue, ChampionInstalled, Config,
    DaemonStatusChanged, EvaluationCompleted, Event, GamesCommitted, Job, MatchPlayed, MatchResult,
    ModelAccepted, ModelCreated, ModelDistributed, ModelId, ModelPromoted, ModelRef, ModelRejected,
    NodeId, NodeJoined, Operational, PipelineFold, Record, SamplesExported, SelfplayJob,
    TestDecision, TrainReport, TrainingCompleted, WindowCombined, WorkClaimed, WorkCompleted,
    WorkId, WorkKind, WorkQueued,
};
use ringrift_rules::{Options, SplitMix64, State as Game};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warden::{DaemonId, DaemonView, Health, Priority, Snapshot, State};

use super::{Http, Operator, Sources};
use crate::{
    control::{Answer, Request, Selection},
    view::BoardView,
};

/// Some instant of 2026, ms.
pub(super) const START_MS: i64 = 1_790_000_000_000;

/// The manager that is shown.
pub(super) struct World {
    catalogue: Catalogue,
    pub(super) snapshot: Mutex<Option<Arc<Snapshot>>>,
    pub(super) live: Mutex<Vec<LiveWork>>,
    pub(super) pressure: Pressure,
    /// What operators asked.
    pub(super) asked: Mutex<Vec<Request>>,
    /// How often somebody wanted the catalogue.
    pub(super) looks: AtomicUsize,
    the_loop: Loop,
    started_ms: i64,
    now_ms: AtomicI64,
    _dir: TempDir,
}

impl Sources for World {
    fn catalogue(&self) -> &Catalogue {
        self.looks.fetch_add(1, Ordering::Relaxed);
        &self.catalogue
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.lock().unwrap().clone()
    }

    fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    fn live(&self) -> Vec<LiveWork> {
        self.live.lock().unwrap().clone()
    }

    fn slots(&self) -> usize {
        2
    }

    fn the_loop(&self) -> &Loop {
        &self.the_loop
    }

    fn started_ms(&self) -> i64 {
        self.started_ms
    }

    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }
}

/// The token that [`World::serve`] asks for.
pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Notes what is asked. Stands for `Control`, which needs workers and a supervisor; with the real one
/// the binary is tested.
impl Operator for World {
    fn answer(&self, request: Request) -> BoxFuture<'_, Answer> {
        let answer = match &request {
            Request::Stop { daemon: Some(name) } if find(name).is_err() => {
                Answer::Refused(format!("unknown daemon '{name}'"))
            }
            Request::Start(Selection::Daemons(names)) if find(&names[0]).is_err() => {
                Answer::Refused(format!("unknown daemon '{}'", names[0]))
            }
            Request::Start(Selection::Profile(name)) if profile(name).is_none() => {
                Answer::Refused(format!("unknown profile '{name}'"))
            }
            Request::Retry { force: false, .. } => Answer::Refused("nothing to retry".into()),
            Request::Restart { .. } => Answer::Failed("the supervisor is gone".into()),
            _ => Answer::Ok(json!({ "done": true })),
        };
        self.asked.lock().unwrap().push(request);
        Box::pin(std::future::ready(answer))
    }
}

impl World {
    /// A manager that has just begun: nothing was ever recorded, no supervisor yet.
    pub(super) async fn empty() -> Arc<Self> {
        Self::starting_at(START_MS).await
    }

    /// The same at another time.
    pub(super) async fn starting_at(now_ms: i64) -> Arc<Self> {
        Arc::new(Self::alone(now_ms).await)
    }

    /// One of several nodes, the first of which leads; each says this of itself.
    pub(super) async fn of_a_cluster(nodes: &[(String, NodeReport)]) -> Arc<Self> {
        let mut world = Self::alone(START_MS).await;
        world.the_loop.shared = true;
        let (log, ttl) = (world.catalogue.log().clone(), Duration::from_mins(1));
        for (number, (name, report)) in nodes.iter().enumerate() {
            let node = NodeId(name.clone());
            world.record([joined(&node).into()]).await;
            let lease = log.acquire(&lease_of(&node), name, ttl, START_MS).await.unwrap();
            let said = serde_json::to_string(report).unwrap();
            log.renew(&Lease { note: said, ..lease }, ttl, START_MS).await.unwrap();
            if number == 0 {
                log.acquire(LEADER, name, ttl, START_MS).await.unwrap();
                world.the_loop.node = node;
            }
        }
        world.the_loop.nodes.look(&log).await.unwrap();
        Arc::new(world)
    }

    async fn alone(now_ms: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts.sqlite"), courier::Options::default());
        let log = log.unwrap();
        let folder =
            Folder::open(&dir.path().join("catalogue.sqlite"), PipelineFold, log.clone()).await;
        Self {
            catalogue: Catalogue::new(log, folder.unwrap()),
            snapshot: Mutex::new(None),
            live: Mutex::new(Vec::new()),
            pressure: Pressure::default(),
            asked: Mutex::default(),
            looks: AtomicUsize::new(0),
            the_loop: Loop {
                configs: vec!["hex8_2p".parse().unwrap(), "square8_2p".parse().unwrap()],
                node: NodeId("laptop".into()),
                seed: 7,
                data: dir.path().to_path_buf(),
                profile: ringrift_daemons::STANDALONE,
                standalone: true,
                shared: false,
                memory: 8 << 30,
                nodes: ringrift_daemons::Nodes::default(),
            },
            started_ms: now_ms,
            now_ms: AtomicI64::new(now_ms),
            _dir: dir,
        }
    }

    /// Lets time pass.
    pub(super) fn at(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Records events, whatever their subject's state.
    pub(super) async fn record(&self, events: impl IntoIterator<Item = Event>) {
        let records = events.into_iter().map(Record::always).collect();
        self.catalogue.record(records, self.now_ms()).await.unwrap();
    }

    /// Shows these daemons.
    pub(super) fn show(&self, daemons: Vec<DaemonView>) {
        let uptime = u64::try_from(self.now_ms() - self.started_ms).unwrap();
        let snapshot = Snapshot {
            daemons,
            uptime: Duration::from_millis(uptime),
            turned_at_ms: self.now_ms(),
            breaker: warden::BreakerStatus::default(),
            stopping: false,
        };
        *self.snapshot.lock().unwrap() = Some(Arc::new(snapshot));
    }

    /// Serves it on a free port, until the guard is dropped.
    pub(super) fn serve(self: &Arc<Self>, port: u16) -> Served {
        let http = Http::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
        let stop = CancellationToken::new();
        let sources = Arc::clone(self) as Arc<dyn Sources>;
        let operator = (Arc::clone(self) as Arc<dyn Operator>, TOKEN.to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&http).serve(sources, operator, stop.clone()));
        Served { http, stop, tasks }
    }
}

fn joined(node: &NodeId) -> NodeJoined {
    NodeJoined {
        node: node.clone(),
        peer: "0".repeat(64),
        addresses: vec!["10.0.0.1:4433".into()],
        role: "profile selfplay".into(),
        version: "0.0.0".into(),
        speaks: 1,
        slots: 4,
        playing: 4,
        can: Some(Capabilities {
            platform: "linux/x86_64".into(),
            cores: 4,
            memory_bytes: 8 << 30,
            instructions: "avx2".into(),
            evaluations_per_second: 50_000,
        }),
    }
}

/// A server at work; it ends when this is dropped.
pub(super) struct Served {
    pub(super) http: Arc<Http>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: JoinSet<std::io::Result<()>>,
}

/// A daemon that runs well.
pub(super) fn daemon(name: &'static str) -> DaemonView {
    DaemonView {
        id: DaemonId(name),
        priority: Priority::High,
        critical: false,
        asked: true,
        state: State::Running,
        cause: None,
        health: Health::Healthy,
        details: serde_json::Value::Null,
        restarts: 0,
        crashes: warden::Crashes::default(),
        last_error: None,
        started_at_ms: Some(START_MS),
        uptime: Duration::from_mins(1),
        last_beat_age: Some(Duration::from_secs(1)),
        in_cycle: None,
        cycles: 12,
        last_cycle: Some(Duration::from_millis(14)),
        next_retry_in: None,
    }
}

/// The same daemon, critical.
pub(super) fn critical(name: &'static str) -> DaemonView {
    DaemonView { critical: true, priority: Priority::Critical, ..daemon(name) }
}

/// A hash that no file has.
pub(super) fn hash(seed: u64) -> BlobHash {
    BlobHash(format!("{seed:064x}"))
}

fn weights(generation: u32) -> BlobHash {
    hash(0xE000_0000 + u64::from(generation))
}

/// A match with as many pairs won twice, won once and lost twice as asked for.
pub(super) fn result(a: &str, b: &str, pairs: [u32; 3], llr: f64) -> MatchResult {
    let games = 2 * pairs.iter().sum::<u32>();
    let wins = pairs[1] + 2 * pairs[2];
    let score = f64::from(wins) / f64::from(games);
    let elo = |score: f64| -400.0 * (1.0 / score.clamp(0.002, 0.998) - 1.0).log10();
    let margin = 1.96 * (score * (1.0 - score) / f64::from(games)).sqrt();
    let decision = if llr > 2.9 {
        TestDecision::Stronger
    } else if llr < -2.9 {
        TestDecision::NotStronger
    } else {
        TestDecision::Undecided
    };
    MatchResult {
        a: a.to_owned(),
        b: b.to_owned(),
        games,
        wins,
        losses: games - wins,
        pairs,
        score,
        elo: elo(score),
        elo_low: elo(score - margin),
        elo_high: elo(score + margin),
        llr,
        decision: Some(decision),
        finishes: None,
        distinct_games: games - 1,
        book: None,
        seconds: f64::from(games) * 0.2,
    }
}

/// Writes history: what a loop would have recorded.
pub(super) struct Story<'a> {
    pub(super) world: &'a World,
    pub(super) config: Config,
    pub(super) random: SplitMix64,
    /// Next number for a hash or a work item.
    pub(super) number: u64,
    pub(super) generation: u32,
    pub(super) champion: u32,
}

impl<'a> Story<'a> {
    pub(super) fn of(world: &'a World, config: &str, seed: u64) -> Self {
        let config = config.parse().unwrap();
        let random = SplitMix64::new(seed);
        Self { world, config, random, number: seed << 32, generation: 0, champion: 0 }
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn model(&self, generation: u32) -> ModelId {
        ModelId::new(self.config, generation)
    }

    /// Lets seconds pass.
    pub(super) fn pass(&self, seconds: i64) {
        self.world.at(self.world.now_ms() + 1000 * seconds);
    }

    /// Generation 0.
    pub(super) async fn begin(&self) {
        let (model, config) = (self.model(0), self.config);
        let weights = weights(0);
        let made = ModelCreated {
            model: model.clone(),
            config,
            generation: 0,
            parent: None,
            weights,
            bytes: 180_000,
        };
        self.world.record([made.into(), ChampionInstalled { model, config }.into()]).await;
        self.hand_out().await;
    }

    async fn hand_out(&self) {
        let event = ModelDistributed {
            model: self.model(self.champion),
            config: self.config,
            weights: weights(self.champion),
            node: self.world.the_loop.node.clone(),
        };
        self.world.record([event.into()]).await;
    }

    /// A batch of self-play, replayed and exported.
    pub(super) async fn play(&mut self, games: u32) {
        let number = self.next();
        let work = WorkId::new(WorkKind::Selfplay, self.config, number & 0xFFFF);
        let model = self.model(self.champion);
        let weights = weights(self.champion);
        let (batch, config) = (hash(number), self.config);
        let positions = u64::from(games) * (34 + number % 9);
        let job = Job::Selfplay(SelfplayJob {
            model: ModelRef { id: model.clone(), weights },
            opponents: Vec::new(),
            opponent_share: 0.0,
            games,
            simulations: 32,
            fast_simulations: 8,
            full_share: 0.25,
            opening_moves: 4,
            temperature_moves: 20,
            temperature: 1.0,
            seed: number,
        });
        let reason = "4 of 4 items are wanted for its share of 50 %".to_owned();
        let node = self.world.the_loop.node.clone();
        let seat_wins = vec![games / 2, games - games / 2];
        let rows = positions * 4 / 5;
        self.world
            .record([
                WorkQueued { work: work.clone(), config, job, reason }.into(),
                WorkClaimed { work: work.clone(), attempt: 1, node, epoch: 1 }.into(),
            ])
            .await;
        self.pass(4);
        self.world
            .record([
                WorkCompleted { work: work.clone(), seconds: 9.5 }.into(),
                GamesCommitted {
                    batch: batch.clone(),
                    bytes: 9000,
                    config,
                    work,
                    model,
                    games,
                    positions,
                    seat_wins,
                    seconds: 9.4,
                }
                .into(),
            ])
            .await;
        let ids = (0..games).map(|game| format!("{number:x}-{game}")).collect();
        self.world
            .record([BatchAccepted { batch: batch.clone(), config, games, ids }.into()])
            .await;
        let samples = SamplesExported {
            samples: hash(number | 1 << 60),
            bytes: 80_000,
            config,
            batches: vec![batch],
            rows,
            games: u64::from(games),
            encoder: "nnue-pv-1".into(),
        };
        self.world.record([samples.into()]).await;
    }

    /// A window and a training on it: a candidate.
    pub(super) async fn train(&mut self) {
        let number = self.next();
        self.generation += 1;
        let (config, window) = (self.config, hash(number));
        let work = WorkId::new(WorkKind::Train, config, u64::from(self.generation));
        let combined = WindowCombined {
            window: window.clone(),
            bytes: 900_000,
            config,
            samples: vec![hash((number - 1) | 1 << 60)],
            rows: 9000 + number % 1000,
            games: 300,
        };
        self.world.record([combined.into()]).await;
        self.pass(25);
        let halved = f64::from(self.generation);
        let report = TrainReport {
            steps: 600,
            samples: 153_600,
            policy_loss: 1.9 / (1.0 + 0.12 * halved),
            value_loss: 0.8 / (1.0 + 0.05 * halved),
            seconds: 24.0,
        };
        let model = self.model(self.generation);
        self.world
            .record([
                TrainingCompleted { work, config, model: model.clone(), window, report }.into(),
                ModelCreated {
                    model,
                    config,
                    generation: self.generation,
                    parent: Some(self.model(self.champion)),
                    weights: weights(self.generation),
                    bytes: 180_000,
                }
                .into(),
            ])
            .await;
    }

    /// The gauntlet of the newest candidate, and its verdict.
    pub(super) async fn judge(&mut self, pairs: [u32; 3], llr: f64) {
        let number = self.next();
        self.pass(30);
        let (config, model) = (self.config, self.model(self.generation));
        let over = self.model(self.champion);
        let player = |model: &ModelId| format!("model:{model}@32");
        let main = result(&player(&model), &player(&over), pairs, llr);
        let mut events: Vec<Event> = vec![
            MatchPlayed {
                id: format!("gauntlet-{config}-{number:06}"),
                config,
                result: main.clone(),
                records: Some(hash(number)),
                bytes: 30_000,
            }
            .into(),
        ];
        let won = llr > 2.9;
        let guard = won.then(|| {
            let lost = 6 / (self.generation + 1);
            result(&player(&model), "random", [0, lost, 20 - lost], 0.0)
        });
        if let Some(guard) = &guard {
            events.push(
                MatchPlayed {
                    id: format!("gauntlet-{config}-{number:06}-guard"),
                    config,
                    result: MatchResult { decision: None, ..guard.clone() },
                    records: None,
                    bytes: 0,
                }
                .into(),
            );
        }
        let (elo, games) = (main.elo, main.games);
        let (elo_low, elo_high) = (main.elo_low, main.elo_high);
        events.push(
            EvaluationCompleted {
                model: model.clone(),
                config,
                against: over.clone(),
                main: Some(main),
                guard: guard.map(Box::new),
                heuristic: None,
                fault: None,
            }
            .into(),
        );
        self.world.record(events).await;
        self.pass(1);
        if won {
            self.champion = self.generation;
            let reason = format!("the test accepted H1 after {games} games");
            self.world
                .record([
                    ModelAccepted { model: model.clone(), config, reason }.into(),
                    ModelPromoted { model, config, over, elo, elo_low, elo_high, games }.into(),
                ])
                .await;
            self.hand_out().await;
        } else {
            let reason = format!("the test accepted H0 after {games} games");
            self.world.record([ModelRejected { model, config, reason }.into()]).await;
        }
    }

    /// Some generations, as a loop that learns goes.
    pub(super) async fn learn(&mut self, generations: u32) {
        for generation in 0..generations {
            for _ in 0..6 {
                let more = u32::try_from(self.random.below(9)).unwrap();
                self.play(8 + more).await;
                self.pass(6);
            }
            self.train().await;
            let better = generation % 3 != 2;
            let pairs = if better { [12, 50, 30 + 14 / (generation + 1)] } else { [34, 60, 26] };
            self.judge(pairs, if better { 3.02 } else { -2.96 }).await;
        }
    }
}

/// A self-play game in the hands of a worker.
pub(super) fn playing(config: &str, moves: usize, seed: u64) -> LiveWork {
    let config: Config = config.parse().unwrap();
    let mut state = Game::new(config, Options::default());
    let mut random = SplitMix64::new(seed);
    let (mut legal, mut view) = (Vec::new(), None);
    for _ in 0..moves {
        if state.is_over() {
            break;
        }
        state.legal_moves(&mut legal);
        let mv = legal[random.below(legal.len())];
        state.apply_legal(&mv);
        view = Some(BoardView::of(&state).after(&mv, &state));
    }
    LiveWork {
        work: WorkId::new(WorkKind::Selfplay, config, 12),
        kind: "selfplay",
        config,
        attempt: 1,
        pid: Some(4242),
        since_ms: START_MS,
        done: 3,
        total: 16,
        note: "game 4".into(),
        view: view.map(|view| serde_json::to_value(view).unwrap()),
    }
}

/// A daemon's change of state, in the operational stream.
pub(super) async fn note_crash(world: &World) {
    let changed = DaemonStatusChanged {
        daemon: "AUTO_EXPORT".into(),
        from: "running".into(),
        to: "restarting".into(),
        reason: "exception".into(),
        error: Some("open <b>blobs</b>/ab: permission denied".into()),
    };
    let fact = Operational::DaemonStatusChanged(changed);
    world.catalogue.note(fact, world.now_ms()).await.unwrap();
}
