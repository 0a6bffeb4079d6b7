//! Servers that die, come back, are cut off, or are too old.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use courier::jetstream::{JetStream, Options};
use courier::{
    AppendError, Batch, Courier, Embedded, Error, Fenced, LetterFilter, LetterState, NewFact,
    NewLetter, OpenError, Outbox, Stream,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Servers;

const STREAM: Stream = Stream::Pipeline;

fn fact(id: &str, subject: &str) -> NewFact {
    NewFact::new(id, subject, "test", json!({ "filling": "x".repeat(200) }))
}

/// Appends pairs from several tasks until told to end; tells of each that was acknowledged.
struct Load {
    tasks: JoinSet<u32>,
    acknowledged: mpsc::Receiver<(String, u64)>,
    end: tokio::sync::watch::Sender<bool>,
}

impl Load {
    fn begin(log: &Courier) -> Self {
        let (tell, acknowledged) = mpsc::channel(100_000);
        let (end, ended) = tokio::sync::watch::channel(false);
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let (log, tell, ended) = (log.clone(), tell.clone(), ended.clone());
            tasks.spawn(async move {
                let subject = format!("work.{task}");
                let mut repeated = 0;
                let mut last = 0;
                for n in 0.. {
                    if *ended.borrow() {
                        break;
                    }
                    let id = format!("{task}-{n}");
                    let pair = Batch::new(vec![
                        fact(&id, &subject).after(last),
                        fact(&format!("{id}-b"), &format!("{subject}.b")),
                    ]);
                    // Whoever does not hear an answer repeats the batch.
                    let positions = loop {
                        match log.append(STREAM, pair.clone(), 1).await {
                            Ok(positions) => break positions,
                            Err(AppendError::Failed(Error::Unavailable(_))) => repeated += 1,
                            Err(other) => panic!("{other}"),
                        }
                    };
                    last = positions[0];
                    tell.send((id, last)).await.unwrap();
                }
                repeated
            });
        }
        Self { tasks, acknowledged, end }
    }

    /// Waits for so many acknowledgements; gives them.
    async fn next(&mut self, count: usize) -> Vec<(String, u64)> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let limit = Duration::from_mins(1);
            let next = tokio::time::timeout(limit, self.acknowledged.recv()).await;
            seen.push(next.expect("appends go on").expect("the tasks live"));
        }
        seen
    }

    /// Ends the tasks; gives what they still heard.
    async fn end(mut self) -> Vec<(String, u64)> {
        self.end.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let mut seen = Vec::new();
        while let Ok(next) = self.acknowledged.try_recv() {
            seen.push(next);
        }
        seen
    }
}

