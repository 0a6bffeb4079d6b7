//! Commands without a manager: what they print, and how they refuse.

use std::process::Command;

use tempfile::tempdir;

use crate::bench::{Ended, check_refused, run, run_with};

#[test]
fn without_a_manager_the_commands_that_need_one_say_so_and_exit_3() {
    let dir = tempdir().unwrap();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["stop"],
        &["events", "--tail"],
        &["dlq", "retry"],
        &["dlq", "--retry"],
        &["dlq", "purge"],
        &["stop", "AUTO_SYNC"],
        &["start", "--all"],
        &["start", "AUTO_SYNC", "EPHEMERAL_SYNC"],
        &["restart", "AUTO_SYNC"],
        &["retry", "AUTO_SYNC", "--force"],
        &["pause", "AUTO_SYNC"],
        &["resume", "AUTO_SYNC"],
        &["health"],
        &["health", "auto_sync", "--json"],
        &["why", "hex8_2p"],
    ] {
        check_refused(&run(dir.path(), args), 3, &["no manager is running", "ringrift up"]);
    }
}

#[test]
fn a_data_directory_that_is_none_is_refused() {
    let dir = tempdir().unwrap();
    for command in ["models", "games", "matches", "verify", "events", "dlq"] {
        let ended = run(dir.path(), &[command, "--data", "nowhere"]);
        check_refused(&ended, 2, &["data directory", "nowhere"]);
        let ended = run(dir.path(), &[command, "--data", "."]);
        check_refused(&ended, 2, &["facts.sqlite", "ringrift up"]);
    }
    let ended = run(dir.path(), &["where", "m0001"]);
    assert!(ended.code == 2 && ended.err.contains("'m0001'"), "{ended:?}");
    assert!(ended.err.contains("64 digits 0-9 and a-f"), "{ended:?}");
    let ended = run_with(dir.path(), &["models"], &[("RINGRIFT_DATA_DIR", "elsewhere")]);
    check_refused(&ended, 2, &["elsewhere"]);
}

#[test]
fn a_corrupt_log_is_refused_by_name_and_left_as_it_is() {
    let dir = tempdir().unwrap();
    let facts = dir.path().join("facts.sqlite");
    let garbage = vec![b'x'; 20_000];
    fs_err::write(&facts, &garbage).unwrap();
    for args in [
        &["models", "--data", "."][..],
        &["verify", "--data", "."],
        &["up", "--data", ".", "--port", "0"],
    ] {
        check_refused(&run(dir.path(), args), 2, &["facts.sqlite"]);
    }
    assert_eq!(fs_err::read(&facts).unwrap(), garbage);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let dir = tempdir().unwrap();
    fs_err::write(dir.path().join("file"), "").unwrap();
    let ended = run(dir.path(), &["up", "--data", "file/data", "--port", "0"]);
    check_refused(&ended, 2, &["make the data directory", "file/data"]);
}

#[test]
fn wrong_arguments_of_up_are_refused_with_what_is_allowed() {
    let dir = tempdir().unwrap();
    let check = |args: &[&str], parts: &[&str]| {
        let args: Vec<&str> = ["up", "--data", "d"].iter().chain(args).copied().collect();
        let ended = run(dir.path(), &args);
        assert_eq!(ended.code, 2, "{ended:?}");
        for part in parts {
            assert!(ended.err.contains(part), "{part} is missing: {ended:?}");
        }
        assert!(!dir.path().join("d").exists(), "nothing is made for a wrong call");
    };
    check(&["--configs", "hex9_2p"], &["--configs", "'hex9_2p'", "did you mean hex8_2p?"]);
    check(&["--port", "70000"], &["--port", "'70000'", "0 to 65535"]);
    check(&["--profile", "standalon"], &["--profile", "did you mean standalone?"]);
    check(&["--seed=-1"], &["--seed", "'-1'", "a whole number"]);
    check(&["--until", "games>=3"], &["promotions>=NUMBER"]);
    check(&["--timeout", "never"], &["text like 20m"]);
    check(&["--config", "no.toml"], &["--config", "no.toml"]);
}

#[test]
fn a_wrong_configuration_is_one_sentence_each() {
    let dir = tempdir().unwrap();
    fs_err::write(
        dir.path().join("ringrift.toml"),
        "[http]\nport = 99999\nprot = 1\n[daemons.auto_sync]\ninterval = -1\n",
    )
    .unwrap();
    let ended = run(dir.path(), &["config", "check"]);
    assert_eq!(ended.code, 2);
    let lines: Vec<&str> = ended.err.lines().collect();
    assert_eq!(lines.len(), 3, "{ended:?}");
    for part in
        ["http.port: 99999", "0 to 65535", "did you mean http.port?", "daemons.auto_sync.interval"]
    {
        assert!(ended.err.contains(part), "{part} is missing: {ended:?}");
    }
}

