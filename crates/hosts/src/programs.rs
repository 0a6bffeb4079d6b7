//! A provider whose commands are programs: any cloud with a command line, and any cupboard of machines
//! with a script.
//!
//! `list` prints one JSON object, and nothing else:
//!
//! ```json
//! {"instances": [{"id": "i-1", "name": "gpu-a", "state": "running"}], "partial": false}
//! ```
//!
//! States are `running`, `starting`, `stopping`, `stopped`, `gone`; any other word is an unknown one.
//! `partial` says that there may be more. An action gets the id as its last argument. Exit code 0 means
//! done; whoever cannot ask ends with another code, or prints `{"error": "..."}`, as some commands do that
//! end with 0.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;

use crate::{
    provider::{Action, Asking, Instance, InstanceId, Listing, Provider, ProviderError, State},
    run::{Limits, Output, RunError, quotable, run},
};

/// The commands of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Lists the instances.
    pub list: Vec<String>,
    /// Starts one, if it can be started.
    pub start: Option<Vec<String>>,
    /// Stops one, if it can be stopped.
    pub stop: Option<Vec<String>>,
    /// Reboots one, if it can be rebooted.
    pub reboot: Option<Vec<String>>,
    /// Time that each of them has.
    pub limit: Duration,
}

impl Programs {
    fn of(&self, action: Action) -> Option<&Vec<String>> {
        match action {
            Action::Start => self.start.as_ref(),
            Action::Stop => self.stop.as_ref(),
            Action::Reboot => self.reboot.as_ref(),
        }
    }

    async fn answer(&self, command: &[String]) -> Result<Output, ProviderError> {
        let output = run(command, Limits::of(self.limit)).await;
        output.map_err(|error: RunError| ProviderError::Unasked(error.to_string()))
    }
}

impl Provider for Programs {
    fn list(&self) -> Asking<'_, Listing> {
        Box::pin(async { read_listing(&self.answer(&self.list).await?) })
    }

    fn act<'a>(&'a self, action: Action, id: &'a InstanceId) -> Asking<'a, ()> {
        Box::pin(async move {
            let mut command = self.of(action).ok_or(ProviderError::Unsupported(action))?.clone();
            command.push(id.to_string());
            let output = self.answer(&command).await?;
            match serde_json::from_slice(&output.stdout) {
                Ok(Said { error: Some(error), .. }) => {
                    Err(ProviderError::Refused(quotable(&error)))
                }
                // What else it prints is for people.
                _ => Ok(()),
            }
        })
    }

    fn supports(&self, action: Action) -> bool {
        self.of(action).is_some()
    }
}

#[derive(Deserialize)]
struct Said {
    error: Option<String>,
    instances: Option<Vec<Told>>,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
struct Told {
    id: Id,
    #[serde(default)]
    name: Option<String>,
    state: State,
}

/// Some number their instances.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

fn read_listing(output: &Output) -> Result<Listing, ProviderError> {
    let garbled = |what: String| Err(ProviderError::Garbled(what));
    if output.cut {
        return garbled("it is longer than 1 MiB".into());
    }
    let said: Said = match serde_json::from_slice(&output.stdout) {
        Ok(said) => said,
        Err(_) if output.stdout.trim_ascii().is_empty() => {
            return garbled("it said nothing".into());
        }
        Err(error) => return garbled(error.to_string()),
    };
    if let Some(error) = said.error {
        return Err(ProviderError::Unasked(quotable(&error)));
    }
    // Never an empty list by default: `{}` is what a failed query prints.
    let Some(told) = said.instances else { return garbled("it has no `instances`".into()) };
    let mut known = BTreeSet::new();
    let mut instances = Vec::with_capacity(told.len());
    for Told { id, name, state } in told {
        let text = match id {
            Id::Text(text) => text,
            Id::Number(number) => number.to_string(),
        };
        let Ok(id) = text.parse::<InstanceId>() else {
            return garbled(format!("'{}' is no id", quotable(&text)));
        };
        if !known.insert(id.clone()) {
            return garbled(format!("it lists {id} twice"));
        }
        instances.push(Instance { id, name: name.map(|name| quotable(&name)), state });
    }
    Ok(Listing::new(instances, said.partial))
}
