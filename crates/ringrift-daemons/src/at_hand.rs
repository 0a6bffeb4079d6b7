//! Inputs that lie on other nodes: what nobody gives now, and what is slow to come, does not hold up the rest. And
//! who is behind with giving what it played.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ringrift_pipeline::{BlobHash, Catalogue, Gate, NodeId};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::warn;
use warden::Cx;

use crate::{Blobs, Loop, OutOfReach};

/// How long something is left out before it is asked for again.
const LEFT_OUT: Duration = Duration::from_mins(1);
/// Most things that are left out: whoever looks past them asks for so many more.
const MOST: usize = 256;
/// Things of one node that are brought at a time: a line that is slow is not made slower.
const OF_ONE_NODE: usize = 2;
/// Whoever does not need all of it goes on with what is here if nothing arrives for so long.
const GRACE: Duration = Duration::from_secs(3);
/// Pause before a daemon that waits says again that it lives.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A node whose games wait so long to be fetched and replayed that there are so many batches of them plays no more:
/// its line is slow, and what it plays gets older on its disk.
const MOST_UNCHECKED: u64 = 32;

/// What is left out, and what is on its way.
#[derive(Debug, Default)]
pub(crate) struct AtHand {
    left_out: BTreeMap<BlobHash, Instant>,
    bringing: JoinSet<(BlobHash, anyhow::Result<()>)>,
    on_its_way: BTreeMap<BlobHash, Option<NodeId>>,
    /// Looked for; a worker refuses what is nowhere.
    brought: BTreeSet<BlobHash>,
    needs_all: bool,
}

impl AtHand {
    /// Waits for everything that anybody gives, however long it takes.
    pub(crate) fn of_all() -> Self {
        Self { needs_all: true, ..Self::default() }
    }

    /// How many more a question must ask for, to see beyond what is left out.
    pub(crate) fn more(&self) -> u32 {
        u32::try_from(self.left_out.len()).unwrap_or(u32::MAX)
    }

    /// Those of `wanted` that are here or were brought here, in order, at most `limit`. What is still on its way
    /// then comes meanwhile.
    ///
    /// # Errors
    /// The store cannot be looked into, or the daemon is to stop.
    pub(crate) async fn take(
        &mut self,
        blobs: &Blobs,
        wanted: Vec<(BlobHash, Option<NodeId>)>,
        limit: u32,
        cx: &Cx,
    ) -> anyhow::Result<Vec<BlobHash>> {
        self.left_out.retain(|_, until| *until > Instant::now());
        let mut go_on = Instant::now() + GRACE;
        let mut refused = BTreeSet::new();
        let is_enough = |taken: usize| taken as u64 >= u64::from(limit);
        loop {
            cx.beat()?;
            while let Some(ended) = self.bringing.try_join_next() {
                refused.extend(self.ended(ended?)?);
                go_on = Instant::now() + GRACE;
            }
            let (mut taken, mut waits) = (Vec::new(), false);
            for (hash, by) in &wanted {
                if is_enough(taken.len()) {
                    break;
                }
                if refused.contains(hash) || self.left_out.contains_key(hash) {
                    continue;
                }
                if self.brought.contains(hash) || blobs.is_here(hash).await? {
                    taken.push(hash.clone());
                } else {
                    waits = true;
                    self.bring(blobs, hash, by.as_ref());
                }
            }
            let waits = waits && !is_enough(taken.len());
            if !waits || !self.needs_all && Instant::now() >= go_on {
                self.brought.retain(|hash| !taken.contains(hash));
                return Ok(taken);
            }
            tokio::select! {
                Some(ended) = self.bringing.join_next() => {
                    refused.extend(self.ended(ended?)?);
                    go_on = Instant::now() + GRACE;
                }
                () = sleep_until(go_on.max(Instant::now() + LOOK_AGAIN)) => {}
            }
        }
    }

    /// Begins to bring something, unless enough of that node is on its way.
    fn bring(&mut self, blobs: &Blobs, hash: &BlobHash, by: Option<&NodeId>) {
        let of_it = self.on_its_way.values().filter(|other| other.as_ref() == by).count();
        if self.on_its_way.contains_key(hash) || of_it >= OF_ONE_NODE {
            return;
        }
        self.on_its_way.insert(hash.clone(), by.cloned());
        let (blobs, hash) = (blobs.clone(), hash.clone());
        self.bringing.spawn(async move {
            let found = blobs.path_of(&hash).await;
            (hash, found.map(drop))
        });
    }

