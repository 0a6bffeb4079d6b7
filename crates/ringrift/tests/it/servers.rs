//! Servers that we set up: one, and who is let in; three, and what goes on without one of them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
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

#[test]
fn a_machine_joins_with_a_ticket_once_is_drained_and_put_out() {
    let Some(program) = testkit::nats_server() else { return };
    let program = program.display().to_string();
    let dir = tempdir().unwrap();
    let folder = dir.path();
    let run = |args: &[&str]| run_with(folder, args, &[("NATS_SERVER", &program)]);
    let port = testkit::port();
    let serve = format!("127.0.0.1:{port}");
    let without = run_with(
        folder,
        &["cluster", "init", "--serve", &serve, "--data", "a"],
        &[("NATS_SERVER", "/nowhere/nats-server")],
    );
    check_refused(&without, 2, &["/nowhere/nats-server", "install nats-server 2.12.8 or newer"]);
    let begun = run(&["cluster", "init", "--serve", &serve, "--data", "a"]);
    assert_eq!(begun.code, 0, "{}", begun.err);
    let alone = run(&["cluster", "invite", "--role", "selfplay", "--data", "a"]);
    check_refused(&alone, 3, &["no manager is running"]);

    let start = |name: &str, profile: &[&str]| {
        let args = ["up", "--configs", "hex8_2p", "--port", "0", "--data", name];
        let mut command = command(folder, &[&args, profile].concat());
        let out = fs_err::File::create(folder.join(format!("{name}.out"))).unwrap().into_file();
        // The disk here is nobody's own.
        command.env("RINGRIFT_DISK_SPACE_MANAGER_MOST_USED", "0.99");
        command.env("RINGRIFT_DISK_SPACE_MANAGER_CALM_USED", "0.98");
        command.env("RINGRIFT_AUTO_SYNC_FETCH_BELOW", "1");
        command.env("NATS_SERVER", &program).stdout(out.try_clone().unwrap()).stderr(out);
        Ours(command.spawn().unwrap())
    };
    let first = start("a", &[]);
    until_state(folder, "a", "AUTO_PROMOTION", "running");
    let invite = |role: &str| {
        run(&["cluster", "invite", "--role", role, "--for", "10m", "--json", "--data", "a"])
    };
    check_refused(&invite("seflplay"), 2, &["seflplay"]);
    let invited = invite("selfplay");
    assert_eq!(invited.code, 0, "{}", invited.err);
    let ticket = invited.json()["ticket"].as_str().unwrap().to_owned();
    fs_err::write(folder.join("ticket"), &ticket).unwrap();
    let join = |ticket: &str, name: &str| run(&["cluster", "join", ticket, "--data", name]);
    check_refused(&join("ticket1-rubbish", "b"), 2, &["is no ticket"]);
    let joined = join("@ticket", "b");
    assert_eq!(joined.code, 0, "{}", joined.err);
    assert!(joined.out.contains("ringrift up, which runs the profile selfplay"), "{}", joined.out);
    let b = node_of(folder, "b");
    check_refused(&join("@ticket", "c"), 2, &["this ticket was used already", &b]);

    // It runs what it was invited for without a word.
    let second = start("b", &[]);
    until_state(folder, "b", "IDLE_RESOURCE", "running");
    let node = |name: &str| {
        let nodes = run(&["nodes", "--json", "--data", "a"]).json();
        nodes["nodes"][name].clone()
    };
    let shown =
        wait_for("b among the nodes", SOON, || Some(node(&b)).filter(|b| b["runs"].is_string()));
    assert!(shown["runs"] == "profile selfplay" && shown["leads"] == false, "{shown}");
    assert!(shown["can"]["evaluations_per_second"].as_u64() > Some(0), "{shown}");
    wait_for("b to play", SOON, || (node(&b)["items"] != 0).then_some(()));

    let wrong = run(&["node", "drain", "nobody", "--data", "a"]);
    check_refused(&wrong, 2, &["there is no node nobody", &b]);
    assert_eq!(run(&["node", "drain", &b, "--data", "a"]).code, 0);
    wait_for("b to end what it has in hand", SOON, || {
        (node(&b)["items"] == 0 && node(&b)["draining"] == true).then_some(())
    });
    wait_for("b to say why it does nothing", SOON, || {
        let why = run(&["why", "hex8_2p", "--data", "b"]);
        why.out.contains("this node is drained").then_some(())
    });
    wait_for("b to say so on a", SOON, || {
        let told = node(&b)["does"].as_str().unwrap_or_default().to_owned();
        let why = run(&["why", "--node", &b, "--data", "a"]);
        (told.starts_with("nothing: this node is drained")
            && why.out.contains("! DRAIN: this node"))
        .then_some(())
    });
    let nobody = run(&["why", "--node", "nobody", "--data", "a"]);
    check_refused(&nobody, 2, &["there is no node nobody", &b]);
    assert_eq!(run(&["node", "resume", "--data", "b"]).code, 0);
    wait_for("b to play again", SOON, || (node(&b)["items"] != 0).then_some(()));
    wait_for("a to be told what b plays", SOON, || {
        let b = node(&b);
        let work = b["report"]["works"][0]["work"].as_str()?.to_owned();
        (work.starts_with("selfplay-hex8_2p-") && b["does"].as_str()?.contains("selfplay hex8_2p"))
            .then_some(())
    });
    let here = run(&["why", "--node", "--data", "b"]);
    assert!(here.code == 0 && here.out.contains("is in hand"), "{here:?}");

    let not_here = run(&["node", "remove", &node_of(folder, "a"), "--data", "b"]);
    check_refused(&not_here, 1, &["the keys of the cluster are not here"]);
    let removed = run(&["node", "remove", &b, "--data", "a"]);
    assert_eq!(removed.code, 0, "{}", removed.err);
    assert_eq!(node(&b)["removed"], true);
    drop(second);
    wait_for("b to be shown as removed", SOON, || {
        (node(&b)["does"] == "it was put out of the cluster").then_some(())
    });
    let refused = run(&["up", "--profile", "selfplay", "--port", "0", "--data", "b"]);
    check_refused(&refused, 2, &["do not let this node in"]);
    fs_err::remove_file(folder.join("b/cluster.toml")).unwrap();
    check_refused(&join("@ticket", "b"), 2, &["was removed"]);

    // The manager is killed with its server; both come back, and who was put out stays out.
    drop(first);
    let _first = start("a", &[]);
    until_state(folder, "a", "AUTO_PROMOTION", "running");
    check_refused(&join("@ticket", "b"), 2, &["was removed"]);

    // The service of the node finds the server's program too.
    let unit = run(&["service", "install", "--print", "--user", "--data", "a"]);
    assert!(unit.out.contains(&format!("Environment=\"NATS_SERVER={program}\"")), "{}", unit.out);

    // Secrets are in files for their owner alone, and nowhere else.
    let secret = |file: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.join(file);
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        fs_err::read_to_string(path).unwrap()
    };
    let authority: Value = serde_json::from_str(&secret("a/cluster/authority.json")).unwrap();
    secret("a/cluster.toml");
    let line = |pem: String| pem.lines().nth(1).unwrap().to_owned();
    let mut secrets = vec![ticket, line(secret("a/cluster/server.key"))];
    secrets.push(line(authority["certificates"].as_str().unwrap().to_owned()));
    secrets.extend(["a/key", "b/key"].map(|key| secret(key).trim().to_owned()));
    let keys = ["operator", "account", "system"].map(|key| authority[key].as_str().unwrap());
    secrets.extend(keys.map(str::to_owned));
    let logs = ["a/logs/daemons.log", "b/logs/daemons.log", "a/logs/log-server.log"];
    for file in ["a.out", "b.out"].into_iter().chain(logs) {
        let said = fs_err::read_to_string(folder.join(file)).unwrap();
        assert!(secrets.iter().all(|secret| !said.contains(secret.as_str())), "{file}");
    }
    let status = run(&["status", "--json", "--data", "a"]).out;
    assert!(secrets.iter().all(|secret| !status.contains(secret.as_str())));
    let events = run(&["events", "--topic", "node", "--json", "--data", "a"]).out;
    assert!(events.contains("node.invited") && events.contains("node.admitted"), "{events}");
    assert!(secrets.iter().all(|secret| !events.contains(secret.as_str())));
}
