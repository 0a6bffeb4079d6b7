//! Artefacts for async code: the depot's blocking calls on blocking threads.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use anyhow::Context as _;
use depot::{Depot, Fault, Hash};
use ringrift_pipeline::BlobHash;

/// Nobody gives an artefact now; somebody may, later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{hash} is not on this node and cannot be fetched: {why}")]
pub struct OutOfReach {
    /// What was wanted.
    pub hash: Hash,
    /// Who was asked, and what came of it.
    pub why: String,
}

/// Other nodes that may have what is not here.
pub trait Elsewhere: Send + Sync + 'static {
    /// Brings an artefact into the depot.
    fn bring(
        &self,
        hash: Hash,
    ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>>;
}

/// The store of artefacts: what is here, and in a cluster what others have; a clone is the same store.
#[derive(Clone)]
pub struct Blobs {
    depot: Arc<Depot>,
    elsewhere: Arc<OnceLock<Box<dyn Elsewhere>>>,
}

impl Blobs {
    /// Wraps an open depot.
    pub fn new(depot: Depot) -> Self {
        Self { depot: Arc::new(depot), elsewhere: Arc::default() }
    }

    /// Connects other nodes; once, by the binary, before daemons run.
    pub fn connect(&self, elsewhere: impl Elsewhere) {
        // A second call would be a second cluster; the first one stays.
        drop(self.elsewhere.set(Box::new(elsewhere)));
    }

    /// The depot itself, for blocking callers: what is here.
    pub fn depot(&self) -> &Arc<Depot> {
        &self.depot
    }

    /// Where an artefact lies, brought here if another node has it; none if it is not here and there is
    /// no other node.
    ///
    /// # Errors
    /// [`OutOfReach`] if there are others and none gives it now.
    pub async fn path_of(&self, hash: &BlobHash) -> anyhow::Result<Option<PathBuf>> {
        let hash = parse(hash)?;
        let look = async || {
            self.with(move |depot| depot.path_of(&hash)).await?.context("look into the depot")
        };
        let here = look().await?;
        let (None, Some(elsewhere)) = (&here, self.elsewhere.get()) else { return Ok(here) };
        elsewhere.bring(hash).await?;
        look().await
    }

    /// Is the artefact here and whole, or was brought here? What nobody gives now is not.
    pub async fn is_at_hand(&self, hash: &BlobHash) -> anyhow::Result<bool> {
        match self.verify(hash).await {
            Ok(verdict) => Ok(verdict.is_ok()),
            Err(error) => error.downcast::<OutOfReach>().map(|_| false),
        }
    }

    /// Runs a blocking call on the depot.
    pub async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Depot) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let depot = Arc::clone(&self.depot);
        tokio::task::spawn_blocking(move || call(&depot)).await.context("wait for the depot")
    }

    /// Is the artefact here and whole? What is missing or damaged is brought here first if another node has it.
    ///
    /// # Errors
    /// [`OutOfReach`] if it is not here whole, there are others, and none gives it now.
    pub async fn verify(&self, hash: &BlobHash) -> anyhow::Result<Result<(), Fault>> {
        let hash = parse(hash)?;
        let found = self.with(move |depot| depot.verify(&hash)).await?;
        let (Err(_), Some(elsewhere)) = (&found, self.elsewhere.get()) else {
            return Ok(found);
        };
        elsewhere.bring(hash).await?;
        self.with(move |depot| depot.verify(&hash)).await
    }
}

/// The depot's form of a hash.
pub(crate) fn parse(hash: &BlobHash) -> anyhow::Result<Hash> {
    hash.as_str().parse().with_context(|| format!("read the hash '{hash}'"))
}
