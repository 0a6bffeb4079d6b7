//! `S3_NODE_SYNC`: copies what this node has made to the far store at once, so that it does not go with its disk.
//!
//! Reads   artefacts that the log named since the last look, and of them those that lie here.
//! Writes  those into the far store, each under its hash; its position in the log.
//! Never   writes facts or manifests there, which `S3_BACKUP` does on the leader; never fetches.
//!
//! On one machine the leader has everything, and there is nothing to do.

use std::{sync::Arc, time::Duration};

use courier::Stream;
use depot::far::{FarError, Sent};
use ringrift_pipeline::{
    BatchAccepted, BlobRow, Catalogue, GamesCommitted, ModelCreated, SamplesExported,
};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    Blobs, Emits, FarStore, Loop, STANDALONE, Topics,
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
    far::{FOLD_LIMIT, IDLE, Kept, watched},
    on,
};

/// `[daemons.s3_node_sync]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Artefacts that are looked at before the position is kept.
    pub max_copied_per_step: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_copied_per_step: 32 }
    }
}

/// What it has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where the copies go; or why there is nothing to do.
    pub store: String,
    /// Artefacts copied.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Artefacts that were there and whole already.
    pub found: u64,
    /// Position in the log up to which this node's artefacts are there.
    pub position: u64,
}

/// The daemon.
pub struct S3NodeSync {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    store: FarStore,
    status: Status,
    /// Where it goes on, once that is known.
    position: Option<u64>,
}

impl Emits for S3NodeSync {
    const EMITS: Topics = &[];
}

impl Daemon for S3NodeSync {
    const SPEC: Spec = Spec {
        id: DaemonId("S3_NODE_SYNC"),
        about: "copies what this node has made to the far store",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[STANDALONE],
        period: Duration::from_hours(1),
        wakes_on: &[
            on::<GamesCommitted>(),
            on::<BatchAccepted>(),
            on::<SamplesExported>(),
            on::<ModelCreated>(),
        ],
        // A line that hangs is tried again for some minutes before it is given up.
        cycle_limit: Duration::from_mins(10),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>, FarStore);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop, store): Self::Ports) -> Self {
        let (status, position) = (Status::default(), None);
        Self { config, catalogue, blobs, the_loop, store, status, position }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let Some(kept) = self.store.get().cloned() else {
            IDLE.clone_into(&mut self.status.store);
            return Ok(Outcome::Done(self.status.clone()));
        };
        if !self.the_loop.shared {
            "S3_BACKUP copies everything of a single machine".clone_into(&mut self.status.store);
            return Ok(Outcome::Done(self.status.clone()));
        }
        self.status.store = kept.far.to_string();
        settled(match self.pass(&kept, cx).await {
            Ok(()) => Ok(Outcome::Done(self.status.clone())),
            Err(error) => crate::far::obstacle(error, self.status.clone()),
        })
    }
}

impl S3NodeSync {
    async fn pass(&mut self, kept: &Arc<Kept>, cx: &Cx) -> anyhow::Result<()> {
        let name = self.the_loop.subscriber(&kept.subscriber("s3_node_sync"));
        let log = self.catalogue.log().clone();
        let mut position = match self.position {
            Some(position) => position,
            None => log.position(Stream::Pipeline, &name).await?,
        };
        self.position = Some(position);
        let end = log.head(Stream::Pipeline).await?;
        // What is not shown yet would be left out for ever.
        self.catalogue.shows(end, FOLD_LIMIT).await?;
        let named = self.catalogue.blobs(None).await?;
        let new: Vec<BlobRow> = named.into_iter().filter(|row| row.position > position).collect();
        for part in new.chunks(self.config.max_copied_per_step.max(1)) {
            for row in part {
                // All artefacts of one fact, or none: the position counts facts.
                let before = row.position - 1;
                if before > position {
                    position = before;
                }
                if kept.wants(row) {
                    self.copy(kept, row, cx).await?;
                }
            }
            self.keep(&name, position).await?;
        }
        self.keep(&name, end.max(position)).await
    }

    async fn keep(&mut self, name: &str, position: u64) -> anyhow::Result<()> {
        if self.position != Some(position) {
            self.catalogue.log().advance(Stream::Pipeline, name, position).await?;
        }
        self.position = Some(position);
        self.status.position = position;
        Ok(())
    }

