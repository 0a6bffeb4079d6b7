//! How long a large file takes from one peer to others, beside rsync over ssh and plain HTTP.
//!
//! `cargo run --release -p depot --features peers --example transfer_bench [MIB [TURNS]]` prints one JSON object.
//! Everything is on this machine, in the current folder: both ends share its processors. All write to the disk and
//! flush it.
//!
//! `loopback` compares the work of each way, where no line is short; `line` is the same in a network namespace whose
//! loopback carries a gigabit a second in packets of 1,500 bytes, as the line of a host does (needs root, `unshare`,
//! `ip` and `tc`):
//!
//! * `peers`: [`Peers::fetch`], encrypted, verified piece by piece, under its name when it is flushed; the time that
//!   the one who gives it takes to hash it, once, is in it;
//! * `http`: the kernel copies the file to the socket, the receiver a MiB at a time from the socket to its file;
//!   nothing is encrypted or verified; `http_then_hashed` is the same with the file read and hashed afterwards;
//! * `rsync`: `rsync -W --fsync` over an ssh server of its own: encrypted; whole files, no compression. Absent without the
//!   packages `rsync` and `openssh-server`.
//!
//! `at_once`: four peers that fetch the same at once, each of which may ask the source and the other three, beside one
//! alone, where every peer sends at most so many bytes a second: then the senders are what is short, as they are
//! between hosts, and not this machine. `unlimited` is the four without that limit.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::{
    collections::BTreeMap,
    error::Error,
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use depot::{
    Depot, Hash, Options as DepotOptions,
    peers::{Key, Options, PeerId, Peers, Want},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a peer sends where senders are to be short, bytes a second: four times that is less than this machine moves.
const RATE: u64 = 48 << 20;

/// The file where senders are short is so many times smaller.
const LESS: u64 = 4;

/// What makes a namespace's loopback such a line; then this program goes on in it.
const LINE: &str = "ip link set lo up && ip link set lo mtu 1500 && \
                    tc qdisc add dev lo root tbf rate 1gbit burst 256kb latency 20ms && exec \"$0\" \"$@\"";

/// The word for the first rows alone.
const PAIR: &str = "pair";

fn main() -> Outcome<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let is_pair = words.first().is_some_and(|word| word == PAIR);
    let mut words = words.drain(usize::from(is_pair)..);
    let mib: u64 = words.next().map_or(Ok(1024), |word| word.parse())?;
    let turns: u32 = words.next().map_or(Ok(3), |word| word.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(async {
        if is_pair {
            return pair(mib << 20, turns).await;
        }
        Ok(serde_json::json!({
            "bytes": mib << 20,
            "loopback": pair(mib << 20, turns).await?,
            "line": over_line(mib, turns).unwrap_or_else(|why| absent(&*why)),
            "at_once": at_once(mib << 20, turns).await?,
        }))
    })?;
    println!("{figures:#}");
    Ok(())
}

fn absent(why: &(dyn Error + Send + Sync)) -> Value {
    json!({ "absent": why.to_string() })
}

/// The first rows in a namespace of their own.
fn over_line(mib: u64, turns: u32) -> Outcome<Value> {
    let ended = Command::new("unshare")
        .args(["--net", "sh", "-c", LINE])
        .arg(std::env::current_exe()?)
        .args([PAIR, &mib.to_string(), &turns.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("unshare: {error}"))?;
    if !ended.status.success() {
        return Err(String::from_utf8_lossy(&ended.stderr).trim().into());
    }
    Ok(serde_json::from_slice(&ended.stdout)?)
}

/// From one to one, each way in turn.
async fn pair(bytes: u64, turns: u32) -> Outcome<Value> {
    let folder = tempfile::tempdir_in(".")?;
    let file = folder.path().join("large");
    let want = write(&file, bytes)?;
    let ssh = Ssh::start(folder.path());
    let (mut peers, mut http, mut hashed, mut rsync) = (vec![], vec![], vec![], vec![]);
    for _ in 0..turns {
        peers.push(fetch_at_once(folder.path(), &file, &want, 1, None).await?);
        let (moved, with_hash) = over_http(folder.path(), &file, &want)?;
        http.push(moved);
        hashed.push(with_hash);
        if let Ok(ssh) = &ssh {
            rsync.push(ssh.copy(&file)?);
        }
    }
    let faster = best(&http).into_iter().chain(best(&rsync)).reduce(f64::min);
    Ok(json!({
        "peers": seconds(&peers),
        "http": seconds(&http),
        "http_then_hashed": seconds(&hashed),
        "rsync": ssh.as_ref().map_or_else(|why| absent(&**why), |_| seconds(&rsync)),
        "speed_of_peers_to_http": ratio(best(&http), best(&peers)),
        "speed_of_peers_to_rsync": ratio(best(&rsync), best(&peers)),
        "speed_of_peers_to_the_faster": ratio(faster, best(&peers)),
    }))
}

/// From one to four at once.
async fn at_once(bytes: u64, turns: u32) -> Outcome<Value> {
    let folder = tempfile::tempdir_in(".")?;
    let file = folder.path().join("large");
    let want = write(&file, bytes / LESS)?;
    let (mut one, mut four, mut unlimited) = (vec![], vec![], vec![]);
    for _ in 0..turns {
        one.push(fetch_at_once(folder.path(), &file, &want, 1, Some(RATE)).await?);
        four.push(fetch_at_once(folder.path(), &file, &want, 4, Some(RATE)).await?);
        unlimited.push(fetch_at_once(folder.path(), &file, &want, 4, None).await?);
    }
    Ok(json!({
        "bytes": bytes / LESS,
        "bytes_a_second_of_each": RATE,
        "one": seconds(&one),
        "four": seconds(&four),
        "four_to_one": ratio(best(&four), best(&one)),
        "unlimited": seconds(&unlimited),
    }))
}

fn best(times: &[Duration]) -> Option<f64> {
    times.iter().min().map(Duration::as_secs_f64)
}

fn seconds(times: &[Duration]) -> Value {
    let each: Vec<f64> = times.iter().map(|time| round(time.as_secs_f64())).collect();
    json!({ "best_s": best(times).map(round), "each_s": each })
}

fn ratio(above: Option<f64>, below: Option<f64>) -> Option<f64> {
    above.zip(below).map(|(above, below)| round(above / below))
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Writes a file that nothing compresses.
fn write(path: &Path, bytes: u64) -> Outcome<Want> {
    let mut file = BufWriter::new(fs_err::File::create(path)?);
    let mut state = bytes | 1;
    for _ in 0..bytes / 8 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        file.write_all(&(state ^ state >> 29).to_le_bytes())?;
    }
    file.into_inner()?.sync_all()?;
    let bytes = fs_err::metadata(path)?.len();
    Ok(Want { hash: hash(path)?, bytes, extension: "bin".into() })
}

fn hash(path: &Path) -> Outcome<Hash> {
    let mut file = fs_err::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(hasher.finalize().to_hex().parse()?);
        }
        hasher.update(&piece[..read]);
    }
}

