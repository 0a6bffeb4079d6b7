//! `up` and the commands beside it.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempdir};

use crate::bench::{Ended, check_refused, command, run, wait_for};

/// A first start in a debug build on a busy machine.
pub const START: Duration = Duration::from_secs(30);
/// Until the first games are safe: the network, one batch, its commit.
const FIRST_GAMES: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_secs(45);

/// A running `up` in a folder of its own; dropping it kills it.
pub struct Manager {
    child: Option<Child>,
    dir: TempDir,
}

impl Manager {
    pub fn up(more: &[&str]) -> Self {
        Self::up_in(tempdir().unwrap(), more)
    }

    pub fn up_in(dir: TempDir, more: &[&str]) -> Self {
        Self::up_with(dir, more, &[])
    }

    fn up_with(dir: TempDir, more: &[&str], env: &[(&str, &str)]) -> Self {
        let mut args = vec!["up", "--configs", "hex8_2p", "--port", "0", "--data", "data"];
        args.extend(more);
        let child = command(dir.path(), &args)
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self::of(child, dir)
    }

    /// A process whose data lies in `data` of this folder.
    pub fn of(child: Child, dir: TempDir) -> Self {
        Self { child: Some(child), dir }
    }

    /// The same, once it answers.
    pub fn ready(more: &[&str]) -> Self {
        Self::ready_in(tempdir().unwrap(), more)
    }

    /// The same on what lies in a folder.
    pub fn ready_in(dir: TempDir, more: &[&str]) -> Self {
        Self::ready_with(dir, more, &[])
    }

    /// The same with variables.
    pub fn ready_with(dir: TempDir, more: &[&str], env: &[(&str, &str)]) -> Self {
        Self::up_with(dir, more, env).answering()
    }

