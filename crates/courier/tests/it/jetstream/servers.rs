//! Real servers, each a child of the test with a store of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use courier::Courier;
use courier::jetstream::{JetStream, Options};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Servers of one cluster; one alone is a single server.
pub(crate) struct Servers {
    program: PathBuf,
    dir: TempDir,
    ports: Vec<(u16, u16)>,
    children: Vec<Option<Child>>,
}

impl Servers {
    /// Starts so many; none if the program is absent.
    pub(crate) fn start(count: usize) -> Option<Self> {
        let ports = (0..count).map(|_| (testkit::port(), testkit::port())).collect();
        let dir = tempfile::tempdir().unwrap();
        let children = (0..count).map(|_| None).collect();
        let mut servers = Self { program: testkit::nats_server()?, dir, ports, children };
        for n in 0..count {
            servers.begin(n);
        }
        Some(servers)
    }

    /// Starts one, for the first time or again on its store and its port.
    pub(crate) fn begin(&mut self, n: usize) {
        let folder = self.dir.path().join(n.to_string());
        fs_err::create_dir_all(&folder).unwrap();
        let (port, route) = self.ports[n];
        let mut text = format!(
            "server_name: s{n}\nlisten: 127.0.0.1:{port}\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {:?} }}\n",
            folder.display().to_string()
        );
        if self.ports.len() > 1 {
            let routes: Vec<_> =
                self.ports.iter().map(|(_, port)| format!("nats://127.0.0.1:{port}")).collect();
            let routes = routes.join(", ");
            let listen = format!("127.0.0.1:{route}");
            let cluster =
                format!("cluster {{ name: test, listen: {listen}, routes: [{routes}] }}\n");
            text.push_str(&cluster);
        }
        let config = folder.join("server.conf");
        fs_err::write(&config, text).unwrap();
        let log = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("server.log"))
            .unwrap();
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.into_parts().0)
            .spawn()
            .unwrap();
        self.children[n] = Some(child);
    }

    /// Ends one with SIGKILL.
    pub(crate) fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.children[n].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Lets one hang, as a whole.
    pub(crate) fn freeze(&self, n: usize) {
        self.signal(n, Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, n: usize) {
        self.signal(n, Signal::CONT);
    }

    fn signal(&self, n: usize, signal: Signal) {
        let child = self.children[n].as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("children have ids"), signal).unwrap();
    }

    /// The addresses of all.
    pub(crate) fn addresses(&self) -> String {
        let all: Vec<_> = (0..self.ports.len()).map(|n| self.address(n)).collect();
        all.join(",")
    }

    /// Where one listens.
    pub(crate) fn address(&self, n: usize) -> String {
        format!("nats://127.0.0.1:{}", self.ports[n].0)
    }

    /// A folder of a node.
    pub(crate) fn folder(&self, node: &str) -> PathBuf {
        self.dir.path().join("nodes").join(node)
    }

    pub(crate) fn options(&self, node: &str) -> Options {
        let mut options = Options::new(self.addresses(), "test", self.folder(node));
        options.patience = Duration::from_secs(30);
        options
    }

    /// The log as a node sees it. Waits for servers that have just begun.
    pub(crate) async fn open(&self, node: &str) -> Courier {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            match JetStream::open(self.options(node)).await {
                Ok(log) => return log,
                Err(courier::OpenError::Unreachable { .. })
                    if tokio::time::Instant::now() < until =>
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}\n{}", self.said()),
            }
        }
    }

    /// Which server leads a stream of the log.
    pub(crate) async fn leader(&self, stream: &str) -> usize {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(client) = async_nats::connect(self.alive()).await
                && let Ok(stream) = async_nats::jetstream::new(client).get_stream(stream).await
                && let Some(cluster) = &stream.cached_info().cluster
                && let Some(leader) = &cluster.leader
                && let Ok(n) = leader.trim_start_matches('s').parse()
            {
                return n;
            }
            assert!(tokio::time::Instant::now() < until, "no leader\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn alive(&self) -> Vec<String> {
        let all = self.children.iter().enumerate();
        let alive = all.filter(|(_, child)| child.is_some());
        alive.map(|(n, _)| self.address(n)).collect()
    }

    /// What the servers said.
    pub(crate) fn said(&self) -> String {
        let logs = (0..self.ports.len()).map(|n| self.dir.path().join(n.to_string()));
        logs.map(|folder| fs_err::read_to_string(folder.join("server.log")).unwrap_or_default())
            .collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for n in 0..self.children.len() {
            self.kill(n);
        }
    }
}
