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
    Settings { pairs, test: None, seed: 5, ..Settings::default() }
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
        assert_eq!(report.book, Book::of(&book));
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
fn a_rotated_match_has_every_opening_with_a_in_every_seat() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hex8_2p", "square8_3p", "hex8_4p"] {
        let config: Config = name.parse().unwrap();
        let seats = usize::from(config.players);
        let settings = Settings { seating: Seating::Rotated, ..fixed(2) };
        let pair = || Ok([open("heuristic", config), open("random", config)]);
        let report =
            run_on(2, &settings, config, &pair, Some(folder.path()), &mut Unwatched).unwrap();
        assert_eq!((report.games, report.pairs.len()), (2 * seats as u64, seats + 1));
        let won: u64 = report.pairs.iter().zip(0..).map(|(pairs, won)| pairs * won).sum();
        assert_eq!((report.wins, report.wins + report.losses), (won, report.games));
        assert!((report.equal_score * f64::from(config.players) - 1.0).abs() < 1e-9);
        let book = book(config, 2, settings.seed).unwrap();
        assert_eq!(report.book, Book::of(&book));
        for (round, opening) in records(report.file.as_ref().unwrap()).chunks(seats).zip(&book) {
            for (seat, record) in round.iter().enumerate() {
                replay(record).unwrap();
                assert!(record.moves.starts_with(&opening.moves));
                let of_a = record.players.iter().enumerate().filter(|(_, p)| **p == report.a);
                assert_eq!(of_a.map(|(at, _)| at).collect::<Vec<_>>(), [seat]);
            }
        }
        // Every game of three and four says who came in before whom.
        let finished: u64 = report.finishes.values().sum();
        assert_eq!(finished, if seats > 2 { report.games } else { 0 });
        let first = |finish: &&String| finish.starts_with("a>");
        let a_first = report.finishes.iter().filter(|(finish, _)| first(finish));
        if seats > 2 {
            assert_eq!(a_first.map(|(_, games)| games).sum::<u64>(), report.wins, "{report:?}");
            crate::rating::rate(&[report.result()], &report.b).unwrap();
        }
    }
    let config: Config = "square8_3p".parse().unwrap();
    let (mut a, mut b) = (open("random", config), open("random", config));
    let settings = Settings { seating: Seating::Rotated, ..Settings::default() };
    let error = run(&settings, config, &mut *a, &mut *b, None, &mut Unwatched).unwrap_err();
    assert!(error.to_string().contains("share the table"), "{error}");
}

#[test]
fn one_seat_that_wins_its_equal_share_is_no_stronger() {
    let settings = Settings { seating: Seating::Rotated, ..fixed(100) };
    let config: Config = "hex8_4p".parse().unwrap();
    let mut tally = Tally::new(&settings, config, Book::of(&[]));
    tally.pairs = vec![0, 100, 0, 0, 0];
    let game = |number: u64| GameRecord {
        id: number.to_string(),
        config,
        options: Options::default(),
        seed: number,
        players: Vec::new(),
        moves: Vec::new(),
        result: None,
    };
    tally.records = (0..400).map(game).collect();
    let report = tally.report(["a".to_owned(), "b".to_owned()]);
    assert_eq!((report.wins, report.losses), (100, 300));
    assert!(report.elo.abs() < 1e-9 && report.elo_low < 0.0 && report.elo_high > 0.0, "{report:?}");
    // Three of four: odds of 3, against odds of a third.
    tally.pairs = vec![0, 0, 0, 100, 0];
    let report = tally.report(["a".to_owned(), "b".to_owned()]);
    assert!((report.elo - 400.0 * 9_f64.log10()).abs() < 1e-6, "{report:?}");
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
