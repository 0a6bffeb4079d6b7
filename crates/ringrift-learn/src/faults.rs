//! Faults that a predecessor had, each put to the test by its number in docs/learning.md: put it back and its test fails.

use std::path::{Path, PathBuf};

use ringrift_player::{Network, PlayerSpec};
use ringrift_rules::{Config, State};

use crate::games::{self, Games, PlayedGame};
use crate::npz::NpzWriter;
use crate::outcomes::Outcomes;
use crate::progress::Unwatched;
use crate::samples::{self, Samples};
use crate::testing::{config, games as play, samples as make, short};
use crate::{combine, export, selfplay, train};

fn refused<T: std::fmt::Debug>(result: anyhow::Result<T>, sentence: &str) {
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains(sentence), "{error}");
}

fn rewrite(path: &Path, mut change: impl FnMut(&mut PlayedGame)) {
    let mut all: Vec<_> = Games::open(path).unwrap().map(Result::unwrap).collect();
    all.iter_mut().for_each(&mut change);
    games::write(path, &all).unwrap();
}

fn export_of(path: &Path, config: Config) -> anyhow::Result<export::Report> {
    let settings = export::Settings { judged_rows: 10, ..Default::default() };
    let paths = [path.to_owned()];
    export::run(&settings, config, &paths, path.parent().unwrap(), &mut Unwatched)
}

/// Looks at each sample beside the position it was made of, before the move.
fn side_by_side(name: &str, seed: u64, mut look: impl FnMut(&Samples, usize, &games::Visited<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = make(folder.path(), config(name), 4, seed);
    let samples = Samples::read(&path).unwrap();
    let mut row = 0;
    for game in Games::open(&path.with_file_name(selfplay::GAMES_FILE)).unwrap() {
        games::visit(&game.unwrap(), |visited| {
            look(&samples, row, visited);
            row += 1;
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(row, samples.len());
}

fn best(values: &[f32]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]).then(b.cmp(&a))).unwrap()
}

#[test]
fn fault_1_policy_targets_are_inverted_on_one_seats_turns() {
    for name in ["square8_2p", "hex8_3p"] {
        let mut seen = [0; 4];
        side_by_side(name, 1, |samples, row, visited| {
            let policy = samples.policy(row);
            if policy.is_empty() {
                return;
            }
            // Every probability lies at its move, so the best move has the largest one, whoever moves.
            let targets = &samples.policy_values[policy];
            assert_eq!(best(targets), best(visited.policy));
            for (target, found) in targets.iter().zip(visited.policy) {
                assert!((target - found).abs() < 0.02, "{target} is not {found}");
            }
            seen[visited.state.to_move().index()] += 1;
        });
        let seats = usize::from(config(name).players);
        assert!(seen[..seats].iter().all(|rows| *rows > 10), "{seen:?}");
    }
}

#[test]
fn fault_2_samples_of_another_move_encoding_are_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = make(folder.path(), config("square8_2p"), 2, 1);
    let mut header = samples::meta(&path).unwrap();
    header.encoder = "nnue-pv-features-0".to_owned();
    let text = serde_json::to_vec(&header).unwrap();
    let mut npz = NpzWriter::default();
    npz.add("meta", &[text.len()], &text);
    npz.write(&path).unwrap();
    let sentence = "its encoder is \"nnue-pv-features-0\"";
    refused(train::run(&quick(), &path, None, folder.path(), &mut Unwatched), sentence);
    let settings = combine::Settings::default();
    refused(combine::run(&settings, &[path], folder.path(), &mut Unwatched), sentence);
}

/// The other half of fault 2: moves that share what stands for them.
#[test]
fn fault_2_a_move_does_not_come_back_from_its_name() {
    for name in ["square8_2p", "hex8_4p"] {
        side_by_side(name, 2, |samples, row, visited| {
            let policy = samples.policy(row);
            assert!(policy.is_empty() || policy.len() == visited.moves.len());
            for played in visited.moves {
                let text = visited.state.notate(played);
                assert_eq!(visited.state.parse(&text).as_ref(), Ok(played), "{text}");
            }
        });
    }
}

fn quick() -> train::Settings {
    train::Settings { steps: 120, batch: 8, warmup: 1, validation_share: 0.0, ..Default::default() }
}

