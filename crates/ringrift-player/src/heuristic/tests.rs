use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use ringrift_rules::json::Position;
use ringrift_rules::vectors::{Decision, Verdict, check_line};
use ringrift_rules::{Config, Options};
use serde_json::{Value, json};

use super::*;

/// The recorded decisions of the reference: testdata/rules/README.md.
fn recorded() -> Vec<Value> {
    let path = "../../testdata/rules/heuristic_ref.jsonl.gz";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut text = String::new();
    let mut gzip = flate2::read::GzDecoder::new(fs_err::File::open(path).unwrap());
    gzip.read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_recorded_number_of_the_reference_comes_out() {
    let lines = recorded();
    for line in &lines {
        let one = check_line(line, &check_heuristic).unwrap();
        assert_eq!(one.verdict, Verdict::Passed, "{one:?}");
    }
    assert_eq!(lines.len(), 523);
}

#[test]
fn a_number_that_differs_is_named() {
    let line = &recorded()[0];
    let check = |change: &dyn Fn(&mut Value), part: &str| {
        let mut line = line.clone();
        change(&mut line);
        let verdict = check_line(&line, &check_heuristic).unwrap().verdict;
        let Verdict::Failed { reason, .. } = verdict else { panic!("{part}: it passed") };
        assert!(reason.contains(part), "{reason}");
    };
    let more = |value: &Value| (value.as_f64().unwrap() + 1e-7).into();
    check(&|line| line["features"]["mobility"] = more(&line["features"]["mobility"]), "mobility");
    check(&|line| line["value"] = more(&line["value"]), "value: recorded");
    check(
        &|line| line["moves"][3]["value"] = more(&line["moves"][3]["value"]),
        "value of M 0,1>0,0",
    );
    check(&|line| line["best"] = json!([line["moves"][0]["m"]]), "best moves: recorded C 4,3");
    check(&|line| line["features"]["luck"] = 0.into(), "luck is no feature");
}

/// Looks at every recorded position of two players from both seats.
fn from_both_seats(mut look: impl FnMut(&State, [[f64; 21]; 2], [f64; 2])) {
    let mut heuristic = Heuristic::default();
    let mut positions = 0;
    for line in recorded().iter().filter(|line| line["players"] == 2) {
        let judge = |decision: &Decision| {
            Ok(serde_json::to_string(&Position::of(&decision.state)).unwrap())
        };
        let position = check_line(line, &judge).unwrap().note;
        let position: Position = serde_json::from_str(&position).unwrap();
        let options: Options = serde_json::from_value(line["options"].clone()).unwrap();
        let config: Config = line["cfg"].as_str().unwrap().parse().unwrap();
        let state = position.state(config, options).unwrap();
        let seats = [Seat::ALL[0], Seat::ALL[1]];
        let features = seats.map(|seat| heuristic.features(&state, seat));
        look(&state, features, seats.map(|seat| heuristic.value(&state, seat)));
        positions += 1;
    }
    assert_eq!(positions, 423);
}

#[test]
fn for_two_players_both_values_add_up_to_what_section_5_says() {
    from_both_seats(|state, _, [one, two]| {
        let mut survey = Survey::default();
        survey.look_at(state);
        let bases = victory::bases(&survey, state);
        let eliminated: u16 = [0, 1].map(|seat| state.eliminated(Seat::ALL[seat])).iter().sum();
        let wanted = 12.0 * f64::from(eliminated) - 6.0 * (bases[0] - bases[1]).abs();
        assert!((one + two - wanted).abs() < 1e-9, "{one} {two} {wanted}");
    });
}

#[test]
fn for_two_players_features_are_opposites_but_for_the_named_ones() {
    let opposite = |name: &'static str| match name {
        "vulnerability" => Some("overtake_potential"),
        "overtake_potential" => Some("vulnerability"),
        "eliminated_rings" | "opponent_victory_threat" => None,
        other => Some(other),
    };
    let index = |name: &str| HEURISTIC_FEATURES.iter().position(|known| *known == name).unwrap();
    from_both_seats(|_, [one, two], _| {
        for name in HEURISTIC_FEATURES {
            if let Some(other) = opposite(name) {
                let sum = one[index(name)] + two[index(other)];
                assert!(sum.abs() < 1e-9, "{name}: {one:?} {two:?}");
            }
        }
    });
}

