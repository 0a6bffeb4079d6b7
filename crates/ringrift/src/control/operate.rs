//! What an operator can ask of a manager, whichever way the question came.

use std::time::Duration;

use ringrift_daemons::explain;
use ringrift_pipeline::Config;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use warden::{DaemonId, Handle, Refusal, Started};

use super::{Answer, Request, Selection, letters, nodes, status::status};
use crate::{
    config::Settings,
    plan::{Wanted, built, plan},
    state::State,
};

/// The cause that an operator's pause is known by.
const OPERATOR: &str = "operator";

/// What an operator reaches.
pub struct Control {
    /// What can be shown.
    pub state: State,
    /// What can be done.
    pub handle: Handle,
    /// What profiles start.
    pub settings: Settings,
    /// Cancelled to end the manager.
    pub stop: CancellationToken,
    /// Where the page is.
    pub url: String,
}

/// Does what is asked, or says in one sentence why not.
pub async fn answer(request: Request, control: &Control) -> Answer {
    match request {
        Request::Status => Answer::Ok(status(control).await),
        Request::Why { config } => why(&config, control).await,
        Request::WhyNode { node } => nodes::why(&control.state, node.as_deref()).await,
        Request::Nodes => nodes::show(&control.state).await,
        Request::Start(selection) => start(selection, control).await,
        Request::Stop { daemon: None } => {
            info!("asked to end");
            control.stop.cancel();
            Answer::Ok(json!({ "stopped": null, "pid": std::process::id() }))
        }
        Request::Stop { daemon: Some(name) } => {
            let handle = &control.handle;
            with(&name, "stopped", async |id| handle.stop(id).await.map(|()| None)).await
        }
        Request::Restart { daemon } => {
            let handle = &control.handle;
            with(&daemon, "restarted", async |id| handle.restart(id).await.map(Some)).await
        }
        Request::Retry { daemon, force } => {
            let handle = &control.handle;
            with(&daemon, "retried", async |id| handle.retry(id, force).await.map(Some)).await
        }
        Request::Pause { daemon } => {
            let handle = &control.handle;
            with(&daemon, "paused", async |id| handle.pause(&[id], OPERATOR).await.map(|()| None))
                .await
        }
        Request::Resume { daemon } => {
            let handle = &control.handle;
            with(&daemon, "resumed", async |id| handle.resume(&[id], OPERATOR).await.map(|()| None))
                .await
        }
        Request::RetryLetters { letters, topics, most } => {
            letters::retry(&control.state, &letters, &topics, most).await
        }
        Request::PurgeLetters { older_than_seconds } => {
            letters::purge(&control.state, older_than_seconds).await
        }
        Request::Invite { role, lasts_seconds } => {
            nodes::invite(&control.state, &role, Duration::from_secs(lasts_seconds)).await
        }
        Request::Drain { node, draining } => {
            nodes::drain(&control.state, node.as_deref(), draining).await
        }
        Request::Remove { node } => nodes::remove(&control.state, &node).await,
        Request::LogLevel { level } => log_level(level.as_deref(), control),
    }
}

/// Does something with one daemon that is built, and tells what of its needs is left as it was.
async fn with(
    name: &str,
    done: &'static str,
    act: impl AsyncFnOnce(DaemonId) -> Result<Option<Started>, Refusal>,
) -> Answer {
    let id = match built(name) {
        Ok(id) => id,
        Err(sentence) => return Answer::Refused(sentence),
    };
    info!(daemon = id.0, "asked that it is {done}");
    match act(id).await {
        Ok(begun) => {
            let Started { failed, missing, .. } = begun.unwrap_or_default();
            let mut answer = json!({ (done): id });
            if !failed.is_empty() {
                answer["failed"] = json!(failed);
            }
            if !missing.is_empty() {
                answer["missing"] = lacks(&missing);
            }
            Answer::Ok(answer)
        }
        Err(refusal @ Refusal::NothingToRetry { .. }) => Answer::Refused(refusal.to_string()),
        Err(refusal) => Answer::Failed(refusal.to_string()),
    }
}

async fn start(selection: Selection, control: &Control) -> Answer {
    let wanted = match Wanted::of(&[selection]) {
        Ok(wanted) => wanted,
        Err(sentence) => return Answer::Refused(sentence),
    };
    for warning in &wanted.warnings {
        warn!(warning, "asked to start");
    }
    let plan = plan(&control.settings, &wanted, control.state.the_loop.shared);
    match control.handle.start(&plan.start).await {
        Ok(begun) => {
            info!(started = ?begun.started, "asked to start");
            Answer::Ok(json!({
                "started": begun.started,
                "running_already":
                    plan.start.iter().filter(|id| !begun.started.contains(id)).collect::<Vec<_>>(),
                "added": plan.added,
                "skipped": plan.skipped,
                "disabled": plan.disabled,
                "missing": lacks(&begun.missing),
                "warnings": wanted.warnings,
            }))
        }
        Err(refusal) => Answer::Failed(refusal.to_string()),
    }
}

/// Who lacks what on this machine.
fn lacks(missing: &[(DaemonId, String)]) -> Value {
    missing.iter().map(|(id, what)| json!({ "name": id, "missing": what })).collect()
}

fn log_level(level: Option<&str>, control: &Control) -> Answer {
    let log = &control.state.log_level;
    if let Some(level) = level
        && let Err(sentence) = log.set(level)
    {
        return Answer::Refused(sentence);
    }
    let now = log.now();
    if level.is_some() {
        // A warning, so that it stands in the log at almost every level.
        warn!(level = now, "the log takes another level from now on");
    }
    Answer::Ok(json!({ "level": now }))
}

async fn why(config: &str, control: &Control) -> Answer {
    let config: Config = match config.parse() {
        Ok(config) => config,
        Err(error) => return Answer::Refused(format!("{error}")),
    };
    let state = &control.state;
    if !state.the_loop.configs.contains(&config) {
        let played: Vec<String> = state.the_loop.configs.iter().map(ToString::to_string).collect();
        return Answer::Refused(format!(
            "{config} is not played by this manager: it plays {}",
            played.join(", ")
        ));
    }
    match explain(&state.catalogue, &state.pressure, config).await {
        Ok(sentences) => match serde_json::to_value(sentences) {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Failed(error.to_string()),
        },
        Err(error) => Answer::Failed(format!("{error:#}")),
    }
}
