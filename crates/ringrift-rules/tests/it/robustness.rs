//! Whatever bytes come in: no panic, a sentence with the place.

use proptest::prelude::*;
use ringrift_rules::binary::{decode, encode};
use ringrift_rules::corpus::Replayer;
use ringrift_rules::json::Position;
use ringrift_rules::published::{read_move, state};
use ringrift_rules::record::{GameRecord, GameResult, replay};
use ringrift_rules::vectors::{Outcomes, Source, check, check_line};
use ringrift_rules::{Config, Kind, Move, Options, SplitMix64, State};

use crate::corpus::{lines, testdata};

/// A finished random game, as a record.
fn game(config: Config, options: Options, seed: u64) -> GameRecord {
    let mut random = SplitMix64::new(seed);
    let mut state = State::new(config, options);
    let (mut moves, mut list) = (Vec::new(), Vec::new());
    while !state.is_over() && state.move_number() < 400 {
        state.legal_moves(&mut list);
        // Any kind before any move, so that rare ones are recorded too.
        let mut kinds: Vec<Kind> = list.iter().map(Move::kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let kind = kinds[random.below(kinds.len())];
        list.retain(|mv| mv.kind() == kind);
        let mv = &list[random.below(list.len())];
        moves.push(state.notate(mv));
        state.apply_legal(mv);
    }
    GameRecord {
        id: format!("game {seed}"),
        config,
        options,
        seed,
        players: config.seats().map(|seat| format!("model:{seat}@32")).collect(),
        moves,
        result: GameResult::of(&state),
    }
}

#[test]
fn a_binary_record_reads_back_and_takes_a_few_bytes_a_move() {
    for (seed, config) in (0..).zip(Config::ALL) {
        for more in 0..3 {
            let swap_rule = more == 1;
            let options = Options { swap_rule, ..Options::default() };
            let record = game(config, options, seed * 10 + more);
            let bytes = encode(&record).unwrap();
            assert_eq!(decode(&bytes), Ok(record.clone()), "{config}");
            assert!(bytes.len() < 120 + 4 * record.moves.len(), "{config}: {}", bytes.len());
            assert!(replay(&record).is_ok());
        }
    }
}

#[test]
fn every_wrong_byte_of_a_record_is_refused_with_its_place() {
    let record = game("hex8_3p".parse().unwrap(), Options::default(), 4);
    let bytes = encode(&record).unwrap();
    for at in 0..bytes.len() {
        for change in [1, 0x80] {
            let mut wrong = bytes.clone();
            wrong[at] ^= change;
            let error = decode(&wrong).unwrap_err();
            assert!(!error.reason.is_empty() && error.offset <= bytes.len(), "{at}: {error}");
        }
        let error = decode(&bytes[..at]).unwrap_err();
        assert!(error.offset <= at, "{at}: {error}");
    }
    let error = decode(b"RRGX and more").unwrap_err();
    assert_eq!(error.to_string(), "byte 0: these are not the first bytes of a game record");
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode(&longer).unwrap_err().reason.contains("1 bytes follow"));
    let mut illegal = record.clone();
    illegal.moves[2] = "NT".to_owned();
    assert!(encode(&illegal).is_err());
}

/// Bytes as they come from a damaged disk or somebody who means harm: known text, changed.
fn mutated(text: &str, random: &mut SplitMix64) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            1 => bytes.truncate(at),
            2 => {
                let to = (at + random.below(40)).min(bytes.len());
                let part = bytes[at..to].to_vec();
                bytes.splice(at..at, part);
            }
            3 => {
                bytes.drain(at..(at + random.below(20)).min(bytes.len()));
            }
            // Numbers are where the harm is: too large, negative, elsewhere.
            _ => {
                let digits = ["9", "-1", "99999999999999999999", "255", "0", "e9", "null"];
                let digit = digits[random.below(digits.len())];
                if let Some(found) = bytes[at..].iter().position(u8::is_ascii_digit) {
                    bytes.splice(at + found..=at + found, digit.bytes());
                }
            }
        }
    }
    bytes
}

