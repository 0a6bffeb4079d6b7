//! Peers as processes of their own, killed in mid-transfer.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use depot::{Depot, Hash, Options};
use tempfile::TempDir;
use tokio::time::Instant;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A process with a depot of its own; killed when it is dropped.
struct Peer {
    process: Child,
    orders: ChildStdin,
    said: BufReader<ChildStdout>,
    /// Its id and address.
    place: String,
    folder: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Peer {
    fn start(folder: &Path, rate: Option<u64>) -> Self {
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().and_then(Path::parent).unwrap().join("examples/peer");
        assert!(program.exists(), "{}: build it with the examples", program.display());
        let mut command = Command::new(program);
        command.arg(folder).args(rate.map(|rate| rate.to_string()));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let folder = folder.to_path_buf();
        let mut peer = Self { process, orders, said, place: String::new(), folder };
        peer.place = peer.line();
        peer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn depot(&self) -> Depot {
        Depot::open_existing(&self.folder)
    }

    /// Bytes that lie aside for what it fetches.
    fn aside(&self) -> u64 {
        let data = self.folder.join("peers/data");
        let Ok(files) = fs_err::read_dir(data) else { return 0 };
        let files = files.filter_map(|file| file.ok()?.metadata().ok());
        files.map(|file| std::os::unix::fs::MetadataExt::blocks(&file) * 512).sum()
    }

    fn kill(mut self) -> PathBuf {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.folder.clone()
    }
}

fn introduce(peers: &mut [&mut Peer]) {
    for asks in 0..peers.len() {
        for there in 0..peers.len() {
            if asks != there {
                let order = format!("member {}", peers[there].place);
                peers[asks].order(&order);
            }
        }
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Place {
    dir: TempDir,
    contents: Vec<u8>,
    hash: Hash,
}

impl Place {
    fn new(bytes: usize) -> Self {
        let contents: Vec<u8> =
            (0..bytes).map(|at| (at * 31 / 7 + at / 4096).to_le_bytes()[0]).collect();
        let hash = Hash::of(&contents);
        Self { dir: tempfile::tempdir().unwrap(), contents, hash }
    }

    /// A peer that has it.
    fn holder(&self, name: &str, rate: u64) -> Peer {
        let folder = self.dir.path().join(name);
        let depot = Depot::open(&folder, Options::default()).unwrap();
        depot.put_bytes(&self.contents, "npz").unwrap();
        Peer::start(&folder, Some(rate))
    }

    fn asker(&self) -> Peer {
        Peer::start(&self.dir.path().join("asks"), None)
    }

    fn order(&self) -> String {
        format!("fetch {} {}", self.hash, self.contents.len())
    }
}

#[test]
fn a_holder_that_is_killed_in_mid_transfer_is_passed_over() {
    let place = Place::new(24 << 20);
    let (mut first, mut second) = (place.holder("a", 4_000_000), place.holder("b", 4_000_000));
    let mut asks = place.asker();
    introduce(&mut [&mut first, &mut second, &mut asks]);
    asks.order(&place.order());
    wait_for("it has begun", || asks.aside() > 2 << 20);
    first.kill();
    assert_eq!(asks.line(), format!("fetched {}", place.contents.len()));
    asks.depot().verify(&place.hash).unwrap();
}

#[test]
fn who_fetches_and_is_killed_goes_on_with_what_is_there() {
    let place = Place::new(16 << 20);
    let mut holder = place.holder("a", 4_000_000);
    let mut asks = place.asker();
    introduce(&mut [&mut holder, &mut asks]);
    asks.order(&place.order());
    wait_for("half of it is there", || asks.aside() > 8 << 20);
    let folder = asks.kill();
    assert!(!Depot::open_existing(&folder).contains(&place.hash).unwrap());

    let mut again = Peer::start(&folder, None);
    assert!(again.aside() > 4 << 20, "{} bytes are there", again.aside());
    // The holder knows it by its key.
    let place_of_holder = holder.place.clone();
    again.order(&format!("member {place_of_holder}"));
    again.order(&place.order());
    assert_eq!(again.line(), format!("fetched {}", place.contents.len()));
    again.depot().verify(&place.hash).unwrap();
    // In both lives together hardly more than once the whole.
    holder.order("served");
    let served: usize = holder.line().parse().unwrap();
    assert!(served < place.contents.len() + (6 << 20), "{served} bytes were given");
}
