use std::path::Path;

use courier::Stream;
use depot::far::Watch;
use ringrift_pipeline::{ArtefactTrashed, ModelCreated, ModelId};

use super::*;
use crate::{
    alarms::alarm_of,
    far::{
        History,
        testing::{Slow, kept},
    },
    testbed::{Bed, blocked, done, evaluated, hex, samples, stops_in_mid_cycle, window},
};

fn all(_: u64) -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

fn daemon(bed: &Bed, store: &FarStore, config: Config) -> S3Backup {
    S3Backup::new(config, (bed.catalogue_of::<S3Backup>(), bed.blobs.clone(), store.clone()))
}

fn eager() -> Config {
    Config { pause: Duration::ZERO, ..Config::default() }
}

fn newest(store: &FarStore) -> Manifest {
    let watch: Watch<'_> = &mut all;
    Archive::of(&store.get().unwrap().far).newest(watch).unwrap().unwrap().1
}

fn is_there(store: &FarStore, hash: &BlobHash) -> bool {
    store.get().unwrap().far.verify(&parse(hash).unwrap(), &mut all).is_ok()
}

async fn history(bed: &Bed) -> History {
    let mut history = History::default();
    for fact in bed.catalogue.log().read(Stream::Pipeline, 0, 100_000).await.unwrap() {
        history.add(&fact);
    }
    history
}

fn object(folder: &Path, hash: &BlobHash) -> std::path::PathBuf {
    folder.join("blobs").join(&hash.as_str()[..2]).join(hash.as_str())
}

fn spoil(path: &Path) {
    fs_err::remove_file(path).unwrap();
    fs_err::write(path, "something else").unwrap();
}

#[tokio::test]
async fn without_a_store_there_is_nothing_to_do_and_that_is_healthy() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let mut daemon = daemon(&bed, &FarStore::default(), eager());
    let (cx, _probe) = bed.cx::<S3Backup>();
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.store.as_str(), daemon.health(&status)), (IDLE, Health::Healthy));
}

#[tokio::test]
async fn artefacts_and_facts_are_there_after_one_cycle_and_a_second_finds_nothing() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let games = bed.batch(hex(), &["g1"]).await;
    let rows = samples(&bed, hex(), "s", 30).await;
    let derived = window(&bed, hex(), std::slice::from_ref(&rows), 30).await;
    let (_dir, store) = kept();
    let (cx, _probe) = bed.cx::<S3Backup>();
    let mut first = daemon(&bed, &store, eager());
    let status = done(first.cycle(&cx).await);
    assert_eq!((status.copied, status.behind, status.manifests), (3, 0, 1));
    assert!(is_there(&store, &games) && is_there(&store, &rows));
    assert!(!is_there(&store, &derived), "windows were not asked for");
    let manifest = newest(&store);
    assert_eq!(manifest.history(), history(&bed).await);
    assert_eq!(manifest.roles, ["games", "records", "samples", "weights"]);
    assert_eq!(done(first.cycle(&cx).await), status);

    let mut next_life = daemon(&bed, &store, eager());
    let again = done(next_life.cycle(&cx).await);
    assert_eq!((again.copied, again.found, again.manifests), (0, 0, 0));
    bed.batch(hex(), &["g2"]).await;
    let status = done(next_life.cycle(&cx).await);
    assert_eq!((status.copied, status.manifests), (1, 1));
    assert_eq!(newest(&store).history(), history(&bed).await);
}

#[tokio::test]
async fn facts_wait_for_the_pause_and_promotions_do_not() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let (_dir, store) = kept();
    let (cx, _probe) = bed.cx::<S3Backup>();
    let mut daemon = daemon(&bed, &store, Config::default());
    done(daemon.cycle(&cx).await);
    bed.batch(hex(), &["g1"]).await;
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.manifests, status.behind), (1, 1));
    let model = evaluated(&bed, hex(), 1, 0, 40.0).await;
    bed.record(vec![
        ModelPromoted {
            model: model.clone(),
            config: hex(),
            over: ModelId::new(hex(), 0),
            elo: 40.0,
            elo_low: 10.0,
            elo_high: 70.0,
            games: 100,
        }
        .into(),
    ])
    .await;
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.manifests, status.behind), (2, 0));
}

