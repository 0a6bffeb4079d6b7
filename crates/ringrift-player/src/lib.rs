//! Playing a game of `RingRift`: the network, the search, the players.
//!
//! A [`Network`] says of a position what it is worth to each seat and how promising each legal move is; a [`Searcher`] improves on both by
//! looking ahead; a [`Player`] chooses moves. One [`Encoder`] translates positions and moves to numbers, for the search, for sample
//! files and for training alike. Bytes in, bytes out: no files, no clock, no threads. Randomness comes in as a generator.

mod aligned;
mod encoder;
mod gumbel;
mod heuristic;
#[expect(
    unsafe_code,
    reason = "vector instructions cannot be reached without; nothing else here is"
)]
mod kernels;
mod linear;
mod network;
mod player;
mod rollout;
mod search;
mod values;
mod weights;

pub use aligned::AlignedRows;
pub use encoder::{Classes, ENCODER_ID, Encoded, Encoder, MOVE_ROWS, MoveRows};
pub use heuristic::{HEURISTIC_FEATURES, HEURISTIC_NAME, Heuristic, check_heuristic};
pub use kernels::{AdamStep, Arms, Instructions, Kernels, Long, Short};
pub use linear::{Active, Linear, best_for};
pub use network::{Network, Scratch};
pub use player::{Choice, MOST_SIMULATIONS, ModelPlayer, ParsePlayerError, Player, PlayerSpec};
pub use search::{Found, SearchSettings, Searcher};
pub use values::{MAX_SEATS, Values};
pub use weights::{
    ACCUMULATOR, AUXILIARY, HIDDEN, Header, NetworkError, POLICY, TENSORS, TensorFile, Weights,
    read_tensors, write_tensors,
};
