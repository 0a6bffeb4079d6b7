//! All nodes of the cluster at one moment, for people and for the daemons that watch it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ringrift_pipeline::{Capabilities, Catalogue, CatalogueError, NodeHoldings, NodeId, NodeRow};
use serde::{Serialize, Serializer};

use super::{LIVES, NodeReport, Seen};
use crate::{Loop, sync::whereabouts::ENOUGH};

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It prolongs its lease.
    Alive,
    /// Its lease stands still.
    Silent,
    /// Its manager has ended in good order.
    Ended,
    /// It was let in, and did not run yet.
    Invited,
    /// It was put out.
    Removed,
}

impl NodeState {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Alive, Self::Silent, Self::Ended, Self::Invited, Self::Removed];

    /// The state in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Silent => "silent",
            Self::Ended => "ended",
            Self::Invited => "invited",
            Self::Removed => "removed",
        }
    }
}

impl Serialize for NodeState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// A node, as it is known here.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "what is shown of a node; each stands alone")]
pub struct NodeView {
    /// Its name.
    pub node: NodeId,
    /// It is this one.
    pub here: bool,
    /// It leads.
    pub leads: bool,
    /// How it stands.
    pub state: NodeState,
    /// It takes no new work.
    pub draining: bool,
    /// It was put out.
    pub removed: bool,
    /// For how long nothing was heard of it, by our clock; none while it is heard of.
    pub silent_seconds: Option<u64>,
    /// For how long its lease is over, by its clock and ours: what a look without a manager tells.
    pub overdue_seconds: Option<u64>,
    /// Which of its lives holds its lease; none if it does not run.
    pub life: Option<u64>,
    /// What it was asked to run, in words.
    pub runs: Option<String>,
    /// Workers that it runs at a time.
    pub workers: Option<u32>,
    /// Those of them that may play games.
    pub playing: Option<u32>,
    /// What its machine can do.
    pub can: Option<Capabilities>,
    /// Items of work that it has in hand, as the log has it.
    pub items: u64,
    /// Artefacts that it says it has.
    pub artefacts: u64,
    /// Their bytes.
    pub artefact_bytes: u64,
    /// Those of them that no other node has.
    pub artefacts_alone: u64,
    /// Version of its program.
    pub version: Option<String>,
    /// Where the others reach it.
    pub addresses: Vec<String>,
    /// What it said of itself last.
    pub report: Option<NodeReport>,
    /// What it does, or why it does nothing.
    pub does: String,
}

/// All nodes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterView {
    /// Who leads; none if nobody does, as far as is known here.
    pub leader: Option<NodeId>,
    /// Artefacts that the log names and nobody trashed.
    pub artefacts: u64,
    /// Those of them of which fewer than two living nodes have a copy that stays.
    pub few_copies: u64,
    /// By name.
    pub nodes: Vec<NodeView>,
}

/// The nodes as a running manager knows them; without a cluster there are none.
///
/// # Errors
/// The catalogue cannot be asked.
pub async fn survey(catalogue: &Catalogue, the_loop: &Loop) -> Result<ClusterView, CatalogueError> {
    if !the_loop.shared {
        return Ok(ClusterView { leader: None, artefacts: 0, few_copies: 0, nodes: Vec::new() });
    }
    // A lease that stands still leads nobody, even if nobody took it yet.
    let leader = the_loop.nodes.leader().filter(|(_, _, silent)| *silent < LIVES);
    let leader = leader.map(|(node, ..)| node);
    let seen = the_loop.nodes.seen();
    let copies = the_loop.nodes.copies(catalogue, &seen).await?;
    shown(catalogue, &seen, &copies, leader, &the_loop.node).await
}

/// The nodes, of leases that were seen and what the catalogue knows.
///
/// # Errors
/// The catalogue cannot be asked.
pub async fn view_of(
    catalogue: &Catalogue,
    seen: &[Seen],
    leader: Option<NodeId>,
    here: &NodeId,
) -> Result<ClusterView, CatalogueError> {
    let copies = Copies::count(catalogue, seen).await?;
    shown(catalogue, seen, &copies, leader, here).await
}

