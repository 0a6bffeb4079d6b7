//! Keeps the replica in step with one stream of the server.
//!
//! The server is asked for what there is, and answers as soon as there is anything; then it is asked again,
//! as its [`Pace`] allows unless somebody waits for what is behind. So one message alone comes at
//! once, and of many a whole lot comes at a time, which costs the server, the way here and the replica a
//! fraction of what each for itself does.

use std::sync::Arc;
use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::Message;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, warn};

use super::Shared;
use super::replica::{Applied, Arrived};
use super::wire::{BATCH_COMMIT, BATCH_ID, Content, Source};

/// How long to wait before a stream is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// A consumer that says nothing for two of these is gone: its server died.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A question that was not answered for so long is asked again.
const QUESTION: Duration = Duration::from_secs(20);

/// Most messages of one answer, and of one step of the replica, batches apart.
const AHEAD: usize = 1000;
const AHEAD_BYTES: usize = 16 << 20;

/// When the server is asked for more while nobody waits for an answer: what others record wakes somebody here, who
/// looks every few seconds anyway. So a node takes so many steps a second at most, however many others there are.
struct Pace {
    /// The least time between two questions,
    gap: Duration,
    /// and what it is in the long run;
    each: Duration,
    /// but for so many that were not asked before.
    saved: u32,
    /// Before this the next question is too many.
    due: Instant,
}

impl Pace {
    fn new(source: Source) -> Self {
        let (gap, each, saved) = match source {
            Source::Facts(_) => (Duration::from_millis(100), Duration::from_millis(500), 8),
            // Each node of a cluster prolongs a lease every few seconds; who wants to know asks, and then waits.
            Source::State => (Duration::from_secs(1), Duration::from_secs(1), 0),
        };
        Self { gap, each, saved, due: Instant::now() }
    }

    /// When to ask again after a question at this time.
    fn next(&mut self, asked: Instant) -> Instant {
        let earliest = asked.checked_sub(self.each * self.saved).unwrap_or(asked);
        self.due = self.due.max(earliest) + self.each;
        self.due.max(asked + self.gap)
    }
}

/// The least time between two questions while something of our own is on its way here: somebody will want to read
/// what he appended, and many such come together; who waits for it asks at once.
const OWN_PACE: Duration = Duration::from_millis(20);