#[test]
fn mutated_lines_games_and_positions_never_panic() {
    let seeds: Vec<String> = lines(&testdata().join("hex8_3p.jsonl.gz"))
        .take(60)
        .chain(lines(&testdata().join("victory_cases.jsonl.gz")).take(20))
        .collect();
    let start = State::new("hex8_3p".parse().unwrap(), Options::default());
    let position = serde_json::to_string(&Position::of(&start)).unwrap();
    let mut random = SplitMix64::new(77);
    let mut parsed = 0;
    for round in 0..6000 {
        let text = if round % 3 == 0 { &position } else { &seeds[random.below(seeds.len())] };
        let bytes = mutated(text, &mut random);
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
        parsed += 1;
        let _ = check_line(&value, &|_| Ok(String::new()));
        let _ = check(&value, &Source::default(), &Outcomes::default());
        let _ = Replayer::new().feed(value.clone());
        let read = serde_json::from_value::<Position>(value);
        if let Ok(read) = read
            && let Ok(mut state) = read.state(start.config(), start.options())
        {
            let mut list = Vec::new();
            state.legal_moves(&mut list);
            if let Some(mv) = list.first() {
                state.apply(mv).unwrap();
            }
        }
    }
    assert!(parsed > 500, "{parsed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_readers_of_moves_panic(text in "[PMCKRLOETF NSW0-9,>*x/\\-a-z]{0,60}") {
        let state = State::new("square8_4p".parse().unwrap(), Options::default());
        if let Ok(mv) = state.parse(&text) {
            prop_assert_eq!(state.notate(&mv), text);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_of_records_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
        let mut with_magic = b"RRGR\x01\x0aringrift-1\x07hex8_2p".to_vec();
        with_magic.extend(bytes);
        prop_assert!(decode(&with_magic).is_err());
    }
}

#[test]
fn hostile_published_states_and_moves_are_refused() {
    let texts = [
        "{}",
        "[]",
        r#"{"board":{"type":"hex9"},"players":[]}"#,
        r#"{"board":{"type":"hex8","size":9,"stacks":{"9,9,9":{"rings":[1]}}},"players":[{"playerNumber":1,"ringsInHand":1,"eliminatedRings":0},{"playerNumber":2,"ringsInHand":1,"eliminatedRings":0}],"currentPlayer":1,"currentPhase":"movement"}"#,
        r#"{"board":{"type":"hex8","stacks":[{"rings":[1]}]},"players":[{},{}],"currentPlayer":1,"currentPhase":"movement"}"#,
        r#"{"board":{"type":"hex8"},"players":[{"playerNumber":9,"ringsInHand":1,"eliminatedRings":0},{"playerNumber":2,"ringsInHand":1,"eliminatedRings":0}],"currentPlayer":1,"currentPhase":"movement"}"#,
    ];
    for text in texts {
        let value = serde_json::from_str(text).unwrap();
        assert!(!state(&value).unwrap_err().to_string().is_empty());
    }
    let start = State::new("hex8_2p".parse().unwrap(), Options::default());
    for text in [
        "{}",
        r#"{"type":"place_ring"}"#,
        r#"{"type":"place_ring","to":{"x":99,"y":0}}"#,
        r#"{"type":"place_ring","to":{"x":0,"y":0},"placementCount":99999}"#,
        r#"{"type":"process_line","formedLines":[{"positions":[]}]}"#,
        r#"{"type":"choose_territory_option","disconnectedRegions":[{"spaces":"all"}]}"#,
        r#"{"type":"recovery_slide","from":{"x":0,"y":0},"to":{"x":0,"y":1}}"#,
        r#"{"type":"jump"}"#,
        r#"{"type":"skip_placement","player":7}"#,
    ] {
        let value = serde_json::from_str(text).unwrap();
        assert!(!read_move(&start, &value).unwrap_err().to_string().is_empty(), "{text}");
    }
}

#[test]
fn a_sample_is_the_move_that_the_same_draw_takes_from_the_list() {
    for config in Config::ALL {
        let options = Options { swap_rule: true, ..Options::default() };
        let mut state = State::new(config, options);
        let (mut random, mut list) = (SplitMix64::new(8), Vec::new());
        let most = if config.board.cell_count() < 100 { 2000 } else { 300 };
        while !state.is_over() && state.move_number() < most {
            state.legal_moves(&mut list);
            assert_eq!(state.count_legal_moves(), list.len());
            let sampled = state.sample(&mut random.clone()).unwrap();
            let chosen = &list[random.below(list.len())];
            assert_eq!(&sampled, chosen, "{config}\n{}", state.render());
            state.apply_legal(chosen);
        }
        assert!(!state.is_over() || state.sample(&mut random).is_none());
    }
}
