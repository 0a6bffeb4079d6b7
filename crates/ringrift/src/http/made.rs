//! Answers that many ask for: made once, and given to all until the facts behind them are others.
//!
//! So a flood of requests costs the copying of bytes. It makes nobody look at the daemons again, and
//! reaches the catalogue at most once a second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use warden::Snapshot;

use super::{Sources, metrics};

/// Longest time that figures which no snapshot carries, such as those of workers, are shown as they
/// were; and the shortest between two questions to the catalogue.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// Longest wait for the catalogue. Source: Prometheus gives up a scrape after 10 s.
const CATALOGUE_WITHIN: Duration = Duration::from_secs(4);

/// A body for as long as its snapshot is the newest: never older than a turn of the supervisor.
pub(super) struct OfSnapshot<T>(Mutex<Option<(Arc<Snapshot>, Instant, T)>>);

impl<T> Default for OfSnapshot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> OfSnapshot<T> {
    /// What was made of this very snapshot and is younger than `limit`, else what `make` makes now.
    pub(super) fn get(&self, of: &Arc<Snapshot>, limit: Duration, make: impl FnOnce() -> T) -> T {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((from, at, body)) if Arc::ptr_eq(from, of) && at.elapsed() < limit => body.clone(),
            _ => {
                let body = make();
                *kept = Some((Arc::clone(of), Instant::now(), body.clone()));
                body
            }
        }
    }
}

/// What the catalogue says for `/metrics`; a clone is the same one.
#[derive(Clone)]
pub(super) struct Counts(Arc<Shared>);

struct Shared {
    read: watch::Sender<Option<(Instant, Counted)>>,
    wanted: Notify,
}

/// The text, none if the catalogue did not answer in time.
pub(super) type Counted = Option<Arc<str>>;

impl Counts {
    /// The counts, and the task that reads them until it is dropped: one at a time, and not on behalf
    /// of a request, which may be given up in the middle and asked again at once.
    pub(super) fn start(
        sources: Arc<dyn Sources>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let shared = Arc::new(Shared { read: watch::Sender::new(None), wanted: Notify::new() });
        (Self(Arc::clone(&shared)), read(shared, sources))
    }

    /// The newest ones, at most a second old.
    pub(super) async fn get(&self) -> Counted {
        let mut read = self.0.read.subscribe();
        if let Some((at, counted)) = &*read.borrow_and_update()
            && at.elapsed() < FRESH
        {
            return counted.clone();
        }
        self.0.wanted.notify_one();
        // The pause of the reader comes on top of its question.
        match timeout(FRESH + CATALOGUE_WITHIN, read.changed()).await {
            Ok(Ok(())) => read.borrow().as_ref().and_then(|(_, counted)| counted.clone()),
            _ => None,
        }
    }
}

async fn read(shared: Arc<Shared>, sources: Arc<dyn Sources>) {
    loop {
        shared.wanted.notified().await;
        let counted = timeout(CATALOGUE_WITHIN, metrics::counted(&*sources)).await;
        let counted = counted.ok().and_then(Result::ok).map(Arc::from);
        shared.read.send_replace(Some((Instant::now(), counted)));
        sleep(FRESH).await;
    }
}
