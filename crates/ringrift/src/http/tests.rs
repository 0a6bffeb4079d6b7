//! Over a real socket: every path, every refusal, the stream.

mod nodes;
mod openapi;
mod operate;
mod probes;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use courier::rusqlite::Connection;
use ringrift_daemons::{HttpPort as _, Obstacle};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use warden::{DaemonId, DaemonView, Health, State};

use super::{
    BindError, Http, Sources as _,
    fixture::{Served, Story, World, critical, daemon, note_crash, playing},
};

const LIMIT: Duration = Duration::from_secs(10);

/// An answer as it came over the wire.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

async fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may close before all of a large request is written.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("an answer in time");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {answer:?}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    raw(address, request.as_bytes()).await
}

async fn get(served: &Served, path: &str) -> Answer {
    ask(served.http.address(), "GET", path).await
}

fn opened(world: &Arc<World>) -> Served {
    let served = world.serve(0);
    served.http.open().unwrap();
    served
}

/// A world with a history of two configs and daemons in many states.
async fn lived_in() -> Arc<World> {
    let world = World::empty().await;
    for (config, seed) in [("hex8_2p", 1), ("square8_2p", 2)] {
        let mut story = Story::of(&world, config, seed);
        story.begin().await;
        story.learn(3).await;
    }
    note_crash(&world).await;
    world.live.lock().unwrap().push(playing("hex8_2p", 50, 3));
    world.show(vec![
        DaemonView {
            details: serde_json::json!({ "routed": 7, "by_topic": { "model.created": 3 } }),
            ..critical("EVENT_ROUTER")
        },
        DaemonView {
            health: Health::Degraded("2 sync errors".into()),
            details: serde_json::json!({
                "verified": 5, "verified_bytes": 9000, "bytes_last_cycle": 400,
                "bytes_per_second": 2.5e6,
            }),
            ..daemon("AUTO_SYNC")
        },
        DaemonView { asked: false, state: State::Stopped, ..daemon("ELO_SYNC") },
    ]);
    world
}

