//! `S3_BACKUP`: keeps the far store so that all can be made again from it alone.
//!
//! Reads   artefacts and facts that the far store does not have yet.
//! Writes  artefacts, then the facts that name them, then the manifest and the pointer to it; an alarm when
//!         the far store stays behind.
//! Never   deletes there, and never counts what it did not read back and hash. It records no fact of the
//!         pipeline: that would be one more to copy.
//!
//! How far it is stands in the far store itself. So a new leader, a restored directory and a log that moved to a
//! cluster go on where the store ends, if it holds the beginning of their log; if it holds another one, nothing is
//! written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use courier::Stream;
use depot::far::{FarError, Sent};
use ringrift_pipeline::{BlobHash, BlobRow, Catalogue, ModelPromoted};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR_FULL, Emits, FarStore, STANDALONE, Topics,
    alarms::Alarms,
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
    distribution::model_distribution::ModelDistribution,
    far::{
        Archive, FOLD_LIMIT, IDLE, Kept, MOST_FACTS, Manifest, Mark, end_in, next_facts, obstacle,
        watched,
    },
    on,
};

/// Name of the alarm on a far store that stays behind.
pub(crate) const ALARM: &str = "far_store";

/// Time for what is left at an orderly stop. Source: half of what a level of daemons has for it.
const LAST_WORK: Duration = Duration::from_secs(15);

/// `[daemons.s3_backup]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Least time between two manifests; a promoted model does not wait for it. Source: backup contract.
    #[serde(with = "crate::seconds")]
    pub pause: Duration,
    /// A far store that stays behind for longer is an alarm. Source: backup contract.
    #[serde(with = "crate::seconds")]
    pub patience: Duration,
    /// Artefacts that are copied before the next manifest is written.
    pub max_copied_per_manifest: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pause: Duration::from_mins(1),
            patience: Duration::from_mins(30),
            max_copied_per_manifest: 256,
        }
    }
}

/// How far the far store is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where it is; or why there is nothing to do.
    pub store: String,
    /// Facts in it.
    pub facts: u64,
    /// The position in the log up to which it has everything.
    pub position: u64,
    /// Positions that it does not have yet.
    pub behind: u64,
    /// Artefacts copied since the daemon started.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Artefacts that were there and whole already.
    pub found: u64,
    /// Manifests written since the daemon started.
    pub manifests: u64,
    /// Artefacts that could not be copied, and why.
    pub lacks: BTreeMap<String, String>,
    /// Wall clock of the last manifest, milliseconds since the Unix epoch.
    pub last_manifest_ms: Option<i64>,
}

/// The daemon.
pub struct S3Backup {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    store: FarStore,
    alarms: Alarms,
    /// What the store holds, once that is known.
    held: Option<Held>,
    /// Copied while not everything was.
    copied: BTreeSet<BlobHash>,
    /// A part of what was lacking is copied, and the next part is due at once.
    unfinished: bool,
    /// When the last manifest was written, or found to be enough.
    settled_at: Option<Instant>,
    /// Since when it is not enough.
    behind_since: Option<Instant>,
    status: Status,
}

struct Held {
    mark: Option<Mark>,
    manifest: Manifest,
    /// Where the facts that it holds end in our log.
    position: u64,
}

impl Emits for S3Backup {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for S3Backup {
    const SPEC: Spec = Spec {
        id: DaemonId("S3_BACKUP"),
        about: "copies artefacts and facts to the far store",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER, ModelDistribution::ID],
        profiles: &[COORDINATOR_FULL, STANDALONE],
        period: Duration::from_secs(30),
        wakes_on: &[on::<ModelPromoted>()],
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
            held: None,
            copied: BTreeSet::new(),
            unfinished: false,
            settled_at: None,
            behind_since: None,
            status: Status::default(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let Some(kept) = self.store.get().cloned() else {
            IDLE.clone_into(&mut self.status.store);
            return Ok(Outcome::Done(self.status.clone()));
        };
        self.status.store = kept.far.to_string();
        let outcome = settled(self.pass(&kept, cx).await)?;
        let reason = match &outcome {
            Outcome::Blocked { reason, .. } => Some(reason.clone()),
            Outcome::Done(_) => None,
        };
        settled(self.tell(reason, cx).await.map(|()| outcome))
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        let Some(kept) = self.store.get().cloned() else { return Ok(()) };
        self.settled_at = None;
        match tokio::time::timeout(LAST_WORK, self.copy_all(&kept, cx)).await {
            Ok(Ok(())) => {}
            // The next life finds the same facts lacking.
            Ok(Err(error)) => warn!(%error, "the last facts are not copied far away"),
            Err(_) => warn!("the last facts are not copied far away: there was no more time"),
        }
        Ok(())
    }

