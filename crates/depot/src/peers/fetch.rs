//! The side that asks: one thing from several peers at once.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future::pending,
    path::Path,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, future::try_join_all, stream::FuturesUnordered};
use iroh::endpoint::Connection;
use iroh_blobs::{
    HashAndFormat,
    api::{
        blobs::{BlobStatus, ExportMode, ExportOptions},
        remote::GetProgressItem,
    },
    protocol::{
        ChunkRanges, ChunkRangesExt as _, ERR_LIMIT, ERR_PERMISSION, GetRequest, ObserveRequest,
    },
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info};

use super::{
    Aside, FOLDER, FetchError, PeerId, Peers, SILENCE, Want,
    split::{Split, Take},
    theirs,
};
use crate::{Hash, Stored};

/// Peers that are drawn from at once.
const AT_ONCE: usize = 4;
/// While somebody gives, no more than so many are asked in vain.
const PASSED_OVER: usize = 8;
/// A thing of one piece is asked of one peer; of another beside it if nothing comes for so long.
const HEDGE: Duration = Duration::from_secs(2);
/// Pieces that one peer is asked for at once, so that it has something to do while the next question is on its way.
const LANES: usize = 2;
/// Pause before somebody who does not give a piece now is asked for it again.
const AGAIN: Duration = Duration::from_millis(200);
/// The same for somebody who had nothing of it: perhaps it fetches it, too. Each time twice as long.
const ABSENT: Duration = Duration::from_secs(1);

/// Why a peer gives nothing more.
enum Refusal {
    /// It has it not.
    Absent(String),
    /// It does not give anything.
    No(String),
}

