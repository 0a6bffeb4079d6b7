//! Tests of `AUTO_SYNC`.

use std::{
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use hosts::Disk;
use ringrift_pipeline::{ArtefactTrashed, NodeId};
use serde_json::json;

use super::*;
use crate::{
    Elsewhere, Obstacle, PROFILES, SELFPLAY, TRAINING,
    alarms::alarm_of,
    registry,
    testbed::{Bed, Street, blocked, candidate, done, hex, stops_in_mid_cycle, view_of},
};

fn daemon(bed: &Bed, config: Config) -> AutoSync {
    AutoSync::new(
        config,
        (
            bed.catalogue_of::<AutoSync>(),
            bed.blobs.clone(),
            bed.the_loop.clone(),
            bed.pressure.clone(),
        ),
    )
}

fn path(depot: &Depot, hash: &BlobHash) -> Option<PathBuf> {
    depot.path_of(&hash.as_str().parse().unwrap()).unwrap()
}

fn damage(depot: &Depot, hash: &BlobHash) {
    let path = path(depot, hash).unwrap();
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, "something else").unwrap();
}

#[tokio::test]
async fn each_new_artefact_is_hashed_once_and_no_peers_are_healthy() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    bed.batch(hex(), &["g1"]).await;
    let (cx, _probe) = bed.cx::<AutoSync>();
    let mut first = daemon(&bed, Config::default());
    first.start(&cx).await.unwrap();
    let status = done(first.cycle(&cx).await);
    assert_eq!((status.verified, first.health(&status)), (2, Health::Healthy));
    assert_eq!(status.bytes_last_cycle, status.verified_bytes);
    assert!(status.verified_bytes > 0 && status.bytes_per_second > 0.0, "{status:?}");
    let second = done(first.cycle(&cx).await);
    assert_eq!(second.verified, 2, "a second cycle finds nothing new");
    assert_eq!((second.bytes_last_cycle, second.verified_bytes), (0, status.verified_bytes));

    let mut next_life = daemon(&bed, Config::default());
    next_life.start(&cx).await.unwrap();
    assert_eq!(done(next_life.cycle(&cx).await).verified, 0, "nor does a second life");
    bed.batch(hex(), &["g2"]).await;
    assert_eq!(done(next_life.cycle(&cx).await).verified, 1);
}

#[tokio::test]
async fn what_an_earlier_life_looked_for_in_vain_is_not_forgotten() {
    let bed = Bed::new().await;
    let gone = bed.batch(hex(), &["g1"]).await;
    fs_err::remove_file(path(bed.blobs.depot(), &gone).unwrap()).unwrap();
    let (cx, _probe) = bed.cx::<AutoSync>();
    let mut first = daemon(&bed, Config::default());
    first.start(&cx).await.unwrap();
    assert_eq!(done(first.cycle(&cx).await).faults.len(), 1);
    drop(first);
    let mut next_life = daemon(&bed, Config::default());
    next_life.start(&cx).await.unwrap();
    assert_eq!(done(next_life.cycle(&cx).await).faults.len(), 1);
    bed.put("g1");
    assert_eq!(done(next_life.cycle(&cx).await).faults.len(), 0);
}

#[tokio::test]
async fn a_damaged_artefact_is_an_alarm_until_it_is_whole_or_given_up() {
    let bed = Bed::new().await;
    let (bad, gone) = (bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await);
    damage(bed.blobs.depot(), &bad);
    fs_err::remove_file(path(bed.blobs.depot(), &gone).unwrap()).unwrap();
    let (cx, _probe) = bed.cx::<AutoSync>();
    let mut daemon = daemon(&bed, Config::default());
    let status = done(daemon.cycle(&cx).await);
    assert_eq!(status.faults.len(), 2);
    assert!(status.faults[gone.as_str()].ends_with("is missing"), "{:?}", status.faults);
    assert!(matches!(daemon.health(&status), Health::Degraded(_)));
    assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some());

    fs_err::remove_file(path(bed.blobs.depot(), &bad).unwrap()).unwrap();
    bed.put("g1");
    bed.record(vec![ArtefactTrashed { hash: gone, reason: "old".into() }.into()]).await;
    let status = done(daemon.cycle(&cx).await);
    assert_eq!(daemon.health(&status), Health::Healthy);
    assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
}

