//! One daemon in JSON: the one shape for scripts and pages, over the socket and over HTTP.

use serde_json::{Value, json};
use warden::{DaemonView, State};

/// A daemon, or a type that has none here: planned or retired.
pub fn daemon(view: Option<&DaemonView>) -> Value {
    let Some(view) = view else { return nothing() };
    json!({
        "state": view.state,
        "cause": view.cause,
        "health": view.health.word(),
        "message": message(view),
        "asked": view.asked,
        "critical": view.critical,
        "priority": view.priority,
        "auto_restart": view.asked && !is_failed(view),
        "restarts": view.restarts,
        "restart_count": view.restarts,
        "last_error": view.last_error,
        "uptime_seconds": view.uptime.as_secs_f64(),
        "cycles": view.cycles,
        "last_cycle_seconds": view.last_cycle.map(|length| length.as_secs_f64()),
        "in_cycle_seconds": view.in_cycle.map(|length| length.as_secs_f64()),
        "last_beat_age_seconds": view.last_beat_age.map(|age| age.as_secs_f64()),
        "next_retry_in_seconds": view.next_retry_in.map(|wait| wait.as_secs_f64()),
        "started_ms": view.started_at_ms,
        "crash_loop": view.crashes.looping,
        "restart_tier": view.crashes.tier,
        "details": view.details,
    })
}

fn nothing() -> Value {
    json!({
        "state": State::Stopped, "cause": null, "health": "unknown", "message": null,
        "asked": false, "critical": false, "priority": null, "auto_restart": false, "restarts": 0,
        "restart_count": 0, "last_error": null, "uptime_seconds": 0.0, "cycles": 0,
        "last_cycle_seconds": null, "in_cycle_seconds": null, "last_beat_age_seconds": null,
        "next_retry_in_seconds": null, "started_ms": null, "crash_loop": false,
        "restart_tier": null, "details": null,
    })
}

/// Somebody wants it, and it was given up.
pub fn is_failed(view: &DaemonView) -> bool {
    view.asked && matches!(view.state, State::Failed | State::ImportFailed)
}

/// What explains a state or a health that is not the best: the health's sentence, the cause, else the
/// last error of one that does not run.
pub fn message(view: &DaemonView) -> Option<String> {
    let error = || match view.state {
        State::Running | State::Stopped => None,
        _ => view.last_error.clone(),
    };
    view.health.message().map(str::to_owned).or_else(|| view.cause.clone()).or_else(error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use warden::{Clock, Cx, Daemon, DaemonId, Outcome, Runnable, Settings, Spec, Supervisor};

    use super::*;

    struct Idle;

    impl Daemon for Idle {
        const SPEC: Spec = Spec { id: DaemonId("IDLE"), ..Spec::DEFAULT };
        type Config = ();
        type Ports = ();
        type Status = ();

        fn new((): (), (): ()) -> Self {
            Self
        }

        async fn cycle(&mut self, _: &Cx) -> anyhow::Result<Outcome<()>> {
            Ok(Outcome::Done(()))
        }
    }

    #[tokio::test]
    async fn what_does_not_run_has_the_same_fields() {
        let settings = Settings::new(tokio::runtime::Handle::current());
        let runnables = vec![Runnable::of(|| Ok(Idle)).every(Duration::from_secs(1))];
        let (handle, _drive) = Supervisor::new(runnables, settings, Clock::new(|| 0)).unwrap();
        let snapshot = handle.snapshot();
        let fields =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(fields(&daemon(snapshot.get(Idle::ID))), fields(&daemon(None)));
    }
}
