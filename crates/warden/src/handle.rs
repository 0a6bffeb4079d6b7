//! What others hold of a supervisor.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::{DaemonId, Notice, Snapshot, Spec, State, Transition, Wake, lifecycle::Asker};

/// Asks a supervisor; cheap to clone. Questions read the last snapshot and wait for nobody.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    slots: Arc<[Slot]>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    transitions: broadcast::Sender<Transition>,
    notices: broadcast::Sender<Notice>,
}

/// What reaches a daemon without a detour through the supervisor.
#[derive(Debug)]
pub(crate) struct Slot {
    id: DaemonId,
    wakes_on: &'static [Wake],
    pub(crate) wake: Arc<Notify>,
    pub(crate) pause: watch::Sender<bool>,
}

impl Slot {
    pub(crate) fn new(spec: &Spec) -> Self {
        Self {
            id: spec.id,
            wakes_on: spec.wakes_on,
            wake: Arc::default(),
            pause: watch::Sender::new(false),
        }
    }
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

#[derive(Debug)]
pub(crate) enum Request {
    Start { ids: Vec<DaemonId>, by: Asker, reply: Reply<Started> },
    Stop { id: DaemonId, reply: Reply<()> },
    Restart { id: DaemonId, reply: Reply<Started> },
    Retry { id: DaemonId, force: bool, reply: Reply<Started> },
    Pause { ids: Vec<DaemonId>, cause: String, reply: Reply<()> },
    Resume { ids: Vec<DaemonId>, cause: String, reply: Reply<()> },
    Lead { leadership: Leadership, reply: Reply<()> },
    Shutdown { reply: oneshot::Sender<ShutdownReport> },
}

/// Does this node lead its cluster? A single machine always does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Leadership {
    /// It leads: leader-only daemons run here.
    #[default]
    Held,
    /// Another does: they stand by.
    Lost,
}

/// What a request to start did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Started {
    /// Daemons that this request brought into motion, in start order.
    pub started: Vec<DaemonId>,
    /// Those of them that nobody named: needs of the named.
    pub added: Vec<DaemonId>,
    /// Daemons left in `IMPORT_FAILED`, with what is missing; only a forced retry tries them.
    pub missing: Vec<(DaemonId, String)>,
    /// Daemons left in `FAILED`, because nobody asked for them by name: by
    /// [`Handle::start_planned`], or as needs of what was restarted or retried.
    pub failed: Vec<DaemonId>,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such daemon.
    #[error("no daemon is called {0}")]
    Unknown(DaemonId),
    /// The supervisor is on its way out.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The supervisor is gone.
    #[error("the supervisor is gone")]
    Gone,
    /// The daemon blocks its thread; it is stopped as soon as it lets go.
    #[error("{0} is hung and cannot be ended")]
    Hung(DaemonId),
    /// Only what is not running can be retried, and `IMPORT_FAILED` only by force.
    #[error("{id} is {state}: nothing to retry")]
    NothingToRetry {
        /// Who.
        id: DaemonId,
        /// In which state.
        state: State,
    },
}

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ShutdownReport {
    /// Daemons that ended, in the order of their ends.
    pub stopped: Vec<DaemonId>,
    /// Those that had to be aborted, because their time was over or nobody wanted to wait.
    pub aborted: Vec<DaemonId>,
    /// Those that did not end at all: only the end of the process ends them.
    pub hung: Vec<DaemonId>,
    /// Length of the shutdown.
    pub took: Duration,
}

