//! The engine for a cluster: NATS `JetStream` keeps the log, every node a replica to read from.
//!
//! # What lies where
//!
//! Three streams on the server, of three replicas each (one on a single server):
//!
//! | stream | subjects | kept |
//! |---|---|---|
//! | `NAME_pipeline` | `NAME.pipeline.fact.SUBJECT`, `.guard.LEASE`, `.fence` | for ever |
//! | `NAME_operational` | the same with `operational` | facts by age and number, guards for ever |
//! | `KV_NAME` | `$KV.NAME.KEY`: leases, positions of subscribers, dead letters | the last of each key |
//!
//! A position is the number of a message in its stream; guards and fences make gaps. The last stream
//! is a key-value bucket, but written in atomic batches, which buckets have no call for: a fact is
//! buried and passed over in one step.
//!
//! On the node, in [`Options::folder`]: `replica.sqlite`, which follows the three streams, each through an
//! ephemeral consumer; what the node appended itself is put there once it is acknowledged, and held against what
//! comes later. It may be deleted at any time. Nothing is ever decided by it alone: what it says is
//! sent along as a condition, and the server takes the messages of a batch only if all hold where they land.
//!
//! # Reading
//!
//! A question about the log asks the leader of the stream for its last message, waits until the replica is as
//! far, and reads there. So it sees all that was acknowledged anywhere before it was asked. A leader that is cut off
//! may not know that it leads no more: who leads for the majority is shown by an empty message, unless the leader
//! says that all its followers were with it a moment ago. Nothing but that moment rests on a clock, and no change
//! does: changes are checked where they land.
//! [`Engine::next`], which only has to be in order, waits for this node's own appends alone.
//!
//! # Appending
//!
//! Whoever appends a batch of one fact sends it himself, without a wait for those before him. Larger ones go
//! through one task per stream: those that wait together become one atomic batch, as long as they do not touch each
//! other, for an atomic batch costs the server a file; those that the server refuses are looked at one by one,
//! while nothing else is on its way.
//!
//! *An expectation* is the server's own check of the last message on the subject.
//!
//! *An id is taken once, for ever.* The server remembers ids for ten minutes; the replica, which
//! is never further behind than that when an append is sent, knows all older ones. So a repetition is
//! seen by one or the other. Where a fact has an expectation, not even the ten minutes matter: a
//! repetition that the replica does not show lies behind the expected position, and then the
//! expectation fails.
//!
//! *An answer that does not come* leaves open what happened. The stream is read up to its end
//! and the ids are looked up: there they are, or they are sent again, under the same conditions. A record is looked up
//! by who wrote it last. If others did since, nobody knows whether it was there: what may be done twice is done
//! again. A grant of a lease, which may not, ends as [`Error::Unavailable`], and so does what would be refused now: others may
//! have seen it done.
//!
//! # Fences
//!
//! A lease is a record of the bucket, changed by compare-and-set; each grant adds one to its epoch.
//! Facts land in other streams, so its epoch is written there as well: the **guard**, a message per
//! lease and stream. A fenced batch names the guard it relies on by its number, as the condition of one
//! of its messages (of an empty one, on `.fence`, if each fact has a condition of its own). A single fact
//! with a condition of its own expects, at first, that the stream as a whole is as it is known here, guard
//! included: that takes no batch. So the server takes a batch only while the last guard is that of its very
//! epoch, and not one given back.
//! Why this cannot be forked:
//!
//! 1. A guard only rises: it is written under the condition that the last one is the one that was read
//!    and was lower. Any node may write it, from a state of the lease that it read.
//! 2. Nobody tells of a state of a lease before both guards are as high: neither who acquires, nor who is
//!    refused, nor who asks who holds it, nor who is told that an epoch is over.
//! 3. So when anybody can know of a later epoch, the appends of all earlier ones are refused, in both
//!    streams; and until then the later one does not act. A holder that dies between the record and
//!    the guards leaves a lease that nobody knew of, and whoever learns of it raises them.
//! 4. What is done to letters in the name of a lease needs no guard: the lease's record lies in the same stream and
//!    is written again with it, under the condition that it is the last one.
//!
//! A lease ends by the time that its callers name, as in every engine, so its record has no time to live:
//! the server's clock has no say.
//!
//! # When the server does not answer
//!
//! All that is asked is tried again for [`Options::patience`]; then the answer is
//! [`Error::Unavailable`], and whether it was done is not known. The connection comes back by itself.
//! Facts that must not wait go to an [`crate::Outbox`].
//!
//! A single server that loses its power may lose what it acknowledged last, unless its configuration says
//! `sync_interval: always`, as that of [`Authority::furnish`] does. A replica that knows more than its stream sees that and is made
//! anew; what it knew is kept beside it, see [`crate::lost`]. A server cut
//! off from the majority takes nothing.