/// A peer with a depot of its own, in a folder that goes with it.
struct Node {
    peers: Peers,
    depot: Depot,
    _folder: TempDir,
}

impl Node {
    async fn new(folder: &Path, rate: Option<u64>) -> Outcome<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        let depot = Depot::open(folder.path(), DepotOptions::default())?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let peers =
            Peers::open(&depot, Options { key: Key::generate(), listen, rate, relays: Vec::new() })
                .await?;
        Ok(Self { peers, depot, _folder: folder })
    }
}

/// From one source to so many peers at once; the time until the last one has it.
async fn fetch_at_once(
    folder: &Path,
    file: &Path,
    want: &Want,
    count: usize,
    rate: Option<u64>,
) -> Outcome<Duration> {
    let source = Node::new(folder, rate).await?;
    source.depot.put_file(file, &want.extension)?;
    let mut nodes = vec![source];
    for _ in 0..count {
        nodes.push(Node::new(folder, rate).await?);
    }
    let members: BTreeMap<PeerId, Vec<SocketAddr>> =
        nodes.iter().map(|node| (node.peers.id(), node.peers.addresses())).collect();
    let all: Vec<PeerId> = nodes.iter().map(|node| node.peers.id()).collect();
    for node in &nodes {
        node.peers.admit(members.clone());
    }
    flush();
    let began = Instant::now();
    let mut fetching = JoinSet::new();
    for node in nodes.drain(1..) {
        let (want, all) = (want.clone(), all.clone());
        fetching.spawn(async move {
            let others: Vec<PeerId> =
                all.into_iter().filter(|peer| *peer != node.peers.id()).collect();
            let fetched = node.peers.fetch(&want, &others).await;
            // It serves the others until all have it.
            fetched.map(|_| node)
        });
    }
    let mut done = Vec::new();
    while let Some(ended) = fetching.join_next().await {
        done.push(ended??);
    }
    let took = began.elapsed();
    for node in nodes.iter().chain(&done) {
        node.peers.close().await;
    }
    Ok(took)
}

