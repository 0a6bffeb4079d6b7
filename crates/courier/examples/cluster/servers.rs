//! Servers of a log as children, alone on loopback, and what they and this program cost.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use courier::Courier;
use courier::jetstream::{JetStream, Options};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::Outcome;

/// Ports of a server.
#[derive(Clone, Copy)]
struct Ports {
    clients: u16,
    routes: u16,
    figures: u16,
}

/// Ended with the bench.
pub struct Servers {
    folder: PathBuf,
    ports: Vec<Ports>,
    children: Vec<Child>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for n in 0..self.children.len() {
            if let Err(error) = self.kill(n) {
                println!("a server did not end: {error}");
            }
        }
    }
}

impl Servers {
    /// So many, which are one cluster if they are several.
    pub fn start(folder: &Path, count: usize) -> Outcome<Self> {
        let mut ports = Vec::new();
        for _ in 0..count {
            let [clients, routes, figures] = std::array::from_fn(|_| testkit::port());
            ports.push(Ports { clients, routes, figures });
        }
        let mut servers = Self { folder: folder.to_owned(), ports, children: Vec::new() };
        for n in 0..count {
            let child = servers.begin(n)?;
            servers.children.push(child);
        }
        Ok(servers)
    }

    fn begin(&self, n: usize) -> Outcome<Child> {
        let program = std::env::var_os("NATS_SERVER").map_or("nats-server".into(), PathBuf::from);
        let Ports { clients, routes, figures } = self.ports[n];
        let store = self.folder.join(format!("store{n}"));
        let mut text = format!(
            "server_name: s{n}\nlisten: 127.0.0.1:{clients}\nhttp: 127.0.0.1:{figures}\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {:?} }}\n",
            store.display().to_string()
        );
        if self.ports.len() > 1 {
            let all = self.ports.iter().map(|ports| format!("nats://127.0.0.1:{}", ports.routes));
            let all = all.collect::<Vec<_>>().join(", ");
            let cluster =
                format!("cluster {{ name: bench, listen: 127.0.0.1:{routes}, routes: [{all}] }}\n");
            text.push_str(&cluster);
        }
        let config = self.folder.join(format!("server{n}.conf"));
        fs_err::write(&config, text)?;
        let mut command = Command::new(&program);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn();
        Ok(child.map_err(|error| format!("start {}: {error}", program.display()))?)
    }

    /// Ends one with SIGKILL.
    pub fn kill(&mut self, n: usize) -> std::io::Result<()> {
        self.children[n].kill()?;
        self.children[n].wait().map(drop)
    }

    pub fn pid(&self, n: usize) -> u32 {
        self.children[n].id()
    }

    pub fn addresses(&self) -> String {
        let all = self.ports.iter().map(|ports| format!("nats://127.0.0.1:{}", ports.clients));
        all.collect::<Vec<_>>().join(",")
    }

    /// The log as a node sees it; waits for servers that have just begun.
    pub async fn open(&self, node: &str) -> Outcome<Courier> {
        let options = Options::new(self.addresses(), "bench", self.folder.join(node));
        for _ in 0..200 {
            match JetStream::open(options.clone()).await {
                Ok(log) => return Ok(log),
                Err(courier::OpenError::Unreachable { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err("no server begins".into())
    }

    /// What a server says of itself.
    pub async fn figures(&self, n: usize) -> Outcome<Value> {
        let at = ("127.0.0.1", self.ports[n].figures);
        let mut socket = tokio::net::TcpStream::connect(at).await?;
        socket.write_all(b"GET /varz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").ok_or("no answer of the server")?.1;
        Ok(serde_json::from_str(body)?)
    }
}

/// The processor time that a process took so far, milliseconds.
pub fn busy(pid: u32) -> Outcome<u64> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have blanks. Source: proc(5), utime and stime, of 10 ms each.
    let fields = stat.rsplit_once(')').ok_or("a process without a name")?.1.split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(10 * ticks.iter().sum::<u64>())
}

/// The memory that a process holds, bytes.
pub fn memory(pid: u32) -> Outcome<u64> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status"))?;
    let held = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = held.and_then(|held| held.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? << 10)
}