mod admission;
mod append;
mod current;
mod follow;
mod guards;
mod keys;
mod known;
mod lost;
mod options;
mod records;
mod replica;
mod server;
mod streams;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::courier::{Answer, Courier, Engine, Page, Repeats, Standing};
use crate::dead::{DeadLetter, LetterCounts, LetterFilter, LetterState, NewLetter};
use crate::embedded::sql;
use crate::error::{AppendError, Error, LeaseError, OpenError};
use crate::fact::{Batch, Fact, Fence, Stream};
use crate::lease::Lease;
pub use admission::{AdmissionError, Door, Newcomer, Ticket};
use append::{Appender, Job};
use current::Doubt;
pub use keys::{Authority, Identity, KeyError, ROUTES, Site, public_bytes, public_key, route};
pub use options::Options;
use records::Renewal;
use replica::Replica;
use server::Server;
use wire::Source;

/// Changes of records, and doubts about a leader, that wait for those before them.
const QUEUE: usize = 64;

/// Letters removed in one step.
const PURGED_AT_ONCE: usize = 500;

/// The engine on the streams of a NATS server or cluster.
///
/// Lives on the runtime that opened it.
pub struct JetStream {
    shared: Arc<Shared>,
    appenders: [Arc<Appender>; 2],
    /// Changes of records, one after the other.
    records: Line,
    /// Those of leases, which nothing else holds up.
    leases: Line,
    /// Ended when the last handle goes.
    _tasks: JoinSet<()>,
}

/// What the tasks of an engine share.
struct Shared {
    options: Options,
    server: Server,
    replica: Replica,
    /// When the replica was last known to be at the end of a stream.
    synced: Mutex<[Option<Instant>; 3]>,
    /// Where those ask who doubt that the leader of a stream still leads.
    doubts: [mpsc::Sender<Doubt>; 3],
    /// Leases that were prolonged here, by their keys.
    renewals: Mutex<HashMap<String, Renewal>>,
    repeated_ids: [AtomicU64; 2],
    repeated_contents: [AtomicU64; 2],
    /// Why a stream cannot be followed, as it was last said.
    trouble: Mutex<String>,
}

