use ringrift_player::PlayerSpec;
use ringrift_rules::State;
use ringrift_rules::record::replay;

use super::*;
use crate::progress::Unwatched;

fn open(text: &str, config: Config) -> Box<dyn Player> {
    let spec: PlayerSpec = text.parse().unwrap();
    spec.open(config, |_| anyhow::bail!("no models here")).unwrap()
}

fn fixed(pairs: u32) -> Settings {
    Settings { pairs, test: None, seed: 5 }
}

#[test]
fn both_games_of_a_pair_share_the_opening_and_exchange_the_seats() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hex8_2p", "square8_3p", "hex8_4p"] {
        let config: Config = name.parse().unwrap();
        let (mut a, mut b) = (open("rollout:1", config), open("random", config));
        let settings = fixed(3);
        let report =
            run(&settings, config, &mut *a, &mut *b, Some(folder.path()), &mut Unwatched).unwrap();
        assert_eq!((report.games, report.wins + report.losses), (6, 6));
        assert_eq!(report.pairs.iter().sum::<u64>(), 3);
        assert_eq!(report.wins, report.pairs[1] + 2 * report.pairs[2]);
        let records = records(report.file.as_ref().unwrap());
        assert_eq!(records.len(), 6);
        let book = book(config, 3, settings.seed).unwrap();
        for (pair, opening) in records.chunks(2).zip(&book) {
            for record in pair {
                replay(record).unwrap();
                assert!(record.moves.starts_with(&opening.moves));
            }
            for (first, second) in pair[0].players.iter().zip(&pair[1].players) {
                assert_ne!(first, second);
            }
        }
    }
}

#[test]
fn a_matchs_file_replays_and_a_changed_move_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config: Config = "hex8_2p".parse().unwrap();
    let (mut a, mut b) = (open("random", config), open("random", config));
    let report =
        run(&fixed(2), config, &mut *a, &mut *b, Some(folder.path()), &mut Unwatched).unwrap();
    let file = report.file.unwrap();
    let checked = crate::games::check_match(&file, &mut Unwatched).unwrap();
    assert_eq!((checked.games, checked.moves), (4, report.moves));
    let mut games = records(&file);
    games[2].moves.truncate(9);
    crate::games::write_lines(&file, &games).unwrap();
    let fault = format!("{:#}", crate::games::check_match(&file, &mut Unwatched).unwrap_err());
    assert!(fault.contains(&games[2].id), "{fault}");
}

fn records(path: &Path) -> Vec<GameRecord> {
    let mut text = String::new();
    let mut gzip = flate2::read::GzDecoder::new(fs_err::File::open(path).unwrap());
    std::io::Read::read_to_string(&mut gzip, &mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_much_stronger_player_is_found_before_all_pairs_are_played() {
    let config: Config = "square8_2p".parse().unwrap();
    let (mut a, mut b) = (open("rollout:16", config), open("random", config));
    let settings = Settings { pairs: 60, ..Settings::default() };
    let report = run(&settings, config, &mut *a, &mut *b, None, &mut Unwatched).unwrap();
    assert_eq!(report.decision, Some(Decision::H1));
    assert!(report.games < 120, "{report:?}");
    assert!(report.elo_low <= report.elo && report.elo <= report.elo_high);
    // The same match seen from the other side.
    let mirrored = run(&fixed(8), config, &mut *b, &mut *a, None, &mut Unwatched).unwrap();
    assert!(mirrored.score < 0.5);
}

#[test]
fn equal_seeds_give_equal_matches_and_a_stop_ends_them() {
    let config: Config = "hex8_2p".parse().unwrap();
    let (mut a, mut b) = (open("rollout:2", config), open("random", config));
    let first = run(&fixed(4), config, &mut *a, &mut *b, None, &mut Unwatched).unwrap();
    let second = run(&fixed(4), config, &mut *a, &mut *b, None, &mut Unwatched).unwrap();
    assert_eq!(first, second);

    let mut progress = crate::testing::StopAfter(2);
    let report = run(&fixed(4), config, &mut *a, &mut *b, None, &mut progress).unwrap();
    assert_eq!((report.games, report.stopped), (4, true));
}

#[test]
fn a_match_does_not_depend_on_the_number_of_threads() {
    let config: Config = "hex8_2p".parse().unwrap();
    let pair = || Ok([open("rollout:4", config), open("random", config)]);
    let (test, folder) =
        (Settings { pairs: 40, ..Settings::default() }, tempfile::tempdir().unwrap());
    for settings in [fixed(7), test] {
        let play = |threads: usize| {
            let out = folder.path().join(threads.to_string());
            fs_err::create_dir_all(&out).unwrap();
            let progress = &mut Unwatched;
            let report = run_on(threads, &settings, config, &pair, Some(&out), progress).unwrap();
            let games = fs_err::read(report.file.as_ref().unwrap()).unwrap();
            (Report { file: None, ..report }, games)
        };
        let alone = play(1);
        assert!(settings.test.is_none() || alone.0.games < 80, "the test ends it: {:?}", alone.0);
        assert_eq!(play(3), alone);
    }
    // Stopped, it keeps the pairs from the beginning of the book.
    let mut progress = crate::testing::StopAfter(2);
    let report = run_on(2, &fixed(50), config, &pair, None, &mut progress).unwrap();
    assert!(report.stopped && report.games < 100, "{report:?}");
}

#[test]
fn impossible_settings_are_refused() {
    let config: Config = "hex8_2p".parse().unwrap();
    let (mut a, mut b) = (open("random", config), open("random", config));
    let bounds = Bounds { elo0: 50.0, elo1: 0.0, ..Bounds::default() };
    let settings = Settings { test: Some(bounds), ..fixed(1) };
    let error = run(&settings, config, &mut *a, &mut *b, None, &mut Unwatched).unwrap_err();
    assert!(error.to_string().contains("elo0 must be below elo1"));
    assert!(run(&fixed(0), config, &mut *a, &mut *b, None, &mut Unwatched).is_err());
}

/// A ladder of one player under several names says nothing. Source: spec/learning.md section 5, row 17.
#[test]
fn rulers_choose_differently_on_one_position_in_twenty_at_least() {
    let config: Config = "square8_2p".parse().unwrap();
    let mut rulers =
        ["random", "heuristic", "rollout:2", "rollout:8"].map(|text| open(text, config));
    let mut differ = [[0; 4]; 4];
    let mut positions = 0;
    let mut rng = fastrand::Rng::with_seed(17);
    let mut moves = Vec::new();
    while positions < 1000 {
        let mut state = State::new(config, Options::default());
        while !state.is_over() && positions < 1000 {
            state.legal_moves(&mut moves);
            if moves.len() > 1 {
                positions += 1;
                let seed = rng.u64(..);
                let chosen = rulers
                    .each_mut()
                    .map(|ruler| ruler.choose(&state, &mut fastrand::Rng::with_seed(seed)).chosen);
                for (a, row) in differ.iter_mut().enumerate() {
                    for (b, count) in row.iter_mut().enumerate() {
                        *count += u32::from(chosen[a] != chosen[b]);
                    }
                }
            }
            state.apply_legal(&moves[rng.usize(..moves.len())]);
        }
    }
    for (a, row) in differ.iter().enumerate() {
        let others = row.iter().enumerate().filter(|(b, _)| *b != a);
        assert!(others.clone().all(|(_, count)| *count >= 50), "{differ:?}");
    }
}
