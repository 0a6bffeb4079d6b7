//! What is recorded of machines: whether their nodes are well, what was tried to bring one back, and what
//! their provider says of them.

use serde::{Deserialize, Serialize};

use crate::{NodeId, topic::bodies};

/// Where a node was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Its lease, which a node that works prolongs.
    Lease,
    /// A command on its machine.
    Command,
    /// The provider of its machine.
    Provider,
}

/// A step of the ladder that brings a node back, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryStep {
    /// People are told.
    Notify,
    /// Its service is restarted by a command.
    Restart,
    /// Its machine is rebooted, or started, by the provider.
    Reboot,
    /// Nothing more is tried.
    GiveUp,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryOutcome {
    /// It was done; whether it helped shows in the lease.
    Done,
    /// It was only said, because of a dry run.
    Dry,
    /// It was tried and went wrong.
    Failed,
    /// It could not be tried now; that uses up no attempt.
    Held,
    /// The configuration has nothing to do it with.
    Unsupported,
}

/// What a provider says of a node's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It runs.
    Running,
    /// It is on its way up.
    Starting,
    /// It is stopped, or on its way there.
    Offline,
    /// The provider has it no more, for longer than a grace period.
    Gone,
}

bodies! {
    /// What a machine can do, as was tried when its manager began.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Capabilities {
        /// Operating system and architecture, such as `linux/x86_64`.
        pub platform: String,
        /// Threads that can run at a time.
        pub cores: u32,
        /// Main memory, bytes; where a control group sets a limit, that.
        pub memory_bytes: u64,
        /// The instructions that evaluate a network here.
        pub instructions: String,
        /// Evaluations of a random network of `hex8_2p` that one thread does in a second, the rest of the machine as it was then.
        pub evaluations_per_second: u64,
    }

    /// See [`crate::Event::NodeUnhealthy`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct NodeUnhealthy {
        /// The node.
        pub node: NodeId,
        /// The first layer that failed.
        pub layer: Layer,
        /// What was seen on all of them, one sentence.
        pub reason: String,
    }

    /// See [`crate::Event::NodeRecovered`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct NodeRecovered {
        /// The node.
        pub node: NodeId,
        /// What was seen, one sentence.
        pub reason: String,
    }

    /// See [`crate::Event::RecoveryBegun`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct RecoveryBegun {
        /// The node.
        pub node: NodeId,
        /// The step.
        pub step: RecoveryStep,
        /// How often it was tried with this, from 1.
        pub attempt: u32,
        /// What is about to be done, in words.
        pub how: String,
        /// The node that does it.
        pub by: NodeId,
    }

    /// See [`crate::Event::RecoveryAttempted`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct RecoveryAttempted {
        /// The node.
        pub node: NodeId,
        /// The step.
        pub step: RecoveryStep,
        /// How often it was tried with this, from 1.
        pub attempt: u32,
        /// What became of it.
        pub outcome: RecoveryOutcome,
        /// The same in one sentence.
        pub sentence: String,
    }

    /// See [`crate::Event::RecoveryEnded`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct RecoveryEnded {
        /// The node.
        pub node: NodeId,
        /// Why nothing more is to be done, one sentence.
        pub sentence: String,
    }

    /// See [`crate::Event::NodeAvailabilityChanged`].
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct NodeAvailabilityChanged {
        /// The node.
        pub node: NodeId,
        /// Its provider, as the configuration calls it.
        pub provider: String,
        /// What the provider calls its machine.
        pub instance: String,
        /// How the provider says that it is.
        pub state: Availability,
    }
}
