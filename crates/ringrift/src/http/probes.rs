//! `/health`, `/ready` and `/status`: pure functions of the supervisor's snapshot. Their timestamp is
//! the moment of the supervisor's turn that they tell of.
//!
//! Bodies and words: manager contract, section 16.

use std::time::Duration;

use ringrift_daemons::{Found, RETIRED, in_start_order};
use serde_json::{Map, Value, json};
use warden::{DaemonView, Snapshot, State};

use crate::shown::{self, is_failed};

/// Share of running daemons, among those that should run, from which the whole is healthy, and from
/// which it is degraded. Source: manager contract, section 16.
const HEALTHY_SHARE: f64 = 0.9;
const DEGRADED_SHARE: f64 = 0.5;

/// A supervisor that has not turned for so long is stuck; it turns every two seconds, asked or not.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long ago the supervisor's loop turned last.
pub(super) fn turn_age(snapshot: &Snapshot, now_ms: i64) -> Duration {
    // Nothing yet, or a clock that was set back: no age.
    let age = if snapshot.turned_at_ms == 0 { 0 } else { now_ms - snapshot.turned_at_ms };
    Duration::from_millis(age.try_into().unwrap_or(0))
}

/// Nothing that a stuck supervisor last said is worth repeating.
pub(super) fn is_stuck(snapshot: &Snapshot, now_ms: i64) -> bool {
    turn_age(snapshot, now_ms) > STUCK_AFTER
}

fn seconds(now_ms: i64) -> Value {
    json!(Duration::from_millis(now_ms.try_into().unwrap_or(0)).as_secs_f64())
}

fn names<'a>(views: impl IntoIterator<Item = &'a DaemonView>) -> Vec<&'static str> {
    views.into_iter().map(|view| view.id.0).collect()
}

/// Is every critical daemon that was asked for alive?
pub(super) fn health(snapshot: Option<&Snapshot>, now_ms: i64) -> (bool, Value) {
    let Some(snapshot) = snapshot else {
        // The process answers and nothing has failed; whether it is of use is what `/ready` says.
        return (
            true,
            json!({
                "alive": true, "timestamp": seconds(now_ms), "uptime_seconds": 0.0, "failed": [],
            }),
        );
    };
    let dead = snapshot.dead_criticals();
    let mut failed: Vec<Value> = dead
        .iter()
        .map(|view| json!({ "name": view.id, "state": view.state, "reason": shown::message(view) }))
        .collect();
    if is_stuck(snapshot, now_ms) {
        let age = turn_age(snapshot, now_ms).as_secs();
        let sentence = format!("the supervisor has not turned for {age} s");
        failed.push(json!({ "name": "supervisor", "state": "stuck", "reason": sentence }));
    }
    let alive = failed.is_empty();
    let body = json!({
        "alive": alive,
        "timestamp": seconds(snapshot.turned_at_ms),
        "uptime_seconds": snapshot.uptime.as_secs_f64(),
        "failed": failed,
    });
    (alive, body)
}

/// Is everything that was asked for running?
pub(super) fn ready(snapshot: Option<&Snapshot>, now_ms: i64) -> (bool, Value) {
    let Some(snapshot) = snapshot else {
        return (
            false,
            json!({
                "ready": false, "reason": "DaemonManager not started", "running": [], "failed": [],
                "timestamp": seconds(now_ms),
            }),
        );
    };
    let running = names(snapshot.daemons.iter().filter(|view| view.state == State::Running));
    let failed = names(snapshot.daemons.iter().filter(|view| is_failed(view)));
    let missing = names(snapshot.not_running());
    let reason = if is_stuck(snapshot, now_ms) {
        Some("the supervisor is stuck".to_owned())
    } else if snapshot.stopping {
        Some("shutting down".to_owned())
    } else if running.is_empty() {
        Some("No daemons running".to_owned())
    } else if missing.is_empty() {
        None
    } else {
        Some(format!("not running: {}", missing.join(", ")))
    };
    let mut body = json!({
        "ready": reason.is_none(),
        "running_count": running.len(),
        "failed_count": failed.len(),
        "running": running,
        "failed": failed,
        "timestamp": seconds(snapshot.turned_at_ms),
    });
    let good = reason.is_none();
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    (good, body)
}

/// Share of running daemons among those that should run, 0..=1; 0 when none should.
pub(super) fn score(snapshot: &Snapshot) -> f64 {
    let asked = snapshot.daemons.iter().filter(|view| view.asked).count();
    let running = asked - snapshot.not_running().len();
    if asked == 0 { 0.0 } else { ratio(running, asked) }
}

fn ratio(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(part) / number(whole)
}

/// Everything about all types, in start order, those that are not built or retired as stopped.
pub(super) fn status(snapshot: Option<&Snapshot>, now_ms: i64) -> Value {
    let (_, liveness) = health(snapshot, now_ms);
    let (_, readiness) = ready(snapshot, now_ms);
    let nothing = Snapshot::default();
    let snapshot = snapshot.unwrap_or(&nothing);
    let mut daemons = Map::new();
    for (_, entry) in in_start_order() {
        let body = shown::daemon(snapshot.get(entry.spec.id));
        daemons.insert(entry.spec.id.0.to_owned(), body);
    }
    for retired in RETIRED {
        daemons.insert(retired.name.to_owned(), shown::daemon(None));
    }
    let score = score(snapshot);
    let word = if score >= HEALTHY_SHARE {
        "healthy"
    } else if score >= DEGRADED_SHARE {
        "degraded"
    } else {
        "unhealthy"
    };
    let count = |state: State| snapshot.daemons.iter().filter(|view| view.state == state).count();
    json!({
        "status": word,
        "score": score,
        "running": count(State::Running),
        "failed": snapshot.daemons.iter().filter(|view| is_failed(view)).count(),
        "total": snapshot.daemons.iter().filter(|view| view.asked).count(),
        "daemons": daemons,
        "liveness": liveness,
        "readiness": readiness,
        "circuit_breaker": snapshot.breaker.enabled.then_some(&snapshot.breaker),
        "uptime_seconds": snapshot.uptime.as_secs_f64(),
        "timestamp": seconds(now_ms),
    })
}

/// All types one by one, in start order, the retired ones last.
pub(super) fn daemons(snapshot: Option<&Snapshot>) -> Value {
    let active =
        in_start_order().into_iter().map(|(category, entry)| Found::Active(category, entry));
    active
        .chain(RETIRED.iter().map(Found::Retired))
        .map(|found| daemon_of(found, snapshot))
        .collect()
}

/// What a type is, and what its daemon does.
pub(super) fn daemon_of(found: Found, snapshot: Option<&Snapshot>) -> Value {
    let (mut body, about) = match found {
        Found::Active(category, entry) => {
            let spec = entry.spec;
            let view = snapshot.and_then(|snapshot| snapshot.get(spec.id));
            let mut body = shown::daemon(view);
            body["critical"] = spec.critical.into();
            let state_of_build = if entry.is_built() { "built" } else { "planned" };
            let about = json!({
                "name": spec.id, "category": category, "about": spec.about, "needs": spec.needs,
                "state_of_build": state_of_build, "successor": null,
            });
            (body, about)
        }
        Found::Retired(retired) => {
            let about = json!({
                "name": retired.name, "category": retired.category, "about": retired.sentence,
                "needs": [], "state_of_build": "retired", "successor": retired.successor,
            });
            (shown::daemon(None), about)
        }
    };
    if let (Some(body), Value::Object(about)) = (body.as_object_mut(), about) {
        body.extend(about);
    }
    body
}
