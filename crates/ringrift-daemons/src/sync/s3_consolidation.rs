//! `S3_CONSOLIDATION`: reads the far store back, a part at a time, and makes good what decayed there.
//!
//! Reads   artefacts that the far store should hold, each once in a round.
//! Writes  those that are lost or damaged there again, from a node; an alarm on those that nobody has.
//! Never   deletes, there or here, and never prefers a copy by its time: copies have the hash of what they are.
//!
//! There is nothing to merge: nodes put the same artefact under the same name.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use depot::far::{FarError, Sent};
use ringrift_pipeline::{BlobRow, Catalogue};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, Emits, FarStore, STANDALONE, Topics,
    alarms::{Alarms, alarm_of},
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
    far::{
        Archive, IDLE, Kept, Manifest,
        rounds::{Rounds, is_due},
        watched,
    },
    sync::s3_node_sync::S3NodeSync,
};

/// Name of the alarm on artefacts that are lost far away.
pub(crate) const ALARM: &str = "far_copies";

/// `[daemons.s3_consolidation]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time in which everything is read back once. Services bill what is read.
    #[serde(with = "crate::seconds")]
    pub round: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { round: Duration::from_hours(30 * 24) }
    }
}

/// What it has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where the copies are; or why there is nothing to do.
    pub store: String,
    /// Artefacts that were read back and found whole.
    pub verified: u64,
    /// Their bytes.
    pub verified_bytes: u64,
    /// Artefacts that were written again.
    pub repaired: u64,
    /// Artefacts that are lost or damaged there and could not be written again, and why.
    pub faults: BTreeMap<String, String>,
}

/// The daemon.
pub struct S3Consolidation {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    store: FarStore,
    alarms: Alarms,
    status: Status,
    /// The last part that was read, counted from the Unix epoch; none = everything is due.
    done: Option<u64>,
}

impl Emits for S3Consolidation {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for S3Consolidation {
    const SPEC: Spec = Spec {
        id: DaemonId("S3_CONSOLIDATION"),
        about: "reads the far store back, and makes good what decayed",
        priority: Priority::Low,
        needs: &[EVENT_ROUTER, S3NodeSync::ID],
        profiles: &[STANDALONE],
        period: Duration::from_hours(1),
        leader_only: true,
        // A line that hangs is tried again for some minutes before it is given up.
        cycle_limit: Duration::from_mins(10),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, FarStore);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, store): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            store,
            alarms: Alarms::default(),
            status: Status::default(),
            done: None,
        }
    }

    async fn start(&mut self, cx: &Cx) -> anyhow::Result<()> {
        // An alarm of an earlier life names what this one has not seen: only a look at everything may clear it.
        let everything = alarm_of(&self.catalogue, ALARM).await?.is_some();
        let part = Rounds(self.config.round).part(cx.now());
        self.done = (!everything).then(|| part.saturating_sub(1));
        Ok(())
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let Some(kept) = self.store.get().cloned() else {
            IDLE.clone_into(&mut self.status.store);
            return Ok(Outcome::Done(self.status.clone()));
        };
        self.status.store = kept.far.to_string();
        settled(match self.pass(&kept, cx).await {
            Ok(()) => Ok(Outcome::Done(self.status.clone())),
            Err(error) => crate::far::obstacle(error, self.status.clone()),
        })
    }

    fn health(&self, last: &Status) -> Health {
        match complaint(&last.faults) {
            Some(complaint) => Health::Degraded(complaint),
            None => Health::Healthy,
        }
    }
}

