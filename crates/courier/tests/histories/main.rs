//! What concurrent compare-and-append and lease operations saw, while processes, servers and connections fail, could
//! have happened one after the other, in both engines.
//!
//! `cargo xtask check` records one history of each kind; `cargo xtask check --long histories` twenty, with other seeds.
//! Those of clients on hosts of their own are in the suite of the cluster.

// `cfg(test)` is always so here; it tells clippy that the helpers are test code too.
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod jetstream;
#[cfg(test)]
mod proxy;
#[cfg(test)]
#[path = "../it/jetstream/servers.rs"]
mod servers;

#[cfg(test)]
use courier::conformance::histories::{Operation, Tally, What};

/// Histories of each kind.
#[cfg(test)]
const ROUNDS: u64 = if cfg!(feature = "long") { 20 } else { 1 };

/// Says what came of a history, and ends the test unless it could have happened one operation after the other.
#[cfg(test)]
fn judge(history: Vec<Operation<What>>) -> Tally {
    let tally = courier::conformance::histories::judge(history).unwrap();
    println!("{tally}");
    tally
}