#[test]
fn variables_are_judged_and_shown_with_their_origin() {
    let dir = tempdir().unwrap();
    let env =
        [("RINGRIFT_DAEMON_HEALTH_PORT", "8791"), ("RINGRIFT_TRAINING_ACTIVITY_INTERVAL", "7")];
    let ended = run_with(dir.path(), &["config", "show", "--json"], &env);
    assert_eq!(ended.code, 0, "{ended:?}");
    let shown = ended.json();
    let key = |name: &str| {
        let keys = shown["keys"].as_array().unwrap();
        keys.iter().find(|key| key["key"] == name).unwrap().clone()
    };
    assert_eq!(key("http.port")["value"], 8791);
    assert_eq!(key("http.port")["origin"], "environment RINGRIFT_DAEMON_HEALTH_PORT");
    assert_eq!(key("daemons.training_node_watcher.interval")["value"], 7.0);
    assert_eq!(key("loop.seed")["origin"], "default");

    let ended =
        run_with(dir.path(), &["config", "check"], &[("RINGRIFT_DAEMON_RESTART_MAX", "many")]);
    check_refused(&ended, 2, &["RINGRIFT_DAEMON_RESTART_MAX", "'many'", "0 to 1000"]);
    let ended = run_with(dir.path(), &["config", "check"], &[("RINGRIFT_DAEMON_RESTRAT_MAX", "1")]);
    assert_eq!(ended.code, 0);
    assert!(ended.err.contains("did you mean RINGRIFT_DAEMON_RESTART_MAX?"), "{ended:?}");
}

#[test]
fn the_registry_lists_all_89_and_is_valid() {
    let dir = tempdir().unwrap();
    let rows = run(dir.path(), &["registry", "--json"]).json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 89);
    assert_eq!(rows.iter().filter(|row| row["retired"] == true).count(), 11);
    assert_eq!(rows[0]["name"], "EVENT_ROUTER");
    let ended = run(dir.path(), &["registry", "--validate"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "the registry is valid\n"));
    let health = run(dir.path(), &["registry", "--validate", "--json"]).json()["health"].clone();
    assert_eq!(
        (&health["healthy"], &health["details"]["total_daemons"]),
        (&true.into(), &89.into())
    );
    let sync = run(dir.path(), &["registry", "--category", "sync", "--json"]).json();
    assert_eq!(sync.as_array().unwrap().len(), 14);
    let ended = run(dir.path(), &["registry", "--category", "snyc"]);
    check_refused(&ended, 2, &["unknown category 'snyc'", "did you mean sync?"]);
}

#[test]
fn an_unknown_daemon_is_refused_with_the_nearest_name() {
    let dir = tempdir().unwrap();
    let ended = run(dir.path(), &["stop", "AUTO_SNYC"]);
    check_refused(&ended, 2, &["unknown daemon 'AUTO_SNYC'", "did you mean AUTO_SYNC?"]);
    let ended = run(dir.path(), &["stop", "HEALTH_CHECK"]);
    check_refused(&ended, 2, &["HEALTH_CHECK is retired"]);
}

