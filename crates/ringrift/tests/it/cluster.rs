//! Several data directories with one log, on a real server.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::bench::{command, run, wait_for};

const SOON: Duration = Duration::from_mins(1);

/// The program that `cargo xtask check` puts there, or `NATS_SERVER`. Says so if there is none.
#[expect(clippy::print_stdout, reason = "says what is absent")]
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let ours =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/nats/bin/nats-server");
    let found = named.or_else(|| Some(ours).filter(|file| file.is_file()));
    if found.is_none() {
        println!(
            "absent: nats-server, so nodes with one log are not tested; \
             to have it: cargo xtask check, or name it in NATS_SERVER"
        );
    }
    found
}

/// A process that ends with the test.
struct Ours(Child);

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A single server on loopback with a store of its own.
struct Server {
    url: String,
    process: Ours,
    _store: TempDir,
}

impl Server {
    fn start() -> Option<Self> {
        let program = program()?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = tempdir().unwrap();
        let config = store.path().join("server.conf");
        let text = format!(
            "listen: 127.0.0.1:{port}\nmax_payload: 8MB\nauthorization {{ token: \"secret\" }}\n\
             jetstream {{ store_dir: {:?} }}\n",
            store.path().display().to_string()
        );
        fs_err::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Ours(command.spawn().unwrap());
        wait_for("the server to answer", SOON, || {
            TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        });
        let url = format!("nats://secret@127.0.0.1:{port}");
        Some(Self { url, process, _store: store })
    }
}

/// A manager on the data directory `name`; killed when this is dropped.
fn up(folder: &Path, name: &str, profile: &str) -> Ours {
    let args = ["up", "--profile", profile, "--configs", "hex8_2p", "--port", "0", "--data", name];
    let mut command = command(folder, &args);
    let out = fs_err::File::create(folder.join(format!("{name}.out"))).unwrap().into_file();
    command.stdout(out.try_clone().unwrap()).stderr(out);
    Ours(command.spawn().unwrap())
}

/// A daemon as the manager on `name` shows it.
fn daemon(folder: &Path, name: &str, daemon: &str) -> Option<Value> {
    let status = run(folder, &["status", "--json", "--data", name]);
    (status.code == 0).then(|| status.json()["daemons"][daemon].clone())
}

fn until_state(folder: &Path, name: &str, what: &str, state: &str) -> Value {
    wait_for(&format!("{what} of {name} to be {state}"), SOON, || {
        daemon(folder, name, what).filter(|daemon| daemon["state"] == state)
    })
}

/// The node that leads, as `name` knows it.
fn leader(folder: &Path, name: &str) -> Option<String> {
    let nodes = run(folder, &["cluster", "status", "--json", "--data", name]).json();
    let nodes = nodes["nodes"].as_object().unwrap().clone();
    nodes.into_iter().find(|(_, node)| node["leads"] == true).map(|(name, _)| name)
}

fn node_of(folder: &Path, name: &str) -> String {
    fs_err::read_to_string(folder.join(name).join("node")).unwrap().trim().to_owned()
}

#[test]
fn a_coordinator_that_is_killed_is_replaced_and_follows_when_it_comes_back() {
    let Some(server) = Server::start() else { return };
    let dir = tempdir().unwrap();
    let folder = dir.path();
    let enter = |word: &str, name: &str| {
        run(folder, &["cluster", word, "--servers", &server.url, "--data", name])
    };
    let early = enter("join", "b");
    assert_eq!(early.code, 2, "{}", early.err);
    assert!(early.err.contains("has no log of the name \"ringrift\""), "{}", early.err);
    let begun = enter("init", "a");
    assert_eq!(begun.code, 0, "{}", begun.err);
    assert_eq!(enter("join", "b").code, 0);
    let again = enter("join", "b");
    assert!(again.code == 2 && again.err.contains("is a node already"), "{}", again.err);

    let first = up(folder, "a", "coordinator");
    until_state(folder, "a", "AUTO_PROMOTION", "running");
    let second = up(folder, "b", "coordinator");
    until_state(folder, "b", "MODEL_DISTRIBUTION", "running");
    let waits = daemon(folder, "b", "AUTO_PROMOTION").unwrap();
    assert_eq!(
        (&waits["state"], &waits["cause"]),
        (&"stopped".into(), &"another node leads".into())
    );
    let (a, b) = (node_of(folder, "a"), node_of(folder, "b"));
    assert_eq!(leader(folder, "a"), Some(a.clone()));
    assert_eq!(leader(folder, "b"), Some(a));

    drop(first);
    until_state(folder, "b", "AUTO_PROMOTION", "running");
    assert_eq!(leader(folder, "b"), Some(b.clone()));
    let _first = up(folder, "a", "coordinator");
    until_state(folder, "a", "MODEL_DISTRIBUTION", "running");
    let waits = daemon(folder, "a", "AUTO_PROMOTION").unwrap();
    assert_eq!(waits["cause"], "another node leads");
    assert_eq!(leader(folder, "a"), Some(b));

    // Nobody but the owner's file knows the password.
    for name in ["a", "b"] {
        let log = fs_err::read_to_string(folder.join(name).join("logs/daemons.log")).unwrap();
        let out = fs_err::read_to_string(folder.join(format!("{name}.out"))).unwrap();
        assert!(!log.contains("secret") && !out.contains("secret"));
        assert!(out.contains("cluster  log ringrift at nats://127.0.0.1:"), "{out}");
    }
    drop((second, server.process));
}

#[test]
fn a_directory_with_a_history_becomes_the_first_node_and_goes_on() {
    let Some(server) = Server::start() else { return };
    let dir = tempdir().unwrap();
    let folder = dir.path();
    let batches = || {
        let games = run(folder, &["games", "--json", "--data", "a"]);
        (games.code == 0).then(|| games.json()).filter(|rows| rows.as_array().is_some())
    };
    let count = |rows: &Value| rows.as_array().unwrap().len();
    let alone = up(folder, "a", "standalone");
    wait_for("a batch of games", SOON, || batches().filter(|rows| count(rows) > 0));
    let busy = run(folder, &["cluster", "init", "--servers", &server.url, "--data", "a"]);
    assert!(busy.code == 2 && busy.err.contains("is in use by the manager"), "{}", busy.err);
    drop(alone);
    let before = batches().unwrap();

    let begun = run(folder, &["cluster", "init", "--servers", &server.url, "--data", "a"]);
    assert_eq!(begun.code, 0, "{}", begun.err);
    assert!(!folder.join("a/facts.sqlite").exists());
    let other = run(folder, &["cluster", "init", "--servers", &server.url, "--data", "c"]);
    assert!(other.code == 2 && other.err.contains("has a history already"), "{}", other.err);
    assert_eq!(batches().unwrap(), before);

    let goes_on = up(folder, "a", "standalone");
    wait_for("another batch", SOON, || batches().filter(|rows| count(rows) > count(&before)));
    drop(goes_on);
    let verified = run(folder, &["verify", "--json", "--data", "a"]);
    assert_eq!(verified.code, 0, "{}", verified.out);
}
