//! Outputs: what a network says of the rows of a sample file, the measure for the same network in another language.
//!
//! | array | type, shape | content |
//! |---|---|---|
//! | `values` | f32 N x seats | worth of the position, from the mover's seat on, as `result_values` of the samples |
//! | `logits` | f32 M | one per legal move, as `policy_values` of the samples |

use std::path::Path;

use anyhow::Context;
use ringrift_player::{Encoded, Network};

use crate::npz::NpzWriter;
use crate::samples::Samples;

/// Evaluates every row of a sample file and writes the outputs to `out`; gives the number of rows.
///
/// # Errors
/// An unusable sample file, a network of another config, or a file that cannot be written.
pub fn write(network: &[u8], samples: &Path, out: &Path) -> anyhow::Result<usize> {
    let samples = Samples::read(samples)?;
    let network = Network::for_config(network, samples.config).context("the network")?;
    let (mut values, mut logits) = (Vec::new(), Vec::with_capacity(samples.policy_rows.len()));
    let (mut encoded, mut of_row) = (Encoded::default(), Vec::new());
    for row in 0..samples.len() {
        encoded.features.clear();
        encoded
            .features
            .extend(samples.features(row).iter().map(|feature| feature.cast_unsigned()));
        encoded.mover = samples.mover[row].cast_unsigned();
        let moves = &samples.policy_rows[samples.policy(row)];
        let seats = network.evaluate_encoded(&encoded, moves, &mut of_row);
        values.extend_from_slice(seats.from_view(encoded.mover.into()).seats());
        logits.extend_from_slice(&of_row);
    }
    let mut npz = NpzWriter::default();
    npz.add("values", &[samples.len(), samples.seats()], &values);
    npz.add("logits", &[logits.len()], &logits);
    npz.write(out)?;
    Ok(samples.len())
}
