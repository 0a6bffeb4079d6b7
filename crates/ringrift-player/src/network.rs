//! The network: from a position to a value per seat and a logit per legal move.

use std::fmt;
use std::sync::Arc;

use ringrift_rules::{Config, Move, State};

use crate::encoder::{Encoded, Encoder, MoveRows};
use crate::kernels::Kernels;
use crate::values::{MAX_SEATS, Values};
use crate::weights::{self, ACCUMULATOR, HIDDEN, Header, NetworkError, Weights};

/// A sparse policy and value network ("nnue-pv").
///
/// Each seat's view of the position is a set of features; the learned rows of these features add up to an accumulator, which a hidden
/// layer turns into one raw number per seat; [`Values::from_raw`] compares them. The accumulator of the player to move also gives a
/// short vector, whose product with the learned rows of a legal move is that move's logit.
///
/// Cheap to clone: the weights are shared.
#[derive(Clone)]
pub struct Network {
    encoder: Arc<Encoder>,
    weights: Arc<Weights>,
    header: Header,
    kernels: Kernels,
}

/// Reusable memory of an evaluation.
#[derive(Debug, Default, Clone)]
pub struct Scratch {
    encoded: Encoded,
    rows: Vec<MoveRows>,
}

impl Network {
    /// A network that has learned nothing; equal for equal seeds.
    pub fn random(config: Config, seed: u64) -> Self {
        let encoder = Encoder::new(config);
        let weights = Weights::random(&encoder, seed);
        Self::new(encoder, weights, Header::new(config, 0))
    }

    /// A network of given weights, `generation` trainings after the random one.
    pub fn from_weights(config: Config, weights: Weights, generation: u32) -> Self {
        Self::new(Encoder::new(config), weights, Header::new(config, generation))
    }

    fn new(encoder: Encoder, weights: Weights, header: Header) -> Self {
        Self {
            encoder: Arc::new(encoder),
            weights: Arc::new(weights),
            header,
            kernels: Kernels::detect(),
        }
    }

    /// Reads a network file.
    ///
    /// # Errors
    /// One sentence: damaged, made for another encoder, rules version or format, wrong shapes, or not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NetworkError> {
        let (weights, header, encoder) = weights::from_bytes(bytes)?;
        Ok(Self::new(encoder, weights, header))
    }

    /// Like [`Network::from_bytes`], and refuses a network of another board or number of seats.
    ///
    /// # Errors
    /// As [`Network::from_bytes`], and a wrong config.
    pub fn for_config(bytes: &[u8], config: Config) -> Result<Self, NetworkError> {
        let network = Self::from_bytes(bytes)?;
        if network.config() == config {
            return Ok(network);
        }
        Err(NetworkError::Mismatch {
            field: "config",
            found: network.config().to_string(),
            expected: config.to_string(),
        })
    }

    /// The file of this network; equal networks give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        weights::to_bytes(&self.weights, &self.header, &self.encoder)
    }

    /// Board and number of seats this network plays.
    pub fn config(&self) -> Config {
        self.header.config
    }

    /// How many trainings lie between the random network and this one.
    pub fn generation(&self) -> u32 {
        self.header.generation
    }

    /// What translates positions and moves for this network.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The learned numbers.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The arithmetic in use: the best that this processor can run, if nothing else was asked for.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// The same network with another form of the arithmetic.
    #[must_use]
    pub fn with_kernels(self, kernels: Kernels) -> Self {
        Self { kernels, ..self }
    }

    /// Evaluates a position and its legal moves: one value per seat, seat 1 first, and one logit per move.
    pub fn evaluate(
        &self,
        state: &State,
        moves: &[Move],
        scratch: &mut Scratch,
        logits: &mut Vec<f32>,
    ) -> Values {
        self.encoder.encode(state, &mut scratch.encoded);
        self.encoder.encode_moves(state, moves, &mut scratch.rows);
        self.evaluate_encoded(&scratch.encoded, &scratch.rows, logits)
    }

    /// Evaluates an encoded position; the values come out seat by seat, seat 1 first.
    pub fn evaluate_encoded(
        &self,
        encoded: &Encoded,
        rows: &[MoveRows],
        logits: &mut Vec<f32>,
    ) -> Values {
        let (kernels, weights) = (self.kernels, &*self.weights);
        let players = usize::from(self.config().players);
        let mut raw = [0.0; MAX_SEATS];
        let (mut sum, mut short) = ([0.0; ACCUMULATOR], [0.0; HIDDEN]);
        for (turn, raw) in raw[..players].iter_mut().enumerate() {
            let view = self.encoder.view(turn);
            let (bias, table) = (&weights.features_bias, &weights.features);
            kernels.accumulate(bias, table, view, &encoded.features, &mut sum);
            kernels.product(&weights.hidden_bias, &weights.hidden, &sum, &mut short);
            *raw = kernels.value(&short, &weights.value);
            if turn == 0 {
                kernels.product(&weights.policy_bias, &weights.policy, &sum, &mut short);
                logits.clear();
                logits.resize(rows.len(), 0.0);
                kernels.logits(&short, &weights.moves, &weights.moves_bias, rows, logits);
            }
        }
        Values::from_raw(&raw[..players]).to_seats(usize::from(encoded.mover))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("header", &self.header).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
