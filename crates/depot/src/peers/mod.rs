//! Artefacts between peers, over QUIC (iroh), each peer known by its public key.
//!
//! What lies in the depot is served from where it lies, to members and nobody else. What is fetched is
//! verified piece by piece as it arrives and lies aside, in `peers/`, until it is whole; then it is
//! flushed and moved into the depot. A fetch that was cut off, by SIGKILL too, goes on with the pieces
//! that are there. `peers/` may be deleted at any time: only pieces of unfinished fetches are lost.
//!
//! No relay, no discovery, no name service: members are told with their addresses, and connections go
//! there directly.

mod key;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::StreamExt as _;
use iroh::{
    Endpoint, EndpointAddr, RelayMode,
    endpoint::{Connection, presets},
    protocol::Router,
};
use iroh_blobs::{
    ALPN, BlobsProtocol, HashAndFormat,
    api::{
        Store,
        blobs::{BlobStatus, ExportMode, ExportOptions},
        remote::GetProgressItem,
    },
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
    time::timeout,
};
use tracing::{debug, info};

pub use key::{Key, ParsePeerError, PeerId};
use serve::{Server, Wanted};

use crate::{Depot, Error, Hash, Stored};

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
    endpoint: Endpoint,
    router: Router,
    aside: Aside,
    members: watch::Sender<BTreeMap<PeerId, Vec<SocketAddr>>>,
    wanted: Arc<Wanted>,
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
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(options.key.0.clone())
            .relay_mode(RelayMode::Disabled)
            .clear_ip_transports()
            .bind_addr(at)
            .map_err(|error| refused(error.to_string()))?
            .bind()
            .await
            .map_err(|error| refused(error.to_string()))?;
        let members = watch::Sender::new(BTreeMap::new());
        let (events, asked) = serve::events(options.rate.is_some());
        let server = Server {
            depot: depot.clone(),
            store: aside.store.clone(),
            members: members.subscribe(),
            wanted: Arc::clone(&wanted),
            rate: options.rate,
        };
        let mut serving = JoinSet::new();
        serving.spawn(server.answer(asked));
        let protocol = BlobsProtocol::new(&aside.store, Some(events));
        let router = Router::builder(endpoint.clone()).accept(ALPN, protocol).spawn();
        Ok(Self {
            depot: depot.clone(),
            endpoint,
            router,
            aside,
            members,
            wanted,
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

    /// Brings something into the depot from the first of these that gives it. What is there already is
    /// not fetched again.
    ///
    /// # Errors
    /// The depot and the pieces that arrived are as before; call again to go on.
    pub async fn fetch(&self, want: &Want, from: &[PeerId]) -> Result<Stored, FetchError> {
        let turn = self.turn(&want.hash);
        let _turn = turn.acquire().await;
        if let Some(stored) = self.present(want).await? {
            return Ok(stored);
        }
        if want.hash == Hash::of(&[]) {
            // Nothing is nowhere, and needs nobody.
            let extension = want.extension.clone();
            return Ok(self.in_depot(move |depot| depot.put_bytes(&[], &extension)).await?);
        }
        let hash = theirs(&want.hash);
        self.wanted.fetch(hash);
        let known = self.aside.store.status(hash).await;
        let is_stale = matches!(known, Ok(BlobStatus::Complete { .. }))
            && !self.aside.paths.data_path(&hash).exists();
        let fetched = if is_stale {
            // It is still known from where it lay in the depot, which has it no more.
            self.fetch_beside(want, hash, from).await
        } else {
            self.fetch_into(&self.aside, want, hash, from).await
        };
        if fetched.is_ok() {
            self.wanted.fetched(&hash);
        }
        fetched
    }

    /// Whether a member answers where it said that it is, and if not, why. It is asked for nothing.
    ///
    /// # Errors
    /// In words, which go on after the peer's name.
    pub async fn reach(&self, peer: PeerId) -> Result<(), String> {
        let connection = self.connect(peer).await?;
        connection.close(0_u32.into(), b"it was only asked");
        Ok(())
    }

    async fn connect(&self, peer: PeerId) -> Result<Connection, String> {
        let addresses = self.members.borrow().get(&peer).cloned();
        let addresses = addresses.ok_or("is no member")?;
        let address =
            addresses.into_iter().fold(EndpointAddr::new(peer.0), EndpointAddr::with_ip_addr);
        timeout(CONNECT, self.endpoint.connect(address, ALPN))
            .await
            .map_err(|_| "does not answer".to_owned())?
            .map_err(|error| format!("cannot be reached: {error}"))
    }

    /// Ends all connections; nothing is served or fetched any more.
    pub async fn close(&self) {
        if let Err(error) = self.router.shutdown().await {
            debug!(%error, "the peer's router did not end by itself");
        }
        self.endpoint.close().await;
    }

    fn turn(&self, hash: &Hash) -> Arc<Semaphore> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = fetching.get(hash).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Semaphore::new(1));
        fetching.insert(*hash, Arc::downgrade(&turn));
        turn
    }

    /// What is there and whole is not fetched; what is damaged is.
    async fn present(&self, want: &Want) -> Result<Option<Stored>, FetchError> {
        let hash = want.hash;
        let present = self.in_depot(move |depot| Ok(depot.verify(&hash).is_ok())).await?;
        Ok(present.then_some(Stored { hash, bytes: want.bytes, new: false }))
    }

    /// The same with pieces of its own, which are forgotten.
    async fn fetch_beside(
        &self,
        want: &Want,
        hash: iroh_blobs::Hash,
        from: &[PeerId],
    ) -> Result<Stored, FetchError> {
        let folder = self.depot.root().join(FOLDER).join(format!("again-{}", want.hash));
        let lost = |what: String| FetchError::Aside { hash: want.hash, what };
        let aside = Aside::open(folder.clone(), &self.wanted).await;
        let aside = aside.map_err(|error| lost(error.to_string()))?;
        let fetched = self.fetch_into(&aside, want, hash, from).await;
        if let Err(error) = aside.store.shutdown().await {
            debug!(%error, "a store of pieces did not end by itself");
        }
        self.in_depot(move |_| Ok(fs_err::remove_dir_all(folder)?)).await?;
        fetched
    }

    async fn fetch_into(
        &self,
        aside: &Aside,
        want: &Want,
        hash: iroh_blobs::Hash,
        from: &[PeerId],
    ) -> Result<Stored, FetchError> {
        let lost = |what: String| FetchError::Aside { hash: want.hash, what };
        let local = aside.store.remote().local(HashAndFormat::raw(hash)).await;
        let local = local.map_err(|error| lost(error.to_string()))?;
        let missing = want.bytes.saturating_sub(local.local_bytes());
        let _space = self.in_depot(move |depot| depot.reserve(missing)).await?;
        let mut asked = Vec::new();
        for peer in from.iter().filter(|peer| **peer != self.id()) {
            match self.fetch_from(aside, want, hash, *peer).await {
                Ok(()) => return self.take_in(aside, want, hash).await,
                Err(why) => {
                    info!(hash = %want.hash, %peer, why, "a peer did not give what was wanted");
                    asked.push((*peer, why));
                }
            }
        }
        Err(FetchError::NoPeer { hash: want.hash, asked })
    }

    /// Gets the missing pieces from one peer.
    async fn fetch_from(
        &self,
        aside: &Aside,
        want: &Want,
        hash: iroh_blobs::Hash,
        peer: PeerId,
    ) -> Result<(), String> {
        let connection = self.connect(peer).await?;
        let got = aside.store.remote().fetch(connection, HashAndFormat::raw(hash)).stream();
        let mut got = std::pin::pin!(got);
        loop {
            match timeout(SILENCE, got.next()).await {
                Err(_) => return Err(format!("said nothing for {} s", SILENCE.as_secs())),
                Ok(None) => return Err("ended without a word".to_owned()),
                Ok(Some(GetProgressItem::Progress(bytes))) if bytes > want.bytes => {
                    return Err(format!("sends more than the {} bytes it has", want.bytes));
                }
                Ok(Some(GetProgressItem::Progress(_))) => {}
                Ok(Some(GetProgressItem::Done(_))) => return Ok(()),
                Ok(Some(GetProgressItem::Error(error))) => {
                    return Err(format!("does not give it: {error}"));
                }
            }
        }
    }

    /// Moves what is whole into the depot.
    async fn take_in(
        &self,
        aside: &Aside,
        want: &Want,
        hash: iroh_blobs::Hash,
    ) -> Result<Stored, FetchError> {
        let lost = |what: String| FetchError::Aside { hash: want.hash, what };
        match aside.store.status(hash).await {
            Ok(BlobStatus::Complete { size }) if size == want.bytes => {}
            Ok(status) => {
                return Err(lost(format!("{} bytes were announced, {status:?}", want.bytes)));
            }
            Err(error) => return Err(lost(error.to_string())),
        }
        let (data, wanted) = (aside.paths.data_path(&hash), want.clone());
        // Flushed before it has its name, as always.
        let target = self
            .in_depot(move |depot| {
                crate::store::seal(&fs_err::File::open(&data)?)?;
                depot.place_for(&wanted.hash, &wanted.extension)
            })
            .await?;
        let Some(target) = target else {
            return Ok(Stored { hash: want.hash, bytes: want.bytes, new: false });
        };
        let moved = target.clone();
        let options = ExportOptions { hash, mode: ExportMode::TryReference, target };
        let exported = aside.store.export_with_opts(options).finish().await;
        exported.map_err(|error| lost(error.to_string()))?;
        let folder = moved.parent().map(Path::to_path_buf).unwrap_or_default();
        self.in_depot(move |_| crate::store::sync_folder(&folder)).await?;
        Ok(Stored { hash: want.hash, bytes: want.bytes, new: true })
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