/// What was acknowledged is there, once, at its position, with its other half.
async fn whole(log: &Courier, acknowledged: &[(String, u64)]) {
    let facts = log.read(STREAM, 0, 10_000_000).await.unwrap();
    let at: HashMap<&str, u64> =
        facts.iter().map(|fact| (fact.id.as_str(), fact.position)).collect();
    assert_eq!(at.len(), facts.len(), "no fact is there twice");
    for (id, position) in acknowledged {
        assert_eq!(at.get(id.as_str()), Some(position), "{id} was acknowledged");
    }
    for id in at.keys() {
        let other = id.strip_suffix("-b").map_or(format!("{id}-b"), str::to_owned);
        assert!(at.contains_key(other.as_str()), "{id} is there without the other half");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_followers_answers_no_question_and_with_one_it_does() {
    let Some(servers) = Servers::start(3) else { return };
    let log = servers.open("writer").await;
    let position = log.append(STREAM, fact("first", "a").into(), 1).await.unwrap()[0];
    let leader = servers.leader("test_pipeline").await;
    let mut options = servers.options("node");
    options.servers = servers.address(leader);
    options.patience = Duration::from_secs(1);
    // Three may have begun a moment ago.
    let node = loop {
        match JetStream::open(options.clone()).await {
            Err(OpenError::Unreachable { .. } | OpenError::Failed(_)) => {}
            opened => break opened.unwrap(),
        }
    };
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    for other in &others {
        servers.freeze(*other);
    }
    // Longer than what was heard of them counts, and shorter than the leader waits until it gives up.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let alone = node.head(STREAM).await;
    assert!(matches!(alone, Err(Error::Unavailable(_))), "{alone:?}");
    servers.thaw(others[0]);
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    let head = loop {
        match node.head(STREAM).await {
            Err(Error::Unavailable(_)) if tokio::time::Instant::now() < until => {}
            head => break head.unwrap(),
        }
    };
    assert_eq!(head, position);
    servers.thaw(others[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_nothing_and_the_engine_goes_on() {
    let Some(mut servers) = Servers::start(1) else { return };
    let log = servers.open("node").await;
    let mut load = Load::begin(&log);
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        acknowledged.extend(load.next(150).await);
        servers.kill(0);
        servers.begin(0);
    }
    acknowledged.extend(load.next(150).await);
    acknowledged.extend(load.end().await);
    whole(&log, &acknowledged).await;
    // Another node, which knows nothing yet, sees the same.
    whole(&servers.open("other").await, &acknowledged).await;
    println!("{} appends acknowledged, server killed 3 times", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_loses_nothing() {
    let Some(mut servers) = Servers::start(3) else { return };
    let log = servers.open("node").await;
    let mut load = Load::begin(&log);
    let mut acknowledged = load.next(100).await;
    let mut stood_still = Vec::new();
    for _ in 0..2 {
        let leader = servers.leader("test_pipeline").await;
        let killed = tokio::time::Instant::now();
        servers.kill(leader);
        // Those that were on their way, and then more than were ever in the air.
        acknowledged.extend(load.next(100).await);
        stood_still.push(killed.elapsed());
        servers.begin(leader);
        acknowledged.extend(load.next(100).await);
    }
    acknowledged.extend(load.end().await);
    whole(&log, &acknowledged).await;
    whole(&servers.open("other").await, &acknowledged).await;
    println!(
        "{} appends acknowledged, the leader of three killed twice, 100 more took {stood_still:?}",
        acknowledged.len()
    );
}

#[tokio::test]
async fn a_node_that_is_cut_off_keeps_its_facts_and_hands_them_in_later() {
    let Some(mut servers) = Servers::start(1) else { return };
    let mut options = servers.options("node");
    options.patience = Duration::from_secs(1);
    servers.open("node").await;
    let log = JetStream::open(options).await.unwrap();
    let outbox = Outbox::open(&servers.folder("node").join("outbox.sqlite")).unwrap();
    let before = log.append(STREAM, fact("before", "s").into(), 1).await.unwrap();
    servers.kill(0);
    let cut_off = log.append(STREAM, fact("now", "s").into(), 2).await;
    assert!(
        matches!(cut_off, Err(AppendError::Failed(Error::Unavailable(_)))),
        "{cut_off:?} without a server"
    );
    // What has no answer is put in as well: it is taken once.
    outbox.put(STREAM, &fact("now", "s").into(), 2).await.unwrap();
    for n in 0..100 {
        outbox.put(STREAM, &fact(&format!("later {n}"), "s").into(), 3).await.unwrap();
    }
    let stays = outbox.hand_in(&log).await;
    assert!(matches!(stays, Err(Error::Unavailable(_))), "{stays:?}");
    assert_eq!(outbox.waiting().await.unwrap(), 101);
    servers.begin(0);
    let handed_in = loop {
        match outbox.hand_in(&log).await {
            Ok(handed_in) => break handed_in,
            Err(Error::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(handed_in.refused, 0);
    assert_eq!(outbox.waiting().await.unwrap(), 0);
    let facts = log.read(STREAM, 0, 1000).await.unwrap();
    let ids: Vec<_> = facts.into_iter().map(|fact| fact.id).collect();
    let later = (0..100).map(|n| format!("later {n}"));
    let expected = ["before".to_owned(), "now".to_owned()].into_iter().chain(later);
    assert_eq!(ids, expected.collect::<Vec<_>>());
    assert_eq!(log.last_on(STREAM, "s").await.unwrap().unwrap().position, before[0] + 101);
}

/// As when its machine hangs, or a line is cut without a word: nothing ends the connection.
#[tokio::test]
async fn a_server_that_falls_silent_is_left_within_seconds() {
    let Some(servers) = Servers::start(3) else { return };
    servers.open("first").await;
    let mut options = servers.options("node");
    // The others it hears of from this one.
    options.servers = servers.addresses().split(',').next().unwrap().to_owned();
    let log = JetStream::open(options).await.unwrap();
    log.append(STREAM, fact("before", "s").into(), 1).await.unwrap();
    servers.freeze(0);
    let began = tokio::time::Instant::now();
    log.append(STREAM, fact("after", "s").into(), 2).await.unwrap();
    println!("another server answers {:.1} s later", began.elapsed().as_secs_f64());
    servers.thaw(0);
}

#[tokio::test]
async fn two_nodes_see_what_the_other_did() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = (servers.open("a").await, servers.open("b").await);
    let mut tail = b.tail(STREAM);
    tail.mark_unchanged();
    let position = a.append(STREAM, fact("1", "s").after(0).into(), 1).await.unwrap()[0];
    // At once, for who asks; in a moment, for who waits.
    assert_eq!(b.head(STREAM).await.unwrap(), position);
    tokio::time::timeout(Duration::from_secs(5), tail.wait_for(|head| *head == position))
        .await
        .unwrap()
        .unwrap();
    let late = b.append(STREAM, fact("2", "s").after(0).into(), 1).await;
    assert!(matches!(late, Err(AppendError::Conflict { actual, .. }) if actual == position));
    assert_eq!(b.append(STREAM, fact("1", "s").into(), 2).await.unwrap(), [position]);
    let ttl = Duration::from_secs(10);
    let old = a.acquire("l", "a", ttl, 0).await.unwrap();
    a.append(STREAM, Batch::from(fact("3", "t")).fenced(&old), 0).await.unwrap();
    let new = b.acquire("l", "b", ttl, 20_000).await.unwrap();
    for stream in Stream::ALL {
        let fenced = a.append(stream, Batch::from(fact("4", "t")).fenced(&old), 20_000).await;
        let Err(AppendError::Fenced(Fenced { current, .. })) = fenced else { panic!("{fenced:?}") };
        assert_eq!(current, Some(new.epoch));
        b.append(stream, Batch::from(fact("5", "t")).fenced(&new), 20_000).await.unwrap();
    }
    assert_eq!(a.identity().await.unwrap(), b.identity().await.unwrap());
}

/// Where it lands: the node that lost the lease has not heard of it.
#[tokio::test]
async fn a_letter_is_left_alone_by_a_node_that_does_not_know_that_its_lease_is_lost() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = (servers.open("a").await, servers.open("b").await);
    let position = a.append(STREAM, fact("1", "s").into(), 1).await.unwrap()[0];
    let letter = NewLetter {
        subscriber: "me".into(),
        stream: STREAM,
        position,
        error: "no".into(),
        attempts: 3,
    };
    let number = a.bury(letter, 1).await.unwrap();
    let ttl = Duration::from_secs(10);
    let old = a.acquire("l", "a", ttl, 0).await.unwrap();
    let new = b.acquire("l", "b", ttl, 20_000).await.unwrap();
    let refused = a.retry(number, Some(old.fence()), 20_000).await;
    let Err(Error::Fenced(Fenced { current, .. })) = refused else { panic!("{refused:?}") };
    assert_eq!(current, Some(new.epoch));
    b.settle(number, Some(new.fence()), LetterState::Abandoned, None).await.unwrap();
    let letters = a.dead_letters(LetterFilter::default()).await.unwrap();
    assert_eq!((letters[0].state, letters[0].retried_ms), (LetterState::Abandoned, None));
}

#[tokio::test]
async fn a_holder_that_died_before_its_guards_is_unknown_until_somebody_learns_of_it() {
    let Some(servers) = Servers::start(1) else { return };
    let log = servers.open("node").await;
    let ttl = Duration::from_secs(10);
    let old = log.acquire("l", "a", ttl, 0).await.unwrap();
    let append = async |stream: Stream, id: &str| {
        log.append(stream, Batch::from(fact(id, "s")).fenced(&old), 0).await
    };
    // What a node leaves that dies between the record and the guards.
    let record = json!({
        "by": "dead", "kind": "lease", "name": "l", "holder": "b", "epoch": old.epoch + 1,
        "expires_ms": 99_000,
    });
    let client = async_nats::connect(servers.addresses()).await.unwrap();
    client.request("$KV.test.lease.l", record.to_string().into()).await.unwrap();
    append(Stream::Pipeline, "1").await.unwrap();
    let seen = log.lease("l", 0).await.unwrap().unwrap();
    assert_eq!((seen.holder.as_str(), seen.epoch), ("b", old.epoch + 1));
    for stream in Stream::ALL {
        let fenced = append(stream, "2").await;
        let Err(AppendError::Fenced(Fenced { current, .. })) = fenced else { panic!("{fenced:?}") };
        assert_eq!(current, Some(seen.epoch));
        log.append(stream, Batch::from(fact("3", "s")).fenced(&seen), 0).await.unwrap();
    }
}

#[tokio::test]
async fn old_operational_facts_go_and_guards_stay() {
    const STREAM: Stream = Stream::Operational;
    let Some(servers) = Servers::start(1) else { return };
    // Waits until it has begun.
    drop(servers.open("first").await);
    let mut options = servers.options("node");
    options.name = "brief".to_owned();
    options.retention.max_facts = 100;
    options.retention.max_age = Duration::from_secs(4);
    let log = JetStream::open(options).await.unwrap();
    let lease = log.acquire("l", "a", Duration::from_secs(10), 0).await.unwrap();
    for n in 0..5 {
        let facts = (0..1000).map(|i| fact(&format!("{n}-{i}"), "s"));
        log.append(STREAM, Batch::new(facts.collect()), 1).await.unwrap();
    }
    let client = async_nats::connect(servers.addresses()).await.unwrap();
    let server = async_nats::jetstream::new(client);
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    // By number at once, then by age; the guard stays.
    for most in [101, 1] {
        loop {
            let stream = server.get_stream("brief_operational").await.unwrap();
            let messages = stream.cached_info().state.messages;
            if messages <= most {
                break;
            }
            assert!(tokio::time::Instant::now() < until, "{messages} messages, at most {most}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    log.append(STREAM, Batch::from(fact("last", "s")).fenced(&lease), 1).await.unwrap();
    let facts = log.read(STREAM, 0, 10_000).await.unwrap();
    assert!(facts.len() < 400, "{} facts in the replica", facts.len());
    assert_eq!(facts.last().map(|fact| fact.id.as_str()), Some("last"));
}

#[tokio::test]
async fn a_batch_of_the_largest_size_is_taken_with_all_conditions() {
    let Some(servers) = Servers::start(1) else { return };
    let log = servers.open("node").await;
    let lease = log.acquire("l", "a", Duration::from_secs(10), 0).await.unwrap();
    let facts = (0..courier::MAX_BATCH).map(|n| fact(&format!("{n}"), &format!("s.{n}")).after(0));
    let batch = Batch::new(facts.collect()).fenced(&lease);
    let positions = log.append(STREAM, batch.clone(), 0).await.unwrap();
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(log.append(STREAM, batch, 0).await.unwrap(), positions);
    assert_eq!(log.read(STREAM, 0, 10_000).await.unwrap().len(), courier::MAX_BATCH);
}

#[tokio::test]
async fn a_replica_that_is_gone_or_damaged_is_made_anew() {
    let Some(servers) = Servers::start(1) else { return };
    let log = servers.open("node").await;
    let positions = log.append(STREAM, fact("1", "s").into(), 1).await.unwrap();
    let letter = NewLetter {
        subscriber: "me".to_owned(),
        stream: STREAM,
        position: positions[0],
        error: "no".to_owned(),
        attempts: 1,
    };
    let number = log.bury(letter.clone(), 1).await.unwrap();
    log.settle(number, None, LetterState::Abandoned, None).await.unwrap();
    assert_eq!(log.purge_letters(None, i64::MAX).await.unwrap(), 1);
    drop(log);
    let file = servers.folder("node").join("replica.sqlite");
    fs_err::write(&file, "no database").unwrap();
    for end in ["-wal", "-shm"] {
        drop(fs_err::remove_file(format!("{}{end}", file.display())));
    }
    let log = servers.open("node").await;
    assert_eq!(log.read(STREAM, 0, 10).await.unwrap().len(), 1);
    assert_eq!(log.append(STREAM, fact("1", "s").into(), 2).await.unwrap(), positions);
    let next = log.bury(letter, 2).await.unwrap();
    assert!(next > number, "letter {next} after {number}, which is removed");
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let into = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &into);
        } else {
            fs_err::copy(&path, &into).unwrap();
        }
    }
}

#[tokio::test]
async fn what_servers_that_were_set_back_lost_is_kept_by_the_node_that_knew_it() {
    let Some(mut servers) = Servers::start(1) else { return };
    let log = servers.open("node").await;
    let known = async |log: &Courier| {
        let facts = log.read(STREAM, 0, 10).await.unwrap();
        facts.into_iter().map(|fact| fact.id).collect::<Vec<_>>()
    };
    log.append(STREAM, fact("1", "s").into(), 1).await.unwrap();
    drop(log);
    servers.kill(0);
    // Beside the folders of the nodes.
    let store = servers.folder("node").join("../../0/jetstream");
    let saved = servers.folder("saved");
    copy(&store, &saved);
    servers.begin(0);
    let log = servers.open("node").await;
    log.append(STREAM, fact("2", "s").into(), 1).await.unwrap();
    assert_eq!(known(&log).await, ["1", "2"]);
    let kept = courier::lost(&servers.folder("node")).unwrap();
    assert_eq!(kept, Vec::<std::path::PathBuf>::new());
    drop(log);
    servers.kill(0);
    fs_err::remove_dir_all(&store).unwrap();
    copy(&saved, &store);
    servers.begin(0);
    let log = servers.open("node").await;
    assert_eq!(known(&log).await, ["1"], "the log is what the servers say");
    let kept = courier::lost(&servers.folder("node")).unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let lost = Embedded::open_read_only(&kept[0]).unwrap();
    assert_eq!(known(&lost).await, ["1", "2"]);
}

#[tokio::test]
async fn an_old_server_is_refused_with_a_sentence() {
    // A real one of that age is one download more; what it says first is all that counts here.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let old = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let info = json!({
            "server_id": "old", "server_name": "old", "version": "2.11.11", "go": "go1.24",
            "host": "127.0.0.1", "port": port, "headers": true, "max_payload": 1_048_576,
            "proto": 1, "jetstream": true,
        });
        write!(stream, "INFO {info}\r\n").unwrap();
        write!(stream, "PONG\r\n").unwrap();
        // Until the client hangs up.
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    });
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(format!("nats://127.0.0.1:{port}"), "test", dir.path());
    let refused = JetStream::open(options).await.map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::TooOld { .. }), "{refused:?}");
    assert_eq!(
        refused.to_string(),
        format!(
            "the server at nats://127.0.0.1:{port} is version 2.11.11, at least 2.12.8 is needed: \
             install a newer one"
        )
    );
    // On another thread: the client hangs up on this one.
    tokio::task::spawn_blocking(move || old.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_a_sentence() {
    let nobody = Options::new("nats://127.0.0.1:1", "test", "/nowhere");
    let nobody = Options { patience: Duration::from_millis(300), ..nobody };
    let refused = JetStream::open(nobody.clone()).await.map(drop).unwrap_err().to_string();
    assert!(refused.starts_with("the log is out of reach at nats://127.0.0.1:1: "), "{refused}");
    let misnamed = Options { name: "a.b".to_owned(), ..nobody };
    let refused = JetStream::open(misnamed).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("1 to 32 letters, digits, `-` and `_` are allowed"), "{refused}");
    let Some(servers) = Servers::start(1) else { return };
    drop(servers.open("node").await);
    let other = Options { name: "other".to_owned(), ..servers.options("other") };
    drop(JetStream::open(other).await.unwrap());
}
