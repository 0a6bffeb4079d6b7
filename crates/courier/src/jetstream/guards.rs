//! Guards: how a fence holds at the very place where a fact lands.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::server::{Message, Published};
use super::wire::{Content, Epoch, Guard, Source, TIME_TO_LIVE};
use super::{Shared, records, replica, sync_again};
use crate::error::Error;
use crate::fact::Stream;

impl Shared {
    /// The last state of a lease.
    pub(super) async fn fence_state(
        &self,
        lease: &str,
        until: Instant,
    ) -> Result<Option<Epoch>, Error> {
        self.sync(Source::State, until).await?;
        let lease = lease.to_owned();
        self.replica.read(move |db| records::epoch_of(db, &lease)).await
    }

    /// Raises the guards of a lease to its last state that is known, in both streams.
    ///
    /// Whoever learns of a state calls this before he tells anybody: from then on nobody of an
    /// earlier epoch can append.
    pub(super) async fn guard(&self, lease: &str, until: Instant) -> Result<(), Error> {
        let name = lease.to_owned();
        let state = self.replica.read(move |db| records::epoch_of(db, &name)).await?;
        let Some(state) = state else { return Ok(()) };
        let (pipeline, operational) = tokio::join!(
            self.raise(Stream::Pipeline, lease, state, until),
            self.raise(Stream::Operational, lease, state, until)
        );
        pipeline.and(operational)
    }

    /// Raises all guards that are behind their leases.
    pub(super) async fn guard_all(&self, prefix: &str, until: Instant) -> Result<(), Error> {
        let prefix = prefix.to_owned();
        let behind = self.replica.read(move |db| replica::unguarded(db, &prefix)).await?;
        for lease in behind {
            self.guard(&lease, until).await?;
        }
        Ok(())
    }

    /// Raises one guard, unless it is as high.
    pub(super) async fn raise(
        &self,
        stream: Stream,
        lease: &str,
        state: Epoch,
        until: Instant,
    ) -> Result<(), Error> {
        let source = Source::Facts(stream);
        let guard = Guard { lease: lease.to_owned(), state };
        let payload = serde_json::to_vec(&guard);
        let payload = payload.map_err(|error| Error::Unavailable(error.to_string()))?;
        let mut pause = Duration::from_millis(2);
        loop {
            let name = lease.to_owned();
            let found = self.replica.read(move |db| replica::guard(db, stream, &name)).await?;
            if found.is_some_and(|(found, _)| found >= state) {
                return Ok(());
            }
            let subject = self.server.names.guard(stream, lease);
            let before = found.map_or(0, |(_, sequence)| sequence);
            let mut message = Message::new(subject, payload.clone()).after(before);
            if stream == Stream::Operational {
                // It outlives the facts: else an epoch that is over could be set again.
                message.headers.insert(TIME_TO_LIVE, "never");
            }
            let connection = self.server.connection();
            let tell = match self.server.publish(vec![message]).await {
                Published::At(sequence) => {
                    let contents = vec![Content::Guard(guard)];
                    self.replica.acknowledge(source, connection, sequence, contents);
                    return self.arrive(source, sequence, until).await;
                }
                other => other.why(),
            };
            if Instant::now() + pause > until {
                return Err(Error::Unavailable(tell));
            }
            sleep(pause).await;
            pause = sync_again(pause);
            self.sync(source, until).await?;
        }
    }
}

/// A lease operation is not over before its guards are.
pub(super) async fn then<T, E: From<Error>>(
    shared: &Arc<Shared>,
    lease: &str,
    outcome: Result<T, E>,
) -> Result<T, E> {
    shared.guard(lease, shared.deadline()).await?;
    outcome
}
