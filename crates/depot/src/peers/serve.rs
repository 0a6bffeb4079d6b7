//! The side that is asked: who may, and what is there.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh_blobs::{
    BlobFormat,
    api::{
        Store,
        blobs::{AddPathOptions, BlobStatus, ImportMode},
    },
    protocol::GetRequest,
    provider::events::{
        AbortReason, ConnectMode, EventMask, EventSender, ObserveMode, ProviderMessage,
        RequestMode, RequestUpdate, ThrottleMode,
    },
};
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tracing::{debug, warn};

use super::{Members, PeerId, own};
use crate::Depot;

/// What was asked for last stays known with its hash tree, so that it is not hashed again.
const REMEMBERED: usize = 256;
/// A file whose giving broke off is hashed, but not again within this: mostly the line was cut, or whoever asked has it.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// Events that may wait.
const QUEUE: usize = 64;
/// Who sends at a rate makes up for so much time that timers and a busy machine took: a piece takes less than
/// the shortest sleep.
const CATCH_UP: Duration = Duration::from_millis(50);

/// What is not to be forgotten: what is fetched, and what was served last.
#[derive(Debug, Default)]
pub(super) struct Wanted(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    /// What somebody wanted and did not get yet; some of it may be here.
    unfinished: HashSet<iroh_blobs::Hash>,
    /// What is fetched at this moment.
    now: HashSet<iroh_blobs::Hash>,
    served: VecDeque<iroh_blobs::Hash>,
    /// When those were hashed whose giving broke off.
    looked: HashMap<iroh_blobs::Hash, Instant>,
}

/// A fetch that goes on until this is dropped.
pub(super) struct Fetching<'a> {
    wanted: &'a Wanted,
    hash: iroh_blobs::Hash,
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.wanted.lock().now.remove(&self.hash);
    }
}

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fetch(&self, hash: iroh_blobs::Hash) -> Fetching<'_> {
        let mut lists = self.lock();
        lists.unfinished.insert(hash);
        lists.now.insert(hash);
        Fetching { wanted: self, hash }
    }

    pub(super) fn fetched(&self, hash: &iroh_blobs::Hash) {
        self.lock().unfinished.remove(hash);
    }

    fn is_fetched(&self, hash: &iroh_blobs::Hash) -> bool {
        self.lock().now.contains(hash)
    }

    fn served(&self, hash: iroh_blobs::Hash) {
        let served = &mut self.lock().served;
        served.retain(|known| *known != hash);
        served.push_back(hash);
        if served.len() > REMEMBERED {
            served.pop_front();
        }
    }

    fn may_look(&self, hash: iroh_blobs::Hash) -> bool {
        let looked = &mut self.lock().looked;
        looked.retain(|_, at| at.elapsed() < LOOK_AGAIN);
        let may = !looked.contains_key(&hash);
        looked.entry(hash).or_insert_with(Instant::now);
        may
    }

    pub(super) fn all(&self) -> Vec<iroh_blobs::Hash> {
        let lists = self.lock();
        lists.unfinished.iter().chain(&lists.served).copied().collect()
    }
}

/// What a peer gave since it began to listen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Questions that were answered with something.
    pub answers: u64,
    /// Bytes given, of artefacts alone.
    pub bytes: u64,
    /// The same by peer; who is a member no more is left out.
    pub by_peer: BTreeMap<PeerId, u64>,
    /// Questions of members for what is not here, or is damaged here.
    pub not_here: u64,
    /// Questions and connections of strangers, all turned away.
    pub strangers: u64,
}

/// The same, being counted.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Served>);

