//! Inputs that lie on other nodes: what nobody gives now is left out for a while, so that it does not hold
//! up the rest.

use std::{collections::BTreeMap, time::Duration};

use ringrift_pipeline::BlobHash;
use tokio::time::Instant;
use tracing::warn;
use warden::Cx;

use crate::{Blobs, OutOfReach};

/// How long something is left out before it is asked for again.
const LEFT_OUT: Duration = Duration::from_mins(1);
/// Most things that are left out: whoever looks past them asks for so many more.
const MOST: usize = 256;

/// What is left out.
#[derive(Debug, Default)]
pub(crate) struct AtHand(BTreeMap<BlobHash, Instant>);

impl AtHand {
    /// How many more a question must ask for, to see beyond what is left out.
    pub(crate) fn more(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Those of `wanted` that are here or were brought here, in order, at most `limit`.
    ///
    /// # Errors
    /// The store cannot be looked into, or the daemon is to stop.
    pub(crate) async fn take(
        &mut self,
        blobs: &Blobs,
        wanted: Vec<BlobHash>,
        limit: u32,
        cx: &Cx,
    ) -> anyhow::Result<Vec<BlobHash>> {
        let now = Instant::now();
        self.0.retain(|_, until| *until > now);
        let mut taken = Vec::new();
        for hash in wanted {
            if taken.len() as u64 >= u64::from(limit) {
                break;
            }
            if self.0.contains_key(&hash) {
                continue;
            }
            cx.beat()?;
            match blobs.path_of(&hash).await {
                // What is nowhere, on one machine, is the worker's to refuse.
                Ok(_) => taken.push(hash),
                Err(error) => {
                    let out_of_reach = error.downcast::<OutOfReach>()?;
                    warn!(error = %out_of_reach, "left out for now");
                    if self.0.len() < MOST {
                        self.0.insert(hash, now + LEFT_OUT);
                    }
                }
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, pin::Pin};

    use depot::Hash;

    use super::*;
    use crate::{Elsewhere, event::event_router::EventRouter, testbed::Bed};

    /// Other nodes that have nothing but this.
    struct Others(BTreeSet<Hash>, Blobs);

    impl Elsewhere for Others {
        fn bring(
            &self,
            hash: Hash,
        ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
            Box::pin(async move {
                if !self.0.contains(&hash) {
                    return Err(OutOfReach { hash, why: "they are gone".into() });
                }
                self.1.depot().put_bytes(b"elsewhere", "bin").unwrap();
                Ok(())
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_gives_is_left_out_for_a_minute_and_the_rest_goes_on() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<EventRouter>();
        let here = bed.put("here");
        let there = BlobHash(Hash::of(b"elsewhere").to_string());
        let gone = BlobHash(Hash::of(b"gone").to_string());
        let others = Others([Hash::of(b"elsewhere")].into(), bed.blobs.clone());
        let wanted = || vec![gone.clone(), here.clone(), there.clone()];

        let mut at_hand = AtHand::default();
        let alone = at_hand.take(&bed.blobs, wanted(), 9, &cx).await.unwrap();
        assert_eq!(alone, wanted(), "without other nodes nothing is left out");
        bed.blobs.connect(others);
        let taken = at_hand.take(&bed.blobs, wanted(), 9, &cx).await.unwrap();
        assert_eq!(taken, [here.clone(), there.clone()]);
        assert_eq!(at_hand.more(), 1);
        let one = at_hand.take(&bed.blobs, wanted(), 1, &cx).await.unwrap();
        assert_eq!(one, std::slice::from_ref(&here));
        bed.put("gone");
        assert_eq!(at_hand.take(&bed.blobs, wanted(), 9, &cx).await.unwrap().len(), 2);
        tokio::time::advance(LEFT_OUT).await;
        assert_eq!(at_hand.take(&bed.blobs, wanted(), 9, &cx).await.unwrap().len(), 3);
    }
}
