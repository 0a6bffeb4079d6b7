use ringrift_rules::{Options, SplitMix64};

use super::*;

fn config(name: &str) -> Config {
    name.parse().unwrap()
}

/// Weights that all differ.
fn scattered(config: Config) -> Linear {
    let mut linear = Linear::zero(config);
    let mut rng = fastrand::Rng::with_seed(3);
    linear.weights_mut().fill_with(|| rng.f32() - 0.5);
    linear
}

/// Looks at the positions of a random game.
fn positions(config: Config, seed: u64, mut look: impl FnMut(&State, &[Move])) {
    let mut random = SplitMix64::new(seed);
    let (mut state, mut moves) = (State::new(config, Options::default()), Vec::new());
    while !state.is_over() {
        state.legal_moves(&mut moves);
        look(&state, &moves);
        state.apply_legal(&moves[random.below(moves.len())]);
    }
}

#[test]
fn a_position_and_its_images_share_their_patterns() {
    for name in ["square8_2p", "hex8_3p"] {
        let config = config(name);
        let linear = Linear::zero(config);
        let first = linear.layout.first_pattern;
        let patterns = |state: &State| {
            let mut active = Active::default();
            linear.activate(state, &mut active);
            let mut list: Vec<u32> =
                active.of(0).iter().copied().filter(|index| *index >= first).collect();
            list.sort_unstable();
            list
        };
        let mut seen = 0;
        positions(config, 1, |state, _| {
            let own = patterns(state);
            seen = seen.max(own.len());
            for symmetry in config.board.geometry().symmetries() {
                assert_eq!(patterns(&state.permuted(symmetry)), own);
            }
        });
        assert!(seen > 30, "{seen}");
    }
}

#[test]
fn a_seat_sees_what_the_other_one_does_with_the_colours_exchanged() {
    let config = config("square8_2p");
    let linear = Linear::zero(config);
    // The same board with its colours exchanged, as each seat sees it, patterns only.
    let seen = |colour: u8, seat: usize| {
        let other = 3 - colour;
        let start = State::new(config, Options::default());
        let mut position = ringrift_rules::json::Position::of(&start);
        position.board.stacks.insert("0,0".to_owned(), vec![colour, colour]);
        position.board.stacks.insert("3,3".to_owned(), vec![other, colour]);
        position.board.markers.insert("2,3".to_owned(), colour);
        let state = position.state(config, Options::default()).unwrap();
        let mut active = Active::default();
        linear.activate(&state, &mut active);
        let first = linear.layout.first_pattern;
        active.of(seat).iter().copied().filter(|index| *index >= first).collect::<Vec<u32>>()
    };
    assert_eq!(seen(1, 0), seen(2, 1));
    assert_eq!(seen(1, 1), seen(2, 0));
    assert_ne!(seen(1, 0), seen(1, 1));
}

#[test]
fn a_file_reads_back_and_equal_functions_give_equal_bytes() {
    let mut linear = scattered(config("hex8_2p"));
    linear.add_games(12);
    let bytes = linear.to_bytes();
    let read = Linear::for_config(&bytes, config("hex8_2p")).unwrap();
    assert_eq!((read.weights(), read.games()), (linear.weights(), 12));
    assert_eq!(read.to_bytes(), bytes);
}

#[test]
fn a_file_made_for_something_else_is_refused_with_a_sentence() {
    let linear = scattered(config("hex8_2p"));
    let check = |bytes: &[u8], name: &str, sentence: &str| {
        let error = Linear::for_config(bytes, config(name)).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    };
    let bytes = linear.to_bytes();
    check(&bytes, "hex8_3p", "config \"hex8_2p\", this program needs \"hex8_3p\"");
    let network = crate::Network::random(config("hex8_2p"), 1).to_bytes();
    check(&network, "hex8_2p", "format \"nnue-pv");
    check(&bytes[..bytes.len() / 2], "hex8_2p", "damaged");
    let changed = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        changed
    };
    check(&changed(ENCODER_ID, &"x".repeat(ENCODER_ID.len())), "hex8_2p", "encoder \"xxx");
    check(&changed(RULES_VERSION, "ringrift-0"), "hex8_2p", "rules version \"ringrift-0\"");
    let mut broken = linear.clone();
    broken.weights_mut()[7] = f32::NAN;
    check(&broken.to_bytes(), "hex8_2p", "not finite");
    // A network's file is no linear function, and the other way round.
    let error = crate::Network::from_bytes(&bytes).unwrap_err().to_string();
    assert!(error.contains("header") || error.contains("format"), "{error}");
}

#[test]
fn the_look_ahead_sees_the_position_behind_forced_moves_and_the_end_of_the_game() {
    let config = config("square8_2p");
    let linear = scattered(config);
    let (mut active, mut values) = (Active::default(), Vec::new());
    let (mut ends, mut chosen) = (0, 0);
    positions(config, 5, |state, moves| {
        linear.look_ahead(state, moves, &mut active, &mut values);
        assert_eq!(values.len(), moves.len());
        for (played, values) in moves.iter().zip(&values) {
            let (mut after, mut next) = (state.clone(), Vec::new());
            after.apply_legal(played);
            while !after.is_over() {
                after.legal_moves(&mut next);
                if next.len() > 1 {
                    break;
                }
                after.apply_legal(&next[0]);
            }
            let wanted = if let Some(outcome) = after.outcome() {
                ends += 1;
                Values::won(2, outcome.winner.index())
            } else {
                let mut own = Active::default();
                linear.activate(&after, &mut own);
                linear.values(&own)
            };
            assert_eq!(*values, wanted);
        }
        let mover = state.to_move().index();
        let best = best_for(mover, &values, &mut fastrand::Rng::with_seed(1));
        chosen += usize::from(best > 0);
        assert!(values.iter().all(|v| v.chance(mover) <= values[best].chance(mover)));
    });
    assert!(ends > 0 && chosen > 10, "{ends} {chosen}");
}
