//! The network: from a position to a value per seat and a logit per legal move.

use std::fmt;
use std::sync::Arc;

use ringrift_rules::{Config, Move, State};

use crate::encoder::{Encoded, Encoder, MoveRows};
use crate::values::{MAX_SEATS, Values};
use crate::weights::{self, ACCUMULATOR, HIDDEN, Header, NetworkError, POLICY, Weights};

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
}

/// What a network says about one position.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Worth of the position per seat, seat 1 first.
    pub values: Values,
    /// One logit per legal move.
    pub logits: Vec<f32>,
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
        Self { encoder: Arc::new(encoder), weights: Arc::new(weights), header }
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

    /// Evaluates a position and its legal moves.
    pub fn evaluate(&self, state: &State, moves: &[Move], scratch: &mut Scratch) -> Evaluation {
        self.encoder.encode(state, &mut scratch.encoded);
        self.encoder.encode_moves(state, moves, &mut scratch.rows);
        let mut logits = Vec::new();
        let values = self.evaluate_encoded(&scratch.encoded, &scratch.rows, &mut logits);
        Evaluation { values, logits }
    }

    /// Evaluates an encoded position; the values come out seat by seat, seat 1 first.
    pub fn evaluate_encoded(
        &self,
        encoded: &Encoded,
        rows: &[MoveRows],
        logits: &mut Vec<f32>,
    ) -> Values {
        let weights = &*self.weights;
        let players = usize::from(self.config().players);
        let mut raw = [0.0; MAX_SEATS];
        for (view, raw) in raw[..players].iter_mut().enumerate() {
            let accumulator = self.accumulate(encoded, view);
            *raw = value_head(weights, &accumulator);
            if view == 0 {
                let vector = policy_vector(weights, &accumulator);
                logits.clear();
                logits.extend(rows.iter().map(|rows| move_logit(weights, &vector, rows)));
            }
        }
        Values::from_raw(&raw[..players]).to_seats(usize::from(encoded.mover))
    }

    /// Sum of the learned rows of a view, cut off below zero.
    fn accumulate(&self, encoded: &Encoded, view: usize) -> [f32; ACCUMULATOR] {
        let mut sum = [0.0; ACCUMULATOR];
        sum.copy_from_slice(&self.weights.features_bias);
        let turned = self.encoder.view(view);
        for &feature in &encoded.features {
            let row = &self.weights.features[turned[feature as usize] as usize];
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += x;
            }
        }
        for x in &mut sum {
            *x = x.max(0.0);
        }
        sum
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("header", &self.header).finish_non_exhaustive()
    }
}

/// `out` += every row of `matrix` times the lane of `input` it belongs to; silent lanes cost nothing.
fn add_product<const N: usize>(
    out: &mut [f32; N],
    input: &[f32; ACCUMULATOR],
    matrix: &[[f32; N]],
) {
    for (&x, row) in input.iter().zip(matrix) {
        if x > 0.0 {
            for (out, w) in out.iter_mut().zip(row) {
                *out += x * w;
            }
        }
    }
}

fn value_head(weights: &Weights, accumulator: &[f32; ACCUMULATOR]) -> f32 {
    let mut hidden = [0.0; HIDDEN];
    hidden.copy_from_slice(&weights.hidden_bias);
    add_product(&mut hidden, accumulator, &weights.hidden);
    hidden.iter().zip(&weights.value).map(|(x, w)| x.max(0.0) * w).sum()
}

fn policy_vector(weights: &Weights, accumulator: &[f32; ACCUMULATOR]) -> [f32; POLICY] {
    let mut vector = [0.0; POLICY];
    vector.copy_from_slice(&weights.policy_bias);
    add_product(&mut vector, accumulator, &weights.policy);
    vector
}

fn move_logit(weights: &Weights, vector: &[f32; POLICY], rows: &MoveRows) -> f32 {
    let mut lanes = [0.0; POLICY];
    let mut bias = 0.0;
    for &row in rows {
        bias += weights.moves_bias[usize::from(row)];
        for (lane, w) in lanes.iter_mut().zip(&weights.moves[usize::from(row)]) {
            *lane += w;
        }
    }
    bias + lanes.iter().zip(vector).map(|(lane, x)| lane * x).sum::<f32>()
}

#[cfg(test)]
mod tests;
