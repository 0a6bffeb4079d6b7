//! Tests of `SYNC_PUSH`.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use hosts::Disk;
use ringrift_pipeline::HoldingRow;
use serde_json::{Value, json};
use warden::{DaemonView, Snapshot, Wake};

use super::*;
use crate::{
    Supervision,
    testbed::{Bed, Street, done, hex, stops_in_mid_cycle, view_of},
};

/// A disk of 100 GiB.
const TOTAL: u64 = 100 << 30;

/// A daemon on a disk of which this share is in use, in per cent.
fn daemon(bed: &Bed, used: &Arc<AtomicU64>) -> SyncPush {
    let ports = (
        bed.catalogue_of::<SyncPush>(),
        bed.blobs.clone(),
        bed.shared(),
        bed.neighbours.clone(),
        bed.bell.clone(),
    );
    let mut daemon = SyncPush::new(Config::default(), ports);
    let used = Arc::clone(used);
    daemon.look = Arc::new(move |_| {
        let available = TOTAL / 100 * (100 - used.load(Ordering::Relaxed));
        Ok(Disk { total: TOTAL, available })
    });
    daemon
}

fn node(name: &str) -> NodeId {
    NodeId(name.to_owned())
}

#[test]
fn as_many_take_it_as_copies_lack_and_the_next_in_turn_after_a_while() {
    let living: BTreeSet<NodeId> = ["a", "b", "c", "d", "e", "drained"].map(node).into();
    let patience = Duration::from_mins(10);
    let blob = |number: u64| BlobRow {
        hash: BlobHash(format!("{number:064x}")),
        role: "games".into(),
        config: hex(),
        bytes: 1,
        position: 1,
    };
    let holder = |name: &str, offered: bool| HoldingRow {
        node: node(name),
        offered,
        position: 1,
        since_ms: 1,
    };
    let takers = |holders: &[HoldingRow], copies: u32, waited: Duration| {
        let row = CopiesRow { blob: blob(7), holders: holders.to_vec() };
        let ours = |here: &&NodeId| {
            let here = (*here).clone();
            // One that is drained gives, and neither counts nor takes.
            let counted =
                living.iter().filter(|node| node.as_str() != "drained").cloned().collect();
            View { here, living: living.clone(), counted, copies }.is_ours(&row, waited, patience)
        };
        living.iter().filter(ours).count()
    };
    let now = Duration::ZERO;
    assert_eq!(takers(&[holder("a", false)], 2, now), 1);
    assert_eq!(takers(&[holder("a", false)], 3, now), 2);
    assert_eq!(takers(&[holder("a", true)], 2, now), 2, "an offered copy does not count");
    assert_eq!(takers(&[holder("a", false)], 2, patience), 2, "the next stands in");
    assert_eq!(takers(&[holder("a", false)], 2, 9 * patience), 4);
    assert_eq!(takers(&[holder("drained", false)], 2, now), 2);
    assert_eq!(takers(&[], 2, 9 * patience), 0, "nobody can give it");
    assert_eq!(takers(&[holder("gone", false)], 2, 9 * patience), 0, "nor one that is away");
}

#[tokio::test]
async fn what_lacks_copies_is_taken_once_and_not_on_a_full_disk() {
    let bed = Bed::new().await;
    bed.joined(&["there"]).await;
    bed.live(&["there"]).await;
    let street = Street::default();
    street.open(&bed);
    let artefact = bed.elsewhere(&street, "g1").await;
    bed.held("there", &[&artefact]).await;
    let used = Arc::new(AtomicU64::new(70));
    let mut daemon = daemon(&bed, &used);
    let (cx, _probe) = bed.cx::<SyncPush>();
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.copies, status.lacking, status.taken), (2, 1, 0), "the disk is too full");
    used.store(10, Ordering::Relaxed);
    let facts = bed.facts().await;
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.taken, daemon.health(&status)), (1, Health::Healthy));
    assert!(bed.has_file(&artefact));
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.lacking, status.taken), (1, 1), "until it is told, it counts as lacking");
    bed.held("here", &[&artefact]).await;
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.lacking, status.taken), (0, 1));
    assert_eq!(bed.facts().await, facts + 1, "taking is no fact");
}

#[tokio::test]
async fn what_nobody_gives_degrades_and_holds_up_nothing() {
    let bed = Bed::new().await;
    bed.joined(&["there"]).await;
    bed.live(&["there"]).await;
    let street = Street::default();
    street.open(&bed);
    let lost = bed.named_only("lost").await;
    let artefact = bed.elsewhere(&street, "g1").await;
    bed.held("there", &[&lost, &artefact]).await;
    let mut daemon = daemon(&bed, &Arc::new(AtomicU64::new(10)));
    let (cx, _probe) = bed.cx::<SyncPush>();
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.lacking, status.taken), (2, 1));
    assert!(matches!(daemon.health(&status), Health::Degraded(_)), "{status:?}");
}