#[tokio::test]
async fn a_part_at_a_time_gets_there_and_no_manifest_is_ahead_of_its_artefacts() {
    let bed = Bed::new().await;
    for n in 0..7 {
        bed.batch(hex(), &[&format!("g{n}")]).await;
    }
    let (_dir, store) = kept();
    let (cx, probe) = bed.cx::<S3Backup>();
    let config = Config { max_copied_per_manifest: 2, ..eager() };
    let mut first = daemon(&bed, &store, config.clone());
    // Two artefacts, their manifest, and a beat into the next two.
    probe.stop_at_beat(7);
    assert!(first.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
    let before = newest(&store);
    assert!(before.facts < 7, "{before:?}");
    for row in
        bed.catalogue.blobs(None).await.unwrap().iter().take(usize::try_from(before.facts).unwrap())
    {
        assert!(is_there(&store, &row.hash));
    }
    let (cx, _probe) = bed.cx::<S3Backup>();
    let status = done(daemon(&bed, &store, config).cycle(&cx).await);
    assert_eq!((status.behind, status.lacks.len()), (0, 0));
    assert_eq!(newest(&store).history(), history(&bed).await);
    assert!(status.manifests >= 3);
}

#[tokio::test]
async fn what_is_lost_here_is_named_and_does_not_hold_up_the_rest() {
    let bed = Bed::new().await;
    let (gone, good) = (bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await);
    let path = bed.blobs.path_of(&gone).await.unwrap().unwrap();
    spoil(&path);
    let (_dir, store) = kept();
    let (cx, _probe) = bed.cx::<S3Backup>();
    let mut daemon = daemon(&bed, &store, eager());
    let status = done(daemon.cycle(&cx).await);
    assert!(is_there(&store, &good) && !is_there(&store, &gone));
    assert_eq!(newest(&store).lacks, std::slice::from_ref(&gone));
    let Health::Degraded(sentence) = daemon.health(&status) else { panic!("healthy") };
    assert!(sentence.contains(gone.as_str()), "{sentence}");
    let again = done(daemon.cycle(&cx).await);
    assert_eq!(again.manifests, status.manifests, "the same lack is not written twice");

    fs_err::remove_file(&path).unwrap();
    bed.put("g1");
    let status = done(daemon.cycle(&cx).await);
    assert_eq!(daemon.health(&status), Health::Healthy);
    assert!(newest(&store).lacks.is_empty() && is_there(&store, &gone));

    let given_up = bed.batch(hex(), &["g3"]).await;
    spoil(&bed.blobs.path_of(&given_up).await.unwrap().unwrap());
    assert_eq!(done(daemon.cycle(&cx).await).lacks.len(), 1);
    bed.record(vec![ArtefactTrashed { hash: given_up, reason: "old".into() }.into()]).await;
    assert!(done(daemon.cycle(&cx).await).lacks.is_empty());
}

#[tokio::test]
async fn a_store_that_is_away_is_an_obstacle_and_an_alarm_until_it_is_back() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let (dir, store) = kept();
    let aside = dir.path().with_extension("aside");
    fs_err::rename(dir.path(), &aside).unwrap();
    let (cx, _probe) = bed.cx::<S3Backup>();
    let mut daemon = daemon(&bed, &store, eager());
    let reason = blocked(daemon.cycle(&cx).await);
    assert!(reason.contains("of the far store is not there"), "{reason}");
    assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some());
    fs_err::rename(&aside, dir.path()).unwrap();
    assert_eq!(done(daemon.cycle(&cx).await).behind, 0);
    assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
}

#[tokio::test]
async fn another_history_is_left_alone_and_the_same_beginning_is_gone_on_with() {
    let (_dir, store) = kept();
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let (cx, _probe) = bed.cx::<S3Backup>();
    done(daemon(&bed, &store, eager()).cycle(&cx).await);
    let written = newest(&store);

    let other = Bed::new().await;
    other.batch(hex(), &["g1"]).await;
    other.batch(hex(), &["g2"]).await;
    other.batch(hex(), &["g3"]).await;
    let reason = blocked(daemon(&other, &store, eager()).cycle(&cx).await);
    assert!(reason.contains("holds another history"), "{reason}");
    assert_eq!(newest(&store), written);

    // The same facts in another log, as a restore makes it, and one more.
    let copy = Bed::new().await;
    let facts = bed.catalogue.log().read(Stream::Pipeline, 0, 1000).await.unwrap();
    for fact in &facts {
        let batch = courier::Batch::new(vec![crate::again(fact)]);
        copy.catalogue.log().append(Stream::Pipeline, batch, fact.time_ms).await.unwrap();
    }
    for row in bed.catalogue.blobs(None).await.unwrap() {
        let (hash, depot) = (parse(&row.hash).unwrap(), bed.blobs.depot());
        let path = depot.path_of(&hash).unwrap().unwrap();
        copy.blobs.depot().put_file(&path, "bin").unwrap();
    }
    copy.batch(hex(), &["g9"]).await;
    let status = done(daemon(&copy, &store, eager()).cycle(&cx).await);
    assert_eq!((status.copied, status.behind), (1, 0));
    assert_eq!(newest(&store).facts, written.facts + 1);
    // The older log does not hold what is there now.
    let reason = blocked(daemon(&bed, &store, eager()).cycle(&cx).await);
    assert!(reason.contains("holds another history"), "{reason}");
}

