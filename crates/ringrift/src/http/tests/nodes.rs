//! The nodes of a cluster, on the page and over HTTP.

use ringrift_daemons::{NodeReport, SaidWork, Why};
use ringrift_pipeline::WorkId;
use tokio::time::Instant;

use super::{Events, World, get, opened};

pub(super) fn plays(number: u64) -> NodeReport {
    let config = "hex8_2p".parse().unwrap();
    let work = WorkId(format!("selfplay-hex8_2p-{number:06}"));
    let work = SaidWork { work, kind: "selfplay".into(), config };
    NodeReport { works: vec![work], free_slots: 3, cores: 4, ..NodeReport::default() }
}

pub(super) fn rests() -> NodeReport {
    let why = Why {
        by: "QUEUE_POPULATOR".into(),
        reason: "hex8_2p: 60 rows wait for a training".into(),
        needs: "a training that reads them".into(),
    };
    NodeReport { idle: Some(why), competes: true, ..NodeReport::default() }
}

#[tokio::test]
async fn one_machine_has_no_nodes_to_show() {
    let world = World::empty().await;
    let served = opened(&world);
    let nodes = get(&served, "/api/nodes").await.json();
    assert_eq!(
        nodes,
        serde_json::json!({ "leader": null, "artefacts": 0, "few_copies": 0, "nodes": [] })
    );
    let (_, all) = Events::open(&served).await.next().await.unwrap();
    assert!(all.get("cluster").is_none());
}

#[tokio::test]
async fn every_node_tells_what_it_does_or_why_it_does_nothing() {
    let world = World::of_a_cluster(&[("a".into(), rests()), ("b".into(), plays(1))]).await;
    let served = opened(&world);
    let nodes = get(&served, "/api/nodes").await.json();
    assert_eq!(nodes["leader"], "a");
    let (a, b) = (&nodes["nodes"][0], &nodes["nodes"][1]);
    assert!(a["leads"] == true && a["here"] == true && b["leads"] == false, "{nodes}");
    let nothing = "nothing: hex8_2p: 60 rows wait for a training; needs a training that reads them";
    assert_eq!((&a["does"], &b["does"]), (&nothing.into(), &"selfplay hex8_2p".into()));
    assert_eq!((&b["state"], &b["report"]["free_slots"]), (&"alive".into(), &3.into()));

    let (_, all) = Events::open(&served).await.next().await.unwrap();
    assert_eq!(all["cluster"]["nodes"], serde_json::json!(["a", "b"]));
    assert_eq!((&all["node:a"], &all["node:b"]), (a, b), "the page is sent the same");
}

#[tokio::test]
async fn two_hundred_nodes_are_answered_within_a_fifth_of_a_second() {
    let nodes: Vec<_> = (0..200).map(|n| (format!("node{n:03}"), plays(n))).collect();
    let world = World::of_a_cluster(&nodes).await;
    let served = opened(&world);
    get(&served, "/api/nodes").await;
    let began = Instant::now();
    let answer = get(&served, "/api/nodes").await;
    let took = began.elapsed();
    assert!(took.as_millis() < 200, "{took:?}");
    assert_eq!(answer.json()["nodes"].as_array().unwrap().len(), 200);
    assert!(answer.body.len() < 200 * 1000, "{} bytes", answer.body.len());
}
