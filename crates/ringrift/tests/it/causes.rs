//! The runbook's "Common Issues", with real causes: the operator sees each cause in one command.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use courier::{Embedded, Options, rusqlite::Connection};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::{
    bench::{Ended, wait_for},
    manager::{Manager, START},
};

/// A manager whose configuration was written first.
fn manager(dir: TempDir, config: &str, more: &[&str]) -> Manager {
    let data = dir.path().join("data");
    fs_err::create_dir_all(&data).unwrap();
    fs_err::write(data.join("ringrift.toml"), config).unwrap();
    Manager::up_in(dir, more).answering()
}

/// Asks for the health of a daemon until it says this, then once more for people.
fn sees(manager: &Manager, daemon: &str, what: &str, is: impl Fn(&Value) -> bool) -> Ended {
    wait_for(what, START, || is(&manager.ask(&["health", daemon, "--json"]).json()).then_some(()));
    manager.ask(&["health", daemon])
}

fn has(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, code, "{ended:?}");
    for part in parts {
        assert!(ended.out.contains(part), "{part} is missing in:\n{}", ended.out);
    }
}

/// Something lies where a folder must be, so that the daemon's cycle fails each time.
fn break_trash(data: &Path) {
    let trash = data.join("trash");
    fs_err::remove_dir_all(&trash).unwrap();
    fs_err::write(trash, "no folder").unwrap();
}

/// And the folder is there again.
fn mend_trash(data: &Path) {
    fs_err::remove_file(data.join("trash")).unwrap();
    fs_err::create_dir(data.join("trash")).unwrap();
}

/// A manager whose two disk daemons run; the pause is the first after a crash, in seconds.
fn with_disk_daemons(restart_max: u32, pause: f64) -> Manager {
    let config = format!(
        "[manager]\nrestart_max = {restart_max}\nrestart_base = {pause}\nrestart_cap = {pause}\n\
         [daemons.disk_space_manager]\ninterval = 0.1\nsweep_every = 0.1\n"
    );
    let manager = manager(tempdir().unwrap(), &config, &["--profile", "minimal"]);
    assert_eq!(manager.ask(&["start", "COORDINATOR_DISK_MANAGER"]).code, 0);
    sees(&manager, "COORDINATOR_DISK_MANAGER", "it to run", state("running"));
    manager
}

fn state(is: &'static str) -> impl Fn(&Value) -> bool {
    move |daemon| daemon["state"] == is
}

#[test]
fn a_daemon_that_keeps_crashing_shows_its_error_and_what_to_do() {
    let manager = with_disk_daemons(1, 0.05);
    break_trash(&manager.data());
    let crashed = sees(&manager, "DISK_SPACE_MANAGER", "the end of its restarts", state("failed"));
    has(
        &crashed,
        1,
        &[
            "DISK_SPACE_MANAGER: FAILED (given up after 1 restart",
            "last error  ",
            "trash`: Not a directory",
            "restarts    1",
            "`ringrift retry DISK_SPACE_MANAGER --force`",
            "ERROR DISK_SPACE_MANAGER: daemon given up",
        ],
    );
    let status = manager.ask(&["status"]).out;
    assert!(status.contains("trash`: Not a directory"), "{status}");
    let doctor = manager.ask(&["doctor"]);
    has(&doctor, 1, &["problem  daemons: DISK_SPACE_MANAGER: FAILED", "`ringrift health NAME`"]);
    // What needs it goes on, and says so.
    let needs = sees(&manager, "COORDINATOR_DISK_MANAGER", "it to miss its need", |daemon| {
        daemon["health"] == "degraded"
    });
    has(
        &needs,
        0,
        &["degraded - needs DISK_SPACE_MANAGER", "`ringrift health DISK_SPACE_MANAGER`"],
    );

    // Who is tried again does not revive what was given up beside it, and says so.
    assert_eq!(manager.ask(&["stop", "COORDINATOR_DISK_MANAGER"]).code, 0);
    let tried = manager.ask(&["retry", "COORDINATOR_DISK_MANAGER"]);
    assert_eq!((tried.code, tried.out.as_str()), (0, "COORDINATOR_DISK_MANAGER is retried\n"));
    let left = "it waits for DISK_SPACE_MANAGER, which was given up and is left so";
    assert!(tried.err.contains(left), "{tried:?}");
    let needed = manager.ask(&["health", "DISK_SPACE_MANAGER", "--json"]).json();
    assert_eq!(needed["state"], "failed", "{needed}");

    mend_trash(&manager.data());
    assert_eq!(manager.ask(&["retry", "DISK_SPACE_MANAGER", "--force"]).code, 0);
    sees(&manager, "DISK_SPACE_MANAGER", "it to run again", state("running"));
}

