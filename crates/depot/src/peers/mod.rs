//! Artefacts between peers, over QUIC (iroh), each peer known by its public key.
//!
//! What lies in the depot is served from where it lies, to members and nobody else. What is fetched comes in
//! pieces from several peers at once, also from those that fetch it themselves and have some of it; it is
//! verified group by group of 16 KiB as it arrives and lies aside, in `peers/`, until it is whole; then it is
//! flushed and moved into the depot. Whoever dies, lies or has it not is passed over, and the others go on. A fetch that was cut off, by SIGKILL too, goes on with the pieces
//! that are there. `peers/` may be deleted at any time: only pieces of unfinished fetches are lost.
//!
//! No discovery, no name service, and no relay unless some are named: members are told with their addresses, and
//! connections go there directly.

mod ask;
mod fetch;
mod key;
mod serve;
mod split;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use iroh::{Endpoint, RelayMode, endpoint::presets, protocol::Router};
use iroh_blobs::{
    ALPN, BlobsProtocol,
    api::Store,
    store::{
        GcConfig, ProtectOutcome,
        fs::{
            FsStore,
            options::{BatchOptions, InlineOptions, Options as StoreOptions, PathOptions},
        },
    },
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::debug;

pub use ask::Reached;
pub use key::{Key, ParsePeerError, ParseRelayError, PeerId, Relay};
pub use serve::Served;
use serve::{Server, Tally, Wanted};

use crate::{Depot, Error, Hash};

/// The folder below the depot's root.
const FOLDER: &str = "peers";
/// A peer that cannot be reached within this is passed over.
const CONNECT: Duration = Duration::from_secs(5);
/// A peer that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(15);
/// Pieces of a fetch that nobody goes on with are kept for at least so long.
const FORGET_AFTER: Duration = Duration::from_mins(10);

/// Peers with their addresses.
type Members = watch::Receiver<BTreeMap<PeerId, Vec<SocketAddr>>>;

/// How a peer is reached and what it gives.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it proves itself with.
    pub key: Key,
    /// Where it listens; port 0 = any free one.
    pub listen: SocketAddr,
    /// Bytes a second that it sends in all; none = as many as it can.
    pub rate: Option<u64>,
    /// Relays over which peers meet that cannot reach each other directly, the same for all of them; empty =
    /// none.
    pub relays: Vec<Relay>,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Its hash.
    pub hash: Hash,
    /// Its size in bytes: so many are reserved before the first one arrives, and no more are taken.
    pub bytes: u64,
    /// The ending of its file name.
    pub extension: String,
}

/// Why a peer could not begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else listens there, or it is no address of this machine.
    #[error("listen for peers on {at}: {what}")]
    Listen {
        /// The address.
        at: SocketAddr,
        /// What was said.
        what: String,
    },
    /// The pieces cannot be kept.
    #[error("open {}: {what}; it may be deleted", folder.display())]
    Folder {
        /// The folder of pieces.
        folder: PathBuf,
        /// What was said.
        what: String,
    },
}

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody gave it; each that was asked, and why not.
    #[error("no peer gives {hash}: {}", why(.asked))]
    NoPeer {
        /// What was wanted.
        hash: Hash,
        /// Who was asked, and what came of it.
        asked: Vec<(PeerId, String)>,
    },
    /// The depot does not take it.
    #[error(transparent)]
    Depot(#[from] Error),
    /// What was fetched cannot be kept aside.
    #[error("keep the pieces of {hash}: {what}")]
    Aside {
        /// What was wanted.
        hash: Hash,
        /// What went wrong.
        what: String,
    },
}

fn why(asked: &[(PeerId, String)]) -> String {
    if asked.is_empty() {
        return "nobody was named".to_owned();
    }
    let each = asked.iter().map(|(peer, why)| format!("{} {why}", short(peer)));
    each.collect::<Vec<_>>().join("; ")
}

fn short(peer: &PeerId) -> String {
    peer.to_string().chars().take(10).collect()
}

/// This peer.
pub struct Peers {
    depot: Depot,
    relays: Vec<Relay>,
    endpoint: Endpoint,
    router: Router,
    aside: Aside,
    members: watch::Sender<BTreeMap<PeerId, Vec<SocketAddr>>>,
    wanted: Arc<Wanted>,
    tally: Arc<Tally>,
    /// One fetch of a thing at a time; the others wait and find it there.
    fetching: Mutex<HashMap<Hash, Weak<Semaphore>>>,
    /// Ended with this peer.
    _serving: JoinSet<()>,
}