#[test]
fn fault_3_policies_that_do_not_load_leave_a_training_of_values_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = make(folder.path(), config("hex8_2p"), 3, 1);
    let good = Samples::read(&path).unwrap();
    let train = |path: &Path| train::run(&quick(), path, None, folder.path(), &mut Unwatched);

    let mut mute = good.clone();
    mute.policy_offsets.fill(0);
    mute.policy_rows.clear();
    mute.policy_values.clear();
    mute.write(&path).unwrap();
    refused(train(&path), "no row of the window has a policy target");

    // A policy that gets worse than equal chances, however finite its loss is.
    good.write(&path).unwrap();
    let wild = train::Settings { rate: 1.0, last_rate: 1.0, weight_decay: 0.0, ..quick() };
    refused(
        train::run(&wild, &path, None, folder.path(), &mut Unwatched),
        "the policy does not learn",
    );

    // A file without the arrays.
    let header = serde_json::to_vec(&samples::meta(&path).unwrap()).unwrap();
    let mut npz = NpzWriter::default();
    npz.add("meta", &[header.len()], &header);
    npz.write(&path).unwrap();
    refused(train(&path), "feature_offsets");
}

#[test]
fn fault_6_all_positions_are_of_one_seat_or_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("hex8_2p");
    let check = |seed, keep: &dyn Fn(&games::Visited<'_>, usize) -> bool, sentence: &str| {
        let path = play(folder.path(), config, 6, seed);
        rewrite(&path, |game| {
            let (mut kept, length) = (Vec::new(), game.record.moves.len());
            games::visit(game, |visited| {
                kept.push(keep(visited, length));
                Ok(())
            })
            .unwrap();
            let mut kept = kept.into_iter();
            game.decisions.retain(|_| kept.next().unwrap());
        });
        refused(export_of(&path, config), sentence);
    };
    check(1, &|visited, _| visited.state.to_move().index() == 0, "seat 1 has 1.00 of the rows");
    check(
        2,
        &|visited, length| visited.decision.at * 3 > length * 2,
        "of the rows lie in the first third of their games",
    );
    check(
        3,
        &|visited, _| visited.state.phase() == ringrift_rules::Phase::Movement,
        "of the rows are of the phase",
    );
}

#[test]
fn fault_6_all_positions_are_seen_by_the_loser() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("hex8_2p");
    let path = play(folder.path(), config, 8, 1);
    rewrite(&path, |game| {
        let winner = game.record.result.as_ref().unwrap().winner;
        let (mut kept, mut seats) = (Vec::new(), [0_usize; 2]);
        games::visit(game, |visited| {
            let seat = visited.state.to_move();
            kept.push(seat.number() != winner);
            seats[seat.index()] += 1;
            Ok(())
        })
        .unwrap();
        let mut kept = kept.into_iter();
        game.decisions.retain(|_| kept.next().unwrap());
    });
    // Both seats lose games, so that it is the values that give it away.
    let settings = export::Settings { judged_rows: 10, seat_balance: 1.0, ..Default::default() };
    let out = folder.path();
    refused(
        export::run(&settings, config, &[path], out, &mut Unwatched),
        "the mean result of the player to move is -1.00",
    );
}

#[test]
fn fault_7_one_seat_wins_all_games_that_end_in_one_way() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("hex8_2p");
    let path = play(folder.path(), config, 60, 1);
    let ends = Outcomes::of_files([path.as_path()]).unwrap();
    assert_eq!(ends.games(), 60);
    // As the rules count them.
    let report = export_of(&path, config).unwrap();
    assert_eq!(report.outcomes, ends);

    // Earlier games had other ends: nothing in these games themselves is strange.
    let seat_2: Outcomes =
        serde_json::from_value(serde_json::json!({"ring_elimination": [40, 960]})).unwrap();
    let settings = export::Settings { judged_rows: 10, earlier: seat_2, ..Default::default() };
    let out = folder.path();
    refused(
        export::run(&settings, config, std::slice::from_ref(&path), out, &mut Unwatched),
        "is no chance",
    );
    let settings = export::Settings { earlier: ends, ..settings };
    export::run(&settings, config, &[path], out, &mut Unwatched).unwrap();
}

#[test]
fn fault_8_a_game_that_was_cut_off_counts_as_finished() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("hex8_2p");
    let cut = |seed, change: &dyn Fn(&mut PlayedGame), sentence: &str| {
        let path = play(folder.path(), config, 2, seed);
        rewrite(&path, |game| {
            game.record.moves.truncate(40);
            game.decisions.retain(|decision| decision.at < 40);
            change(game);
        });
        refused(games::check(&path, &mut Unwatched), sentence);
        refused(export_of(&path, config), sentence);
    };
    cut(1, &|game| game.record.result = None, "it has no result");
    cut(2, &|_| {}, "the record says");
    cut(
        3,
        &|game| game.record.result.as_mut().unwrap().reason = "max_moves".to_owned(),
        "the record says",
    );
}

