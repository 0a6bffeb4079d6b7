//! Keeps the replica in step with one stream of the server.
//!
//! The server is asked for what there is, and answers as soon as there is anything; then it is asked again,
//! as its [`Pace`] allows unless somebody waits for what is behind. So one message alone comes at
//! once, and of many a whole lot comes at a time, which costs the server, the way here and the replica a
//! fraction of what each for itself does.
//!
//! What this node appended is known without having come: once it is acknowledged, and what lies before it is in
//! the replica, it is put there. When it comes it is held against that.

use std::sync::Arc;
use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::message::Message;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, warn};

use super::Shared;
use super::lost;
use super::replica::{Applied, Arrived, Missing, Replica, Seen};
use super::wire::{BATCH_COMMIT, BATCH_ID, Content, Source};
use crate::fact::Stream;

/// How long to wait before a stream is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// The same where what was known cannot be put aside: it is a whole copy each time.
const UNKEPT: Duration = Duration::from_secs(10);

/// A consumer that says nothing for two of these is gone: its server died.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A question that was not answered for so long is asked again.
const QUESTION: Duration = Duration::from_secs(20);

/// Most messages of one answer, and of one step of the replica, batches apart.
const AHEAD: usize = 1000;
const AHEAD_BYTES: usize = 16 << 20;

/// Each message that a question brings is worth so long a wait before the next.
const MESSAGE: Duration = Duration::from_millis(250);

/// When the server is asked for more while nobody waits for an answer, and so what others record wakes somebody here.
/// A node takes so many steps a second at most, and fewer if more comes with each, however many others there are.
struct Pace {
    /// The least time between two questions,
    gap: Duration,
    /// and what it is in the long run, if each brings one message;
    each: Duration,
    /// if it brings many;
    longest: Duration,
    /// but for what was not used of so much time before.
    saved: Duration,
    /// Before this the next question is too many.
    due: Instant,
}

impl Pace {
    fn new(source: Source) -> Self {
        let seconds = Duration::from_secs;
        let (gap, each, longest, saved) = match source {
            Source::Facts(_) => {
                (Duration::from_millis(100), Duration::from_millis(500), seconds(2), seconds(4))
            }
            // Each node of a cluster prolongs a lease every few seconds; who wants to know asks, and then waits.
            Source::State => (seconds(5), seconds(5), seconds(20), Duration::ZERO),
        };
        Self { gap, each, longest, saved, due: Instant::now() }
    }

    /// When to ask again after a question at this time which brought so many messages.
    fn next(&mut self, asked: Instant, messages: usize) -> Instant {
        let earliest = asked.checked_sub(self.saved).unwrap_or(asked);
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let wait = MESSAGE.saturating_mul(messages).clamp(self.each, self.longest);
        // Questions before their time, because somebody waits, are no debt.
        self.due = (self.due.max(earliest) + wait).min(asked + wait);
        self.due.max(asked + self.gap)
    }
}

/// The least time between two steps for what we appended ourselves: somebody will want to read it, and many such
/// come together; who waits for it does not wait for this.
const OWN_PACE: Duration = Duration::from_millis(20);

/// So many messages of our own that are known without having come are passed over by another consumer, which costs
/// the server less than to send them.
const PASSED_OVER: u64 = 256;

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

/// Follows until the connection is lost or the stream turns out to be another one.
async fn life(shared: &Shared, source: Source) -> Result<(), Failed> {
    let mut lost = shared.server.lost();
    let mut life = Life::begin(shared, source).await?;
    let mut pace = Pace::new(source);
    let mut asked = Instant::now();
    // When to ask next; none while the answer comes.
    let mut due = Some(asked);
    // When what we appended is put into the file next; none while what lies before it has to come.
    let mut own = Some(asked);
    loop {
        let heard = life.consumer.heard;
        tokio::select! {
            // Else it would be noticed by the heartbeats that do not come.
            _ = lost.changed() => return Err("the connection was lost".into()),
            () = at(due) => {
                life.ask().await?;
                (asked, due) = (Instant::now(), None);
            }
            () = own_is_due(&shared.replica, source, own), if own.is_some() => {
                own = life.take_ours().await?;
                due = due.map(|due| if own.is_some() { due } else { Instant::now() });
            }
            () = sleep_until(heard + HEARTBEAT * 2), if due.is_none() => {
                return Err("no sign of life".into());
            }
            next = life.consumer.next(), if due.is_none() => {
                let is_over = match next? {
                    Said::Message(message, seen) => {
                        life.take(&message, seen);
                        life.count == AHEAD
                    }
                    Said::Alive => false,
                    Said::NoMore => true,
                };
                if is_over {
                    // There is more: it comes while this is written.
                    if life.count == AHEAD {
                        life.ask().await?;
                        asked = Instant::now();
                    } else {
                        due = Some(pace.next(asked, life.count));
                    }
                    if !life.write().await? {
                        return Ok(());
                    }
                    own = Some(asked + OWN_PACE);
                }
            }
        }
    }
}

