//! Servers and managers on the hosts of a bed.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use courier::{Courier, Embedded, Reader, Stream, refold};
use ringrift_pipeline::PipelineFold;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::Instant;

use crate::bed::{Bed, Host};

/// The binary under test.
const RINGRIFT: &str = env!("CARGO_BIN_EXE_ringrift");

/// The server's program: `NATS_SERVER`, or the one that `cargo xtask check` puts there. Says so if there
/// is none.
pub fn nats() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let ours =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/nats/bin/nats-server");
    let found = named.or_else(|| Some(ours).filter(|file| file.is_file()));
    if found.is_none() {
        println!("absent: nats-server; to have it: cargo xtask check, or name it in NATS_SERVER");
    }
    found
}

/// Waits until a condition holds, or fails with what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A process of the test on a host.
pub struct Process(Child);

impl Process {
    fn start(mut command: Command, log: &Path) -> Self {
        let out = fs_err::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let out = out.into_file();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        // Ctrl-C is for the test, which ends them in order.
        command.process_group(0);
        Self(command.spawn().unwrap())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    /// SIGTERM, and the wait for its end.
    pub fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).unwrap();
        }
        self.finish();
    }

    fn finish(&mut self) {
        let ended =
            wait_for("a process to leave", Duration::from_mins(3), || self.0.try_wait().unwrap());
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Servers that keep the log together, one a host.
pub struct Servers {
    program: PathBuf,
    folder: PathBuf,
    hosts: Vec<Host>,
    running: Vec<Option<Process>>,
}

impl Servers {
    /// Starts one on each of these hosts.
    pub fn start(bed: &Bed, names: &[&str], folder: &Path) -> Option<Self> {
        let hosts: Vec<Host> = names.iter().map(|name| bed.host(name).clone()).collect();
        let running = hosts.iter().map(|_| None).collect();
        let mut servers = Self { program: nats()?, folder: folder.to_path_buf(), hosts, running };
        for number in 0..names.len() {
            servers.begin(number);
        }
        Some(servers)
    }

    /// Starts one, for the first time or again on its store.
    pub fn begin(&mut self, number: usize) {
        let host = &self.hosts[number];
        let store = self.folder.join(format!("nats-{}", host.name));
        fs_err::create_dir_all(&store).unwrap();
        let mut text = format!(
            "server_name: {}\nlisten: {}:4222\nmax_payload: 8MB\njetstream {{ store_dir: {:?} }}\n",
            host.name,
            host.address,
            store.display().to_string()
        );
        if self.hosts.len() > 1 {
            let routes: Vec<String> =
                self.hosts.iter().map(|host| format!("nats://{}:6222", host.address)).collect();
            let routes = routes.join(", ");
            let listen = format!("{}:6222", host.address);
            let cluster =
                format!("cluster {{ name: bed, listen: {listen}, routes: [{routes}] }}\n");
            text.push_str(&cluster);
        }
        let config = store.join("server.conf");
        fs_err::write(&config, text).unwrap();
        let mut command = host.command(&self.program.display().to_string());
        command.arg("-c").arg(&config);
        self.running[number] = Some(Process::start(command, &store.join("server.log")));
    }

    /// Ends one with SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.running[number] = None;
    }

    /// The addresses of all.
    pub fn addresses(&self) -> String {
        let all: Vec<String> =
            self.hosts.iter().map(|host| format!("nats://{}:4222", host.address)).collect();
        all.join(",")
    }
}

/// A node: a data directory on a host, and a manager on it, if it runs.
pub struct Node {
    pub host: Host,
    pub data: PathBuf,
    profile: String,
    manager: Option<Process>,
}

impl Node {
    /// Makes the first node, or one more.
    pub fn enter(
        bed: &Bed,
        host: &str,
        profile: &str,
        word: &str,
        servers: &Servers,
        folder: &Path,
    ) -> Self {
        let host = bed.host(host).clone();
        let node = Self {
            data: folder.join(&host.name),
            profile: profile.to_owned(),
            manager: None,
            host,
        };
        let (addresses, listen) = (servers.addresses(), format!("{}:4433", node.host.address));
        let words = ["cluster", word, "--servers", &addresses, "--listen", &listen];
        // Servers that have just begun elect a leader first.
        let entered =
            wait_for(&format!("{} to enter", node.host.name), Duration::from_mins(1), || {
                let entered = node.ringrift(&words);
                if !entered.status.success() {
                    println!("{}", String::from_utf8_lossy(&entered.stderr).trim());
                }
                entered.status.success().then_some(entered)
            });
        println!("{}", String::from_utf8_lossy(&entered.stdout).lines().next().unwrap_or_default());
        node
    }

