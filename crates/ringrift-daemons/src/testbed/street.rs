//! The other nodes of a cluster, for tests: they have, prove and deny what they are told to. That real ones do
//! so over the network is tested where they are built.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use depot::Hash;
use ringrift_pipeline::{
    ArtefactsHeld, ArtefactsReleased, BlobHash, BlobRow, Catalogue, GamesCommitted, ModelId,
    NodeId, NodeJoined, Record, WindowCombined, WorkId,
};

use super::{Bed, hex};
use crate::{Asked, Blobs, Elsewhere, Given, Loop, NeighbourPort, OutOfReach, Reached, lease_of};

/// The other nodes; a clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Street(Arc<Mutex<Houses>>);

#[derive(Default)]
struct Houses {
    /// The store of this node.
    here: Option<Blobs>,
    /// What can be fetched.
    things: BTreeMap<Hash, String>,
    proofs: BTreeSet<(String, BlobHash)>,
    away: BTreeSet<String>,
    given: Given,
    /// How often this node's endpoint was opened anew.
    reopened: usize,
    /// What happens while somebody is asked.
    meanwhile: Option<(Catalogue, ArtefactsReleased)>,
}

impl Street {
    fn lock(&self) -> MutexGuard<'_, Houses> {
        self.0.lock().unwrap()
    }

    /// Connects it.
    pub(crate) fn open(&self, bed: &Bed) {
        self.lock().here = Some(bed.blobs.clone());
        bed.blobs.connect(self.clone());
        bed.neighbours.connect(self.clone());
    }

    /// A node proves that it has this when it is asked.
    pub(crate) fn proves(&self, node: &str, artefact: &BlobHash) {
        self.lock().proofs.insert((node.to_owned(), artefact.clone()));
    }

    /// A node does not answer any more.
    pub(crate) fn leaves(&self, node: &str) {
        self.lock().away.insert(node.to_owned());
    }

    /// It answers again.
    pub(crate) fn returns(&self, node: &str) {
        self.lock().away.remove(node);
    }

    /// While the next question is asked, somebody records this.
    pub(crate) fn meanwhile(&self, catalogue: Catalogue, released: ArtefactsReleased) {
        self.lock().meanwhile = Some((catalogue, released));
    }

    /// How often this node's endpoint was opened anew.
    pub(crate) fn reopened(&self) -> usize {
        self.lock().reopened
    }

    /// So much was given.
    pub(crate) fn gave(&self, given: Given) {
        self.lock().given = given;
    }
}

impl Elsewhere for Street {
    fn bring(
        &self,
        hash: Hash,
    ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
        Box::pin(async move {
            let houses = self.lock();
            let Some(thing) = houses.things.get(&hash) else {
                return Err(OutOfReach { hash, why: "nobody gives it".into() });
            };
            houses.here.as_ref().unwrap().depot().put_bytes(thing.as_bytes(), "bin").unwrap();
            Ok(())
        })
    }
}

impl NeighbourPort for Street {
    fn reach<'a>(&'a self, node: &'a NodeId) -> Asked<'a, Reached> {
        Box::pin(async move {
            if self.lock().away.contains(node.as_str()) {
                return Err("does not answer".to_owned());
            }
            Ok(Reached { round_trip: Duration::from_millis(3), at: "10.0.0.2:4433".to_owned() })
        })
    }

    fn has<'a>(&'a self, node: &'a NodeId, artefact: &'a BlobRow) -> Asked<'a, bool> {
        Box::pin(async move {
            let meanwhile = self.lock().meanwhile.take();
            if let Some((catalogue, released)) = meanwhile {
                catalogue.record(vec![Record::always(released)], 1).await.unwrap();
            }
            let houses = self.lock();
            if houses.away.contains(node.as_str()) {
                return Err("does not answer".to_owned());
            }
            Ok(houses.proofs.contains(&(node.0.clone(), artefact.hash.clone())))
        })
    }

    fn reopen(&self) -> Asked<'_, ()> {
        self.lock().reopened += 1;
        Box::pin(std::future::ready(Ok(())))
    }

    fn given(&self) -> Given {
        self.lock().given.clone()
    }
}

impl Bed {
    /// The loop as it is on a node of a cluster.
    pub(crate) fn shared(&self) -> Arc<Loop> {
        Arc::new(Loop { shared: true, standalone: false, ..(*self.the_loop).clone() })
    }

    /// Nodes of these names join, this one beside them.
    pub(crate) async fn joined(&self, names: &[&str]) {
        for (number, name) in names.iter().chain(&["here"]).enumerate() {
            let joined = NodeJoined {
                node: NodeId((*name).to_owned()),
                peer: format!("{number:064x}"),
                addresses: vec!["127.0.0.1:1".to_owned()],
                role: "a role".to_owned(),
                version: "0.0.0".to_owned(),
                speaks: 1,
                slots: 1,
                playing: 0,
                can: None,
            };
            self.record(vec![joined.into()]).await;
        }
    }

    /// A node says that it has this.
    pub(crate) async fn held(&self, node: &str, hashes: &[&BlobHash]) {
        let hashes = hashes.iter().map(|hash| (*hash).clone()).collect();
        self.record(vec![ArtefactsHeld { node: NodeId(node.into()), hashes }.into()]).await;
    }

    /// Who says so.
    pub(crate) async fn who_has(&self, hash: &BlobHash) -> Vec<String> {
        let holders = self.catalogue.holders(hash).await.unwrap();
        holders.into_iter().map(|row| row.node.0).collect()
    }

    /// Nodes of these names hold their leases.
    pub(crate) async fn live(&self, names: &[&str]) {
        let log = self.catalogue.log();
        for name in names {
            let lease = lease_of(&NodeId((*name).to_owned()));
            log.acquire(&lease, name, Duration::from_hours(1), 1).await.unwrap();
        }
        self.the_loop.nodes.look(log).await.unwrap();
    }

    /// A batch that the log names and only the others have.
    pub(crate) async fn elsewhere(&self, street: &Street, text: &str) -> BlobHash {
        street.lock().things.insert(Hash::of(text.as_bytes()), text.to_owned());
        self.named_only(text).await
    }

    /// A batch that the log names and nobody has.
    pub(crate) async fn named_only(&self, text: &str) -> BlobHash {
        let batch = BlobHash(Hash::of(text.as_bytes()).to_string());
        let committed = GamesCommitted {
            batch: batch.clone(),
            bytes: text.len() as u64,
            config: hex(),
            work: WorkId(format!("work-{batch}")),
            model: ModelId::new(hex(), 0),
            games: 1,
            positions: 30,
            seat_wins: vec![1, 0],
            seconds: 1.0,
        };
        self.record(vec![committed.into()]).await;
        batch
    }

    /// A window that the log names and only the others have.
    pub(crate) async fn window_elsewhere(
        &self,
        street: &Street,
        text: &str,
        samples: &[&BlobHash],
    ) -> BlobHash {
        let hash = Hash::of(text.as_bytes());
        street.lock().things.insert(hash, text.to_owned());
        let window = BlobHash(hash.to_string());
        let combined = WindowCombined {
            window: window.clone(),
            bytes: text.len() as u64,
            config: hex(),
            samples: samples.iter().map(|hash| (*hash).clone()).collect(),
            rows: 100,
            games: 3,
        };
        self.record(vec![combined.into()]).await;
        window
    }

    /// Whether it is in the store here.
    pub(crate) fn has_file(&self, hash: &BlobHash) -> bool {
        self.blobs.depot().contains(&hash.as_str().parse().unwrap()).unwrap()
    }
}
