//! The real binary, as people and scripts use it.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod bench;
mod causes;
#[cfg(feature = "cluster")]
mod cluster;
mod commands;
mod contract;
mod damaged;
mod events;
mod far;
mod interop;
mod launch;
mod manager;
mod python;
mod rules;
mod runbook;
#[cfg(feature = "cluster")]
mod servers;
mod service;
mod survival;
mod train;
mod workers;
