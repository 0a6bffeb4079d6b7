//! `launch_daemons`: the runbook's commands, word for word.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{
    bench::{Ended, check_refused, command_of, wait_for},
    manager::{Manager, START},
};

const LAUNCH: &str = env!("CARGO_BIN_EXE_launch_daemons");

fn launch(folder: &Path, args: &[&str]) -> Ended {
    let mut command = command_of(LAUNCH, folder, args);
    command.args(["--data", "data"]).output().unwrap().into()
}

/// A manager that `launch_daemons` has become, once it answers.
fn launched(args: &[&str]) -> Manager {
    let dir = tempdir().unwrap();
    let child = command_of(LAUNCH, dir.path(), args)
        .args(["--data", "data", "--skip-diagnostics"])
        .env("RINGRIFT_DAEMON_HEALTH_PORT", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Manager::of(child, dir).answering()
}

/// The status once every daemon that is asked for runs and has finished a cycle.
fn settled(manager: &Manager) -> String {
    wait_for("the daemons to run", START, || {
        let status = launch(manager.folder(), &["--status"]);
        assert_eq!(status.code, 0, "{status:?}");
        let waits = ["STARTING", "(unknown"].iter().any(|word| status.out.contains(word));
        (!waits).then_some(status.out)
    })
}

#[test]
fn without_anything_to_start_it_says_so() {
    let dir = tempdir().unwrap();
    let refused = |args: &[&str], parts: &[&str]| {
        check_refused(&launch(dir.path(), args), 2, parts);
    };
    refused(&[], &["No daemons specified. Use --help for options."]);
    refused(&["--daemons", "AUTO_SNYC"], &["did you mean AUTO_SYNC?"]);
    refused(&["--daemons", "AUTO_SYNC,DISTILLATION"], &["DISTILLATION is not built yet"]);
    refused(&["--profile", "trainin"], &["did you mean training?"]);
    refused(&["--external"], &["nothing of --external is built yet"]);
    refused(&["--all", "--health-interval", "0"], &["--health-interval", "1 to 3600"]);
    for args in [
        &["--status"][..],
        &["--status", "--json"],
        &["--stop"],
        &["--stop-all"],
        &["--stop", "AUTO_SYNC"],
    ] {
        check_refused(&launch(dir.path(), args), 3, &["no manager is running"]);
    }
    assert!(!dir.path().join("data").exists(), "nothing is made for a wrong call");
}

#[test]
fn the_commands_of_the_runbook_print_what_it_says() {
    let mut manager =
        launched(&["--daemons", "AUTO_SYNC,DATA_PIPELINE,FEEDBACK_LOOP", "--no-auto-restart"]);
    let status = settled(&manager);
    assert_eq!(status.lines().count(), 1 + 89, "{status}");
    let shown: Vec<&str> = status.lines().filter(|line| !line.ends_with(": STOPPED")).collect();
    insta::assert_snapshot!(shown.join("\n"), @"
    Daemon Status:
      EVENT_ROUTER: RUNNING (healthy)
      DAEMON_WATCHDOG: RUNNING (healthy)
      DATA_PIPELINE: RUNNING (healthy)
      FEEDBACK_LOOP: RUNNING (healthy)
      AUTO_SYNC: RUNNING (healthy)
      HEALTH_SERVER: RUNNING (healthy)
    ");

    // A second call asks the manager that runs.
    let folder = manager.folder().to_path_buf();
    let started = launch(&folder, &["--daemon", "evaluation", "--health-interval", "10"]);
    assert_eq!((started.code, started.out.as_str()), (0, "EVALUATION is started\n"), "{started:?}");
    assert!(started.err.contains("--health-interval has no effect"), "{started:?}");
    let category = launch(&folder, &["--events"]);
    let both = "CROSS_PROCESS_POLLER is started\nEVENT_ROUTER is running already\n";
    assert_eq!(category.out, both, "{category:?}");
    let stopped = launch(&folder, &["--stop", "evaluation", "--stop", "AUTO_SYNC"]);
    assert_eq!(stopped.out, "EVALUATION is stopped\nAUTO_SYNC is stopped\n", "{stopped:?}");

    let old = launch(&folder, &["--status", "--json"]).json();
    assert_eq!(old["daemons"].as_object().unwrap().len(), 89);
    let router = &old["daemons"]["EVENT_ROUTER"];
    assert_eq!((&router["state"], &router["restart_count"]), (&"running".into(), &0.into()));
    assert_eq!(router["auto_restart"], false);
    assert_eq!(old["daemons"]["AUTO_SYNC"]["state"], "stopped");
    assert_eq!(old["summary"], json!({ "total": 89, "running": 6, "failed": 0, "stopped": 83 }));
    assert_eq!((&old["running"], &old["circuit_breaker"]), (&true.into(), &Value::Null));

    let ended = launch(&folder, &["--stop"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "stopped\n"), "{ended:?}");
    let manager = manager.ended(START);
    assert_eq!(manager.code, 0, "{manager:?}");
    assert!(
        manager.out.contains("ringrift runs AUTO_SYNC, DATA_PIPELINE, FEEDBACK_LOOP"),
        "{manager:?}"
    );
}

#[test]
fn all_starts_what_is_built_and_names_the_rest_once() {
    let mut manager = launched(&["--all"]);
    settled(&manager);
    assert_eq!(launch(manager.folder(), &["--stop-all"]).code, 0);
    let ended = manager.ended(START);
    assert_eq!(
        ended.err.matches("left out because they are not built yet").count(),
        1,
        "{ended:?}"
    );
    assert!(ended.err.contains("DISTILLATION"), "{ended:?}");
}

#[test]
fn diagnostics_let_its_own_worker_try_a_job_and_a_problem_keeps_daemons_from_starting() {
    let dir = tempdir().unwrap();
    let good = launch(dir.path(), &["--diagnostics", "--json"]).json();
    let findings = good["findings"].as_array().unwrap();
    let worker = findings.iter().find(|finding| finding["what"] == "worker").unwrap();
    assert_eq!(worker["ok"], true, "{worker}");

    fs_err::create_dir_all(dir.path().join("data")).unwrap();
    let file = "[workers.train]\ncommand = ['no-such-trainer']\n";
    fs_err::write(dir.path().join("data/ringrift.toml"), file).unwrap();
    let ill = launch(dir.path(), &["--diagnostics"]);
    assert_eq!(ill.code, 1, "{ill:?}");
    assert!(ill.out.contains("there is no program no-such-trainer"), "{ill:?}");
    let refused = launch(dir.path(), &["--all"]);
    check_refused(&refused, 1, &["no-such-trainer", "nothing was started", "--skip-diagnostics"]);
    assert!(!dir.path().join("data/facts.sqlite").exists());
}
