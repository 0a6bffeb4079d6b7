//! The status of all 89 types, as scripts read it and as people do.

use std::time::Duration;

use ringrift_daemons::{RETIRED, in_start_order, standing, survey};
use serde_json::{Map, Value, json};

use super::Control;
use crate::{console::one_line, shown};

/// Longest wait for the catalogue: a status comes also while that hangs, then without the nodes.
const CATALOGUE_WITHIN: Duration = Duration::from_secs(2);

/// What a manager says of itself; the shape of `daemons` is that of decisions, "Commands".
pub async fn status(control: &Control) -> Value {
    let state = &control.state;
    let cluster = if state.the_loop.shared {
        let asked = survey(&state.catalogue, &state.the_loop);
        tokio::time::timeout(CATALOGUE_WITHIN, asked).await.ok().and_then(Result::ok)
    } else {
        None
    };
    let alarms = tokio::time::timeout(CATALOGUE_WITHIN, standing(&state.catalogue));
    let alarms = alarms.await.ok().and_then(Result::ok);
    let snapshot = state.bell.snapshot().unwrap_or_default();
    let mut daemons = Map::new();
    let mut order = Vec::new();
    for (_, entry) in in_start_order() {
        order.push(entry.spec.id.0);
        let view = snapshot.get(entry.spec.id);
        daemons.insert(entry.spec.id.0.to_owned(), shown::daemon(view));
    }
    for retired in RETIRED {
        order.push(retired.name);
        daemons.insert(retired.name.to_owned(), shown::daemon(None));
    }
    let running = snapshot.daemons.iter().filter(|view| view.state == warden::State::Running);
    let failed = snapshot
        .daemons
        .iter()
        .filter(|view| matches!(view.state, warden::State::Failed | warden::State::ImportFailed));
    let obstacles: Vec<Value> = state
        .pressure
        .obstacles()
        .into_iter()
        .map(|(cause, obstacle)| {
            json!({ "cause": cause, "reason": obstacle.reason, "needs": obstacle.needs })
        })
        .collect();
    json!({
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "data": state.the_loop.data,
        "url": control.url,
        "configs": state.the_loop.configs,
        "node": state.the_loop.node,
        "uptime_seconds": snapshot.uptime.as_secs_f64(),
        "stopping": snapshot.stopping,
        "auto_restart": control.settings.restart_max != Some(0),
        "order": order,
        "daemons": daemons,
        "summary": {
            "total": in_start_order().len() + RETIRED.len(),
            "asked": snapshot.daemons.iter().filter(|view| view.asked).count(),
            "running": running.count(),
            "failed": failed.count(),
        },
        "circuit_breaker": snapshot.breaker.enabled.then_some(&snapshot.breaker),
        "obstacles": obstacles,
        "alarms": alarms,
        "cluster": cluster,
        "workers": state.workshop.live(),
    })
}

/// The runbook's text. Source: runbook, "Check Daemon Status".
pub fn text(status: &Value) -> String {
    lines(status, |_| true)
}

/// The same without what was never asked for and stands still: it fits a screen.
pub fn short_text(status: &Value) -> String {
    lines(status, |daemon| daemon["asked"] == true || daemon["state"] != "stopped")
}

/// Does it run and is not unhealthy, or is it on its way there in time?
pub fn runs_well(daemon: &Value) -> bool {
    match daemon["state"].as_str() {
        Some("running") => daemon["health"] != "unhealthy",
        // The supervisor calls a start degraded when it takes longer than it should.
        Some("starting") => daemon["health"] != "degraded",
        _ => false,
    }
}

fn lines(status: &Value, is_shown: impl Fn(&Value) -> bool) -> String {
    let mut lines = vec!["Daemon Status:".to_owned()];
    let names = status["order"].as_array().map_or(&[][..], Vec::as_slice);
    let names = || names.iter().filter_map(Value::as_str);
    for name in names() {
        let daemon = &status["daemons"][name];
        if is_shown(daemon) {
            lines.push(format!("  {name}: {}", line(daemon)));
        }
    }
    let left_out = names().count() + 1 - lines.len();
    if left_out > 0 {
        let others = if left_out == 1 { "other" } else { "others" };
        lines.push(format!("  {left_out} {others}: STOPPED"));
    }
    for obstacle in status["obstacles"].as_array().map_or(&[][..], Vec::as_slice) {
        let text_of = |key: &str| obstacle[key].as_str().unwrap_or_default();
        lines.push(format!(
            "Production stands still ({}): {}; {}",
            text_of("cause"),
            text_of("reason"),
            text_of("needs")
        ));
    }
    for alarm in status["alarms"].as_array().map_or(&[][..], Vec::as_slice) {
        let text_of = |key: &str| alarm[key].as_str().unwrap_or_default();
        lines.push(format!("Alarm {}: {}", text_of("alarm"), text_of("sentence")));
    }
    lines.extend(nodes(&status["cluster"]));
    lines.join("\n")
}