    async fn copy(&mut self, kept: &Arc<Kept>, row: &BlobRow, cx: &Cx) -> anyhow::Result<()> {
        cx.beat()?;
        let hash = parse(&row.hash)?;
        if !self.blobs.with(move |depot| depot.contains(&hash)).await?? {
            return Ok(());
        }
        let (far, depot) = (kept.far.clone(), Arc::clone(self.blobs.depot()));
        match watched(cx, move |watch| far.put(&depot, &hash, watch)).await? {
            Ok(Sent::New(bytes)) => {
                debug!(hash = %row.hash, role = row.role, bytes, "artefact copied far away");
                self.status.copied += 1;
                self.status.copied_bytes += bytes;
            }
            Ok(Sent::There(_)) => self.status.found += 1,
            // Damaged here, or just thrown away: others look after that.
            Err(FarError::Here(depot::Error::Fault(fault))) => {
                warn!(hash = %row.hash, role = row.role, %fault, "artefact is not copied far away");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        far::testing::kept,
        testbed::{Bed, blocked, done, hex, window},
    };

    /// A node of a cluster.
    fn daemon(bed: &Bed, store: &FarStore, config: Config) -> S3NodeSync {
        let the_loop = Arc::new(Loop { shared: true, ..(*bed.the_loop).clone() });
        let catalogue = bed.catalogue_of::<S3NodeSync>();
        S3NodeSync::new(config, (catalogue, bed.blobs.clone(), the_loop, store.clone()))
    }

    #[tokio::test]
    async fn what_lies_here_is_copied_once_and_what_does_not_is_left_to_its_node() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let elsewhere = bed.batch(hex(), &["g1"]).await;
        fs_err::remove_file(bed.blobs.path_of(&elsewhere).await.unwrap().unwrap()).unwrap();
        window(&bed, hex(), &[], 30).await;
        let (dir, store) = kept();
        let (cx, _probe) = bed.cx::<S3NodeSync>();
        let mut first = daemon(&bed, &store, Config::default());
        let status = done(first.cycle(&cx).await);
        assert_eq!((status.copied, status.position), (1, bed.facts().await));
        assert!(!dir.path().join("head").exists(), "manifests are S3_BACKUP's");
        assert_eq!(done(first.cycle(&cx).await), status, "a second cycle finds nothing");

        let mut next_life = daemon(&bed, &store, Config::default());
        bed.batch(hex(), &["g2"]).await;
        let status = done(next_life.cycle(&cx).await);
        assert_eq!((status.copied, status.found), (1, 0));
    }

    #[tokio::test]
    async fn another_store_gets_everything() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let (_one, first) = kept();
        let (_other, second) = kept();
        let (cx, _probe) = bed.cx::<S3NodeSync>();
        for store in [first, second] {
            let status = done(daemon(&bed, &store, Config::default()).cycle(&cx).await);
            assert_eq!(status.copied, 1);
        }
    }

    #[tokio::test]
    async fn one_machine_and_no_store_are_healthy_and_say_why_there_is_nothing_to_do() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<S3NodeSync>();
        let status = done(daemon(&bed, &FarStore::default(), Config::default()).cycle(&cx).await);
        assert_eq!(status.store, IDLE);
        let (_dir, store) = kept();
        let ports =
            (bed.catalogue_of::<S3NodeSync>(), bed.blobs.clone(), bed.the_loop.clone(), store);
        let status = done(S3NodeSync::new(Config::default(), ports).cycle(&cx).await);
        assert!(status.store.contains("single machine"), "{}", status.store);
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_an_obstacle_and_keeps_the_position() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let (dir, store) = kept();
        let aside = dir.path().with_extension("aside");
        fs_err::rename(dir.path(), &aside).unwrap();
        let (cx, _probe) = bed.cx::<S3NodeSync>();
        let mut daemon = daemon(&bed, &store, Config::default());
        let reason = blocked(daemon.cycle(&cx).await);
        assert!(reason.contains("is not there"), "{reason}");
        fs_err::rename(&aside, dir.path()).unwrap();
        assert_eq!(done(daemon.cycle(&cx).await).copied, 1);
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_goes_on_where_it_was() {
        let bed = Bed::new().await;
        for game in ["g1", "g2", "g3"] {
            bed.batch(hex(), &[game]).await;
        }
        let (_dir, store) = kept();
        let config = Config { max_copied_per_step: 1 };
        let (cx, probe) = bed.cx::<S3NodeSync>();
        // Beats: one of the cycle, two of each artefact.
        probe.stop_at_beat(4);
        let mut first = daemon(&bed, &store, config.clone());
        assert!(first.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert_eq!(first.status.copied, 1);
        let (cx, _probe) = bed.cx::<S3NodeSync>();
        let status = done(daemon(&bed, &store, config).cycle(&cx).await);
        assert_eq!(status.copied + status.found, 3);
        assert_eq!(status.position, bed.facts().await);
    }
}