impl Tally {
    pub(super) fn served(&self) -> Served {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, count: impl FnOnce(&mut Served)) {
        count(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn gave(&self, peer: PeerId, bytes: u64, members: &Members) {
        self.count(|served| {
            served.answers += 1;
            served.bytes += bytes;
            *served.by_peer.entry(peer).or_default() += bytes;
            let members = members.borrow();
            served.by_peer.retain(|peer, _| members.contains_key(peer));
        });
    }
}

/// What those who ask may do: read artefacts, and nothing else.
pub(super) fn events(limited: bool) -> (EventSender, mpsc::Receiver<ProviderMessage>) {
    let mask = EventMask {
        connected: ConnectMode::Intercept,
        get: RequestMode::InterceptLog,
        get_many: RequestMode::Disabled,
        push: RequestMode::Disabled,
        observe: ObserveMode::Intercept,
        throttle: if limited { ThrottleMode::Intercept } else { ThrottleMode::None },
    };
    EventSender::channel(QUEUE, mask)
}

/// Answers until nobody can ask any more.
pub(super) struct Server {
    pub(super) depot: Depot,
    pub(super) store: Store,
    pub(super) members: Members,
    pub(super) wanted: Arc<Wanted>,
    pub(super) tally: Arc<Tally>,
    /// Bytes a second that are sent in all; none = no limit.
    pub(super) rate: Option<u64>,
}

impl Server {
    pub(super) async fn answer(self, mut asked: mpsc::Receiver<ProviderMessage>) {
        let server = Arc::new(self);
        let mut answers = JoinSet::new();
        // When all that was sent so far may have been sent.
        let mut sent_by = Instant::now();
        // Whose connections there are: a member may be one no longer.
        let mut connections = HashMap::new();
        while let Some(message) = asked.recv().await {
            while answers.try_join_next().is_some() {}
            match message {
                ProviderMessage::ClientConnected(message) => {
                    let peer = message.endpoint_id.map(PeerId);
                    let answer = server.admit(peer);
                    if answer.is_ok() {
                        connections.insert(message.connection_id, peer);
                    }
                    // Who is gone hears nothing, and needs to.
                    drop(message.tx.send(answer).await);
                }
                ProviderMessage::GetRequestReceived(mut message) => {
                    let server = Arc::clone(&server);
                    let peer = connections.get(&message.connection_id).copied().flatten();
                    let hash = message.request.hash;
                    answers.spawn(async move {
                        let answer = match server.admit(peer) {
                            Ok(()) => server.offer(&message.request).await,
                            refused => refused,
                        };
                        let given = answer.is_ok();
                        drop(message.tx.send(answer).await);
                        let Some(peer) = peer.filter(|_| given) else { return };
                        while let Ok(Some(update)) = message.rx.recv().await {
                            let (stats, broke_off) = match update {
                                RequestUpdate::Completed(completed) => (completed.stats, false),
                                RequestUpdate::Aborted(aborted) => (aborted.stats, true),
                                RequestUpdate::Started(_) | RequestUpdate::Progress(_) => continue,
                            };
                            server.tally.gave(peer, stats.payload_bytes_sent, &server.members);
                            // What was sound when it was given last may be damaged since: what is read is held
                            // against the hashes of then.
                            if broke_off && server.wanted.may_look(hash) {
                                server.look_at(own(&hash)).await;
                            }
                        }
                    });
                }
                ProviderMessage::ObserveRequestReceived(message) => {
                    let peer = connections.get(&message.connection_id).copied().flatten();
                    // What lies in the depot whole is not told of: it is given.
                    let answer = server.admit(peer).and_then(|()| {
                        let is_fetched = server.wanted.is_fetched(&message.request.hash);
                        if is_fetched { Ok(()) } else { Err(AbortReason::Permission) }
                    });
                    drop(message.tx.send(answer).await);
                }
                ProviderMessage::ConnectionClosed(message) => {
                    connections.remove(&message.connection_id);
                }
                ProviderMessage::Throttle(message) => {
                    let Some(rate) = server.rate else { continue };
                    let now = Instant::now();
                    let since = now.checked_sub(CATCH_UP).unwrap_or(now);
                    sent_by = sent_by.max(since) + time_for(message.size, rate);
                    let until = sent_by;
                    answers.spawn(async move {
                        tokio::time::sleep_until(until).await;
                        drop(message.tx.send(Ok(())).await);
                    });
                }
                // Dropped unanswered, which refuses it.
                _ => {}
            }
        }
    }

    fn admit(&self, peer: Option<PeerId>) -> Result<(), AbortReason> {
        match peer {
            Some(peer) if self.members.borrow().contains_key(&peer) => Ok(()),
            Some(peer) => {
                self.tally.count(|served| served.strangers += 1);
                warn!(%peer, "a stranger asked for artefacts and was turned away");
                Err(AbortReason::Permission)
            }
            None => Err(AbortReason::Permission),
        }
    }

    /// Makes an artefact of the depot known to the store, which reads it where it lies.
    async fn offer(&self, request: &GetRequest) -> Result<(), AbortReason> {
        if !request.ranges.is_blob() {
            return Err(AbortReason::Permission);
        }
        let (depot, hash) = (self.depot.clone(), own(&request.hash));
        let found = tokio::task::spawn_blocking(move || {
            let Some(path) = depot.path_of(&hash)? else { return Ok(None) };
            let bytes = fs_err::metadata(&path)?.len();
            Ok::<_, crate::Error>(Some((path, bytes)))
        });
        let (path, bytes) = match found.await {
            Ok(Ok(Some(found))) => found,
            Ok(Ok(None)) if self.wanted.is_fetched(&request.hash) => {
                // Some of it is here, and helps others that fetch it too.
                let here = self.store.remote().local_for_request(request.clone()).await;
                let is_here = here.is_ok_and(|here| here.is_complete());
                return if is_here { Ok(()) } else { Err(AbortReason::RateLimited) };
            }
            Ok(Ok(None)) => {
                debug!(%hash, "asked for what is not here");
                self.tally.count(|served| served.not_here += 1);
                return Err(AbortReason::Permission);
            }
            Ok(Err(error)) => {
                warn!(%hash, %error, "an artefact cannot be served");
                return Err(AbortReason::RateLimited);
            }
            Err(ended) => {
                warn!(%hash, %ended, "an artefact cannot be served");
                return Err(AbortReason::RateLimited);
            }
        };
        self.wanted.served(request.hash);
        // Known, and what is known of it still leads to a file of that size.
        if let Ok(BlobStatus::Complete { size }) = self.store.status(request.hash).await
            && size == bytes
            && self.store.export_ranges(request.hash, 0..1).concatenate().await.is_ok()
        {
            return Ok(());
        }
        let options =
            AddPathOptions { path, mode: ImportMode::TryReference, format: BlobFormat::Raw };
        match self.store.add_path_with_opts(options).temp_tag().await {
            Ok(tag) if tag.hash() == request.hash => Ok(()),
            Ok(tag) => {
                warn!(%hash, actual = %own(&tag.hash()), "an artefact is damaged and not served");
                self.tally.count(|served| served.not_here += 1);
                self.look_at(hash).await;
                Err(AbortReason::Permission)
            }
            Err(error) => {
                warn!(%hash, %error, "an artefact cannot be served");
                Err(AbortReason::RateLimited)
            }
        }
    }
}

impl Server {
    /// Hashes a file, and sets it aside if it is damaged.
    async fn look_at(&self, hash: crate::Hash) {
        let depot = self.depot.clone();
        let looked = tokio::task::spawn_blocking(move || depot.quarantine(&hash)).await;
        match looked {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%hash, %error, "it cannot be set aside"),
            Err(ended) => warn!(%hash, %ended, "it cannot be set aside"),
        }
    }
}

/// How long so many bytes take.
fn time_for(bytes: u64, per_second: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}
