//! What was acknowledged survives the death of the process, and what is damaged is refused.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use courier::{Batch, Embedded, NewFact, OpenError, Options, Stream};
use serde_json::json;

/// Names the file for the child; set only there.
const CHILD_FILE: &str = "COURIER_TEST_FILE";

fn fact(id: &str) -> NewFact {
    NewFact::new(id, "s", "child", json!({ "filling": "x".repeat(200) }))
}

/// Not a test: the process that is killed in `acknowledged_appends_survive_sigkill`. Appends from
/// eight tasks and prints each id when its append has returned.
#[test]
#[ignore = "the child process of another test"]
fn child_that_appends_until_it_is_killed() {
    let Some(file) = std::env::var_os(CHILD_FILE).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let log = Embedded::open(&file, Options::default()).unwrap();
        let life = std::process::id();
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8 {
            let log = log.clone();
            tasks.spawn(async move {
                for n in 0.. {
                    let id = format!("{life}-{task}-{n}");
                    let pair = Batch::new(vec![fact(&id), fact(&format!("{id}-b"))]);
                    log.append(Stream::Pipeline, pair, 1).await.unwrap();
                    println!("kept {id}");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
}

#[tokio::test]
async fn acknowledged_appends_survive_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let mut acknowledged = Vec::new();
    // Killed after so many acknowledgements, in the middle of others.
    for lives in [1, 37, 400] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("durability::child_that_appends_until_it_is_killed")
            .env(CHILD_FILE, &file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < lives {
            let line = lines.next().expect("the child ended by itself").unwrap();
            if let Some(id) = line.strip_prefix("kept ") {
                acknowledged.push(id.to_owned());
                seen += 1;
            }
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        // What it still got out before it died was acknowledged as well.
        let rest = lines.map(|line| line.unwrap());
        acknowledged.extend(rest.filter_map(|line| Some(line.strip_prefix("kept ")?.to_owned())));
    }

    let log = Embedded::open(&file, Options::default()).unwrap();
    let facts = log.read(Stream::Pipeline, 0, usize::MAX >> 1).await.unwrap();
    let ids: HashSet<&str> = facts.iter().map(|fact| fact.id.as_str()).collect();
    assert_eq!(ids.len(), facts.len(), "no fact is there twice");
    for id in &acknowledged {
        assert!(ids.contains(id.as_str()), "{id} was acknowledged and is gone");
    }
    for id in &ids {
        let other = id.strip_suffix("-b").map_or(format!("{id}-b"), str::to_owned);
        assert!(ids.contains(other.as_str()), "{id} is there without the other half of its batch");
    }
}

#[test]
fn what_is_no_log_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("facts");
    let check = |expected: &str| {
        let before = fs_err::read(&file).unwrap();
        for result in [
            Embedded::open(&file, Options::default()).map(drop),
            Embedded::open_read_only(&file).map(drop),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} should contain {expected:?}");
            assert!(error.contains("facts"), "{error:?} should name the file");
        }
        assert_eq!(fs_err::read(&file).unwrap(), before, "the file was changed");
    };

    fs_err::write(&file, "a letter to my aunt, which is certainly not a database").unwrap();
    check("is damaged");

    fs_err::remove_file(&file).unwrap();
    let other = courier::rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("CREATE TABLE t (x); PRAGMA application_id = 77;").unwrap();
    drop(other);
    check("is not a log of this program (application id 0x4d)");

    fs_err::remove_file(&file).unwrap();
    drop(Embedded::open(&file, Options::default()).unwrap());
    let newer = courier::rusqlite::Connection::open(&file).unwrap();
    newer.execute_batch("PRAGMA user_version = 9;").unwrap();
    newer.close().unwrap();
    // Switching back would change the file; the write-ahead mode stays in its header.
    check("has format 9, this program knows up to 1");
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("facts.sqlite");
    let log = Embedded::open(&file, Options::default()).unwrap();
    for n in 0..20 {
        let facts = (0..100).map(|i| fact(&format!("{n}-{i}"))).collect();
        log.append(Stream::Pipeline, Batch::new(facts), 1).await.unwrap();
    }
    drop(log);
    let sound = fs_err::read(&file).unwrap();
    assert!(sound.len() > 100 * 4096);
    let mut damaged = sound.clone();
    damaged[40 * 4096..60 * 4096].fill(0xA5);
    fs_err::write(&file, &damaged).unwrap();
    let error = Embedded::open(&file, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("facts.sqlite is damaged"), "{sentence}");
    assert!(sentence.contains("put back a copy"), "{sentence}");
    assert_eq!(fs_err::read(&file).unwrap(), damaged, "nothing was changed");

    let cut = &sound[..sound.len() / 2];
    fs_err::write(&file, cut).unwrap();
    let error = Embedded::open(&file, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");

    fs_err::write(&file, &sound).unwrap();
    let log = Embedded::open(&file, Options::default()).unwrap();
    assert_eq!(log.head(Stream::Pipeline).await.unwrap(), 2000);
}

#[test]
fn a_place_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("file"), "").unwrap();
    let below = dir.path().join("file").join("log");
    assert!(Embedded::open(&below, Options::default()).is_err());
    assert!(Embedded::open(Path::new("/proc/no/log"), Options::default()).is_err());
}
