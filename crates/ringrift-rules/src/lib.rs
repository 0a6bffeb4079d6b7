//! The game `RingRift`: boards, moves, turn machine, scoring, notation, perft.
//!
//! One implementation serves all twelve configurations; board, number of players and line length are
//! parameters. The specification is `spec/rules.md`; ids such as `R123` are those of its sources, and
//! "section" in comments means a section of that file.
//!
//! ```
//! use ringrift_rules::{Config, Options, SplitMix64, State};
//!
//! let config: Config = "hex8_2p".parse().expect("a configuration");
//! let mut state = State::new(config, Options::default());
//! let mut random = SplitMix64::new(7);
//! let mut moves = Vec::new();
//! while !state.is_over() {
//!     state.legal_moves(&mut moves);
//!     let choice = &moves[random.below(moves.len())];
//!     state.apply_legal(choice);
//! }
//! assert!(state.outcome().is_some());
//! ```
//!
//! Absent on purpose: time, randomness of its own, I/O, threads. Serde stays inside [`notation`].
//! Without the feature `json` (positions and records as JSON, vectors) the crate needs no standard
//! library, only an allocator.

#![cfg_attr(not(feature = "json"), no_std)]

extern crate alloc;

mod apply;
pub mod bench;
mod cellset;
mod config;
mod geometry;
mod illegal;
mod legal;
mod lines;
mod moves;
pub mod notation;
mod perft;
mod random;
mod recovery;
mod render;
mod rows;
mod sink;
mod stack;
mod state;
mod territory;
mod victory;

pub use cellset::{CellSet, Region};
pub use config::{Board, Config, Options, ParseConfigError, Seat};
pub use geometry::{CellId, Coordinate, Geometry, Symmetry};
pub use illegal::Illegal;
pub use moves::{EliminationContext, Kind, Move, Recovery, Run};
#[cfg(feature = "json")]
pub use notation::{binary, corpus, json, published, record, vectors};
pub use perft::{Placements, perft};
pub use random::SplitMix64;
pub use stack::StackView;
pub use state::{Cell, LastPlayerStanding, Phase, State};
pub use victory::{BySeat, Departure, Outcome, Reason};

/// Version of the rules: part of every game record, sample file and model, raised when a change of
/// this crate changes a legal list or a result.
pub const RULES_VERSION: &str = "ringrift-1";
