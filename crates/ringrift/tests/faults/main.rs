//! The long fault suite: the real binary, killed and starved at random instants.
//!
//! `cargo xtask check --long faults`. It drives only loopback and folders of its own.
#![expect(clippy::print_stderr, reason = "a suite of many minutes tells how far it is")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod disk;
mod kill;
mod manager;