impl Peers {
    /// Brings something into the depot from these, a few of them at once, the first ones first. What is there
    /// already is not fetched again.
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
        let _now = self.wanted.fetch(hash);
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
        let there = aside.store.observe(hash).await;
        let there = there.map_err(|error| lost(error.to_string()))?;
        let split = Split::of(want.bytes, &there.ranges, self.order(hash));
        match self.draw_all(aside, want, hash, from, &split).await {
            Ok(()) => self.take_in(aside, want, hash).await,
            Err(asked) => Err(FetchError::NoPeer { hash: want.hash, asked }),
        }
    }

    /// In which order this peer asks for the pieces: in another one than others that fetch the same, so that they
    /// have something to give each other.
    fn order(&self, hash: iroh_blobs::Hash) -> u64 {
        let own = self.endpoint.id();
        let both = own.as_bytes().iter().zip(hash.as_bytes()).take(8);
        both.fold(0, |number, (a, b)| number << 8 | u64::from(a ^ b))
    }

    /// Draws all pieces from these peers; else who was asked, and what came of it.
    async fn draw_all(
        &self,
        aside: &Aside,
        want: &Want,
        hash: iroh_blobs::Hash,
        from: &[PeerId],
        split: &Split,
    ) -> Result<(), Vec<(PeerId, String)>> {
        let mut left = split.left();
        let mut peers = from.iter().filter(|peer| **peer != self.id()).copied();
        let mut drawing = FuturesUnordered::new();
        let mut at_once = AT_ONCE.min(*left.borrow_and_update());
        let mut asked: Vec<(PeerId, String)> = Vec::new();
        // Who had nothing of it, and when it is asked again while others give.
        let mut absent: VecDeque<(Instant, PeerId)> = VecDeque::new();
        let mut pauses: HashMap<PeerId, Duration> = HashMap::new();
        loop {
            if *left.borrow_and_update() == 0 {
                // Whoever is still at a piece that another one gave meanwhile is let go.
                return Ok(());
            }
            while drawing.len() < at_once && (drawing.is_empty() || asked.len() < PASSED_OVER) {
                let again =
                    absent.front().filter(|(at, _)| *at <= Instant::now() && !drawing.is_empty());
                let again = again.map(|(_, peer)| *peer);
                let peer = match again {
                    Some(peer) => {
                        absent.pop_front();
                        peer
                    }
                    None => match peers.next() {
                        Some(peer) => peer,
                        None => break,
                    },
                };
                drawing
                    .push(async move { (peer, self.draw(aside, want, hash, peer, split).await) });
            }
            let has_room = drawing.len() < at_once;
            let next = absent.front().map(|(at, _)| *at).filter(|_| has_room);
            tokio::select! {
                ended = drawing.next() => match ended {
                    Some((_, Ok(()))) => {}
                    Some((peer, Err(refusal))) => {
                        let (is_absent, why) = match refusal {
                            Refusal::Absent(why) => (true, why),
                            Refusal::No(why) => (false, why),
                        };
                        if is_absent {
                            let pause = pauses.entry(peer).or_insert(ABSENT);
                            let at = Instant::now() + *pause;
                            *pause *= 2;
                            let place = absent.partition_point(|(other, _)| *other <= at);
                            absent.insert(place, (at, peer));
                        }
                        // Once is enough to say it.
                        if !asked.iter().any(|(known, _)| *known == peer) {
                            info!(hash = %want.hash, %peer, why, "a peer did not give what was wanted");
                            asked.push((peer, why));
                        }
                    }
                    None => return Err(asked),
                },
                _ = left.changed() => {}
                () = async {
                    match next {
                        Some(at) => sleep_until(at).await,
                        None => pending().await,
                    }
                } => {}
                // Nobody gives anything for a while: one more is asked beside them.
                () = sleep(HEDGE), if at_once < AT_ONCE && split.idle() >= HEDGE => at_once += 1,
            }
        }
    }

    /// Draws pieces from one peer until there are none left that it has.
    async fn draw(
        &self,
        aside: &Aside,
        want: &Want,
        hash: iroh_blobs::Hash,
        peer: PeerId,
        split: &Split,
    ) -> Result<(), Refusal> {
        let connection = self.connect(peer).await.map_err(Refusal::No)?;
        // Who fetches the same says what it has got, again and again; who has all of it, or nothing, does not.
        let seen = aside.store.remote().observe(connection.clone(), ObserveRequest::new(hash));
        let mut seen = std::pin::pin!(seen);
        let first = timeout(SILENCE, seen.next()).await;
        let first = first.map_err(|_| Refusal::No(silent()))?;
        let seeing = async {
            let mut next = first;
            while let Some(Ok(more)) = next {
                split.has(peer, &(more.ranges & ChunkRanges::bytes(..want.bytes)));
                next = seen.next().await;
            }
            pending::<()>().await;
        };
        let lanes = (0..LANES).map(|_| self.lane(aside, want, hash, peer, &connection, split));
        tokio::select! {
            ended = try_join_all(lanes) => ended.map(drop),
            () = seeing => Ok(()),
        }
    }

    /// Draws one piece after the other.
    async fn lane(
        &self,
        aside: &Aside,
        want: &Want,
        hash: iroh_blobs::Hash,
        peer: PeerId,
        connection: &Connection,
        split: &Split,
    ) -> Result<(), Refusal> {
        // What it does not give now.
        let mut missed = BTreeSet::new();
        let mut left = split.left();
        loop {
            match split.take(peer, &missed) {
                Take::Nothing => return Ok(()),
                Take::Piece(taken) => {
                    let request = GetRequest::blob_ranges(hash, taken.ranges.clone());
                    if self.draw_piece(aside, want, connection, request, split).await? {
                        taken.done();
                    } else {
                        missed.insert(taken.number);
                        drop(taken);
                        sleep(AGAIN).await;
                    }
                }
                Take::Wait => {
                    if split.idle() >= SILENCE {
                        let why = format!("has had no more of it for {} s", SILENCE.as_secs());
                        return Err(Refusal::No(why));
                    }
                    tokio::select! {
                        _ = left.changed() => {}
                        () = sleep(AGAIN) => missed.clear(),
                    }
                }
            }
        }
    }

    /// Draws one; says whether it came, or is not given at this moment.
    async fn draw_piece(
        &self,
        aside: &Aside,
        want: &Want,
        connection: &Connection,
        request: GetRequest,
        split: &Split,
    ) -> Result<bool, Refusal> {
        let no = |why: String| Err(Refusal::No(why));
        let got = aside.store.remote().execute_get(connection.clone(), request).stream();
        let mut got = std::pin::pin!(got);
        loop {
            match timeout(SILENCE, got.next()).await {
                Err(_) => return no(silent()),
                Ok(None) => return no("ended without a word".to_owned()),
                Ok(Some(GetProgressItem::Progress(bytes))) if bytes > want.bytes => {
                    return no(format!("sends more than the {} bytes it has", want.bytes));
                }
                Ok(Some(GetProgressItem::Progress(_))) => split.moved(),
                Ok(Some(GetProgressItem::Done(_))) => return Ok(true),
                Ok(Some(GetProgressItem::Error(error))) => {
                    let why = format!("does not give it: {error}");
                    return match error.iroh_error_code() {
                        Some(code) if code == ERR_LIMIT => Ok(false),
                        Some(code) if code == ERR_PERMISSION => Err(Refusal::Absent(why)),
                        _ => no(why),
                    };
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
}

fn silent() -> String {
    format!("said nothing for {} s", SILENCE.as_secs())
}
