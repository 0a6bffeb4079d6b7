//! What takes many minutes to show about learning: `cargo xtask check --long learning`.

#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]
#![expect(clippy::print_stdout, reason = "somebody watches a run of many minutes")]

mod goals;
mod ladder;
