//! Checkpoints: all that a training needs to go on as if it had never been interrupted.

use std::path::Path;

use anyhow::{Context, ensure};
use ringrift_player::{Encoder, TENSORS, Weights, read_tensors, write_tensors};
use serde::{Deserialize, Serialize};

use super::adam::{Adam, Moments, Sharing};
use super::gradient::Loss;
use super::{CurvePoint, Settings};
use crate::files::write_bytes;

/// What a checkpoint belongs to: going on with other settings or samples would give a result that nobody can repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) settings: Settings,
    /// BLAKE3 of the window.
    pub(super) window: String,
    /// BLAKE3 of the parent, or none for a random start.
    pub(super) parent: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    identity: Identity,
    step: u32,
    curve: Vec<CurvePoint>,
    stretch: Loss,
}

const SHARED: [&str; 3] = ["shared.features", "shared.moves", "shared.moves_bias"];

/// Where a training stands.
pub(super) struct Checkpoint {
    pub(super) weights: Weights,
    pub(super) adam: Adam,
    pub(super) curve: Vec<CurvePoint>,
    /// Losses since the last point of the curve.
    pub(super) stretch: Loss,
}

impl Checkpoint {
    pub(super) fn write(&self, identity: &Identity, path: &Path) -> anyhow::Result<()> {
        let header = Header {
            identity: identity.clone(),
            step: self.adam.step,
            curve: self.curve.clone(),
            stretch: self.stretch,
        };
        let mut tensors: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
        for ((name, values), moments) in
            TENSORS.iter().zip(self.weights.tensors()).zip(&self.adam.own)
        {
            tensors.push(((*name).to_owned(), vec![values.len()], values));
            push_moments(&mut tensors, name, moments);
        }
        for (name, moments) in SHARED.iter().zip(&self.adam.shared) {
            push_moments(&mut tensors, name, moments);
        }
        let bytes = write_tensors(&tensors, &serde_json::to_string(&header)?)?;
        write_bytes(path, &bytes)
    }

    /// Reads the checkpoint at `path`; `None` if there is none.
    ///
    /// # Errors
    /// A damaged checkpoint, or one of another training.
    pub(super) fn read(
        identity: &Identity,
        encoder: &Encoder,
        sharing: &Sharing,
        path: &Path,
    ) -> anyhow::Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs_err::read(path)?;
        let read = || format!("read the checkpoint {}", path.display());
        let (header, file) = read_tensors(&bytes).with_context(read)?;
        let header: Header = serde_json::from_str(&header).with_context(read)?;
        ensure!(
            header.identity == *identity,
            "the checkpoint {} belongs to a training with other settings, samples or parent",
            path.display()
        );
        let mut weights = Weights::zero(encoder);
        let mut adam = Adam::new(&weights, sharing);
        adam.step = header.step;
        let tensors = TENSORS.iter().zip(weights.tensors_mut());
        for ((name, values), moments) in tensors.zip(&mut adam.own) {
            file.read(name, &[values.len()], values).with_context(read)?;
            read_moments(&file, name, moments).with_context(read)?;
        }
        for (name, moments) in SHARED.iter().zip(&mut adam.shared) {
            read_moments(&file, name, moments).with_context(read)?;
        }
        adam.revive();
        Ok(Some(Self { weights, adam, curve: header.curve, stretch: header.stretch }))
    }
}

fn push_moments<'a>(
    tensors: &mut Vec<(String, Vec<usize>, &'a [f32])>,
    name: &str,
    moments: &'a Moments,
) {
    tensors.push((format!("{name}.mean"), vec![moments.mean.len()], &moments.mean));
    tensors.push((format!("{name}.square"), vec![moments.square.len()], &moments.square));
}

fn read_moments(
    file: &ringrift_player::TensorFile<'_>,
    name: &str,
    moments: &mut Moments,
) -> anyhow::Result<()> {
    let shape = [moments.mean.len()];
    file.read(&format!("{name}.mean"), &shape, &mut moments.mean)?;
    file.read(&format!("{name}.square"), &shape, &mut moments.square)?;
    Ok(())
}
