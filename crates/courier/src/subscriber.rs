//! At least once delivery with a durable position.

use std::collections::VecDeque;
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use tracing::{debug, warn};

use crate::courier::Courier;
use crate::dead::{LetterFilter, LetterState, NewLetter};
use crate::error::Error;
use crate::fact::{Fact, Stream};

/// Facts fetched at a time.
const PAGE: usize = 256;

/// Facts that may be done and not recorded yet.
const LAG: usize = 64;

/// Reads the facts below one subject, in order, each until it is handled.
///
/// ```text
/// while let Some(delivery) = subscriber.next(now_ms).await? {
///     match handle(&delivery.fact).await {
///         Ok(()) => subscriber.done(delivery).await?,
///         Err(error) => match subscriber.failed(delivery, &error, now_ms).await? {
///             Failed::Buried => {}
///             Failed::Again { .. } => break, // wait a while, then go on with the same fact
///         },
///     }
/// }
/// ```
///
/// The position is durable and follows the facts that are done, without a wait for each: the record
/// of one is written while the next are handled. So after a crash the fact in hand comes again, and
/// the last few before it may, at most 64; after [`Subscriber::settled`] none of those does.
///
/// After `max_attempts` failures a fact is buried as a dead letter and the subscriber goes on. A
/// handler that takes the process down with it is counted too. There is one `Subscriber` per name at
/// a time; that is the caller's to see to.
pub struct Subscriber {
    log: Courier,
    stream: Stream,
    name: String,
    prefix: String,
    max_attempts: u32,
    /// Letters to be delivered again; they come before new facts.
    letters: VecDeque<(u64, Arc<Fact>)>,
    /// New facts; the first one is in the caller's hands.
    facts: VecDeque<Arc<Fact>>,
    /// Facts of this life that may still be the one that ended the last: as many as its record can
    /// have lagged behind. The attempt of each is recorded before it is handled.
    suspects: usize,
    /// The recorded attempt of the first of `facts`.
    recorded: Option<u32>,
    /// All up to here is done; none before the record was read.
    done: Option<u64>,
    /// All up to here is recorded as done.
    saved: u64,
    /// Positions between the two.
    unsaved: VecDeque<u64>,
    /// The record on its way, and up to where it says that all is done.
    saving: Option<(u64, Saving)>,
}

type Saving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, name, prefix, done, saved, .. } = self;
        f.debug_struct("Subscriber")
            .field("stream", stream)
            .field("name", name)
            .field("prefix", prefix)
            .field("done", done)
            .field("saved", saved)
            .finish_non_exhaustive()
    }
}

/// A fact to be handled; [`Subscriber::next`] gives the same one until it is settled.
#[derive(Debug)]
pub struct Delivery {
    /// The fact.
    pub fact: Arc<Fact>,
    /// The number of the dead letter that is retried, if it is one.
    pub letter: Option<u64>,
}

/// What became of a fact whose handler failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It comes again; wait a while before.
    Again {
        /// Deliveries so far.
        attempts: u32,
    },
    /// It is a dead letter now.
    Buried,
}

impl Subscriber {
    /// A subscriber to the facts whose subject is `prefix` or begins with it and a dot; an empty
    /// prefix means all. A new name begins with the oldest fact.
    pub fn new(
        log: Courier,
        stream: Stream,
        name: impl Into<String>,
        prefix: impl Into<String>,
        max_attempts: u32,
    ) -> Self {
        Self {
            log,
            stream,
            name: name.into(),
            prefix: prefix.into(),
            max_attempts: max_attempts.max(1),
            letters: VecDeque::new(),
            facts: VecDeque::new(),
            // And the one in hand.
            suspects: LAG + 1,
            recorded: None,
            done: None,
            saved: 0,
            unsaved: VecDeque::new(),
            saving: None,
        }
    }

    /// The name under which the position is kept.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fact to handle now; none if all are handled.
    ///
    /// Does not wait for facts: call it again when [`crate::Engine::tail`] wakes. `now_ms` is for
    /// the letter of a fact whose handler never answered.
    pub async fn next(&mut self, now_ms: i64) -> Result<Option<Delivery>, Error> {
        loop {
            if let Some((id, fact)) = self.letters.front() {
                return Ok(Some(Delivery { fact: fact.clone(), letter: Some(*id) }));
            }
            let Some(fact) = self.facts.front() else {
                if self.fetch().await? {
                    continue;
                }
                return Ok(None);
            };
            let fact = fact.clone();
            if self.suspects > 0 && self.recorded.is_none() {
                // With nothing left behind it, the next life begins with this very fact.
                self.settled().await?;
                let n = self.log.attempt(self.stream, &self.name, fact.position).await?;
                if n > self.max_attempts {
                    let error = format!("{} deliveries ended without an answer", n - 1);
                    self.bury(&fact, n - 1, error, now_ms).await?;
                    continue;
                }
                self.suspects -= 1;
                self.recorded = Some(n);
            }
            return Ok(Some(Delivery { fact, letter: None }));
        }
    }