async fn shown(
    catalogue: &Catalogue,
    seen: &[Seen],
    copies: &Copies,
    leader: Option<NodeId>,
    here: &NodeId,
) -> Result<ClusterView, CatalogueError> {
    let rows = catalogue.nodes().await?;
    let admitted = catalogue.admitted().await?;
    let items = catalogue.claimed_by_node().await?;
    let mut names: BTreeSet<&NodeId> = rows.iter().map(|row| &row.node).collect();
    names.extend(admitted.iter().map(|(name, _)| name));
    names.extend(seen.iter().map(|seen| &seen.node));
    let rows: BTreeMap<&NodeId, &NodeRow> = rows.iter().map(|row| (&row.node, row)).collect();
    let seen: BTreeMap<&NodeId, &Seen> = seen.iter().map(|seen| (&seen.node, seen)).collect();
    let nodes = names
        .into_iter()
        .map(|name| {
            let (row, seen) = (rows.get(name).copied(), seen.get(name).copied());
            let mut view = node(name, row, seen);
            view.here = name == here;
            view.leads = leader.as_ref() == Some(name);
            view.items = items.get(name).copied().unwrap_or(0);
            if let Some(held) = copies.held.get(name) {
                view.artefacts = held.artefacts;
                view.artefact_bytes = held.bytes;
                view.artefacts_alone = held.alone;
            }
            view
        })
        .collect();
    Ok(ClusterView { leader, artefacts: copies.artefacts, few_copies: copies.few, nodes })
}

/// What is where, in sums. Counting goes through all artefacts, so a manager does it now and then.
#[derive(Debug, Default)]
pub(super) struct Copies {
    artefacts: u64,
    few: u64,
    held: BTreeMap<NodeId, NodeHoldings>,
}

impl Copies {
    pub(super) async fn count(
        catalogue: &Catalogue,
        seen: &[Seen],
    ) -> Result<Self, CatalogueError> {
        let living = seen.iter().filter(|seen| seen.lives()).map(|seen| seen.node.clone());
        let counts = catalogue.count_copies(&living.collect(), ENOUGH).await?;
        let artefacts = counts.values().map(|of| of.artefacts).sum();
        let few = counts.values().map(|of| of.few).sum();
        let held = catalogue.holdings().await?.into_iter();
        Ok(Self { artefacts, few, held: held.map(|held| (held.node.clone(), held)).collect() })
    }
}

fn node(name: &NodeId, row: Option<&NodeRow>, seen: Option<&Seen>) -> NodeView {
    let removed = row.is_some_and(|row| row.removed);
    let silent = seen.and_then(|seen| seen.silent).filter(|silent| *silent >= LIVES);
    let overdue = seen.and_then(|seen| seen.overdue);
    let state = match seen {
        _ if removed => NodeState::Removed,
        Some(_) if silent.or(overdue).is_some() => NodeState::Silent,
        Some(_) => NodeState::Alive,
        None if row.is_none() => NodeState::Invited,
        None => NodeState::Ended,
    };
    let report = seen.and_then(|seen| seen.report.clone());
    let draining = row.is_some_and(|row| row.draining);
    NodeView {
        node: name.clone(),
        here: false,
        leads: false,
        state,
        draining,
        removed,
        silent_seconds: silent.map(|silent| silent.as_secs()),
        overdue_seconds: overdue.map(|overdue| overdue.as_secs()),
        life: seen.map(|seen| seen.epoch),
        runs: row.map(|row| row.role.clone()),
        workers: row.map(|row| row.slots),
        playing: row.map(|row| row.playing),
        can: row.and_then(|row| row.can.clone()),
        items: 0,
        artefacts: 0,
        artefact_bytes: 0,
        artefacts_alone: 0,
        version: row.map(|row| row.version.clone()),
        addresses: row.map(|row| row.addresses.clone()).unwrap_or_default(),
        does: does(state, silent, overdue, report.as_ref()),
        report,
    }
}

