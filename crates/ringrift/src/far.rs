//! The far store: opened as it is configured, and asked for artefacts that no node gives.

use std::{ops::ControlFlow, pin::Pin, sync::Arc};

use depot::{
    Depot, Hash,
    far::{Address, Credentials, Far, Options},
};
use ringrift_daemons::{Elsewhere, FarStore, OutOfReach, extension};
use ringrift_pipeline::{BlobHash, Catalogue};
use tracing::info;

use crate::config::Store;

/// The far store that is configured; nobody is asked yet.
///
/// # Errors
/// It lacks credentials, or this program cannot reach such a one.
pub fn open(store: &Store) -> anyhow::Result<FarStore> {
    Ok(match far(store)? {
        Some(far) => FarStore::of(far, &store.derived),
        None => FarStore::default(),
    })
}

/// The same without what goes there.
///
/// # Errors
/// As [`open`].
pub fn far(store: &Store) -> anyhow::Result<Option<Far>> {
    let Some(address) = store.address.clone() else { return Ok(None) };
    let credentials = match (&address, &store.credentials) {
        (Address::Folder(_), _) => None,
        (Address::Bucket { service, .. }, Some(path)) => {
            Some(Credentials::of_file(*service, path)?)
        }
        (Address::Bucket { service, .. }, None) => {
            Credentials::of_names(*service, |name| std::env::var_os(name)?.into_string().ok())?
        }
    };
    let far = Far::open(Options {
        address,
        endpoint: store.endpoint.clone(),
        region: store.region.clone(),
        plain: store.plain,
        credentials,
        rate: Some(store.rate).filter(|rate| *rate > 0),
    })?;
    Ok(Some(far))
}

/// What is asked when no node has something.
pub struct FromFar {
    /// The store.
    pub store: FarStore,
    /// Says how large it is and how it ends.
    pub catalogue: Catalogue,
    /// Where it goes. Not the whole store of artefacts, which has this in it and would never end.
    pub depot: Arc<Depot>,
}

impl FromFar {
    async fn fetch(&self, hash: Hash) -> Result<(), String> {
        let kept = self.store.get().ok_or("there is no far store")?;
        let row = self.catalogue.blob(&BlobHash(hash.to_string())).await;
        let row = row.map_err(|error| error.to_string())?.ok_or("no fact names it")?;
        if !kept.wants(&row) {
            return Err(format!("the far store holds no {}", row.role));
        }
        let (far, depot) = (kept.far.clone(), Arc::clone(&self.depot));
        let (role, bytes) = (row.role, row.bytes);
        let stored = tokio::task::spawn_blocking(move || {
            let go_on = &mut |_| ControlFlow::Continue(());
            far.fetch(&depot, &hash, (bytes, extension(&role)), go_on)
        });
        let stored = stored.await.map_err(|error| error.to_string())?;
        if stored.map_err(|error| error.to_string())?.new {
            info!(%hash, bytes, "artefact fetched from the far store");
        }
        Ok(())
    }
}

impl Elsewhere for FromFar {
    fn bring(
        &self,
        hash: Hash,
    ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
        Box::pin(async move { self.fetch(hash).await.map_err(|why| OutOfReach { hash, why }) })
    }
}
