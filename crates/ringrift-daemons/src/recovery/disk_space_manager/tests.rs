use std::sync::atomic::{AtomicU64, Ordering};

use courier::NewFact;
use ringrift_pipeline::{GamesCommitted, ModelId, Record, WorkId};
use serde_json::json;

use super::*;
use crate::{
    alarms::alarm_of,
    testbed::{Bed, FullDisk, blocked, done, handed_to, hex},
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn one_machine_goes_by_free_bytes_and_a_cluster_by_shares() {
    let check = |total, standalone, expected: (u64, u64)| {
        assert_eq!(limits(total, standalone, &Config::default()), expected);
    };
    check(1000 * GIB, true, (2 * GIB, 4 * GIB));
    check(50 * GIB, true, (GIB, 2 * GIB));
    check(500 * MIB, true, (10 * MIB, 20 * MIB));
    check(0, true, (0, 0));
    let (limit, calm) = limits(1000, false, &Config::default());
    assert!((149..=151).contains(&limit) && (299..=301).contains(&calm), "{limit} {calm}");
}

/// A manager on a file system of 5000 MiB (limit 100, calm 200) with so much free.
fn manager(bed: &Bed, config: Config) -> (DiskSpaceManager, Arc<AtomicU64>) {
    let ports = (
        bed.catalogue_of::<DiskSpaceManager>(),
        bed.blobs.clone(),
        bed.the_loop.clone(),
        bed.pressure.clone(),
    );
    let mut daemon = DiskSpaceManager::new(config, ports);
    let free = Arc::new(AtomicU64::new(5000));
    let told = free.clone();
    daemon.look = Arc::new(move |_| {
        Ok(Disk { total: 5000 * MIB, available: told.load(Ordering::Relaxed) * MIB })
    });
    (daemon, free)
}

fn trash(bed: &Bed, text: &str, at_ms: i64) -> Hash {
    let hash = parse(&bed.put(text)).unwrap();
    let warrant = Warrant::Retention("test".into());
    bed.blobs.depot().trash(&hash, &warrant, at_ms).unwrap();
    hash
}

#[tokio::test]
async fn it_holds_below_the_limit_and_lets_go_at_twice_of_it() {
    let bed = Bed::new().await;
    let (mut daemon, free) = manager(&bed, Config::default());
    let (cx, _probe) = bed.cx::<DiskSpaceManager>();
    for (mib, holds) in
        [(5000, false), (100, false), (99, true), (100, true), (199, true), (200, false)]
    {
        free.store(mib, Ordering::Relaxed);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.holding, holds, "{mib} MiB");
        assert_eq!(bed.pressure.obstacle().is_some(), holds, "{mib} MiB");
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some(), holds);
    }
    free.store(99, Ordering::Relaxed);
    let status = done(daemon.cycle(&cx).await);
    let why = "99 MiB are free on the disk of the data directory, less than 100 MiB";
    assert_eq!(daemon.health(&status), Health::Degraded(why.into()));
    let (owner, obstacle) = bed.pressure.obstacle().unwrap();
    assert_eq!((owner, obstacle.reason.as_str()), ("DISK_SPACE_MANAGER", why));
    assert_eq!(obstacle.needs, "200 MiB free");
    daemon.stop(&cx).await.unwrap();
    assert!(bed.pressure.obstacle().is_none());
}

#[tokio::test]
async fn what_cannot_be_measured_counts_as_full() {
    let bed = Bed::new().await;
    let (mut daemon, _) = manager(&bed, Config::default());
    daemon.look = Arc::new(|_| Err(std::io::Error::other("it is gone")));
    let (cx, _probe) = bed.cx::<DiskSpaceManager>();
    let reason = blocked(daemon.cycle(&cx).await);
    assert_eq!(reason, "the disk cannot be measured: it is gone");
    assert!(bed.pressure.obstacle().is_some());
}

#[tokio::test]
async fn the_trash_is_emptied_after_its_grace_and_at_once_when_the_disk_is_full() {
    let bed = Bed::new().await;
    let now = bed.now.load(Ordering::Relaxed);
    let config = Config { sweep_every: Duration::ZERO, ..Config::default() };
    let (mut daemon, free) = manager(&bed, config);
    let (cx, _probe) = bed.cx::<DiskSpaceManager>();
    let day = 24 * 3_600_000;
    trash(&bed, "old", now - day);
    let young = trash(&bed, "young", now - day + 60_000);
    let left = || bed.blobs.depot().trashed().unwrap();
    assert_eq!(done(daemon.cycle(&cx).await).freed, 3);
    assert_eq!(left().iter().map(|trashed| trashed.hash).collect::<Vec<_>>(), [young]);
    assert_eq!(done(daemon.cycle(&cx).await).freed, 3, "a second cycle finds nothing");
    free.store(50, Ordering::Relaxed);
    assert_eq!(done(daemon.cycle(&cx).await).freed, 8);
    assert!(left().is_empty());
}