    fn health(&self, last: &Status) -> Health {
        match last.lacks.iter().next() {
            Some((hash, why)) => Health::Degraded(format!(
                "{} artefacts are not in the far store, {hash} first: {why}",
                last.lacks.len()
            )),
            None => Health::Healthy,
        }
    }
}

impl S3Backup {
    async fn pass(&mut self, kept: &Arc<Kept>, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        match self.copy_all(kept, cx).await {
            Ok(()) => Ok(Outcome::Done(self.status.clone())),
            Err(error) => obstacle(error, self.status.clone()),
        }
    }

    /// Brings the store up to the end of the log as it is now.
    async fn copy_all(&mut self, kept: &Arc<Kept>, cx: &Cx) -> anyhow::Result<()> {
        let end = self.catalogue.log().head(Stream::Pipeline).await?;
        // What is not shown yet would be left out for ever.
        self.catalogue.shows(end, FOLD_LIMIT).await?;
        let mut held = match self.held.take() {
            Some(held) => held,
            None => self.find(kept, cx).await?,
        };
        self.note(&held, end);
        if self.is_due(&held, kept, end).await? {
            loop {
                held = self.copy_some(kept, held, end, cx).await?;
                self.note(&held, end);
                if !self.unfinished {
                    break;
                }
            }
        }
        self.held = Some(held);
        Ok(())
    }

    fn note(&mut self, held: &Held, end: u64) {
        self.status.facts = held.manifest.facts;
        self.status.position = held.position;
        self.status.behind = end.saturating_sub(held.position);
        if self.status.behind == 0 {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert_with(Instant::now);
        }
    }

    async fn is_due(&self, held: &Held, kept: &Kept, end: u64) -> anyhow::Result<bool> {
        let Held { manifest, position, .. } = held;
        if *position >= end && manifest.roles == kept.roles && manifest.lacks.is_empty() {
            return Ok(false);
        }
        let paused = self.settled_at.is_some_and(|at| at.elapsed() < self.config.pause);
        if self.unfinished || !paused {
            return Ok(true);
        }
        // What is worth most does not wait.
        let promotions = self.catalogue.promotions(None).await?;
        Ok(promotions.iter().any(|promotion| promotion.position > *position))
    }

    /// What the store holds of this log.
    ///
    /// # Errors
    /// It holds another one, or cannot be asked.
    async fn find(&self, kept: &Arc<Kept>, cx: &Cx) -> anyhow::Result<Held> {
        let archive = Archive::of(&kept.far);
        let found = watched(cx, move |watch| archive.newest(watch)).await?;
        let empty =
            || Held { mark: None, manifest: Manifest::empty(kept.roles.clone()), position: 0 };
        let (mark, manifest) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(empty()),
            // What can be read of it is found again under its hash; so nothing is lost by going over it.
            Err(error) if error.is_loss() => {
                warn!(%error, "the far store is gone over from its beginning");
                return Ok(empty());
            }
            Err(error) => return Err(error.into()),
        };
        // Never the name of the log alone: a directory that was copied back has the old name and, from some
        // fact on, another history.
        let go_on = || Ok(cx.beat()?);
        match end_in(self.catalogue.log(), &manifest.history(), go_on).await? {
            Some(position) => {
                info!(facts = manifest.facts, position, "the far store holds the beginning of this log");
                Ok(Held { mark: Some(mark), manifest, position })
            }
            None => Err(FarError::Refused(format!(
                "{} holds another history, of {} facts, and is left alone: name an empty one in store.url",
                kept.far, manifest.facts
            ))
            .into()),
        }
    }

