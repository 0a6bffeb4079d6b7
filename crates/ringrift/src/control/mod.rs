//! The manager's socket: one JSON request a line, one JSON answer a line.
//!
//! The socket lies in `run/` of the data directory, for its owner alone, so it needs no token.

mod client;
mod letters;
mod nodes;
mod operate;
mod server;
pub mod status;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::plan::Selection;
pub use client::{ask, nobody};
#[cfg(feature = "cluster")]
pub use nodes::record_about;
pub use operate::{Control, answer};
pub use server::{listen, serve};

/// What a manager can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The daemons, see [`status::status`].
    Status,
    /// What holds a config up.
    Why {
        /// Configuration of the game.
        config: String,
    },
    /// What a node does, or why it does nothing.
    WhyNode {
        /// The node; none = this one.
        #[serde(default)]
        node: Option<String>,
    },
    /// The nodes of the cluster.
    Nodes,
    /// Start daemons and all they need.
    Start(Selection),
    /// Stop one daemon, or everything.
    Stop {
        /// The daemon; none = the manager and all it runs.
        #[serde(default)]
        daemon: Option<String>,
    },
    /// End one in good order and start a fresh one.
    Restart {
        /// The daemon.
        daemon: String,
    },
    /// Try one that was given up, or that waits for its next try, at once.
    Retry {
        /// The daemon.
        daemon: String,
        /// Forget its crashes, and try also what lacked something on this machine.
        #[serde(default)]
        force: bool,
    },
    /// Let one begin no new cycle until it is resumed.
    Pause {
        /// The daemon.
        daemon: String,
    },
    /// Take the operator's pause back; other causes keep theirs.
    Resume {
        /// The daemon.
        daemon: String,
    },
    /// Have dead letters delivered again, each to its subscriber alone.
    RetryLetters {
        /// These, whether they wait or were given up; empty = all that wait, the oldest first.
        letters: Vec<u64>,
        /// Only about these topics; empty = all.
        topics: Vec<String>,
        /// At most so many.
        most: usize,
    },
    /// Remove dead letters that are recovered or given up.
    PurgeLetters {
        /// Only those that were buried so long ago.
        older_than_seconds: u64,
    },
    /// Make a ticket for a machine that is to join the cluster.
    Invite {
        /// The profile that it is wanted for.
        role: String,
        /// How long the ticket holds.
        lasts_seconds: u64,
    },
    /// Let a node of the cluster take no new work, or take it again.
    Drain {
        /// The node; none = this one.
        #[serde(default)]
        node: Option<String>,
        /// False: it takes work again.
        draining: bool,
    },
    /// Put a node out of the cluster.
    Remove {
        /// The node.
        node: String,
    },
    /// Change the least level that the log takes, or only tell it.
    LogLevel {
        /// The new level; none = leave it.
        #[serde(default)]
        level: Option<String>,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done; the shape depends on the request.
    Ok(Value),
    /// Refused, in one sentence: the request was wrong.
    Refused(String),
    /// It went wrong, in one sentence.
    Failed(String),
}
