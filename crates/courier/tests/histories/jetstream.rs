//! The engine of a cluster, with real servers that are killed and connections that are cut.

use std::time::Duration;

use courier::conformance::histories::record;
use courier::jetstream::JetStream;
use courier::{Courier, Error, LeaseError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::proxy::Proxy;
use crate::servers::Servers;
use crate::{ROUNDS, judge};

async fn nodes(servers: &Servers) -> Vec<Courier> {
    let mut nodes = Vec::new();
    for node in ["a", "b", "c"] {
        nodes.push(servers.open(node).await);
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_three_that_is_killed() {
    for seed in 0..ROUNDS {
        let Some(mut servers) = Servers::start(3) else { return };
        let nodes = nodes(&servers).await;
        let mut recording = JoinSet::new();
        recording.spawn(async move { record(&nodes, seed, 80).await });
        for stream in ["test_pipeline", "KV_test"] {
            sleep(Duration::from_millis(700)).await;
            let leader = servers.leader(stream).await;
            servers.kill(leader);
            sleep(Duration::from_secs(3)).await;
            servers.begin(leader);
        }
        judge(recording.join_next().await.unwrap().unwrap().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_hangs() {
    for seed in 0..ROUNDS {
        let Some(mut servers) = Servers::start(1) else { return };
        let nodes = nodes(&servers).await;
        let recording = record(&nodes, seed, 250);
        tokio::pin!(recording);
        let mut faults = 0;
        let history = loop {
            tokio::select! {
                history = &mut recording => break history,
                () = sleep(Duration::from_millis(700)), if faults < 5 => {
                    // First: all else may be over before.
                    if faults == 0 {
                        servers.freeze(0);
                        // Longer than a question waits for its answer; nobody works meanwhile.
                        sleep(Duration::from_millis(2500)).await;
                        servers.thaw(0);
                    } else {
                        servers.kill(0);
                        servers.begin(0);
                    }
                    faults += 1;
                }
            }
        };
        println!("{faults} faults of the server");
        assert!(faults > 0, "nothing failed");
        judge(history.unwrap());
    }
}

/// A node whose connection can be broken.
async fn behind(servers: &Servers, node: &str) -> (Courier, Proxy) {
    let proxy = Proxy::start(servers.addresses()).await;
    let mut options = servers.options(node);
    options.servers = proxy.address();
    (JetStream::open(options).await.unwrap(), proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_or_stand_still() {
    for seed in 0..ROUNDS {
        let Some(servers) = Servers::start(1) else { return };
        // Waits until it has begun.
        drop(servers.open("first").await);
        let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
        for node in ["a", "b", "c"] {
            let (node, proxy) = behind(&servers, node).await;
            nodes.push(node);
            proxies.push(proxy);
        }
        let recording = record(&nodes, seed, 60);
        tokio::pin!(recording);
        let mut faults = 0;
        let history = loop {
            tokio::select! {
                history = &mut recording => break history,
                () = sleep(Duration::from_millis(150)), if faults < 12 => {
                    let proxy = &proxies[faults % 3];
                    if faults % 4 == 3 {
                        // Longer than a question waits for its answer.
                        proxy.hold(Duration::from_millis(2500));
                    } else {
                        proxy.cut();
                    }
                    faults += 1;
                }
            }
        };
        println!("{faults} faults of connections");
        judge(history.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_not_granted_twice_for_one_acquisition_whose_answer_was_lost() {
    let Some(servers) = Servers::start(1) else { return };
    let b = servers.open("b").await;
    let (a, proxy) = behind(&servers, "a").await;
    let ttl = Duration::from_hours(1);
    proxy.mute();
    let mut first = JoinSet::new();
    first.spawn(async move { a.acquire("leader", "h", ttl, 1).await });
    while b.lease("leader", 1).await.unwrap().is_none() {
        sleep(Duration::from_millis(20)).await;
    }
    // The same holder, by another node.
    let second = b.acquire("leader", "h", ttl, 1).await.unwrap();
    proxy.cut();
    let first = first.join_next().await.unwrap().unwrap();
    assert!(matches!(first, Err(LeaseError::Failed(Error::Unavailable(_)))), "{first:?}");
    assert_eq!(b.lease("leader", 1).await.unwrap(), Some(second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquisition_whose_answer_was_lost_is_known_by_what_it_wrote() {
    let Some(servers) = Servers::start(1) else { return };
    let b = servers.open("b").await;
    let (a, proxy) = behind(&servers, "a").await;
    proxy.mute();
    let ttl = Duration::from_hours(1);
    let mut granted = JoinSet::new();
    granted.spawn(async move { a.acquire("leader", "h", ttl, 1).await });
    let seen = loop {
        match b.lease("leader", 1).await.unwrap() {
            Some(seen) => break seen,
            None => sleep(Duration::from_millis(20)).await,
        }
    };
    proxy.cut();
    assert_eq!(granted.join_next().await.unwrap().unwrap().unwrap(), seen);
    assert_eq!(seen.epoch, 1);
}
