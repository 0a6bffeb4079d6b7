use ringrift_rules::{Cell, Config, Options, Phase, SplitMix64, State};

use super::*;

/// Positions with a choice, from random games.
fn positions(config: Config, games: u64, mut look: impl FnMut(&State, &[Move])) {
    for seed in 0..games {
        let mut random = SplitMix64::new(seed);
        let mut state = State::new(config, Options::default());
        let mut moves = Vec::new();
        while !state.is_over() {
            state.legal_moves(&mut moves);
            if moves.len() > 1 {
                look(&state, &moves);
            }
            let choice = random.below(moves.len());
            state.apply_legal(&moves[choice]);
        }
    }
}

fn small_configs() -> impl Iterator<Item = Config> {
    Config::ALL.into_iter().filter(|config| config.board.cell_count() < 100)
}

fn sorted(mut rows: MoveRows) -> MoveRows {
    rows.sort_unstable();
    rows
}

#[test]
fn every_feature_and_row_lies_in_range() {
    for config in small_configs() {
        let encoder = Encoder::new(config);
        let (mut features, mut rows) = (Encoded::default(), Vec::new());
        positions(config, 4, |state, moves| {
            encoder.encode(state, &mut features);
            assert!(features.features.iter().all(|&f| (f as usize) < encoder.features()));
            assert_eq!(usize::from(features.mover), state.to_move().index());
            encoder.encode_moves(state, moves, &mut rows);
            assert_eq!(rows.len(), moves.len());
            let all = rows.as_flattened();
            assert!(all.iter().all(|&row| usize::from(row) < encoder.rows()));
        });
    }
    for config in Config::ALL {
        // Building the tables checks that rows fit 16 bits on the large boards too.
        assert!(Encoder::new(config).features() > 3000);
    }
}

#[test]
fn a_turned_position_has_the_turned_features_and_rows() {
    for config in small_configs().filter(|config| config.players < 4) {
        let encoder = Encoder::new(config);
        let symmetries = config.board.geometry().symmetries();
        let (features, rows) = (encoder.feature_symmetries(), encoder.row_symmetries());
        let (mut here, mut there) = (Encoded::default(), Encoded::default());
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        positions(config, 2, |state, moves| {
            let which = state.move_number() as usize % symmetries.len();
            let symmetry = &symmetries[which];
            let turned = state.permuted(symmetry);
            encoder.encode(state, &mut here);
            encoder.encode(&turned, &mut there);
            let mut expected: Vec<u32> =
                here.features.iter().map(|&f| features[which][f as usize]).collect();
            expected.sort_unstable();
            there.features.sort_unstable();
            assert_eq!(there.features, expected);

            let turned_moves: Vec<Move> =
                moves.iter().map(|m| m.permuted(state, symmetry)).collect();
            encoder.encode_moves(state, moves, &mut mine);
            encoder.encode_moves(&turned, &turned_moves, &mut theirs);
            for (here, there) in mine.iter().zip(&theirs) {
                let expected = here.map(|row| rows[which][usize::from(row)]);
                assert_eq!(sorted(*there), sorted(expected));
            }
        });
    }
}

#[test]
fn tables_are_permutations_and_keep_classes() {
    for config in small_configs() {
        let encoder = Encoder::new(config);
        let classes = encoder.feature_classes();
        for table in encoder.feature_symmetries() {
            let mut seen = vec![false; table.len()];
            for (feature, &image) in table.iter().enumerate() {
                assert_eq!(classes.of[feature], classes.of[image as usize]);
                seen[image as usize] = true;
            }
            assert!(seen.into_iter().all(|seen| seen));
        }
        let classes = encoder.row_classes();
        assert!(classes.of.iter().flatten().all(|&class| class < classes.count));
        for table in encoder.row_symmetries() {
            for (row, &image) in table.iter().enumerate() {
                assert_eq!(classes.of[row], classes.of[usize::from(image)]);
            }
        }
    }
}

#[test]
fn going_round_the_table_ends_at_the_first_view() {
    for config in small_configs() {
        let encoder = Encoder::new(config);
        let next = encoder.view(1);
        for turn in 0..usize::from(config.players) {
            for feature in 0..encoder.features() {
                let mut image = feature;
                for _ in 0..turn {
                    image = next[image] as usize;
                }
                assert_eq!(encoder.view(turn)[feature] as usize, image);
            }
        }
    }
}

#[test]
fn distinct_moves_of_a_position_seldom_share_all_rows() {
    // Rows are factored, so some moves (for example two paying stacks alike in place) may coincide; if many did, the policy
    // could not tell them apart.
    let (mut all, mut shared) = (0_u32, 0_u32);
    let config = "square8_2p".parse().unwrap();
    let encoder = Encoder::new(config);
    let mut rows = Vec::new();
    positions(config, 8, |state, moves| {
        encoder.encode_moves(state, moves, &mut rows);
        rows.sort_unstable();
        all += u32::try_from(rows.len()).unwrap();
        shared += u32::try_from(rows.windows(2).filter(|pair| pair[0] == pair[1]).count()).unwrap();
    });
    assert!(shared * 100 < all, "{shared} of {all}");
}

#[test]
fn what_a_stack_can_do_is_what_the_legal_list_says() {
    let (mut blocked, mut attacking) = (0, 0);
    for name in ["hex8_2p", "square8_3p"] {
        let config = name.parse().unwrap();
        let translation = Encoder::new(config);
        let mut encoded = Encoded::default();
        positions(config, 6, |state, moves| {
            if state.phase() != Phase::Movement || state.must_move().is_some() {
                return;
            }
            translation.encode(state, &mut encoded);
            let layout = &translation.features;
            for cell in state.geometry().cells() {
                let Cell::Stack(stack) = state.cell(cell) else { continue };
                if stack.controller() != state.to_move() {
                    continue;
                }
                // The mover's own stacks have owner 0, so their facts begin where the block does.
                let base = cell.index() * layout.stride() + layout.tactics();
                let is_on = |fact: usize| encoded.features.contains(&features::number(base + fact));
                let from_here = || moves.iter().filter(|played| played.from() == Some(cell));
                assert_eq!(is_on(2), from_here().count() == 0, "{state:?}");
                let captures = from_here().any(|played| {
                    let target = played.target().map(|target| state.cell(target));
                    matches!(target, Some(Cell::Stack(s)) if s.controller() != state.to_move())
                });
                assert_eq!(is_on(1), captures, "{state:?}");
                blocked += u32::from(is_on(2));
                attacking += u32::from(is_on(1));
            }
        });
    }
    assert!(blocked > 20 && attacking > 20, "{blocked} {attacking}");
}
