use std::path::Path;

use ringrift_player::{Encoded, Network};

use super::*;
use crate::games::{self, Games};
use crate::progress::Unwatched;
use crate::testing::{StopAfter, config, games as play, samples as make, short};
use crate::{combine, export, selfplay};

fn refused<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.unwrap_err())
}

fn rewrite(path: &Path, change: impl Fn(&mut games::PlayedGame)) {
    let mut all: Vec<_> = Games::open(path).unwrap().map(Result::unwrap).collect();
    all.iter_mut().for_each(change);
    games::write(path, &all).unwrap();
}

#[test]
fn a_row_holds_exactly_what_the_search_saw() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hex8_2p", "square8_2p", "square8_3p"] {
        let config = config(name);
        let path = play(folder.path(), config, 3, 1);
        let settings = export::Settings::default();
        let report = export::run(
            &settings,
            config,
            std::slice::from_ref(&path),
            folder.path(),
            &mut Unwatched,
        )
        .unwrap();
        let samples = Samples::read(&report.file).unwrap();
        let encoder = Encoder::new(config);
        let (mut seen, mut rows) = (Encoded::default(), Vec::new());
        let mut index = 0;
        for game in Games::open(&path).unwrap() {
            let game = game.unwrap();
            let winner = usize::from(game.record.result.as_ref().unwrap().winner) - 1;
            games::visit(&game, |visited| {
                encoder.encode(visited.state, &mut seen);
                let features: Vec<u32> =
                    samples.features(index).iter().map(|x| x.cast_unsigned()).collect();
                assert_eq!(features, seen.features);
                encoder.encode_moves(visited.state, visited.moves, &mut rows);
                let policy = samples.policy(index);
                if visited.decision.policy.is_empty() {
                    assert!(policy.is_empty());
                } else {
                    assert_eq!(samples.policy_rows[policy.clone()], rows);
                    // The most probable move is the same one, whoever moves.
                    let targets = &samples.policy_values[policy];
                    let best = |values: &[f32]| {
                        let most = values.iter().copied().fold(0.0, f32::max);
                        values.iter().position(|x| x.to_bits() == most.to_bits())
                    };
                    assert_eq!(best(targets), best(visited.policy));
                }
                let seats = samples.seats();
                let mover = visited.state.to_move().index();
                for view in 0..seats {
                    let seat = (mover + view) % seats;
                    let lost = if seats == 2 { -1.0 } else { 0.0 };
                    let expected = if seat == winner { 1.0 } else { lost };
                    let at = index * seats + view;
                    assert!((samples.result_values[at] - expected).abs() < 1e-9);
                    let opinion = visited.decision.values[seat];
                    assert!((samples.search_values[at] - opinion).abs() < 1e-9);
                }
                index += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(index as u64, report.rows);
        assert!(report.policies > 0 && report.policies < report.rows);
    }
}

#[test]
fn value_targets_lie_between_the_opinion_and_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let samples = Samples::read(&make(folder.path(), config("hex8_2p"), 3, 1)).unwrap();
    assert_eq!(samples.value_targets(1.0), samples.result_values);
    let targets = samples.value_targets(0.0);
    for rows in samples.rows_by_game() {
        let (last, others) = rows.split_last().unwrap();
        assert_eq!(targets[last * 2..][..2], samples.result_values[last * 2..][..2]);
        for row in others {
            assert_eq!(targets[row * 2..][..2], samples.search_values[row * 2..][..2]);
        }
    }
    for pair in samples.value_targets(0.9).as_chunks::<2>().0 {
        assert!((pair[0] + pair[1]).abs() < 1e-5, "{pair:?}");
    }
}

#[test]
fn equal_seeds_give_equal_files_and_other_seeds_others() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, seed| {
        let folder = folder.path().join(name);
        let path = make(&folder, config("hex8_2p"), 3, seed);
        let games = fs_err::read(path.with_file_name(selfplay::GAMES_FILE)).unwrap();
        (games, fs_err::read(path).unwrap())
    };
    let first = read("a", 1);
    assert_eq!(first, read("b", 1));
    assert_ne!(first, read("c", 2));
}

#[test]
fn a_stop_keeps_the_finished_games() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("hex8_2p");
    let network = Network::random(config, 1).to_bytes();
    let mut progress = StopAfter(3);
    let settings = short(50, 4);
    let report =
        selfplay::run(&settings, config, &network, &[], folder.path(), &mut progress).unwrap();
    assert!(report.stopped && report.games < 50);
    let checked = games::check(&report.file, &mut Unwatched).unwrap();
    assert_eq!((checked.games, checked.moves), (report.games, report.moves));
    assert_eq!(checked.positions, report.positions);
    assert_eq!(report.wins.iter().sum::<u64>(), report.games);
}

