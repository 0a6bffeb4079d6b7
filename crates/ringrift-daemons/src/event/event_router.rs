//! `EVENT_ROUTER`: wakes the daemons that a fact concerns.
//!
//! Reads   the pipeline's log, from where it was when the process ended.
//! Writes  nothing but its position; a fact that is no event goes to the dead letters.
//! Never   carries data: a wake-up that is late, lost or doubled costs time only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use courier::{Failed, Stream, Subscriber};
use ringrift_pipeline::{Catalogue, Event};
use serde::{Deserialize, Serialize};
use tracing::warn;
use warden::{Cx, Daemon, DaemonId, Health, Priority, Spec, Wake};

use crate::{
    Bell, COORDINATOR, COORDINATOR_FULL, EPHEMERAL, Emits, Loop, MINIMAL, SELFPLAY, SELFPLAY_FULL,
    STANDALONE, TRAINING, TRAINING_FULL, Topics, cycle::obstacle,
};

/// Name under which the position in the log is kept.
const SUBSCRIBER: &str = "event_router";
/// The router of this node, as the log knows it.
pub(crate) fn subscriber_of(the_loop: &Loop) -> String {
    the_loop.subscriber(SUBSCRIBER)
}

/// How long a fact waits for the catalogue: it folds in milliseconds.
const FOLDED_WITHIN: Duration = Duration::from_secs(1);
/// Deliveries before a fact is buried. More than one, so that a fact that was in hand when the
/// process was killed is not taken for a bad one.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// `[daemons.event_router]`. It serves: `interval` has no meaning for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Facts routed between two signs of life.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_routed_per_cycle: usize,
    /// How often it looks without being woken: for letters that another process wants tried again.
    #[serde(with = "crate::seconds")]
    pub look_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_routed_per_cycle: 256, look_every: Duration::from_secs(30) }
    }
}

/// What it has routed since it started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Facts in all.
    pub routed: u64,
    /// Facts by topic.
    pub by_topic: BTreeMap<&'static str, u64>,
    /// Facts that are no event of this version; they are dead letters.
    pub buried: u64,
    /// Facts that somebody recorded again under their id since the process began: the log took them
    /// once, so they were routed once.
    pub duplicates_prevented: u64,
    /// Those of them that said the same as well.
    pub content_duplicates_prevented: u64,
    /// Position of the last fact routed.
    pub position: u64,
}

/// The daemon.
pub struct EventRouter {
    config: Config,
    catalogue: Catalogue,
    bell: Bell,
    the_loop: Arc<Loop>,
    status: Status,
}

impl Emits for EventRouter {
    const EMITS: Topics = &[];
}

