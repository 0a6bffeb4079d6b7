//! A manager that serves, and a client that keeps nothing to itself.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tokio::time::Instant;

const START: Duration = Duration::from_mins(1);
/// Longest wait for a part of an answer.
const READ: Duration = Duration::from_secs(70);

/// A running `up` that plays nothing until it is asked to; dropping it kills it.
pub struct Manager {
    child: Child,
    dir: TempDir,
    pub address: SocketAddr,
    pub token: String,
}

impl Manager {
    /// Starts one and waits until it is ready.
    pub fn ready() -> Self {
        let dir = tempdir().unwrap();
        let log = fs_err::File::create(dir.path().join("up.log")).unwrap().into_file();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringrift"));
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("RINGRIFT_") {
                command.env_remove(key);
            }
        }
        let child = command
            .args(["up", "--configs", "hex8_2p", "--profile", "minimal", "--port", "0"])
            .args(["--data", "data"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let run = dir.path().join("data/run");
        let read = |name: &str| fs_err::read_to_string(run.join(name)).ok();
        let mut manager = Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            token: String::new(),
            dir,
        };
        wait_for("the manager to be ready", START, || {
            let early = manager.child.try_wait().unwrap();
            assert_eq!(early, None, "it ended early: {}", manager.said());
            manager.address.set_port(read("port")?.trim().parse().ok()?);
            read("token")?.trim().clone_into(&mut manager.token);
            (manager.get("/ready")?.status == 200).then_some(())
        });
        manager
    }

    /// What it printed.
    pub fn said(&self) -> String {
        fs_err::read_to_string(self.dir.path().join("up.log")).unwrap()
    }

    /// A folder that ends with it.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// What is answered on a connection of its own; none if it was cut.
    pub fn get(&self, path: &str) -> Option<Answer> {
        get(self.address, path)
    }

    /// State, restarts and wish of every daemon: what a request must not change.
    pub fn daemons(&self) -> Vec<[Value; 4]> {
        let all: Value = serde_json::from_str(&self.get("/api/daemons").unwrap().body).unwrap();
        let all = all.as_array().unwrap();
        let fields = ["name", "state", "restarts", "asked"];
        all.iter().map(|daemon| fields.map(|field| daemon[field].clone())).collect()
    }

    /// Resident memory, KiB.
    pub fn resident(&self) -> u64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Open files.
    pub fn descriptors(&self) -> usize {
        fs_err::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Is it still there?
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Asks on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(READ)).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, body: body.to_owned() })
}

/// Waits until a condition holds, or fails with what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
