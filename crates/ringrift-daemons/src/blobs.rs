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
    /// Asked after those.
    far: Arc<OnceLock<Box<dyn Elsewhere>>>,
}

impl Blobs {
    /// Wraps an open depot.
    pub fn new(depot: Depot) -> Self {
        Self { depot: Arc::new(depot), elsewhere: Arc::default(), far: Arc::default() }
    }

    /// Connects other nodes; once, by the binary, before daemons run.
    pub fn connect(&self, elsewhere: impl Elsewhere) {
        // A second call would be a second cluster; the first one stays.
        drop(self.elsewhere.set(Box::new(elsewhere)));
    }

    /// Connects a store far away, which is asked for what no node gives; once, by the binary, before daemons run.
    pub fn connect_far(&self, far: impl Elsewhere) {
        // As above.
        drop(self.far.set(Box::new(far)));
    }

    /// Has an artefact brought here; says whether there was anybody to ask.
    ///
    /// # Errors
    /// Nobody gives it now.
    async fn bring(&self, hash: Hash) -> Result<bool, OutOfReach> {
        let mut refused: Option<OutOfReach> = None;
        for source in [&self.elsewhere, &self.far].into_iter().filter_map(|source| source.get()) {
            match source.bring(hash).await {
                Ok(()) => return Ok(true),
                Err(OutOfReach { why, .. }) => {
                    let before =
                        refused.take().map_or_else(String::new, |before| before.why + "; ");
                    refused = Some(OutOfReach { hash, why: before + &why });
                }
            }
        }
        refused.map_or(Ok(false), Err)
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
        if here.is_some() || !self.bring(hash).await? {
            return Ok(here);
        }
        look().await
    }

    /// Is there a file of this artefact here? Asks nobody else.
    pub async fn is_here(&self, hash: &BlobHash) -> anyhow::Result<bool> {
        let hash = parse(hash)?;
        let found = self.with(move |depot| depot.path_of(&hash)).await?;
        Ok(found.context("look into the depot")?.is_some())
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
        if found.is_ok() || !self.bring(hash).await? {
            return Ok(found);
        }
        self.with(move |depot| depot.verify(&hash)).await
    }
}

/// The depot's form of a hash.
pub(crate) fn parse(hash: &BlobHash) -> anyhow::Result<Hash> {
    hash.as_str().parse().with_context(|| format!("read the hash '{hash}'"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::testbed::Bed;

    /// Has one thing, or nothing, and notes that it was asked.
    struct Source(&'static str, Option<&'static str>, Blobs, Arc<Mutex<Vec<&'static str>>>);

    impl Elsewhere for Source {
        fn bring(
            &self,
            hash: Hash,
        ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
            Box::pin(async move {
                self.3.lock().unwrap().push(self.0);
                match self.1 {
                    Some(text) if Hash::of(text.as_bytes()) == hash => {
                        self.2.depot().put_bytes(text.as_bytes(), "bin").unwrap();
                        Ok(())
                    }
                    _ => Err(OutOfReach { hash, why: format!("not in {}", self.0) }),
                }
            })
        }
    }

    #[tokio::test]
    async fn nodes_are_asked_first_and_then_the_far_store() {
        let bed = Bed::new().await;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let blobs = &bed.blobs;
        let hash = |text: &str| BlobHash(Hash::of(text.as_bytes()).to_string());
        assert_eq!(blobs.path_of(&hash("a")).await.unwrap(), None);
        blobs.connect_far(Source("far", Some("b"), blobs.clone(), asked.clone()));
        assert!(blobs.path_of(&hash("b")).await.unwrap().is_some(), "one machine with a far store");
        blobs.connect(Source("nodes", Some("a"), blobs.clone(), asked.clone()));
        assert!(blobs.is_at_hand(&hash("a")).await.unwrap());
        let error = blobs.verify(&hash("c")).await.unwrap_err().to_string();
        assert!(error.ends_with("not in nodes; not in far"), "{error}");
        assert_eq!(*asked.lock().unwrap(), ["far", "nodes", "nodes", "far"]);
    }
}
