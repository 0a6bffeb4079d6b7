//! The other nodes of the cluster: where they are, and what is fetched from them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use courier::Stream;
use depot::{
    Depot, Hash,
    peers::{Key, Options, PeerId, Peers, Want},
};
use ringrift_daemons::{Answers, Blobs, Elsewhere, Mesh, Nodes, Obstacle, OutOfReach, Pressure};
use ringrift_pipeline::{BlobHash, Catalogue, NodeId, NodeJoined, NodeRow};
use tokio::task::JoinSet;
use tracing::{info, warn};
use warden::{Clock, DaemonId};

use crate::{
    admission::keep_the_door, control::record_about, data_dir::DataDir, membership::Membership,
};

/// The cause of the brake of a node that is drained.
const DRAIN: DaemonId = DaemonId("DRAIN");
/// Time between two looks at who is there, if nobody joins.
const LOOK: Duration = Duration::from_secs(2);

/// This node among the others; a clone is the same.
#[derive(Clone)]
pub struct Others(Arc<Inner>);

struct Inner {
    /// Replaced when the endpoint is opened anew.
    peers: Mutex<Arc<Peers>>,
    depot: Arc<Depot>,
    options: Options,
    /// What the others were told of this node last.
    told: Mutex<Option<NodeJoined>>,
    catalogue: Catalogue,
    node: NodeId,
    nodes: Nodes,
    dir: DataDir,
    clock: Clock,
    /// Whom to ask: those that live.
    living: Mutex<Vec<PeerId>>,
}

impl Others {
    /// Begins to serve what is here and to fetch what is not.
    ///
    /// # Errors
    /// Nobody can listen at the address of the membership.
    pub async fn meet(
        membership: &Membership,
        dir: &DataDir,
        blobs: &Blobs,
        catalogue: &Catalogue,
        node: &NodeId,
        nodes: Nodes,
    ) -> anyhow::Result<Self> {
        let path = dir.key();
        let key = tokio::task::spawn_blocking(move || Key::of_file(&path)).await?;
        let options = Options {
            key: key.context("read this node's key")?,
            listen: membership.listen,
            rate: membership.send_rate,
        };
        let peers = Peers::open(blobs.depot(), options.clone()).await?;
        let others = Self(Arc::new(Inner {
            peers: Mutex::new(Arc::new(peers)),
            depot: Arc::clone(blobs.depot()),
            options,
            told: Mutex::default(),
            catalogue: catalogue.clone(),
            node: node.clone(),
            nodes,
            dir: dir.clone(),
            clock: Clock::system(),
            living: Mutex::default(),
        }));
        blobs.connect(others.clone());
        Ok(others)
    }

    /// Tells the others where this node is and what it runs, unless they know: its workers, and those
    /// of them that play.
    pub async fn tell(
        &self,
        role: &str,
        [slots, playing]: [usize; 2],
        now_ms: i64,
    ) -> anyhow::Result<()> {
        let Inner { catalogue, node, told, .. } = &*self.0;
        let peers = self.peers();
        let joined = NodeJoined {
            node: node.clone(),
            peer: peers.id().to_string(),
            addresses: peers.addresses().iter().map(ToString::to_string).collect(),
            role: role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            playing: u32::try_from(playing).unwrap_or(u32::MAX),
        };
        let rows = catalogue.nodes().await?;
        if rows.iter().any(|row| row.node == *node && row.removed) {
            anyhow::ensure!(
                catalogue.admitted().await?.iter().any(|(name, _)| name == node),
                "this node was removed from the cluster: it joins again with another ticket and another key"
            );
        }
        record_about(catalogue, node, now_ms, |row| {
            row.is_none_or(|row| !says(row, &joined)).then(|| joined.clone().into())
        })
        .await?;
        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
        Ok(())
    }

    fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.0.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the endpoint and opens it again; whoever fetches meanwhile is told so, and tries again.
    async fn open_anew(&self) -> anyhow::Result<()> {
        let Inner { peers, depot, options, told, clock, .. } = &*self.0;
        self.peers().close().await;
        let opened = Arc::new(Peers::open(depot, options.clone()).await?);
        *peers.lock().unwrap_or_else(PoisonError::into_inner) = opened;
        let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(NodeJoined { role, slots, playing, .. }) = told {
            let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
            // With port 0 it listens elsewhere than before.
            self.tell(&role, [count(slots), count(playing)], clock.now_ms()).await?;
        }
        Ok(())
    }

    /// Asks nodes whether they are there, all at the same time.
    async fn ask_all(&self, nodes: Vec<NodeId>) -> Answers {
        let rows = match self.0.catalogue.nodes().await {
            Ok(rows) => rows,
            Err(error) => {
                return nodes.into_iter().map(|node| (node, Err(error.to_string()))).collect();
            }
        };
        let mut asking = JoinSet::new();
        for node in nodes {
            let peers = self.peers();
            let place = rows.iter().find(|row| row.node == node).and_then(place);
            asking.spawn(async move {
                let answer = match place {
                    Some((peer, _)) => peers.reach(peer).await,
                    None => Err("says nothing that is understood of where it is".to_owned()),
                };
                (node, answer)
            });
        }
        asking.join_all().await.into_iter().collect()
    }