impl JetStream {
    /// Connects, makes the streams unless they are there, and waits until the replica has caught up.
    ///
    /// # Errors
    /// [`OpenError::TooOld`] and [`OpenError::Unfit`] if the server does not do what is needed,
    /// [`OpenError::Unreachable`] if none answers, [`OpenError::TurnedAway`] if they do not let this node in.
    pub async fn open(options: Options) -> Result<Courier, OpenError> {
        check_name(&options)?;
        let server = Server::connect(&options).await?;
        let (folder, retention) = (options.folder.clone(), options.retention);
        let opening = tokio::task::spawn_blocking(move || Replica::open(&folder, retention));
        let replica = opening.await.map_err(std::io::Error::other)??;
        let [pipeline, operational, state] = Source::ALL.map(|_| current::doubts());
        let (doubts, doubted) =
            ([pipeline.0, operational.0, state.0], [pipeline.1, operational.1, state.1]);
        let shared = Arc::new(Shared {
            server,
            replica,
            options,
            synced: Mutex::default(),
            doubts,
            renewals: Mutex::default(),
            repeated_ids: Default::default(),
            repeated_contents: Default::default(),
            trouble: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (source, doubted) in Source::ALL.into_iter().zip(doubted) {
            tasks.spawn(follow::follow(Arc::clone(&shared), source));
            tasks.spawn(current::prove(Arc::clone(&shared), source, doubted));
        }
        let appenders = Stream::ALL.map(|stream| {
            let (appender, slow) = Appender::new(Arc::clone(&shared), stream);
            tasks.spawn(append::serve(Arc::clone(&appender), slow));
            appender
        });
        let (records, leases) = (Line::new(&mut tasks), Line::new(&mut tasks));
        for source in Source::ALL {
            shared.catch_up(source).await?;
        }
        shared.change::<(), Error>(records::identity).await?;
        shared.guard_all("", shared.deadline()).await?;
        Ok(Courier::new(Self { shared, appenders, records, leases, _tasks: tasks }))
    }

    /// Reads in a replica that shows all that was acknowledged before, anywhere.
    fn ask<T: Send + 'static>(
        &self,
        sources: &'static [Source],
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, Result<T, Error>> {
        Box::pin(async move {
            let until = self.shared.deadline();
            for source in sources {
                self.shared.sync(*source, until).await?;
            }
            self.shared.replica.read(query).await
        })
    }

    /// Changes records, after those that were asked for before.
    fn change<T: Send + 'static>(
        &self,
        plan: impl Fn(&rusqlite::Connection) -> rusqlite::Result<records::Plan<T, Error>>
        + Clone
        + Send
        + 'static,
    ) -> Answer<'_, Result<T, Error>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(self.records.run(async move { shared.change(plan).await }))
    }

    /// The same, in the name of a lease if there is a fence.
    fn change_under<T: Send + 'static>(
        &self,
        fence: Option<Fence>,
        plan: impl Fn(&rusqlite::Connection) -> rusqlite::Result<records::Plan<T, Error>>
        + Clone
        + Send
        + 'static,
    ) -> Answer<'_, Result<T, Error>> {
        let Some(fence) = fence else { return self.change(plan) };
        let shared = Arc::clone(&self.shared);
        Box::pin(self.records.run(async move {
            let lease = fence.lease.clone();
            let outcome = shared.change(move |db: &_| records::under(db, &fence, plan(db)?)).await;
            guards::then(&shared, &lease, outcome).await
        }))
    }
}

fn check_name(options: &Options) -> Result<(), OpenError> {
    let name = &options.name;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.len() <= 32 && name.bytes().all(fits) {
        return Ok(());
    }
    let what = format!(
        "cannot have a log of the name {name:?}: 1 to 32 letters, digits, `-` and `_` are allowed"
    );
    Err(OpenError::Unfit { server: options.shown(), what })
}

/// The next wait before something is tried again.
fn sync_again(pause: Duration) -> Duration {
    (pause * 2).min(Duration::from_millis(250))
}

impl Shared {
    fn deadline(&self) -> Instant {
        Instant::now() + self.options.patience
    }

    /// Takes note of why a stream cannot be followed.
    fn note(&self, why: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone_into(&mut trouble);
    }

    fn unavailable(&self) -> Error {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let why = if trouble.is_empty() { "no answer in time" } else { trouble.as_str() };
        Error::Unavailable(format!("{}: {why}", self.options.shown()))
    }

    fn count(&self, stream: Stream, repeats: Repeats) {
        let n = Source::Facts(stream).index();
        self.repeated_ids[n].fetch_add(repeats.by_id, Ordering::Relaxed);
        self.repeated_contents[n].fetch_add(repeats.by_content, Ordering::Relaxed);
    }
}

