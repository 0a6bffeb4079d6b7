//! At least once delivery with a durable position.

use std::collections::VecDeque;
use std::fmt::Display;

use tracing::{debug, warn};

use crate::courier::Courier;
use crate::dead::{LetterFilter, LetterState, NewLetter};
use crate::error::Error;
use crate::fact::{Fact, Stream};

/// Facts fetched at a time.
const PAGE: usize = 64;

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
/// The position is durable and moves over a fact when that is done; after a crash the fact in hand
/// comes again. After `max_attempts` failures a fact is buried as a dead letter and the subscriber
/// goes on. A handler that takes the process down with it is counted too. There is one `Subscriber`
/// per name at a time; that is the caller's to see to.
#[derive(Debug)]
pub struct Subscriber {
    log: Courier,
    stream: Stream,
    name: String,
    prefix: String,
    max_attempts: u32,
    /// Letters to be delivered again; they come before new facts.
    letters: VecDeque<(u64, Fact)>,
    /// New facts; the first one is in the caller's hands.
    facts: VecDeque<Fact>,
    /// The first fact after a start may be the one that ended the last life: its attempt is
    /// recorded before it is handled.
    fresh: bool,
    /// The recorded attempt of the first of `facts`.
    recorded: Option<u32>,
}

/// A fact to be handled; [`Subscriber::next`] gives the same one until it is settled.
#[derive(Debug)]
pub struct Delivery {
    /// The fact.
    pub fact: Fact,
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
            fresh: true,
            recorded: None,
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
            if self.fresh {
                let n = self.log.attempt(self.stream, &self.name, fact.position).await?;
                if n > self.max_attempts {
                    let error = format!("{} deliveries ended without an answer", n - 1);
                    self.bury(&fact, n - 1, error, now_ms).await?;
                    continue; // and the next one is the first of this life
                }
                self.fresh = false;
                self.recorded = Some(n);
            }
            return Ok(Some(Delivery { fact, letter: None }));
        }
    }

    /// Settles a fact that was handled: it does not come again.
    pub async fn done(&mut self, delivery: Delivery) -> Result<(), Error> {
        if let Some(id) = delivery.letter {
            self.log.settle(id, LetterState::Recovered, None).await?;
            self.letters.retain(|(letter, _)| *letter != id);
            return Ok(());
        }
        self.log.advance(self.stream, &self.name, delivery.fact.position).await?;
        self.pass_over(delivery.fact.position);
        Ok(())
    }

    /// Settles a fact whose handler failed: it comes again, or it is buried.
    pub async fn failed(
        &mut self,
        delivery: Delivery,
        error: &(impl Display + ?Sized + Sync),
        now_ms: i64,
    ) -> Result<Failed, Error> {
        let error = error.to_string();
        let fact = delivery.fact;
        if let Some(id) = delivery.letter {
            self.log.settle(id, LetterState::Pending, Some(error)).await?;
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
                self.log.settle(letter.id, LetterState::Pending, None).await?;
                self.letters.push_back((letter.id, letter.fact));
            }
        }
        let page = self.log.next(self.stream, &self.name, &self.prefix, PAGE).await?;
        if page.facts.is_empty() {
            // So that the facts of others are not looked through again.
            if page.through > self.log.position(self.stream, &self.name).await? {
                self.log.advance(self.stream, &self.name, page.through).await?;
            }
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
        Ok(())
    }

    fn pass_over(&mut self, position: u64) {
        while self.facts.front().is_some_and(|fact| fact.position <= position) {
            self.facts.pop_front();
        }
        self.recorded = None;
    }
}
