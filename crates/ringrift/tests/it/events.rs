//! What happened, and what could not be handled: read beside a manager and without one.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use courier::{Batch, Courier, Embedded, NewFact, Options, Stream};
use ringrift_pipeline::{
    BatchRejected, BlobHash, ChampionInstalled, DaemonStatusChanged, Event, ModelId, Operational,
    WorkClaimed, WorkId,
};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::{
    bench::{Ended, check_refused, command, run},
    manager::Manager,
};

/// A folder with a log in its data directory, made by `fill`.
fn log(fill: impl AsyncFnOnce(&Courier)) -> TempDir {
    let dir = tempdir().unwrap();
    let path = dir.path().join("data/facts.sqlite");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let log = Embedded::open(&path, Options::default()).unwrap();
        fill(&log).await;
    });
    dir
}

async fn append(log: &Courier, stream: Stream, subject: &str, body: &Value, time_ms: i64) -> u64 {
    let fact = NewFact::new(format!("{subject}/{time_ms}"), subject, "test", body.clone());
    log.append(stream, Batch::new(vec![fact]), time_ms).await.unwrap()[0]
}

async fn tell(log: &Courier, event: impl Into<Event>, time_ms: i64) -> u64 {
    let event = event.into();
    let body = serde_json::to_value(&event).unwrap();
    append(log, Stream::Pipeline, &event.subject(), &body, time_ms).await
}

fn champion(config: &str) -> ChampionInstalled {
    let config = config.parse().unwrap();
    ChampionInstalled { model: ModelId::new(config, 0), config }
}

fn ask(folder: &Path, args: &[&str]) -> Ended {
    run(folder, &args.iter().copied().chain(["--data", "data"]).collect::<Vec<_>>())
}

/// Positions of the facts that are shown.
fn shown(folder: &Path, args: &[&str]) -> Vec<(String, u64)> {
    let args: Vec<&str> = ["events", "--json"].iter().chain(args).copied().collect();
    let facts = ask(folder, &args).json();
    let facts = facts.as_array().unwrap().iter();
    facts
        .map(|fact| {
            (fact["stream"].as_str().unwrap().to_owned(), fact["position"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn facts_are_told_a_line_each_by_topic_config_stream_and_place() {
    let dir = log(async |log| {
        tell(log, champion("hex8_2p"), 1_000).await;
        tell(log, champion("square8_2p"), 2_000).await;
        let config = "hex8_2p".parse().unwrap();
        let work = WorkId("train-hex8_2p-000001".into());
        let node = ringrift_pipeline::NodeId("here".into());
        tell(log, WorkClaimed { work, attempt: 1, node, epoch: 1 }, 3_000).await;
        let reason = "game 3 does not replay:\n\u{1b}[31mno ring".into();
        let batch = BlobHash("a".repeat(64));
        tell(log, BatchRejected { batch, config, reason }, 4_000).await;
        let changed = Operational::from(DaemonStatusChanged {
            daemon: "AUTO_SYNC".into(),
            from: "starting".into(),
            to: "failed".into(),
            reason: "exception".into(),
            error: Some("no such table".into()),
        });
        let body = serde_json::to_value(&changed).unwrap();
        append(log, Stream::Operational, &changed.subject(), &body, 2_500).await;
        for odd in 0..1200_i64 {
            let body = json!({ "topic": "moon.landed" });
            append(log, Stream::Pipeline, &format!("odd.{odd}"), &body, 5_000 + odd).await;
        }
    });
    let folder = dir.path();
    let pipeline = |positions: &[u64]| -> Vec<(String, u64)> {
        positions.iter().map(|position| ("pipeline".to_owned(), *position)).collect()
    };

    // Both streams, in the order of time.
    let told = ask(folder, &["events", "--limit", "1203"]).out;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 1203, "the newest ones");
    assert_eq!(
        lines[..4],
        [
            "1970-01-01T00:00:02Z  o1        daemon.status_changed  -             AUTO_SYNC: starting -> failed (no such table)",
            "1970-01-01T00:00:03Z  p3        work.claimed           hex8_2p       train-hex8_2p-000001 is taken by here (attempt 1)",
            "1970-01-01T00:00:04Z  p4        games.rejected         hex8_2p       a batch of games is refused: game 3 does not replay: |  [31mno ring",
            "1970-01-01T00:00:05Z  p5        moon.landed            -             a fact that this version does not know",
        ]
    );
    // The newest ones that are meant, however far back they lie.
    assert_eq!(shown(folder, &["--config", "hex8_2p", "--limit", "2"]), pipeline(&[3, 4]));
    assert_eq!(shown(folder, &["--config", "hex8_2p"]), pipeline(&[1, 3, 4]));
    assert_eq!(shown(folder, &["--topic", "champion.installed"]), pipeline(&[1, 2]));
    assert_eq!(shown(folder, &["--topic", "CHAMPION_INSTALLED", "--limit", "1"]), pipeline(&[2]));
    assert_eq!(shown(folder, &["--topic", "work"]), pipeline(&[3]));
    assert_eq!(shown(folder, &["--topic", "daemon_started"]), [("operational".to_owned(), 1)]);
    assert_eq!(shown(folder, &["--stream", "operational"]), [("operational".to_owned(), 1)]);
    // From a place on.
    assert_eq!(shown(folder, &["--after", "0", "--limit", "2"]), pipeline(&[1, 2]));
    assert_eq!(shown(folder, &["--after", "1", "--config", "hex8_2p"]), pipeline(&[3, 4]));
    assert_eq!(shown(folder, &["--after", "1203"]), pipeline(&[1204]));
    assert_eq!(shown(folder, &["--after", "1204"]), []);
    assert_eq!(ask(folder, &["events", "--after", "1204"]).out, "no such facts\n");
    let fact = &ask(folder, &["events", "--after", "3", "--limit", "1", "--json"]).json()[0];
    assert_eq!(
        (&fact["topic"], &fact["config"], &fact["source"]),
        (&"games.rejected".into(), &"hex8_2p".into(), &"test".into())
    );
    check_refused(
        &ask(folder, &["events", "--topic", "model_promotd"]),
        2,
        &["unknown topic 'model_promotd'", "did you mean model.promoted?"],
    );
}

#[test]
fn the_tail_tells_what_happens_until_the_manager_ends() {
    let manager = Manager::ready(&[]);
    let mut tail = command(manager.folder(), &["events", "--tail", "--json", "--data", "data"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    // Something that cannot have happened before the first line was read.
    assert!(lines.next().unwrap().unwrap().starts_with('{'));
    assert_eq!(manager.ask(&["stop", "AUTO_SYNC"]).code, 0);
    let told = lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let stopped = told
        .into_iter()
        .find(|fact| fact["body"]["daemon"] == "AUTO_SYNC" && fact["body"]["to"] == "stopped");
    assert_eq!(stopped.unwrap()["stream"], "operational");
    assert_eq!(manager.ask(&["stop"]).code, 0);
    assert!(lines.all(|line| line.unwrap().starts_with('{')), "one object a line to the end");
    let ended: Ended = tail.wait_with_output().unwrap().into();
    assert_eq!((ended.code, ended.err.as_str()), (0, "the manager has ended\n"));
}
