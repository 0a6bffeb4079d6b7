//! Each step of the ladder of players is stronger than the one below. Source: spec/learning.md section 5, rows 16 and 17.

use std::path::{Path, PathBuf};

use ringrift_learn::arena::{self, Decision};
use ringrift_learn::{Unwatched, combine, export, selfplay, train};
use ringrift_player::{Network, PlayerSpec};
use ringrift_rules::Config;

/// The sequential test of the loop; so many pairs that it nearly always decides.
const PAIRS: u32 = 1500;

fn check_stronger(config: &str, stronger: &str, weaker: &str) {
    let config: Config = config.parse().unwrap();
    let open = |text: &str| {
        text.parse::<PlayerSpec>().unwrap().open(config, |path| Ok(fs_err::read(path)?)).unwrap()
    };
    let (mut a, mut b) = (open(stronger), open(weaker));
    let settings = arena::Settings { pairs: PAIRS, seed: 16, ..arena::Settings::default() };
    let report = arena::run(&settings, config, &mut *a, &mut *b, None, &mut Unwatched).unwrap();
    println!(
        "{config}: {stronger} against {weaker}: {} of {} games, Elo {:.0} [{:.0}, {:.0}]",
        report.wins, report.games, report.elo, report.elo_low, report.elo_high
    );
    assert_eq!(report.decision, Some(Decision::H1), "{report:?}");
}

#[test]
fn the_rulers_are_a_ladder() {
    for config in ["square8_2p", "hex8_2p"] {
        check_stronger(config, "heuristic", "random");
        check_stronger(config, "rollout:16", "random");
        check_stronger(config, "rollout:64", "rollout:16");
    }
}

/// A network that has learned a little, in two rounds of self-play.
fn trained(folder: &Path, config: Config) -> PathBuf {
    let mut network = Network::random(config, 1).to_bytes();
    for round in 1..=2 {
        let out = folder.join(round.to_string());
        fs_err::create_dir_all(&out).unwrap();
        let settings = selfplay::Settings {
            games: 500,
            simulations: 32,
            fast_simulations: 8,
            seed: round,
            ..Default::default()
        };
        let played = selfplay::run(&settings, config, &network, &[], &out, &mut Unwatched).unwrap();
        let exported =
            export::run(&export::Settings::default(), config, &[played.file], &out, &mut Unwatched)
                .unwrap();
        let settings = combine::Settings::default();
        let window = combine::run(&settings, &[exported.file], &out, &mut Unwatched).unwrap();
        let settings = train::Settings { steps: 400, ..Default::default() };
        let trained =
            train::run(&settings, &window.file, Some(&network), &out, &mut Unwatched).unwrap();
        network = fs_err::read(&trained.file).unwrap();
    }
    let path = folder.join("model.safetensors");
    fs_err::write(&path, network).unwrap();
    path
}

/// The original's smallest budgets were raised in silence, so that its "64 simulations" played 800 and its tiers were none.
#[test]
fn row_16_more_simulations_of_one_network_are_stronger() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained(folder.path(), "hex8_2p".parse().unwrap());
    let player = |simulations: u32| format!("model:{}@{simulations}", model.display());
    check_stronger("hex8_2p", &player(64), &player(16));
    check_stronger("hex8_2p", &player(16), &player(4));
}