/// The server forgets a consumer that nobody asks any more.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// Follows a stream until it is dropped.
pub(super) async fn follow(shared: Arc<Shared>, source: Source) {
    loop {
        let why = match life(&shared, source).await {
            Ok(()) => "the consumer ended".to_owned(),
            Err(error) => error.to_string(),
        };
        debug!(stream = source.name(), why, "following again");
        shared.note(&why);
        sleep(PAUSE).await;
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Follows for the life of one consumer.
async fn life(shared: &Shared, source: Source) -> Result<(), Failed> {
    let (server, replica) = (&shared.server, &shared.replica);
    let state = server.state(source).await?;
    let applied = replica.applied_to(source).await?;
    let applied = match applied {
        Some(applied) if applied.created == state.created && applied.sequence <= state.last => {
            applied
        }
        found => {
            if let Some(Applied { sequence, .. }) = found {
                warn!(
                    stream = source.name(),
                    ours = sequence,
                    theirs = state.last,
                    "the stream is another one or lost messages: the replica is made anew"
                );
            }
            replica.forget(source, state.created.clone()).await?;
            Applied { sequence: 0, stored_ns: 0, created: state.created }
        }
    };
    let config = pull::Config {
        // The last one that is known comes again, to see whether it still is the same.
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: applied.sequence.max(1) },
        ack_policy: AckPolicy::None,
        inactive_threshold: FORGOTTEN,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let stream = server.names.stream(source);
    let consumer = server.context().create_consumer_on_stream(config, stream).await?;
    let inbox = server.inbox();
    let mut messages = server.listen(inbox.clone()).await?;
    let question = pull::BatchConfig {
        batch: AHEAD,
        max_bytes: AHEAD_BYTES,
        expires: Some(QUESTION),
        // Answered with all there is, as soon as there is anything.
        no_wait: true,
        idle_heartbeat: HEARTBEAT,
        ..pull::BatchConfig::default()
    };
    let mut lost = server.lost();
    let mut expected = 1;
    // Of a batch whose end has not come.
    let mut open: (String, Vec<Arrived>) = Default::default();
    let mut is_asked = false;
    let mut pace = Pace::new(source);
    loop {
        if !is_asked {
            consumer.request_batch(question.clone(), inbox.clone().into()).await?;
        }
        let asked = Instant::now();
        let mut whole = Vec::new();
        let mut count = 0;
        while count < AHEAD {
            let next = tokio::select! {
                next = timeout(HEARTBEAT * 2, messages.next()) => next,
                // Else it would be noticed by the heartbeats that do not come.
                _ = lost.changed() => return Err("the connection was lost".into()),
            };
            let message = next.map_err(|_| "no sign of life")?.ok_or("the connection ended")?;
            match message.status {
                None => count += 1,
                Some(StatusCode::IDLE_HEARTBEAT) => continue,
                // All there was has come, or nothing came for long.
                Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => break,
                Some(status) => {
                    let why = message.description.unwrap_or_default();
                    if why.contains("MaxBytes") {
                        break;
                    }
                    return Err(format!("the consumer says {status} {why}").into());
                }
            }
            let message = Message { message, context: server.context().clone() };
            let info = message.info()?;
            if info.consumer_sequence != expected {
                return Err("the consumer skipped a message".into());
            }
            expected += 1;
            let sequence = info.stream_sequence;
            let stored_ns = i64::try_from(info.published.unix_timestamp_nanos())?;
            if sequence == applied.sequence && stored_ns != applied.stored_ns {
                error!(
                    stream = source.name(),
                    sequence, "the stream lost messages and went on without them: made anew"
                );
                replica.forget(source, applied.created).await?;
                return Ok(());
            }
            if sequence > applied.sequence {
                let content = read(shared, source, sequence, &message);
                let arrived = Arrived { sequence, stored_ns, content };
                collect(&mut open, &mut whole, arrived, message.headers.as_ref());
            }
        }
        // There is more: it comes while this is written.
        is_asked = count == AHEAD;
        if is_asked {
            consumer.request_batch(question.clone(), inbox.clone().into()).await?;
        }
        replica.apply(source, whole).await?;
        if !is_asked {
            let next = pace.next(asked);
            tokio::select! {
                () = sleep_until(next) => {}
                () = replica.wanted(source) => {}
                () = async {
                    replica.appended(source).await;
                    sleep_until(asked + OWN_PACE).await;
                } => {}
                _ = lost.changed() => return Err("the connection was lost".into()),
            }
        }
    }
}

/// Messages of a batch are held back until its end: readers see all of them or none.
fn collect(
    open: &mut (String, Vec<Arrived>),
    whole: &mut Vec<Arrived>,
    arrived: Arrived,
    headers: Option<&async_nats::HeaderMap>,
) {
    let batch = headers.and_then(|headers| headers.get(BATCH_ID)).map_or("", |id| id.as_str());
    if open.0 != batch {
        // The end of the one before was replaced by a later record.
        whole.append(&mut open.1);
        batch.clone_into(&mut open.0);
    }
    open.1.push(arrived);
    let is_last = headers.is_some_and(|headers| headers.get(BATCH_COMMIT).is_some());
    if batch.is_empty() || is_last {
        whole.append(&mut open.1);
        open.0.clear();
    }
}

fn read(
    shared: &Shared,
    source: Source,
    sequence: u64,
    message: &async_nats::jetstream::Message,
) -> Option<Content> {
    let (subject, headers) = (message.subject.as_str(), message.headers.as_ref());
    match Content::read(&shared.server.names, source, subject, headers, &message.payload) {
        Ok(content) => Some(content),
        Err(why) => {
            warn!(stream = source.name(), sequence, subject, why, "a message of others");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Stream;

    #[tokio::test(start_paused = true)]
    async fn a_few_come_at_once_and_many_together() {
        let mut pace = Pace::new(Source::Facts(Stream::Pipeline));
        let mut ask = || {
            let asked = Instant::now();
            let next = pace.next(asked);
            (next - asked).as_millis()
        };
        tokio::time::advance(Duration::from_mins(1)).await;
        let mut waits = Vec::new();
        for _ in 0..16 {
            let wait = ask();
            tokio::time::advance(Duration::from_millis(u64::try_from(wait).unwrap())).await;
            waits.push(wait);
        }
        assert_eq!(waits[..8], [100; 8]);
        assert_eq!(waits[14..], [500; 2]);
        assert!(waits.iter().all(|wait| (100..=500).contains(wait)), "{waits:?}");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ask(), 100, "saved again");
    }
}
