//! `INTEGRITY_CHECK`: hashes every artefact again, a part at a time, so that decay is found while a copy
//! elsewhere is still good.
//!
//! Reads   all artefacts that the catalogue names, each once in a round.
//! Writes  an alarm on those that are missing or damaged.
//! Never   repairs or deletes: `AUTO_SYNC` brings back, the disk daemons delete. In a cluster what is damaged is set
//!         aside, so that it no longer counts as a copy and another one is made.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{BlobRow, Catalogue};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, Emits, Loop, STANDALONE, Topics,
    alarms::{Alarms, alarm_of},
    blobs::parse,
    cycle::{EVENT_ROUTER, settled},
    far::rounds::{Rounds, is_due},
};

/// Name of the alarm on artefacts that decayed.
pub(crate) const ALARM: &str = "integrity";

/// `[daemons.integrity_check]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time in which every artefact is hashed once. Source: health contract, 7 days until a clean-up.
    #[serde(with = "crate::seconds")]
    pub round: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { round: Duration::from_hours(7 * 24) }
    }
}

/// What it has done since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Artefacts that were hashed and found whole.
    pub verified: u64,
    /// Their bytes.
    pub verified_bytes: u64,
    /// Artefacts that are missing or damaged, and how.
    pub faults: BTreeMap<String, String>,
    /// Wall clock of the last cycle that hashed, milliseconds since the Unix epoch.
    pub last_scan_ms: Option<i64>,
}

/// The daemon.
pub struct IntegrityCheck {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    alarms: Alarms,
    status: Status,
    /// The last part that was hashed, counted from the Unix epoch; none = everything is due.
    done: Option<u64>,
}

impl Emits for IntegrityCheck {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for IntegrityCheck {
    const SPEC: Spec = Spec {
        id: DaemonId("INTEGRITY_CHECK"),
        about: "hashes every artefact again, a part each hour",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[STANDALONE],
        period: Duration::from_hours(1),
        health_interval: Some(Duration::from_hours(1)),
        // A large window on a slow disk: hashing is the work, and beats come per file.
        cycle_limit: Duration::from_mins(5),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            blobs,
            the_loop,
            alarms: Alarms::default(),
            status: Status::default(),
            done: None,
        }
    }

    async fn start(&mut self, cx: &Cx) -> anyhow::Result<()> {
        // An alarm of an earlier life names what this one has not seen: only a look at everything may
        // clear it.
        let everything = alarm_of(&self.catalogue, ALARM).await?.is_some();
        self.done = (!everything).then(|| self.rounds().part(cx.now()).saturating_sub(1));
        Ok(())
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match complaint(&last.faults) {
            Some(complaint) => Health::Degraded(complaint),
            None => Health::Healthy,
        }
    }
}

impl IntegrityCheck {
    fn rounds(&self) -> Rounds {
        Rounds(self.config.round)
    }

    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let now = self.rounds().part(cx.now());
        let known = std::mem::take(&mut self.status.faults);
        let mut hashed = 0;
        for row in self.catalogue.blobs(None).await? {
            if is_due(&row.hash, self.done, now) || known.contains_key(row.hash.as_str()) {
                if let Err(stop) = self.look(row, cx).await {
                    // What was known to be faulty stays known: the cycle comes again as a whole.
                    self.status.faults.extend(known);
                    return Err(stop);
                }
                hashed += 1;
            }
        }
        self.done = Some(now);
        if hashed > 0 {
            debug!(hashed, faults = self.status.faults.len(), "artefacts hashed again");
            self.status.last_scan_ms = Some(cx.now());
        }
        let sentence = complaint(&self.status.faults);
        self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
        Ok(Outcome::Done(self.status.clone()))
    }

    async fn look(&mut self, row: BlobRow, cx: &Cx) -> anyhow::Result<()> {
        cx.beat()?;
        let hash = parse(&row.hash)?;
        match self.blobs.with(move |depot| depot.verify(&hash)).await? {
            Ok(()) => {
                self.status.verified += 1;
                self.status.verified_bytes += row.bytes;
            }
            // Another node has it.
            Err(depot::Fault::Missing { .. }) if self.the_loop.shared => {}
            // Somebody may have thrown it away since the list was made.
            Err(_) if self.catalogue.is_trashed(&row.hash).await? => {}
            Err(fault) => {
                warn!(hash = %row.hash, role = row.role, %fault, "artefact has decayed");
                if self.the_loop.shared && matches!(fault, depot::Fault::Wrong { .. }) {
                    let moved = self.blobs.with(move |depot| depot.quarantine(&hash)).await?;
                    if let Err(error) = moved {
                        warn!(hash = %row.hash, %error, "it is not set aside");
                    }
                }
                self.status.faults.insert(row.hash.to_string(), format!("{} {fault}", row.role));
            }
        }
        Ok(())
    }
}

