//! `MODEL_SYNC`: sees that the champion of each config is whole on this node, and in the far store.
//!
//! Reads   champions; the files of their weights, here each time, far away once in a while.
//! Writes  a champion that is missing or damaged: here from another node or the far store, there from here.
//! Never   hands a model to workers, which `MODEL_DISTRIBUTION` does, and never takes one by its time or
//!         size: the log says which model is the champion, and its name is the hash of its file.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use depot::far::{FarError, Sent};
use ringrift_pipeline::{BlobHash, Catalogue, ChampionInstalled, ModelPromoted};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, Emits, FarStore, Loop, OutOfReach, Topics,
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
    far::watched,
    on,
};

/// `[daemons.model_sync]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time after which a champion is read back from the far store again.
    #[serde(with = "crate::seconds")]
    pub read_back: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { read_back: Duration::from_hours(24) }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The champion of each config.
    pub champions: BTreeMap<String, Copies>,
    /// Champions that were brought here since the daemon started.
    pub brought: u64,
    /// Champions that were written to the far store since the daemon started.
    pub sent: u64,
}

/// Where a champion is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Copies {
    /// The model.
    pub model: String,
    /// What is wrong with the copy here; none = it is whole.
    pub here: Option<String>,
    /// What is wrong with the copy far away; none = it is whole, or there is no far store.
    pub far: Option<String>,
}

/// The daemon.
pub struct ModelSync {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    store: FarStore,
    /// When a file was read back from the far store.
    read_back: BTreeMap<BlobHash, Instant>,
    status: Status,
}

impl Emits for ModelSync {
    const EMITS: Topics = &[];
}

impl Daemon for ModelSync {
    const SPEC: Spec = Spec {
        id: DaemonId("MODEL_SYNC"),
        about: "keeps each champion whole here and in the far store",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        period: Duration::from_mins(10),
        wakes_on: &[on::<ModelPromoted>(), on::<ChampionInstalled>()],
        // A line that hangs is tried again for some minutes before it is given up.
        cycle_limit: Duration::from_mins(10),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, FarStore);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, store): Self::Ports) -> Self {
        let (read_back, status) = (BTreeMap::new(), Status::default());
        Self { config, catalogue, blobs, the_loop, store, read_back, status }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        let fault = last.champions.values().find_map(|copies| {
            let where_ = |place: &str, fault: &Option<String>| {
                fault
                    .as_ref()
                    .map(|fault| format!("{} is not whole {place}: {fault}", copies.model))
            };
            where_("here", &copies.here).or_else(|| where_("in the far store", &copies.far))
        });
        fault.map_or(Health::Healthy, Health::Degraded)
    }
}

