//! The three common issues of the runbook, acted out with real causes: the operator sees the cause
//! in one command.

use std::time::Duration;

use courier::{Embedded, Options, rusqlite::Connection};
use tempfile::{TempDir, tempdir};
use tokio::time::Instant;

use crate::manager::Manager;

/// Crashes, pauses and all, on a busy machine.
const SOON: Duration = Duration::from_secs(45);

/// Waits until `status` has a line about a daemon that says all of this; returns the line.
fn told(manager: &Manager, daemon: &str, parts: &[&str]) -> String {
    let begins = format!("  {daemon}: ");
    let began = Instant::now();
    loop {
        let status = manager.ask(&["status"]).out;
        let line = status.lines().find(|line| line.starts_with(&begins)).unwrap();
        if parts.iter().all(|part| line.contains(part)) {
            return line.to_owned();
        }
        assert!(began.elapsed() < SOON, "{daemon} never says {parts:?}, but {line}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A log that another tool has damaged: SQLite finds nothing wrong with the file, but a table of ours
/// is gone.
fn without_positions() -> TempDir {
    let dir = tempdir().unwrap();
    let path = dir.path().join("data/facts.sqlite");
    drop(Embedded::open(&path, Options::default()).unwrap());
    Connection::open(&path).unwrap().execute_batch("DROP TABLE subscriber").unwrap();
    dir
}

#[test]
fn a_daemon_stuck_in_starting_names_whom_it_waits_for_and_that_one_names_the_cause() {
    let env = [("RINGRIFT_DAEMON_RESTART_MAX", "1")];
    let manager = Manager::ready_with(without_positions(), &[], &env);
    told(&manager, "EVALUATION", &["STARTING (waiting for EVENT_ROUTER)"]);
    told(&manager, "EVENT_ROUTER", &["FAILED", "facts.sqlite: no such table: subscriber"]);
    // It is a wait, not a crash.
    let waits = &manager.ask(&["status", "--json"]).json()["daemons"]["EVALUATION"];
    assert_eq!((&waits["state"], &waits["restarts"]), (&"starting".into(), &0.into()), "{waits}");
    // The history says the same.
    let events = manager.ask(&["events", "--topic", "daemon_status_changed", "--limit", "500"]).out;
    let failed =
        events.lines().find(|line| line.contains("EVENT_ROUTER: ") && line.contains("-> failed"));
    assert!(failed.is_some_and(|line| line.contains("no such table: subscriber")), "{events}");
}

#[test]
fn a_daemon_that_keeps_crashing_names_the_error_and_the_file() {
    let env = [
        ("RINGRIFT_DAEMON_RESTART_MAX", "1"),
        ("RINGRIFT_DISK_SPACE_MANAGER_INTERVAL", "0.1"),
        ("RINGRIFT_DISK_SPACE_MANAGER_SWEEP_EVERY", "0.1"),
    ];
    let manager = Manager::ready_with(tempdir().unwrap(), &[], &env);
    told(&manager, "DISK_SPACE_MANAGER", &["RUNNING (healthy)"]);
    // Somebody moves the trash to another disk, and that disk goes away.
    let trash = manager.data().join("trash");
    fs_err::remove_dir(&trash).unwrap();
    fs_err::write(&trash, "moved").unwrap();
    let line = told(&manager, "DISK_SPACE_MANAGER", &["FAILED", "data/trash", "Not a directory"]);
    let daemon = &manager.ask(&["status", "--json"]).json()["daemons"]["DISK_SPACE_MANAGER"];
    assert_eq!(daemon["restarts"], 1, "{line}");
    let failed = manager.ask(&["events", "--topic", "daemon.status_changed", "--limit", "500"]).out;
    assert!(
        failed.lines().any(|line| line.contains("DISK_SPACE_MANAGER")
            && line.contains("-> failed")
            && line.contains("Not a directory")),
        "{failed}"
    );
}

#[test]
fn failing_health_names_what_the_daemon_lacks() {
    let env = [("RINGRIFT_AUTO_SYNC_MIRROR", "mirror")];
    let manager = Manager::ready_with(tempdir().unwrap(), &[], &env);
    told(&manager, "AUTO_SYNC", &["RUNNING (degraded - the mirror mirror is not there)"]);
    // The disk is mounted, and nothing need be restarted.
    fs_err::create_dir(manager.folder().join("mirror")).unwrap();
    told(&manager, "AUTO_SYNC", &["RUNNING (healthy)"]);
    let daemon = &manager.ask(&["status", "--json"]).json()["daemons"]["AUTO_SYNC"];
    assert_eq!(daemon["restarts"], 0, "{daemon}");
}

/// A manager whose program for seeds is a shell script.
fn with_worker(script: &str) -> Manager {
    let dir = tempdir().unwrap();
    let command = serde_json::json!(["/bin/sh", "-c", script]);
    let file = format!("[workers.seed]\ncommand = {command}\n");
    fs_err::write(dir.path().join("ringrift.toml"), file).unwrap();
    Manager::ready_in(dir, &[])
}

#[test]
fn a_worker_program_that_fails_is_quoted() {
    let manager = with_worker("echo no licence found >&2; exit 1");
    told(
        &manager,
        "TRAINING_TRIGGER",
        &["RUNNING (degraded - failed", "the worker left with code 1: no licence found"],
    );
    let why = manager.ask(&["why", "hex8_2p"]).out;
    assert!(why.contains("! TRAINING_TRIGGER: there is no model yet"), "{why}");
}

#[test]
fn a_worker_program_that_lies_is_not_believed() {
    let manager = with_worker(
        "printf abc > w; \
         echo '{\"type\":\"artefact\",\"role\":\"weights\",\"file\":\"w\",\"bytes\":3,\
         \"hash\":\"0000000000000000000000000000000000000000000000000000000000000000\"}'; \
         echo '{\"type\":\"result\",\"report\":{}}'",
    );
    told(&manager, "TRAINING_TRIGGER", &["degraded - failed", "hash"]);
    assert_eq!(manager.ask(&["models"]).out, "no models yet\n");
}
