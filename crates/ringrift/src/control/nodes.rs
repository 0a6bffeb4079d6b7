//! Nodes of the cluster, as an operator invites, drains and removes them.

use std::{collections::BTreeSet, time::Duration};

use courier::Stream;
use ringrift_daemons::{NodeReport, NodeState, SaidWork, Sentence, Why, survey};
use ringrift_pipeline::{Catalogue, CatalogueError, Event, NodeDrained, NodeId, NodeRow, Record};
use serde_json::json;
use tracing::info;

use super::{Answer, Selection};
use crate::{admission, data_dir::DataDir, plan::Wanted, state::State};

/// Tries to record something about a node.
const TRIES: usize = 5;

/// All nodes, as this one knows them.
pub async fn show(state: &State) -> Answer {
    match survey(&state.catalogue, &state.the_loop).await {
        Ok(cluster) => Answer::Ok(json!(cluster)),
        Err(error) => failed(error),
    }
}

/// Why a node does nothing, and what is wrong with it; of this one as it is at this moment.
pub async fn why(state: &State, node: Option<&str>) -> Answer {
    let here = &state.the_loop.node;
    let told = async {
        let Some(node) = node.filter(|node| *node != here.0) else {
            let report = state.reporter().report().await.map_err(failed)?;
            return Ok(sentences(None, &report));
        };
        let cluster = survey(&state.catalogue, &state.the_loop).await.map_err(failed)?;
        let Some(view) = cluster.nodes.into_iter().find(|view| view.node.0 == node) else {
            let found = find(&state.catalogue, node).await?;
            return Err(Answer::Refused(format!("node {found} did not run yet")));
        };
        let stands = view.state != NodeState::Alive || view.report.is_none();
        let stands = stands.then_some(view.does);
        Ok(sentences(stands, &view.report.unwrap_or_default()))
    };
    match told.await {
        Ok(sentences) => Answer::Ok(json!(sentences)),
        Err(answer) => answer,
    }
}

/// What a report says, in the shape of the sentences on a config; how the node stands comes before it.
fn sentences(stands: Option<String>, report: &NodeReport) -> Vec<Sentence> {
    let sentence = |gate: &str, open: bool, reason: String, needs: &str| Sentence {
        gate: gate.to_owned(),
        open,
        reason,
        needs: needs.to_owned(),
        since: None,
    };
    let closed = |why: &Why| sentence(&why.by, false, why.reason.clone(), &why.needs);
    let wrong = || report.obstacles.iter().chain(&report.troubles);
    let mut told: Vec<Sentence> =
        stands.into_iter().map(|stands| sentence("node", false, stands, "")).collect();
    told.extend(wrong().map(closed));
    if let Some(why) = report.idle.as_ref().filter(|idle| !wrong().any(|why| why == *idle)) {
        // A node that has nothing to do is not held back by anything.
        let open = why.needs.is_empty();
        told.push(sentence(&why.by, open, why.reason.clone(), &why.needs));
    }
    let in_hand = |work: &SaidWork| sentence("work", true, format!("{} is in hand", work.work), "");
    told.extend(report.works.iter().map(in_hand));
    if report.more_works > 0 {
        told.push(sentence("work", true, format!("{} more are in hand", report.more_works), ""));
    }
    told
}

/// Makes a ticket for a machine that is to run a profile.
pub async fn invite(state: &State, role: &str, lasts: Duration) -> Answer {
    if let Err(sentence) = Wanted::of(&[Selection::Profile(role.to_owned())]) {
        return Answer::Refused(sentence);
    }
    let dir = match DataDir::new(&state.the_loop.data) {
        Ok(dir) => dir,
        Err(error) => return Answer::Failed(format!("{error:#}")),
    };
    let node = &state.the_loop.node;
    let now_ms = state.clock.now_ms();
    match admission::invite(&state.catalogue, &dir, node, role, lasts, now_ms).await {
        Ok(ticket) => {
            info!(role, "a machine is invited");
            Answer::Ok(json!({ "ticket": ticket, "role": role, "seconds": lasts.as_secs() }))
        }
        Err(error) => Answer::Failed(format!("{error:#}")),
    }
}

