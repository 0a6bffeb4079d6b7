//! The numbers of a network, and how they lie in a safetensors file.

use std::collections::HashMap;

use ringrift_rules::{Config, RULES_VERSION};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};

use crate::aligned::AlignedRows;
use crate::encoder::{ENCODER_ID, Encoder};

/// Width of the accumulator: one learned row of this length per feature.
pub const ACCUMULATOR: usize = 128;
/// Width of the layer between accumulator and value.
pub const HIDDEN: usize = 32;
/// Length of the vector that meets the rows of a move.
pub const POLICY: usize = 32;

/// Outputs that only training asks for, see [`Weights::auxiliary`].
pub const AUXILIARY: usize = 7;

/// Version of the file layout.
const FORMAT: &str = "nnue-pv-2";
/// Key of our JSON text in the safetensors header; a single key keeps the bytes of equal networks equal.
const HEADER_KEY: &str = "ringrift";

/// Every learned number of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// One row per feature.
    pub features: AlignedRows<ACCUMULATOR>,
    /// Where the accumulator starts.
    pub features_bias: [f32; ACCUMULATOR],
    /// Accumulator to hidden layer, one row per accumulator lane.
    pub hidden: AlignedRows<HIDDEN>,
    /// Where the hidden layer starts.
    pub hidden_bias: [f32; HIDDEN],
    /// Hidden layer to the raw value. It has no bias: only differences between seats count.
    pub value: [f32; HIDDEN],
    /// Hidden layer to what training asks besides: how the game will end. Play does not use it; it is kept in the file so that the
    /// next training goes on with it. Source: Wu 2019 (KataGo), auxiliary targets.
    pub auxiliary: Vec<[f32; AUXILIARY]>,
    /// Where these outputs start.
    pub auxiliary_bias: [f32; AUXILIARY],
    /// Accumulator to policy vector, one row per accumulator lane.
    pub policy: AlignedRows<POLICY>,
    /// Where the policy vector starts.
    pub policy_bias: [f32; POLICY],
    /// One row per move key.
    pub moves: AlignedRows<POLICY>,
    /// One number per move key.
    pub moves_bias: Vec<f32>,
}

/// Names of the tensors, in the order of [`Weights::tensors`].
pub const TENSORS: [&str; 11] = [
    "features.weight",
    "features.bias",
    "hidden.weight",
    "hidden.bias",
    "value.weight",
    "auxiliary.weight",
    "auxiliary.bias",
    "policy.weight",
    "policy.bias",
    "moves.weight",
    "moves.bias",
];

impl Weights {
    /// All zero, in the shapes that `encoder` asks for.
    pub fn zero(encoder: &Encoder) -> Self {
        Self {
            features: AlignedRows::zero(encoder.features()),
            features_bias: [0.0; ACCUMULATOR],
            hidden: AlignedRows::zero(ACCUMULATOR),
            hidden_bias: [0.0; HIDDEN],
            value: [0.0; HIDDEN],
            auxiliary: vec![[0.0; AUXILIARY]; HIDDEN],
            auxiliary_bias: [0.0; AUXILIARY],
            policy: AlignedRows::zero(ACCUMULATOR),
            policy_bias: [0.0; POLICY],
            moves: AlignedRows::zero(encoder.rows()),
            moves_bias: vec![0.0; encoder.rows()],
        }
    }

    /// Random numbers of a size that lets signals pass every layer; equal for equal seeds.
    pub fn random(encoder: &Encoder, seed: u64) -> Self {
        let mut weights = Self::zero(encoder);
        let mut rng = fastrand::Rng::with_seed(seed);
        // Widths: about 64 features are on at a time; half of the rectified lanes pass (He et al. 2015).
        let mut fill = |values: &mut [f32], deviation: f32| {
            for x in values {
                // Sum of three uniform numbers: close enough to a normal one, and the same on every machine.
                let sum = rng.f32() + rng.f32() + rng.f32() - 1.5;
                *x = sum * 2.0 * deviation;
            }
        };
        fill(weights.features.as_flattened_mut(), 0.12);
        fill(weights.hidden.as_flattened_mut(), 0.12);
        fill(&mut weights.value, 0.25);
        fill(weights.policy.as_flattened_mut(), 0.06);
        fill(weights.moves.as_flattened_mut(), 0.06);
        // Last, so that what play uses is as it was without these outputs.
        fill(weights.auxiliary.as_flattened_mut(), 0.1);
        weights
    }

    /// Every tensor as one flat slice, in the order of [`TENSORS`].
    pub fn tensors(&self) -> [&[f32]; TENSORS.len()] {
        [
            self.features.as_flattened(),
            &self.features_bias,
            self.hidden.as_flattened(),
            &self.hidden_bias,
            &self.value,
            self.auxiliary.as_flattened(),
            &self.auxiliary_bias,
            self.policy.as_flattened(),
            &self.policy_bias,
            self.moves.as_flattened(),
            &self.moves_bias,
        ]
    }

    /// Every tensor as one flat slice that can be changed, in the order of [`TENSORS`].
    pub fn tensors_mut(&mut self) -> [&mut [f32]; TENSORS.len()] {
        [
            self.features.as_flattened_mut(),
            &mut self.features_bias,
            self.hidden.as_flattened_mut(),
            &mut self.hidden_bias,
            &mut self.value,
            self.auxiliary.as_flattened_mut(),
            &mut self.auxiliary_bias,
            self.policy.as_flattened_mut(),
            &mut self.policy_bias,
            self.moves.as_flattened_mut(),
            &mut self.moves_bias,
        ]
    }

