//! Ports: what a daemon may reach outside itself, handed to it at its birth.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use ringrift_pipeline::{Catalogue, Config, NodeId};
use serde::Serialize;
use tokio::{sync::watch, time::Instant};
use warden::{DaemonId, Profile, Snapshot, State, Wake};

use crate::{Blobs, FarStore, Leases, Machines, Neighbours, Nodes, Workshop, registry};

/// What one loop is about: fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct Loop {
    /// The configs that are played.
    pub configs: Vec<Config>,
    /// This machine.
    pub node: NodeId,
    /// Seed of the whole loop: same seed, same model 0.
    pub seed: u64,
    /// The data directory.
    pub data: PathBuf,
    /// What kind of node this is.
    pub profile: Profile,
    /// All roles on one machine: role tests are off, disk limits go by free bytes.
    pub standalone: bool,
    /// Other nodes have the same log.
    pub shared: bool,
    /// Main memory of this machine, bytes.
    pub memory: u64,
    /// The other nodes.
    pub nodes: Nodes,
}

impl Loop {
    /// The name under which a daemon of this node keeps its position in the log: in a cluster each node
    /// has its own.
    pub fn subscriber(&self, name: &str) -> String {
        if self.shared { format!("{name}@{}", self.node) } else { name.to_owned() }
    }
}

/// Why production stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The reason in one sentence, with figures.
    pub reason: String,
    /// What would remove it.
    pub needs: String,
}

/// Brake on everything that makes data: each watcher of a resource owns one cause.
///
/// In memory on purpose: a full disk must be able to brake without writing.
#[derive(Debug, Clone)]
pub struct Pressure(watch::Sender<BTreeMap<&'static str, Obstacle>>);

impl Default for Pressure {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl Pressure {
    /// Sets or clears one cause (by the name of the daemon that owns it); tells whether that changed
    /// anything.
    pub fn set(&self, cause: DaemonId, obstacle: Option<Obstacle>) -> bool {
        self.0.send_if_modified(|causes| match obstacle {
            Some(obstacle) => causes.insert(cause.0, obstacle.clone()) != Some(obstacle),
            None => causes.remove(cause.0).is_some(),
        })
    }

    /// The first cause in force, by name.
    pub fn obstacle(&self) -> Option<(&'static str, Obstacle)> {
        self.0.borrow().iter().next().map(|(cause, obstacle)| (*cause, obstacle.clone()))
    }

    /// All causes in force.
    pub fn obstacles(&self) -> BTreeMap<&'static str, Obstacle> {
        self.0.borrow().clone()
    }
}

/// How far what self-play feeds is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It keeps up.
    #[default]
    None,
    /// A lot waits.
    Soft,
    /// Almost the most that may wait.
    Hard,
    /// The most.
    Stop,
}

impl Level {
    /// The share of the usual games that is asked for. Source: cluster contract, `QUEUE_MONITOR`.
    pub(crate) fn share(self) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Soft => 0.5,
            Self::Hard => 0.1,
            Self::Stop => 0.0,
        }
    }
}

/// A level that nobody renewed for so long is none: who measured it is gone.
const BACKLOG_HOLDS: Duration = Duration::from_mins(3);

/// The brake on self-play alone, by config; a clone is the same. `QUEUE_MONITOR` sets it and
/// `QUEUE_POPULATOR` heeds it, both on the node that leads. [`Pressure`] would brake what empties the queues, too.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Arc<Mutex<BTreeMap<Config, (Level, Instant)>>>);

impl Backlog {
    /// Sets the level of a config; gives that of before.
    pub(crate) fn set(&self, config: Config, level: Level) -> Level {
        let before = self.level(config);
        self.lock().insert(config, (level, Instant::now()));
        before
    }

