//! The engine of a cluster, with real servers that are killed and connections that are cut.

use std::sync::Arc;
use std::time::Duration;

use courier::conformance::Verdict;
use courier::conformance::histories::{
    Competitor, History, Operation, Tally, What, facts, resolve,
};
use courier::jetstream::JetStream;
use courier::{Courier, Error, Lease, LeaseError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::proxy::Proxy;
use crate::servers::Servers;
use crate::{ROUNDS, judge};

/// The longest wait of a task before each step: a history of many seconds is to be looked through in one.
const PAUSE: Duration = Duration::from_millis(20);

async fn nodes(servers: &Servers) -> Vec<Courier> {
    let mut nodes = Vec::new();
    for node in ["a", "b", "c"] {
        nodes.push(servers.open(node).await);
    }
    nodes
}

/// A history that goes on until all faults have been: none comes when it is over.
struct Recording {
    history: Arc<History>,
    log: Courier,
    nodes: JoinSet<Verdict>,
}

impl Recording {
    /// Waits until it has begun.
    async fn begin(logs: Vec<Courier>, seed: u64) -> Self {
        let (history, log) = (Arc::new(History::default()), logs[0].clone());
        let mut nodes = JoinSet::new();
        for (n, log) in logs.into_iter().enumerate() {
            let mut node = Competitor::new(&format!("{seed}-{n}"), n);
            node.pause = PAUSE;
            let history = Arc::clone(&history);
            nodes.spawn(async move { node.compete(&log, &history).await });
        }
        let mut recording = Self { history, log, nodes };
        recording.goes_on().await;
        recording
    }

    fn appended(&self) -> usize {
        Tally::of(&self.history.operations()).count(Tally::APPENDED)
    }

    /// Waits until more is appended: what failed before failed in the middle of it.
    async fn goes_on(&mut self) {
        let before = self.appended();
        let until = Instant::now() + Duration::from_mins(1);
        while self.appended() < before + 10 {
            if let Some(ended) = self.nodes.try_join_next() {
                panic!("a node ended before the history: {ended:?}");
            }
            assert!(Instant::now() < until, "nothing is appended any more");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end(mut self) -> Vec<Operation<What>> {
        self.history.close();
        while let Some(ended) = self.nodes.join_next().await {
            ended.unwrap().unwrap();
        }
        resolve(self.history.operations(), &facts(&self.log).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_three_that_is_killed() {
    for seed in 0..ROUNDS {
        let Some(mut servers) = Servers::start(3) else { return };
        let mut recording = Recording::begin(nodes(&servers).await, seed).await;
        for stream in ["test_pipeline", "KV_test"] {
            let leader = servers.leader(stream).await;
            servers.kill(leader);
            sleep(Duration::from_secs(3)).await;
            servers.begin(leader);
            recording.goes_on().await;
        }
        judge(recording.end().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_hangs() {
    for seed in 0..ROUNDS {
        let Some(mut servers) = Servers::start(1) else { return };
        let mut recording = Recording::begin(nodes(&servers).await, seed).await;
        for fault in 0..5 {
            if fault == 0 {
                servers.freeze(0);
                // Longer than a question waits for its answer; nobody works meanwhile.
                sleep(Duration::from_millis(2500)).await;
                servers.thaw(0);
            } else {
                servers.kill(0);
                servers.begin(0);
            }
            recording.goes_on().await;
        }
        judge(recording.end().await);
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
        let mut recording = Recording::begin(nodes, seed).await;
        for fault in 0..12 {
            let proxy = &proxies[fault % 3];
            if fault % 4 == 3 {
                // Longer than a question waits for its answer.
                proxy.hold(Duration::from_millis(2500));
            } else {
                proxy.cut();
            }
            sleep(Duration::from_millis(150)).await;
        }
        recording.goes_on().await;
        judge(recording.end().await);
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

/// A renewal that was written, as another node sees, and whose answer was lost: what comes of it, and the lease as it was
/// seen. `does_know` the message that it replaces, or not; then somebody else may take the lease.
async fn renewal(
    does_know: bool,
    is_taken: bool,
) -> Option<(Result<Lease, LeaseError>, Option<Lease>)> {
    let servers = Servers::start(1)?;
    let b = servers.open("b").await;
    let (a, proxy) = behind(&servers, "a").await;
    let ttl = Duration::from_secs(10);
    let mut lease = a.acquire("leader", "a", ttl, 0).await.unwrap();
    // The first comes back to this node, the second it knows without.
    for _ in 0..if does_know { 2 } else { 0 } {
        lease = a.renew(&lease, ttl, 1).await.unwrap();
    }
    proxy.mute();
    let mut renewed = JoinSet::new();
    renewed.spawn(async move { a.renew(&lease, ttl, 5_000).await });
    let mut seen = None;
    while seen.as_ref().is_none_or(|seen: &Lease| seen.expires_ms < 15_000) {
        seen = b.lease("leader", 5_000).await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    if is_taken {
        b.acquire("leader", "b", ttl, 20_000).await.unwrap();
    }
    proxy.cut();
    Some((renewed.join_next().await.unwrap().unwrap(), seen))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_others_saw_was_not_lost_before_it() {
    for does_know in [false, true] {
        let Some((outcome, seen)) = renewal(does_know, false).await else { return };
        assert_eq!(outcome.ok(), seen);
        let Some((outcome, _)) = renewal(does_know, true).await else { return };
        let is_unknown = matches!(outcome, Err(LeaseError::Failed(Error::Unavailable(_))));
        assert!(is_unknown, "{outcome:?}");
    }
}