/// Waits until somebody waits for a message, or until then and for one of ours, that is not in the file.
async fn own_is_due(replica: &Replica, source: Source, own: Option<Instant>) {
    let appended = async {
        replica.appended(source).await;
        at(own).await;
    };
    tokio::select! {
        () = replica.wanted(source) => {}
        () = appended => {}
    }
}

/// Waits until then; for ever if there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What is known of a stream on one connection.
struct Life<'a> {
    shared: &'a Shared,
    source: Source,
    /// When the stream was made.
    created: String,
    /// The last message that came and is in the file.
    seen: Seen,
    consumer: Consumer<'a>,
    /// Of a batch whose end has not come.
    open: (String, Vec<Arrived>),
    /// To be written.
    whole: Vec<Arrived>,
    /// What is in the file already: our own, and what was there before.
    again: Vec<Arrived>,
    /// Messages of this answer.
    count: usize,
    /// What was missing when our own were last put into the file.
    missing: Option<Missing>,
}

impl<'a> Life<'a> {
    async fn begin(shared: &'a Shared, source: Source) -> Result<Self, Failed> {
        let Shared { server, replica, .. } = shared;
        let connection = server.connection();
        replica.connected(source, connection);
        let state = server.state(source).await?;
        let known = match replica.applied_to(source).await? {
            Some(known) if known.created == state.created && known.sequence <= state.last => known,
            Some(known) if known.created == state.created && !state.is_surely_led => {
                return Err("a server that may not lead knows less than was known".into());
            }
            found => {
                if let Some(Applied { sequence, .. }) = found {
                    warn!(
                        stream = source.name(),
                        ours = sequence,
                        theirs = state.last,
                        "the stream is another one or lost messages: the replica is made anew"
                    );
                    keep(shared, source).await?;
                }
                replica.forget(source, state.created.clone()).await?;
                Applied { sequence: 0, seen: Seen::default(), created: state.created }
            }
        };
        replica.is_compared(source, connection);
        let Applied { seen, created, .. } = known;
        // The last one that came comes again, and with it our own behind it, to see whether all are still the same.
        let consumer = Consumer::begin(shared, source, seen.sequence).await?;
        let (open, whole, again, count, missing) = Default::default();
        Ok(Self { shared, source, created, seen, consumer, open, whole, again, count, missing })
    }

    /// Asks for what there is.
    async fn ask(&mut self) -> Result<(), Failed> {
        let applied = self.shared.replica.applied_now(self.source);
        if applied.saturating_sub(self.seen.sequence) >= PASSED_OVER {
            // From the last one on, to see that come.
            let next = Consumer::begin(self.shared, self.source, applied).await?;
            std::mem::replace(&mut self.consumer, next).end().await;
            self.open = Default::default();
        }
        self.count = 0;
        self.consumer.ask().await
    }

    fn take(&mut self, message: &Message, Seen { sequence, stored_ns }: Seen) {
        self.count += 1;
        let content = read(self.shared, self.source, sequence, message);
        let arrived = Arrived { sequence, stored_ns, content };
        if sequence <= self.shared.replica.applied_now(self.source) {
            self.again.push(arrived);
        } else {
            collect(&mut self.open, &mut self.whole, arrived, message.headers.as_ref());
        }
    }

    /// Writes what came; says whether it fits what is known.
    async fn write(&mut self) -> Result<bool, Failed> {
        let Self { source, seen, .. } = *self;
        let replica = &self.shared.replica;
        let again = std::mem::take(&mut self.again);
        let last = again.last().map(Arrived::seen);
        let moved = again.iter().find(|arrived| {
            arrived.sequence == seen.sequence && arrived.stored_ns != seen.stored_ns
        });
        if moved.is_some() || !replica.has(source, again).await? {
            error!(
                stream = source.name(),
                behind = seen.sequence,
                "the stream lost messages and went on without them: made anew"
            );
            keep(self.shared, source).await?;
            replica.forget(source, self.created.clone()).await?;
            return Ok(false);
        }
        let whole = std::mem::take(&mut self.whole);
        self.seen = whole.last().map(Arrived::seen).or(last).unwrap_or(seen);
        replica.apply(source, whole, self.seen).await?;
        Ok(true)
    }

    /// Puts into the file what we appended; says when to do so again, none if something has to come before.
    async fn take_ours(&mut self) -> Result<Option<Instant>, Failed> {
        let replica = &self.shared.replica;
        replica.take_ours(self.source, self.seen).await?;
        let before = self.missing.take();
        self.missing = replica.missing(self.source);
        // Acknowledgements that cross each other make gaps that are closed a moment later.
        let has_to_come = self.missing.is_some_and(|it| it.is_wanted || self.missing == before);
        Ok((!has_to_come).then(|| Instant::now() + OWN_PACE))
    }
}

