//! Whoever provides machines: what it is asked, and what its answers may be taken for.
//!
//! The types keep three things apart that were one thing in many a script: "there is none", "I could not
//! ask", and "I cannot tell". Only the first is ever a reason to do something.

use std::{collections::BTreeMap, fmt, pin::Pin, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a provider calls an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct InstanceId(String);

/// This is no name of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a word of letters, digits and any of . _ : / + = @ - that does not begin with -")]
pub struct BadId;

impl FromStr for InstanceId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        // It becomes an argument of a program, so it must be no option of it.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:/+=@-".contains(c);
        let fits = !text.is_empty()
            && text.len() <= 255
            && !text.starts_with('-')
            && text.chars().all(plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(BadId) }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl InstanceId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a provider says of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It runs.
    Running,
    /// It is on its way up.
    Starting,
    /// It is on its way down.
    Stopping,
    /// It is there and does not run.
    Stopped,
    /// It was given back for good.
    Gone,
    /// The provider does not know, or uses a word that is none of these. Never taken for another.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        })
    }
}

/// A machine that somebody provides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// What the provider calls it.
    pub id: InstanceId,
    /// What people call it.
    pub name: Option<String>,
    /// How it is.
    pub state: State,
}

/// What a provider answered when it was asked for its instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    instances: BTreeMap<InstanceId, Instance>,
    /// It says itself that there may be more.
    partial: bool,
}

/// What a listing says of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is listed with this state, which may be [`State::Unknown`].
    Listed(State),
    /// The listing is whole, has others, and has not this one.
    Absent,
    /// Nothing follows from this listing, and why.
    Untold(&'static str),
}

impl Listing {
    /// What was listed; of a partial one it does not follow that anything is absent.
    pub fn new(instances: impl IntoIterator<Item = Instance>, partial: bool) -> Self {
        let instances =
            instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect();
        Self { instances, partial }
    }

    /// All that were listed.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// What it says of an instance.
    ///
    /// A listing without any instance says nothing of one that should be there: programs that fail print
    /// empty lists. Who has lost all machines of a provider sees it from the machines.
    pub fn standing(&self, id: &InstanceId) -> Standing {
        match self.instances.get(id) {
            Some(instance) => Standing::Listed(instance.state),
            None if self.partial => Standing::Untold("the listing is not whole"),
            None if self.instances.is_empty() => Standing::Untold("the listing is empty"),
            None => Standing::Absent,
        }
    }
}

/// What can be done to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Let one that is stopped run.
    Start,
    /// Let one that runs stop; it stays, with its disk.
    Stop,
    /// Let one that runs begin anew.
    Reboot,
}

impl Action {
    /// Whether it makes sense for an instance in this state.
    pub fn fits(self, state: State) -> bool {
        match self {
            Self::Start => state == State::Stopped,
            Self::Stop | Self::Reboot => state == State::Running,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
        })
    }
}

/// Why a provider did not do or say what it was asked. None of these says anything about an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It could not be asked, or did not answer: an outage, of its or of ours.
    #[error("the provider could not be asked: {0}")]
    Unasked(String),
    /// It answered something that cannot be what it means.
    #[error("the provider's answer is not understood: {0}")]
    Garbled(String),
    /// It was understood, and refuses.
    #[error("the provider refuses: {0}")]
    Refused(String),
    /// It has no such action here.
    #[error("this provider has no command for {0}")]
    Unsupported(Action),
}

/// What a provider is waited for with.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send + 'a>>;

/// Somebody who provides machines. Every call has an end.
pub trait Provider: Send + Sync + 'static {
    /// All its instances.
    fn list(&self) -> Asking<'_, Listing>;

    /// Asks for an action. Success means that it was taken on, not that it is done.
    fn act<'a>(&'a self, action: Action, id: &'a InstanceId) -> Asking<'a, ()>;

    /// Whether it could be asked for an action at all.
    fn supports(&self, action: Action) -> bool;
}