#[tokio::test]
async fn a_node_that_fills_offers_and_gives_up_what_two_others_prove_to_have() {
    let bed = Bed::new().await;
    bed.joined(&["there", "far"]).await;
    bed.live(&["there", "far"]).await;
    bed.champion(hex()).await;
    let champion = bed.catalogue.champion(hex()).await.unwrap().unwrap().model.weights;
    let (both, one) = (bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await);
    bed.held("here", &[&champion, &both, &one]).await;
    let street = Street::default();
    street.open(&bed);
    let used = Arc::new(AtomicU64::new(60));
    let mut daemon = daemon(&bed, &used);
    let (cx, _probe) = bed.cx::<SyncPush>();
    assert_eq!(done(daemon.cycle(&cx).await).offered, 2, "all but what it plays with");
    let facts = bed.facts().await;
    assert_eq!(done(daemon.cycle(&cx).await).offered, 2);
    assert_eq!(bed.facts().await, facts, "a second cycle finds nothing to offer");

    used.store(80, Ordering::Relaxed);
    bed.held("there", &[&both, &one]).await;
    bed.held("far", &[&both]).await;
    assert_eq!(done(daemon.cycle(&cx).await).released, 0, "nobody proves anything");
    street.proves("there", &both);
    street.proves("there", &one);
    assert_eq!(done(daemon.cycle(&cx).await).released, 0, "one is not enough");
    street.proves("far", &both);
    let status = done(daemon.cycle(&cx).await);
    assert_eq!((status.released, status.offered), (1, 1));
    assert!(!bed.has_file(&both) && bed.has_file(&one) && bed.has_file(&champion));
    assert_eq!(bed.who_has(&both).await, ["far", "there"]);
    let trashed = bed.blobs.depot().trashed().unwrap();
    assert!(trashed[0].why.contains("far") && trashed[0].why.contains("there"), "{trashed:?}");

    used.store(30, Ordering::Relaxed);
    assert_eq!(done(daemon.cycle(&cx).await).offered, 0, "calm again");
    assert!(
        bed.catalogue.held_by(&node("here")).await.unwrap().iter().all(|(_, offered)| !offered)
    );
}

#[tokio::test]
async fn of_two_that_rely_on_each_other_only_one_gives_up() {
    let bed = Bed::new().await;
    bed.joined(&["there", "far"]).await;
    bed.live(&["there", "far"]).await;
    let artefact = bed.batch(hex(), &["g1"]).await;
    for name in ["here", "there", "far"] {
        bed.held(name, &[&artefact]).await;
    }
    let street = Street::default();
    street.open(&bed);
    street.proves("there", &artefact);
    street.proves("far", &artefact);
    let used = Arc::new(AtomicU64::new(80));
    let mut daemon = daemon(&bed, &used);
    let (cx, _probe) = bed.cx::<SyncPush>();
    assert_eq!(done(daemon.cycle(&cx).await).offered, 1);
    // While the others are asked, one of them gives its copy up.
    street.meanwhile(
        bed.catalogue.clone(),
        ArtefactsReleased {
            node: node("far"),
            hashes: vec![artefact.clone()],
            reason: "its disk is full".into(),
        },
    );
    let reason = crate::testbed::blocked(daemon.cycle(&cx).await);
    assert!(reason.contains("artefacts.released"), "{reason}");
    assert!(bed.has_file(&artefact));
    assert_eq!(done(daemon.cycle(&cx).await).released, 0);
    assert_eq!(bed.who_has(&artefact).await, ["here", "there"]);
}

#[tokio::test]
async fn on_one_machine_it_has_nothing_to_do_and_a_stop_in_the_middle_changes_nothing() {
    let bed = Bed::new().await;
    bed.joined(&[]).await;
    let artefact = bed.batch(hex(), &["g1"]).await;
    bed.held("here", &[&artefact]).await;
    let used = Arc::new(AtomicU64::new(80));
    stops_in_mid_cycle(&bed, daemon(&bed, &used)).await;
    let mut alone = daemon(&bed, &used);
    alone.the_loop = bed.the_loop.clone();
    let (cx, _probe) = bed.cx::<SyncPush>();
    let status = done(alone.cycle(&cx).await);
    assert_eq!((status.idle.as_deref(), alone.health(&status)), (Some(ALONE), Health::Healthy));
}

/// A supervisor that shows what it is told to.
#[derive(Clone, Default)]
struct Views(Arc<Mutex<Vec<DaemonView>>>);

impl Supervision for Views {
    fn wake(&self, _: Wake) {}
    fn wake_daemon(&self, _: DaemonId) {}
    fn snapshot(&self) -> Arc<Snapshot> {
        let daemons = self.0.lock().unwrap().clone();
        Arc::new(Snapshot { daemons, ..Snapshot::default() })
    }
}

impl Views {
    fn show(&self, daemons: Vec<DaemonView>) {
        *self.0.lock().unwrap() = daemons;
    }

    /// `AUTO_SYNC` runs, and shows this strategy; none = it has shown nothing yet.
    fn show_strategy(&self, strategy: Option<&str>) {
        let details = strategy.map_or(Value::Null, |strategy| json!({ "strategy": strategy }));
        self.show(vec![DaemonView { details, ..view_of(AutoSync::ID) }]);
    }
}

