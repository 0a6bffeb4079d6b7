//! The engines and the projections, on real files and a real server.

// `cfg(test)` is always so here; it tells clippy that the helpers are test code too.
#[cfg(test)]
mod durability;
#[cfg(test)]
mod fold;
#[cfg(test)]
mod jetstream;
#[cfg(test)]
mod suite;