#[test]
fn fault_9_the_phase_is_that_of_the_position_after_the_move() {
    let mut phases = std::collections::BTreeMap::<_, u32>::new();
    side_by_side("hex8_4p", 3, |samples, row, visited| {
        let phase = usize::try_from(samples.phase[row]).unwrap();
        assert_eq!(ringrift_rules::Phase::ALL[phase], visited.state.phase());
        assert!(visited.moves.len() > 1, "a decision has a choice");
        if !samples.policy(row).is_empty() {
            *phases.entry(phase).or_default() += 1;
        }
    });
    // Placements, too, have targets.
    let placing = ringrift_rules::Phase::RingPlacement as usize;
    assert!(phases.get(&placing).is_some_and(|rows| *rows > 10), "{phases:?}");
}

#[test]
fn fault_9_a_stored_game_is_taken_without_replaying_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("hex8_4p");
    let path = play(folder.path(), config, 2, 1);
    rewrite(&path, |game| {
        let digest = &mut game.record.result.as_mut().unwrap().digest;
        let flipped = if digest.starts_with('0') { "1" } else { "0" };
        digest.replace_range(..1, flipped);
    });
    refused(export_of(&path, config), "the record says");
}

#[test]
fn fault_11_what_does_not_load_is_replaced_by_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let hex = config("hex8_2p");
    let network = Network::random(hex, 1).to_bytes();
    let half = &network[..network.len() / 2];
    let run = |network: &[u8], opponents: &[Vec<u8>]| {
        selfplay::run(&short(1, 1), hex, network, opponents, out, &mut Unwatched)
    };
    refused(run(half, &[]), "the network that learns");
    refused(run(&network, &[half.to_vec()]), "an opponent of self-play");
    let foreign = Network::random(config("square8_2p"), 1).to_bytes();
    refused(run(&foreign, &[]), "has config \"square8_2p\"");
    assert!(!out.join(selfplay::GAMES_FILE).exists());

    let player: PlayerSpec = "model:lost@8".parse().unwrap();
    let opened = player.open(hex, |source| anyhow::bail!("there is no {source}"));
    assert!(opened.err().unwrap().to_string().contains("there is no lost"));
    assert!(player.open(hex, |_| Ok(half.to_vec())).is_err());

    // Every game names the network and the search that were used.
    let report = run(&network, &[]).unwrap();
    let game = Games::open(&report.file).unwrap().next().unwrap().unwrap();
    let hash = games::hash(&network);
    assert_eq!(game.record.players, [hash.clone(), hash.clone()]);
    assert_eq!(game.model, hash);
    assert!(game.search.starts_with("gumbel 4 simulations, 2 in fast searches"), "{}", game.search);
}

#[test]
fn fault_12_the_search_sees_another_encoding_than_training_does() {
    let name = "square8_3p";
    let network = Network::random(config(name), 7);
    let mut scratch = ringrift_player::Scratch::default();
    side_by_side(name, 4, |samples, row, visited| {
        let policy = samples.policy(row);
        if policy.is_empty() {
            return;
        }
        // What the search asks, against the row of the file: equal to the bit.
        let state: &State = visited.state;
        let mut said = Vec::new();
        let asked = network.evaluate(state, visited.moves, &mut scratch, &mut said);
        let encoded = ringrift_player::Encoded {
            features: samples.features(row).iter().map(|x| x.cast_unsigned()).collect(),
            mover: u8::try_from(samples.mover[row]).unwrap(),
        };
        let mut logits = Vec::new();
        let rows = &samples.policy_rows[policy];
        let values = network.evaluate_encoded(&encoded, rows, &mut logits);
        let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(values.seats()), bits(asked.seats()));
        assert_eq!(bits(&logits), bits(&said));
    });
}

