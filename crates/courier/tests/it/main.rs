//! The embedded engine and the projections, on real files.

mod durability;
mod fold;
mod suite;
