//! The long manager suite: the real binary under what nobody should do to it.
//!
//! `cargo xtask check --long manager`. It drives only loopback and folders of its own.
#![expect(clippy::print_stderr, reason = "a suite of minutes tells what it measured")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod flood;
mod openapi;
mod served;
