use ringrift_rules::{Options, SplitMix64};

use super::*;
use crate::kernels::Instructions;

fn config(name: &str) -> Config {
    name.parse().unwrap()
}

/// Positions with a choice and their legal moves, from one random game.
fn positions(config: Config, seed: u64) -> Vec<(State, Vec<Move>)> {
    let mut random = SplitMix64::new(seed);
    let (mut state, mut moves) = (State::new(config, Options::default()), Vec::new());
    let mut all = Vec::new();
    while !state.is_over() {
        state.legal_moves(&mut moves);
        let played = moves[random.below(moves.len())];
        if moves.len() > 1 {
            all.push((state.clone(), moves.clone()));
        }
        state.apply_legal(&played);
    }
    all
}

#[test]
fn what_one_seat_gains_the_other_loses_to_the_last_bit() {
    let config = config("square8_2p");
    let network = Network::random(config, 3);
    let (mut scratch, mut logits) = (Scratch::default(), Vec::new());
    for (state, moves) in positions(config, 1) {
        let values = network.evaluate(&state, &moves, &mut scratch, &mut logits);
        let seats = values.seats();
        assert_eq!(seats[0].to_bits(), (-seats[1]).to_bits());
        assert_eq!(logits.len(), moves.len());
        assert!(logits.iter().all(|logit| logit.is_finite()));
    }
}

#[test]
fn the_seat_that_looks_does_not_matter_but_the_position_does() {
    for name in ["hex8_2p", "square8_3p", "hex8_4p"] {
        let config = config(name);
        let network = Network::random(config, 3);
        let (mut encoded, mut logits) = (Encoded::default(), Vec::new());
        let mut different = 0;
        for (state, _) in positions(config, 2) {
            network.encoder().encode(&state, &mut encoded);
            let here = network.evaluate_encoded(&encoded, &[], &mut logits);
            // The same facts told by the next seat: its own value comes first now.
            let view = network.encoder().view(1);
            let mut turned = encoded.clone();
            for feature in &mut turned.features {
                *feature = view[*feature as usize];
            }
            let there = network.evaluate_encoded(&turned, &[], &mut logits);
            for (a, b) in here.from_view(1).seats().iter().zip(there.seats()) {
                assert!((a - b).abs() < 1e-6, "{name}: {here:?} {there:?}");
            }
            different += usize::from(here.seats()[0] > here.seats()[1]);
        }
        assert!(different > 0, "{name}");
    }
}

/// Row 22 of the original's faults: outputs that depend on what is evaluated together.
#[test]
fn a_position_alone_and_among_64_has_equal_outputs_to_the_last_bit() {
    for name in ["square8_2p", "hex8_3p"] {
        let config = config(name);
        let positions: Vec<_> = positions(config, 4).into_iter().take(64).collect();
        for kernels in Instructions::ALL.into_iter().filter_map(Kernels::of) {
            let network = Network::random(config, 3).with_kernels(kernels);
            let (mut scratch, mut logits) = (Scratch::default(), Vec::new());
            for (state, moves) in &positions {
                let values = network.evaluate(state, moves, &mut scratch, &mut logits);
                let mut alone = Vec::new();
                let again = network.evaluate(state, moves, &mut Scratch::default(), &mut alone);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(values.seats()), bits(again.seats()), "{name} {kernels:?}");
                assert_eq!(bits(&logits), bits(&alone), "{name} {kernels:?}");
            }
        }
    }
}

#[test]
fn a_network_reads_back_from_its_bytes() {
    for name in ["hex8_2p", "square8_4p"] {
        let network = Network::from_weights(
            config(name),
            Network::random(config(name), 9).weights().clone(),
            4,
        );
        let bytes = network.to_bytes();
        let read = Network::from_bytes(&bytes).unwrap();
        assert_eq!(read.weights(), network.weights());
        assert_eq!((read.config(), read.generation()), (config(name), 4));
        assert_eq!(read.to_bytes(), bytes);
    }
    let (one, two) = (Network::random(config("hex8_2p"), 1), Network::random(config("hex8_2p"), 2));
    assert_ne!(one.weights(), two.weights());
}

fn check_refused(bytes: &[u8], sentence: &str) {
    let error = Network::for_config(bytes, config("hex8_2p")).unwrap_err().to_string();
    assert!(error.contains(sentence), "{error}");
}

/// The file with one text in its header replaced by another of the same length.
fn altered(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn a_damaged_or_foreign_file_is_refused_with_one_sentence() {
    let good = Network::random(config("hex8_2p"), 1).to_bytes();
    check_refused(b"no network", "the network file is damaged");
    check_refused(&good[..good.len() - 1], "the network file is damaged");
    check_refused(&altered(&good, "nnue-pv-features-2", "nnue-pv-features-0"), "has encoder");
    check_refused(&altered(&good, "ringrift-1", "ringrift-0"), "has rules version");
    check_refused(&altered(&good, "nnue-pv-2", "nnue-pv-9"), "has format");
    // A file for another board that has the same shapes would be misread silently, one with others is refused by shape.
    check_refused(&altered(&good, "hex8_2p", "hex8_3p"), "has shape");
    check_refused(&Network::random(config("hex8_3p"), 1).to_bytes(), "has config \"hex8_3p\"");
    let mut broken = good;
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    check_refused(&broken, "not finite");
}