/// A position at the start of a turn of seat 1; what is absent is empty or zero.
fn position(config: &str, fields: &Value) -> State {
    let config: Config = config.parse().unwrap();
    let mut text = json!({
        "pl": 1, "h": vec![0; config.players.into()], "e": vec![0; config.players.into()],
        "board": { "stacks": {}, "markers": {}, "collapsed": {} },
    });
    for (field, value) in fields.as_object().unwrap() {
        match field.as_str() {
            "stacks" | "markers" | "collapsed" => text["board"][field] = value.clone(),
            _ => text[field] = value.clone(),
        }
    }
    let position: Position = serde_json::from_value(text).unwrap();
    position.state(config, Options::default()).unwrap()
}

/// One feature of a position, as seat 1 sees it.
fn check(config: &str, fields: &Value, feature: &str, wanted: f64) {
    let state = position(config, fields);
    let index = HEURISTIC_FEATURES.iter().position(|name| *name == feature).unwrap();
    let found = Heuristic::default().features(&state, Seat::ALL[0])[index];
    assert!((found - wanted).abs() < 1e-9, "{config} {feature}: {found}, not {wanted}");
}

#[test]
fn hex8_has_neither_neighbours_nor_lines() {
    let fields = json!({
        "stacks": { "0,0,0": [1, 1], "1,0,-1": [2], "-3,0,3": [1] },
        "markers": { "0,2,-2": 1, "1,2,-3": 1, "2,2,-4": 1 },
    });
    // On the other hexagon the same cells touch, and the same markers are a row.
    for (feature, hex8, hexagonal) in [
        ("opponent_threats", 0.0, 3.0),
        ("mobility", 0.0, 4.0 * (6.0 + 6.0 - 5.0)),
        ("stack_mobility", -20.0, 4.0 * (6.0 + 6.0 - 5.0)),
        ("line_potential", 0.0, 7.0 * (3.0 + 1.0 + 1.0 + 3.0)),
        ("line_connectivity", 0.0, 6.0 * 4.0),
        // Everybody is stuck: a = 0, and with no hand both risks are 2.
        ("forced_elimination_risk", 0.0, 0.0),
        // The view of stacks and the distances to them work on both.
        ("overtake_potential", 8.0, 8.0),
    ] {
        check("hex8_2p", &fields, feature, hex8);
        check("hexagonal_2p", &fields, feature, hexagonal);
    }
}

#[test]
fn a_stack_looks_through_markers_and_collapsed_cells_but_not_through_stacks() {
    let fields = json!({
        "stacks": { "0,0": [1], "5,5": [2, 2, 2], "0,4": [1], "0,7": [2, 2] },
        "markers": { "2,2": 2 }, "collapsed": { "3,3": 1 },
    });
    // 5,5 is seen from 0,0 over the diagonal; 0,7 only from 0,4.
    check("square8_2p", &fields, "vulnerability", -8.0 * (2.0 + 1.0));
}

#[test]
fn neighbours_count_whatever_the_height_of_a_stack() {
    // Six rings must move six cells; three neighbours are open all the same.
    let fields = json!({ "stacks": { "0,0": [1, 1, 1, 1, 1, 1] } });
    check("square8_2p", &fields, "mobility", 4.0 * 3.0);
}

#[test]
fn only_the_players_own_eliminated_rings_count() {
    check("square8_2p", &json!({ "e": [3, 9] }), "eliminated_rings", 36.0);
}

#[test]
fn half_a_stack_on_average_is_better_than_none() {
    // Opponents 2 and 3 have one stack together: 10 (1 - 0.5) + 5 (1 - 0.5) + 6 (1 - 0.5) - 10 - 2 * 0.5.
    let fields = json!({ "stacks": { "0,0": [1], "7,7": [2] } });
    check("square8_3p", &fields, "stack_control", 10.5 - 10.0 - 1.0);
    // No opponent has any: -(-50).
    let fields = json!({ "stacks": { "0,0": [1] } });
    check("square8_3p", &fields, "stack_control", 21.0 - 10.0 + 50.0);
}

