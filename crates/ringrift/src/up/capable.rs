//! What this machine can do: tried at the start of a node of a cluster, and told to the others.

use std::time::Duration;

use anyhow::ensure;
use ringrift_pipeline::Capabilities;
use ringrift_player::{Instructions, Kernels, Network, Scratch};
use ringrift_rules::{Config, Options, State};
use tokio::time::Instant;

/// A small config: what is tried costs a start a tenth of a second at most.
const TRIED_ON: &str = "hex8_2p";
/// Time for which evaluations are counted.
const COUNT: Duration = Duration::from_millis(50);
/// Evaluations between two looks at the clock.
const STRIDE: u64 = 32;
/// Two forms of the same arithmetic add in another order; 1e-4 is what the tests of the kernels allow.
const CLOSE: f32 = 1e-3;

/// What a node says of itself when it comes.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "nobody is there to hear it"))]
pub struct Part {
    /// What it was asked to run, in words.
    pub role: String,
    /// Its workers.
    pub slots: usize,
    /// Those of them that may play.
    pub playing: usize,
    /// What its machine can do.
    pub can: Capabilities,
}

/// Evaluates a network for a moment, in the fastest form and in the one that every machine has.
///
/// # Errors
/// The forms differ: what this machine computes is not what others compute.
pub fn try_machine() -> anyhow::Result<Capabilities> {
    let config: Config = TRIED_ON.parse()?;
    let network = Network::random(config, 1);
    let instructions = network.kernels().instructions();
    let portable = Kernels::of(Instructions::Portable);
    let plain = portable.map(|portable| network.clone().with_kernels(portable));
    let (state, mut moves) = (&State::new(config, Options::default()), Vec::new());
    state.legal_moves(&mut moves);
    let moves = &moves[..];
    let (mut scratch, mut logits, mut plainly) = (Scratch::default(), Vec::new(), Vec::new());
    network.evaluate(state, moves, &mut scratch, &mut logits);
    if let Some(plain) = plain {
        plain.evaluate(state, moves, &mut scratch, &mut plainly);
        let furthest = logits.iter().zip(&plainly).map(|(a, b)| (a - b).abs());
        let furthest = furthest.fold(0.0, f32::max);
        ensure!(
            furthest <= CLOSE,
            "a network evaluated with {instructions} differs by {furthest} from what plain arithmetic gives: this \
             processor, or its memory, cannot be trusted"
        );
    }
    let began = Instant::now();
    let mut evaluations = 0;
    while began.elapsed() < COUNT {
        for _ in 0..STRIDE {
            network.evaluate(state, moves, &mut scratch, &mut logits);
        }
        evaluations += STRIDE;
    }
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Capabilities {
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        cores: u32::try_from(hosts::cores()).unwrap_or(u32::MAX),
        memory_bytes: hosts::memory()?.total,
        instructions: instructions.to_string(),
        evaluations_per_second: evaluations * 1000 / milliseconds.max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_it_is_and_how_fast_it_evaluates() {
        let can = try_machine().unwrap();
        assert!(can.cores > 0 && can.memory_bytes > 64 << 20, "{can:?}");
        assert!(can.evaluations_per_second > 100, "{can:?}");
        assert_eq!(can.instructions, Kernels::detect().instructions().to_string());
    }
}