/// Runs what it is given one after the other, whether or not somebody waits for it.
struct Line(mpsc::Sender<Answer<'static, ()>>);

impl Line {
    fn new(tasks: &mut JoinSet<()>) -> Self {
        let (sender, mut jobs) = mpsc::channel::<Answer<'static, ()>>(QUEUE);
        tasks.spawn(async move {
            while let Some(job) = jobs.recv().await {
                job.await;
            }
        });
        Self(sender)
    }

    async fn run<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        let (answer, answered) = oneshot::channel();
        let job = Box::pin(async move {
            // Nobody listens if the caller was cancelled.
            drop(answer.send(work.await));
        });
        self.0.send(job).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

const PIPELINE: Source = Source::Facts(Stream::Pipeline);
const OPERATIONAL: Source = Source::Facts(Stream::Operational);

/// The stream of facts alone.
const fn only(stream: Stream) -> &'static [Source] {
    match stream {
        Stream::Pipeline => &[PIPELINE],
        Stream::Operational => &[OPERATIONAL],
    }
}

impl Engine for JetStream {
    fn append(
        &self,
        stream: Stream,
        batch: Batch,
        now_ms: i64,
    ) -> Answer<'_, Result<Vec<u64>, AppendError>> {
        Box::pin(async move {
            let bodies = batch.checked()?;
            let job = Job { batch, bodies, now_ms, until: self.shared.deadline() };
            self.appenders[Source::Facts(stream).index()].append(job).await
        })
    }

    fn read(
        &self,
        stream: Stream,
        after: u64,
        limit: usize,
    ) -> Answer<'_, Result<Vec<Fact>, Error>> {
        self.ask(only(stream), move |db| sql::read(db, stream, after, limit))
    }

    fn last_on<'a>(
        &'a self,
        stream: Stream,
        subject: &'a str,
    ) -> Answer<'a, Result<Option<Fact>, Error>> {
        let subject = subject.to_owned();
        self.ask(only(stream), move |db| sql::last_on(db, stream, &subject))
    }

    fn last_below<'a>(
        &'a self,
        stream: Stream,
        subject: &'a str,
    ) -> Answer<'a, Result<Vec<Fact>, Error>> {
        let subject = subject.to_owned();
        self.ask(only(stream), move |db| sql::last_below(db, stream, &subject))
    }

    fn head(&self, stream: Stream) -> Answer<'_, Result<u64, Error>> {
        self.ask(only(stream), move |db| sql::head(db, stream))
    }

    fn repeats(&self, stream: Stream) -> Repeats {
        let n = Source::Facts(stream).index();
        Repeats {
            by_id: self.shared.repeated_ids[n].load(Ordering::Relaxed),
            by_content: self.shared.repeated_contents[n].load(Ordering::Relaxed),
        }
    }

    fn identity(&self) -> Answer<'_, Result<String, Error>> {
        self.ask(&[Source::State], sql::identity)
    }

    fn tail(&self, stream: Stream) -> watch::Receiver<u64> {
        self.shared.replica.tail(stream)
    }

    fn position<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
    ) -> Answer<'a, Result<u64, Error>> {
        let subscriber = subscriber.to_owned();
        self.ask(&[Source::State], move |db| sql::position(db, stream, &subscriber))
    }

    fn advance<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
        to: u64,
    ) -> Answer<'a, Result<(), Error>> {
        let subscriber = subscriber.to_owned();
        self.change(move |db| records::advance(db, stream, &subscriber, to))
    }

    fn standings(&self) -> Answer<'_, Result<Vec<Standing>, Error>> {
        self.ask(&Source::ALL, sql::standings)
    }

    fn next<'a>(
        &'a self,
        stream: Stream,
        after: u64,
        prefix: &'a str,
        limit: usize,
    ) -> Answer<'a, Result<Page, Error>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            let source = Source::Facts(stream);
            let ours = self.shared.replica.acknowledged(source);
            self.shared.arrive(source, ours, self.shared.deadline()).await?;
            let query = move |db: &_| sql::next(db, stream, after, &prefix, limit);
            self.shared.replica.read(query).await
        })
    }

    fn attempt<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
        position: u64,
    ) -> Answer<'a, Result<u32, Error>> {
        let subscriber = subscriber.to_owned();
        self.change(move |db| records::attempt(db, stream, &subscriber, position))
    }

    fn bury(&self, letter: NewLetter, now_ms: i64) -> Answer<'_, Result<u64, Error>> {
        Box::pin(async move {
            let source = Source::Facts(letter.stream);
            self.shared.sync(source, self.shared.deadline()).await?;
            self.change(move |db| records::bury(db, &letter, now_ms)).await
        })
    }

    fn dead_letters(&self, filter: LetterFilter) -> Answer<'_, Result<Vec<DeadLetter>, Error>> {
        self.ask(&[Source::State], move |db| sql::dead_letters(db, &filter))
    }

    fn letter_counts(&self) -> Answer<'_, Result<LetterCounts, Error>> {
        self.ask(&[Source::State], sql::letter_counts)
    }

    fn retry(
        &self,
        letter: u64,
        fence: Option<Fence>,
        now_ms: i64,
    ) -> Answer<'_, Result<(), Error>> {
        self.change_under(fence, move |db| records::retry(db, letter, now_ms))
    }

    fn settle(
        &self,
        letter: u64,
        fence: Option<Fence>,
        state: LetterState,
        error: Option<String>,
    ) -> Answer<'_, Result<(), Error>> {
        self.change_under(fence, move |db| records::settle(db, letter, state, error.as_deref()))
    }

    fn purge_letters(
        &self,
        fence: Option<Fence>,
        buried_before_ms: i64,
    ) -> Answer<'_, Result<u64, Error>> {
        Box::pin(async move {
            let mut removed = 0;
            loop {
                let plan = move |db: &_| records::purge(db, buried_before_ms, PURGED_AT_ONCE);
                let now = self.change_under(fence.clone(), plan).await?;
                if now == 0 {
                    return Ok(removed);
                }
                removed += now;
            }
        })
    }

    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
        now_ms: i64,
    ) -> Answer<'a, Result<Lease, LeaseError>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        let shared = Arc::clone(&self.shared);
        Box::pin(self.leases.run(async move {
            let lease = name.clone();
            let plan = move |db: &_| records::acquire(db, &name, &holder, ttl, now_ms);
            let outcome = shared.change(plan).await;
            guards::then(&shared, &lease, outcome).await
        }))
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
        now_ms: i64,
    ) -> Answer<'a, Result<Lease, LeaseError>> {
        let lease = lease.clone();
        let shared = Arc::clone(&self.shared);
        Box::pin(self.leases.run(async move { shared.renew(lease, ttl, now_ms).await }))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> Answer<'a, Result<(), Error>> {
        let lease = lease.clone();
        let shared = Arc::clone(&self.shared);
        Box::pin(self.leases.run(async move { shared.release(lease).await }))
    }

    fn lease<'a>(&'a self, name: &'a str, now_ms: i64) -> Answer<'a, Result<Option<Lease>, Error>> {
        let name = name.to_owned();
        Box::pin(async move {
            let asked = name.clone();
            let found = self.ask(&[Source::State], move |db| sql::lease(db, &asked, now_ms)).await;
            guards::then(&self.shared, &name, found).await
        })
    }

    fn leases<'a>(&'a self, prefix: &'a str, now_ms: i64) -> Answer<'a, Result<Vec<Lease>, Error>> {
        let prefix = prefix.to_owned();
        Box::pin(async move {
            let asked = prefix.clone();
            let found =
                self.ask(&[Source::State], move |db| sql::leases(db, &asked, now_ms)).await?;
            self.shared.guard_all(&prefix, self.shared.deadline()).await?;
            Ok(found)
        })
    }
}