#[tokio::test]
async fn every_path_answers() {
    let world = lived_in().await;
    let served = opened(&world);
    for path in ["/", "/page.css", "/page.js", "/draw.js", "/icon.svg"] {
        let answer = get(&served, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.trim().is_empty(), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    for path in [
        "/health",
        "/ready",
        "/status",
        "/api/status",
        "/api/loop",
        "/api/models?config=hex8_2p",
        "/api/games?limit=3",
        "/api/matches",
        "/api/ratings",
        "/api/facts?after=4&limit=2",
        "/api/facts?stream=operational",
        "/api/live",
        "/api/nodes",
        "/api/registry",
        "/api/daemons",
        "/api/daemons/AUTO_SYNC",
    ] {
        let answer = get(&served, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        answer.json();
    }
    assert!(served.http.requests() >= 17);
}

#[tokio::test]
async fn the_apis_show_what_was_recorded() {
    let world = lived_in().await;
    let served = opened(&world);
    let the_loop = get(&served, "/api/loop").await.json();
    let hex = &the_loop["configs"][0];
    assert_eq!(hex["config"], "hex8_2p");
    assert_eq!(hex["champion"]["generation"], 2);
    assert_eq!(hex["totals"]["models"], 4);
    assert_eq!(hex["totals"]["promotions"], 2);
    assert_eq!(hex["stage"], "selfplay");

    let models = get(&served, "/api/models?config=hex8_2p").await.json();
    let statuses: Vec<&str> =
        models.as_array().unwrap().iter().map(|row| row["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["rejected", "champion", "former", "former"]);

    let facts = get(&served, "/api/facts?after=4&limit=2").await.json();
    assert_eq!(facts["facts"][0]["position"], 5);
    assert_eq!(facts["next"], 6);
    let newest = get(&served, "/api/facts?limit=3").await.json();
    assert_eq!(newest["next"], newest["head"]);
    assert_eq!(newest["facts"].as_array().unwrap().len(), 3);

    let ratings = get(&served, "/api/ratings?config=hex8_2p").await.json();
    let curve = &ratings["hex8_2p"];
    assert_eq!(curve["anchor"], "random");
    let elo = |index: usize| curve["models"][index]["elo"].as_f64().unwrap();
    assert!(elo(2) > elo(1) && elo(1) > elo(0), "{curve}");

    let why = get(&served, "/api/why/hex8_2p").await.json();
    assert_eq!(why["config"], "hex8_2p");
    let sentences = why["sentences"].as_array().unwrap();
    let last = sentences.last().unwrap();
    assert_eq!(last["gate"], "next", "{why}");
    assert!(!last["reason"].as_str().unwrap().is_empty());
    assert_eq!(get(&served, "/api/why/hexagonal_4p").await.status, 404);
    assert_eq!(get(&served, "/api/why/hex9").await.status, 400);

    let live = get(&served, "/api/live").await.json();
    assert_eq!(live["game"]["board"]["config"], "hex8_2p");
    assert_eq!(live["works"][0]["pid"], 4242);

    let status = get(&served, "/status").await.json();
    assert_eq!(status["daemons"]["AUTO_SYNC"]["message"], "2 sync errors");
    assert_eq!(status["daemons"]["HEALTH_CHECK"]["state"], "stopped", "retired ones are listed");
    assert_eq!((&status["status"], &status["total"]), (&"healthy".into(), &2.into()));
}

#[tokio::test]
async fn nothing_is_answered_before_open_and_after_close() {
    let world = World::empty().await;
    let served = world.serve(0);
    let refused = get(&served, "/health").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"], "not serving: HEALTH_SERVER is not running");
    served.http.open().unwrap();
    assert_eq!(get(&served, "/health").await.status, 200);
    served.http.close();
    assert_eq!(get(&served, "/").await.status, 503);
}

#[tokio::test]
async fn a_request_that_does_not_belong_here_is_refused_with_a_sentence() {
    let world = World::empty().await;
    let served = opened(&world);
    let address = served.http.address();
    let check = async |request: String, status: u16, part: &str| {
        let answer = raw(address, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{request:.80}: {}", answer.body);
        let sentence = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(sentence.contains(part), "{sentence}");
        answer
    };
    let simple = |method: &str, path: &str, host: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    check(simple("GET", "/nowhere", "localhost"), 404, "there is no '/nowhere' here").await;
    let refused = check(simple("POST", "/health", "localhost"), 405, "POST is not allowed").await;
    assert_eq!(refused.header("allow"), Some("GET,HEAD"));
    let only = "GET is not allowed on /api/manager/stop";
    let refused = check(simple("GET", "/api/manager/stop", "localhost"), 405, only).await;
    assert_eq!(refused.header("allow"), Some("POST"));
    check(simple("GET", "/", "evil.example"), 421, "'evil.example' is not served here").await;
    check(simple("GET", "/", "127.0.0.1.evil.example:80"), 421, "is not served here").await;
    check(simple("GET", "/", "a b"), 400, "Host header").await;
    check("GET / HTTP/1.1\r\nConnection: close\r\n\r\n".into(), 400, "no readable Host").await;
    for good in ["127.0.0.1:8790", "[::1]:8790", "LOCALHOST"] {
        let answer = raw(address, simple("GET", "/health", good).as_bytes()).await;
        assert_eq!(answer.status, 200, "{good}");
    }
    check(simple("GET", "/api/games?limit=0", "localhost"), 400, "allowed is 1 to 1000").await;
    check(simple("GET", "/api/games?config=hex9", "localhost"), 400, "did you mean").await;
    check(simple("GET", "/api/games?page=2", "localhost"), 400, "page").await;
    check(simple("GET", "/api/facts?after=x", "localhost"), 400, "after").await;

    let head = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let large = format!("{head}Content-Length: 20000\r\n\r\n{}", "x".repeat(20_000));
    check(large, 413, "16384 bytes").await;
    let chunk = format!("{:x}\r\n{}\r\n", 10_000, "x".repeat(10_000));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    check(chunked, 413, "16384 bytes").await;

    let many = "X-Filler: y\r\n".repeat(100);
    assert_eq!(raw(address, format!("{head}{many}\r\n").as_bytes()).await.status, 431);
    let long = format!("{head}X-Filler: {}\r\n\r\n", "y".repeat(200_000));
    assert_eq!(raw(address, long.as_bytes()).await.status, 431);
    assert_eq!(raw(address, b"\x16\x03\x01 no http\r\n\r\n").await.status, 400);
}

/// The events of a stream as they come: name and data.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    async fn open(served: &Served) -> Self {
        let mut stream = TcpStream::connect(served.http.address()).await.unwrap();
        let request = b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut events = Self { stream, text: String::new() };
        let head = events.until("\r\n\r\n").await.unwrap();
        assert!(head.contains("200 OK") && head.contains("text/event-stream"), "{head}");
        events
    }

    /// Everything up to a mark; none at the end of the stream.
    async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some((before, rest)) = self.text.split_once(mark) {
                let (before, rest) = (before.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(before);
            }
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(LIMIT, self.stream.read(&mut bytes)).await;
            match read.expect("an event in time") {
                Ok(0) | Err(_) => return None,
                // Chunk sizes stand between the lines; the tests' data has no other CR.
                Ok(read) => self.text += &String::from_utf8_lossy(&bytes[..read]),
            }
        }
    }

    async fn next(&mut self) -> Option<(String, Value)> {
        let event = self.until("\n\n").await?;
        let field = |name: &str| {
            event.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim)
        };
        let data = field("data:");
        let data = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {event}"));
        Some((field("event:").to_owned(), data))
    }
}

#[tokio::test]
async fn the_stream_gives_all_once_and_then_what_changed() {
    let world = lived_in().await;
    let served = opened(&world);
    let mut events = Events::open(&served).await;
    let (name, all) = events.next().await.unwrap();
    assert_eq!(name, "full");
    for section in [
        "manager",
        "live",
        "daemons",
        "daemon:AUTO_SYNC",
        "config:hex8_2p",
        "ratings:square8_2p",
        "matches",
        "facts",
    ] {
        assert!(!all[section].is_null(), "{section}");
    }
    world.show(vec![critical("EVENT_ROUTER")]);
    let (name, delta) = events.next().await.unwrap();
    assert_eq!(name, "delta");
    assert_eq!(delta["daemons"], serde_json::json!(["EVENT_ROUTER"]));
    assert!(delta["daemon:AUTO_SYNC"].is_null() && delta.get("daemon:AUTO_SYNC").is_some());
    assert!(delta.get("config:hex8_2p").is_none(), "what did not change is not sent");

    served.http.close();
    assert_eq!(events.next().await, None, "a closed server ends its streams");
}

#[tokio::test]
async fn a_catalogue_that_hangs_keeps_neither_the_page_nor_the_probes_from_answering() {
    let world = lived_in().await;
    let served = opened(&world);
    let mut events = Events::open(&served).await;
    events.next().await.unwrap();
    // Somebody holds the file: the fold cannot follow, and whoever wants to read waits for it.
    let held = Connection::open(world.the_loop().data.join("catalogue.sqlite")).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut story = Story::of(&world, "hex8_2p", 3);
    let watched = async {
        let full = Obstacle { reason: "0 bytes are free".into(), needs: "2 GiB".into() };
        world.pressure.set(DaemonId("DISK_SPACE_MANAGER"), Some(full));
        loop {
            let (_, delta) = events.next().await.unwrap();
            if delta["manager"]["obstacles"][0]["reason"] == "0 bytes are free" {
                break;
            }
        }
        assert_eq!(get(&served, "/health").await.status, 200);
        assert_eq!(get(&served, "/ready").await.status, 200);
        let metrics = probes::parsed(&get(&served, "/metrics").await.body);
        assert_eq!(metrics["ringrift_catalogue_up"], "0");
        assert_eq!(metrics["ringrift_obstacles"], "1");
        assert!(!metrics.contains_key("ringrift_promotions_total{config=\"hex8_2p\"}"));
    };
    tokio::select! {
        () = story.play(4) => panic!("the fold was held up by nothing"),
        () = watched => {}
    }
}

#[tokio::test]
async fn text_from_outside_arrives_as_text() {
    let world = World::empty().await;
    note_crash(&world).await;
    let mut work = playing("hex8_2p", 20, 1);
    work.note = "</script><img src=x onerror=alert(1)>\r\ndata: {}".into();
    world.live.lock().unwrap().push(work);
    let served = opened(&world);
    let (_, all) = Events::open(&served).await.next().await.unwrap();
    let note = &all["live"]["works"][0]["note"];
    assert_eq!(note, "</script><img src=x onerror=alert(1)>\r\ndata: {}", "one event, unchanged");
    assert!(all["facts"][0]["sentence"].as_str().unwrap().contains("<b>blobs</b>"));
    let missing = get(&served, "/%3Cscript%3E").await;
    assert_eq!(missing.header("content-type"), Some("application/json"));
}

/// The page puts every text into the document as text; these are the ways around that.
#[test]
fn the_page_makes_no_markup_of_data() {
    for (name, script) in
        [("page.js", include_str!("assets/page.js")), ("draw.js", include_str!("assets/draw.js"))]
    {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "createContextualFragment",
            "srcdoc",
        ] {
            assert!(!script.contains(way), "{name} uses {way}");
        }
    }
    let index = include_str!("assets/index.html");
    for outside in ["http://", "https://", "//cdn", "style=", "onclick", "onload"] {
        assert!(!index.contains(outside), "index.html contains {outside}");
    }
}

#[tokio::test]
async fn there_are_only_so_many_streams() {
    let world = World::empty().await;
    let served = opened(&world);
    let mut pages = Vec::new();
    for _ in 0..32 {
        pages.push(Events::open(&served).await);
    }
    let refused = get(&served, "/api/stream").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"], "32 pages are open already, close one");
    assert_eq!(get(&served, "/health").await.status, 200, "probes are not crowded out");
}

#[tokio::test]
async fn whoever_waits_longest_gives_its_place_to_a_newcomer() {
    let world = World::empty().await;
    let served = opened(&world);
    let page = Events::open(&served).await;
    let mut idle = Vec::new();
    // One place has the page, which is at work although nothing is asked.
    for _ in 0..127 {
        let mut stream = TcpStream::connect(served.http.address()).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
        idle.push(stream);
    }
    // Accepted in the order of arrival, so each of these is one too many; they stay.
    let mut newcomers = Vec::new();
    for (round, oldest) in idle.iter_mut().take(3).enumerate() {
        let mut newcomer = TcpStream::connect(served.http.address()).await.unwrap();
        newcomer.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut status = [0; 15];
        newcomer.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200 OK");
        newcomers.push(newcomer);
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LIMIT, oldest.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && rest.is_empty(), "{round} had waited longest: {rest:?}");
    }
    drop(page);
}