#[test]
fn fault_19_values_of_several_seats_are_those_of_the_first() {
    for (name, seed) in [("hex8_2p", 5), ("square8_3p", 5), ("square8_4p", 6)] {
        let seats = usize::from(config(name).players);
        let mut met = std::collections::BTreeSet::new();
        let mut winners = Vec::new();
        let folder = tempfile::tempdir().unwrap();
        let path = make(folder.path(), config(name), 12, seed);
        for game in Games::open(&path.with_file_name(selfplay::GAMES_FILE)).unwrap() {
            winners.push(usize::from(game.unwrap().record.result.unwrap().winner) - 1);
        }
        let samples = Samples::read(&path).unwrap();
        assert_eq!(samples.result_values.len(), samples.len() * seats);
        for row in 0..samples.len() {
            let winner = winners[usize::try_from(samples.game[row]).unwrap()];
            let mover = usize::try_from(samples.mover[row]).unwrap();
            let values = &samples.result_values[row * seats..][..seats];
            // The mover comes first, then whoever moves after it.
            assert_eq!(best(values), (winner + seats - mover) % seats, "{name}, row {row}");
            let sum: f32 = values.iter().sum();
            assert!((sum - if seats == 2 { 0.0 } else { 1.0 }).abs() < 1e-6);
            met.insert((winner, mover));
        }
        let won: std::collections::BTreeSet<usize> = winners.into_iter().collect();
        assert!(won.len() > 1 && met.len() >= won.len() * seats, "{name}: {met:?}");
    }
}

#[test]
fn fault_20_samples_of_two_boards_are_merged_and_games_counted_twice() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let (hex, square) = (config("hex8_2p"), config("square8_2p"));
    let files = [make(out, hex, 2, 1), make(out, square, 2, 1)];
    let settings = combine::Settings::default();
    refused(combine::run(&settings, &files, out, &mut Unwatched), "the others are of");
    let game_files: Vec<PathBuf> =
        files.iter().map(|path| path.with_file_name(selfplay::GAMES_FILE)).collect();
    let settings = export::Settings::default();
    refused(export::run(&settings, hex, &game_files, out, &mut Unwatched), "not of hex8_2p");

    // A game that comes again under another name counts once.
    let path = &game_files[0];
    let mut all: Vec<_> = Games::open(path).unwrap().map(Result::unwrap).collect();
    let mut copy = all[0].clone();
    copy.record.id = "another".to_owned();
    all.push(copy);
    games::write(path, &all).unwrap();
    let paths = std::slice::from_ref(path);
    let report = export::run(&settings, hex, paths, out, &mut Unwatched).unwrap();
    assert_eq!((report.games, report.doubled_games), (2, 1));
}

#[test]
fn fault_20_one_position_outweighs_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = make(folder.path(), config("hex8_2p"), 60, 1);
    let seen = |path: &Path| {
        let samples = Samples::read(path).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for row in 0..samples.len() {
            *counts.entry(samples.features(row).to_vec()).or_insert(0_u64) += 1;
        }
        counts
    };
    let before = seen(&file);
    assert!(before.values().any(|count| *count > 3), "a position that many games begin with");
    let settings = combine::Settings { alike: 3, ..Default::default() };
    let window = combine::run(&settings, &[file], folder.path(), &mut Unwatched).unwrap();
    let left = seen(&window.file);
    assert_eq!(left.len(), before.len(), "every position is still there");
    for (position, count) in before {
        assert_eq!(left[&position], count.min(3));
    }
}

#[test]
fn fault_23_a_file_is_used_although_a_byte_of_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    let hex = config("hex8_2p");
    let samples = make(folder.path(), hex, 3, 1);
    let games_file = samples.with_file_name(selfplay::GAMES_FILE);
    let flipped = |path: &Path, use_it: &dyn Fn(&Path) -> bool| {
        let good = fs_err::read(path).unwrap();
        assert!(use_it(path));
        let damaged = path.with_extension("damaged");
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20 {
            let mut bytes = good.clone();
            // Behind the gzip header, whose time and name mean nothing.
            bytes[rng.usize(16..good.len())] ^= 1 << rng.u32(..8);
            fs_err::write(&damaged, bytes).unwrap();
            assert!(!use_it(&damaged), "{}", path.display());
        }
    };
    flipped(&games_file, &|path| games::check(path, &mut Unwatched).is_ok());
    let meant = Samples::read(&samples).unwrap();
    // A few bytes of a zip's index say nothing of the data: then the data is what it was.
    flipped(&samples, &|path| {
        Samples::read(path).is_ok_and(|read| path == samples || read != meant)
    });
}

#[test]
fn every_test_of_a_fault_is_in_the_table_and_the_other_way_round() {
    let words = |text: &str| -> std::collections::BTreeSet<String> {
        let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let tests = text.split(word).filter(|word| {
            let number = word.strip_prefix("fault_").and_then(|rest| rest.split('_').next());
            number.is_some_and(|number| number.parse::<u8>().is_ok())
        });
        tests.map(str::to_owned).collect()
    };
    let sources = [include_str!("faults.rs"), include_str!("session/tests.rs")].concat();
    let table = include_str!("../../../docs/learning.md");
    assert_eq!(words(table), words(&sources));
    assert!(words(table).len() > 15);
}
