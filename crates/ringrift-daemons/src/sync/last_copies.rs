//! What a node that may vanish does so that nothing goes with it: what only it has it offers, so that its own copy
//! counts for nobody and others take it at once; and when it is told to stop, it waits until they have.

use std::{collections::BTreeSet, time::Duration};

use ringrift_pipeline::{ArtefactsHeld, ArtefactsOffered, BlobHash, Catalogue, NodeId, Record};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};
use warden::Cx;

use super::whereabouts::others;
use crate::{Blobs, Loop, blobs::parse};

/// Most artefacts that are looked at; the oldest first.
const MOST: u32 = 1000;
/// Time for others to take what is here at an orderly stop: inside the 30 s that a level of daemons has.
const LAST_COPIES: Duration = Duration::from_secs(25);
/// Pause between two looks at a stop.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What no other node keeps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OnlyHere {
    /// The artefacts, oldest first.
    pub(crate) hashes: Vec<BlobHash>,
    /// Nodes that could take them.
    pub(crate) takers: usize,
}

/// Offers what is whole here and what no other node keeps, each artefact once; says what that is.
pub(crate) async fn offer_only_here(
    catalogue: &Catalogue,
    blobs: &Blobs,
    the_loop: &Loop,
    cx: &Cx,
) -> anyhow::Result<OnlyHere> {
    cx.beat()?;
    let mut takers = others(catalogue, the_loop).await?;
    takers.retain(|row| !row.draining && the_loop.nodes.lives(&row.node));
    let takers: BTreeSet<NodeId> = takers.into_iter().map(|row| row.node).collect();
    let mut only_here = OnlyHere { takers: takers.len(), ..OnlyHere::default() };
    let (mut untold, mut unoffered) = (Vec::new(), Vec::new());
    for row in catalogue.with_fewer_copies_among(&takers, 1, MOST).await? {
        let hash = row.blob.hash;
        if !blobs.is_here(&hash).await? {
            continue;
        }
        let told = row.holders.iter().find(|holder| holder.node == the_loop.node);
        if told.is_none() {
            cx.beat()?;
            let parsed = parse(&hash)?;
            // What is damaged is nobody's copy.
            if blobs.with(move |depot| depot.verify(&parsed)).await?.is_err() {
                continue;
            }
            untold.push(hash.clone());
        }
        if !told.is_some_and(|told| told.offered) {
            unoffered.push(hash.clone());
        }
        only_here.hashes.push(hash);
    }
    let node = &the_loop.node;
    let mut records = Vec::new();
    if !untold.is_empty() {
        records.push(Record::always(ArtefactsHeld { node: node.clone(), hashes: untold }));
    }
    if !unoffered.is_empty() {
        info!(artefacts = unoffered.len(), "offered to others, since this node may vanish");
        let reason = "this node may vanish".to_owned();
        let offered = ArtefactsOffered { node: node.clone(), hashes: unoffered, reason };
        records.push(Record::always(offered));
    }
    if !records.is_empty() {
        catalogue.record(records, cx.now()).await?;
    }
    Ok(only_here)
}

/// At an orderly stop: waits until other nodes have what only this one has, and while more of it comes.
pub(crate) async fn hand_over(
    catalogue: &Catalogue,
    blobs: &Blobs,
    the_loop: &Loop,
    more_comes: impl Fn() -> bool,
    cx: &Cx,
) {
    let mut left = Ok(OnlyHere::default());
    let look = async {
        loop {
            // Asked first: what comes between the two questions is seen by the next look.
            let more = more_comes();
            left = offer_only_here(catalogue, blobs, the_loop, cx).await;
            match &left {
                Ok(only_here) if !more && only_here.hashes.is_empty() => return,
                Ok(only_here) if !more && only_here.takers == 0 => return,
                Ok(_) => {}
                // The log may be in reach again before the time is over.
                Err(error) => debug!(%error, "what only this node has is not known"),
            }
            if cx.sleep(LOOK_AGAIN).await.is_err() {
                return;
            }
        }
    };
    // Who runs out of time goes all the same, and says so.
    drop(timeout_at(Instant::now() + LAST_COPIES, look).await);
    match left {
        Ok(only_here) if only_here.hashes.is_empty() => {}
        Ok(OnlyHere { hashes, takers }) => {
            warn!(
                artefacts = hashes.len(),
                takers, "this node stops, and only it has some artefacts"
            );
        }
        Err(error) => warn!(%error, "this node stops, and whether others have all is not known"),
    }
}
