//! A bounded flood on loopback: malformed, huge, slow, many, pipelined, abandoned and without the
//! token. It changes no daemon, the memory stays bounded, and `/health` answers all the while.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use ringrift_rules::SplitMix64;
use tokio::time::Instant;

use crate::served::{Manager, get, wait_for};

const FLOOD: Duration = Duration::from_secs(30);
/// Connections that are opened and hardly used.
const SLOW: usize = 300;
/// What the manager may hold more than before, KiB: all connections with full heads and bodies are
/// 128 x 48 KiB, and an allocator keeps some of what it once had.
const MAY_GROW: u64 = 48 << 10;
/// A second flood after the first may not grow it again by more than this.
const MAY_CREEP: u64 = 8 << 10;

/// What all attackers share.
struct Field {
    address: SocketAddr,
    over: AtomicBool,
    sent: AtomicU64,
}

impl Field {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        self.sent.fetch_add(1, Ordering::Relaxed);
        Some(stream)
    }

    /// Sends, then reads a little; what comes of it is the server's affair.
    fn throw(&self, bytes: &[u8]) {
        let Some(mut stream) = self.connect() else { return };
        if stream.write_all(bytes).is_ok() {
            let _ = stream.read(&mut [0; 1024]);
        }
    }
}

type Attack = fn(&Field, &mut SplitMix64);

const ATTACKS: &[Attack] = &[malformed, huge, slow, pipelined, abandoned, unauthorised];

fn random_bytes(random: &mut SplitMix64, length: usize) -> Vec<u8> {
    (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect()
}

fn malformed(field: &Field, random: &mut SplitMix64) {
    let heads: &[&[u8]] = &[
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET  HTTP/1.1\r\nHost\r\n\r\n",
        b"POST /api/manager/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/manager/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/manager/stop HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"GET /api/daemons/%00%ff%2e%2e/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let length = random.below(4000);
    if random.below(2) == 0 {
        field.throw(&random_bytes(random, length));
    } else {
        field.throw(heads[random.below(heads.len())]);
    }
}

fn huge(field: &Field, random: &mut SplitMix64) {
    let filler = "x".repeat(1 << 20);
    let start = "POST /api/daemons/start HTTP/1.1\r\nHost: localhost\r\n";
    field.throw(
        match random.below(5) {
            0 => format!("GET /{filler} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            1 => format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {filler}\r\n\r\n"),
            2 => format!("{start}Content-Length: 999999999999\r\n\r\n{filler}"),
            3 => format!("{start}Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n{filler}"),
            _ => format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(100_000)),
        }
        .as_bytes(),
    );
}

/// Many connections at a time, each of which gets its request out byte by byte.
fn slow(field: &Field, random: &mut SplitMix64) {
    let request =
        b"POST /api/daemons/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n";
    let mut streams: Vec<TcpStream> = (0..SLOW).filter_map(|_| field.connect()).collect();
    let cut = random.below(request.len());
    for byte in &request[..cut] {
        streams.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
        if !field.goes_on() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// A thousand requests without reading one answer.
fn pipelined(field: &Field, random: &mut SplitMix64) {
    let Some(mut stream) = field.connect() else { return };
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let paths = ["/status", "/metrics", "/api/registry", "/nowhere", "/page.js"];
    for _ in 0..1000 {
        let path = paths[random.below(paths.len())];
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if stream.write_all(request.as_bytes()).is_err() {
            break;
        }
    }
    let _ = stream.write_all(&random_bytes(random, 500));
}

/// Asks for what is dear, and is gone.
fn abandoned(field: &Field, random: &mut SplitMix64) {
    let paths = ["/metrics", "/api/loop", "/api/ratings", "/api/facts?limit=1000", "/api/stream"];
    let Some(mut stream) = field.connect() else { return };
    let path = paths[random.below(paths.len())];
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

fn unauthorised(field: &Field, random: &mut SplitMix64) {
    let names = ["EVENT_ROUTER", "HEALTH_SERVER", "DAEMON_WATCHDOG", "AUTO_SYNC", "NOBODY"];
    let verbs = ["start", "stop", "restart", "retry", "pause", "resume"];
    let path = match random.below(8) {
        0 => "/api/manager/stop".to_owned(),
        1 => "/api/daemons/start".to_owned(),
        _ => {
            format!("/api/daemons/{}/{}", names[random.below(5)], verbs[random.below(6)])
        }
    };
    let token = match random.below(4) {
        0 => String::new(),
        1 => "Authorization: Bearer\r\n".to_owned(),
        2 => format!("Authorization: Bearer {:064x}\r\n", random.below(1 << 30)),
        _ => "Cookie: token=x\r\n".to_owned(),
    };
    let body = "{\"all\": true}";
    field.throw(
        format!(
            "POST {path}?token=x HTTP/1.1\r\nHost: localhost\r\n{token}\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
}

/// Times of `/health` on new connections while everybody attacks; and how many were not answered.
fn flood(manager: &Manager, seed: u64) -> (Vec<Duration>, usize, u64) {
    let field =
        Field { address: manager.address, over: AtomicBool::new(false), sent: AtomicU64::new(0) };
    let (mut times, mut lost) = (Vec::new(), 0);
    thread::scope(|scope| {
        for (number, attack) in (1_u64..).zip(ATTACKS) {
            let field = &field;
            scope.spawn(move || {
                let mut random = SplitMix64::new(seed * 100 + number);
                while field.goes_on() {
                    attack(field, &mut random);
                }
            });
        }
        let began = Instant::now();
        while began.elapsed() < FLOOD {
            let asked = Instant::now();
            match get(manager.address, "/health") {
                Some(answer) if answer.status == 200 => times.push(asked.elapsed()),
                _ => lost += 1,
            }
            thread::sleep(Duration::from_millis(10));
        }
        field.over.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    (times, lost, field.sent.into_inner())
}

#[test]
fn a_flood_changes_nothing_and_health_answers_through_it() {
    let mut manager = Manager::ready();
    manager.get("/metrics");
    let (daemons, resident) = (manager.daemons(), manager.resident());
    let mut after = Vec::new();
    for seed in 1..=2 {
        let (times, lost, sent) = flood(&manager, seed);
        assert!(manager.lives(), "{}", manager.said());
        assert!(!times.is_empty(), "/health was never answered");
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        after.push(manager.resident());
        eprintln!(
            "flood {seed}: {sent} connections; /health asked {} times, {lost} times without an \
             answer, p50 {:.1?}, p99 {:.1?}, longest {:.1?}; resident {resident} -> {} KiB",
            times.len() + lost,
            at(50),
            at(99),
            at(100),
            after[after.len() - 1],
        );
        // Three hundred connections in one burst may push out a probe that has not said a word yet.
        assert!(lost * 20 <= times.len(), "{lost} of {} probes got no answer", times.len());
    }
    assert_eq!(manager.daemons(), daemons, "a daemon was changed without the token");
    assert!(after[0] < resident + MAY_GROW, "grew from {resident} to {} KiB", after[0]);
    assert!(after[1] < after[0] + MAY_CREEP, "grew again from {} to {} KiB", after[0], after[1]);
    // Heads that never end are given up after 20 s, and nothing else is left.
    wait_for("connections to be given back", Duration::from_mins(1), || {
        (manager.descriptors() < 100).then_some(())
    });
}
