//! What a node appended itself: it is known without having come, and held against what comes.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use courier::{Courier, NewFact, Stream};
use futures_util::TryStreamExt as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::Servers;

const STREAM: Stream = Stream::Pipeline;

/// Appends by several tasks, each on a subject of its own.
async fn append(log: &Courier, name: &str, tasks: u32, each: u32) {
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (log, name) = (log.clone(), name.to_owned());
        running.spawn(async move {
            for n in 0..each {
                let id = format!("{name}-{task}-{n}");
                let fact = NewFact::new(id, format!("{name}.{task}"), "test", json!({ "n": n }));
                log.append(STREAM, fact.into(), 1).await.unwrap();
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

async fn consumers(servers: &Servers) -> BTreeSet<String> {
    let client = async_nats::connect(servers.addresses()).await.unwrap();
    let stream = jetstream::new(client).get_stream("test_pipeline").await.unwrap();
    stream.consumer_names().try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_as_it_came_to_others_and_in_order() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = (servers.open("a").await, servers.open("b").await);
    // More than is passed over at a time, beside others.
    tokio::join!(append(&a, "a", 32, 60), append(&b, "b", 2, 60));
    let (of_a, of_b) = (a.read(STREAM, 0, 10_000), b.read(STREAM, 0, 10_000));
    let (of_a, of_b) = (of_a.await.unwrap(), of_b.await.unwrap());
    assert_eq!(of_a.len(), 34 * 60);
    assert_eq!(of_a, of_b);
    assert!(of_a.is_sorted_by_key(|fact| fact.position));
    // A node that knows nothing but what came.
    let fresh = servers.open("c").await;
    assert_eq!(fresh.read(STREAM, 0, 10_000).await.unwrap(), of_a);
}

#[tokio::test]
async fn a_node_with_nothing_to_do_keeps_its_consumer() {
    let Some(servers) = Servers::start(1) else { return };
    let log = servers.open("a").await;
    append(&log, "a", 1, 1).await;
    let before = consumers(&servers).await;
    assert_eq!(before.len(), 1);
    // Longer than the server may be silent.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(consumers(&servers).await, before);
}

/// Copies the store of the server, or puts a copy back.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    if to.exists() {
        fs_err::remove_dir_all(to).unwrap();
    }
    let copied = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_it_and_went_on_is_believed() {
    let Some(mut servers) = Servers::start(1) else { return };
    let log = servers.open("a").await;
    append(&log, "kept", 1, 5).await;
    servers.kill(0);
    // Its folder lies beside that of all nodes.
    let store = servers.folder("../0/jetstream");
    let saved = servers.folder("saved");
    copy(&store, &saved);
    servers.begin(0);
    append(&log, "lost", 8, 50).await;
    drop(log);
    servers.kill(0);
    copy(&saved, &store);
    servers.begin(0);
    // As many other facts get the same places.
    let other = servers.open("b").await;
    append(&other, "new", 8, 60).await;
    let log = servers.open("a").await;
    let facts = log.read(STREAM, 0, 10_000).await.unwrap();
    assert_eq!(facts, other.read(STREAM, 0, 10_000).await.unwrap());
    assert_eq!(facts.len(), 5 + 8 * 60);
}
