//! The page's stream: the whole once, then about every second the sections that changed.
//!
//! One task makes the sections for all pages, and only while there is one. A page that is slow to
//! read skips versions; it never holds anything back, because every page compares what it was sent
//! last with what is the case now.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::response::{
    Sse,
    sse::{Event, KeepAlive},
};
use futures_util::{Stream, stream};
use ringrift_daemons::survey;
use ringrift_pipeline::CatalogueError;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

use super::{Sources, api, guard::Refusal, overview, ratings::Ratings};
use crate::shown;

/// Pages at a time.
const MAX_STREAMS: usize = 32;

/// Time between two versions.
const PACE: Duration = Duration::from_secs(1);

/// The same while no page is there: only for the lag of the timer.
const IDLE_PACE: Duration = Duration::from_secs(10);

/// Shortest and longest age of what is read from the catalogue: it is asked again when the log has
/// moved, and now and then because rates fall by themselves.
const CATALOGUE_FRESH: Duration = Duration::from_secs(2);
const CATALOGUE_STALE: Duration = Duration::from_secs(15);

/// A comment in the stream when nothing was said for so long, so that dead connections are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many of the newest matches and facts the page shows.
const MATCHES: u32 = 12;
const FACTS: u32 = 40;

type Sections = BTreeMap<String, Value>;

/// The stream's shared part; a clone is the same one.
#[derive(Clone)]
pub(super) struct Feed(Arc<Shared>);

struct Shared {
    versions: watch::Sender<Arc<Sections>>,
    /// A page came: it does not wait for the next second.
    came: Notify,
    /// The catalogue was not read yet and somebody waits for it.
    wanted: Notify,
    places: Arc<Semaphore>,
    open: watch::Receiver<bool>,
    /// How late the runtime's timer was last, microseconds.
    lag: AtomicU64,
}

impl Feed {
    /// The feed, and the task that keeps it going until it is dropped.
    pub(super) fn start(
        sources: Arc<dyn Sources>,
        open: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let shared = Arc::new(Shared {
            versions: watch::Sender::new(Arc::default()),
            came: Notify::new(),
            wanted: Notify::new(),
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
            open,
            lag: AtomicU64::new(0),
        });
        (Self(Arc::clone(&shared)), go(shared, sources))
    }

    /// How late the timer of the supervisor's thread was last.
    pub(super) fn lag(&self) -> Duration {
        Duration::from_micros(self.0.lag.load(Ordering::Relaxed))
    }

    /// Pages that are connected.
    pub(super) fn pages(&self) -> usize {
        MAX_STREAMS - self.0.places.available_permits()
    }

    /// A stream for one more page.
    pub(super) fn stream(
        &self,
    ) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Refusal> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| {
            Refusal::unavailable(format!("{MAX_STREAMS} pages are open already, close one"))
        })?;
        let mut versions = self.0.versions.subscribe();
        // What lies there may be an hour old; the task makes a new one at once.
        versions.mark_unchanged();
        self.0.came.notify_one();
        let page = Page { versions, open: self.0.open.clone(), sent: None, _place: place };
        let events = stream::unfold(page, |mut page| async {
            let event = page.next().await?;
            Some((Ok(event), page))
        });
        Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
    }
}

/// One connected page.
struct Page {
    versions: watch::Receiver<Arc<Sections>>,
    open: watch::Receiver<bool>,
    sent: Option<Arc<Sections>>,
    _place: OwnedSemaphorePermit,
}

impl Page {
    /// The next event; none when the server was closed.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                changed = self.versions.changed() => changed.ok()?,
                closed = self.open.wait_for(|open| !open) => {
                    drop(closed);
                    return None;
                }
            }
            let now = Arc::clone(&self.versions.borrow_and_update());
            let (name, sections) = match &self.sent {
                None => ("full", json!(*now)),
                Some(before) => {
                    let changed = difference(before, &now);
                    if changed.is_empty() {
                        continue;
                    }
                    ("delta", Value::Object(changed))
                }
            };
            self.sent = Some(now);
            // JSON has no line breaks of its own, so that it is one line of the stream.
            return Some(Event::default().event(name).data(sections.to_string()));
        }
    }
}

/// What changed, by section; null = the section is gone.
fn difference(before: &Sections, now: &Sections) -> Map<String, Value> {
    let new = now.iter().filter(|(name, value)| before.get(*name) != Some(value));
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    new.map(|(name, value)| (name.clone(), value.clone()))
        .chain(gone.map(|name| (name.clone(), Value::Null)))
        .collect()
}

/// Two loops, because a catalogue that hangs (a full disk) must not keep the page from saying so.
async fn go(shared: Arc<Shared>, sources: Arc<dyn Sources>) {
    let stored = watch::Sender::new(Arc::new(Sections::new()));
    tokio::join!(
        publish(&shared, &*sources, stored.subscribe()),
        read(&shared, &*sources, &stored)
    );
}