    /// The level of a config.
    pub(crate) fn level(&self, config: Config) -> Level {
        match self.lock().get(&config) {
            Some((level, at)) if at.elapsed() < BACKLOG_HOLDS => *level,
            _ => Level::None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Config, (Level, Instant)>> {
        // Only plain assignments happen under the lock; a poisoned one holds no broken state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What daemons may ask of the supervisor: a look, and a wake-up.
pub trait Supervision: Send + Sync + 'static {
    /// Wakes every daemon whose spec names this token.
    fn wake(&self, token: Wake);
    /// Wakes one daemon.
    fn wake_daemon(&self, id: DaemonId);
    /// The newest view.
    fn snapshot(&self) -> Arc<Snapshot>;
}

/// The line to the supervisor, which is born after the daemons' wiring; a clone is the same line.
#[derive(Clone, Default)]
pub struct Bell(Arc<OnceLock<Box<dyn Supervision>>>);

impl Bell {
    /// Connects the supervisor; once, by the binary, before it runs.
    pub fn connect(&self, supervision: impl Supervision) {
        // A second call would be a second supervisor; the first one stays.
        drop(self.0.set(Box::new(supervision)));
    }

    /// Wakes every daemon whose spec names this token.
    pub fn wake(&self, token: Wake) {
        if let Some(supervision) = self.0.get() {
            supervision.wake(token);
        }
    }

    /// Wakes one daemon.
    pub fn wake_daemon(&self, id: DaemonId) {
        if let Some(supervision) = self.0.get() {
            supervision.wake_daemon(id);
        }
    }

    /// Wakes those of these daemons that run; says how many.
    pub fn wake_running(&self, daemons: &[DaemonId]) -> usize {
        let Some(snapshot) = self.snapshot() else { return 0 };
        let runs = |id: DaemonId| snapshot.get(id).is_some_and(|view| view.state == State::Running);
        let running: Vec<DaemonId> = daemons.iter().copied().filter(|id| runs(*id)).collect();
        for id in &running {
            self.wake_daemon(*id);
        }
        running.len()
    }

    /// The supervisor's newest view; none before it runs.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.0.get().map(|supervision| supervision.snapshot())
    }
}

/// The HTTP server, which the binary has; `HEALTH_SERVER` opens and closes it.
pub trait HttpPort: Send + Sync + 'static {
    /// Starts answering on the address that was taken at the start of the process.
    fn open(&self) -> anyhow::Result<SocketAddr>;
    /// Answers every request with 503 from now on.
    fn close(&self);
    /// Requests answered so far.
    fn requests(&self) -> u64;
    /// Why it no longer answers, if so.
    fn fault(&self) -> Option<String>;
}

/// Everything that ports are taken from.
#[derive(Clone)]
pub struct Wiring {
    /// Facts in, state out.
    pub catalogue: Catalogue,
    /// What facts are recorded under.
    pub leases: Leases,
    /// Artefacts.
    pub blobs: Blobs,
    /// Copies far away.
    pub far: FarStore,
    /// The other nodes, as they can be asked.
    pub neighbours: Neighbours,
    /// Worker processes.
    pub workshop: Workshop,
    /// What the loop is about.
    pub the_loop: Arc<Loop>,
    /// The brake.
    pub pressure: Pressure,
    /// The brake on self-play.
    pub backlog: Backlog,
    /// The supervisor.
    pub bell: Bell,
    /// The HTTP server.
    pub http: Arc<dyn HttpPort>,
    /// The machines of nodes.
    pub machines: Machines,
    /// Time allowed to one write into the catalogue.
    pub patience: Duration,
}

/// How a daemon's ports are taken from the wiring: it gets just what its type names.
pub trait FromWiring: Sized + Send + 'static {
    /// Takes the port for the daemon `id`.
    fn from_wiring(wiring: &Wiring, id: DaemonId) -> Self;
}

impl FromWiring for Catalogue {
    fn from_wiring(wiring: &Wiring, id: DaemonId) -> Self {
        let found = registry().find(|(_, entry)| entry.spec.id == id);
        let emits = found.map_or(&[][..], |(_, entry)| entry.emits);
        // Taken anew with each start of the daemon, so that of the leader is that of its present term.
        let fence = match found {
            Some((_, entry)) if entry.spec.leader_only => wiring.leases.leader(),
            _ => wiring.leases.node(),
        };
        let source = format!("{}@{}", id.0, wiring.the_loop.node);
        let catalogue = wiring.catalogue.for_source(source).that_emits(emits).fenced(fence);
        // Gates and alarms of what the leader alone runs are those of all nodes.
        match found {
            Some((_, entry)) if entry.spec.leader_only => catalogue.of_node(None),
            _ => catalogue,
        }
    }
}

macro_rules! port {
    ($type:ty, $field:ident) => {
        impl FromWiring for $type {
            fn from_wiring(wiring: &Wiring, _: DaemonId) -> Self {
                wiring.$field.clone()
            }
        }
    };
}

port!(Blobs, blobs);
port!(FarStore, far);
port!(Leases, leases);
port!(Neighbours, neighbours);
port!(Workshop, workshop);
port!(Arc<Loop>, the_loop);
port!(Pressure, pressure);
port!(Backlog, backlog);
port!(Bell, bell);
port!(Machines, machines);
port!(Arc<dyn HttpPort>, http);

macro_rules! tuple {
    ($($name:ident),+) => {
        impl<$($name: FromWiring),+> FromWiring for ($($name,)+) {
            fn from_wiring(wiring: &Wiring, id: DaemonId) -> Self {
                ($($name::from_wiring(wiring, id),)+)
            }
        }
    };
}

tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);

impl FromWiring for () {
    fn from_wiring(_: &Wiring, _: DaemonId) -> Self {}
}
