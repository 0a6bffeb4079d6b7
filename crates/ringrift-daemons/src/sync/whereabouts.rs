//! What daemons that look after copies have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hosts::Disk;
use ringrift_pipeline::{BlobHash, Catalogue, CatalogueError, NodeId, NodeRow, WorkKind};
use tokio::time::Instant;
use warden::Cx;

use crate::{Blobs, Loop};

/// Why a daemon of a cluster has nothing to do on one machine.
pub(crate) const ALONE: &str = "one machine: there are no other nodes";

/// Nodes that are to have each artefact. Source: safety rule, two copies.
pub(crate) const ENOUGH: u32 = 2;
/// A node that has been silent for longer does not count as having anything.
pub(crate) const ABSENCE: Duration = Duration::from_hours(1);

/// Whose copies count.
#[derive(Debug, Default)]
pub(crate) struct Counted(Since<NodeId>);

impl Counted {
    /// Those of this node and of these others, but of none that is drained, and so about to go, or that has been
    /// silent for so long, as seen from here.
    pub(crate) fn among(
        &mut self,
        others: &[NodeRow],
        the_loop: &Loop,
        absence: Duration,
    ) -> BTreeSet<NodeId> {
        let Self(silent) = self;
        let names = others.iter().map(|row| row.node.clone());
        silent.note(names.filter(|node| !the_loop.nodes.lives(node)));
        let absent: BTreeSet<&NodeId> = silent.for_at_least(absence).collect();
        let others = others.iter().filter(|row| !row.draining).map(|row| &row.node);
        let here = Some(&the_loop.node).filter(|_| !the_loop.nodes.is_drained());
        others.filter(|node| !absent.contains(node)).chain(here).cloned().collect()
    }
}

/// The members beside this node.
pub(crate) async fn others(
    catalogue: &Catalogue,
    the_loop: &Loop,
) -> Result<Vec<NodeRow>, CatalogueError> {
    let mut rows = catalogue.nodes().await?;
    rows.retain(|row| !row.removed && row.node != the_loop.node);
    Ok(rows)
}

/// What this node will read soon, whoever else has it: champions and what its workers play with, the newest
/// window of each config, and what trainings read that are open.
pub(crate) async fn needed_here(
    catalogue: &Catalogue,
    the_loop: &Loop,
) -> Result<BTreeSet<BlobHash>, CatalogueError> {
    let mut needed = BTreeSet::new();
    for config in &the_loop.configs {
        needed.extend(catalogue.champion(*config).await?.map(|champion| champion.model.weights));
        let handed = catalogue.distribution(*config, &the_loop.node).await?;
        needed.extend(handed.map(|handed| handed.model.weights));
        needed.extend(catalogue.windows(*config, 1).await?.into_iter().map(|window| window.hash));
    }
    for item in catalogue.open_works().await? {
        if item.kind == WorkKind::Train || item.node.as_ref() == Some(&the_loop.node) {
            needed.extend(item.job.inputs());
            needed.extend(catalogue.checkpoint(&item.id).await?.map(|(hash, _)| hash));
        }
    }
    Ok(needed)
}

/// Longest wait for an answer about the disk; a file system that hangs gives none.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks the operating system about a disk; tests put another answer in its place.
pub(crate) type Look = Arc<dyn Fn(&Path) -> std::io::Result<Disk> + Send + Sync>;

/// The disk of this node as if the trash were empty, which it is when room is needed; or why it cannot be
/// measured.
pub(crate) async fn disk_without_trash(
    look: &Look,
    blobs: &Blobs,
    the_loop: &Loop,
    cx: &Cx,
) -> anyhow::Result<Result<Disk, String>> {
    let (look, data) = (Arc::clone(look), the_loop.data.clone());
    let asked = tokio::task::spawn_blocking(move || look(&data));
    let disk = match cx.within(ANSWER, asked).await {
        Ok(Ok(Ok(disk))) => disk,
        Ok(Ok(Err(error))) => return Ok(Err(error.to_string())),
        Ok(Err(error)) => return Ok(Err(error.to_string())),
        Err(error) if error.is::<warden::TimedOut>() => return Ok(Err(error.to_string())),
        Err(error) => return Err(error),
    };
    let trash = blobs.with(depot::Depot::trashed).await??;
    let trash: u64 = trash.iter().map(|trashed| trashed.bytes).sum();
    Ok(Ok(Disk { available: disk.available.saturating_add(trash), ..disk }))
}

/// How long each of some things has been so, as seen from here.
#[derive(Debug)]
pub(crate) struct Since<K>(BTreeMap<K, Instant>);

impl<K> Default for Since<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Since<K> {
    /// These are so now; what is not any more is forgotten.
    pub(crate) fn note(&mut self, now: impl IntoIterator<Item = K>) {
        let mut before = std::mem::take(&mut self.0);
        let began = Instant::now();
        self.0 = now
            .into_iter()
            .map(|key| {
                let since = before.remove(&key).unwrap_or(began);
                (key, since)
            })
            .collect();
    }

    /// For how long this is so; none if it is not.
    pub(crate) fn how_long(&self, key: &K) -> Option<Duration> {
        self.0.get(key).map(Instant::elapsed)
    }

    /// Those that have been so for at least that long.
    pub(crate) fn for_at_least(&self, time: Duration) -> impl Iterator<Item = &K> {
        self.0.iter().filter(move |(_, since)| since.elapsed() >= time).map(|(key, _)| key)
    }
}

/// The order in which nodes are asked to take an artefact: the same everywhere, another for each artefact, and
/// hardly another when a node comes or goes.
pub(crate) fn in_turn<'a>(
    artefact: &BlobHash,
    nodes: impl IntoIterator<Item = &'a NodeId>,
) -> Vec<&'a NodeId> {
    let mut nodes: Vec<&NodeId> = nodes.into_iter().collect();
    // The hash of the artefact is as good as chance; the names make it another for each node.
    let weight = |node: &NodeId| crate::cycle::seed(0, &format!("{artefact}/{node}"));
    nodes.sort_by_key(|node| (weight(node), *node));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artefacts_are_spread_and_stay_where_they_are_when_a_node_comes() {
        let nodes: Vec<NodeId> = (0..5).map(|n| NodeId(format!("node{n}"))).collect();
        let mut first = BTreeMap::<&NodeId, u32>::new();
        let mut moved = 0;
        for number in 0..1000 {
            let artefact = BlobHash(format!("{number:064x}"));
            let all = in_turn(&artefact, &nodes);
            *first.entry(all[0]).or_default() += 1;
            let fewer = in_turn(&artefact, &nodes[..4]);
            assert_eq!(fewer, all.iter().copied().filter(|n| **n != nodes[4]).collect::<Vec<_>>());
            moved += u32::from(fewer[0] != all[0]);
        }
        assert!(first.values().all(|count| (150..250).contains(count)), "{first:?}");
        assert_eq!(moved, first[&nodes[4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_while_something_is_so() {
        let mut since = Since::default();
        since.note(["a", "b"]);
        tokio::time::advance(Duration::from_secs(5)).await;
        since.note(["b", "c"]);
        assert_eq!(since.how_long(&"a"), None);
        assert_eq!(since.how_long(&"b"), Some(Duration::from_secs(5)));
        assert_eq!(since.for_at_least(Duration::from_secs(1)).collect::<Vec<_>>(), [&"b"]);
    }
}
