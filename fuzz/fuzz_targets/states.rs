//! Positions and states as JSON, vectors and lines of recorded games: what is read can be played.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringrift_rules::corpus::Replayer;
use ringrift_rules::json::Position;
use ringrift_rules::vectors::{Outcomes, Source, check, check_line};
use ringrift_rules::{Config, Options, SplitMix64, State, published};

/// A few moves from a position that was read.
fn play(mut state: State) {
    let mut random = SplitMix64::new(1);
    let mut moves = Vec::new();
    for _ in 0..12 {
        state.legal_moves(&mut moves);
        if moves.is_empty() {
            assert!(state.is_over());
            return;
        }
        state.apply_legal(&moves[random.below(moves.len())]);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let config = Config::ALL[usize::from(*first) % Config::ALL.len()];
    if let Ok(position) = serde_json::from_slice::<Position>(bytes)
        && let Ok(state) = position.state(config, Options::default())
    {
        play(state);
    }
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    if let Ok(state) = published::state(&value) {
        play(state);
    }
    let _ = check(&value, &Source::default(), &Outcomes::default());
    let _ = check_line(&value, &|_| Ok(String::new()));
    let _ = Replayer::new().feed(value);
});