#[tokio::test]
async fn the_mirror_gets_everything_and_gives_back_what_is_lost() {
    let bed = Bed::new().await;
    let old = bed.batch(hex(), &["g1"]).await;
    let (cx, _probe) = bed.cx::<AutoSync>();
    done(daemon(&bed, Config::default()).cycle(&cx).await);

    let folder = bed.data().join("mirror");
    let config = Config { mirror: Some(folder.clone()), ..Config::default() };
    let mut daemon = daemon(&bed, config);
    daemon.start(&cx).await.unwrap();
    let reason = blocked(daemon.cycle(&cx).await);
    assert_eq!(reason, format!("the mirror {} is not there", folder.display()));
    assert!(!folder.exists(), "a mount point without its disk is not filled");

    fs_err::create_dir(&folder).unwrap();
    assert_eq!(done(daemon.cycle(&cx).await).mirrored, 1, "also what was there before");
    assert!(path(&Depot::open_existing(&folder), &old).is_some());
    let new = bed.batch(hex(), &["g2"]).await;
    assert_eq!(done(daemon.cycle(&cx).await).mirrored, 2);
    for hash in [&old, &new] {
        damage(bed.blobs.depot(), hash);
        daemon.faulty.insert(
            hash.to_string(),
            bed.catalogue
                .blobs(None)
                .await
                .unwrap()
                .into_iter()
                .find(|row| row.hash == *hash)
                .unwrap(),
        );
    }
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.restored, status.faults.len()), (2, 0));
    bed.blobs.verify(&old).await.unwrap().unwrap();
}

#[tokio::test]
async fn in_a_cluster_another_node_gives_back_what_is_damaged_which_is_kept_aside() {
    let bed = Bed::new().await;
    let street = Street::default();
    street.open(&bed);
    let batch = bed.elsewhere(&street, "g1").await;
    bed.put("g1");
    damage(bed.blobs.depot(), &batch);
    let (cx, _probe) = bed.cx::<AutoSync>();
    let mut daemon = in_a_cluster(&bed, Strategy::Hybrid, &disk(10));
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.restored, status.faults.len()), (1, 0));
    bed.blobs.verify(&batch).await.unwrap().unwrap();
    assert_eq!(bed.blobs.depot().quarantined().unwrap().len(), 1);
}

/// Other nodes, whose lines carry these so slowly that they do not come while anybody waits; and what was asked of
/// them.
#[derive(Default)]
struct Crawls(Vec<BlobHash>, Arc<Mutex<Vec<BlobHash>>>);

impl Elsewhere for Crawls {
    fn bring(
        &self,
        hash: Hash,
    ) -> Pin<Box<dyn Future<Output = Result<(), OutOfReach>> + Send + '_>> {
        let asked = BlobHash(hash.to_string());
        self.1.lock().unwrap().push(asked.clone());
        Box::pin(async move {
            if self.0.contains(&asked) {
                return std::future::pending().await;
            }
            Err(OutOfReach { hash, why: "nobody has it".into() })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_slowly_is_no_fault_and_does_not_hold_up_the_rest() {
    let bed = Bed::new().await;
    let slow = bed.batch(hex(), &["g1"]).await;
    bed.batch(hex(), &["g2"]).await;
    fs_err::remove_file(path(bed.blobs.depot(), &slow).unwrap()).unwrap();
    bed.blobs.connect(Crawls(vec![slow], Arc::default()));
    let (cx, _probe) = bed.cx::<AutoSync>();
    let mut daemon = daemon(&bed, Config::default());
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.verified, status.coming, status.faults.len()), (1, 1, 0));
    assert_eq!(done(daemon.cycle(&cx).await).coming, 1);
    bed.put("g1");
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.verified, status.coming), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn many_on_one_slow_line_hold_up_nobody_else_and_come_one_after_the_other() {
    let bed = Bed::new().await;
    bed.joined(&["slow", "good"]).await;
    bed.live(&["slow", "good"]).await;
    let mut slow = Vec::new();
    for name in ["s1", "s2", "s3"] {
        slow.push(bed.named_only(name).await);
    }
    let good = bed.named_only("g1").await;
    bed.held("slow", &slow.iter().collect::<Vec<_>>()).await;
    bed.held("good", &[&good]).await;
    let asked = Arc::default();
    bed.blobs.connect(Crawls(slow.clone(), Arc::clone(&asked)));
    let (cx, _probe) = bed.cx::<AutoSync>();
    let mut daemon = in_a_cluster(&bed, Strategy::Pull, &disk(10));
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.coming, daemon.faulty.len()), (3, 1));
    let [s1, s2, s3] = &slow[..] else { panic!("{slow:?}") };
    assert_eq!(asked.lock().unwrap().iter().collect::<Vec<_>>(), [s1, &good, s1, s1, s1, s2, s3]);
}