async fn publish(
    shared: &Shared,
    sources: &dyn Sources,
    mut stored: watch::Receiver<Arc<Sections>>,
) {
    loop {
        let idle = shared.versions.receiver_count() == 0;
        let pace = if idle { IDLE_PACE } else { PACE };
        let due = Instant::now() + pace;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {
                let late = Instant::now().saturating_duration_since(due);
                let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
                shared.lag.store(micros, Ordering::Relaxed);
            }
            () = shared.came.notified() => {}
        }
        if shared.versions.receiver_count() == 0 {
            continue;
        }
        if idle {
            shared.wanted.notify_one();
        }
        if stored.borrow().is_empty() {
            // The first page of all gets everything at once, unless that takes too long.
            let _ = tokio::time::timeout(PACE, stored.changed()).await;
        }
        let mut sections = in_memory(sources);
        sections.extend((**stored.borrow_and_update()).clone());
        shared.versions.send_replace(Arc::new(sections));
    }
}

async fn read(shared: &Shared, sources: &dyn Sources, stored: &watch::Sender<Arc<Sections>>) {
    let mut catalogue = FromCatalogue::default();
    loop {
        // Either a page is there and waits, or the next look is due.
        let due = async {
            if shared.versions.receiver_count() == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(PACE).await;
        };
        tokio::select! {
            () = shared.wanted.notified() => {}
            () = due => {}
        }
        if shared.versions.receiver_count() == 0 {
            continue;
        }
        let read = catalogue.refresh(sources).await;
        let mut sections = catalogue.sections.clone();
        if let Err(error) = read {
            let sentence = format!("the catalogue does not answer: {error}");
            sections.insert("trouble".into(), sentence.into());
        }
        stored.send_if_modified(|before| {
            let changed = **before != sections;
            if changed {
                *before = Arc::new(sections);
            }
            changed
        });
    }
}

/// What needs no reading: new every second.
fn in_memory(sources: &dyn Sources) -> Sections {
    let mut sections = Sections::new();
    sections.insert("manager".into(), overview::manager(sources));
    sections.insert("live".into(), overview::live(sources));
    if let Some(snapshot) = sources.snapshot() {
        let order: Vec<&str> = snapshot.daemons.iter().map(|view| view.id.0).collect();
        sections.insert("daemons".into(), json!(order));
        for view in &snapshot.daemons {
            let mut daemon = shown::daemon(Some(view));
            // These grow by the second; the page counts for itself from the start.
            if let Some(fields) = daemon.as_object_mut() {
                fields.remove("uptime_seconds");
                fields.remove("last_beat_age_seconds");
            }
            sections.insert(format!("daemon:{}", view.id), daemon);
        }
    }
    sections
}

/// What is read from the catalogue, kept while the log stands still.
#[derive(Default)]
struct FromCatalogue {
    sections: Sections,
    at: Option<(Instant, u64)>,
    ratings: Ratings,
}

impl FromCatalogue {
    async fn refresh(&mut self, sources: &dyn Sources) -> Result<(), CatalogueError> {
        let catalogue = sources.catalogue();
        let position = catalogue.position().await?;
        if let Some((at, before)) = self.at {
            let age = at.elapsed();
            if age < CATALOGUE_FRESH || (before == position && age < CATALOGUE_STALE) {
                return Ok(());
            }
        }
        let mut sections = Sections::new();
        for config in &sources.the_loop().configs {
            let config = *config;
            sections
                .insert(format!("config:{config}"), overview::of_config(sources, config).await?);
            let rated = self.ratings.of_config(catalogue, config).await?;
            sections.insert(format!("ratings:{config}"), json!(rated));
        }
        if sources.the_loop().shared {
            let cluster = survey(catalogue, sources.the_loop()).await?;
            let names: Vec<&str> = cluster.nodes.iter().map(|node| node.node.as_str()).collect();
            let all = json!({
                "leader": cluster.leader, "artefacts": cluster.artefacts,
                "few_copies": cluster.few_copies, "nodes": names,
            });
            sections.insert("cluster".into(), all);
            // A section each, so that only those that changed go to the page.
            for node in &cluster.nodes {
                sections.insert(format!("node:{}", node.node), json!(node));
            }
        }
        sections.insert("matches".into(), json!(catalogue.matches(None, MATCHES).await?));
        sections.insert("facts".into(), api::newest_facts(catalogue, FACTS).await?);
        self.sections = sections;
        self.at = Some((Instant::now(), position));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_names_what_is_new_changed_and_gone() {
        let sections = |pairs: &[(&str, i32)]| -> Sections {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
        };
        let before = sections(&[("same", 1), ("changed", 1), ("gone", 1)]);
        let now = sections(&[("same", 1), ("changed", 2), ("new", 1)]);
        assert_eq!(
            Value::Object(difference(&before, &now)),
            json!({ "changed": 2, "new": 1, "gone": null })
        );
        assert!(difference(&now, &now).is_empty());
    }
}
