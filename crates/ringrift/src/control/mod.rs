//! The manager's socket: one JSON request a line, one JSON answer a line.
//!
//! The socket lies in `run/` of the data directory, for its owner alone, so it needs no token.

mod client;
mod server;
pub mod status;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use client::ask;
pub use server::{Control, listen, serve};

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
    /// Stop one daemon, or everything.
    Stop {
        /// The daemon; none = the manager and all it runs.
        #[serde(default)]
        daemon: Option<String>,
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