impl Peers {
    /// Begins to listen. Nobody is a member yet.
    ///
    /// # Errors
    /// The address cannot be listened on, or the folder cannot be used.
    pub async fn open(depot: &Depot, options: Options) -> Result<Self, OpenError> {
        let wanted = Arc::new(Wanted::default());
        let aside = Aside::open(depot.root().join(FOLDER), &wanted).await?;
        let at = options.listen;
        let refused = |what: String| OpenError::Listen { at, what };
        let relay_mode = match &options.relays[..] {
            [] => RelayMode::Disabled,
            relays => RelayMode::custom(relays.iter().map(|relay| relay.0.clone())),
        };
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(options.key.0.clone())
            .relay_mode(relay_mode)
            .clear_ip_transports()
            .bind_addr(at)
            .map_err(|error| refused(error.to_string()))?
            .bind()
            .await
            .map_err(|error| refused(error.to_string()))?;
        let members = watch::Sender::new(BTreeMap::new());
        let tally = Arc::new(Tally::default());
        let (events, asked) = serve::events(options.rate.is_some());
        let server = Server {
            depot: depot.clone(),
            store: aside.store.clone(),
            members: members.subscribe(),
            wanted: Arc::clone(&wanted),
            tally: Arc::clone(&tally),
            rate: options.rate,
        };
        let mut serving = JoinSet::new();
        serving.spawn(server.answer(asked));
        let protocol = BlobsProtocol::new(&aside.store, Some(events));
        let router = Router::builder(endpoint.clone()).accept(ALPN, protocol).spawn();
        Ok(Self {
            depot: depot.clone(),
            relays: options.relays,
            endpoint,
            router,
            aside,
            members,
            wanted,
            tally,
            fetching: Mutex::default(),
            _serving: serving,
        })
    }

    /// Who this is.
    pub fn id(&self) -> PeerId {
        PeerId(self.endpoint.id())
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.bound_sockets()
    }

    /// Says who may fetch from here, and where everybody is. Whoever is left out is turned away from the
    /// next question on.
    pub fn admit(&self, members: BTreeMap<PeerId, Vec<SocketAddr>>) {
        self.members.send_if_modified(|known| {
            let changed = *known != members;
            *known = members;
            changed
        });
    }

    /// What was given since this peer began to listen.
    pub fn served(&self) -> Served {
        self.tally.served()
    }

    /// Ends all connections; nothing is served or fetched any more.
    pub async fn close(&self) {
        if let Err(error) = self.router.shutdown().await {
            debug!(%error, "the peer's router did not end by itself");
        }
        self.endpoint.close().await;
    }

    async fn in_depot<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Depot) -> crate::Result<T> + Send + 'static,
    ) -> crate::Result<T> {
        let depot = self.depot.clone();
        let called = tokio::task::spawn_blocking(move || call(&depot)).await;
        called.unwrap_or_else(|ended| Err(std::io::Error::other(ended).into()))
    }
}

/// Pieces of what is fetched, and the hash trees of what is served.
struct Aside {
    store: Store,
    paths: PathOptions,
}

impl Aside {
    async fn open(folder: PathBuf, wanted: &Arc<Wanted>) -> Result<Self, OpenError> {
        let paths = PathOptions::new(&folder);
        let wanted = Arc::clone(wanted);
        let options = StoreOptions {
            path: paths.clone(),
            // Everything is a file, so that everything can be moved.
            inline: InlineOptions::NO_INLINE,
            batch: BatchOptions::default(),
            gc: Some(GcConfig {
                interval: FORGET_AFTER,
                add_protected: Some(Arc::new(move |protected| {
                    protected.extend(wanted.all());
                    Box::pin(std::future::ready(ProtectOutcome::Continue))
                })),
            }),
        };
        let opened = match fs_err::create_dir_all(&folder) {
            Ok(()) => FsStore::load_with_opts(folder.join("pieces.db"), options)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(store) => Ok(Self { store: store.into(), paths }),
            Err(what) => Err(OpenError::Folder { folder, what }),
        }
    }
}

fn theirs(hash: &Hash) -> iroh_blobs::Hash {
    iroh_blobs::Hash::from_bytes(*hash.as_bytes())
}

fn own(hash: &iroh_blobs::Hash) -> Hash {
    Hash::from_bytes(*hash.as_bytes())
}