#[tokio::test]
async fn a_stop_in_the_middle_looks_at_the_rest_in_the_next_life() {
    let bed = Bed::new().await;
    for game in ["g1", "g2", "g3"] {
        bed.batch(hex(), &[game]).await;
    }
    let (cx, probe) = bed.cx::<AutoSync>();
    let mut first = daemon(&bed, Config { max_verified_per_cycle: 1, ..Config::default() });
    assert_eq!(done(first.cycle(&cx).await).verified, 1);
    probe.stop_at_beat(probe.beats() + 1);
    assert!(first.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
    let (cx, _probe) = bed.cx::<AutoSync>();
    let mut next_life = daemon(&bed, Config::default());
    next_life.start(&cx).await.unwrap();
    assert_eq!(done(next_life.cycle(&cx).await).verified, 2);
}

/// The daemon on a node of a cluster with this strategy, on a disk of which this share is in use, in per cent.
fn in_a_cluster(bed: &Bed, strategy: Strategy, used: &Arc<AtomicU64>) -> AutoSync {
    let mut daemon = daemon(bed, Config { strategy, ..Config::default() });
    daemon.the_loop = bed.shared();
    let used = Arc::clone(used);
    daemon.look = Arc::new(move |_| {
        let total = 100 << 30;
        Ok(Disk { total, available: total / 100 * (100 - used.load(Ordering::Relaxed)) })
    });
    daemon
}

fn disk(used: u64) -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(used))
}

#[test]
fn the_profile_chooses_a_strategy_unless_one_is_configured() {
    for (profile, _) in PROFILES {
        let expected = match *profile {
            COORDINATOR | COORDINATOR_FULL | STANDALONE | FULL => Strategy::Pull,
            EPHEMERAL => Strategy::Ephemeral,
            _ => Strategy::Hybrid,
        };
        assert_eq!(Strategy::Auto.on(*profile), expected, "{profile:?}");
        assert_eq!(Strategy::Broadcast.on(*profile), Strategy::Broadcast);
    }
    assert_eq!(Strategy::Auto.on(TRAINING), Strategy::Auto.on(SELFPLAY));
}

#[test]
fn an_unknown_strategy_is_refused_with_the_words_that_are_allowed() {
    let (_, entry) = registry().find(|(_, entry)| entry.spec.id == AutoSync::ID).unwrap();
    for known in ["auto", "pull", "hybrid", "broadcast", "ephemeral"] {
        entry.check(json!({ "strategy": known })).unwrap();
    }
    let error = entry.check(json!({ "strategy": "push" })).unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown variant `push`, expected one of `auto`, `pull`, `hybrid`, `broadcast`, `ephemeral`"
    );
}

#[tokio::test]
async fn the_strategy_in_force_is_shown_from_the_start() {
    let bed = Bed::new().await;
    let (cx, probe) = bed.cx::<AutoSync>();
    let mut view = view_of(AutoSync::ID);
    assert_eq!(strategy_of(&view), None);
    daemon(&bed, Config::default()).start(&cx).await.unwrap();
    view.details = probe.details();
    assert_eq!(strategy_of(&view), Some(Strategy::Pull));
}

#[tokio::test]
async fn each_strategy_fetches_what_it_wants_and_looks_at_what_is_here() {
    let check = async |strategy: Strategy, batch: bool, window: bool| {
        let bed = Bed::new().await;
        let street = Street::default();
        street.open(&bed);
        let games = bed.elsewhere(&street, "g1").await;
        let samples = bed.window_elsewhere(&street, "w1", &[]).await;
        candidate(&bed, hex(), 1).await;
        let (cx, _probe) = bed.cx::<AutoSync>();
        let mut daemon = in_a_cluster(&bed, strategy, &disk(10));
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((bed.has_file(&games), bed.has_file(&samples)), (batch, window), "{strategy:?}");
        let fetched = u64::from(batch) + u64::from(window);
        assert_eq!((status.verified, status.left), (1 + fetched, 2 - fetched), "{strategy:?}");
        assert_eq!((status.strategy, status.faults.len()), (strategy, 0));
        let again = done(daemon.cycle(&cx).await);
        assert_eq!((again.verified, again.left), (status.verified, status.left), "{strategy:?}");
    };
    check(Strategy::Pull, true, true).await;
    check(Strategy::Hybrid, true, true).await;
    check(Strategy::Broadcast, false, true).await;
    check(Strategy::Ephemeral, false, false).await;
}