#[test]
fn an_opponent_takes_a_seat_and_gives_no_samples() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("square8_2p");
    let (learner, other) =
        (Network::random(config, 1).to_bytes(), Network::random(config, 2).to_bytes());
    let settings = selfplay::Settings { opponent_share: 1.0, ..short(4, 1) };
    let out = folder.path();
    let report = selfplay::run(
        &settings,
        config,
        &learner,
        std::slice::from_ref(&other),
        out,
        &mut Unwatched,
    )
    .unwrap();
    for game in Games::open(&report.file).unwrap() {
        let game = game.unwrap();
        assert_eq!(game.model, games::hash(&learner));
        let taken: Vec<bool> =
            game.record.players.iter().map(|name| *name == games::hash(&other)).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
        games::visit(&game, |visited| {
            assert!(!taken[visited.state.to_move().index()]);
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_changed_game_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("hex8_2p");
    let fault = |seed, change: &dyn Fn(&mut games::PlayedGame)| {
        let path = play(folder.path(), config, 2, seed);
        rewrite(&path, |game| {
            if game.record.id.ends_with("-1") {
                change(game);
            }
        });
        let text = refused(games::check(&path, &mut Unwatched));
        let settings = export::Settings::default();
        let paths = std::slice::from_ref(&path);
        let exported = export::run(&settings, config, paths, folder.path(), &mut Unwatched);
        assert!(refused(exported).contains("export "));
        assert!(text.contains(&format!("hex8_2p-{seed}-1")), "{text}");
        text
    };
    let text = fault(1, &|game| game.record.moves[8] = "P 9,9 1".to_owned());
    assert!(text.contains("move 9"), "{text}");
    let wrong_end = fault(2, &|game| {
        let result = game.record.result.as_mut().unwrap();
        result.winner = 3 - result.winner;
    });
    assert!(wrong_end.contains("the record says"), "{wrong_end}");
    let text = fault(3, &|game| {
        let decision = game.decisions.iter_mut().find(|d| !d.policy.is_empty()).unwrap();
        decision.policy[0].0 = "SW".to_owned();
    });
    assert!(text.contains("the policy names \"SW\", which is illegal"), "{text}");
    let text = fault(4, &|game| game.decisions[3].at = 0);
    assert!(text.contains("not in order"), "{text}");
    let text = fault(5, &|game| game.decisions[2].values = vec![3.0, -3.0]);
    assert!(text.contains("no values of a position"), "{text}");
    let text = fault(6, &|game| game.record.result = None);
    assert!(text.contains("the record says None"), "{text}");
}

#[test]
fn a_window_refuses_what_does_not_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let hex = config("hex8_2p");
    let (one, two) = (make(out, hex, 3, 1), make(out, hex, 3, 2));
    let square = make(out, config("square8_2p"), 2, 1);
    let combine = |inputs: &[&std::path::PathBuf], rows| {
        let inputs: Vec<_> = inputs.iter().map(|path| (*path).clone()).collect();
        combine::run(
            &combine::Settings { rows, ..Default::default() },
            &inputs,
            out,
            &mut Unwatched,
        )
    };
    assert!(refused(combine(&[&one, &square], 1000)).contains("of hex8_2p"));
    assert!(refused(combine(&[&one, &two, &one], 9999)).contains("repeats the games"));
    assert!(refused(combine(&[], 1000)).contains("no sample file"));

    let whole = combine(&[&one, &two], 100_000).unwrap();
    let (first, second) = (Samples::read(&one).unwrap(), Samples::read(&two).unwrap());
    assert_eq!(whole.rows, (first.len() + second.len()) as u64);
    let window = Samples::read(&whole.file).unwrap();
    assert_eq!(window.features[..first.features.len()], first.features);
    assert_eq!(window.policy_rows[first.policy_rows.len()..], second.policy_rows);
    assert_eq!(window.sources, [first.sources.clone(), second.sources.clone()].concat());

    // A small window has the newest whole games.
    let small = combine(&[&one, &two], second.len() as u64 + 1).unwrap();
    assert_eq!((small.rows, small.games), (second.len() as u64, 3));
    assert_eq!(Samples::read(&small.file).unwrap().result_values, second.result_values);

    // The same games under another source are found by their moves.
    let mut copy = first.clone();
    copy.sources = vec!["elsewhere".to_owned()];
    let copied = out.join("copy.npz");
    copy.write(&copied).unwrap();
    let report = combine(&[&one, &copied], 100_000).unwrap();
    assert_eq!((report.games, report.doubled_games), (3, 3));
}

#[test]
fn a_sample_file_that_would_poison_training_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = make(folder.path(), config("hex8_2p"), 2, 1);
    let good = Samples::read(&path).unwrap();
    let check = |change: &dyn Fn(&mut Samples), sentence: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        bad.write(&path).unwrap();
        let text = refused(Samples::read(&path));
        assert!(text.contains(sentence) && text.contains("samples.npz"), "{text}");
    };
    check(&|s| s.features[5] = 1_000_000, "feature 1000000 does not exist");
    check(&|s| s.features[5] = -1, "feature -1 does not exist");
    check(&|s| s.policy_rows[0][3] = u16::MAX, "move row 65535 does not exist");
    check(&|s| s.search_values[1] = f32::NAN, "NaN is no value");
    check(&|s| s.policy_values[0] += 0.5, "has no proper policy");
    check(&|s| s.mover[2] = 2, "mover has the impossible value 2");
    check(&|s| s.game[0] = 9, "game 9 does not exist");
    check(&|s| s.game_reasons[1] = 6, "game_reasons has the impossible value 6");
    check(&|s| s.game_territory[2] = 1.5, "1.5 is no share");
    check(&|s| s.feature_offsets[1] = -4, "feature_offsets does not fit");
    good.write(&path).unwrap();
    assert_eq!(Samples::read(&path).unwrap(), good);
    assert_eq!(meta(&path).unwrap().rows, good.len() as u64);
}

