//! Whether the replica shows all that is in the streams.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::server::{Message, Published};
use super::wire::{Content, Source};
use super::{Shared, sync_again};
use crate::error::Error;

/// A message that its leader took for the majority, so that no other one led when it was sent; or why it did not.
#[derive(Debug)]
pub(super) struct Proof {
    began: Instant,
    position: Result<u64, String>,
}

impl Shared {
    /// Waits until the replica shows a message.
    pub(super) async fn arrive(
        &self,
        source: Source,
        sequence: u64,
        until: Instant,
    ) -> Result<(), Error> {
        let mut applied = self.replica.applied(source);
        if *applied.borrow() < sequence {
            self.replica.want(source, sequence);
        }
        match timeout_at(until, applied.wait_for(|applied| *applied >= sequence)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(self.unavailable()),
        }
    }

    /// Waits until the replica shows all that is in a stream now.
    pub(super) async fn sync(&self, source: Source, until: Instant) -> Result<(), Error> {
        let mut pause = Duration::from_millis(10);
        loop {
            let gaps = self.replica.gaps(source);
            let now = Instant::now();
            let last = match timeout_at(until, self.end(source)).await {
                Ok(Ok(last)) => last,
                Ok(Err(error)) => {
                    // No leader yet, or no server.
                    if Instant::now() + pause > until {
                        return Err(error);
                    }
                    sleep(pause).await;
                    pause = sync_again(pause);
                    continue;
                }
                Err(_) => return Err(self.unavailable()),
            };
            self.arrive(source, last, until).await?;
            // A record that was replaced before it came here: its successor is behind `last`.
            if self.replica.gaps(source) == gaps {
                let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
                synced[source.index()] = Some(now);
                return Ok(());
            }
        }
    }

    /// The last message of a stream, or a later one than all that were acknowledged before this was asked.
    async fn end(&self, source: Source) -> Result<u64, Error> {
        let asked = Instant::now();
        let state = self.server.state(source).await?;
        if state.is_surely_led {
            return Ok(state.last);
        }
        let mut last = self.proofs[source.index()].lock().await;
        let proof = match last.take() {
            Some(proof) if proof.began >= asked => proof,
            _ => self.prove(source).await,
        };
        let position = proof.position.clone();
        *last = Some(proof);
        position.map_err(Error::Unavailable)
    }

    async fn prove(&self, source: Source) -> Proof {
        let began = Instant::now();
        let connection = self.server.connection();
        let message = Message::new(self.server.names.nothing(source, self.server.number()), "");
        let position = match self.server.publish(vec![message]).await {
            Published::At(position) => {
                let contents = match source {
                    Source::Facts(_) => vec![Content::Nothing],
                    Source::State => Vec::new(),
                };
                self.replica.acknowledge(source, connection, position, contents);
                Ok(position)
            }
            other => Err(other.why()),
        };
        Proof { began, position }
    }

    /// How long ago the replica was known to be at the end of a stream.
    pub(super) fn synced_since(&self, source: Source) -> Duration {
        let synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        synced[source.index()].map_or(Duration::MAX, |synced| synced.elapsed())
    }

    /// The first `sync`: as long as the replica comes closer, it may take its time.
    pub(super) async fn catch_up(&self, source: Source) -> Result<(), Error> {
        loop {
            let before = self.replica.applied_now(source);
            match self.sync(source, self.deadline()).await {
                Err(_) if self.replica.applied_now(source) > before => {}
                outcome => return outcome,
            }
        }
    }
}