#[test]
fn a_stack_above_five_rings_grows_by_tenths() {
    let fields = json!({ "stacks": { "0,0": [1, 2, 2, 2, 2, 2, 2] } });
    check("square8_2p", &fields, "stack_control", 10.0 + 5.0 * 5.2 + 6.0 - 10.0 + 50.0);
}

#[test]
fn territory_is_measured_against_half_of_the_board_with_four_players_too() {
    // 17 cells win under the rules; b is 50/30 + 50/16 all the same, against 50/30 + 50/33.
    let cells: serde_json::Map<_, _> =
        (0..17).map(|at| (format!("{},{}", at / 8, at % 8), json!(1))).collect();
    let fields = json!({ "collapsed": cells });
    check("square8_4p", &fields, "victory_proximity", 20.0 * (50.0 / 16.0 - 50.0 / 33.0));
}

#[test]
fn rounds_as_the_only_one_able_to_act_outweigh_everything() {
    let base = 50.0 / 18.0 + 50.0 / 33.0;
    for (streak, worth) in [(0, base), (1, 945.0), (2, 990.0), (3, 1000.0)] {
        let fields = json!({ "lps": { "first": 1, "mask": {}, "cand": 1, "streak": streak } });
        check("square8_2p", &fields, "victory_proximity", 20.0 * (worth - base));
        let fields = json!({ "lps": { "first": 1, "mask": {}, "cand": 2, "streak": streak } });
        check("square8_2p", &fields, "opponent_victory_threat", -6.0 * (worth - base));
    }
}

#[test]
fn a_threshold_that_is_reached_in_mid_turn_is_no_won_game() {
    let fields = json!({ "e": [18, 0], "stacks": { "0,0": [1], "7,7": [2] } });
    let base = 50.0 / 18.0 + 50.0 / 33.0;
    check("square8_2p", &fields, "victory_proximity", 20.0 * (1000.0 - base));
    let mut state = position("square8_2p", &fields);
    let mut heuristic = Heuristic::default();
    assert!(heuristic.value(&state, Seat::ALL[0]) < 25_000.0);
    let mut moves = Vec::new();
    while !state.is_over() {
        state.legal_moves(&mut moves);
        state.apply_legal(&moves[0]);
    }
    let [won, lost] = [0, 1].map(|seat| heuristic.value(&state, Seat::ALL[seat]));
    assert!((won - 100_000.0).abs() + (lost + 100_000.0).abs() < 1e-9, "{won} {lost}");
}

#[test]
fn a_row_of_four_is_read_from_both_ends() {
    let markers = json!({ "markers": { "0,0": 1, "1,0": 1, "2,0": 1, "3,0": 1 } });
    check("square8_2p", &markers, "line_potential", 7.0 * 24.0);
    let gap = json!({ "markers": { "0,0": 1, "2,0": 1 } });
    check("square8_2p", &gap, "line_connectivity", 6.0 * 1.0);
    let filled = json!({ "markers": { "0,0": 1, "2,0": 1 }, "collapsed": { "1,0": 1 } });
    check("square8_2p", &filled, "line_connectivity", 0.0);
}

#[test]
fn closure_looks_at_the_first_ten_markers_by_x_then_y() {
    // Ten markers in two columns, and one far away that only counts as a marker.
    let mut markers: serde_json::Map<_, _> =
        (0..10).map(|at| (format!("{},{}", at / 5, at % 5), json!(1))).collect();
    markers.insert("7,7".to_owned(), json!(1));
    // Mean distance: |dx| is 1 for 25 of 45 pairs; |dy| averages over pairs of the multiset 0..5 twice, 80 in all.
    let mean = (25.0 + 80.0) / 45.0;
    let fields = json!({ "markers": markers });
    check("square8_2p", &fields, "territory_closure", 10.0 * (10.0 / mean + 5.5));
}

