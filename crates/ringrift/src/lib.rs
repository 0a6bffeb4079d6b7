//! The commands `ringrift` and `launch_daemons`: they wire and print, and decide nothing.
//!
//! `up` puts the parts together and runs them; the other commands read what lies in the data
//! directory, or ask the running manager over its socket; `worker` is the other end of the worker
//! contract.

#[cfg(feature = "cluster")]
mod admission;
#[cfg(not(feature = "cluster"))]
#[path = "admission/alone.rs"]
mod admission;
mod cli;
mod commands;
mod config;
mod console;
mod control;
mod data_dir;
mod exit;
mod facts;
mod far;
mod http;
mod interrupt;
mod launch;
mod log_lines;
mod log_server;
mod logs;
mod matches;
mod membership;
mod plan;
mod shown;
mod state;
mod up;
mod view;
mod worker;

pub use cli::main;
pub use launch::main as launch_daemons;
pub use state::State;