/// Nobody pays for what somebody else wrote.
fn flush() {
    if let Err(error) = Command::new("sync").status() {
        println!("the disk is not flushed first: {error}");
    }
}

/// The time until the file is flushed, and until it was read and hashed as well.
fn over_http(folder: &Path, file: &Path, want: &Want) -> Outcome<(Duration, Duration)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let served = file.to_path_buf();
    let serving = std::thread::spawn(move || -> std::io::Result<()> {
        let (socket, _) = listener.accept()?;
        let mut lines = BufReader::new(&socket).lines();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let file = fs_err::File::open(served)?;
        let length = file.metadata()?.len();
        write!(&socket, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
        std::io::copy(&mut file.file(), &mut &socket)?;
        Ok(())
    });
    let target = folder.join("over-http");
    flush();
    let began = Instant::now();
    let mut socket = TcpStream::connect(address)?;
    write!(socket, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    // The head byte by byte, so that the body is left to the kernel.
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let mut received = fs_err::File::create(&target)?;
    let (mut length, mut piece) = (0, vec![0; 1 << 20]);
    loop {
        let read = socket.read(&mut piece)?;
        if read == 0 {
            break;
        }
        received.write_all(&piece[..read])?;
        length += read;
    }
    received.sync_all()?;
    let took = began.elapsed();
    if hash(&target)? != want.hash {
        return Err(format!("{length} bytes over HTTP, which are not those that were sent").into());
    }
    let with_hash = began.elapsed();
    serving.join().map_err(|_| "the HTTP server panicked")??;
    fs_err::remove_file(target)?;
    Ok((took, with_hash))
}

/// An ssh server of its own on loopback, which lets in one key; ended with the bench.
struct Ssh {
    server: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        if let Err(error) = self.server.kill().and_then(|()| self.server.wait()) {
            println!("the ssh server did not end: {error}");
        }
    }
}

impl Ssh {
    fn start(folder: &Path) -> Outcome<Self> {
        let folder = fs_err::canonicalize(folder)?.join("ssh");
        fs_err::create_dir(&folder)?;
        let at = |name: &str| folder.join(name);
        for name in ["host", "user"] {
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at(name)))?;
        }
        run(Command::new("rsync").arg("--version"))?;
        let port = testkit::port();
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             PidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            at("host").display(),
            at("user.pub").display(),
        );
        fs_err::write(at("sshd_config"), text)?;
        let log = fs_err::File::create(at("log"))?.into_parts().0;
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("/usr/sbin/sshd (package openssh-server): {error}"))?;
        let ssh = Self { server, folder, port };
        for _ in 0..50 {
            if run(ssh.shell().args(["127.0.0.1", "true"])).is_ok() {
                return Ok(ssh);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let said = fs_err::read_to_string(ssh.folder.join("log"))?;
        Err(format!("the ssh server lets nobody in: {}", said.trim()).into())
    }

    fn words(&self) -> Vec<String> {
        let key = self.folder.join("user");
        let words = format!(
            "-p {} -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
             -o BatchMode=yes",
            self.port,
            key.display()
        );
        words.split(' ').map(str::to_owned).collect()
    }

    fn shell(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(self.words());
        ssh
    }

    fn copy(&self, file: &Path) -> Outcome<Duration> {
        let target = self.folder.join("over-rsync");
        let from = format!("127.0.0.1:{}", fs_err::canonicalize(file)?.display());
        let shell = format!("ssh {}", self.words().join(" "));
        flush();
        let began = Instant::now();
        run(Command::new("rsync").args(["-W", "--fsync", "-e", &shell, &from]).arg(&target))?;
        let took = began.elapsed();
        fs_err::remove_file(target)?;
        Ok(took)
    }
}

fn run(command: &mut Command) -> Outcome<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&ended.stderr).trim()).into())
}