#[tokio::test]
async fn only_old_files_that_no_fact_names_are_orphans() {
    let bed = Bed::new().await;
    let named = bed.batch(hex(), &["g1"]).await;
    let orphan = bed.put("nobody's");
    let present = |hash: &ringrift_pipeline::BlobHash| {
        bed.blobs.depot().contains(&parse(hash).unwrap()).unwrap()
    };
    // Files get the machine's time, so the bed's clock must follow it.
    let born = fs_err::metadata(bed.blobs.path_of(&orphan).await.unwrap().unwrap())
        .unwrap()
        .modified()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    bed.now.store(i64::try_from(born.as_millis()).unwrap(), Ordering::Relaxed);
    let config = Config { sweep_every: Duration::ZERO, ..Config::default() };
    let (mut daemon, free) = manager(&bed, config);
    let (cx, _probe) = bed.cx::<DiskSpaceManager>();
    bed.pass_time(Duration::from_mins(59));
    done(daemon.cycle(&cx).await);
    assert!(present(&orphan), "too young");

    free.store(50, Ordering::Relaxed);
    done(daemon.cycle(&cx).await);
    free.store(5000, Ordering::Relaxed);
    bed.pass_time(Duration::from_mins(30));
    done(daemon.cycle(&cx).await);
    assert!(present(&orphan), "the disk was full: its fact may not have been written yet");

    bed.pass_time(Duration::from_mins(31));
    assert_eq!(done(daemon.cycle(&cx).await).orphans, 1);
    assert!(!present(&orphan) && present(&named));
    let trashed = bed.blobs.depot().trashed().unwrap();
    assert_eq!(trashed[0].why, "retention: no fact has named it for 1h");
    assert_eq!(done(daemon.cycle(&cx).await).orphans, 1, "a second cycle finds nothing");
}

/// A manager beside an outbox, and games of this node, so old that they would be orphans.
async fn cut_off(bed: &Bed) -> (DiskSpaceManager, Catalogue, GamesCommitted) {
    let games = bed.put("games");
    let born = fs_err::metadata(bed.blobs.path_of(&games).await.unwrap().unwrap())
        .unwrap()
        .modified()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    bed.now.store(i64::try_from(born.as_millis()).unwrap(), Ordering::Relaxed);
    bed.pass_time(Duration::from_hours(3));
    let outbox = courier::Outbox::open(&bed.data().join("outbox")).unwrap();
    let catalogue = bed.catalogue.with_outbox(outbox);
    let (mut daemon, _) = manager(bed, Config { sweep_every: Duration::ZERO, ..Config::default() });
    daemon.catalogue = handed_to::<DiskSpaceManager>(&catalogue);
    let committed = GamesCommitted {
        batch: games,
        bytes: 5,
        config: hex(),
        work: WorkId("selfplay-hex8_2p-here.1.0".into()),
        model: ModelId::new(hex(), 0),
        games: 1,
        positions: 30,
        seat_wins: vec![1, 0],
        seconds: 1.0,
    };
    (daemon, catalogue, committed)
}

#[tokio::test]
async fn what_the_outbox_names_is_no_orphan_even_if_the_log_refused_it() {
    let bed = Bed::new().await;
    let (mut daemon, catalogue, committed) = cut_off(&bed).await;
    let games = committed.batch.clone();
    let (cx, _probe) = bed.cx::<DiskSpaceManager>();
    catalogue.keep(vec![Record::first(committed)], 1).await.unwrap();
    assert_eq!(done(daemon.cycle(&cx).await).orphans, 0);
    assert!(bed.has_file(&games), "it waits");
    assert_eq!(catalogue.hand_in().await.unwrap(), 1);
    assert_eq!(done(daemon.cycle(&cx).await).orphans, 0);
    assert!(bed.has_file(&games), "it is told");

    // Refused for another reason than that it is known: it stays for people.
    let other = bed.put("games that the log refuses");
    let fact = NewFact::new("other", "one.known", "here", json!({ "batch": other }));
    bed.append(NewFact::new("before", "one.known", "here", json!({})).into()).await;
    let outbox = courier::Outbox::open(&bed.data().join("refusing")).unwrap();
    outbox.put(Stream::Pipeline, &fact.after(0).into(), 1).await.unwrap();
    outbox.hand_in(catalogue.log()).await.unwrap();
    assert_eq!(outbox.refused().await.unwrap().len(), 1);
    daemon.catalogue = handed_to::<DiskSpaceManager>(&bed.catalogue.with_outbox(outbox));
    bed.pass_time(Duration::from_hours(3));
    assert_eq!(done(daemon.cycle(&cx).await).orphans, 0);
    assert!(bed.has_file(&other), "it was refused");
}