#[test]
fn a_marker_is_in_danger_up_to_two_steps_along_the_sides() {
    let near = |config: &str, at: &str, danger: f64| {
        let marker = if config.starts_with("hex") { "0,0,0" } else { "3,3" };
        let fields = json!({ "markers": { marker: 1 }, "stacks": { at: [2] } });
        check(config, &fields, "territory_safety", -5.0 * danger);
    };
    for (at, danger) in [("3,4", 2.0), ("4,4", 1.0), ("3,5", 1.0), ("4,5", 0.0), ("5,5", 0.0)] {
        near("square8_2p", at, danger);
    }
    near("hex8_2p", "1,0,-1", 1.0);
    near("hex8_2p", "2,0,-2", 0.0);
}

#[test]
fn buried_rings_count_under_other_caps_only_and_recovery_asks_for_a_slide() {
    let buried = json!({ "stacks": { "0,0": [2, 1, 1], "7,7": [1, 2, 1] } });
    check("square8_2p", &buried, "recovery_potential", 0.9 * (2.0 - 1.0));
    let slides = json!({ "stacks": { "7,7": [2, 1] }, "markers": { "0,0": 1 } });
    check(
        "hex8_2p",
        &json!({ "stacks": { "0,0,0": [2, 1] }, "markers": { "3,0,-3": 1 } }),
        "recovery_potential",
        14.0,
    );
    check("square8_2p", &slides, "recovery_potential", 14.0);
    let stuck = json!({
        "stacks": { "7,7": [2, 1] }, "markers": { "0,0": 1 },
        "collapsed": { "0,1": 2, "1,0": 2, "1,1": 2 },
    });
    check("square8_2p", &stuck, "recovery_potential", 8.0);
}

#[test]
fn opponents_without_an_action_are_an_advantage_among_three() {
    let others = json!({ "stacks": { "0,0": [1], "7,7": [2] } });
    check("square8_3p", &others, "lps_action_advantage", 2.0 * 0.5);
    let stuck = json!({ "stacks": { "7,7": [2] } });
    check("square8_3p", &stuck, "lps_action_advantage", -2.0);
    check("square8_2p", &stuck, "lps_action_advantage", 0.0);
}

#[test]
fn the_leader_among_the_opponents_is_a_threat_from_three_players_on() {
    let ahead = json!({ "e": [0, 6, 2] });
    let base = |rings: f64| 50.0 / rings + 50.0 / 33.0;
    check("square8_3p", &ahead, "multi_leader_threat", -2.0 * (base(18.0) - base(22.0)));
}

#[test]
fn a_swap_is_judged_from_the_other_seat() {
    let config: Config = "square8_2p".parse().unwrap();
    let mut state = State::new(config, Options { swap_rule: true, ..Options::default() });
    let mut moves = Vec::new();
    while state.to_move() == Seat::ALL[0] {
        state.legal_moves(&mut moves);
        state.apply_legal(&moves[0]);
    }
    state.legal_moves(&mut moves);
    let swap = moves.iter().position(|played| *played == Move::SwapSides).unwrap();
    let (mut heuristic, mut values) = (Heuristic::default(), Vec::new());
    heuristic.move_values(&state, &moves, &mut values);
    let mut after = state.clone();
    after.apply_legal(&moves[swap]);
    let seats = [0, 1].map(|seat| heuristic.value(&after, Seat::ALL[seat]));
    assert_eq!(values[swap].to_bits(), seats[0].to_bits());
    assert!((seats[0] - seats[1]).abs() > 1.0, "{seats:?}");
}

#[test]
fn among_the_best_moves_each_is_chosen_sometimes_and_no_other() {
    let state = State::new("square8_2p".parse().unwrap(), Options::default());
    let mut moves = Vec::new();
    state.legal_moves(&mut moves);
    let (mut heuristic, mut values) = (Heuristic::default(), Vec::new());
    heuristic.move_values(&state, &moves, &mut values);
    let wanted: BTreeSet<usize> = best(&values).collect();
    assert!((2..moves.len()).contains(&wanted.len()), "{wanted:?}");
    let mut rng = fastrand::Rng::with_seed(1);
    let chosen: BTreeSet<usize> =
        (0..40 * wanted.len()).map(|_| heuristic.choose(&state, &moves, &mut rng)).collect();
    assert_eq!(chosen, wanted);
    assert_eq!(best(&[1.0, 2.0 - 0.5e-6, 2.0, 2.0 - 2e-6]).collect::<Vec<_>>(), [1, 2]);
}