/// The nodes of a cluster, a line each: who leads, what each does.
fn nodes(cluster: &Value) -> Vec<String> {
    let Some(nodes) = cluster["nodes"].as_array() else { return Vec::new() };
    let leader = cluster["leader"].as_str().unwrap_or("nobody, as far as is known here");
    let mut lines = vec![format!("Nodes, led by {leader}:")];
    for node in nodes {
        let here = if node["here"] == true { " (this one)" } else { "" };
        let text = |key: &str| node[key].as_str().unwrap_or_default();
        lines.push(format!("  {}{here}: {}", text("node"), text("does")));
    }
    lines.extend(copies(cluster));
    lines
}

/// What of the artefacts has too few copies; none without artefacts.
pub fn copies(cluster: &Value) -> Option<String> {
    let all = cluster["artefacts"].as_u64().filter(|all| *all > 0)?;
    Some(match cluster["few_copies"].as_u64().unwrap_or(0) {
        0 => format!("{all} artefacts, of each of which two living nodes or more have a copy"),
        few => format!("{few} of {all} artefacts have fewer than two copies on living nodes"),
    })
}

/// State, and in brackets what explains it.
pub fn line(daemon: &Value) -> String {
    let text = |key: &str| daemon[key].as_str();
    let state = text("state").unwrap_or("unknown").to_uppercase();
    match state.as_str() {
        "STOPPED" => state,
        "RUNNING" => {
            let health = text("health").unwrap_or("unknown");
            match text("message").or(text("cause")) {
                Some(message) => format!("{state} ({health} - {message})"),
                None => format!("{state} ({health})"),
            }
        }
        // What waits for its next try, or for a person, does so because of an error.
        "RESTARTING" | "FAILED" | "IMPORT_FAILED" | "DEGRADED" => {
            match (text("cause"), text("last_error").map(one_line).as_deref()) {
                (Some(cause), Some(error)) if !cause.contains(error) => {
                    format!("{state} ({cause}: {error})")
                }
                (Some(why), _) | (None, Some(why)) => format!("{state} ({why})"),
                (None, None) => state,
            }
        }
        _ => match text("cause") {
            Some(cause) => format!("{state} ({cause})"),
            None => state,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(daemon: &Value, expected: &str) {
        let status = json!({ "order": ["AUTO_SYNC"], "daemons": { "AUTO_SYNC": daemon } });
        assert_eq!(text(&status), format!("Daemon Status:\n  AUTO_SYNC: {expected}"));
    }

    #[test]
    fn a_short_text_leaves_out_what_nobody_asked_for() {
        let status = json!({
            "order": ["A", "B", "C"],
            "daemons": {
                "A": { "state": "running", "health": "healthy", "asked": true },
                "B": { "state": "stopped", "asked": true },
                "C": { "state": "stopped" },
            },
        });
        let expected = "Daemon Status:\n  A: RUNNING (healthy)\n  B: STOPPED\n  1 other: STOPPED";
        assert_eq!(short_text(&status), expected);
    }

    #[test]
    fn the_nodes_of_a_cluster_follow_and_one_machine_has_none() {
        let status = json!({ "order": [], "daemons": {}, "cluster": { "leader": "a",
            "artefacts": 9, "few_copies": 2, "nodes": [
            { "node": "a", "here": true, "does": "nothing: it leads" },
            { "node": "b", "here": false, "does": "2 x selfplay hex8_2p" },
        ] } });
        let told = "Nodes, led by a:\n  a (this one): nothing: it leads\n  b: 2 x selfplay hex8_2p\n\
                    2 of 9 artefacts have fewer than two copies on living nodes";
        assert_eq!(text(&status), format!("Daemon Status:\n{told}"));
        assert_eq!(text(&json!({ "cluster": null })), "Daemon Status:");
    }

    #[test]
    fn only_a_daemon_that_works_or_begins_in_time_runs_well() {
        let check =
            |state: &str, health: &str| runs_well(&json!({ "state": state, "health": health }));
        assert!(check("running", "healthy") && check("running", "degraded"));
        assert!(!check("running", "unhealthy"));
        assert!(check("starting", "unknown") && !check("starting", "degraded"));
        assert!(!check("failed", "unknown") && !check("stopped", "unknown"));
    }

    #[test]
    fn the_text_is_the_runbooks() {
        check(&json!({ "state": "running", "health": "healthy" }), "RUNNING (healthy)");
        check(
            &json!({ "state": "running", "health": "degraded", "message": "2 sync errors" }),
            "RUNNING (degraded - 2 sync errors)",
        );
        check(&json!({ "state": "stopped", "health": "unknown" }), "STOPPED");
        check(
            &json!({ "state": "starting", "health": "unknown", "cause": "waiting for EVENT_ROUTER" }),
            "STARTING (waiting for EVENT_ROUTER)",
        );
        check(
            &json!({ "state": "failed", "health": "unknown", "last_error": "no such table" }),
            "FAILED (no such table)",
        );
        check(
            &json!({
                "state": "failed",
                "health": "unknown",
                "cause": "given up after 5 restarts",
                "last_error": "open the store\nno such table",
            }),
            "FAILED (given up after 5 restarts: open the store | no such table)",
        );
        check(
            &json!({ "state": "restarting", "cause": "restart 2 of 5", "last_error": "disk full" }),
            "RESTARTING (restart 2 of 5: disk full)",
        );
    }
}
