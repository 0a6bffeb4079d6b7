//! What concurrent compare-and-append and lease operations saw, while processes, servers and connections fail, could
//! have happened one after the other, in both engines.
//!
//! `cargo xtask check` records one history of each kind; `cargo xtask check --long histories` twenty, with other seeds.

// `cfg(test)` is always so here; it tells clippy that the helpers are test code too.
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod history;
#[cfg(test)]
mod jetstream;
#[cfg(test)]
mod linear;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod record;
#[cfg(test)]
#[path = "../it/jetstream/servers.rs"]
mod servers;

/// Histories of each kind.
#[cfg(test)]
const ROUNDS: u64 = if cfg!(feature = "long") { 20 } else { 1 };
