//! The embedded engine and the projections, on real files.

// `cfg(test)` is always so here; it tells clippy that the helpers are test code too.
#[cfg(test)]
mod durability;
#[cfg(test)]
mod fold;
#[cfg(test)]
mod suite;