    /// The shape of every tensor, in the order of [`TENSORS`].
    pub fn shapes(encoder: &Encoder) -> [Vec<usize>; TENSORS.len()] {
        [
            vec![encoder.features(), ACCUMULATOR],
            vec![ACCUMULATOR],
            vec![ACCUMULATOR, HIDDEN],
            vec![HIDDEN],
            vec![HIDDEN],
            vec![HIDDEN, AUXILIARY],
            vec![AUXILIARY],
            vec![ACCUMULATOR, POLICY],
            vec![POLICY],
            vec![encoder.rows(), POLICY],
            vec![encoder.rows()],
        ]
    }
}

/// What stands in the header of a network file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Layout of the file.
    pub format: String,
    /// The encoder the weights were trained for.
    pub encoder: String,
    /// The rules the training games followed.
    pub rules: String,
    /// Board and number of seats.
    pub config: Config,
    /// How many trainings lie between the random network and this one.
    pub generation: u32,
}

impl Header {
    /// The header of a network made by this program.
    pub fn new(config: Config, generation: u32) -> Self {
        Self {
            format: FORMAT.to_owned(),
            encoder: ENCODER_ID.to_owned(),
            rules: RULES_VERSION.to_owned(),
            config,
            generation,
        }
    }

    /// Refuses a file that this program would misread.
    fn check(&self) -> Result<(), NetworkError> {
        let expected = Self::new(self.config, self.generation);
        for (field, found, expected) in [
            ("format", &self.format, &expected.format),
            ("encoder", &self.encoder, &expected.encoder),
            ("rules version", &self.rules, &expected.rules),
        ] {
            if found != expected {
                return Err(NetworkError::Mismatch {
                    field,
                    found: found.clone(),
                    expected: expected.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Why bytes are no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Not a safetensors file, or a damaged one.
    #[error("the network file is damaged: {0}")]
    Damaged(String),
    /// Made for something else.
    #[error("the network file has {field} {found:?}, this program needs {expected:?}")]
    Mismatch {
        /// What differs.
        field: &'static str,
        /// What the file says.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A tensor has another shape than the encoder asks for.
    #[error("tensor {name} of the network file has shape {found:?}, not {expected:?}")]
    Shape {
        /// Which tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The right shape.
        expected: Vec<usize>,
    },
    /// Training went wrong, or the file was changed.
    #[error("tensor {0} of the network file contains a number that is not finite")]
    NotFinite(String),
}

/// Writes tensors and a header text as safetensors; equal input gives equal bytes.
///
/// Public for checkpoints, which are networks with more tensors.
pub fn write_tensors(
    tensors: &[(String, Vec<usize>, &[f32])],
    header: &str,
) -> Result<Vec<u8>, NetworkError> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.clone(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| NetworkError::Damaged(error.to_string()))?;
    let metadata = HashMap::from([(HEADER_KEY.to_owned(), header.to_owned())]);
    serialize(views, Some(metadata)).map_err(|error| NetworkError::Damaged(error.to_string()))
}

/// Opens safetensors bytes and hands out the header text and a reader of tensors.
pub fn read_tensors(bytes: &[u8]) -> Result<(String, TensorFile<'_>), NetworkError> {
    let damaged = |error: safetensors::SafeTensorError| NetworkError::Damaged(error.to_string());
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let header = metadata
        .metadata()
        .as_ref()
        .and_then(|map| map.get(HEADER_KEY))
        .ok_or_else(|| NetworkError::Damaged(format!("it has no {HEADER_KEY:?} header")))?
        .clone();
    let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
    Ok((header, TensorFile(tensors)))
}

/// The tensors of an open file.
pub struct TensorFile<'a>(SafeTensors<'a>);

impl TensorFile<'_> {
    /// Copies a tensor into `into`; refuses another shape, another type, and numbers that are not finite.
    pub fn read(&self, name: &str, shape: &[usize], into: &mut [f32]) -> Result<(), NetworkError> {
        let view = self.0.tensor(name).map_err(|error| NetworkError::Damaged(error.to_string()))?;
        if view.dtype() != Dtype::F32 {
            return Err(NetworkError::Damaged(format!("tensor {name} is not of type f32")));
        }
        if view.shape() != shape {
            return Err(NetworkError::Shape {
                name: name.to_owned(),
                found: view.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        let (chunks, _) = view.data().as_chunks::<4>();
        for (x, bytes) in into.iter_mut().zip(chunks) {
            *x = f32::from_le_bytes(*bytes);
            if !x.is_finite() {
                return Err(NetworkError::NotFinite(name.to_owned()));
            }
        }
        Ok(())
    }
}

/// Bytes of a network file.
pub(crate) fn to_bytes(weights: &Weights, header: &Header, encoder: &Encoder) -> Vec<u8> {
    let tensors: Vec<_> = TENSORS
        .iter()
        .zip(Weights::shapes(encoder))
        .zip(weights.tensors())
        .map(|((name, shape), values)| ((*name).to_owned(), shape, values))
        .collect();
    let header = serde_json::to_string(header).expect("a header is plain text and numbers");
    write_tensors(&tensors, &header).expect("shapes come from the same encoder as the weights")
}

/// Reads a network file.
pub(crate) fn from_bytes(bytes: &[u8]) -> Result<(Weights, Header, Encoder), NetworkError> {
    let (header, file) = read_tensors(bytes)?;
    let header: Header = serde_json::from_str(&header)
        .map_err(|error| NetworkError::Damaged(format!("its header is unreadable: {error}")))?;
    header.check()?;
    let encoder = Encoder::new(header.config);
    let mut weights = Weights::zero(&encoder);
    for ((name, shape), into) in
        TENSORS.iter().zip(Weights::shapes(&encoder)).zip(weights.tensors_mut())
    {
        file.read(name, &shape, into)?;
    }
    Ok((weights, header, encoder))
}
