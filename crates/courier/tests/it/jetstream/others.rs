//! What others leave on the servers: streams that do not fit, and messages that no engine wrote.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use courier::jetstream::JetStream;
use courier::{LetterFilter, LetterState, MAX_BODY_BYTES, NewFact, NewLetter, Stream};
use serde_json::json;

use super::Servers;

const STREAM: Stream = Stream::Pipeline;

/// What makes a stream unfit.
type Change = fn(&mut Config);

async fn client(servers: &Servers) -> Context {
    jetstream::new(async_nats::connect(servers.addresses()).await.unwrap())
}

async fn config(server: &Context, stream: &str) -> Config {
    server.get_stream(stream).await.unwrap().cached_info().config.clone()
}

#[tokio::test]
async fn a_stream_that_does_not_keep_what_is_in_it_is_refused_with_a_sentence() {
    let Some(servers) = Servers::start(1) else { return };
    drop(servers.open("first").await);
    let server = client(&servers).await;
    let made = config(&server, "test_pipeline").await;
    let cases: [(&str, Change, &str); 6] = [
        ("memory", |it| it.storage = StorageType::Memory, "lies in memory"),
        ("queue", |it| it.retention = RetentionPolicy::WorkQueue, "set its retention to `limits`"),
        ("deleted", |it| it.deny_delete = false, "switch `deny_delete` on"),
        ("purged", |it| it.deny_purge = false, "switch `deny_purge` on"),
        ("single", |it| it.allow_atomic_publish = false, "switch `allow_atomic` on"),
        ("small", |it| it.max_message_size = 4096, "takes messages of 4096 bytes"),
    ];
    for (name, change, said) in cases {
        let mut config = made.clone();
        config.name = format!("{name}_pipeline");
        config.subjects = vec![format!("{name}.pipeline.>")];
        change(&mut config);
        server.create_stream(config).await.unwrap();
        let mut options = servers.options(name);
        options.name = name.to_owned();
        let refused = JetStream::open(options).await.map(drop).unwrap_err().to_string();
        assert!(refused.contains(&format!("has a stream {name}_pipeline that ")), "{refused}");
        assert!(refused.contains(said), "{name}: {refused}");
    }
    let mut config = config(&server, "test_operational").await;
    config.name = "brief_operational".to_owned();
    config.subjects = vec!["brief.operational.>".to_owned()];
    config.allow_message_ttl = false;
    server.create_stream(config).await.unwrap();
    let mut options = servers.options("brief");
    options.name = "brief".to_owned();
    let refused = JetStream::open(options).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("switch `allow_msg_ttl` on"), "{refused}");
}

