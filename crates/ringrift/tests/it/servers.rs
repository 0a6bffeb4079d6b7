//! A log on three servers: set up by us, and what goes on without one of them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::{TempDir, tempdir};

use crate::{
    bench::{Ended, check_refused, command, run_with, wait_for},
    cluster::{Ours, SOON, leader, node_of, until_state},
};

/// A cluster that node `a` begins on three servers of its own.
struct Three {
    dir: TempDir,
    program: PathBuf,
    init: Vec<String>,
}

impl Three {
    fn new() -> Option<Self> {
        let program = testkit::nats_server()?;
        let mut init: Vec<String> = ["cluster", "init", "--data", "a"].map(str::to_owned).into();
        for _ in 0..3 {
            // Servers reach each other 2000 above.
            let port = testkit::port_and(&[2000]);
            init.extend(["--serve".to_owned(), format!("127.0.0.1:{port}")]);
        }
        Some(Self { dir: tempdir().unwrap(), program, init })
    }

    fn folder(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self, args: &[&str]) -> Ended {
        run_with(self.folder(), args, &[("NATS_SERVER", &self.program.display().to_string())])
    }

    /// `cluster init` with so many of its servers.
    fn init(&self, servers: usize) -> Ended {
        let words: Vec<&str> = self.init[..4 + 2 * servers].iter().map(String::as_str).collect();
        self.run(&words)
    }

    /// A server that nobody's manager runs.
    fn serve(&self, number: u32) -> Ours {
        let mut server = Command::new(&self.program);
        server.args(["-c", "server.conf"]);
        server.current_dir(self.folder().join(format!("a/cluster/servers/{number}")));
        server.stdout(Stdio::null()).stderr(Stdio::null());
        Ours(server.spawn().unwrap())
    }

    fn coordinator(&self, name: &str) -> Ours {
        let args = [
            "up",
            "--profile",
            "coordinator",
            "--configs",
            "hex8_2p",
            "--port",
            "0",
            "--data",
            name,
        ];
        let mut command = command(self.folder(), &args);
        command.env("NATS_SERVER", &self.program).stdout(Stdio::null()).stderr(Stdio::null());
        let manager = Ours(command.spawn().unwrap());
        until_state(self.folder(), name, "MODEL_DISTRIBUTION", "running");
        manager
    }
}

#[test]
fn three_servers_are_set_up_and_one_of_them_may_die() {
    let Some(three) = Three::new() else { return };
    check_refused(&three.init(2), 2, &["two stand still when one of them does"]);
    let waits = three.init(3);
    check_refused(&waits, 2, &["two of the three servers must run", "servers/2", "servers/3"]);
    let mut others = [2, 3].map(|number| three.serve(number)).into_iter();
    // They elect leaders first.
    wait_for("the log to begin", SOON, || (three.init(3).code == 0).then_some(()));

    drop(others.next());
    let _first = three.coordinator("a");
    until_state(three.folder(), "a", "AUTO_PROMOTION", "running");
    assert_eq!(leader(three.folder(), "a"), Some(node_of(three.folder(), "a")));
}

#[test]
fn another_node_lets_in_when_the_one_with_the_authority_is_lost() {
    let Some(three) = Three::new() else { return };
    let folder = three.folder();
    // Makes the folders of its servers 2 and 3, which lie on other machines.
    assert_eq!(three.init(3).code, 2);
    let others = [2, 3].map(|number| three.serve(number));
    wait_for("the log to begin", SOON, || (three.init(3).code == 0).then_some(()));
    let first = three.coordinator("a");
    let a = node_of(folder, "a");
    let invite = |at: &str| {
        let ended =
            three.run(&["cluster", "invite", "--role", "coordinator", "--json", "--data", at]);
        (ended.code == 0).then(|| ended.json()["ticket"].as_str().unwrap().to_owned())
    };
    let join = |ticket: &str, name: &str| {
        let joined = three.run(&["cluster", "join", ticket, "--data", name]);
        assert_eq!(joined.code, 0, "{}", joined.err);
    };
    join(&wait_for("a ticket", SOON, || invite("a")), "b");
    let _second = three.coordinator("b");
    let refused = three.run(&["cluster", "invite", "--role", "selfplay", "--data", "b"]);
    check_refused(&refused, 1, &["authority.json is not there"]);

    // The copies that somebody kept.
    let copies = ["authority.json", "servers.pem"]
        .map(|name| (name, fs_err::read(folder.join("a/cluster").join(name)).unwrap()));
    drop(first);
    wait_for("b to lead", SOON, || {
        (leader(folder, "b") == Some(node_of(folder, "b"))).then_some(())
    });

    for (name, copy) in copies {
        fs_err::write(folder.join("b/cluster").join(name), copy).unwrap();
    }
    let removed = three.run(&["node", "remove", &a, "--data", "b"]);
    assert_eq!(removed.code, 0, "{}", removed.err);
    join(&wait_for("a ticket of b", SOON, || invite("b")), "c");
    let _third = three.coordinator("c");
    let nodes = three.run(&["nodes", "--json", "--data", "c"]).json();
    let nodes = nodes["nodes"].as_object().unwrap();
    assert!(
        nodes.contains_key(&node_of(folder, "c")) && nodes.contains_key(&node_of(folder, "b")),
        "{nodes:?}"
    );
    drop(others);
}