/// The daemon beside this supervisor.
fn daemon_beside(bed: &Bed, used: &Arc<AtomicU64>, views: &Views) -> SyncPush {
    let mut daemon = daemon(bed, used);
    daemon.bell = Bell::default();
    daemon.bell.connect(views.clone());
    daemon
}

#[tokio::test]
async fn only_where_everything_is_kept_nothing_is_offered() {
    let bed = Bed::new().await;
    bed.joined(&["there"]).await;
    bed.live(&["there"]).await;
    let batch = bed.batch(hex(), &["g1"]).await;
    bed.held("here", &[&batch]).await;
    let (views, used) = (Views::default(), Arc::new(AtomicU64::new(60)));
    let mut daemon = daemon_beside(&bed, &used, &views);
    let (cx, _probe) = bed.cx::<SyncPush>();
    let facts = bed.facts().await;
    for nothing in [None, Some("pull")] {
        views.show_strategy(nothing);
        assert_eq!(done(daemon.cycle(&cx).await).offered, 0, "{nothing:?}");
    }
    assert_eq!(bed.facts().await, facts);
    views.show_strategy(Some("hybrid"));
    assert_eq!(done(daemon.cycle(&cx).await).offered, 1);
    views.show_strategy(None);
    assert_eq!(done(daemon.cycle(&cx).await).offered, 1, "nor taken back on a doubt");
    views.show_strategy(Some("pull"));
    assert_eq!(done(daemon.cycle(&cx).await).offered, 0);
    assert!(!bed.catalogue.holders(&batch).await.unwrap()[0].offered);
}

#[tokio::test]
async fn what_a_node_offers_that_may_vanish_is_not_taken_back_for_its_empty_disk() {
    let bed = Bed::new().await;
    bed.joined(&["there"]).await;
    bed.live(&["there"]).await;
    let batch = bed.batch(hex(), &["g1"]).await;
    bed.held("here", &[&batch]).await;
    let (node, hashes) = (bed.the_loop.node.clone(), vec![batch.clone()]);
    let reason = "this node may vanish".to_owned();
    bed.record(vec![ArtefactsOffered { node, hashes, reason }.into()]).await;
    let (views, used) = (Views::default(), Arc::new(AtomicU64::new(10)));
    let mut daemon = daemon_beside(&bed, &used, &views);
    let (cx, _probe) = bed.cx::<SyncPush>();
    views.show_strategy(Some("ephemeral"));
    assert_eq!(done(daemon.cycle(&cx).await).offered, 1);
    views.show_strategy(Some("hybrid"));
    assert_eq!(done(daemon.cycle(&cx).await).offered, 0);
}

#[tokio::test]
async fn an_offer_that_wakes_this_node_is_not_followed_by_the_next_at_once() {
    let bed = Bed::new().await;
    bed.joined(&["there"]).await;
    bed.live(&["there"]).await;
    let (first, next) = (bed.batch(hex(), &["g1"]).await, bed.batch(hex(), &["g2"]).await);
    bed.held("here", &[&first, &next]).await;
    let mut daemon = daemon(&bed, &Arc::new(AtomicU64::new(60)));
    daemon.config.max_offered_per_cycle = 1;
    let (cx, _probe) = bed.cx::<SyncPush>();
    assert_eq!(done(daemon.cycle(&cx).await).offered, 1);
    assert_eq!(done(daemon.cycle(&cx).await).offered, 1);
    daemon.offered_at = Instant::now().checked_sub(SyncPush::SPEC.period);
    assert_eq!(done(daemon.cycle(&cx).await).offered, 2);
}

#[tokio::test]
async fn a_node_that_may_vanish_stops_when_others_have_what_its_workers_hand_in_last() {
    let bed = Bed::new().await;
    bed.joined(&["there"]).await;
    bed.live(&["there"]).await;
    let (views, used) = (Views::default(), Arc::new(AtomicU64::new(10)));
    let mut daemon = daemon_beside(&bed, &used, &views);
    let (cx, _probe) = bed.cx::<SyncPush>();
    let auto_sync = || DaemonView {
        details: json!({ "strategy": "ephemeral" }),
        state: State::Stopped,
        ..view_of(AutoSync::ID)
    };
    let plays = |state: State| DaemonView { state, ..view_of(IdleResource::ID) };
    views.show(vec![auto_sync(), plays(State::Stopping)]);
    let rest = async {
        // The workers take longer than a look, and then hand in a batch.
        tokio::time::sleep(3 * LOOK_AGAIN).await;
        let batch = bed.batch(hex(), &["g1"]).await;
        views.show(vec![auto_sync(), plays(State::Stopped)]);
        while !bed.catalogue.holders(&batch).await.unwrap().iter().any(|holder| holder.offered) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bed.held("there", &[&batch]).await;
        batch
    };
    let (stopped, batch) = tokio::join!(daemon.stop(&cx), rest);
    stopped.unwrap();
    assert_eq!(bed.who_has(&batch).await, ["here", "there"]);
}
