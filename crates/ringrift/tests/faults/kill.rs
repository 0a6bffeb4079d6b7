//! SIGKILL for the manager and its workers, at random instants.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    thread,
    time::Duration,
};

use courier::{Embedded, Stream};
use ringrift_pipeline::Event;
use rustix::process::Signal;

use crate::manager::{
    Manager, SplitMix64, processes_in, promotions, reported, ringrift, signal, wait_for,
};

const MANAGER_KILLS: usize = 10;
const WORKER_KILLS: usize = 30;

/// The seeds of the suite; each is one whole run. More of them only cost time.
const SEEDS: [u64; 1] = [20_261_124];

#[test]
fn nothing_is_lost_or_doubled_whatever_is_killed_and_the_loop_goes_on() {
    for seed in SEEDS {
        let home = tempfile::tempdir().unwrap();
        run(home.path(), seed);
    }
}

fn run(home: &Path, seed: u64) {
    let data = home.join("data");
    let mut random = SplitMix64::new(seed);
    let mut batches: BTreeMap<String, u32> = BTreeMap::new();
    let mut killed = 0;

    for life in 1..=MANAGER_KILLS {
        let mut manager = Manager::up(&data, &[]);
        // A life is long enough for some work and short enough to be cut in the middle of any step.
        let mut left = Duration::from_millis(3_000 + below(&mut random, 22_000));
        let quota = (WORKER_KILLS * life).div_ceil(MANAGER_KILLS);
        while !left.is_zero() || killed < quota {
            let step = Duration::from_millis(100 + below(&mut random, 900));
            thread::sleep(step);
            left = left.saturating_sub(step);
            if let Some(status) = manager.ended() {
                panic!(
                    "life {life}: the manager left by itself with {status}; see {}/up.log",
                    home.display()
                );
            }
            let workers = manager.workers();
            if killed < quota && !workers.is_empty() {
                let which = random.below(workers.len());
                signal(workers[which], Signal::KILL);
                killed += 1;
            }
            for (batch, games) in reported(&data) {
                batches.insert(batch, games);
            }
        }
        let family = manager.kill();
        wait_for("every worker to die with the manager", Duration::from_secs(5), || {
            let orphans = family.iter().any(super::manager::Process::lives)
                || !processes_in(&data).is_empty();
            (!orphans).then_some(())
        });
        whole_files_only(&data);
        eprintln!(
            "seed {seed}: life {life} over, {killed} workers killed, {} batches reported",
            batches.len()
        );
    }
    assert_eq!(killed, WORKER_KILLS);

    let goal = promotions(&data) + 1;
    let manager =
        Manager::up(&data, &["--until", &format!("promotions>={goal}"), "--timeout", "30m"]);
    let status = manager.finish(Duration::from_mins(31));
    assert!(status.success(), "after the kills the loop did not go on to a promotion: {status}");

    let verify = ringrift(&["verify"], &data);
    assert!(
        verify.status.success(),
        "verify: {}{}",
        String::from_utf8_lossy(&verify.stdout),
        String::from_utf8_lossy(&verify.stderr)
    );
    audit(&data, &batches);
    assert!(processes_in(&data).is_empty());
}

/// A number of milliseconds.
fn below(random: &mut SplitMix64, most: usize) -> u64 {
    random.below(most) as u64
}

/// Every file under `blobs/` is complete: its name is the hash of its bytes.
fn whole_files_only(data: &Path) {
    let blobs = data.join("blobs");
    if !blobs.exists() {
        return;
    }
    for folder in fs_err::read_dir(&blobs).unwrap().map(Result::unwrap) {
        if !folder.file_type().unwrap().is_dir() {
            continue;
        }
        for file in fs_err::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            let name = file.file_name().into_string().unwrap();
            let Some((hash, _)) = name.split_once('.') else { continue };
            if hash.is_empty() {
                continue; // a temporary name: not visible as an artefact
            }
            let found = depot::Hash::of(&fs_err::read(file.path()).unwrap()).to_string();
            assert_eq!(found, hash, "a half-written file is visible: {}", file.path().display());
        }
    }
}

/// Reads the log itself: each reported batch is committed once and each of its games counts once,
/// each training ended once, each model was made once.
fn audit(data: &Path, batches: &BTreeMap<String, u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let events: Vec<Event> = runtime.block_on(async {
        let log = Embedded::open_read_only(&data.join("facts.sqlite")).unwrap();
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let facts = log.read(Stream::Pipeline, after, 500).await.unwrap();
            let Some(last) = facts.last() else { break events };
            after = last.position;
            events.extend(facts.into_iter().map(|fact| serde_json::from_value(fact.body).unwrap()));
        }
    });
    let mut committed: BTreeMap<String, u32> = BTreeMap::new();
    let mut rejected: BTreeSet<String> = BTreeSet::new();
    let mut games: BTreeSet<String> = BTreeSet::new();
    let mut trainings: BTreeSet<String> = BTreeSet::new();
    let mut models: BTreeSet<String> = BTreeSet::new();
    let mut completed: BTreeSet<String> = BTreeSet::new();
    let mut promoted = 0;
    for event in events {
        match event {
            Event::GamesCommitted(e) => {
                assert!(
                    committed.insert(e.batch.0.clone(), e.games).is_none(),
                    "{} twice",
                    e.batch
                );
            }
            Event::BatchAccepted(e) => {
                assert_eq!(committed.get(&e.batch.0), Some(&e.games), "{}", e.batch);
                assert_eq!(e.ids.len(), e.games as usize);
                for id in e.ids {
                    assert!(games.insert(id.clone()), "game {id} counts twice");
                }
            }
            Event::BatchRejected(e) => {
                rejected.insert(e.batch.0);
            }
            Event::TrainingCompleted(e) => {
                assert!(trainings.insert(e.work.0.clone()), "{} was counted twice", e.work);
            }
            Event::ModelCreated(e) => {
                assert!(models.insert(e.model.0.clone()), "{} was made twice", e.model);
            }
            Event::WorkCompleted(e) => {
                assert!(completed.insert(e.work.0.clone()), "{} was completed twice", e.work);
            }
            Event::ModelPromoted(_) => promoted += 1,
            _ => {}
        }
    }
    for (batch, count) in batches {
        assert_eq!(committed.get(batch), Some(count), "a reported batch is gone: {batch}");
    }
    assert!(rejected.is_empty(), "honest batches were refused: {rejected:?}");
    assert_eq!(models.len(), trainings.len() + 1, "generation 0 and one model per training");
    assert!(promoted >= 1);
    eprintln!(
        "{} batches, {} games, {} trainings, {promoted} promotions: each once",
        committed.len(),
        games.len(),
        trainings.len()
    );
}
