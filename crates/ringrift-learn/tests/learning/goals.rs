//! What ten minutes on two threads must teach, seed 1: goals L1, L2, L4, L6 and L9 of spec/learning.md section 4.
//! It asks for a machine that does nothing else.

#![expect(clippy::disallowed_types, reason = "the goals are of minutes on a clock")]

use std::path::Path;
use std::time::{Duration, Instant};

use ringrift_learn::arena::{self, Decision};
use ringrift_learn::session::{self, Duel, Host, Limit, Order, Point, Settings};
use ringrift_learn::{Flow, Progress, linear};
use ringrift_player::{Player, PlayerSpec};
use ringrift_rules::Config;

const MINUTES: f64 = 10.0;
/// Source: learning.md, L6: each number on hex8 may be so much lower.
const HEX_ALLOWANCE: f64 = 0.05;

/// Time since it was made, for both kinds of learners.
struct Wall(Instant);

impl Host for Wall {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn stopping(&self) -> bool {
        false
    }

    fn iterated(&self, point: &Point, champion: usize) {
        println!("{:?} {:?}, champion net {champion}", self.0.elapsed(), point.verdict);
    }

    fn dueled(&self, duel: &Duel) {
        let Duel { against, simulations, result, .. } = duel;
        println!(
            "at {simulations} simulations against {against}: {}-{}",
            result.wins, result.losses
        );
    }
}

impl Progress for Wall {
    fn beat(&mut self, _done: u64, _total: u64) -> Flow {
        if self.0.elapsed().as_secs_f64() < MINUTES * 60.0 { Flow::Continue } else { Flow::Stop }
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn check_goals(config: &str, allowance: f64) {
    let folder = tempfile::tempdir().unwrap();
    let config: Config = config.parse().unwrap();
    let (settings, place) = (Settings::default(), folder.path().join("run"));
    let limit = Limit::Minutes(MINUTES);
    let order = Order { config, limit, threads: 2, seed: 1, settings: &settings, folder: &place };
    let wall = Wall(Instant::now());
    let mut report = session::run(&order, &wall).unwrap();
    session::close(&order, &mut report, &wall).unwrap();

    let find = |against: &str, simulations: u32| {
        let met = |duel: &&Duel| duel.against.contains(against) && duel.simulations == simulations;
        &report.closing.iter().find(met).unwrap().result
    };
    // A run that went wrong in several ways says all of them.
    let mut short = Vec::new();
    let mut ask = |goal: &str, score: f64, least: f64| {
        println!("{config} {goal}: {:.1} %, wanted {:.1} %", score * 100.0, least * 100.0);
        if score < least {
            short.push(goal.to_owned());
        }
    };
    ask("L1 against random", find("random", 64).score, 1.0 - allowance);
    ask("L2 against heuristic", find("heuristic", 64).score, 0.8 - allowance);
    ask("L4 against the start", find("at the start", 64).score, 0.97 - allowance);
    let half = find("at half time", 64).decision;
    ask("L4 against half time", f64::from(u8::from(half == Some(Decision::H1))), 1.0);

    let baseline = learn_baseline(config, folder.path());
    let champion = place.join(&report.nets[report.champion].file);
    let model = format!("model:{}@64", champion.display());
    let open = |text: &str| -> Box<dyn Player> {
        text.parse::<PlayerSpec>().unwrap().open(config, |path| Ok(fs_err::read(path)?)).unwrap()
    };
    let (mut ours, mut theirs) = (open(&model), open(&baseline));
    let test = arena::Settings { pairs: 1500, seed: 9, ..arena::Settings::default() };
    let met = arena::run(&test, config, &mut *ours, &mut *theirs, None, &mut Wall(Instant::now()));
    let decision = met.unwrap().decision;
    ask("L9 against linear", f64::from(u8::from(decision == Some(Decision::H1))), 1.0);
    assert!(short.is_empty(), "{config} falls short of {short:?}");
}

/// The baseline after as many minutes, as a player.
fn learn_baseline(config: Config, folder: &Path) -> String {
    let settings = linear::Settings { games: u64::MAX, ..linear::Settings::default() };
    let mut wall = Wall(Instant::now());
    let report = linear::run(&settings, config, None, folder, &mut wall).unwrap();
    println!("{config}: the baseline learned from {} games", report.games);
    format!("linear:{}", report.file.display())
}

#[test]
fn ten_minutes_reach_the_goals_on_square8() {
    check_goals("square8_2p", 0.0);
}

#[test]
fn ten_minutes_reach_the_goals_on_hex8() {
    check_goals("hex8_2p", HEX_ALLOWANCE);
}