/// Before it is forgotten. Where it cannot be kept, nothing is forgotten, and that is tried again.
async fn keep(shared: &Shared, source: Source) -> Result<(), Failed> {
    if source != Source::Facts(Stream::Pipeline) {
        return Ok(());
    }
    shared.note("the servers have lost facts, and what this node knew of them is put aside");
    match lost::keep(&shared.replica).await {
        Ok(Some(path)) => {
            error!(path = %path.display(), "what this node knew of the log is kept there");
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => {
            let why = format!(
                "the servers have lost facts, and what this node knew of them cannot be put aside, so it is not \
                 forgotten: {error}"
            );
            shared.note(&why);
            sleep(UNKEPT).await;
            Err(why.into())
        }
    }
}

/// What a consumer says.
enum Said {
    Message(Box<Message>, Seen),
    /// It is there and has nothing.
    Alive,
    /// That was all, for this question.
    NoMore,
}

/// Hands out the messages of a stream from one of them on.
struct Consumer<'a> {
    shared: &'a Shared,
    source: Source,
    pull: PullConsumer,
    inbox: String,
    messages: async_nats::Subscriber,
    /// The number that it gives to the next message.
    expected: u64,
    /// When it gave a sign of life.
    heard: Instant,
}

impl<'a> Consumer<'a> {
    async fn begin(shared: &'a Shared, source: Source, from: u64) -> Result<Self, Failed> {
        let server = &shared.server;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let stream = server.names.stream(source);
        let pull = server.context().create_consumer_on_stream(config, stream).await?;
        let inbox = server.inbox();
        let messages = server.listen(inbox.clone()).await?;
        Ok(Self { shared, source, pull, inbox, messages, expected: 1, heard: Instant::now() })
    }

    async fn ask(&mut self) -> Result<(), Failed> {
        let question = pull::BatchConfig {
            batch: AHEAD,
            max_bytes: AHEAD_BYTES,
            expires: Some(QUESTION),
            // Answered with all there is, as soon as there is anything.
            no_wait: true,
            idle_heartbeat: HEARTBEAT,
            ..pull::BatchConfig::default()
        };
        self.pull.request_batch(question, self.inbox.clone().into()).await?;
        self.heard = Instant::now();
        Ok(())
    }

    /// What it says next. Dropped, nothing is lost.
    async fn next(&mut self) -> Result<Said, Failed> {
        let message = self.messages.next().await.ok_or("the connection ended")?;
        self.heard = Instant::now();
        match message.status {
            None => {}
            Some(StatusCode::IDLE_HEARTBEAT) => return Ok(Said::Alive),
            // All there was has come, or nothing came for long.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => return Ok(Said::NoMore),
            Some(status) => {
                let why = message.description.unwrap_or_default();
                if why.contains("MaxBytes") {
                    return Ok(Said::NoMore);
                }
                return Err(format!("the consumer says {status} {why}").into());
            }
        }
        let context = self.shared.server.context().clone();
        let message = Message { message, context };
        let info = message.info()?;
        if info.consumer_sequence != self.expected {
            return Err("the consumer skipped a message".into());
        }
        self.expected += 1;
        let stored_ns = i64::try_from(info.published.unix_timestamp_nanos())?;
        let seen = Seen { sequence: info.stream_sequence, stored_ns };
        Ok(Said::Message(Box::new(message), seen))
    }

    /// The server would forget it by itself, but later.
    async fn end(self) {
        let server = &self.shared.server;
        let name = &self.pull.cached_info().name;
        let stream = server.names.stream(self.source);
        if let Err(error) = server.context().delete_consumer_from_stream(name, stream).await {
            debug!(%error, "a consumer is left to be forgotten");
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
            let key = shared.server.names.key(source, subject)?;
            Some(Content::Unreadable { key: key.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_come_at_once_and_many_together() {
        let mut pace = Pace::new(Source::Facts(Stream::Pipeline));
        let mut ask = |messages| {
            let asked = Instant::now();
            let next = pace.next(asked, messages);
            (next - asked).as_millis()
        };
        for (messages, quick, in_the_long_run) in [(1, 8, 500), (4, 4, 1000), (100, 2, 2000)] {
            tokio::time::advance(Duration::from_mins(1)).await;
            let mut waits = Vec::new();
            for _ in 0..16 {
                let wait = ask(messages);
                tokio::time::advance(Duration::from_millis(u64::try_from(wait).unwrap())).await;
                waits.push(wait);
            }
            assert!(waits[..quick].iter().all(|wait| *wait == 100), "{messages}: {waits:?}");
            assert_eq!(waits[14..], [in_the_long_run; 2], "{messages}: {waits:?}");
            assert!(waits.iter().all(|wait| (100..=in_the_long_run).contains(wait)), "{waits:?}");
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ask(1), 100, "saved again");
        let before_their_time: Vec<_> = (0..100).map(|_| ask(1000)).collect();
        assert_eq!(before_their_time[99], 2000, "{before_their_time:?}");
    }
}
