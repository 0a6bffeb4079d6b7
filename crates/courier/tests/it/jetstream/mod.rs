//! The engine on `JetStream`, with real servers: children of the test, on loopback, with stores of
//! their own.
//!
//! The program is `NATS_SERVER`, or the one that `cargo xtask check` puts into `target/tools`; not whatever `PATH` has, which
//! may be too old. Without it these tests say that it is absent, and fail where `CI` is `true`.

mod faults;
mod keys;
mod leases;
mod others;
mod own;
pub(crate) mod servers;
mod suite;

pub(crate) use servers::Servers;
