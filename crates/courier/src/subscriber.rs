//! At least once delivery with a durable position.

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
/// The position is durable and moves over a fact when its handler succeeded; after a crash the fact
/// in hand comes again. A handler that fails ends the pass: the next pass tries the same fact, and
/// after `max_attempts` failures the fact is buried as a dead letter and the subscriber goes on. A
/// handler that takes the process down with it is counted too. There is one `Subscriber` per name
/// at a time; that is the caller's to see to.
#[derive(Debug)]
pub struct Subscriber {
    log: Courier,
    stream: Stream,
    name: String,
    prefix: String,
    max_attempts: u32,
    /// The first fact after a start may be the one that ended the last life: its attempt is
    /// recorded before it is handled.
    fresh: bool,
}

/// What a pass did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Facts whose handler succeeded, retried letters included.
    pub handled: usize,
    /// Facts that became dead letters.
    pub buried: usize,
    /// Retried letters that recovered; part of `handled`.
    pub recovered: usize,
    /// The fact that stopped the pass, if one did.
    pub stalled: Option<Stalled>,
    /// Whether the limit ended the pass, so that more may wait.
    pub more: bool,
}

/// A fact whose handler failed and that will be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stalled {
    /// Its position.
    pub position: u64,
    /// Its subject.
    pub subject: String,
    /// Deliveries so far.
    pub attempts: u32,
    /// What the handler said.
    pub error: String,
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
            fresh: true,
        }
    }

    /// The name under which the position is kept.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Handles what waits, first the letters that are to be retried, at most `limit` facts.
    ///
    /// Does not wait for facts: call it again when [`crate::Engine::tail`] wakes, or after a pause
    /// if the pass stalled.
    ///
    /// # Errors
    /// Those of the log. A handler's error is not one: see [`Delivered`].
    pub async fn deliver<H, E>(
        &mut self,
        limit: usize,
        now_ms: i64,
        mut handle: H,
    ) -> Result<Delivered, Error>
    where
        H: AsyncFnMut(&Fact) -> Result<(), E>,
        E: Display,
    {
        let mut delivered = Delivered::default();
        self.retry_letters(limit, &mut delivered, &mut handle).await?;
        loop {
            let room = limit.saturating_sub(delivered.handled + delivered.buried);
            if room == 0 {
                delivered.more = true;
                return Ok(delivered);
            }
            let page = room.min(PAGE);
            let page = self.log.next(self.stream, &self.name, &self.prefix, page).await?;
            if page.facts.is_empty() {
                if page.through > self.log.position(self.stream, &self.name).await? {
                    self.log.advance(self.stream, &self.name, page.through).await?;
                }
                return Ok(delivered);
            }
            for fact in &page.facts {
                if !self.deliver_one(fact, now_ms, &mut delivered, &mut handle).await? {
                    return Ok(delivered);
                }
            }
        }
    }

    /// Returns whether the pass goes on.
    async fn deliver_one<H, E>(
        &mut self,
        fact: &Fact,
        now_ms: i64,
        delivered: &mut Delivered,
        handle: &mut H,
    ) -> Result<bool, Error>
    where
        H: AsyncFnMut(&Fact) -> Result<(), E>,
        E: Display,
    {
        let mut attempt = None;
        if std::mem::take(&mut self.fresh) {
            let n = self.log.attempt(self.stream, &self.name, fact.position).await?;
            if n > self.max_attempts {
                let error = format!("{} deliveries ended without an answer", n - 1);
                self.bury(fact, n - 1, error, now_ms).await?;
                delivered.buried += 1;
                self.fresh = true;
                return Ok(true);
            }
            attempt = Some(n);
        }
        let Err(error) = handle(fact).await else {
            self.log.advance(self.stream, &self.name, fact.position).await?;
            delivered.handled += 1;
            return Ok(true);
        };
        let error = error.to_string();
        let attempts = match attempt {
            Some(n) => n,
            None => self.log.attempt(self.stream, &self.name, fact.position).await?,
        };
        if attempts >= self.max_attempts {
            self.bury(fact, attempts, error, now_ms).await?;
            delivered.buried += 1;
            return Ok(true);
        }
        debug!(subscriber = self.name, subject = fact.subject, attempts, error, "delivery failed");
        let (position, subject) = (fact.position, fact.subject.clone());
        delivered.stalled = Some(Stalled { position, subject, attempts, error });
        Ok(false)
    }

    async fn bury(
        &self,
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
        Ok(())
    }

    async fn retry_letters<H, E>(
        &self,
        limit: usize,
        delivered: &mut Delivered,
        handle: &mut H,
    ) -> Result<(), Error>
    where
        H: AsyncFnMut(&Fact) -> Result<(), E>,
        E: Display,
    {
        let filter = LetterFilter {
            subscriber: Some(self.name.clone()),
            prefix: self.prefix.clone(),
            state: Some(LetterState::Retrying),
            limit,
        };
        let letters = self.log.dead_letters(filter).await?;
        for letter in letters.iter().rev().filter(|letter| letter.stream == self.stream) {
            // Not `Retrying` while it is handled: if that takes the process down, it waits for a
            // person again instead of coming back at once.
            self.log.settle(letter.id, LetterState::Pending, None).await?;
            match handle(&letter.fact).await {
                Ok(()) => {
                    self.log.settle(letter.id, LetterState::Recovered, None).await?;
                    delivered.handled += 1;
                    delivered.recovered += 1;
                }
                Err(error) => {
                    let error = Some(error.to_string());
                    self.log.settle(letter.id, LetterState::Pending, error).await?;
                }
            }
        }
        Ok(())
    }
}