#[tokio::test]
async fn an_address_is_taken_once_and_only_on_this_machine() {
    let first = Http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_ne!(first.address().port(), 0);
    let error = Http::bind(first.address()).err().unwrap();
    assert!(matches!(error, BindError::Taken(_)));
    assert!(error.to_string().contains("choose another port with --port"), "{error}");
    let error = Http::bind("0.0.0.0:0".parse().unwrap()).err().unwrap();
    assert!(matches!(error, BindError::NotLoopback(_)), "{error}");
}

#[tokio::test]
async fn a_stopped_server_ends_its_streams_and_says_why_it_does_not_open() {
    let world = World::empty().await;
    let mut served = opened(&world);
    let mut events = Events::open(&served).await;
    events.next().await.unwrap();
    served.stop.cancel();
    assert_eq!(events.next().await, None);
    let ended = tokio::time::timeout(LIMIT, served.tasks.join_next()).await.unwrap();
    ended.unwrap().unwrap().unwrap();
    assert_eq!(served.http.fault().as_deref(), Some("the HTTP server has ended"));
    assert!(served.http.open().is_err());
}

/// For a person who works on the page: a made-up manager that goes on living, and one that has just
/// begun.
#[tokio::test]
#[ignore = "serves the page on the ports 8799 and 8798 until it is killed"]
async fn preview() {
    let (world, new) = (super::preview::world().await, World::empty().await);
    let (served, young) = (world.serve(8799), new.serve(8798));
    served.http.open().unwrap();
    young.http.open().unwrap();
    super::preview::live(&world).await;
}