impl Handle {
    pub(crate) fn new(
        requests: mpsc::Sender<Request>,
        slots: Arc<[Slot]>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        transitions: broadcast::Sender<Transition>,
        notices: broadcast::Sender<Notice>,
    ) -> Self {
        Self { requests, slots, snapshot, transitions, notices }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Refusal::Gone)?;
        answer.await.map_err(|_| Refusal::Gone)?
    }

    /// Starts these and all they need; does not wait until they are ready.
    ///
    /// What runs already is left alone; `FAILED` gets a fresh count of restarts.
    pub async fn start(&self, ids: &[DaemonId]) -> Result<Started, Refusal> {
        let (ids, by) = (ids.to_vec(), Asker::Person);
        self.ask(|reply| Request::Start { ids, by, reply }).await
    }

    /// The same for a list that nobody wrote for this moment, like the profile of a node.
    ///
    /// What an earlier supervisor gave up waits for a person, and its other crashes count.
    pub async fn start_planned(&self, ids: &[DaemonId]) -> Result<Started, Refusal> {
        let (ids, by) = (ids.to_vec(), Asker::Plan);
        self.ask(|reply| Request::Start { ids, by, reply }).await
    }

    /// Stops one and waits for its end; those that need it go on, shown as degraded.
    pub async fn stop(&self, id: DaemonId) -> Result<(), Refusal> {
        self.ask(|reply| Request::Stop { id, reply }).await
    }

    /// Ends one in good order and starts a fresh object of it; does not wait.
    ///
    /// The count of restarts begins anew; what is not running is started like by
    /// [`Handle::start`].
    pub async fn restart(&self, id: DaemonId) -> Result<Started, Refusal> {
        self.ask(|reply| Request::Restart { id, reply }).await
    }

    /// Tries one that was given up, or waits for its next try, at once, and starts what it needs.
    ///
    /// With `force` its errors and counts are forgotten, and `IMPORT_FAILED` is tried too, as is
    /// what it needs; without, one more crash gives it up again, and a need that was given up stays
    /// so.
    pub async fn retry(&self, id: DaemonId, force: bool) -> Result<Started, Refusal> {
        self.ask(|reply| Request::Retry { id, force, reply }).await
    }

    /// Lets these begin no new cycle until [`Handle::resume`] is called with the same cause.
    pub async fn pause(&self, ids: &[DaemonId], cause: &str) -> Result<(), Refusal> {
        let (ids, cause) = (ids.to_vec(), cause.to_owned());
        self.ask(|reply| Request::Pause { ids, cause, reply }).await
    }

    /// Takes back one cause of a pause; other causes keep it up.
    pub async fn resume(&self, ids: &[DaemonId], cause: &str) -> Result<(), Refusal> {
        let (ids, cause) = (ids.to_vec(), cause.to_owned());
        self.ask(|reply| Request::Resume { ids, cause, reply }).await
    }

    /// Says whether this node leads; without it leader-only daemons are stopped, with it those that
    /// are asked for come back by themselves. Does not wait for either.
    pub async fn lead(&self, leadership: Leadership) -> Result<(), Refusal> {
        self.ask(|reply| Request::Lead { leadership, reply }).await
    }

    /// Stops all by reverse levels and waits for it; a second call stops at once.
    ///
    /// # Errors
    /// [`Refusal::Gone`]: it was over before.
    pub async fn shutdown(&self) -> Result<ShutdownReport, Refusal> {
        let (reply, report) = oneshot::channel();
        self.requests.send(Request::Shutdown { reply }).await.map_err(|_| Refusal::Gone)?;
        report.await.map_err(|_| Refusal::Gone)
    }

    /// Wakes every daemon whose spec names this token. A daemon in a cycle does one more after it.
    pub fn wake(&self, wake: Wake) {
        for slot in self.slots.iter().filter(|slot| slot.wakes_on.contains(&wake)) {
            slot.wake.notify_one();
        }
    }

    /// Wakes one daemon; false if nobody is called so.
    pub fn wake_daemon(&self, id: DaemonId) -> bool {
        let slot = self.slots.iter().find(|slot| slot.id == id);
        if let Some(slot) = slot {
            slot.wake.notify_one();
        }
        slot.is_some()
    }

    /// The registered name that equals this text, in either case.
    pub fn find(&self, name: &str) -> Option<DaemonId> {
        self.slots.iter().map(|slot| slot.id).find(|id| id.name().eq_ignore_ascii_case(name))
    }

    /// Everything, as it was at the last turn of the supervisor's loop.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Snapshots as they come; a slow reader sees only the newest.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Changes of state from now on; a reader more than 1024 behind misses the oldest.
    pub fn transitions(&self) -> broadcast::Receiver<Transition> {
        self.transitions.subscribe()
    }

    /// Notices from now on; a reader more than 1024 behind misses the oldest.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}
