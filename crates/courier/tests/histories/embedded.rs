//! The engine of one machine: tasks of one process, and a process that is killed.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use courier::conformance::histories::{History, Life, Tally, facts, record, resolve, run};
use courier::{Embedded, Options};

use crate::{ROUNDS, judge};

/// Names the file for the child, and which life it is; set only there.
const CHILD_FILE: &str = "COURIER_HISTORIES_FILE";
const CHILD_LIFE: &str = "COURIER_HISTORIES_LIFE";

/// Answers of each life before it is killed.
const LIVES: [usize; 4] = [25, 60, 41, 90];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_one_process() {
    for seed in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("log"), Options::default()).unwrap();
        let tally = judge(record(&vec![log; 4], seed, 100).await.unwrap());
        assert!(tally.count(Tally::TAKEN_OVER) > 0, "no lease ran out");
    }
}

/// Not a test: the process that is killed in `a_process_that_is_killed`.
#[test]
#[ignore = "the child process of another test"]
fn child_that_works_until_it_is_killed() {
    let Some(file) = std::env::var_os(CHILD_FILE).map(PathBuf::from) else { return };
    let life = std::env::var_os(CHILD_LIFE).unwrap().into_string().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let log = Embedded::open(&file, Options::default()).unwrap();
        let history = Arc::new(History::told());
        run(&vec![log; 3], &history, &life, 1_000_000).await.unwrap();
    });
}

#[tokio::test]
async fn a_process_that_is_killed() {
    for seed in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let history = History::default();
        for (life, answers) in LIVES.into_iter().enumerate() {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "--nocapture"])
                .arg("embedded::child_that_works_until_it_is_killed")
                .env(CHILD_FILE, &file)
                .env(CHILD_LIFE, format!("{seed}.{life}"))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut reading = Life::new(&history);
            let mut seen = 0;
            while seen < answers {
                let line = lines.next().expect("the child ended by itself").unwrap();
                seen += usize::from(reading.take(&line));
            }
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9));
            // What it still got out before it died.
            for line in lines {
                reading.take(&line.unwrap());
            }
        }
        let log = Embedded::open(&file, Options::default()).unwrap();
        let facts = facts(&log).await.unwrap();
        judge(resolve(history.operations(), &facts));
    }
}