impl Daemon for EventRouter {
    const SPEC: Spec = Spec {
        id: DaemonId("EVENT_ROUTER"),
        about: "wakes the daemons that a fact concerns",
        priority: Priority::Critical,
        profiles: &[
            COORDINATOR,
            TRAINING,
            SELFPLAY,
            COORDINATOR_FULL,
            TRAINING_FULL,
            SELFPLAY_FULL,
            EPHEMERAL,
            MINIMAL,
            STANDALONE,
        ],
        period: Duration::from_secs(30),
        critical: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Bell, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, bell, the_loop): Self::Ports) -> Self {
        Self { config, catalogue, bell, the_loop, status: Status::default() }
    }

    async fn run(mut self, cx: Cx) -> anyhow::Result<()> {
        let log = self.catalogue.log().clone();
        let mut tail = log.tail(Stream::Pipeline);
        let name = subscriber_of(&self.the_loop);
        self.status.position = log.position(Stream::Pipeline, &name).await?;
        let mut subscriber = Subscriber::new(log.clone(), Stream::Pipeline, name, "", MAX_ATTEMPTS);
        cx.ready();
        while !cx.stopping() {
            tail.mark_unchanged();
            let rest = match self.route(&mut subscriber, &cx).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => self.config.look_every,
                Err(error) => {
                    // On a full disk the position stays; the same facts wake again, harmlessly.
                    let Some((reason, pause)) = obstacle(&error) else { return Err(error) };
                    cx.report(&self.status, Health::Degraded(reason))?;
                    tokio::select! {
                        () = cx.stopped() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    continue;
                }
            };
            cx.report(&self.status, Health::Healthy)?;
            tokio::select! {
                () = cx.stopped() => {}
                // An engine that is gone wakes nobody; the timer finds that out.
                Ok(()) = tail.changed() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
        Ok(())
    }
}

impl EventRouter {
    /// Routes what there is, up to the limit; says whether there may be more. What was routed is
    /// recorded then, so that the next life does not repeat it.
    async fn route(&mut self, subscriber: &mut Subscriber, cx: &Cx) -> anyhow::Result<bool> {
        let more = self.route_some(subscriber, cx).await?;
        subscriber.settled().await?;
        let repeats = self.catalogue.log().repeats(Stream::Pipeline);
        self.status.duplicates_prevented = repeats.by_id;
        self.status.content_duplicates_prevented = repeats.by_content;
        Ok(more)
    }

    async fn route_some(&mut self, subscriber: &mut Subscriber, cx: &Cx) -> anyhow::Result<bool> {
        for _ in 0..self.config.max_routed_per_cycle {
            if cx.stopping() {
                return Ok(false);
            }
            let Some(delivery) = subscriber.next(cx.now()).await? else { return Ok(false) };
            let position = delivery.fact.position;
            match Event::deserialize(&delivery.fact.body) {
                Ok(event) => {
                    let topic = event.topic();
                    // Whoever is woken before would find nothing, and sleep on. A fold that is stuck is
                    // told by those who ask it.
                    drop(self.catalogue.shows(position, FOLDED_WITHIN).await);
                    self.bell.wake(Wake(topic));
                    subscriber.done(delivery).await?;
                    self.status.routed += 1;
                    *self.status.by_topic.entry(topic).or_default() += 1;
                }
                Err(error) => {
                    let error = format!("not an event of this version: {error}");
                    if subscriber.failed(delivery, &error, cx.now()).await? != Failed::Buried {
                        continue; // the same fact again: reading it anew changes nothing
                    }
                    warn!(position, error, "fact buried");
                    self.status.buried += 1;
                }
            }
            self.status.position = self.status.position.max(position);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use courier::{Batch, LetterFilter, LetterState, NewFact};
    use serde_json::json;
    use warden::Snapshot;

    use super::*;
    use crate::{
        Supervision,
        testbed::{Bed, hex},
    };

    /// A supervisor that notes the tokens, and what a catalogue shows when they come.
    #[derive(Clone, Default)]
    struct Ears(Arc<Mutex<Vec<&'static str>>>, Arc<Mutex<Vec<u64>>>, Option<Catalogue>);

    impl Supervision for Ears {
        fn wake(&self, token: Wake) {
            self.1.lock().unwrap().extend(self.2.as_ref().map(Catalogue::shown_to));
            self.0.lock().unwrap().push(token.0);
        }
        fn wake_daemon(&self, _: DaemonId) {}
        fn snapshot(&self) -> Arc<Snapshot> {
            Arc::default()
        }
    }

    fn router(bed: &Bed) -> (EventRouter, Subscriber, Ears) {
        let (mut ears, bell) = (Ears::default(), Bell::default());
        ears.2 = Some(bed.catalogue.clone());
        bell.connect(ears.clone());
        let log = bed.catalogue.log().clone();
        let subscriber = Subscriber::new(log, Stream::Pipeline, SUBSCRIBER, "", MAX_ATTEMPTS);
        (
            EventRouter::new(
                Config::default(),
                (bed.catalogue_of::<EventRouter>(), bell, bed.the_loop.clone()),
            ),
            subscriber,
            ears,
        )
    }

    fn rubbish(id: &str) -> Batch {
        NewFact::new(id, "odd.thing", "test", json!({ "topic": "odd.happened" })).into()
    }

    #[tokio::test]
    async fn each_fact_wakes_its_topic_once_also_over_a_restart() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let (cx, _probe) = bed.cx::<EventRouter>();
        let (mut daemon, mut subscriber, ears) = router(&bed);
        assert!(!daemon.route(&mut subscriber, &cx).await.unwrap());
        let topics = ["model.created", "champion.installed", "model.distributed"];
        assert_eq!(*ears.0.lock().unwrap(), topics);
        assert_eq!(daemon.status.by_topic["model.created"], 1);
        assert_eq!(daemon.status.position, 3);

        let (mut daemon, mut subscriber, ears) = router(&bed);
        daemon.route(&mut subscriber, &cx).await.unwrap();
        assert!(ears.0.lock().unwrap().is_empty(), "a second life finds nothing to do");
        bed.batch(hex(), &["g1"]).await;
        daemon.route(&mut subscriber, &cx).await.unwrap();
        assert_eq!(*ears.0.lock().unwrap(), ["games.committed"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_is_woken_before_the_catalogue_shows_why() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<EventRouter>();
        let (mut daemon, mut subscriber, ears) = router(&bed);
        // As another node records: this one's catalogue knows of it by folding alone.
        for number in 1..=200_u64 {
            let body = json!({ "topic": "artefact.trashed", "hash": "ab", "reason": "old" });
            let fact = NewFact::new(number.to_string(), "artefact.ab", "elsewhere", body);
            bed.append(fact.into()).await;
            daemon.route(&mut subscriber, &cx).await.unwrap();
        }
        let shown = ears.1.lock().unwrap().clone();
        assert_eq!(shown.len(), 200);
        assert!((1..).zip(shown).all(|(position, shown)| shown >= position));
    }

    #[tokio::test]
    async fn a_fact_that_is_no_event_becomes_a_letter_and_holds_nobody_up() {
        let bed = Bed::new().await;
        bed.append(rubbish("x1")).await;
        bed.batch(hex(), &["g1"]).await;
        let (cx, _probe) = bed.cx::<EventRouter>();
        let (mut daemon, mut subscriber, ears) = router(&bed);
        daemon.route(&mut subscriber, &cx).await.unwrap();
        assert_eq!(*ears.0.lock().unwrap(), ["games.committed"]);
        assert_eq!(daemon.status.buried, 1);
        let log = bed.catalogue.log();
        let letters = log.dead_letters(LetterFilter::default()).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!((letters[0].state, letters[0].attempts), (LetterState::Pending, MAX_ATTEMPTS));
        assert!(
            letters[0].error.starts_with("not an event of this version"),
            "{}",
            letters[0].error
        );

        log.retry(letters[0].id, None, 5).await.unwrap();
        daemon.route(&mut subscriber, &cx).await.unwrap();
        let letters = log.dead_letters(LetterFilter::default()).await.unwrap();
        assert_eq!((letters.len(), letters[0].attempts), (1, MAX_ATTEMPTS + 1));
    }

    #[tokio::test]
    async fn a_fact_that_is_recorded_twice_wakes_once_and_is_counted() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<EventRouter>();
        let (mut daemon, mut subscriber, ears) = router(&bed);
        let fact = |reason: &str| {
            let body = json!({ "topic": "odd.happened", "reason": reason });
            Batch::from(NewFact::new("x1", "odd.thing", "test", body))
        };
        for reason in ["first", "first", "second"] {
            bed.append(fact(reason)).await;
        }
        daemon.route(&mut subscriber, &cx).await.unwrap();
        let Status { duplicates_prevented, content_duplicates_prevented, buried, .. } =
            daemon.status;
        assert_eq!((duplicates_prevented, content_duplicates_prevented, buried), (2, 1, 1));
        assert!(ears.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn it_is_ready_before_it_routes_and_leaves_at_a_stop() {
        let bed = Bed::new().await;
        let (cx, probe) = bed.cx::<EventRouter>();
        let (daemon, _, ears) = router(&bed);
        let running = daemon.run(cx);
        let script = async {
            bed.batch(hex(), &["g1"]).await;
            while ears.0.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            assert!(probe.is_ready());
            probe.stop();
        };
        let limit = Duration::from_secs(10);
        let (ended, ()) =
            tokio::time::timeout(limit, async { tokio::join!(running, script) }).await.unwrap();
        ended.unwrap();
        assert_eq!(probe.health(), Health::Healthy);
        assert_eq!(probe.details()["routed"], 1);
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_leaves_the_rest_for_the_next_life() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let (cx, probe) = bed.cx::<EventRouter>();
        let (mut daemon, mut subscriber, ears) = router(&bed);
        daemon.config.max_routed_per_cycle = 1;
        assert!(daemon.route(&mut subscriber, &cx).await.unwrap(), "there is more");
        probe.stop();
        assert!(!daemon.route(&mut subscriber, &cx).await.unwrap());
        assert_eq!(*ears.0.lock().unwrap(), ["model.created"]);
        let (cx, _probe) = bed.cx::<EventRouter>();
        let (mut daemon, mut subscriber, ears) = router(&bed);
        daemon.route(&mut subscriber, &cx).await.unwrap();
        assert_eq!(*ears.0.lock().unwrap(), ["champion.installed", "model.distributed"]);
    }
}