#[tokio::test]
async fn a_pointer_that_is_damaged_or_moved_is_seen_before_anything_is_written() {
    let bed = Bed::new().await;
    let games = bed.batch(hex(), &["g1"]).await;
    let (dir, store) = kept();
    let (cx, _probe) = bed.cx::<S3Backup>();
    let mut one = daemon(&bed, &store, eager());
    let mut other = daemon(&bed, &store, eager());
    done(one.cycle(&cx).await);
    done(other.cycle(&cx).await);
    bed.batch(hex(), &["g2"]).await;
    done(one.cycle(&cx).await);
    let reason = blocked(other.cycle(&cx).await);
    assert!(reason.contains("somebody else wrote there"), "{reason}");
    assert_eq!(done(other.cycle(&cx).await).behind, 0, "it looks again and goes on");

    // Half a pointer, and a spoilt artefact: gone over, found, replaced.
    fs_err::write(dir.path().join("half"), "{\"facts\":").unwrap();
    fs_err::rename(dir.path().join("half"), dir.path().join("head")).unwrap();
    spoil(&object(dir.path(), &games));
    let status = done(daemon(&bed, &store, eager()).cycle(&cx).await);
    assert_eq!((status.copied, status.found, status.behind), (1, 1, 0));
    assert_eq!(newest(&store).history(), history(&bed).await);
}

#[tokio::test]
async fn a_leader_that_slept_before_its_pointer_goes_over_nothing_newer() {
    let bed = Bed::new().await;
    bed.batch(hex(), &["g1"]).await;
    let (slow, far) = Slow::new();
    let store = FarStore::of(far, &[]);
    let (cx, _probe) = bed.cx::<S3Backup>();
    let (mut older, mut newer) = (daemon(&bed, &store, eager()), daemon(&bed, &store, eager()));
    let leads_no_more = bed.next_epoch().await;
    bed.next_epoch().await;
    // Once over nothing, then over what both have seen, and where the log knows that another one leads.
    for (name, why) in [("g2", "somebody else wrote there"), ("g3", "of the lease manager is over")]
    {
        if name == "g3" {
            older.catalogue = leads_no_more.clone();
        }
        let (asleep, sleeps) = tokio::sync::oneshot::channel();
        let (wake, awake) = tokio::sync::oneshot::channel();
        slow.before_the_next(move || {
            asleep.send(()).unwrap();
            awake.blocking_recv().unwrap();
        });
        let leads = async {
            sleeps.await.unwrap();
            bed.batch(hex(), &[name]).await;
            done(newer.cycle(&cx).await);
            let written = newest(&store);
            wake.send(()).unwrap();
            written
        };
        let (woken, written) = tokio::join!(older.cycle(&cx), leads);
        let reason = blocked(woken);
        assert!(reason.contains(why), "{reason}");
        assert_eq!(newest(&store), written);
        assert_eq!(written.history(), history(&bed).await);
        let status = done(older.cycle(&cx).await);
        assert_eq!(
            (status.behind, status.manifests),
            (0, 0),
            "it looks again, and finds all there"
        );
        bed.batch(hex(), &[&format!("{name}-more")]).await;
    }
    assert_eq!(done(older.cycle(&cx).await).manifests, 1, "and goes on");
    assert_eq!(newest(&store).history(), history(&bed).await);
}

#[tokio::test]
async fn a_role_that_is_wanted_later_is_copied_from_the_beginning() {
    let bed = Bed::new().await;
    let rows = samples(&bed, hex(), "s", 30).await;
    bed.batch(hex(), &["g1"]).await;
    let (_dir, wide) = kept();
    let far = wide.get().unwrap().far.clone();
    let (cx, _probe) = bed.cx::<S3Backup>();
    let narrow = FarStore::of(far, &[]);
    done(daemon(&bed, &narrow, eager()).cycle(&cx).await);
    assert!(!is_there(&narrow, &rows));
    let config = Config { max_copied_per_manifest: 1, ..eager() };
    done(daemon(&bed, &wide, config).cycle(&cx).await);
    assert!(is_there(&wide, &rows));
    assert_eq!(newest(&wide).roles, ["games", "records", "samples", "weights"]);
}

#[tokio::test]
async fn a_stop_in_mid_cycle_writes_nothing() {
    let bed = Bed::new().await;
    let weights = bed.put("weights");
    bed.record(vec![
        ModelCreated {
            model: ModelId::new(hex(), 0),
            config: hex(),
            generation: 0,
            parent: None,
            weights,
            bytes: 7,
        }
        .into(),
    ])
    .await;
    let (dir, store) = kept();
    stops_in_mid_cycle(&bed, daemon(&bed, &store, eager())).await;
    assert!(!dir.path().join("head").exists());
}
