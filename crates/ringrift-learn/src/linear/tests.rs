use ringrift_player::{Player, PlayerSpec};

use super::*;
use crate::arena;
use crate::progress::Unwatched;
use crate::testing::{StopAfter, config};

fn trained(settings: &Settings, start: Option<&[u8]>) -> (Report, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let report = run(settings, config("hex8_2p"), start, folder.path(), &mut Unwatched).unwrap();
    let bytes = fs_err::read(&report.file).unwrap();
    (report, bytes)
}

#[test]
fn a_short_training_beats_random_clearly() {
    let (report, bytes) = trained(&Settings { games: 80, ..Settings::default() }, None);
    assert_eq!((report.games, report.stopped), (80, false));
    assert!(report.positions > 80 * 20 && report.moves > report.positions, "{report:?}");
    let open = |text: &str| -> Box<dyn Player> {
        let spec: PlayerSpec = text.parse().unwrap();
        spec.open(config("hex8_2p"), |source| {
            assert_eq!(source, "here");
            Ok(bytes.clone())
        })
        .unwrap()
    };
    let settings = arena::Settings { pairs: 50, test: None, seed: 9, ..arena::Settings::default() };
    let (mut linear, mut random) = (open("linear:here"), open("random"));
    let played =
        arena::run(&settings, config("hex8_2p"), &mut *linear, &mut *random, None, &mut Unwatched)
            .unwrap();
    assert!(played.elo_low > 100.0, "{played:?}");
}

#[test]
fn equal_seeds_give_equal_files_and_a_training_can_go_on() {
    let settings = Settings { games: 6, ..Settings::default() };
    let (report, bytes) = trained(&settings, None);
    let (again, same) = trained(&settings, None);
    assert!(bytes == same, "the files differ");
    assert_eq!((report.games, report.positions), (again.games, again.positions));
    assert!(
        trained(&Settings { seed: 2, ..settings.clone() }, None).1 != bytes,
        "seeds do nothing"
    );
    let (_, more) = trained(&settings, Some(&bytes));
    let games = Linear::for_config(&more, config("hex8_2p")).unwrap().games();
    assert_eq!(games, 12);
    assert!(more != bytes, "nothing was learned");
}

#[test]
fn a_stop_keeps_what_was_learned() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { games: 1000, ..Settings::default() };
    let mut progress = StopAfter(3);
    let report = run(&settings, config("hex8_2p"), None, folder.path(), &mut progress).unwrap();
    assert_eq!((report.games, report.stopped), (3, true));
    assert!(report.error > 0.0, "{report:?}");
    let linear = Linear::for_config(&fs_err::read(&report.file).unwrap(), config("hex8_2p"));
    let linear = linear.unwrap();
    assert_eq!(linear.games(), 3);
    assert!(linear.weights().iter().any(|weight| *weight != 0.0));
}

#[test]
fn a_value_moves_to_what_the_end_of_the_game_says() {
    // With lambda 1 and no chance every position of a game learns its winner.
    let settings =
        Settings { lambda: 1.0, exploration: 0.0, opening_moves: 0, ..Settings::default() };
    let mut learner = Learner::new(Linear::zero(config("square8_3p")), settings);
    let game = learner.play(0, &mut Unwatched);
    let winner = (0..3).find(|seat| game.outcome.chance(*seat) > 0.5).unwrap();
    let first = learner.learn(&game, 1.0);
    for _ in 0..20 {
        learner.learn(&game, 1.0);
    }
    assert!(learner.learn(&game, 1.0) < first / 2.0);
    let chances: Vec<f32> = game
        .decisions
        .iter()
        .map(|decision| {
            learner.linear.activate(&decision.state, &mut learner.active);
            learner.linear.values(&learner.active).chance(winner)
        })
        .collect();
    // An untrained function says a third.
    assert!(chances.iter().all(|chance| *chance > 0.4), "{chances:?}");
    let late = &chances[chances.len() / 2..];
    assert!(late.iter().all(|chance| *chance > 0.6), "{chances:?}");
}

#[test]
fn impossible_settings_are_refused() {
    let check = |settings: Settings, sentence: &str| {
        let folder = tempfile::tempdir().unwrap();
        let error = run(&settings, config("hex8_2p"), None, folder.path(), &mut Unwatched);
        assert!(error.unwrap_err().to_string().contains(sentence));
    };
    check(Settings { games: 0, ..Settings::default() }, "games is 0");
    check(Settings { lambda: 1.5, ..Settings::default() }, "lambda is 1.5");
    check(Settings { rate: 0.0, ..Settings::default() }, "rate is 0");
    check(Settings { exploration: -0.1, ..Settings::default() }, "exploration is -0.1");
}
