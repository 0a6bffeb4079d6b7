//! A linear value function: the baseline that a network must beat.
//!
//! The value of a position to a seat is a sum of learned numbers: one per feature of the encoder, one per class of features that say the
//! same of different cells, and one per pattern of four cells in a row (n-tuples, after Lucas 2008). No hidden layer, no search: it
//! chooses by looking one move ahead.

mod patterns;

use std::sync::Arc;

use ringrift_rules::{Config, Move, RULES_VERSION, Seat, State};
use serde::{Deserialize, Serialize};

use crate::encoder::{ENCODER_ID, Encoded, Encoder};
use crate::rollout::play_forced;
use crate::values::{MAX_SEATS, Values};
use crate::weights::{NetworkError, read_tensors, write_tensors};
use patterns::Patterns;

/// Version of the file layout and of the patterns.
const FORMAT: &str = "linear-1";
/// Name of the one tensor.
const TENSOR: &str = "weights";

/// A linear value function of one config.
///
/// Cheap to clone but for the weights themselves.
#[derive(Debug, Clone)]
pub struct Linear {
    layout: Arc<Layout>,
    weights: Vec<f32>,
    games: u64,
}

/// Where each kind of weight begins: features, then their classes, then patterns.
#[derive(Debug)]
struct Layout {
    encoder: Encoder,
    /// For each feature the number of its class's weight, if it has one.
    classes: Vec<Option<u32>>,
    patterns: Patterns,
    first_pattern: u32,
}

/// The weights that count in a position, seat by seat. Keeps its memory between positions.
#[derive(Debug, Clone, Default)]
pub struct Active {
    seats: [Vec<u32>; MAX_SEATS],
    encoded: Encoded,
    symbols: Vec<u8>,
}

impl Active {
    /// Numbers of the weights whose sum is the raw value of a seat (0-based).
    pub fn of(&self, seat: usize) -> &[u32] {
        &self.seats[seat]
    }
}

/// What stands in the header of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: String,
    encoder: String,
    rules: String,
    config: Config,
    /// Games of self-play it was trained on.
    #[serde(default)]
    games: u64,
}

impl Linear {
    /// One that has learned nothing: every weight is zero.
    pub fn zero(config: Config) -> Self {
        let encoder = Encoder::new(config);
        let features = encoder.features();
        let classes = encoder.feature_classes();
        let first_pattern = number(features + classes.count);
        let classes =
            classes.of.iter().map(|class| class.map(|class| number(features + class))).collect();
        let patterns = Patterns::new(config);
        let weights = vec![0.0; (first_pattern + patterns.total()) as usize];
        let layout = Arc::new(Layout { encoder, classes, patterns, first_pattern });
        Self { layout, weights, games: 0 }
    }

    /// Reads a file, and refuses one of another board or number of seats.
    ///
    /// # Errors
    /// One sentence: damaged, made for another format, encoder, rules version or config, wrong shape, or not finite.
    pub fn for_config(bytes: &[u8], config: Config) -> Result<Self, NetworkError> {
        let (header, file) = read_tensors(bytes)?;
        let header: Header = serde_json::from_str(&header)
            .map_err(|error| NetworkError::Damaged(format!("its header is unreadable: {error}")))?;
        for (field, found, expected) in [
            ("format", header.format, FORMAT.to_owned()),
            ("encoder", header.encoder, ENCODER_ID.to_owned()),
            ("rules version", header.rules, RULES_VERSION.to_owned()),
            ("config", header.config.to_string(), config.to_string()),
        ] {
            if found != expected {
                return Err(NetworkError::Mismatch { field, found, expected });
            }
        }
        let mut linear = Self::zero(config);
        linear.games = header.games;
        let shape = [linear.weights.len()];
        file.read(TENSOR, &shape, &mut linear.weights)?;
        Ok(linear)
    }

    /// The file; equal functions give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            format: FORMAT.to_owned(),
            encoder: ENCODER_ID.to_owned(),
            rules: RULES_VERSION.to_owned(),
            config: self.config(),
            games: self.games,
        };
        write(&header, &self.weights)
    }

    /// Board and number of seats.
    pub fn config(&self) -> Config {
        self.layout.encoder.config()
    }

    /// Games of self-play it was trained on.
    pub const fn games(&self) -> u64 {
        self.games
    }

    /// Notes games that it was trained on.
    pub const fn add_games(&mut self, games: u64) {
        self.games += games;
    }

    /// The learned numbers.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The learned numbers, to be changed.
    pub fn weights_mut(&mut self) -> &mut [f32] {
        &mut self.weights
    }

    /// Lists the weights that count in a position of an unfinished game.
    pub fn activate(&self, state: &State, active: &mut Active) {
        let Layout { encoder, classes, patterns, first_pattern } = &*self.layout;
        encoder.encode(state, &mut active.encoded);
        let players = usize::from(self.config().players);
        let mover = usize::from(active.encoded.mover);
        for (seat, list) in active.seats[..players].iter_mut().enumerate() {
            list.clear();
            let view = encoder.view((seat + players - mover) % players);
            for &feature in &active.encoded.features {
                let feature = view[feature as usize];
                list.push(feature);
                list.extend(classes[feature as usize]);
            }
            patterns.list(state, Seat::ALL[seat], &mut active.symbols, *first_pattern, list);
        }
    }

    /// What the active weights say the position is worth, seat 1 first.
    pub fn values(&self, active: &Active) -> Values {
        let players = usize::from(self.config().players);
        let mut raw = [0.0; MAX_SEATS];
        for (raw, list) in raw.iter_mut().zip(&active.seats[..players]) {
            *raw = list.iter().map(|&index| self.weights[index as usize]).sum();
        }
        Values::from_raw(&raw[..players])
    }

    /// Looks one move ahead: for each legal move the worth of the position after it, forced moves played too.
    pub fn look_ahead(
        &self,
        state: &State,
        moves: &[Move],
        active: &mut Active,
        out: &mut Vec<Values>,
    ) {
        out.clear();
        let mut next = Vec::new();
        for played in moves {
            let mut after = state.clone();
            after.apply_legal(played);
            play_forced(&mut after, &mut next);
            out.push(if let Some(outcome) = after.outcome() {
                Values::won(usize::from(self.config().players), outcome.winner.index())
            } else {
                self.activate(&after, active);
                self.values(active)
            });
        }
    }
}

fn write(header: &Header, weights: &[f32]) -> Vec<u8> {
    let header = serde_json::to_string(header).expect("a header is plain text and numbers");
    let tensor = (TENSOR.to_owned(), vec![weights.len()], weights);
    write_tensors(&[tensor], &header).expect("the shape is that of the weights")
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer than 2^32 weights")
}

/// Index of the value that is best for a seat (0-based); one of several equal ones by chance.
pub fn best_for(seat: usize, values: &[Values], rng: &mut fastrand::Rng) -> usize {
    let chance = |index: usize| values[index].chance(seat);
    let most = (0..values.len()).map(chance).fold(f32::NEG_INFINITY, f32::max);
    let best: Vec<usize> = (0..values.len()).filter(|&index| chance(index) >= most).collect();
    best[rng.usize(..best.len())]
}

#[cfg(test)]
mod tests;