    /// Copies a part of what is lacking, and writes a manifest.
    async fn copy_some(
        &mut self,
        kept: &Arc<Kept>,
        held: Held,
        end: u64,
        cx: &Cx,
    ) -> anyhow::Result<Held> {
        let named = self.catalogue.blobs(None).await?;
        let (lacks, next) = self.copy_artefacts(kept, &held, named, cx).await?;
        let through = next.as_ref().map_or(end, |row| row.position.saturating_sub(1));

        let Held { mark, manifest: before, mut position } = held;
        let mut manifest = before.clone();
        let mut fresh = next_facts(self.catalogue.log(), position, through).await?;
        let mut history = manifest.history();
        for fact in &fresh {
            history.add(fact);
            position = fact.position;
        }
        (manifest.facts, manifest.digest) = (history.facts, history.digest);
        manifest.lacks = lacks.keys().cloned().collect();
        if next.is_none() {
            manifest.roles.clone_from(&kept.roles);
            self.copied.clear();
        }
        self.unfinished = next.is_some() || fresh.len() >= MOST_FACTS;
        self.settled_at = Some(Instant::now());
        let named = lacks.iter().map(|(hash, why)| (hash.to_string(), why.clone()));
        self.status.lacks = named.collect();
        if manifest == before && mark.is_some() {
            return Ok(Held { mark, manifest, position });
        }
        let archive = Archive::of(&kept.far);
        let small = manifest.cut(manifest.to_merge(fresh.len() as u64));
        manifest.written_ms = cx.now();
        let (mark, manifest) = watched(cx, move |watch| {
            let mut facts = Vec::new();
            for segment in &small {
                facts.extend(archive.facts(segment, watch)?);
            }
            facts.append(&mut fresh);
            archive.write(mark.as_ref(), manifest, &facts, watch)
        })
        .await??;
        info!(facts = manifest.facts, position, "manifest written far away");
        self.status.manifests += 1;
        self.status.last_manifest_ms = Some(cx.now());
        Ok(Held { mark: Some(mark), manifest, position })
    }

    /// Copies artefacts, the oldest first: gives those that could not be copied, and the first one that was
    /// not tried.
    async fn copy_artefacts(
        &mut self,
        kept: &Arc<Kept>,
        held: &Held,
        named: Vec<BlobRow>,
        cx: &Cx,
    ) -> anyhow::Result<(BTreeMap<BlobHash, String>, Option<BlobRow>)> {
        let mut lacks = BTreeMap::new();
        let mut done = 0;
        let mut next = None;
        for row in wanted(named, held, kept) {
            if self.copied.contains(&row.hash) {
                continue;
            }
            if done >= self.config.max_copied_per_manifest {
                if held.manifest.lacks.contains(&row.hash) {
                    lacks.insert(row.hash.clone(), "it was not tried again yet".to_owned());
                }
                next.get_or_insert(row);
                continue;
            }
            match self.copy(kept, &row, cx).await? {
                Ok(()) => {
                    done += 1;
                    self.copied.insert(row.hash);
                }
                Err(why) => {
                    warn!(hash = %row.hash, role = row.role, why, "artefact is not copied far away");
                    lacks.insert(row.hash, why);
                }
            }
        }
        Ok((lacks, next))
    }

    /// Whole in the store afterwards; or why it cannot be copied.
    async fn copy(
        &mut self,
        kept: &Arc<Kept>,
        row: &BlobRow,
        cx: &Cx,
    ) -> anyhow::Result<Result<(), String>> {
        let hash = parse(&row.hash)?;
        if !self.blobs.is_at_hand(&row.hash).await? {
            // It may be there all the same: a node that is gone has put it there.
            let far = kept.far.clone();
            return match watched(cx, move |watch| far.verify(&hash, watch)).await? {
                Ok(_) => {
                    self.status.found += 1;
                    Ok(Ok(()))
                }
                Err(error) if error.is_loss() => Ok(Err("it is not at hand".to_owned())),
                Err(error) => Err(error.into()),
            };
        }
        let (far, depot) = (kept.far.clone(), Arc::clone(self.blobs.depot()));
        match watched(cx, move |watch| far.put(&depot, &hash, watch)).await? {
            Ok(Sent::New(bytes)) => {
                self.status.copied += 1;
                self.status.copied_bytes += bytes;
                Ok(Ok(()))
            }
            Ok(Sent::There(_)) => {
                self.status.found += 1;
                Ok(Ok(()))
            }
            Err(FarError::Here(depot::Error::Fault(fault))) => Ok(Err(fault.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Raises the alarm when people should know, and clears it.
    async fn tell(&mut self, obstacle: Option<String>, cx: &Cx) -> anyhow::Result<()> {
        let late = self.behind_since.is_some_and(|since| since.elapsed() > self.config.patience);
        let sentence = match obstacle {
            Some(reason) if late || self.status.manifests == 0 => Some(reason),
            None if late => {
                Some(format!("{} positions are not copied far away yet", self.status.behind))
            }
            _ => None,
        };
        self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
        Ok(())
    }
}

/// The artefacts that a store does not have for certain, the oldest first.
fn wanted(named: Vec<BlobRow>, held: &Held, kept: &Kept) -> Vec<BlobRow> {
    let Held { manifest, position, .. } = held;
    let missing = |row: &BlobRow| {
        row.position > *position
            || manifest.lacks.contains(&row.hash)
            || !manifest.roles.contains(&row.role)
    };
    named.into_iter().filter(|row| kept.wants(row) && missing(row)).collect()
}

#[cfg(test)]
mod tests;
