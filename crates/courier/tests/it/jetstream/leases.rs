//! Leases that are prolonged again and again, as nodes do.

use std::time::Duration;

use async_nats::jetstream;
use courier::{Lease, LeaseError};
use futures_util::TryStreamExt as _;

use super::Servers;

const TTL: Duration = Duration::from_secs(10);

fn is_lost(outcome: &Result<Lease, LeaseError>, epoch: u64) -> bool {
    matches!(outcome, Err(LeaseError::Lost { epoch: lost, .. }) if *lost == epoch)
}

#[tokio::test]
async fn what_is_prolonged_is_seen_by_all_and_lost_to_who_took_it() {
    let Some(servers) = Servers::start(1) else { return };
    let (a, b) = (servers.open("a").await, servers.open("b").await);
    let mut held = a.acquire("l", "a", TTL, 0).await.unwrap();
    for now_ms in [1000, 2000, 3000] {
        let said = Lease { note: now_ms.to_string(), ..held.clone() };
        held = a.renew(&said, TTL, now_ms).await.unwrap();
        assert_eq!(held, Lease { expires_ms: now_ms + 10_000, ..said });
        for log in [&a, &b] {
            assert_eq!(log.lease("l", now_ms).await.unwrap().as_ref(), Some(&held));
        }
    }
    // Over by the time that its holder names.
    assert!(is_lost(&a.renew(&held, TTL, 13_000).await, held.epoch));
    held = a.renew(&held, TTL, 12_000).await.unwrap();
    held = a.renew(&held, TTL, 12_001).await.unwrap();

    let taken = b.acquire("l", "b", TTL, 30_000).await.unwrap();
    assert_eq!(taken.epoch, held.epoch + 1);
    assert!(is_lost(&a.renew(&held, TTL, 12_002).await, held.epoch));
    let taken = b.renew(&taken, TTL, 30_001).await.unwrap();
    let taken = b.renew(&taken, TTL, 30_002).await.unwrap();

    b.release(&taken).await.unwrap();
    assert!(is_lost(&b.renew(&taken, TTL, 30_003).await, taken.epoch));
    // The same holder in its next life.
    let again = a.acquire("l", "b", TTL, 30_004).await.unwrap();
    assert!(is_lost(&b.renew(&taken, TTL, 30_005).await, taken.epoch));
    assert_eq!(a.lease("l", 30_006).await.unwrap().as_ref(), Some(&again));
    // And in the one after it: what is known here of the later one does not prolong the earlier one.
    let last = a.acquire("l", "b", TTL, 30_007).await.unwrap();
    let last = a.renew(&last, TTL, 30_008).await.unwrap();
    assert!(is_lost(&a.renew(&again, TTL, 30_009).await, again.epoch));
    assert_eq!(b.lease("l", 30_010).await.unwrap(), Some(last));
}

#[tokio::test]
async fn who_prolongs_his_lease_is_not_brought_those_of_others() {
    let Some(servers) = Servers::start(1) else { return };
    let a = servers.open("a").await;
    let client = async_nats::connect(servers.addresses()).await.unwrap();
    let stream = jetstream::new(client).get_stream("KV_test").await.unwrap();
    let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    let [of_a] = &names[..] else { panic!("{names:?}") };
    let brought = async || stream.consumer_info(of_a).await.unwrap().delivered.stream_sequence;

    let held = a.acquire("node.a", "a", TTL, 0).await.unwrap();
    let held = a.renew(&held, TTL, 1).await.unwrap();
    let b = servers.open("b").await;
    for n in 0..20 {
        b.acquire(&format!("node.{n}"), "b", TTL, 0).await.unwrap();
    }
    let before = brought().await;
    let held = a.renew(&held, TTL, 2).await.unwrap();
    a.renew(&held, TTL, 3).await.unwrap();
    assert_eq!(brought().await, before);
    // Who looks sees them all.
    assert_eq!(a.leases("node.", 4).await.unwrap().len(), 21);
    assert!(brought().await > before);
}