#[tokio::test]
async fn nothing_is_fetched_onto_a_full_disk_or_past_the_brake_and_all_of_it_later() {
    let bed = Bed::new().await;
    let street = Street::default();
    street.open(&bed);
    let there = bed.elsewhere(&street, "g1").await;
    bed.batch(hex(), &["g2"]).await;
    let used = disk(72);
    let (cx, _probe) = bed.cx::<AutoSync>();
    for strategy in [Strategy::Pull, Strategy::Hybrid] {
        let mut daemon = in_a_cluster(&bed, strategy, &used);
        let Outcome::Blocked { reason, status, .. } = daemon.cycle(&cx).await.unwrap() else {
            panic!("{strategy:?} is not blocked");
        };
        let sentence = "72 % of the disk is in use, and nothing is fetched; needs less than 70 % of the \
                        disk in use";
        assert_eq!(reason, sentence, "{strategy:?}");
        let status = status.unwrap();
        assert_eq!((status.verified, status.coming, status.faults.len()), (1, 1, 0));
        assert_eq!(blocked(daemon.cycle(&cx).await), sentence, "it stays so");
        assert!(!bed.has_file(&there));
        bed.catalogue.log().advance(Stream::Pipeline, &daemon.subscriber(), 0).await.unwrap();
    }
    let mut daemon = in_a_cluster(&bed, Strategy::Hybrid, &used);
    used.store(10, Ordering::Relaxed);
    let obstacle = Obstacle { reason: "memory runs out".into(), needs: "1 GiB".into() };
    bed.pressure.set(DaemonId("MEMORY_MONITOR"), Some(obstacle));
    assert_eq!(blocked(daemon.cycle(&cx).await), "memory runs out; needs 1 GiB");
    assert!(!bed.has_file(&there));
    bed.pressure.set(DaemonId("MEMORY_MONITOR"), None);
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.verified, status.coming), (2, 0));
    assert!(bed.has_file(&there));
}

#[tokio::test]
async fn a_disk_that_cannot_be_measured_counts_as_full() {
    let bed = Bed::new().await;
    let street = Street::default();
    street.open(&bed);
    let there = bed.elsewhere(&street, "g1").await;
    let mut daemon = in_a_cluster(&bed, Strategy::Pull, &disk(10));
    daemon.look = Arc::new(|_| Err(std::io::Error::other("it hangs")));
    let (cx, _probe) = bed.cx::<AutoSync>();
    let reason = blocked(daemon.cycle(&cx).await);
    assert!(reason.starts_with("the disk cannot be measured: it hangs"), "{reason}");
    assert!(!bed.has_file(&there));
}

#[tokio::test]
async fn on_one_machine_neither_strategy_nor_disk_hides_what_is_missing() {
    let bed = Bed::new().await;
    bed.named_only("g1").await;
    let mut daemon = in_a_cluster(&bed, Strategy::Ephemeral, &disk(99));
    daemon.the_loop = bed.the_loop.clone();
    let (cx, _probe) = bed.cx::<AutoSync>();
    assert_eq!(done(daemon.cycle(&cx).await).faults.len(), 1);
    daemon.stop(&cx).await.unwrap();
}

#[tokio::test]
async fn what_was_given_up_is_fetched_again_only_where_everything_is_kept() {
    for (strategy, fetched) in [(Strategy::Hybrid, false), (Strategy::Pull, true)] {
        let bed = Bed::new().await;
        let street = Street::default();
        street.open(&bed);
        let batch = bed.elsewhere(&street, "g1").await;
        let (cx, _probe) = bed.cx::<AutoSync>();
        let mut first = in_a_cluster(&bed, strategy, &disk(10));
        first.start(&cx).await.unwrap();
        done(first.cycle(&cx).await);
        fs_err::remove_file(path(bed.blobs.depot(), &batch).unwrap()).unwrap();
        done(first.cycle(&cx).await);
        let mut next_life = in_a_cluster(&bed, strategy, &disk(10));
        next_life.start(&cx).await.unwrap();
        assert_eq!(done(next_life.cycle(&cx).await).faults.len(), 0);
        assert_eq!(bed.has_file(&batch), fetched, "{strategy:?}");
    }
}

