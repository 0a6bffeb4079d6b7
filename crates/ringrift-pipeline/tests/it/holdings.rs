//! What is where.

use std::collections::BTreeSet;

use ringrift_pipeline::{
    ArtefactTrashed, ArtefactsOffered, ArtefactsReleased, CopyCounts, Event, ModelCreated, NodeId,
    NodeJoined, NodeRemoved, Record,
};

use crate::{
    Place,
    story::{hash, held, hex, model},
};

fn joined(node: &str) -> Event {
    NodeJoined {
        node: NodeId(node.into()),
        peer: "ab".repeat(32),
        addresses: vec!["10.0.0.2:4433".into()],
        role: "selfplay".into(),
        version: "0.0.0".into(),
        speaks: 1,
        slots: 1,
        playing: 1,
        can: None,
    }
    .into()
}

fn released(node: &str, name: &str) -> Event {
    let (node, hashes) = (NodeId(node.into()), vec![hash(name)]);
    ArtefactsReleased { node, hashes, reason: "gone".into() }.into()
}

/// Weights of this name.
fn named(number: u32, name: &str, bytes: u64) -> Event {
    ModelCreated {
        model: model(number),
        config: hex(),
        generation: number,
        parent: None,
        weights: hash(name),
        bytes,
    }
    .into()
}

impl Place {
    async fn who_has(&self, name: &str) -> Vec<String> {
        let holders = self.catalogue.holders(&hash(name)).await.unwrap();
        holders.into_iter().map(|row| row.node.0).collect()
    }

    /// Artefacts with fewer copies, and how many.
    async fn fewer_than(&self, copies: u32) -> Vec<(String, usize)> {
        let rows = self.catalogue.with_fewer_copies(copies, 10).await.unwrap();
        let short = |hash: &str| hash.trim_start_matches('0').to_owned();
        rows.into_iter().map(|row| (short(row.blob.hash.as_str()), row.kept(|_| true))).collect()
    }
}

#[tokio::test]
async fn the_catalogue_says_who_has_what_and_what_lacks_copies() {
    let place = Place::new().await;
    let time = std::cell::Cell::new(0);
    // Each at a time of its own: the same statement twice at one moment is one fact.
    let say = async |events: Vec<Event>| {
        for event in events {
            time.set(time.get() + 1);
            place.catalogue.record(vec![Record::always(event)], time.get()).await.unwrap();
        }
    };
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let artefacts = vec![named(1, "a1", 10), named(2, "a2", 20), named(3, "a3", 40)];
    say(vec![joined("x"), joined("y"), joined("z")]).await;
    say(artefacts).await;
    assert_eq!(place.fewer_than(1).await.len(), 3, "nobody has anything");
    say(vec![held("x", &["a1", "a2"]), held("y", &["a1"]), held("z", &["a1"])]).await;
    assert_eq!(place.who_has("a1").await, names(&["x", "y", "z"]));
    assert_eq!(place.who_has("a2").await, names(&["x"]));
    assert_eq!(place.fewer_than(2).await, [("a2".to_owned(), 1), ("a3".to_owned(), 0)]);
    let figures = place.catalogue.holdings().await.unwrap();
    let figures: Vec<_> = figures
        .iter()
        .map(|row| (row.node.as_str(), row.artefacts, row.bytes, row.alone))
        .collect();
    assert_eq!(figures, [("x", 2, 30, 1), ("y", 1, 10, 0), ("z", 1, 10, 0)]);

    // What is offered is there, and does not count.
    let (node, hashes) = (NodeId("x".into()), vec![hash("a1")]);
    let offered = ArtefactsOffered { node, hashes, reason: "its disk fills".into() };
    say(vec![offered.into()]).await;
    assert_eq!(place.fewer_than(3).await.len(), 3);
    assert_eq!(place.who_has("a1").await.len(), 3);
    assert_eq!(place.catalogue.holdings().await.unwrap()[0].offered, 1);
    let some = BTreeSet::from([NodeId("x".into()), NodeId("y".into())]);
    let few = place.catalogue.with_fewer_copies_among(&some, 2, 10).await.unwrap();
    let kept = few[0].kept(|node| some.contains(node));
    assert_eq!((few.len(), few[0].holders.len(), kept), (3, 3, 1));
    say(vec![held("x", &["a1"])]).await;
    assert_eq!(place.fewer_than(3).await.len(), 2);

    // Told again it is the same; given up it is gone; who is put out has nothing that counts.
    say(vec![held("x", &["a2"]), released("y", "a1"), released("y", "a3")]).await;
    assert_eq!(place.who_has("a1").await, names(&["x", "z"]));
    say(vec![NodeRemoved { node: NodeId("z".into()) }.into()]).await;
    assert_eq!(place.who_has("a1").await, names(&["x"]));
    assert_eq!(place.fewer_than(2).await.len(), 3);
    // What is let in again says anew what it has.
    say(vec![joined("z")]).await;
    assert_eq!(place.who_has("a1").await, names(&["x"]));

    let trashed = ArtefactTrashed { hash: hash("a2"), reason: "old".into() }.into();
    say(vec![trashed]).await;
    assert_eq!(place.who_has("a2").await, names(&[]));
    let x = place.catalogue.held_by(&NodeId("x".into())).await.unwrap();
    assert_eq!(x, [(hash("a1"), false)]);
    assert_eq!(place.fewer_than(2).await, [("a1".to_owned(), 1), ("a3".to_owned(), 0)]);

    let found = place.catalogue.beginning_with(&hash("a2").0, 10).await.unwrap();
    assert_eq!((found.len(), found[0].0.holders.len(), found[0].1.as_deref()), (1, 0, Some("old")));
    assert_eq!(place.catalogue.beginning_with("0", 10).await.unwrap().len(), 3);
    // x has a1, nobody has a3.
    for (counted, copies, few) in [(&["x", "y"][..], 2, 2), (&["x"], 1, 1), (&["y"], 1, 2)] {
        let counted = counted.iter().map(|name| NodeId((*name).into())).collect();
        let counts = place.catalogue.count_copies(&counted, copies).await.unwrap();
        assert_eq!(counts, [(hex(), CopyCounts { artefacts: 2, few })].into());
    }

    // Who was about to say that he has it says so in vain, until it is made again.
    say(vec![held("y", &["a2", "a3"])]).await;
    let y = NodeId("y".into());
    assert_eq!(place.catalogue.held_by(&y).await.unwrap(), [(hash("a3"), false)]);
    say(vec![named(4, "a2", 20), held("y", &["a2"])]).await;
    assert_eq!(place.who_has("a2").await, names(&["y"]));
}