    /// Waits for its first answer.
    pub fn answering(mut self) -> Self {
        wait_for("the manager to answer", START, || {
            let early = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert_eq!(early, None, "it ended early: {:?}", self.output());
            (self.ask(&["status"]).code == 0).then_some(())
        });
        self
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    pub fn ask(&self, args: &[&str]) -> Ended {
        let args: Vec<&str> = args.iter().copied().chain(["--data", "data"]).collect();
        run(self.folder(), &args)
    }

    /// Waits for its end.
    pub fn ended(&mut self, limit: Duration) -> Ended {
        wait_for("the manager to end", limit, || self.child.as_mut().unwrap().try_wait().unwrap());
        self.output()
    }

    pub fn output(&mut self) -> Ended {
        self.child.take().unwrap().wait_with_output().unwrap().into()
    }

    pub fn signalled(&mut self, signal: Signal) -> Ended {
        kill_process(self.pid(), signal).unwrap();
        self.ended(STOP)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn check_good_end(ended: &Ended, first_words: &str) {
    assert_eq!(ended.code, 0, "{ended:?}");
    let last = ended.out.trim_end().lines().last().unwrap();
    assert!(last.starts_with(first_words), "{ended:?}");
    assert!(last.contains("saved in this run: "), "{ended:?}");
}

#[test]
fn a_second_manager_on_the_same_data_is_refused_with_the_pid_of_the_first() {
    let mut first = Manager::ready(&[]);
    let args = ["up", "--configs", "hex8_2p", "--port", "0", "--data", "data"];
    let pid = format!("process id {}", first.pid().as_raw_nonzero());
    check_refused(&run(first.folder(), &args), 2, &["is in use", &pid, "ringrift stop"]);
    check_good_end(&first.signalled(Signal::INT), "stopped");
}

#[test]
fn a_taken_port_is_refused_before_any_work() {
    let dir = tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(dir.path(), &["up", "--port", &port, "--data", "data"]);
    check_refused(&ended, 2, &[&format!("127.0.0.1:{port} is taken"), "--port"]);
    assert!(!dir.path().join("data/facts.sqlite").exists());
}

#[test]
fn a_manager_plays_answers_and_leaves_in_good_order() {
    let mut manager = Manager::ready(&[]);

    let status = manager.ask(&["status"]).out;
    assert!(status.starts_with("Daemon Status:\n  EVENT_ROUTER: "), "{status}");
    assert_eq!(status.lines().filter(|line| line.starts_with("  ")).count(), 89, "{status}");
    assert!(status.contains("\n  HEALTH_CHECK: STOPPED\n"), "{status}");
    wait_for("every daemon to run", START, || {
        let status = manager.ask(&["status", "--json"]).json();
        (status["summary"]["running"] == status["summary"]["asked"]).then_some(())
    });
    let daemon = &manager.ask(&["status", "--json"]).json()["daemons"]["EVENT_ROUTER"];
    assert_eq!((&daemon["state"], &daemon["restarts"]), (&"running".into(), &0.into()), "{daemon}");

    let port = fs_err::read_to_string(manager.data().join("run/port")).unwrap();
    let mut page = TcpStream::connect(format!("127.0.0.1:{}", port.trim())).unwrap();
    page.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    wait_for("games to be safe", FIRST_GAMES, || {
        let games = manager.ask(&["games", "--json"]).json();
        (!games.as_array().unwrap().is_empty()).then_some(())
    });
    let why = manager.ask(&["why", "hex8_2p"]);
    assert!(why.code == 0 && !why.out.is_empty(), "{why:?}");
    check_refused(
        &manager.ask(&["why", "square8_2p"]),
        2,
        &["square8_2p is not played", "hex8_2p"],
    );
    let unknown = manager.ask(&["why", "hex9_2p"]);
    assert!(unknown.code == 2 && unknown.err.contains("did you mean hex8_2p?"), "{unknown:?}");

    let stopped = manager.ask(&["stop", "auto_sync"]);
    assert_eq!(stopped.out, "AUTO_SYNC is stopped\n", "{stopped:?}");
    let status = manager.ask(&["status"]).out;
    assert!(status.contains("\n  AUTO_SYNC: STOPPED\n"), "{status}");

    let ended = manager.signalled(Signal::TERM);
    check_good_end(&ended, "stopped");
    assert!(!ended.out.contains(" 0 games, 0 models"), "{ended:?}");
    let head: Vec<&str> = ended.out.lines().take_while(|line| !line.starts_with('[')).collect();
    assert!(head.len() <= 10, "{head:?}");

    assert!(!manager.data().join("run/port").exists());
    check_refused(&manager.ask(&["status"]), 3, &["no manager is running"]);
    let log = fs_err::read_to_string(manager.data().join("logs/daemons.log")).unwrap();
    assert!(log.contains(" EVENT_ROUTER: "), "{log}");

    // What it left is whole; with one byte flipped it is not, and the file is named.
    let verified = manager.ask(&["verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    let batch = manager.ask(&["games", "--json"]).json()[0]["batch"].as_str().unwrap().to_owned();
    let store = depot::Depot::open_existing(&manager.data());
    let file = store.path_of(&batch.parse().unwrap()).unwrap().unwrap();
    let found = manager.ask(&["where", &batch[..16].to_uppercase(), "--json"]).json();
    assert_eq!(
        (&found["hash"], &found["role"]),
        (&serde_json::json!(batch), &serde_json::json!("games")),
        "{found}"
    );
    assert_eq!(
        (&found["here"], &found["nodes"]),
        (&serde_json::json!(file), &serde_json::json!([])),
        "{found}"
    );
    let found = manager.ask(&["where", &batch]);
    assert!(found.out.starts_with(&batch) && found.out.contains("\nhere: "), "{found:?}");
    check_refused(&manager.ask(&["where", "0123456789"]), 2, &["0123456789", "ringrift games"]);
    let mut bytes = fs_err::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::remove_file(&file).unwrap();
    fs_err::write(&file, bytes).unwrap();
    let verified = manager.ask(&["verify"]);
    assert_eq!(verified.code, 1, "{verified:?}");
    assert!(verified.out.contains(&batch), "{verified:?}");

    // The catalogue may be deleted: it follows from the log.
    for file in ["catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm"] {
        drop(fs_err::remove_file(manager.data().join(file)));
    }
    let models = manager.ask(&["models", "--champion", "--json"]).json();
    assert_eq!(models[0]["id"], "hex8_2p-m0000", "{models}");
    assert!(!manager.data().join("catalogue.sqlite").exists(), "commands that read write nothing");
}

#[test]
fn daemons_are_started_stopped_restarted_paused_and_tried_again_on_request() {
    let manager = Manager::ready(&["--profile", "minimal"]);
    let state = |name: &str| manager.ask(&["status", "--json"]).json()["daemons"][name].clone();
    let runs = |name: &str| {
        wait_for(name, START, || (state(name)["state"] == "running").then_some(()));
    };
    let said = |args: &[&str], out: &str| {
        let ended = manager.ask(args);
        assert_eq!((ended.code, ended.out.as_str()), (0, out), "{ended:?}");
    };
    runs("HEALTH_SERVER");
    assert_eq!(state("AUTO_SYNC")["state"], "stopped");

    // What is named brings its needs along; a retired name leads to its successor, with a warning.
    let started = manager.ask(&["start", "auto_sync", "EPHEMERAL_SYNC", "--json"]).json();
    assert_eq!(
        started["added"],
        serde_json::json!([
            "DAEMON_WATCHDOG",
            "DATA_PIPELINE",
            "EVENT_ROUTER",
            "FEEDBACK_LOOP",
            "HEALTH_SERVER"
        ])
    );
    assert_eq!(started["warnings"].as_array().unwrap().len(), 1, "{started}");
    runs("AUTO_SYNC");
    said(&["start", "AUTO_SYNC"], "AUTO_SYNC is running already\n");
    said(&["pause", "AUTO_SYNC"], "AUTO_SYNC is paused\n");
    assert_eq!(state("AUTO_SYNC")["cause"], "paused: operator");
    said(&["resume", "AUTO_SYNC"], "AUTO_SYNC is resumed\n");
    assert_eq!(state("AUTO_SYNC")["cause"], serde_json::Value::Null);
    check_refused(
        &manager.ask(&["retry", "AUTO_SYNC"]),
        2,
        &["AUTO_SYNC is RUNNING: nothing to retry"],
    );
    let cycles = || state("AUTO_SYNC")["cycles"].as_u64().unwrap();
    said(&["restart", "AUTO_SYNC", "--json"], "{\n  \"restarted\": \"AUTO_SYNC\"\n}\n");
    wait_for("a fresh start", START, || {
        (state("AUTO_SYNC")["state"] == "running" && cycles() > 0).then_some(())
    });

    // Nothing of a refused request is done.
    check_refused(&manager.ask(&["stop", "AUTO_SYNC", "DISTILLATION"]), 2, &["DISTILLATION"]);
    assert_eq!(state("AUTO_SYNC")["state"], "running");
    check_refused(&manager.ask(&["start", "EVALUATION", "DISTILLATION"]), 2, &["DISTILLATION"]);
    assert_eq!(state("EVALUATION")["asked"], false);

    said(
        &["stop", "DATA_PIPELINE", "AUTO_SYNC"],
        "AUTO_SYNC is stopped\nDATA_PIPELINE is stopped\n",
    );
    let stopped = manager.ask(&["health", "AUTO_SYNC"]);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    assert!(stopped.out.contains("`ringrift start AUTO_SYNC` starts it"), "{stopped:?}");
    let all = manager.ask(&["start", "--profile", "selfplay_node"]);
    assert!(all.code == 0 && all.out.contains("IDLE_RESOURCE is started\n"), "{all:?}");
}

#[test]
fn health_tells_of_one_daemon_and_of_all() {
    let manager = Manager::ready(&[]);
    let all = wait_for("all to run well", START, || {
        let all = manager.ask(&["health"]);
        (all.code == 0 && !all.out.contains("STARTING")).then_some(all)
    });
    assert!(all.out.starts_with("EVENT_ROUTER: RUNNING (healthy)\n"), "{all:?}");
    assert!(all.out.ends_with("all that were asked for run well\n"), "{all:?}");
    let one = manager.ask(&["health", "AUTO_SYNC", "--json"]).json();
    assert_eq!((&one["name"], &one["well"]), (&"AUTO_SYNC".into(), &true.into()), "{one}");
    assert!(one["details"].is_object() && one["log"].is_array(), "{one}");
    assert_eq!(one["needs"][0]["state"], "running", "{one}");
    let router = manager.ask(&["health", "EVENT_ROUTER", "-n", "1"]).out;
    assert_eq!(
        router.lines().filter(|line| line.contains(" EVENT_ROUTER: ")).count(),
        1,
        "{router}"
    );
}

#[test]
fn the_log_is_followed_and_takes_another_level_while_the_manager_runs() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    fs_err::create_dir_all(&data).unwrap();
    fs_err::write(data.join("ringrift.toml"), "[manager]\nlog_format = 'json'\n").unwrap();
    let mut manager = Manager::up_in(dir, &["--profile", "minimal"]);
    wait_for("the manager to answer", START, || (manager.ask(&["status"]).code == 0).then_some(()));
    let following = command(manager.folder(), &["logs", "-f", "-n", "0", "--data", "data"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(manager.ask(&["log-level"]).out, "info\n");
    assert_eq!(manager.ask(&["log-level", "warn"]).out, "warn\n");
    assert_eq!(manager.ask(&["pause", "EVENT_ROUTER"]).code, 0);
    assert_eq!(manager.ask(&["log-level", "info"]).out, "info\n");
    assert_eq!(manager.ask(&["resume", "EVENT_ROUTER"]).code, 0);
    let wrong = manager.ask(&["log-level", "loud"]);
    assert!(wrong.code == 2 && wrong.err.contains("possible values"), "{wrong:?}");
    check_good_end(&manager.signalled(Signal::TERM), "stopped");
    let followed: Ended = following.wait_with_output().unwrap().into();
    assert_eq!(followed.code, 0, "{followed:?}");
    let lines: Vec<serde_json::Value> =
        followed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |message: &str| lines.iter().any(|line| line["message"] == message);
    assert!(has("the log takes another level from now on"), "{followed:?}");
    assert!(has("asked that it is resumed"), "{followed:?}");
    assert!(!has("asked that it is paused"), "the level was warn: {followed:?}");
    assert!(has("this manager has ended"), "{followed:?}");
}

#[test]
fn stop_ends_the_manager_and_waits_for_its_end() {
    let mut manager = Manager::ready(&[]);
    let watching =
        command(manager.folder(), &["status", "--watch", "--interval", "1", "--data", "data"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    wait_for("all to run well", START, || {
        (manager.ask(&["doctor"]).out.contains("ok       daemons: ")).then_some(())
    });
    let stopped = manager.ask(&["stop"]);
    assert_eq!((stopped.code, stopped.out.as_str()), (0, "stopped\n"), "{stopped:?}");
    check_good_end(&manager.ended(Duration::from_secs(5)), "stopped");
    let watched: Ended = watching.wait_with_output().unwrap().into();
    assert_eq!(watched.code, 0, "the end of the manager ends it well: {watched:?}");
    assert!(watched.out.matches("Daemon Status:").count() >= 1, "{watched:?}");
}

#[test]
fn the_end_of_the_time_is_4_with_an_unreached_goal_and_0_without_one() {
    let mut manager = Manager::up(&["--timeout", "2s", "--until", "promotions>=1000"]);
    let ended = manager.ended(START + STOP);
    assert_eq!(ended.code, 4, "{ended:?}");
    assert!(ended.out.contains("the time is over; saved in this run: "), "{ended:?}");

    let mut manager = Manager::up(&["--timeout", "2s"]);
    check_good_end(&manager.ended(START + STOP), "the time is over");
}

#[test]
fn a_goal_that_is_reached_already_ends_the_run_at_once() {
    let mut manager = Manager::up(&["--until", "promotions>=0"]);
    let ended = manager.ended(START);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.out, "promotions>=0 is reached already: there are 0\n");
}

#[test]
fn a_data_path_too_long_for_a_socket_works_all_the_same() {
    let dir = tempdir().unwrap();
    let runtime = tempdir().unwrap();
    let data = "d".repeat(150);
    let mut manager =
        command(dir.path(), &["up", "--configs", "hex8_2p", "--port", "0", "--data", &data])
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    wait_for("the manager to answer", START, || {
        (run(dir.path(), &["status", "--data", &data]).code == 0).then_some(())
    });
    assert_eq!(run(dir.path(), &["stop", "--data", &data]).code, 0);
    assert!(manager.wait().unwrap().success());
}