#[test]
fn one_sided_data_is_reported_and_stops_the_export() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("hex8_2p");
    let path = play(folder.path(), config, 4, 1);
    // Only the decisions of seat 1 are left.
    rewrite(&path, |game| {
        let mut first = Vec::new();
        games::visit(game, |visited| {
            first.push(visited.state.to_move().index() == 0);
            Ok(())
        })
        .unwrap();
        let mut keep = first.into_iter();
        game.decisions.retain(|_| keep.next().unwrap());
    });
    let export = |judged_rows| {
        let settings = export::Settings { judged_rows, ..Default::default() };
        let paths = std::slice::from_ref(&path);
        export::run(&settings, config, paths, folder.path(), &mut Unwatched)
    };
    let text = refused(export(10));
    assert!(text.contains("seat 1 has 1.00 of the rows"), "{text}");
    // A handful of rows is not judged, but described.
    let report = export(100_000).unwrap();
    assert_eq!(report.rows_per_seat[1], 0);
    assert_eq!(report.thirds.iter().sum::<u64>(), report.rows);
    assert_eq!(report.phases.values().sum::<u64>(), report.rows);
}

#[test]
fn a_trainer_without_the_encoder_finds_its_tables_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hex8_2p", "square8_3p"] {
        let path = make(folder.path(), config(name), 2, 1);
        let encoder = Encoder::new(config(name));
        let mut npz = NpzReader::open(&path).unwrap();
        let turned = |turns: &[i32]| -> Vec<i64> {
            (0..).zip(turns).map(|(from, turn)| from + i64::from(*turn)).collect()
        };
        let (shape, turns) = npz.read::<i32>("feature_turns").unwrap();
        let tables = encoder.feature_symmetries();
        assert_eq!(shape, [tables.len(), encoder.features()]);
        for (found, expected) in turns.chunks(encoder.features()).zip(&tables) {
            assert!(turned(found).into_iter().eq(expected.iter().map(|to| i64::from(*to))));
        }
        let (shape, turns) = npz.read::<i32>("row_turns").unwrap();
        let tables = encoder.row_symmetries();
        assert_eq!(shape, [tables.len(), encoder.rows()]);
        for (found, expected) in turns.chunks(encoder.rows()).zip(&tables) {
            assert!(turned(found).into_iter().eq(expected.iter().map(|to| i64::from(*to))));
        }
        for (array, classes) in
            [("feature_classes", encoder.feature_classes()), ("row_classes", encoder.row_classes())]
        {
            let found = npz.read::<i32>(array).unwrap().1;
            let found = found.iter().map(|class| usize::try_from(*class).ok());
            assert!(found.eq(classes.of.iter().copied()), "{name} {array}");
        }
    }
}
