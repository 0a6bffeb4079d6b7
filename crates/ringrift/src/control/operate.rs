//! What an operator can ask of a manager, whichever way the question came.

use ringrift_daemons::{Found, PROFILES, explain, find, profile};
use ringrift_pipeline::Config;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use warden::{DaemonId, Handle, Refusal};

use super::{Answer, Request, Selection, letters, status::status};
use crate::{
    config::{Settings, nearest},
    plan::{Wanted, plan},
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
        Request::Status => Answer::Ok(status(&control.state, &control.url)),
        Request::Why { config } => why(&config, control).await,
        Request::Start(selection) => start(selection, control).await,
        Request::Stop { daemon: None } => {
            info!("asked to end");
            control.stop.cancel();
            Answer::Ok(json!({ "stopped": null, "pid": std::process::id() }))
        }
        Request::Stop { daemon: Some(name) } => {
            let handle = &control.handle;
            with(&name, "stopped", async |id| handle.stop(id).await).await
        }
        Request::Restart { daemon } => {
            let handle = &control.handle;
            with(&daemon, "restarted", async |id| handle.restart(id).await.map(drop)).await
        }
        Request::Retry { daemon, force } => {
            let handle = &control.handle;
            with(&daemon, "retried", async |id| handle.retry(id, force).await).await
        }
        Request::Pause { daemon } => {
            let handle = &control.handle;
            with(&daemon, "paused", async |id| handle.pause(&[id], OPERATOR).await).await
        }
        Request::Resume { daemon } => {
            let handle = &control.handle;
            with(&daemon, "resumed", async |id| handle.resume(&[id], OPERATOR).await).await
        }
        Request::RetryLetters { letters, topics, most } => {
            letters::retry(&control.state, &letters, &topics, most).await
        }
        Request::PurgeLetters { older_than_seconds } => {
            letters::purge(&control.state, older_than_seconds).await
        }
    }
}

/// Does something with one daemon that is built.
async fn with(
    name: &str,
    done: &'static str,
    act: impl AsyncFnOnce(DaemonId) -> Result<(), Refusal>,
) -> Answer {
    let id = match built(name) {
        Ok(id) => id,
        Err(sentence) => return Answer::Refused(sentence),
    };
    info!(daemon = id.0, "asked that it is {done}");
    match act(id).await {
        Ok(()) => Answer::Ok(json!({ (done): id })),
        Err(refusal @ Refusal::NothingToRetry { .. }) => Answer::Refused(refusal.to_string()),
        Err(refusal) => Answer::Failed(refusal.to_string()),
    }
}

fn built(name: &str) -> Result<DaemonId, String> {
    match find(name) {
        Ok(Found::Active(_, entry)) if entry.is_built() => Ok(entry.spec.id),
        Ok(Found::Active(_, entry)) => Err(not_built(entry.spec.id.0)),
        Ok(Found::Retired(retired)) => {
            Err(format!("{} is retired and never runs: {}", retired.name, retired.sentence))
        }
        Err(unknown) => Err(unknown.to_string()),
    }
}

fn not_built(name: &str) -> String {
    format!("{name} is not built yet; `ringrift registry` says which are")
}

async fn start(selection: Selection, control: &Control) -> Answer {
    let (wanted, warnings) = match wanted(&selection) {
        Ok(wanted) => wanted,
        Err(sentence) => return Answer::Refused(sentence),
    };
    for warning in &warnings {
        warn!(warning, "asked to start");
    }
    let plan = plan(&control.settings, wanted);
    // A need that is not built makes a named daemon impossible; of a profile it is only skipped.
    if let (Selection::Daemons(_), Some(id)) = (&selection, plan.skipped.first()) {
        return Answer::Refused(not_built(id.0));
    }
    match control.handle.start(&plan.start).await {
        Ok(begun) => {
            let missing: Vec<Value> = begun
                .missing
                .iter()
                .map(|(id, what)| json!({ "name": id, "missing": what }))
                .collect();
            info!(started = ?begun.started, "asked to start");
            Answer::Ok(json!({
                "started": begun.started,
                "running_already":
                    plan.start.iter().filter(|id| !begun.started.contains(id)).collect::<Vec<_>>(),
                "added": plan.added,
                "skipped": plan.skipped,
                "disabled": plan.disabled,
                "missing": missing,
                "warnings": warnings,
            }))
        }
        Err(refusal) => Answer::Failed(refusal.to_string()),
    }
}

/// What a selection stands for, and what its author should know.
fn wanted(selection: &Selection) -> Result<(Wanted, Vec<String>), String> {
    let names = match selection {
        Selection::All => return Ok((Wanted::All, Vec::new())),
        Selection::Profile(name) => {
            return match profile(name) {
                Some(profile) => Ok((Wanted::Profile(profile), Vec::new())),
                None => Err(unknown_profile(name)),
            };
        }
        Selection::Daemons(names) => names,
    };
    if names.is_empty() {
        return Err("no daemon is named".into());
    }
    let mut entries = Vec::new();
    let mut warnings = Vec::new();
    for name in names {
        let mut found = find(name);
        if let Ok(Found::Retired(retired)) = found {
            let Some(successor) = retired.successor else {
                return Err(format!(
                    "{} is retired and never runs: {}",
                    retired.name, retired.sentence
                ));
            };
            warnings.push(format!(
                "{} is retired, {successor} is started instead: {}",
                retired.name, retired.sentence
            ));
            found = find(successor);
        }
        match found {
            Ok(Found::Active(_, entry)) if entry.is_built() => entries.push(entry),
            Ok(Found::Active(_, entry)) => return Err(not_built(entry.spec.id.0)),
            Ok(Found::Retired(retired)) => return Err(format!("{} is retired", retired.name)),
            Err(unknown) => return Err(unknown.to_string()),
        }
    }
    Ok((Wanted::Daemons(entries), warnings))
}

fn unknown_profile(name: &str) -> String {
    let names: Vec<&str> = PROFILES.iter().map(|(profile, _)| profile.0).collect();
    let hint = nearest(name, names.iter().copied())
        .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
    format!("unknown profile '{name}'{hint}; there are: {}", names.join(", "))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str]) -> Result<(Vec<&'static str>, usize), String> {
        let names = names.iter().map(ToString::to_string).collect();
        match wanted(&Selection::Daemons(names))? {
            (Wanted::Daemons(entries), warnings) => {
                Ok((entries.iter().map(|entry| entry.spec.id.0).collect(), warnings.len()))
            }
            _ => Err("not a list".into()),
        }
    }

    #[test]
    fn names_are_taken_in_either_case_and_retired_ones_lead_to_their_successor() {
        assert_eq!(check(&["auto_sync", "EVALUATION"]), Ok((vec!["AUTO_SYNC", "EVALUATION"], 0)));
        assert_eq!(check(&["EPHEMERAL_SYNC"]), Ok((vec!["AUTO_SYNC"], 1)));
    }

    #[test]
    fn what_cannot_run_refuses_the_whole_request() {
        let refused = |names: &[&str]| check(names).unwrap_err();
        assert!(refused(&["AUTO_SYNC", "S3_BACKUP"]).starts_with("S3_BACKUP is not built yet"));
        assert!(refused(&["LAMBDA_IDLE"]).starts_with("LAMBDA_IDLE is retired and never runs"));
        assert!(refused(&["AUTO_SINK"]).contains("did you mean AUTO_SYNC?"));
        assert_eq!(refused(&[]), "no daemon is named");
        let profile = wanted(&Selection::Profile("trainin".into())).err().unwrap();
        assert!(profile.contains("did you mean training?"), "{profile}");
    }
}
