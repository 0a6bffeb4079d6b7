//! What happened, and what could not be handled: read beside a manager and without one.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    time::Duration,
};

use courier::{Batch, Courier, Embedded, NewFact, NewLetter, Options, Stream};
use ringrift_pipeline::{
    BatchRejected, BlobHash, ChampionInstalled, DaemonStatusChanged, Event, ModelId, Operational,
    WorkClaimed, WorkId,
};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::{
    bench::{Ended, check_refused, command, run, wait_for},
    manager::Manager,
};

/// One look of the router for letters, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

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

/// A log with a letter that could be handled, and a fact that never can.
fn undelivered() -> TempDir {
    log(async |log| {
        let position = tell(log, champion("hex8_2p"), 1_000).await;
        let letter = NewLetter {
            subscriber: "event_router".into(),
            stream: Stream::Pipeline,
            position,
            error: "it was interrupted".into(),
            attempts: 3,
        };
        log.bury(letter, 1_000).await.unwrap();
        let body = json!({ "topic": "odd.happened", "text": "x".repeat(200) });
        append(log, Stream::Pipeline, "odd.thing", &body, 2_000).await;
    })
}

#[test]
fn dead_letters_are_shown_retried_and_purged() {
    // Without DLQ_RETRY: nobody but the test retries.
    let manager = Manager::ready_in(undelivered(), &["--profile", "minimal"]);
    let stats = || manager.ask(&["dlq", "--json"]).json()["stats"].clone();
    wait_for("the router to bury what it cannot read", SOON, || {
        (stats()["pending"] == 2).then_some(())
    });
    let text = manager.ask(&["dlq", "--pending", "--health"]).out;
    for part in [
        "  DLQ Statistics\n",
        "Total events: 2\n",
        "  odd.happened: 1\n",
        "  DLQ Health\n",
        "Status: HEALTHY\n",
        "[1] Event ID: 2\n    Type: odd.happened\n    Handler: event_router\n    Attempts: 3\n",
        "    Last retry: N/A\n",
        "    Error: not an event of this version: unknown variant `odd.happened`",
        "[2] Event ID: 1\n    Type: champion.installed\n",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(text.lines().all(|line| line.len() < 130), "long texts are cut: {text}");
    let odd = manager.ask(&["dlq", "--pending", "-t", "odd.happened", "--json"]).json();
    assert_eq!(
        (odd["pending"].as_array().unwrap().len(), &odd["pending"][0]["id"]),
        (1, &2.into())
    );
    let whole = manager.ask(&["dlq", "show", "2"]).out;
    assert!(whole.contains(&"x".repeat(200)) && whole.contains("State: pending"), "{whole}");
    check_refused(&manager.ask(&["dlq", "show", "9"]), 2, &["no dead letter has the number 9"]);
    check_refused(&manager.ask(&["dlq", "-t", "od.hapened"]), 2, &["unknown topic 'od.hapened'"]);

    // One at a time, the oldest first: the one that can be handled.
    let retried = manager.ask(&["dlq", "retry", "--max", "1", "--json"]);
    let counts = |ended: &Ended| {
        let told = ended.json();
        ["found", "attempted", "succeeded", "failed"].map(|key| told[key].as_u64().unwrap())
    };
    assert_eq!((retried.code, counts(&retried)), (0, [2, 1, 1, 0]), "{retried:?}");
    // The other one fails once more, and a script learns it.
    let retried = manager.ask(&["dlq", "--retry", "--json"]);
    assert_eq!((retried.code, counts(&retried)), (1, [1, 1, 0, 1]), "{retried:?}");
    let failed = manager.ask(&["dlq", "--failed", "--json"]).json();
    assert_eq!(
        (&failed["failed"][0]["id"], &failed["failed"][0]["attempts"]),
        (&2.into(), &4.into())
    );
    // What was handled is not handled twice.
    let again = manager.ask(&["dlq", "retry", "1"]);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(
        again.out,
        "Found 1 events to retry\nAttempted: 0\nSucceeded: 0\nFailed: 0\nSkipped: 1\n"
    );
    check_refused(&manager.ask(&["dlq", "retry", "9"]), 2, &["no dead letter has the number 9"]);
    let daemon = manager.ask(&["dlq", "--daemon-status"]).out;
    assert!(
        daemon.contains("  Retry Daemon Status\n") && daemon.contains("Status: STOPPED"),
        "{daemon}"
    );

    // Only what is over goes, and only when it is old enough.
    let purged = |args: &[&str]| manager.ask(args).json()["purged"].as_u64().unwrap();
    assert_eq!(purged(&["dlq", "--purge", "--older-than-days", "36500", "--json"]), 0);
    assert_eq!(purged(&["dlq", "purge", "--json"]), 1);
    assert_eq!((&stats()["total"], &stats()["pending"]), (&1.into(), &1.into()));
    assert_eq!(manager.ask(&["stop"]).code, 0);

    // The router has looked at everything, at letters as well.
    let standings = manager.ask(&["events", "--subscribers", "--json"]).json();
    let router = &standings.as_array().unwrap()[0];
    assert_eq!((&router["subscriber"], &router["lag"]), (&"event_router".into(), &0.into()));
    assert!(router["position"].as_u64() >= Some(2), "{router}");

    // Looking needs no manager.
    assert_eq!(stats()["pending"], 1);
    let daemon = manager.ask(&["dlq", "--daemon-status"]).out;
    assert!(daemon.contains("Message: no manager is running"), "{daemon}");
}