#[tokio::test]
async fn an_orphan_that_a_fact_names_after_all_comes_back_before_it_is_gone_for_good() {
    for (full, handed_in) in [(false, false), (false, true), (true, false), (true, true)] {
        let bed = Bed::new().await;
        let (mut daemon, catalogue, committed) = cut_off(&bed).await;
        let games = committed.batch.clone();
        let (cx, _probe) = bed.cx::<DiskSpaceManager>();
        let nobodys = bed.put("nobody's");
        assert_eq!(done(daemon.cycle(&cx).await).orphans, 2);
        assert!(!bed.has_file(&games));

        catalogue.keep(vec![Record::first(committed)], 1).await.unwrap();
        if handed_in {
            assert_eq!(catalogue.hand_in().await.unwrap(), 1);
            let head = bed.facts().await;
            catalogue.shows(head, Duration::from_secs(9)).await.unwrap();
        }
        if full {
            let available = 50 * MIB;
            daemon.look = Arc::new(move |_| Ok(Disk { total: 5000 * MIB, available }));
        } else {
            bed.pass_time(Duration::from_hours(25));
        }
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.restored, status.freed), (1, 8), "{full} {handed_in}");
        assert!(bed.has_file(&games) && !bed.has_file(&nobodys));
        assert_eq!(done(daemon.cycle(&cx).await).orphans, 2, "a second cycle finds nothing");
        assert!(bed.has_file(&games));
    }
}

#[tokio::test]
async fn what_was_given_up_for_another_reason_stays_in_the_trash() {
    let bed = Bed::new().await;
    let batch = bed.batch(hex(), &["g1"]).await;
    let copies = ["a", "b"].map(|holder| depot::Receipt { holder: holder.into(), verified_ms: 1 });
    let hash = parse(&batch).unwrap();
    bed.blobs.depot().trash(&hash, &Warrant::Copies(copies.to_vec()), 1).unwrap();
    let config = Config { sweep_every: Duration::ZERO, ..Config::default() };
    let (mut daemon, _) = manager(&bed, config);
    let (cx, _probe) = bed.cx::<DiskSpaceManager>();
    assert_eq!(done(daemon.cycle(&cx).await).restored, 0);
    assert!(!bed.has_file(&batch));
}

#[tokio::test]
async fn it_brakes_and_makes_room_when_nothing_can_be_written() {
    let bed = Bed::new().await;
    let (mut daemon, free) = manager(&bed, Config::default());
    let (catalogue, full) = FullDisk::below(&bed).await;
    daemon.catalogue = catalogue;
    full.store(true, Ordering::Relaxed);
    free.store(0, Ordering::Relaxed);
    trash(&bed, "young", bed.now.load(Ordering::Relaxed));
    let (cx, _probe) = bed.cx::<DiskSpaceManager>();
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.holding, status.freed), (true, 5));
    assert!(bed.pressure.obstacle().is_some());
    assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
    full.store(false, Ordering::Relaxed);
    done(daemon.cycle(&cx).await);
    assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some(), "told when it can be");
}

#[tokio::test]
async fn ballast_is_kept_in_good_times_and_dropped_in_the_worst() {
    let bed = Bed::new().await;
    let (mut daemon, free) = manager(&bed, Config::default());
    let (cx, _probe) = bed.cx::<DiskSpaceManager>();
    done(daemon.cycle(&cx).await);
    let ballast = bed.data().join("run").join("ballast");
    assert_eq!(fs_err::metadata(&ballast).unwrap().len(), BALLAST as u64);
    free.store(50, Ordering::Relaxed);
    done(daemon.cycle(&cx).await);
    assert!(ballast.exists());
    free.store(0, Ordering::Relaxed);
    done(daemon.cycle(&cx).await);
    assert!(!ballast.exists());
    free.store(5000, Ordering::Relaxed);
    done(daemon.cycle(&cx).await);
    assert!(ballast.exists());
}

#[tokio::test]
async fn a_stop_in_the_middle_keeps_the_brake_set() {
    let bed = Bed::new().await;
    let (mut daemon, free) = manager(&bed, Config::default());
    free.store(50, Ordering::Relaxed);
    let (cx, probe) = bed.cx::<DiskSpaceManager>();
    // The beat before the disk is measured again.
    probe.stop_at_beat(4);
    assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
    assert!(bed.pressure.obstacle().is_some());
    assert!(manager(&bed, Config::default()).0.status.holding, "the next life takes it over");
}
