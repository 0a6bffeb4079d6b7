//! Learning to play `RingRift`: self-play, samples, training, matches, ratings.
//!
//! Each step is a function from files to a file in a folder that the caller gives, and a report: [`selfplay`] makes games, [`export`]
//! turns games into samples, [`combine`] makes a window of samples, [`train`] makes a candidate, [`linear`] makes the baseline that it must
//! beat, [`arena`] compares two players, and [`rating`] orders all of them; [`session`] does all that in turn, without a manager. Results
//! depend on inputs, settings and seeds only. Files appear complete or not at all.
//!
//! Absent on purpose: daemons, events, databases, clocks; threads but in [`session`] and [`arena::run_on`]. Whoever calls watches
//! through [`Progress`] and stops the work there.

pub mod arena;
pub mod combine;
pub mod export;
#[cfg(test)]
mod faults;
mod files;
pub mod games;
pub mod linear;
mod npz;
mod outcomes;
pub mod outputs;
mod progress;
pub mod rating;
pub mod samples;
pub mod selfplay;
pub mod session;
#[cfg(test)]
mod testing;
pub mod train;

pub use outcomes::{Limits, Outcomes};
pub use progress::{Flow, Progress, Unwatched};