impl ModelSync {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        self.status.champions.clear();
        let mut weights = Vec::new();
        for config in &self.the_loop.configs.clone() {
            cx.beat()?;
            let Some(champion) = self.catalogue.champion(*config).await? else { continue };
            let model = champion.model;
            let here = self.keep_here(&model.weights).await?;
            let far = match &here {
                // What is not whole here is not written over what may be whole there.
                Some(_) => None,
                None => self.keep_far(&model.weights, cx).await?,
            };
            if let Some(fault) = here.as_ref().or(far.as_ref()) {
                warn!(model = %model.id, fault, "champion is not where it should be");
            }
            let copies = Copies { model: model.id.0, here, far };
            self.status.champions.insert(config.to_string(), copies);
            weights.push(model.weights);
        }
        self.read_back.retain(|hash, _| weights.contains(hash));
        Ok(Outcome::Done(self.status.clone()))
    }

    /// What is wrong with the file here after everybody was asked for it.
    async fn keep_here(&mut self, weights: &BlobHash) -> anyhow::Result<Option<String>> {
        let hash = parse(weights)?;
        if self.blobs.with(move |depot| depot.verify(&hash)).await?.is_ok() {
            return Ok(None);
        }
        match self.blobs.verify(weights).await {
            Ok(Ok(())) => {
                info!(%hash, "champion brought here");
                self.status.brought += 1;
                Ok(None)
            }
            Ok(Err(fault)) => Ok(Some(fault.to_string())),
            Err(error) => Ok(Some(error.downcast::<OutOfReach>()?.to_string())),
        }
    }

    /// What is wrong with the file in the far store after it was written there.
    async fn keep_far(&mut self, weights: &BlobHash, cx: &Cx) -> anyhow::Result<Option<String>> {
        let Some(kept) = self.store.get() else { return Ok(None) };
        if self.read_back.get(weights).is_some_and(|at| at.elapsed() < self.config.read_back) {
            return Ok(None);
        }
        let hash = parse(weights)?;
        let (far, depot) = (kept.far.clone(), Arc::clone(self.blobs.depot()));
        match watched(cx, move |watch| far.put(&depot, &hash, watch)).await? {
            Ok(Sent::There(_)) => {}
            Ok(Sent::New(_)) => {
                info!(%hash, "champion written far away");
                self.status.sent += 1;
            }
            Err(FarError::Here(here)) if !here.is_full() => return Err(here.into()),
            Err(error) => return Ok(Some(error.to_string())),
        }
        self.read_back.insert(weights.clone(), Instant::now());
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use depot::Hash;

    use super::*;
    use crate::{
        Elsewhere,
        far::testing::kept,
        testbed::{Bed, done, hex, stops_in_mid_cycle},
    };

    fn daemon(bed: &Bed, store: &FarStore) -> ModelSync {
        let ports = (
            bed.catalogue_of::<ModelSync>(),
            bed.blobs.clone(),
            bed.the_loop.clone(),
            store.clone(),
        );
        ModelSync::new(Config::default(), ports)
    }

    /// Another node, which has the champion.
    struct Other(Blobs);

    impl Elsewhere for Other {
        fn bring(
            &self,
            _: Hash,
        ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
            Box::pin(async {
                self.0.depot().put_bytes(b"weights of hex8_2p-m0000", "bin").unwrap();
                Ok(())
            })
        }
    }

    async fn path(bed: &Bed) -> std::path::PathBuf {
        let champion = bed.catalogue.champion(hex()).await.unwrap().unwrap();
        bed.blobs.path_of(&champion.model.weights).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_champion_is_put_where_it_is_lacking_and_a_second_cycle_finds_nothing() {
        let bed = Bed::new().await;
        let (dir, store) = kept();
        let (cx, _probe) = bed.cx::<ModelSync>();
        let mut daemon = daemon(&bed, &store);
        assert_eq!(done(daemon.cycle(&cx).await), Status::default(), "there is no champion");
        bed.champion(hex()).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.sent, status.brought), (1, 0));
        assert_eq!(status.champions["hex8_2p"].model, "hex8_2p-m0000");
        assert_eq!(done(daemon.cycle(&cx).await), status);
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert!(dir.path().join("blobs").exists());

        // Damaged here: another node gives it.
        let path = path(&bed).await;
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, "wEights").unwrap();
        bed.blobs.connect(Other(bed.blobs.clone()));
        assert_eq!(done(daemon.cycle(&cx).await).brought, 1);
        assert_eq!(fs_err::read(&path).unwrap(), b"weights of hex8_2p-m0000");
    }

    #[tokio::test]
    async fn a_champion_that_nobody_has_is_degraded_and_so_is_a_store_that_is_away() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let (dir, store) = kept();
        fs_err::remove_dir(dir.path()).unwrap();
        let (cx, _probe) = bed.cx::<ModelSync>();
        let mut one = daemon(&bed, &store);
        let status = done(one.cycle(&cx).await);
        let Health::Degraded(sentence) = one.health(&status) else { panic!("healthy") };
        assert!(sentence.contains("is not whole in the far store"), "{sentence}");

        fs_err::remove_file(path(&bed).await).unwrap();
        let mut alone = daemon(&bed, &FarStore::default());
        let status = done(alone.cycle(&cx).await);
        let Health::Degraded(sentence) = alone.health(&status) else { panic!("healthy") };
        assert!(sentence.contains("hex8_2p-m0000 is not whole here"), "{sentence}");
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_changes_nothing() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let (_dir, store) = kept();
        stops_in_mid_cycle(&bed, daemon(&bed, &store)).await;
    }
}