#[tokio::test]
async fn a_log_of_one_replica_on_three_servers_goes_on() {
    let Some(servers) = Servers::start(3) else { return };
    let mut options = servers.options("node");
    options.replicas = Some(1);
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while let Err(error) = JetStream::open(options.clone()).await {
        assert!(tokio::time::Instant::now() < until, "{error}");
    }
    let log = servers.open("node").await;
    let fact = NewFact::new("a", "s", "test", json!({}));
    log.append(STREAM, fact.into(), 1).await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_by_the_server_and_the_largest_of_ours_fits() {
    let Some(servers) = Servers::start(1) else { return };
    let log = servers.open("node").await;
    let client = async_nats::connect(servers.addresses()).await.unwrap();
    for subject in ["test.pipeline.fact.s", "test.operational.fact.s", "$KV.test.lease.l"] {
        let answer = client.request(subject, vec![b'1'; (2 << 20) + 1].into()).await.unwrap();
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(answer.contains("message size exceeds maximum allowed"), "{subject}: {answer}");
    }
    let body = json!("x".repeat(MAX_BODY_BYTES - 2));
    let name = "\"".repeat(255);
    let largest = NewFact::new(&name, "s".repeat(255), &name, body).caused_by(&name);
    let position = log.append(STREAM, largest.into(), 1).await.unwrap()[0];
    // Of a control character JSON makes six.
    let error = "\u{1}".repeat(4 << 20);
    let letter = NewLetter {
        subscriber: "me".to_owned(),
        stream: STREAM,
        position,
        error: error.clone(),
        attempts: 1,
    };
    let number = log.bury(letter, 1).await.unwrap();
    log.settle(number, None, LetterState::Pending, Some(error)).await.unwrap();
    let found = log.dead_letters(LetterFilter::default()).await.unwrap();
    assert_eq!((found[0].id, found[0].attempts), (number, 2));
    assert!(found[0].error.len() >= 64 << 10, "{} bytes", found[0].error.len());
}

#[tokio::test]
async fn a_log_without_a_largest_message_goes_on_and_passes_over_what_is_too_large() {
    let Some(servers) = Servers::start(1) else { return };
    drop(servers.open("first").await);
    let server = client(&servers).await;
    let mut config = config(&server, "test_pipeline").await;
    config.max_message_size = -1;
    server.update_stream(config).await.unwrap();
    let log = servers.open("node").await;
    let head = json!({ "id": "large", "source": "other", "time_ms": 1 }).to_string();
    let mut headers = HeaderMap::new();
    headers.insert("Fact", head);
    let body = json!("x".repeat(3 << 20)).to_string();
    let publish = server.publish_with_headers("test.pipeline.fact.large", headers, body.into());
    publish.await.unwrap().await.unwrap();
    let fact = NewFact::new("a", "s", "test", json!({}));
    log.append(STREAM, fact.into(), 1).await.unwrap();
    for log in [log, servers.open("fresh").await] {
        let facts = log.read(STREAM, 0, 10).await.unwrap();
        assert_eq!(facts.iter().map(|fact| &*fact.id).collect::<Vec<_>>(), ["a"]);
    }
}

#[tokio::test]
async fn a_message_that_nobody_can_read_is_passed_over() {
    let Some(servers) = Servers::start(1) else { return };
    let log = servers.open("node").await;
    let ttl = Duration::from_secs(10);
    let lease = log.acquire("l", "me", ttl, 1).await.unwrap();
    let server = client(&servers).await;
    let head = |id: &str| json!({ "id": id, "source": "other", "time_ms": 1 }).to_string();
    let huge = json!({ "by": "other", "kind": "letters", "last": u64::MAX }).to_string();
    let guard = json!({ "lease": "m", "epoch": u64::MAX, "over": false }).to_string();
    for (subject, head, payload) in [
        ("test.pipeline.fact.a", None, "{}"),
        ("test.pipeline.fact.a", Some("{"), "{}"),
        ("test.pipeline.fact.a", Some(&*head("1")), "no JSON"),
        ("test.pipeline.fact.a", Some(&*head("2")), "1e999"),
        ("test.pipeline.fact.a", Some(&*head("3")), "\"\\ud800\""),
        ("test.pipeline.fact.a", Some(&*head("")), "{}"),
        ("test.pipeline.guard.m", None, &*guard),
        ("test.pipeline.elsewhere", None, ""),
        ("test.operational.fact.a", None, "\0"),
        ("$KV.test.letters", None, &*huge),
        ("$KV.test.lease.l", None, "rubbish"),
        ("$KV.test.rubbish", None, "rubbish"),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(head) = head {
            headers.insert("Fact", head);
        }
        let payload = payload.to_owned().into_bytes();
        let taken = server.publish_with_headers(subject, headers, payload.into()).await.unwrap();
        taken.await.unwrap();
    }
    for stream in Stream::ALL {
        let fact = NewFact::new("mine", "s", "test", json!({}));
        log.append(stream, courier::Batch::from(fact).fenced(&lease), 1).await.unwrap();
    }
    // What was written over is written anew by whoever knows it.
    let lease = log.renew(&lease, ttl, 2).await.unwrap();
    let fresh = servers.open("fresh").await;
    for log in [log, fresh] {
        for stream in Stream::ALL {
            let facts = log.read(stream, 0, 100).await.unwrap();
            assert_eq!(facts.iter().map(|fact| &*fact.id).collect::<Vec<_>>(), ["mine"]);
        }
        assert_eq!(log.lease("l", 2).await.unwrap(), Some(lease.clone()));
    }
}