/// A node that may vanish, beside another one.
async fn ephemeral(bed: &Bed) -> AutoSync {
    bed.joined(&["there"]).await;
    bed.live(&["there"]).await;
    in_a_cluster(bed, Strategy::Ephemeral, &disk(10))
}

#[tokio::test]
async fn a_node_that_may_vanish_offers_what_only_it_has_once() {
    let bed = Bed::new().await;
    let mut daemon = ephemeral(&bed).await;
    let (batch, told) = (bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await);
    let (shared, gone) = (bed.batch(hex(), &["g3"]).await, bed.named_only("g4").await);
    bed.held("here", &[&told, &shared]).await;
    bed.held("there", &[&shared]).await;
    let (cx, _probe) = bed.cx::<AutoSync>();
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.only_here, daemon.health(&status)), (2, Health::Healthy));
    for hash in [&batch, &told] {
        let holders = bed.catalogue.holders(hash).await.unwrap();
        assert_eq!((holders.len(), holders[0].offered), (1, true), "{hash}");
    }
    assert!(bed.catalogue.holders(&shared).await.unwrap().iter().all(|holder| !holder.offered));
    assert!(bed.who_has(&gone).await.is_empty());
    let facts = bed.facts().await;
    assert_eq!(done(daemon.cycle(&cx).await).only_here, 2);
    assert_eq!(bed.facts().await, facts, "a second cycle offers nothing again");

    let late = Status { longest_wait: Duration::from_secs(61), ..status };
    assert!(matches!(daemon.health(&late), Health::Degraded(_)));
    bed.held("there", &[&batch, &told]).await;
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.only_here, status.longest_wait), (0, Duration::ZERO));
}

#[tokio::test]
async fn what_is_damaged_here_is_offered_to_nobody() {
    let bed = Bed::new().await;
    let mut daemon = ephemeral(&bed).await;
    let batch = bed.batch(hex(), &["g1"]).await;
    damage(bed.blobs.depot(), &batch);
    let (cx, _probe) = bed.cx::<AutoSync>();
    assert_eq!(done(daemon.cycle(&cx).await).only_here, 0);
    assert!(bed.who_has(&batch).await.is_empty());
}

#[tokio::test]
async fn a_node_that_may_vanish_stops_when_another_one_has_what_it_made() {
    let bed = Bed::new().await;
    let mut daemon = ephemeral(&bed).await;
    let batch = bed.batch(hex(), &["g1"]).await;
    let (cx, _probe) = bed.cx::<AutoSync>();
    let taken = async {
        while !bed.catalogue.holders(&batch).await.unwrap().iter().any(|holder| holder.offered) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bed.held("there", &[&batch]).await;
    };
    let began = Instant::now();
    let (stopped, ()) = tokio::join!(daemon.stop(&cx), taken);
    stopped.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(bed.who_has(&batch).await, ["here", "there"]);
}

#[tokio::test]
async fn a_stop_waits_neither_for_ever_nor_where_nobody_could_take_anything() {
    let bed = Bed::new().await;
    let mut daemon = ephemeral(&bed).await;
    bed.batch(hex(), &["g1"]).await;
    let (cx, _probe) = bed.cx::<AutoSync>();
    // It does not come back while the other lives and takes nothing.
    let soon = timeout(Duration::from_secs(2), daemon.stop(&cx));
    assert!(soon.await.is_err());
    bed.sees_nodes(&[(&NodeId("there".into()), 600)]);
    timeout(Duration::from_secs(20), daemon.stop(&cx)).await.unwrap().unwrap();
    let mut keeps = in_a_cluster(&bed, Strategy::Pull, &disk(10));
    timeout(Duration::from_secs(20), keeps.stop(&cx)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_in_mid_cycle_offers_nothing_by_halves() {
    let bed = Bed::new().await;
    let daemon = ephemeral(&bed).await;
    bed.batch(hex(), &["g1"]).await;
    stops_in_mid_cycle(&bed, daemon).await;
}