    /// Takes note of what came of one; gives it back if nobody gave it.
    fn ended(
        &mut self,
        (hash, found): (BlobHash, anyhow::Result<()>),
    ) -> anyhow::Result<Option<BlobHash>> {
        self.on_its_way.remove(&hash);
        let Err(error) = found else {
            // What is nowhere, on one machine, is the worker's to refuse.
            self.brought.insert(hash);
            return Ok(None);
        };
        let out_of_reach = error.downcast::<OutOfReach>()?;
        warn!(error = %out_of_reach, "left out for now");
        if self.left_out.len() < MOST {
            self.left_out.insert(hash.clone(), Instant::now() + LEFT_OUT);
        }
        Ok(Some(hash))
    }
}

/// Batches of games that each node has to give to the one that leads, which has not replayed them yet.
pub(crate) async fn unchecked(
    catalogue: &Catalogue,
    the_loop: &Loop,
) -> anyhow::Result<BTreeMap<NodeId, u64>> {
    let mut sum = BTreeMap::new();
    for config in &the_loop.configs {
        for (node, batches) in catalogue.unchecked_by_node(*config).await? {
            if let Some(node) = node {
                *sum.entry(node).or_default() += batches;
            }
        }
    }
    Ok(sum)
}

/// Closed while too much of what this node played waits to be fetched from it.
pub(crate) async fn own_lag(catalogue: &Catalogue, the_loop: &Loop) -> anyhow::Result<Gate> {
    if !the_loop.shared {
        return Ok(Gate::Allow);
    }
    let waiting = unchecked(catalogue, the_loop).await?.remove(&the_loop.node).unwrap_or_default();
    if waiting < MOST_UNCHECKED {
        return Ok(Gate::Allow);
    }
    Ok(Gate::deny(
        "lag",
        format!(
            "{waiting} batches of games that this node played wait to be fetched and replayed by the one that leads"
        ),
        format!(
            "fewer than {MOST_UNCHECKED}; a faster line from here, or less to do where they are replayed"
        ),
    ))
}