/// What a node does, or why it does nothing: one sentence.
fn does(
    state: NodeState,
    silent: Option<Duration>,
    overdue: Option<Duration>,
    report: Option<&NodeReport>,
) -> String {
    let seconds = |time: Option<Duration>| time.map_or(0, |time| time.as_secs());
    let now = match report {
        Some(report) => in_hand(report),
        None => "it has not said yet what it does".to_owned(),
    };
    match (state, overdue) {
        (NodeState::Removed, _) => "it was put out of the cluster".to_owned(),
        (NodeState::Invited, _) => "it was let in and did not run yet".to_owned(),
        (NodeState::Ended, _) => "its manager has ended".to_owned(),
        (NodeState::Silent, Some(_)) => format!(
            "nothing is heard of it: overdue for {} s by this machine's clock; before that: {now}",
            seconds(overdue)
        ),
        (NodeState::Silent, None) => {
            format!("nothing was heard of it for {} s; before that: {now}", seconds(silent))
        }
        (NodeState::Alive, _) => now,
    }
}

fn in_hand(report: &NodeReport) -> String {
    if let Some(why) = &report.idle {
        return match why.needs.as_str() {
            "" => format!("nothing: {}", why.reason),
            needs => format!("nothing: {}; needs {needs}", why.reason),
        };
    }
    let mut counted: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for work in &report.works {
        *counted.entry((&work.kind, work.config.to_string())).or_default() += 1;
    }
    let mut parts: Vec<String> = counted
        .into_iter()
        .map(|((kind, config), count)| match count {
            1 => format!("{kind} {config}"),
            count => format!("{count} x {kind} {config}"),
        })
        .collect();
    if report.more_works > 0 {
        parts.push(format!("{} more", report.more_works));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{
        ArtefactsHeld, BlobHash, NodeAdmitted, NodeDrained, NodeInvited, NodeJoined, NodeRemoved,
        WorkId,
    };

    use super::*;
    use crate::{
        SaidWork, Why,
        testbed::{Bed, hex},
    };

    fn seen(node: &str, silent: u64, report: Option<NodeReport>) -> Seen {
        let silent = Some(Duration::from_secs(silent));
        Seen { node: NodeId(node.into()), epoch: 3, silent, overdue: None, report }
    }

    fn joined(node: &str) -> NodeJoined {
        NodeJoined {
            node: NodeId(node.into()),
            peer: "0".repeat(64),
            addresses: vec!["10.0.0.1:4433".into()],
            role: "profile selfplay".into(),
            version: "0.0.0".into(),
            speaks: 1,
            slots: 4,
            playing: 4,
            can: None,
        }
    }

    fn plays() -> NodeReport {
        let work = |number: u64| SaidWork {
            work: WorkId::new(ringrift_pipeline::WorkKind::Selfplay, hex(), number),
            kind: "selfplay".into(),
            config: hex(),
        };
        NodeReport { works: vec![work(1), work(2)], more_works: 3, ..NodeReport::default() }
    }

    fn idle(reason: &str, needs: &str) -> NodeReport {
        let why = Why { by: "x".into(), reason: reason.into(), needs: needs.into() };
        NodeReport { idle: Some(why), ..NodeReport::default() }
    }

    #[tokio::test]
    async fn every_node_is_shown_with_how_it_stands_and_what_it_does() {
        let bed = Bed::new().await;
        let node = |name: &str| NodeId(name.into());
        bed.record(vec![
            joined("plays").into(),
            joined("rests").into(),
            joined("quiet").into(),
            joined("ended").into(),
            joined("out").into(),
            NodeDrained { node: node("rests"), draining: true }.into(),
            NodeRemoved { node: node("out") }.into(),
            NodeInvited {
                invitation: "i".into(),
                role: "selfplay".into(),
                expires_ms: 1,
                by: node("plays"),
            }
            .into(),
            NodeAdmitted {
                invitation: "i".into(),
                node: node("coming"),
                key: "k".into(),
                role: "selfplay".into(),
            }
            .into(),
        ])
        .await;
        let leases = [
            seen("plays", 2, Some(plays())),
            seen("rests", 14, Some(idle("this node is drained", "`ringrift node resume`"))),
            seen("quiet", 45, Some(plays())),
            seen("new", 0, None),
        ];
        let leader = Some(node("rests"));
        let view = view_of(&bed.catalogue, &leases, leader, &node("plays")).await.unwrap();
        let told: Vec<_> = view
            .nodes
            .iter()
            .map(|view| (view.node.as_str(), view.state, view.does.as_str()))
            .collect();
        let hand = "2 x selfplay hex8_2p, 3 more";
        assert_eq!(
            told,
            [
                ("coming", NodeState::Invited, "it was let in and did not run yet"),
                ("ended", NodeState::Ended, "its manager has ended"),
                ("new", NodeState::Alive, "it has not said yet what it does"),
                ("out", NodeState::Removed, "it was put out of the cluster"),
                ("plays", NodeState::Alive, hand),
                (
                    "quiet",
                    NodeState::Silent,
                    &format!("nothing was heard of it for 45 s; before that: {hand}")
                ),
                (
                    "rests",
                    NodeState::Alive,
                    "nothing: this node is drained; needs `ringrift node resume`"
                ),
            ]
        );
        let of = |name: &str| view.nodes.iter().find(|view| view.node.0 == name).unwrap();
        assert_eq!((view.artefacts, view.few_copies), (0, 0));
        assert!(of("plays").here && !of("rests").here);
        assert!(of("rests").leads && of("rests").draining && !of("plays").leads);
        assert_eq!((of("plays").workers, of("plays").life), (Some(4), Some(3)));
        assert_eq!((of("quiet").silent_seconds, of("plays").silent_seconds), (Some(45), None));
        assert_eq!(survey(&bed.catalogue, &bed.the_loop).await.unwrap().nodes, []);
    }

    #[tokio::test]
    async fn copies_count_where_nodes_live_and_mean_to_keep_them() {
        let bed = Bed::new().await;
        let (a, b, c) = (NodeId("a".into()), NodeId("b".into()), NodeId("c".into()));
        bed.record([&a, &b, &c].map(|node| joined(&node.0).into()).to_vec()).await;
        let (one, two) = (bed.batch(hex(), &["1"]).await, bed.batch(hex(), &["2"]).await);
        let has = |node: &NodeId, artefacts: &[&BlobHash]| ArtefactsHeld {
            node: node.clone(),
            hashes: artefacts.iter().map(|hash| (*hash).clone()).collect(),
        };
        bed.record(vec![
            has(&a, &[&one, &two]).into(),
            has(&b, &[&one]).into(),
            has(&c, &[&two]).into(),
        ])
        .await;
        let look = async |silent: u64| {
            let leases = [seen("a", 0, None), seen("b", 0, None), seen("c", silent, None)];
            let view = view_of(&bed.catalogue, &leases, None, &a).await.unwrap();
            let held = view.nodes.iter().map(|view| (view.artefacts, view.artefacts_alone));
            (view.artefacts, view.few_copies, held.collect::<Vec<_>>())
        };
        let held = vec![(2, 0), (1, 0), (1, 0)];
        assert_eq!(look(0).await, (2, 0, held.clone()));
        assert_eq!(look(60).await, (2, 1, held), "a copy on a node that is not heard of is none");
    }

    #[tokio::test]
    async fn two_hundred_nodes_are_shown_within_a_tenth_of_a_second() {
        let bed = Bed::new().await;
        let names: Vec<String> = (0..200).map(|number| format!("node{number:03}")).collect();
        bed.record(names.iter().map(|name| joined(name).into()).collect()).await;
        let leases: Vec<Seen> = names.iter().map(|name| seen(name, 1, Some(plays()))).collect();
        let here = NodeId("node000".into());
        let began = tokio::time::Instant::now();
        let view = view_of(&bed.catalogue, &leases, None, &here).await.unwrap();
        let text = serde_json::to_string(&view).unwrap();
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        assert_eq!(view.nodes.len(), 200);
        assert!(text.len() < 200 * 2000, "{} bytes", text.len());
    }
}