    /// Settles a fact that was handled. In this life it does not come again.
    ///
    /// # Errors
    /// Why an earlier one could not be recorded; the record is tried again with the next.
    pub async fn done(&mut self, delivery: Delivery) -> Result<(), Error> {
        if let Some(id) = delivery.letter {
            self.log.settle(id, None, LetterState::Recovered, None).await?;
            self.letters.retain(|(letter, _)| *letter != id);
            return Ok(());
        }
        self.pass_over(delivery.fact.position);
        if self.unsaved.len() >= LAG { self.settled().await } else { self.save_along().await }
    }

    /// Waits until all that is done is recorded, so that nothing of it comes again: for the end of
    /// an orderly life. [`Subscriber::next`] has done so when it has nothing left.
    pub async fn settled(&mut self) -> Result<(), Error> {
        loop {
            // One on its way that says less is not waited for: this one says it too.
            if let Some(newer) = self.save() {
                self.saving = Some(newer);
            }
            let Some((to, saving)) = &mut self.saving else { return Ok(()) };
            let (to, saved) = (*to, saving.as_mut().await);
            self.saving = None;
            saved?;
            self.arrived(to);
        }
    }

    /// Takes note of a record that has arrived, and sends the next one: without a wait, and with one
    /// on its way at a time, so that fast handlers share it.
    async fn save_along(&mut self) -> Result<(), Error> {
        loop {
            if self.saving.is_none() {
                self.saving = self.save();
            }
            let Some((to, saving)) = &mut self.saving else { return Ok(()) };
            let (to, saved) = tokio::select! {
                biased;
                saved = saving.as_mut() => (*to, saved),
                () = ready(()) => return Ok(()),
            };
            self.saving = None;
            saved?;
            self.arrived(to);
        }
    }

    fn arrived(&mut self, saved: u64) {
        self.saved = self.saved.max(saved);
        while self.unsaved.front().is_some_and(|position| *position <= self.saved) {
            self.unsaved.pop_front();
        }
    }

    /// The record that is missing, if one is: neither there nor on its way.
    fn save(&self) -> Option<(u64, Saving)> {
        let sent = self.saving.as_ref().map_or(self.saved, |(to, _)| self.saved.max(*to));
        let to = self.done.filter(|done| *done > sent)?;
        let (log, stream, name) = (self.log.clone(), self.stream, self.name.clone());
        Some((to, Box::pin(async move { log.advance(stream, &name, to).await })))
    }

    /// Settles a fact whose handler failed: it comes again, or it is buried.
    pub async fn failed(
        &mut self,
        delivery: Delivery,
        error: &(impl fmt::Display + ?Sized + Sync),
        now_ms: i64,
    ) -> Result<Failed, Error> {
        let error = error.to_string();
        let fact = delivery.fact;
        if let Some(id) = delivery.letter {
            self.log.settle(id, None, LetterState::Pending, Some(error)).await?;
            self.letters.retain(|(letter, _)| *letter != id);
            return Ok(Failed::Buried);
        }
        let attempts = match self.recorded.take() {
            Some(n) => n,
            None => self.log.attempt(self.stream, &self.name, fact.position).await?,
        };
        if attempts >= self.max_attempts {
            self.bury(&fact, attempts, error, now_ms).await?;
            return Ok(Failed::Buried);
        }
        debug!(subscriber = self.name, subject = fact.subject, attempts, error, "delivery failed");
        Ok(Failed::Again { attempts })
    }

    /// Fetches letters and facts; returns whether there are any.
    async fn fetch(&mut self) -> Result<bool, Error> {
        let filter = LetterFilter {
            id: None,
            subscriber: Some(self.name.clone()),
            prefix: self.prefix.clone(),
            state: Some(LetterState::Retrying),
            limit: PAGE,
        };
        for letter in self.log.dead_letters(filter).await?.into_iter().rev() {
            if letter.stream == self.stream {
                // Not `Retrying` while it is handled: if that takes the process down, it waits for
                // a person again instead of coming back at once.
                self.log.settle(letter.id, None, LetterState::Pending, None).await?;
                self.letters.push_back((letter.id, Arc::new(letter.fact)));
            }
        }
        let after = if let Some(done) = self.done {
            done
        } else {
            self.saved = self.log.position(self.stream, &self.name).await?;
            *self.done.insert(self.saved)
        };
        let page = self.log.next(self.stream, after, &self.prefix, PAGE).await?;
        if page.facts.is_empty() {
            // So that the facts of others are not looked through again.
            self.done = Some(after.max(page.through));
            self.settled().await?;
        }
        self.facts = page.facts.into();
        Ok(!self.letters.is_empty() || !self.facts.is_empty())
    }

    async fn bury(
        &mut self,
        fact: &Fact,
        attempts: u32,
        error: String,
        now_ms: i64,
    ) -> Result<(), Error> {
        warn!(subscriber = self.name, subject = fact.subject, attempts, error, "fact buried");
        let letter = NewLetter {
            subscriber: self.name.clone(),
            stream: self.stream,
            position: fact.position,
            error,
            attempts,
        };
        self.log.bury(letter, now_ms).await?;
        self.pass_over(fact.position);
        // In the same step.
        self.arrived(fact.position);
        Ok(())
    }

    fn pass_over(&mut self, position: u64) {
        while self.facts.front().is_some_and(|fact| fact.position <= position) {
            self.facts.pop_front();
        }
        self.recorded = None;
        self.done = self.done.max(Some(position));
        self.unsaved.push_back(position);
    }
}