impl S3Consolidation {
    async fn pass(&mut self, kept: &Arc<Kept>, cx: &Cx) -> anyhow::Result<()> {
        let archive = Archive::of(&kept.far);
        let newest = match watched(cx, move |watch| archive.newest(watch)).await? {
            Ok(Some((_, manifest))) => manifest,
            // Whoever copies begins there, and reads back what it writes.
            Ok(None) => return Ok(()),
            Err(error) if error.is_loss() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now = Rounds(self.config.round).part(cx.now());
        let known = std::mem::take(&mut self.status.faults);
        for row in self.catalogue.blobs(None).await? {
            let due = is_due(&row.hash, self.done, now) || known.contains_key(row.hash.as_str());
            if !due || !is_held(&newest, &row) {
                continue;
            }
            if let Err(error) = self.look(kept, row, cx).await {
                // What was known to be faulty stays known: the cycle comes again as a whole.
                self.status.faults.extend(known);
                return Err(error);
            }
        }
        self.done = Some(now);
        let sentence = complaint(&self.status.faults);
        self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
        Ok(())
    }

    async fn look(&mut self, kept: &Arc<Kept>, row: BlobRow, cx: &Cx) -> anyhow::Result<()> {
        let hash = parse(&row.hash)?;
        let far = kept.far.clone();
        let fault = match watched(cx, move |watch| far.verify(&hash, watch)).await? {
            Ok(bytes) => {
                self.status.verified += 1;
                self.status.verified_bytes += bytes;
                return Ok(());
            }
            Err(error) if error.is_loss() => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        // It was thrown away meanwhile.
        if self.catalogue.is_trashed(&row.hash).await? {
            return Ok(());
        }
        let (far, depot) = (kept.far.clone(), Arc::clone(self.blobs.depot()));
        let at_hand = self.blobs.is_at_hand(&row.hash).await?;
        match watched(cx, move |watch| far.put(&depot, &hash, watch)).await? {
            Ok(Sent::New(_) | Sent::There(_)) => {
                info!(hash = %row.hash, role = row.role, fault, "artefact written far away again");
                self.status.repaired += 1;
            }
            Err(FarError::Here(depot::Error::Fault(_))) if !at_hand => {
                warn!(hash = %row.hash, role = row.role, fault, "artefact is lost far away");
                self.status.faults.insert(row.hash.to_string(), fault);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Should the store hold it, as far as its manifest says?
///
/// Positions may have gaps, so the last ones of those that it holds may be left out until it holds more.
fn is_held(manifest: &Manifest, row: &BlobRow) -> bool {
    row.position <= manifest.facts
        && manifest.roles.contains(&row.role)
        && !manifest.lacks.contains(&row.hash)
}

fn complaint(faults: &BTreeMap<String, String>) -> Option<String> {
    let (_, fault) = faults.iter().next()?;
    Some(match faults.len() - 1 {
        0 => format!("{fault}, and no node has it"),
        more => format!("{fault}, and {more} more; no node has them"),
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use ringrift_pipeline::BlobHash;

    use super::*;
    use crate::{
        far::testing::kept,
        misc::s3_backup::{self, S3Backup},
        testbed::{Bed, blocked, done, hex},
    };

    fn daemon(bed: &Bed, store: &FarStore) -> S3Consolidation {
        let ports = (bed.catalogue_of::<S3Consolidation>(), bed.blobs.clone(), store.clone());
        S3Consolidation::new(Config::default(), ports)
    }

    async fn back_up(bed: &Bed, store: &FarStore) {
        let ports = (bed.catalogue_of::<S3Backup>(), bed.blobs.clone(), store.clone());
        let config = s3_backup::Config { pause: Duration::ZERO, ..s3_backup::Config::default() };
        let (cx, _probe) = bed.cx::<S3Backup>();
        done(S3Backup::new(config, ports).cycle(&cx).await);
    }

    fn object(folder: &Path, hash: &BlobHash) -> PathBuf {
        folder.join("blobs").join(&hash.as_str()[..2]).join(hash.as_str())
    }

    #[tokio::test]
    async fn each_copy_is_read_once_in_a_round_and_what_decayed_is_written_again() {
        let bed = Bed::new().await;
        let (bad, gone) = (bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await);
        let (dir, store) = kept();
        let (cx, _probe) = bed.cx::<S3Consolidation>();
        let mut first = daemon(&bed, &store);
        let status = done(first.cycle(&cx).await);
        assert_eq!(status.verified, 0, "there is no manifest yet");
        back_up(&bed, &store).await;
        let status = done(first.cycle(&cx).await);
        assert_eq!((status.verified, first.health(&status)), (2, Health::Healthy));
        assert_eq!(done(first.cycle(&cx).await).verified, 2, "a second cycle finds nothing due");

        fs_err::remove_file(object(dir.path(), &bad)).unwrap();
        fs_err::write(object(dir.path(), &bad), "g9").unwrap();
        fs_err::remove_file(object(dir.path(), &gone)).unwrap();
        bed.pass_time(Config::default().round);
        let status = done(first.cycle(&cx).await);
        assert_eq!((status.repaired, status.faults.len()), (2, 0));
        let far = &store.get().unwrap().far;
        for hash in [&bad, &gone] {
            let mut all = |_| std::ops::ControlFlow::Continue(());
            far.verify(&parse(hash).unwrap(), &mut all).unwrap();
        }
    }

    #[tokio::test]
    async fn what_nobody_has_is_an_alarm_until_somebody_has_it_also_in_the_next_life() {
        let bed = Bed::new().await;
        let lost = bed.batch(hex(), &["g1"]).await;
        let (dir, store) = kept();
        back_up(&bed, &store).await;
        fs_err::remove_file(object(dir.path(), &lost)).unwrap();
        let here = bed.blobs.path_of(&lost).await.unwrap().unwrap();
        fs_err::remove_file(&here).unwrap();
        let (cx, _probe) = bed.cx::<S3Consolidation>();
        let mut first = daemon(&bed, &store);
        let status = done(first.cycle(&cx).await);
        let Health::Degraded(sentence) = first.health(&status) else { panic!("healthy") };
        assert!(
            sentence.contains(lost.as_str()) && sentence.contains("no node has it"),
            "{sentence}"
        );
        assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some());

        bed.put("g1");
        let mut next_life = daemon(&bed, &store);
        next_life.start(&cx).await.unwrap();
        let status = done(next_life.cycle(&cx).await);
        assert_eq!((status.repaired, next_life.health(&status)), (1, Health::Healthy));
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
    }

    #[tokio::test]
    async fn without_a_store_it_is_idle_and_one_that_is_away_is_an_obstacle() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<S3Consolidation>();
        let mut idle = daemon(&bed, &FarStore::default());
        let status = done(idle.cycle(&cx).await);
        assert_eq!((status.store.as_str(), idle.health(&status)), (IDLE, Health::Healthy));
        let (dir, store) = kept();
        fs_err::remove_dir(dir.path()).unwrap();
        let reason = blocked(daemon(&bed, &store).cycle(&cx).await);
        assert!(reason.contains("is not there"), "{reason}");
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_reads_the_rest_in_the_next_cycle() {
        let bed = Bed::new().await;
        for game in ["g1", "g2", "g3"] {
            bed.batch(hex(), &[game]).await;
        }
        let (_dir, store) = kept();
        back_up(&bed, &store).await;
        let (cx, probe) = bed.cx::<S3Consolidation>();
        probe.stop_at_beat(4);
        let mut first = daemon(&bed, &store);
        assert!(first.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert!(first.status.verified < 3);
        let (cx, _probe) = bed.cx::<S3Consolidation>();
        let mut next_life = daemon(&bed, &store);
        assert_eq!(done(next_life.cycle(&cx).await).verified, 3);
    }
}
