//! Servers and managers on the hosts of a bed.

use std::{
    collections::BTreeSet,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use courier::{Courier, Embedded, Fact, Reader, Stream, refold};
use ringrift_pipeline::PipelineFold;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::Instant;

use crate::bed::{Host, run};

/// The binary under test.
const RINGRIFT: &str = env!("CARGO_BIN_EXE_ringrift");

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
    /// Starts one that says everything into this file.
    pub fn start(mut command: Command, log: &Path) -> Self {
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

    /// Waits for its end, which must be a good one.
    pub fn finish(&mut self) {
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

/// Servers on hosts that have nothing else, each with a folder in which its configuration lies.
pub struct Servers {
    program: PathBuf,
    hosts: Vec<(Host, PathBuf)>,
    running: Vec<Option<Process>>,
}

impl Servers {
    /// Moves the folders that the first node made to the hosts that they are for, and starts the servers.
    pub fn start(program: &Path, hosts: &[&Host], first: &Path, folder: &Path) -> Self {
        let hosts: Vec<(Host, PathBuf)> = (2..)
            .zip(hosts)
            .map(|(number, host)| {
                let theirs = folder.join(&host.name);
                let made = first.join(format!("cluster/servers/{number}"));
                fs_err::rename(made, &theirs).unwrap();
                ((*host).clone(), theirs)
            })
            .collect();
        Self::on(program, hosts)
    }

    /// Starts one in each of these folders.
    pub fn on(program: &Path, hosts: Vec<(Host, PathBuf)>) -> Self {
        let running = hosts.iter().map(|_| None).collect();
        let mut servers = Self { program: program.to_path_buf(), hosts, running };
        for number in 0..servers.hosts.len() {
            servers.begin(number);
        }
        servers
    }

    /// Starts one, for the first time or again on its store.
    pub fn begin(&mut self, number: usize) {
        let (host, folder) = &self.hosts[number];
        let mut command = host.command(&self.program.display().to_string());
        command.args(["-c", "server.conf"]).current_dir(folder);
        self.running[number] = Some(Process::start(command, &folder.join("server.log")));
    }

    /// Ends one with SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.running[number] = None;
    }

    /// What the last lines of each are.
    pub fn said(&self) -> String {
        let logs = self.hosts.iter().map(|(host, folder)| {
            let said = fs_err::read_to_string(folder.join("server.log")).unwrap_or_default();
            let from = said.lines().count().saturating_sub(40);
            let last: Vec<&str> = said.lines().skip(from).collect();
            format!("== {}\n{}\n", host.name, last.join("\n"))
        });
        logs.collect()
    }
}

/// A disk of a size of its own.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one at a folder that this makes.
    pub fn mount(at: &Path, megabytes: u32) -> Self {
        fs_err::create_dir_all(at).unwrap();
        run(&format!("mount -t tmpfs -o size={megabytes}m tmpfs {}", at.display())).unwrap();
        Self(at.to_path_buf())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut ballast = fs_err::File::create(self.ballast()).unwrap();
        for piece in [1 << 20, 1] {
            let zeros = vec![0; piece];
            while ballast.write_all(&zeros).is_ok() {}
        }
    }

    /// Takes that back.
    pub fn free(&self) {
        fs_err::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(why) = run(&format!("umount {}", self.0.display())) {
            println!("a disk of the bed is not gone: {why}");
        }
    }
}

/// A node: a data directory on a host, and a manager on it, if it runs.
pub struct Node {
    pub host: Host,
    pub data: PathBuf,
    /// What its manager and its commands find in their environment.
    pub environment: Vec<(String, String)>,
    profile: String,
    manager: Option<Process>,
    /// One of its managers was ended with SIGKILL.
    killed: bool,
}

impl Node {
    /// A data directory that is not there yet.
    pub fn new(host: &Host, profile: &str, data: PathBuf, server: &Path) -> Self {
        let environment = vec![("NATS_SERVER".to_owned(), server.display().to_string())];
        let (host, profile) = (host.clone(), profile.to_owned());
        Self { host, data, environment, profile, manager: None, killed: false }
    }

    /// Where it serves artefacts.
    fn listen(&self) -> String {
        format!("{}:4433", self.host.address)
    }

    /// Makes it the first node of a cluster whose other servers are to run on these hosts, and starts those.
    pub fn found(&self, program: &Path, others: &[&Host], folder: &Path) -> Servers {
        let listen = self.listen();
        let at: Vec<String> = [&self.host]
            .iter()
            .chain(others)
            .map(|host| format!("{}:4222", host.address))
            .collect();
        let mut words = vec!["cluster", "init", "--listen", &listen];
        words.extend(at.iter().flat_map(|at| ["--serve", at.as_str()]));
        let waits = self.ringrift(&words);
        let said = String::from_utf8_lossy(&waits.stderr);
        assert!(said.contains("two of the three servers must run"), "{said}");
        let servers = Servers::start(program, others, &self.data, folder);
        // They elect a leader first.
        wait_for("the first node", Duration::from_mins(1), || {
            let begun = self.ringrift(&words);
            begun.status.success().then_some(())
        });
        servers
    }

    /// Makes it a node of a cluster, with a ticket from the node that began that.
    pub fn join(&self, first: &Self, more: &[&str]) {
        let invited = first.json(&["cluster", "invite", "--role", &self.profile]).unwrap();
        let ticket = self.data.with_extension("ticket");
        fs_err::write(&ticket, invited["ticket"].as_str().unwrap()).unwrap();
        let (ticket, listen) = (format!("@{}", ticket.display()), self.listen());
        let joined =
            self.ringrift(&[&["cluster", "join", &ticket, "--listen", &listen], more].concat());
        let said = String::from_utf8_lossy(&joined.stderr);
        assert!(joined.status.success(), "{}: {said}", self.host.name);
        println!("{}", String::from_utf8_lossy(&joined.stdout).lines().next().unwrap_or_default());
    }

    /// The process of its manager.
    pub fn pid(&self) -> u32 {
        self.manager.as_ref().map(|manager| manager.0.id()).expect("its manager runs")
    }

    /// The process of the server that its manager runs.
    pub fn server(&self) -> u32 {
        let manager = self.pid().to_string();
        let server = fs_err::read_dir("/proc").unwrap().find_map(|entry| {
            let entry = entry.unwrap();
            let stat = fs_err::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            let is_it =
                name.ends_with("(nats-server") && rest.split_whitespace().nth(1)? == manager;
            is_it.then(|| entry.file_name().to_string_lossy().parse().unwrap())
        });
        server.expect("its server runs")
    }

    /// Ends that server with SIGKILL.
    pub fn kill_server(&self) {
        let server = i32::try_from(self.server()).ok().and_then(Pid::from_raw);
        kill_process(server.unwrap(), Signal::KILL).unwrap();
    }

    /// Runs a command of the binary on this host to its end.
    pub fn ringrift(&self, words: &[&str]) -> Output {
        let mut command = self.host.command(RINGRIFT);
        command.args(words).arg("--data").arg(&self.data);
        without_ours(&mut command);
        command.env("NATS_SERVER", &self.environment[0].1);
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
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // The hosts share a disk that is nobody's own.
        command.env("RINGRIFT_DISK_SPACE_MANAGER_MOST_USED", "0.99");
        command.env("RINGRIFT_AUTO_SYNC_FETCH_BELOW", "1");
        command.env("RINGRIFT_DISK_SPACE_MANAGER_CALM_USED", "0.98");
        if self.killed {
            // What an earlier life took from its workers and did not tell is found before the test is over.
            command.env("RINGRIFT_ORPHAN_DETECTION_MIN_AGE", "60");
        }
        self.manager = Some(Process::start(command, &self.output()));
    }

    /// What its managers said.
    pub fn output(&self) -> PathBuf {
        self.data.with_extension("out")
    }

    /// Ends its manager with SIGKILL.
    pub fn kill(&mut self) {
        self.manager = None;
        self.killed = true;
    }

    /// Was one of its managers ended so?
    pub fn was_killed(&self) -> bool {
        self.killed
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
        if !self.replica().exists() {
            return 0;
        }
        self.with_log(async |log| log.head(Stream::Pipeline).await.unwrap())
    }

    /// The facts that it knows behind a position.
    pub fn facts(&self, after: u64) -> Vec<Fact> {
        if !self.replica().exists() {
            return Vec::new();
        }
        self.with_log(async |log| {
            let (mut facts, mut after) = (Vec::new(), after);
            loop {
                let page = log.read(Stream::Pipeline, after, 1000).await.unwrap();
                let Some(last) = page.last() else { return facts };
                after = last.position;
                facts.extend(page);
            }
        })
    }

    /// Its copy of the log.
    pub fn replica(&self) -> PathBuf {
        self.data.join("replica/replica.sqlite")
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

    /// Asks its copy of the log.
    pub fn with_log<T>(&self, ask: impl AsyncFnOnce(Courier) -> T) -> T {
        let log = Embedded::open_read_only(&self.replica()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(log))
    }

    /// Finds everything whole that is here; gives the hashes of artefacts that are not.
    pub fn verify(&self) -> BTreeSet<String> {
        let output = self.ringrift(&["verify", "--json"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", self.host.name);
        let found = serde_json::from_str::<Value>(&said).unwrap();
        let elsewhere = found["elsewhere"].as_array().unwrap().iter();
        elsewhere.map(|hash| hash.as_str().unwrap().to_owned()).collect()
    }

    /// Has it an artefact, whether somebody knows of it or not?
    pub fn has(&self, hash: &str) -> bool {
        depot::Depot::open_existing(&self.data).contains(&hash.parse().unwrap()).unwrap()
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