/// Lets a node take no new work, or take it again.
pub async fn drain(state: &State, node: Option<&str>, draining: bool) -> Answer {
    let node = node.unwrap_or(&state.the_loop.node.0);
    let (catalogue, now_ms) = (&state.catalogue, state.clock.now_ms());
    let drained = async {
        let node = find(catalogue, node).await?;
        let rows = catalogue.nodes().await.map_err(failed)?;
        if !rows.iter().any(|row| row.node == node) {
            return Err(Answer::Refused(format!("node {node} did not run yet")));
        }
        record_about(catalogue, &node, now_ms, |row| {
            let changes = row.is_none_or(|row| row.draining != draining);
            changes.then(|| NodeDrained { node: node.clone(), draining }.into())
        })
        .await
        .map_err(|error| Answer::Failed(format!("{error:#}")))?;
        Ok(Answer::Ok(json!({ "node": node, "draining": draining })))
    };
    drained.await.unwrap_or_else(|answer| answer)
}

/// Puts a node out.
pub async fn remove(state: &State, node: &str) -> Answer {
    let node = match find(&state.catalogue, node).await {
        Ok(node) => node,
        Err(answer) => return answer,
    };
    if node == state.the_loop.node {
        return Answer::Refused(format!(
            "{node} is this node: it is removed by the manager of the node that has the cluster's keys"
        ));
    }
    let dir = match DataDir::new(&state.the_loop.data) {
        Ok(dir) => dir,
        Err(error) => return Answer::Failed(format!("{error:#}")),
    };
    match admission::remove(&state.catalogue, &dir, &node, state.clock.now_ms()).await {
        Ok(()) => Answer::Ok(json!({ "removed": node })),
        Err(error) => Answer::Failed(format!("{error:#}")),
    }
}

/// Records something about a node, after the last that was recorded about it: what `event` says to the row that
/// is there, if anything. The node itself may be faster, and then it is asked again.
pub async fn record_about(
    catalogue: &Catalogue,
    node: &NodeId,
    now_ms: i64,
    event: impl Fn(Option<&NodeRow>) -> Option<Event>,
) -> anyhow::Result<()> {
    for _ in 0..TRIES {
        let row = catalogue.nodes().await?.into_iter().find(|row| row.node == *node);
        let Some(event) = event(row.as_ref()) else { return Ok(()) };
        // Not the row's: one that never ran has none, and may have been removed.
        let last = catalogue.log().last_on(Stream::Pipeline, &event.subject()).await?;
        let position = last.map_or(0, |fact| fact.position);
        match catalogue.record(vec![Record::after(event, position)], now_ms).await {
            Err(error) if error.is_superseded() => {}
            recorded => return recorded.map(drop).map_err(Into::into),
        }
    }
    anyhow::bail!("others record about node {node} at the same time: try again")
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where errors are mapped")]
fn failed(error: CatalogueError) -> Answer {
    Answer::Failed(error.to_string())
}

/// A node that runs, ran, or was let in.
async fn find(catalogue: &Catalogue, node: &str) -> Result<NodeId, Answer> {
    let mut names: BTreeSet<NodeId> =
        catalogue.nodes().await.map_err(failed)?.into_iter().map(|row| row.node).collect();
    names.extend(catalogue.admitted().await.map_err(failed)?.into_iter().map(|(name, _)| name));
    let wanted = NodeId(node.to_owned());
    if names.contains(&wanted) {
        return Ok(wanted);
    }
    if names.is_empty() {
        return Err(Answer::Refused("this manager is of no cluster, so it has no nodes".into()));
    }
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    Err(Answer::Refused(format!("there is no node {node}: there are {}", names.join(", "))))
}
