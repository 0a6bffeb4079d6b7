//! The other nodes of the cluster: where they are, and what is fetched from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
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
use ringrift_daemons::{
    Asked, Blobs, Elsewhere, Given, NeighbourPort, Nodes, Obstacle, OutOfReach, Pressure, Reached,
    extension,
};
use ringrift_pipeline::{BlobHash, BlobRow, Catalogue, NodeId, NodeJoined, NodeRow, SPEAKS};
use tracing::{info, warn};
use warden::{Clock, DaemonId};

use crate::{
    admission::keep_the_door, control::record_about, data_dir::DataDir, membership::Membership,
    state::State, up::capable::Part,
};

/// The cause of the brake of a node that is drained.
const DRAIN: DaemonId = DaemonId("DRAIN");
/// Time between two looks at who is there, if nobody joins.
const LOOK: Duration = Duration::from_secs(2);
/// Time between two reports of this node: it prolongs its lease, and with it tells them, not more often.
const REPORT: Duration = Duration::from_secs(5);

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
    /// The other members, and whether each lives.
    others: Mutex<BTreeMap<NodeId, (PeerId, Lives)>>,
}

/// Whether another node is there, as far as can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lives {
    Yes,
    No,
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
            relays: membership
                .relays
                .iter()
                .map(|relay| relay.parse())
                .collect::<Result<_, _>>()?,
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
            others: Mutex::default(),
        }));
        blobs.connect(others.clone());
        Ok(others)
    }

    /// Why this node may not be one, if so.
    ///
    /// # Errors
    /// The catalogue cannot be asked.
    pub async fn refusal(&self) -> anyhow::Result<Option<String>> {
        let Inner { catalogue, node, .. } = &*self.0;
        let rows = catalogue.nodes().await?;
        let removed = rows.iter().any(|row| row.node == *node && row.removed);
        if removed && catalogue.admitted().await?.iter().all(|(name, _)| name != node) {
            let sentence = "this node was removed from the cluster: it joins again with another ticket and another key";
            return Ok(Some(sentence.to_owned()));
        }
        let newer = rows.iter().find(|row| row.speaks > SPEAKS && !row.removed);
        Ok(newer.map(|newer| {
            format!(
                "this program understands the facts of this cluster up to version {SPEAKS}, and node {} has \
                 joined with a program of version {} that speaks {}: replace this one by one as new",
                newer.node, newer.version, newer.speaks
            )
        }))
    }

    /// Tells the others where this node is and what it runs, unless they know.
    pub async fn tell(&self, part: Part, now_ms: i64) -> anyhow::Result<()> {
        let Inner { catalogue, node, told, .. } = &*self.0;
        let Part { role, slots, playing, can } = part;
        let peers = self.peers();
        let joined = NodeJoined {
            node: node.clone(),
            peer: peers.id().to_string(),
            addresses: peers.addresses().iter().map(ToString::to_string).collect(),
            role,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            speaks: SPEAKS,
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            playing: u32::try_from(playing).unwrap_or(u32::MAX),
            can: Some(can),
        };
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
        if let Some(NodeJoined { role, slots, playing, can: Some(can), .. }) = told {
            let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
            let part = Part { role, slots: count(slots), playing: count(playing), can };
            // With port 0 it listens elsewhere than before.
            self.tell(part, clock.now_ms()).await?;
        }
        Ok(())
    }

    /// Follows who is there, answers those who want to come, and says what this node does, for ever.
    pub async fn keep(self, state: State) {
        let Inner { dir, catalogue, .. } = &*self.0;
        let door = keep_the_door(dir, catalogue, &state.clock);
        tokio::join!(door, self.follow(&state.pressure), self.report(&state));
    }

    async fn report(&self, state: &State) {
        let mut trouble = false;
        loop {
            match state.reporter().report().await {
                Ok(report) => {
                    trouble = false;
                    self.0.nodes.say(&report);
                }
                Err(error) if trouble => drop(error),
                Err(error) => {
                    trouble = true;
                    warn!(%error, "what this node does cannot be told to the others");
                }
            }
            tokio::time::sleep(REPORT).await;
        }
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
        let Inner { catalogue, node, nodes, others, .. } = &*self.0;
        let mut rows = catalogue.nodes().await?;
        let drains = rows.iter().any(|row| row.node == *node && row.draining);
        pressure.set(DRAIN, drains.then(drained));
        nodes.drain(drains);
        rows.retain(|row| !row.removed);
        let mut members = BTreeMap::new();
        let mut known = BTreeMap::new();
        for row in rows.iter().filter(|row| row.node != *node) {
            let Some((peer, addresses)) = place(row) else {
                warn!(node = %row.node, "what this node says of itself is not understood");
                continue;
            };
            let lives = if nodes.lives(&row.node) { Lives::Yes } else { Lives::No };
            known.insert(row.node.clone(), (peer, lives));
            members.insert(peer, addresses);
        }
        self.peers().admit(members);
        *others.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(rows)
    }

    /// Serves nobody any more.
    pub async fn leave(&self) {
        self.peers().close().await;
    }

    async fn fetch(&self, hash: Hash) -> Result<(), String> {
        let Inner { catalogue, .. } = &*self.0;
        let name = BlobHash(hash.to_string());
        let row = catalogue.blob(&name).await.map_err(|error| error.to_string())?;
        let row = row.ok_or("no fact names it")?;
        let holders = catalogue.holders(&name).await.map_err(|error| error.to_string())?;
        let holders = holders.into_iter().map(|holder| holder.node).collect();
        let from = self.whom_to_ask(&name, &holders);
        let extension = extension(&row.role).to_owned();
        let want = Want { hash, bytes: row.bytes, extension };
        let stored = self.peers().fetch(&want, &from).await.map_err(|error| error.to_string())?;
        if stored.new {
            info!(%hash, role = row.role, bytes = row.bytes, "artefact fetched from another node");
        }
        Ok(())
    }

    /// Those that live, the holders first: the others may be fetching it now, or have not told yet. Each node
    /// has an order of its own, so that not all ask the same one.
    fn whom_to_ask(&self, hash: &BlobHash, holders: &BTreeSet<NodeId>) -> Vec<PeerId> {
        let others = self.0.others.lock().unwrap_or_else(PoisonError::into_inner);
        let mut living: Vec<_> = others
            .iter()
            .filter(|(_, (_, lives))| *lives == Lives::Yes)
            .map(|(node, (peer, _))| {
                let mut own_order = DefaultHasher::new();
                (&self.0.node, node, hash).hash(&mut own_order);
                (!holders.contains(node), own_order.finish(), *peer)
            })
            .collect();
        living.sort_by_key(|(is_no_holder, order, _)| (*is_no_holder, *order));
        living.into_iter().map(|(_, _, peer)| peer).collect()
    }

    fn peer(&self, node: &NodeId) -> Result<PeerId, String> {
        let others = self.0.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.get(node).map(|(peer, _)| *peer).ok_or_else(|| "is no member".to_owned())
    }
}