/// Nodes that are behind, as others are not: their lines are slow, and they hold themselves back.
pub(crate) fn behind(
    unchecked: &BTreeMap<NodeId, u64>,
    players: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let is_behind =
        |node: &&NodeId| unchecked.get(*node).is_some_and(|batches| *batches >= MOST_UNCHECKED / 2);
    let behind: BTreeSet<NodeId> = players.iter().filter(is_behind).cloned().collect();
    // If all are, it is where the games are replayed that things are slow.
    if behind.len() == players.len() { BTreeSet::new() } else { behind }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::Pin};

    use depot::Hash;
    use ringrift_pipeline::{WorkClaimed, WorkId, WorkQueued};

    use super::*;
    use crate::{
        Elsewhere,
        event::event_router::EventRouter,
        testbed::{Bed, hex, selfplay},
    };

    /// Other nodes that have nothing but this, and never end to give the rest.
    struct Others {
        have: Vec<&'static str>,
        crawl: Vec<&'static str>,
        blobs: Blobs,
    }

    impl Elsewhere for Others {
        fn bring(
            &self,
            hash: Hash,
        ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
            Box::pin(async move {
                let is_it = |text: &&&str| Hash::of(text.as_bytes()) == hash;
                if self.crawl.iter().any(|text| is_it(&text)) {
                    return pending().await;
                }
                let Some(text) = self.have.iter().find(is_it) else {
                    return Err(OutOfReach { hash, why: "they are gone".into() });
                };
                self.blobs.depot().put_bytes(text.as_bytes(), "bin").unwrap();
                Ok(())
            })
        }
    }

    fn hash(text: &str) -> BlobHash {
        BlobHash(Hash::of(text.as_bytes()).to_string())
    }

    fn wanted(texts: &[&str]) -> Vec<(BlobHash, Option<NodeId>)> {
        texts.iter().map(|text| (hash(text), None)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_gives_is_left_out_for_a_minute_and_the_rest_goes_on() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<EventRouter>();
        bed.put("here");
        let others = Others { have: vec!["elsewhere"], crawl: vec![], blobs: bed.blobs.clone() };
        let texts = ["gone", "here", "elsewhere"];

        let mut at_hand = AtHand::default();
        let alone = at_hand.take(&bed.blobs, wanted(&texts), 9, &cx).await.unwrap();
        assert_eq!(alone, texts.map(hash), "without other nodes nothing is left out");
        bed.blobs.connect(others);
        let taken = at_hand.take(&bed.blobs, wanted(&texts), 9, &cx).await.unwrap();
        assert_eq!(taken, ["here", "elsewhere"].map(hash));
        assert_eq!(at_hand.more(), 1);
        let one = at_hand.take(&bed.blobs, wanted(&texts), 1, &cx).await.unwrap();
        assert_eq!(one, [hash("here")]);
        bed.put("gone");
        let again = at_hand.take(&bed.blobs, wanted(&texts), 9, &cx).await.unwrap();
        assert_eq!(again.len(), 2);
        tokio::time::advance(LEFT_OUT).await;
        let again = at_hand.take(&bed.blobs, wanted(&texts), 9, &cx).await.unwrap();
        assert_eq!(again.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_with_a_slow_line_does_not_hold_up_the_games_of_others() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<EventRouter>();
        let node = |name: &str| Some(NodeId(name.to_owned()));
        let crawl = vec!["slow 1", "slow 2", "slow 3"];
        let have = vec!["quick 1", "quick 2", "quick 3"];
        let mut wanted: Vec<_> = crawl.iter().map(|text| (hash(text), node("slow"))).collect();
        wanted.extend(have.iter().map(|text| (hash(text), node("quick"))));
        bed.blobs.connect(Others { have: have.clone(), crawl, blobs: bed.blobs.clone() });

        let mut at_hand = AtHand::default();
        let taken = at_hand.take(&bed.blobs, wanted.clone(), 9, &cx).await.unwrap();
        assert_eq!(taken, have.iter().map(|text| hash(text)).collect::<Vec<_>>());
        assert_eq!(at_hand.on_its_way.len(), OF_ONE_NODE, "its line is not made slower");
        let began = Instant::now();
        let taken = at_hand.take(&bed.blobs, wanted, 3, &cx).await.unwrap();
        assert_eq!((taken.len(), began.elapsed()), (3, Duration::ZERO), "as many as are needed");
    }

    /// A batch that this node played.
    async fn played(bed: &Bed, node: &NodeId, number: u64) {
        let game = format!("{node} {number}");
        let work = WorkId(format!("work-{}", hash(&game)));
        let champion = bed.catalogue.champion(hex()).await.unwrap().unwrap();
        let job = selfplay(champion.model.reference(), number);
        let queued = WorkQueued { work: work.clone(), config: hex(), job, reason: "test".into() };
        let claimed = WorkClaimed { work, attempt: 1, node: node.clone(), epoch: 1 };
        bed.record(vec![queued.into(), claimed.into()]).await;
        bed.batch(hex(), &[&game]).await;
    }

    #[tokio::test]
    async fn a_node_whose_games_nobody_fetches_plays_no_more() {
        let bed = Bed::new().await.in_a_cluster();
        bed.champion(hex()).await;
        let (own, other) = (bed.the_loop.node.clone(), NodeId("other".to_owned()));
        for number in 1..MOST_UNCHECKED {
            played(&bed, &own, number).await;
        }
        played(&bed, &other, 0).await;
        let lag = || own_lag(&bed.catalogue, &bed.the_loop);
        assert!(lag().await.unwrap().is_open());
        played(&bed, &own, MOST_UNCHECKED).await;
        assert!(!lag().await.unwrap().is_open());

        // Whoever replays them sees those of all, however many one has.
        let seen = bed.catalogue.unchecked(hex(), 2).await.unwrap();
        let of = |node: &NodeId| seen.iter().filter(|(.., by)| by.as_ref() == Some(node)).count();
        assert_eq!((of(&own), of(&other)), (2, 1));
        assert!(seen.is_sorted_by_key(|(_, position, _)| *position));
        let alone = Loop { shared: false, ..(*bed.the_loop).clone() };
        assert!(own_lag(&bed.catalogue, &alone).await.unwrap().is_open());
    }

    #[test]
    fn a_node_is_behind_if_others_are_not() {
        let node = |name: &str| NodeId(name.to_owned());
        let players: BTreeSet<NodeId> = ["a", "b"].map(node).into();
        let of = |a: u64, b: u64| {
            let unchecked = [(node("a"), a), (node("b"), b), (node("gone"), 99)].into();
            behind(&unchecked, &players)
        };
        assert_eq!(of(MOST_UNCHECKED, 1), [node("a")].into());
        assert!(of(1, 1).is_empty());
        assert!(of(MOST_UNCHECKED, MOST_UNCHECKED).is_empty(), "then it is the one that leads");
    }
}
