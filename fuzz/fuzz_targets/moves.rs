//! Moves in notation and as JSON: what is read is written the same, and is made or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringrift_rules::{Config, Options, SplitMix64, State, published};

fuzz_target!(|bytes: &[u8]| {
    let [first, ahead, rest @ ..] = bytes else { return };
    let config = Config::ALL[usize::from(*first) % Config::ALL.len()];
    let mut state = State::new(config, Options::default());
    let mut random = SplitMix64::new(u64::from(*first));
    for _ in 0..*ahead % 64 {
        if let Some(mv) = state.sample(&mut random) {
            state.apply_legal(&mv);
        }
    }
    if let Ok(text) = std::str::from_utf8(rest)
        && let Ok(mv) = state.parse(text)
    {
        assert_eq!(state.notate(&mv), text);
        let _ = state.clone().apply(&mv);
    }
    if let Ok(value) = serde_json::from_slice(rest) {
        if let Ok(mv) = published::read_move(&state, &value) {
            let _ = state.clone().apply(&mv);
        }
        let _ = published::read_departure(&state, &value);
    }
});
