//! The contract of an engine, and the handle that hides which one it is.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::dead::{DeadLetter, LetterCounts, LetterFilter, LetterState, NewLetter};
use crate::error::{AppendError, Error, LeaseError};
use crate::fact::{Batch, Fact, Fence, Stream};
use crate::lease::Lease;

/// A future on the heap: what lets an engine be a trait object.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Facts for a subscriber.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The next facts that match, oldest first; several subscribers may share them.
    pub facts: Vec<Arc<Fact>>,
    /// All that match up to here are in `facts` or were had before.
    pub through: u64,
}

/// How far a subscriber is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The stream.
    pub stream: Stream,
    /// The name under which the position is kept.
    pub subscriber: String,
    /// All up to here is handled.
    pub position: u64,
    /// The position of the last fact of the stream.
    pub head: u64,
}

impl Standing {
    /// Positions that are not handled yet.
    pub fn lag(&self) -> u64 {
        self.head.saturating_sub(self.position)
    }
}

/// Facts that were offered again and taken only once, since the engine was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// Facts under an id that the stream had already.
    pub by_id: u64,
    /// Those of them whose body was the same as well.
    pub by_content: u64,
}

/// Log, subscribers, dead letters and leases.
///
/// The methods are called on a [`Courier`]. The second engine this is written against is NATS
/// `JetStream`: expected last sequence per subject, message ids, durable consumers, atomic batches,
/// a key-value bucket for leases. What it cannot do is not asked for here: epochs need not be
/// consecutive, positions may have gaps, and a lease that ran out cannot be prolonged.
///
/// No answer has a time limit of its own: a store that hangs hangs its caller, who has a limit.
pub trait Engine: Send + Sync + 'static {
    /// Appends all facts of a batch, or none, and returns their positions in the batch's order.
    ///
    /// When this returns, the facts survive the death of the process. A fact whose id is in the
    /// stream already is not appended again, gives its old position, and its expectation is not
    /// looked at; a batch of only such facts is not fenced either. So whoever did not hear an
    /// answer repeats the batch. The first version of a fact stays, whatever the body of a repeated
    /// one.
    ///
    /// A fence refuses if the epoch is not the one in force or the lease was given back. A lease
    /// that merely ran out does not refuse: as long as nobody else took it, nothing is forked.
    ///
    /// `now_ms` becomes the time of the facts.
    fn append(
        &self,
        stream: Stream,
        batch: Batch,
        now_ms: i64,
    ) -> Answer<'_, Result<Vec<u64>, AppendError>>;

    /// The facts after a position, oldest first, at most `limit`.
    fn read(
        &self,
        stream: Stream,
        after: u64,
        limit: usize,
    ) -> Answer<'_, Result<Vec<Fact>, Error>>;

    /// The last fact on exactly this subject.
    fn last_on<'a>(
        &'a self,
        stream: Stream,
        subject: &'a str,
    ) -> Answer<'a, Result<Option<Fact>, Error>>;

    /// The last fact on each subject that lies below this one, oldest first.
    fn last_below<'a>(
        &'a self,
        stream: Stream,
        subject: &'a str,
    ) -> Answer<'a, Result<Vec<Fact>, Error>>;

    /// The position of the last fact; 0 if there never was one.
    fn head(&self, stream: Stream) -> Answer<'_, Result<u64, Error>>;

    /// How often appends of this process repeated a fact.
    fn repeats(&self, stream: Stream) -> Repeats;

    /// Tells this log from another one, so that what was derived from one is not used with the
    /// other.
    fn identity(&self) -> Answer<'_, Result<String, Error>>;

    /// Wakes when facts were appended, or a letter of the stream is to be delivered again; the value
    /// is a position that is readable by then.
    ///
    /// A wake-up only: values are skipped, and what other processes do may not wake at all.
    fn tail(&self, stream: Stream) -> watch::Receiver<u64>;

    /// The position up to which a subscriber has handled the stream; 0 for an unknown one.
    fn position<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
    ) -> Answer<'a, Result<u64, Error>>;

    /// Records that a subscriber has handled the stream up to here; never goes back.
    ///
    /// Records asked for in turn arrive in turn, and dropping the answer takes none back.
    fn advance<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
        to: u64,
    ) -> Answer<'a, Result<(), Error>>;

    /// How far every subscriber is that ever had a position, by stream and name.
    fn standings(&self) -> Answer<'_, Result<Vec<Standing>, Error>>;

    /// The next facts after a position whose subject is `prefix` or begins with it and a dot; an
    /// empty prefix matches all.
    fn next<'a>(
        &'a self,
        stream: Stream,
        after: u64,
        prefix: &'a str,
        limit: usize,
    ) -> Answer<'a, Result<Page, Error>>;

    /// Counts a delivery of a fact to a subscriber and returns which one it is, from 1.
    ///
    /// Only the count of one position is kept per subscriber, that of the fact in its hands.
    fn attempt<'a>(
        &'a self,
        stream: Stream,
        subscriber: &'a str,
        position: u64,
    ) -> Answer<'a, Result<u32, Error>>;

    /// Buries a fact for a subscriber and advances the subscriber over it, in one step; returns the
    /// letter's number.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no fact is at that position.
    fn bury(&self, letter: NewLetter, now_ms: i64) -> Answer<'_, Result<u64, Error>>;

    /// Lists dead letters, the newest first.
    fn dead_letters(&self, filter: LetterFilter) -> Answer<'_, Result<Vec<DeadLetter>, Error>>;

    /// Counts dead letters.
    fn letter_counts(&self) -> Answer<'_, Result<LetterCounts, Error>>;

    /// Has a letter delivered again the next time its subscriber looks.
    ///
    /// A fence refuses as it does for [`Engine::append`]; so it does for the next two.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such letter, [`Error::Fenced`] if the lease was lost.
    fn retry(
        &self,
        letter: u64,
        fence: Option<Fence>,
        now_ms: i64,
    ) -> Answer<'_, Result<(), Error>>;

    /// Records what became of a letter. `error` is that of a retry that failed: it counts as one
    /// more attempt.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such letter, [`Error::Fenced`] if the lease was lost.
    fn settle(
        &self,
        letter: u64,
        fence: Option<Fence>,
        state: LetterState,
        error: Option<String>,
    ) -> Answer<'_, Result<(), Error>>;

    /// Removes letters that are recovered or abandoned and were buried before a time; returns how
    /// many.
    ///
    /// # Errors
    /// [`Error::Fenced`] if the lease was lost; what was removed before stays so.
    fn purge_letters(
        &self,
        fence: Option<Fence>,
        buried_before_ms: i64,
    ) -> Answer<'_, Result<u64, Error>>;

    /// Grants a lease that is free, ran out, or is held by the same holder; each grant has a higher
    /// epoch, so an earlier life of the same holder is fenced out.
    ///
    /// # Errors
    /// [`LeaseError::Held`] if another holder has it.
    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
        now_ms: i64,
    ) -> Answer<'a, Result<Lease, LeaseError>>;

    /// Prolongs a lease to `ttl` from now, with the note that stands in `lease`; the epoch stays.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if it ran out, was given back or went to another holder, and was not prolonged before.
    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
        now_ms: i64,
    ) -> Answer<'a, Result<Lease, LeaseError>>;

    /// Gives a lease back; nothing happens if it is lost already.
    fn release<'a>(&'a self, lease: &'a Lease) -> Answer<'a, Result<(), Error>>;

    /// Who holds a lease now; none if it is free or ran out.
    fn lease<'a>(&'a self, name: &'a str, now_ms: i64) -> Answer<'a, Result<Option<Lease>, Error>>;

    /// All leases in force whose name begins with `prefix`, by name.
    fn leases<'a>(&'a self, prefix: &'a str, now_ms: i64) -> Answer<'a, Result<Vec<Lease>, Error>>;
}

/// The handle to a log; a clone is the same log. All methods are those of [`Engine`].
#[derive(Clone)]
pub struct Courier(Arc<dyn Engine>);

impl Courier {
    /// Wraps an engine.
    pub fn new(engine: impl Engine) -> Self {
        Self(Arc::new(engine))
    }
}

impl Deref for Courier {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Courier")
    }
}