    /// Follows who is there, and answers those who want to come, for ever.
    pub async fn keep(self, pressure: Pressure, clock: Clock) {
        let Inner { dir, catalogue, .. } = &*self.0;
        tokio::join!(keep_the_door(dir, catalogue, &clock), self.follow(&pressure));
    }

    async fn follow(&self, pressure: &Pressure) {
        let mut joined = self.0.catalogue.log().tail(Stream::Pipeline);
        let mut known = Vec::new();
        let mut trouble = false;
        loop {
            match self.look(pressure).await {
                Ok(nodes) => {
                    trouble = false;
                    let names: Vec<NodeId> = nodes.iter().map(|row| row.node.clone()).collect();
                    if names != known {
                        info!(nodes = names.len(), "the nodes of this cluster");
                        known = names;
                    }
                }
                Err(error) if trouble => drop(error),
                Err(error) => {
                    trouble = true;
                    warn!(%error, "who is in the cluster cannot be told");
                }
            }
            joined.mark_unchanged();
            tokio::time::sleep(LOOK / 4).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                Ok(()) = joined.changed() => {}
            }
        }
    }

    /// Looks who is there, and whether this node is drained.
    ///
    /// # Errors
    /// The catalogue cannot be asked.
    pub async fn look(&self, pressure: &Pressure) -> anyhow::Result<Vec<NodeRow>> {
        let Inner { catalogue, node, nodes, living, .. } = &*self.0;
        let mut rows = catalogue.nodes().await?;
        let drains = rows.iter().any(|row| row.node == *node && row.draining);
        pressure.set(DRAIN, drains.then(drained));
        nodes.drain(drains);
        rows.retain(|row| !row.removed);
        let mut members = BTreeMap::new();
        let mut alive = Vec::new();
        for row in rows.iter().filter(|row| row.node != *node) {
            let Some((peer, addresses)) = place(row) else {
                warn!(node = %row.node, "what this node says of itself is not understood");
                continue;
            };
            if nodes.lives(&row.node) {
                alive.push(peer);
            }
            members.insert(peer, addresses);
        }
        self.peers().admit(members);
        *living.lock().unwrap_or_else(PoisonError::into_inner) = alive;
        Ok(rows)
    }

    /// Serves nobody any more.
    pub async fn leave(&self) {
        self.peers().close().await;
    }

    async fn fetch(&self, hash: Hash) -> Result<(), String> {
        let Inner { catalogue, living, .. } = &*self.0;
        let row = catalogue.blob(&BlobHash(hash.to_string())).await;
        let row = row.map_err(|error| error.to_string())?;
        let row = row.ok_or("no fact names it")?;
        let extension = extension(&row.role).to_owned();
        let from = living.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let want = Want { hash, bytes: row.bytes, extension };
        let stored = self.peers().fetch(&want, &from).await.map_err(|error| error.to_string())?;
        if stored.new {
            info!(%hash, role = row.role, bytes = row.bytes, "artefact fetched from another node");
        }
        Ok(())
    }
}

impl Elsewhere for Others {
    fn bring(
        &self,
        hash: Hash,
    ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
        Box::pin(async move { self.fetch(hash).await.map_err(|why| OutOfReach { hash, why }) })
    }
}

impl Mesh for Others {
    fn ask(&self, nodes: Vec<NodeId>) -> Pin<Box<dyn Future<Output = Answers> + Send + '_>> {
        Box::pin(self.ask_all(nodes))
    }

    fn reopen(&self) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + '_>> {
        Box::pin(self.open_anew())
    }
}

/// Why a node that is drained takes no work.
fn drained() -> Obstacle {
    Obstacle {
        reason: "this node is drained: it takes no new work".to_owned(),
        needs: "`ringrift node resume`".to_owned(),
    }
}

fn says(row: &NodeRow, joined: &NodeJoined) -> bool {
    !row.removed
        && row.peer == joined.peer
        && row.addresses == joined.addresses
        && row.role == joined.role
        && row.version == joined.version
        && row.slots == joined.slots
        && row.playing == joined.playing
}

fn place(row: &NodeRow) -> Option<(PeerId, Vec<SocketAddr>)> {
    let addresses: Option<Vec<SocketAddr>> =
        row.addresses.iter().map(|address| address.parse().ok()).collect();
    Some((row.peer.parse().ok()?, addresses?))
}

/// The ending that a file of this role has where it was made.
fn extension(role: &str) -> &'static str {
    match role {
        "games" | "records" => "gz",
        "samples" | "window" => "npz",
        "weights" | "checkpoint" => "safetensors",
        _ => "bin",
    }
}
