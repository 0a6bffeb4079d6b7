//! The rules against recorded games of the reference engine, move counts, victory cases, published
//! vectors and their own invariants.

#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

#[path = "../oracle/mod.rs"]
mod oracle;

mod corpus;
mod counts;
mod differential;
mod heap;
mod invariants;
mod robustness;
mod vectors;