#[test]
fn a_daemon_stuck_in_starting_shows_for_whom_it_waits_and_that_one_why() {
    let manager = with_disk_daemons(5, 600.0);
    break_trash(&manager.data());
    let waits = sees(&manager, "DISK_SPACE_MANAGER", "its first crash", state("restarting"));
    has(&waits, 1, &["RESTARTING (restart 1 of 5: ", "Not a directory", "next try    in "]);
    assert_eq!(manager.ask(&["restart", "COORDINATOR_DISK_MANAGER"]).code, 0);
    let stuck = sees(&manager, "COORDINATOR_DISK_MANAGER", "it to wait", state("starting"));
    has(
        &stuck,
        0,
        &[
            "STARTING (waiting for DISK_SPACE_MANAGER)",
            "DISK_SPACE_MANAGER: RESTARTING (restart 1 of 5: ",
            "`ringrift health DISK_SPACE_MANAGER` says what",
        ],
    );

    mend_trash(&manager.data());
    assert_eq!(manager.ask(&["retry", "DISK_SPACE_MANAGER"]).code, 0);
    sees(&manager, "COORDINATOR_DISK_MANAGER", "it to start", state("running"));
}

#[test]
fn a_daemon_of_bad_health_shows_message_and_details_and_the_words_of_its_worker() {
    let dir = tempdir().unwrap();
    fs_err::write(dir.path().join("file"), "no folder").unwrap();
    let worker = dir.path().join("broken-worker");
    fs_err::write(&worker, "#!/bin/sh\necho 'no such weights' >&2\nexit 1\n").unwrap();
    fs_err::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!(
        "[daemons.auto_sync]\nmirror = '{}'\n[workers.selfplay]\ncommand = ['{}']\n",
        dir.path().join("file/mirror").display(),
        worker.display()
    );
    let manager = manager(dir, &config, &[]);

    let says = |part: &'static str| {
        move |daemon: &Value| daemon["message"].as_str().is_some_and(|text| text.contains(part))
    };
    let sync = sees(&manager, "AUTO_SYNC", "the mirror to be missed", says("the mirror"));
    has(
        &sync,
        0,
        &["AUTO_SYNC: RUNNING (degraded - the mirror ", "message     the mirror", "faults = "],
    );
    let player = sees(&manager, "IDLE_RESOURCE", "the worker to fail", says("the worker left"));
    has(&player, 0, &["the worker left with code 1", "failed = ", "no such weights"]);
    let words = manager.ask(&["logs", "--worker", "selfplay", "-n", "1"]);
    has(&words, 0, &["no such weights"]);
}

/// Waits until `status` has a line about a daemon that says all of this; returns the line.
fn told(manager: &Manager, daemon: &str, parts: &[&str]) -> String {
    let begins = format!("  {daemon}: ");
    wait_for(&format!("{daemon} to say {parts:?}"), START, || {
        let status = manager.ask(&["status"]).out;
        let line = status.lines().find(|line| line.starts_with(&begins)).unwrap();
        parts.iter().all(|part| line.contains(part)).then(|| line.to_owned())
    })
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
