//! `cargo xtask`: check, tidy, docs.

fn main() {}