fn complaint(faults: &BTreeMap<String, String>) -> Option<String> {
    let (hash, fault) = faults.iter().next()?;
    Some(match faults.len() - 1 {
        0 => format!("{hash}: {fault}"),
        more => format!("{hash}: {fault}, and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ringrift_pipeline::BlobHash;

    use super::*;
    use crate::{
        far::rounds::PARTS,
        testbed::{Bed, done, hex},
    };

    fn daemon(bed: &Bed) -> IntegrityCheck {
        let ports = (bed.catalogue.clone(), bed.blobs.clone(), bed.the_loop.clone());
        IntegrityCheck::new(Config::default(), ports)
    }

    async fn damage(bed: &Bed, hash: &BlobHash) {
        let path = bed.blobs.path_of(hash).await.unwrap().unwrap();
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, "something else").unwrap();
    }

    fn due(done: Option<u64>, now: u64) -> BTreeSet<u64> {
        let hash = |own: u64| BlobHash(format!("{own:08x}{:056x}", 0));
        (0..PARTS).filter(|own| is_due(&hash(*own), done, now)).collect()
    }

    #[test]
    fn each_part_has_its_turn_and_missed_turns_are_made_up() {
        assert_eq!(due(Some(9), 9), BTreeSet::new());
        assert_eq!(due(Some(9), 10), BTreeSet::from([10]));
        assert_eq!(due(Some(PARTS - 2), PARTS + 1), BTreeSet::from([PARTS - 1, 0, 1]));
        assert_eq!(due(Some(5), 5 + PARTS).len(), 167);
        assert_eq!(due(None, 3).len(), 167, "nothing is known");
        assert!(is_due(&BlobHash("no hash".into()), Some(9), 9));
    }

    #[test]
    fn the_same_hour_of_every_day_comes_by_everything() {
        let mut seen = BTreeSet::new();
        for day in 0..PARTS {
            seen.extend(due(Some(24 * day), 24 * day + 1));
        }
        assert_eq!(seen.len(), 167);
    }

    #[tokio::test]
    async fn decay_is_an_alarm_that_only_a_whole_artefact_clears_even_in_the_next_life() {
        let bed = Bed::new().await;
        let (bad, _good) = (bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await);
        let (cx, _probe) = bed.cx::<IntegrityCheck>();
        let mut first = daemon(&bed);
        first.start(&cx).await.unwrap();
        bed.pass_time(Config::default().round);
        let status = done(first.cycle(&cx).await);
        assert_eq!((status.verified, first.health(&status)), (2, Health::Healthy));
        assert_eq!(done(first.cycle(&cx).await).verified, 2, "a second cycle finds nothing due");

        damage(&bed, &bad).await;
        bed.pass_time(Config::default().round);
        let status = done(first.cycle(&cx).await);
        assert_eq!(status.faults.keys().collect::<Vec<_>>(), [bad.as_str()]);
        assert!(matches!(first.health(&status), Health::Degraded(_)));
        assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some());

        let mut next_life = daemon(&bed);
        next_life.start(&cx).await.unwrap();
        assert_eq!(done(next_life.cycle(&cx).await).faults.len(), 1, "it looks at everything");
        fs_err::remove_file(bed.blobs.path_of(&bad).await.unwrap().unwrap()).unwrap();
        bed.put("g1");
        let status = done(next_life.cycle(&cx).await);
        assert_eq!(next_life.health(&status), Health::Healthy, "what was faulty is due every time");
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
    }

    #[tokio::test]
    async fn in_a_cluster_what_is_damaged_is_set_aside() {
        let bed = Bed::new().await;
        let bad = bed.batch(hex(), &["g1"]).await;
        damage(&bed, &bad).await;
        let (cx, _probe) = bed.cx::<IntegrityCheck>();
        let mut daemon = daemon(&bed);
        daemon.the_loop = bed.shared();
        let status = done(daemon.cycle(&cx).await);
        assert!(matches!(daemon.health(&status), Health::Degraded(_)));
        assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some());
        assert!(!bed.has_file(&bad));
        assert_eq!(bed.blobs.depot().quarantined().unwrap().len(), 1);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy, "another node has it, or none");
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_forgets_no_fault() {
        let bed = Bed::new().await;
        let batches = [bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await];
        for batch in &batches {
            damage(&bed, batch).await;
        }
        let (cx, probe) = bed.cx::<IntegrityCheck>();
        let mut first = daemon(&bed);
        assert_eq!(done(first.cycle(&cx).await).faults.len(), 2);
        probe.stop_at_beat(probe.beats() + 2);
        assert!(first.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert_eq!(first.status.faults.len(), 2);
    }
}