    /// Runs a command of the binary on this host to its end.
    pub fn ringrift(&self, words: &[&str]) -> Output {
        let mut command = self.host.command(RINGRIFT);
        command.args(words).arg("--data").arg(&self.data);
        without_ours(&mut command);
        command.output().unwrap()
    }

    /// The same as JSON; none unless it ended well.
    pub fn json(&self, words: &[&str]) -> Option<Value> {
        let output = self.ringrift(&[words, &["--json"]].concat());
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Starts its manager, with more arguments.
    pub fn up(&mut self, config: &str, more: &[&str]) {
        let mut command = self.host.command(RINGRIFT);
        command.args([
            "up",
            "--profile",
            &self.profile,
            "--configs",
            config,
            "--seed",
            "7",
            "--data",
        ]);
        command.arg(&self.data).args(more);
        without_ours(&mut command);
        // The hosts share a disk that is nobody's own.
        command.env("RINGRIFT_DISK_SPACE_MANAGER_MOST_USED", "0.99");
        command.env("RINGRIFT_DISK_SPACE_MANAGER_CALM_USED", "0.98");
        let log = self.data.with_extension("out");
        self.manager = Some(Process::start(command, &log));
    }

    /// Ends its manager with SIGKILL.
    pub fn kill(&mut self) {
        self.manager = None;
    }

    /// Ends its manager in good order.
    pub fn stop(&mut self) {
        if let Some(mut manager) = self.manager.take() {
            manager.stop();
        }
    }

    /// Its name in the log.
    pub fn name(&self) -> String {
        fs_err::read_to_string(self.data.join("node")).unwrap().trim().to_owned()
    }

    /// Asks its catalogue; the default while there is none.
    pub fn ask<T: Default + Send + 'static>(
        &self,
        question: &'static str,
        read: impl Fn(&courier::rusqlite::Row<'_>) -> courier::rusqlite::Result<T> + Send + 'static,
    ) -> Vec<T> {
        let file = self.data.join("catalogue.sqlite");
        if !file.exists() {
            return Vec::new();
        }
        let asked = Reader::new(&file).read_blocking(move |db| {
            db.prepare(question)?.query_map([], |row| read(row))?.collect()
        });
        asked.unwrap_or_default()
    }

    /// Promotions that it knows of.
    pub fn promotions(&self) -> usize {
        self.ask("SELECT position FROM promotions", |row| row.get::<_, i64>(0)).len()
    }

    /// The state of a daemon of its manager.
    pub fn state_of(&self, daemon: &str) -> Option<String> {
        Some(self.json(&["status"])?["daemons"][daemon]["state"].as_str()?.to_owned())
    }

    /// Up to where it knows the log.
    pub fn known(&self) -> u64 {
        self.with_log(async |log| log.head(Stream::Pipeline).await.unwrap())
    }

    /// What a catalogue says that is folded from its copy of the log up to here, as a digest.
    pub fn folded(&self, to: u64) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("again.sqlite");
        self.with_log(async |log| {
            let digest = refold(&file, PipelineFold, log, to).await.unwrap();
            format!("{:?}", digest.tables)
        })
    }

    fn with_log<T>(&self, ask: impl AsyncFnOnce(Courier) -> T) -> T {
        let log = Embedded::open_read_only(&self.data.join("replica/replica.sqlite")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(log))
    }

    /// Finds everything whole that is here; says how many artefacts are elsewhere.
    pub fn verify(&self) -> u64 {
        let output = self.ringrift(&["verify", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", self.host.name);
        serde_json::from_str::<Value>(&said).unwrap()["elsewhere"].as_u64().unwrap()
    }
}

/// Nothing of the caller's environment reaches it.
fn without_ours(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGRIFT_") {
            command.env_remove(name);
        }
    }
}
