//! Keeps the replica in step with one stream of the server.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::sleep;
use tracing::{debug, error, warn};

use super::Shared;
use super::replica::{Applied, Arrived};
use super::wire::{BATCH_COMMIT, BATCH_ID, Content, Source};

/// How long to wait before a stream is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// A consumer that says nothing for two of these is gone: its server died.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Most messages the server sends ahead, and most of one step of the replica, batches apart.
const AHEAD: usize = 500;
const AHEAD_BYTES: usize = 16 << 20;

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
            shared.forget(source, state.created.clone()).await?;
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
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(AHEAD)
        .max_bytes_per_batch(AHEAD_BYTES)
        .heartbeat(HEARTBEAT)
        .expires(HEARTBEAT * 5)
        .messages()
        .await?;
    let mut expected = 1;
    // Of a batch whose end has not come.
    let mut open: (String, Vec<Arrived>) = Default::default();
    let mut lost = server.lost();
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            // Else it would be noticed by the heartbeats that do not come.
            _ = lost.changed() => return Err("the connection was lost".into()),
        };
        let Some(message) = message else { return Ok(()) };
        let mut whole = Vec::new();
        let mut next = Some(message);
        while let Some(message) = next.take() {
            let message = message?;
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
                shared.forget(source, applied.created).await?;
                return Ok(());
            }
            if sequence > applied.sequence {
                let content = read(shared, source, sequence, &message);
                let arrived = Arrived { sequence, stored_ns, content };
                collect(&mut open, &mut whole, arrived, message.headers.as_ref());
            }
            if whole.len() < AHEAD {
                next = messages.next().now_or_never().flatten();
            }
        }
        replica.apply(source, whole).await?;
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