impl NeighbourPort for Others {
    fn reach<'a>(&'a self, node: &'a NodeId) -> Asked<'a, Reached> {
        Box::pin(async move {
            let reached = self.peers().reach(self.peer(node)?).await?;
            Ok(Reached { round_trip: reached.round_trip, at: reached.at })
        })
    }

    fn has<'a>(&'a self, node: &'a NodeId, artefact: &'a BlobRow) -> Asked<'a, bool> {
        Box::pin(async move {
            let hash = artefact.hash.as_str().parse().map_err(|_| "no hash was asked for")?;
            self.peers().has(self.peer(node)?, &hash, artefact.bytes).await
        })
    }

    fn reopen(&self) -> Asked<'_, ()> {
        Box::pin(async { self.open_anew().await.map_err(|error| format!("{error:#}")) })
    }

    fn given(&self) -> Given {
        let Inner { others, .. } = &*self.0;
        let peers = self.peers();
        let served = peers.served();
        let others = others.lock().unwrap_or_else(PoisonError::into_inner);
        let by_node = others
            .iter()
            .filter_map(|(node, (peer, _))| Some((node.0.clone(), *served.by_peer.get(peer)?)));
        Given {
            listens: peers.addresses().iter().map(ToString::to_string).collect(),
            answers: served.answers,
            bytes: served.bytes,
            by_node: by_node.collect(),
            not_here: served.not_here,
            strangers: served.strangers,
        }
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
        && row.speaks == joined.speaks
        && row.slots == joined.slots
        && row.playing == joined.playing
        && row.can == joined.can
}

fn place(row: &NodeRow) -> Option<(PeerId, Vec<SocketAddr>)> {
    let addresses: Option<Vec<SocketAddr>> =
        row.addresses.iter().map(|address| address.parse().ok()).collect();
    Some((row.peer.parse().ok()?, addresses?))
}