#[test]
fn a_healthy_machine_passes_the_doctor_and_a_taken_port_does_not() {
    let dir = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let env = [("RINGRIFT_HTTP_PORT", port.as_str())];
    let ended = run_with(dir.path(), &["doctor", "--json"], &env);
    assert_eq!(ended.code, 1, "{ended:?}");
    let findings = ended.json();
    let of = |what: &str| {
        let findings = findings["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["what"] == what).unwrap().clone()
    };
    assert_eq!(of("port")["ok"], false);
    assert_eq!(of("worker")["ok"], true, "{}", of("worker"));
    assert_eq!(of("data directory")["ok"], true);
    assert!(!dir.path().join("ringrift-data").exists(), "the doctor leaves nothing behind");
}

#[test]
fn the_reference_names_every_daemon_every_key_and_every_topic() {
    let dir = tempdir().unwrap();
    let daemons = run(dir.path(), &["docs", "daemons"]).out;
    assert_eq!(daemons.matches("\n| `").count(), 89 + 10, "89 types and 10 profiles");
    let configuration = run(dir.path(), &["docs", "configuration"]).out;
    assert!(configuration.contains("`RINGRIFT_DAEMON_HEALTH_PORT`"));
    assert!(configuration.contains("## `[workers.train]`"));
    let events = run(dir.path(), &["docs", "events"]).out;
    for kind in ringrift_pipeline::kinds() {
        assert_eq!(events.matches(&format!("\n### `{}`\n", kind.topic)).count(), 1);
    }
    assert!(events.contains("| `seconds` | number | Wall seconds of the attempt. |"), "{events}");
}

#[test]
fn an_order_for_a_daemon_that_cannot_run_is_refused_before_anybody_is_asked() {
    let dir = tempdir().unwrap();
    let refused = |args: &[&str], parts: &[&str]| check_refused(&run(dir.path(), args), 2, parts);
    for order in ["start", "stop", "restart", "retry", "pause", "resume", "health"] {
        refused(&[order, "AUTO_SNYC"], &["unknown daemon 'AUTO_SNYC'", "did you mean AUTO_SYNC?"]);
        refused(&[order, "DISTILLATION"], &["DISTILLATION is not built yet"]);
        refused(&[order, "VAST_IDLE"], &["VAST_IDLE is retired"]);
    }
    refused(&["start", "AUTO_SYNC", "DISTILLATION"], &["DISTILLATION is not built yet"]);
    refused(&["stop", "AUTO_SYNC", "DISTILLATION"], &["DISTILLATION is not built yet"]);
    refused(&["start", "--profile", "trainin"], &["did you mean training?"]);
    refused(&["start"], &["--profile", "--all"]);
}

#[test]
fn the_log_is_read_without_a_manager_and_followed_only_with_one() {
    let dir = tempdir().unwrap();
    let logs = dir.path().join("ringrift-data/logs");
    fs_err::create_dir_all(&logs).unwrap();
    let lines =
        "2026-01-01T00:00:00Z INFO AUTO_SYNC: one\n2026-01-01T00:00:01Z WARN EVALUATION: two\n";
    fs_err::write(logs.join("daemons.log.1"), lines).unwrap();
    let json =
        r#"{"time":"2026-01-01T00:00:02Z","level":"INFO","daemon":"AUTO_SYNC","message":"three"}"#;
    fs_err::write(logs.join("daemons.log"), format!("{json}\n")).unwrap();
    let said = |args: &[&str], out: &str| {
        let ended = run(dir.path(), args);
        assert_eq!((ended.code, ended.out.as_str()), (0, out), "{ended:?}");
    };
    said(&["logs", "-n", "1"], &format!("{json}\n"));
    said(&["logs", "evaluation"], "2026-01-01T00:00:01Z WARN EVALUATION: two\n");
    let ended = run(dir.path(), &["logs", "AUTO_SYNC", "--json"]);
    let messages: Vec<serde_json::Value> =
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&messages[0]["message"], &messages[1]["message"]),
        (&"one".into(), &"three".into())
    );
    check_refused(&run(dir.path(), &["logs", "AUTO_SNYC"]), 2, &["did you mean AUTO_SYNC?"]);
    check_refused(&run(dir.path(), &["logs", "-f"]), 3, &["no manager is running"]);
    check_refused(&run(dir.path(), &["log-level", "debug"]), 3, &["no manager is running"]);
}

#[test]
fn completions_and_manual_pages_follow_from_the_commands() {
    let dir = tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(dir.path(), &["completions", shell]);
        assert!(script.code == 0 && script.out.contains("doctor"), "{shell}: {script:?}");
        let script = run(dir.path(), &["completions", shell, "--of", "launch_daemons"]);
        assert!(script.code == 0 && script.out.contains("no-auto-restart"), "{shell}: {script:?}");
    }
    // A shell reads it without a complaint, and completes with it.
    let script = dir.path().join("ringrift.bash");
    fs_err::write(&script, run(dir.path(), &["completions", "bash"]).out).unwrap();
    let line = format!(
        "source {} && COMP_WORDS=(ringrift doct) COMP_CWORD=1 && _ringrift ringrift doct ringrift \
         && echo \"${{COMPREPLY[*]}}\"",
        script.display()
    );
    let completed: Ended = Command::new("bash").args(["-c", &line]).output().unwrap().into();
    assert_eq!((completed.out.as_str(), completed.err.as_str()), ("doctor\n", ""), "{completed:?}");

    let page = run(dir.path(), &["man", "--of", "launch_daemons"]).out;
    assert!(page.contains(".TH launch_daemons 1") && page.contains("daemons"), "{page}");
    let folder = dir.path().join("man");
    assert_eq!(run(dir.path(), &["man", "--out", folder.to_str().unwrap()]).code, 0);
    let pages: Vec<String> = fs_err::read_dir(&folder)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(pages.contains(&"ringrift-up.1".to_owned()), "{pages:?}");
    assert!(
        !pages.contains(&"ringrift-worker.1".to_owned()),
        "hidden ones have no page: {pages:?}"
    );
}
