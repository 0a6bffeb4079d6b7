//! The side that asks: one thing from several peers at once.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use iroh::endpoint::Connection;
use iroh_blobs::{
    HashAndFormat,
    api::{
        blobs::{BlobStatus, ExportMode, ExportOptions},
        remote::GetProgressItem,
    },
    protocol::{ERR_LIMIT, GetRequest},
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
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
/// Pause before somebody who fetches the same is asked for what he had not got yet.
const AGAIN: Duration = Duration::from_millis(200);

/// Questions in vain to somebody who fetches the same, before such a pause.
const IN_A_ROW: u32 = 8;

/// Why a peer does not give a piece.
enum Refusal {
    /// It fetches the same, and has not got this piece.
    NotYet,
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
        let split = Split::of(want.bytes, &there.ranges, self.first_piece(hash));
        match self.draw_all(aside, want, hash, from, &split).await {
            Ok(()) => self.take_in(aside, want, hash).await,
            Err(asked) => Err(FetchError::NoPeer { hash: want.hash, asked }),
        }
    }

    /// Where this peer begins: another piece than others that fetch the same, so that they have something to
    /// give each other.
    fn first_piece(&self, hash: iroh_blobs::Hash) -> u64 {
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
        loop {
            if *left.borrow_and_update() == 0 {
                // Whoever is still at a piece that another one gave meanwhile is let go.
                return Ok(());
            }
            while drawing.len() < at_once && (drawing.is_empty() || asked.len() < PASSED_OVER) {
                let Some(peer) = peers.next() else { break };
                drawing
                    .push(async move { (peer, self.draw(aside, want, hash, peer, split).await) });
            }
            tokio::select! {
                ended = drawing.next() => match ended {
                    Some((_, Ok(()))) => {}
                    Some((peer, Err(why))) => {
                        info!(hash = %want.hash, %peer, why, "a peer did not give what was wanted");
                        asked.push((peer, why));
                    }
                    None => return Err(asked),
                },
                _ = left.changed() => {}
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
    ) -> Result<(), String> {
        let connection = self.connect(peer).await?;
        // What it has not got yet, for it fetches the same.
        let mut missed = BTreeSet::new();
        let mut in_vain = 0_u32;
        let mut left = split.left();
        loop {
            match split.take(&missed) {
                Take::Nothing => return Ok(()),
                Take::Piece(number, ranges) => {
                    let request = GetRequest::blob_ranges(hash, ranges);
                    match self.draw_piece(aside, want, &connection, request, split).await {
                        Ok(()) => {
                            in_vain = 0;
                            split.done(number);
                        }
                        Err(Refusal::NotYet) => {
                            split.back(number);
                            missed.insert(number);
                            in_vain += 1;
                            if in_vain.is_multiple_of(IN_A_ROW) {
                                sleep(AGAIN).await;
                            }
                        }
                        Err(Refusal::No(why)) => {
                            split.back(number);
                            return Err(why);
                        }
                    }
                }
                Take::Wait => {
                    if split.idle() >= SILENCE {
                        return Err(format!("has had no more of it for {} s", SILENCE.as_secs()));
                    }
                    tokio::select! {
                        _ = left.changed() => {}
                        () = sleep(AGAIN) => missed.clear(),
                    }
                }
            }
        }
    }

    async fn draw_piece(
        &self,
        aside: &Aside,
        want: &Want,
        connection: &Connection,
        request: GetRequest,
        split: &Split,
    ) -> Result<(), Refusal> {
        let no = |why: String| Err(Refusal::No(why));
        let got = aside.store.remote().execute_get(connection.clone(), request).stream();
        let mut got = std::pin::pin!(got);
        loop {
            match timeout(SILENCE, got.next()).await {
                Err(_) => return no(format!("said nothing for {} s", SILENCE.as_secs())),
                Ok(None) => return no("ended without a word".to_owned()),
                Ok(Some(GetProgressItem::Progress(bytes))) if bytes > want.bytes => {
                    return no(format!("sends more than the {} bytes it has", want.bytes));
                }
                Ok(Some(GetProgressItem::Progress(_))) => split.moved(),
                Ok(Some(GetProgressItem::Done(_))) => return Ok(()),
                Ok(Some(GetProgressItem::Error(error))) => {
                    if error.iroh_error_code() == Some(ERR_LIMIT) {
                        return Err(Refusal::NotYet);
                    }
                    return no(format!("does not give it: {error}"));
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
