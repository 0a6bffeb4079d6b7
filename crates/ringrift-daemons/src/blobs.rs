//! Artefacts for async code: the depot's blocking calls on blocking threads.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use depot::{Depot, Hash};
use ringrift_pipeline::BlobHash;

/// The local store of artefacts; a clone is the same store.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Depot>);

impl Blobs {
    /// Wraps an open depot.
    pub fn new(depot: Depot) -> Self {
        Self(Arc::new(depot))
    }

    /// The depot itself, for blocking callers.
    pub fn depot(&self) -> &Arc<Depot> {
        &self.0
    }

    /// Where an artefact lies; none if it is not here.
    pub async fn path_of(&self, hash: &BlobHash) -> anyhow::Result<Option<PathBuf>> {
        let hash = parse(hash)?;
        self.with(move |depot| depot.path_of(&hash)).await?.context("look into the depot")
    }

    /// Runs a blocking call on the depot.
    pub async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Depot) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let depot = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || call(&depot)).await.context("wait for the depot")
    }

    /// Is the artefact here and whole?
    pub async fn verify(&self, hash: &BlobHash) -> anyhow::Result<Result<(), depot::Fault>> {
        let hash = parse(hash)?;
        self.with(move |depot| depot.verify(&hash)).await
    }
}

/// The depot's form of a hash.
pub(crate) fn parse(hash: &BlobHash) -> anyhow::Result<Hash> {
    hash.as_str().parse().with_context(|| format!("read the hash '{hash}'"))
}
