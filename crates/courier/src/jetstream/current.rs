//! Whether the replica shows all that is in the streams.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::server::Published;
use super::wire::{Content, Source};
use super::{QUEUE, Shared, sync_again};
use crate::error::Error;

/// One who asks for a message that the leader takes for the majority, so that no other one leads: he gets its position,
/// or why it was not taken.
pub(super) type Doubt = oneshot::Sender<Result<u64, String>>;

/// Doubts about the leader of a stream, and where they come to be answered.
pub(super) fn doubts() -> (mpsc::Sender<Doubt>, mpsc::Receiver<Doubt>) {
    mpsc::channel(QUEUE)
}

/// Answers doubts about the leader of a stream: those that wait together by one message.
pub(super) async fn prove(shared: Arc<Shared>, source: Source, mut doubts: mpsc::Receiver<Doubt>) {
    let mut together = Vec::new();
    while doubts.recv_many(&mut together, QUEUE).await > 0 {
        let proof = shared.prove(source).await;
        for doubt in together.drain(..) {
            // Nobody listens if he gave up.
            drop(doubt.send(proof.clone()));
        }
    }
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
            // What the servers have lost meanwhile is not shown as theirs.
            let connection = self.server.connection();
            let mut compared = self.replica.compared(source);
            let is_compared = compared.wait_for(|at| at.is_some_and(|at| at >= connection));
            match timeout_at(until, is_compared).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(Error::Closed),
                Err(_) => return Err(self.unavailable()),
            }
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
            if self.server.connection() != connection {
                continue;
            }
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
        let state = self.server.state(source).await?;
        if state.is_surely_led {
            return Ok(state.last);
        }
        let (doubt, proof) = oneshot::channel();
        self.doubts[source.index()].send(doubt).await.map_err(|_| Error::Closed)?;
        proof.await.map_err(|_| Error::Closed)?.map_err(Error::Unavailable)
    }

    /// Sends an empty message; gives its position once the majority has it.
    async fn prove(&self, source: Source) -> Result<u64, String> {
        let connection = self.server.connection();
        match self.server.publish(vec![self.server.nothing(source)]).await {
            Published::At(position) => {
                let contents = match source {
                    Source::Facts(_) => vec![Content::Nothing],
                    Source::State => Vec::new(),
                };
                self.replica.acknowledge(source, connection, position, contents);
                Ok(position)
            }
            other => Err(other.why()),
        }
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
