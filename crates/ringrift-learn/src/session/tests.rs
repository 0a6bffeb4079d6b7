use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::arena;
use crate::games::{self, Games};
use crate::progress::Unwatched;
use crate::testing::config;

/// Looks on: every sign of life takes the given time, and the run is to stop after so many.
struct Clock {
    signs: AtomicU64,
    milliseconds: u64,
    stop_after: u64,
}

impl Clock {
    fn new(milliseconds: u64, stop_after: u64) -> Self {
        Self { signs: AtomicU64::new(0), milliseconds, stop_after }
    }

    /// No time passes, and nobody stops it.
    fn still() -> Self {
        Self::new(0, u64::MAX)
    }

    fn signs(&self) -> u64 {
        self.signs.load(Ordering::Relaxed)
    }
}

impl Host for Clock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.signs() * self.milliseconds)
    }

    fn stopping(&self) -> bool {
        self.signs() >= self.stop_after
    }

    fn live(&self, live: &Live) {
        assert!(live.done <= live.total || live.total == 0, "{live:?}");
        self.signs.fetch_add(1, Ordering::Relaxed);
    }
}

/// A schedule whose iterations take a moment.
fn small() -> Settings {
    let mut settings = Settings { early: Vec::new(), reuse: 1.0, ..Settings::default() };
    settings.selfplay = crate::testing::short(6, 1);
    settings.train = train::Settings { steps: 4, batch: 32, warmup: 1, ..settings.train };
    settings.gate = Gate { simulations: 2, pairs: 4, guard_pairs: 3, ..settings.gate };
    settings.closing = Closing {
        rulers: vec![Ruler { player: "random".to_owned(), games: 6, simulations: 1 }],
        simulations: 2,
        first_games: 4,
        half_games: 4,
    };
    settings
}

fn order<'a>(settings: &'a Settings, folder: &'a Path, limit: Limit, threads: usize) -> Order<'a> {
    Order { config: config("hex8_2p"), limit, threads, seed: 3, settings, folder }
}

/// All files below a folder, by their path seen from there.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs_err::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, fs_err::read(&path).unwrap());
            }
        }
    }
    found
}

fn games_of(folder: &Path) -> Vec<games::PlayedGame> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| n == crate::selfplay::GAMES_FILE);
    let paths: Vec<PathBuf> = files(folder).into_keys().filter(named).collect();
    let all = paths.iter().flat_map(|path| {
        games::check(&folder.join(path), &mut Unwatched).unwrap();
        Games::open(&folder.join(path)).unwrap().map(Result::unwrap)
    });
    all.collect()
}

/// R1: one thread, one seed, a number of steps.
#[test]
fn equal_orders_give_the_same_games_samples_weights_and_matches_to_the_byte() {
    let settings = small();
    let run_in = |name: &str, seed| {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join(name);
        let order = Order { seed, ..order(&settings, &place, Limit::Steps(10), 1) };
        let mut report = run(&order, &Clock::still()).unwrap();
        close(&order, &mut report, &Clock::still()).unwrap();
        assert_eq!(Report::read(&place).unwrap(), report);
        files(&place)
    };
    let first = run_in("a", 3);
    for name in ["games.jsonl.gz", "samples.npz", "candidate.safetensors", "match.jsonl.gz"] {
        assert!(first.keys().any(|path| path.ends_with(name)), "{name}");
    }
    let second = run_in("elsewhere", 3);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&first), names(&second));
    for (path, bytes) in &first {
        assert_eq!(second.get(path), Some(bytes), "{}", path.display());
    }
    let other = run_in("a", 4);
    assert_ne!(first.get(Path::new(RUN_FILE)), other.get(Path::new(RUN_FILE)));
}

#[test]
fn fault_15_a_loop_that_waits_for_ever_plays_trains_matches_and_decides_nothing() {
    let settings = small();
    let folder = tempfile::tempdir().unwrap();
    let order = order(&settings, folder.path(), Limit::Steps(10), 1);
    let report = run(&order, &Clock::still()).unwrap();
    assert_eq!((report.stand, report.steps), (Stand::Learned, 10));
    assert_eq!(report.points.len(), 3, "4 + 4 + 2 steps");
    for (number, point) in (1..).zip(&report.points) {
        assert_eq!((point.games, point.net), (6, Some(number)));
        assert!(point.training.is_some() && point.rows > 0);
        assert!(point.gate.as_ref().is_some_and(|gate| gate.games > 0));
        assert!(point.rating.as_ref().is_some_and(|rating| rating.low < rating.high));
        assert_eq!(point.wins.iter().sum::<u64>(), 6);
    }
    let anchor = report.ratings.iter().find(|r| r.player == "random").unwrap();
    assert!(anchor.elo.abs() < 1e-9, "{anchor:?}");
    assert!(report.half.is_some());
    // Every game names the network that played it, which is one of the run.
    let hashes: BTreeSet<&str> = report.nets.iter().map(|net| net.hash.as_str()).collect();
    let games = games_of(folder.path());
    assert_eq!(games.len(), 18);
    let ids: BTreeSet<&str> = games.iter().map(|game| game.record.id.as_str()).collect();
    assert_eq!(ids.len(), 18);
    for game in &games {
        assert!(hashes.contains(game.model.as_str()), "{}", game.model);
    }
}

#[test]
fn with_two_threads_one_plays_while_the_other_trains_and_no_game_comes_twice() {
    let settings = Settings { reuse: 50.0, ..small() };
    let settings = Settings { train: train::Settings { steps: 60, ..settings.train }, ..settings };
    let folder = tempfile::tempdir().unwrap();
    let order = order(&settings, folder.path(), Limit::Steps(180), 2);
    let report = run(&order, &Clock::still()).unwrap();
    assert_eq!(report.points.len(), 3);
    let games = games_of(folder.path());
    let ids: BTreeSet<&str> = games.iter().map(|game| game.record.id.as_str()).collect();
    assert_eq!(ids.len(), games.len());
    // What was played beside the last training belongs to no iteration any more.
    assert!(games.len() as u64 >= report.games && report.games >= 18, "{}", report.games);
    let exported: u64 = report.points.iter().map(|point| point.rows).sum();
    assert_eq!(report.rows, exported);
}

#[test]
fn a_run_by_minutes_ends_by_the_callers_clock() {
    let settings = small();
    let folder = tempfile::tempdir().unwrap();
    // Each sign of life takes 50 ms, so that 6 s are some 120 games, steps and pairs.
    let order = order(&settings, folder.path(), Limit::Minutes(0.1), 1);
    let clock = Clock::new(50, u64::MAX);
    let report = run(&order, &clock).unwrap();
    assert_eq!(report.stand, Stand::Learned);
    assert!(report.points.len() >= 2, "{}", report.points.len());
    assert!(report.seconds >= 3.0 && report.seconds < 7.0, "{}", report.seconds);
    assert!(report.points.iter().all(|point| point.seconds <= report.seconds));
}

#[test]
fn a_stopped_run_keeps_what_is_complete() {
    let settings = small();
    for stop_after in [4, 14, 20, 23, 40] {
        let folder = tempfile::tempdir().unwrap();
        let order = order(&settings, folder.path(), Limit::Steps(1000), 1);
        let report = run(&order, &Clock::new(1, stop_after)).unwrap();
        assert_eq!(report.stand, Stand::Stopped);
        assert_eq!(Report::read(folder.path()).unwrap(), report);
        let games = games_of(folder.path()).len() as u64;
        assert_eq!(games, report.games);
        assert!(!files(folder.path()).keys().any(|path| path.to_string_lossy().contains("part")));
    }
}

#[test]
fn fault_14_samples_of_old_networks_are_never_left_out() {
    let windows = |nets| {
        let mut settings = small();
        settings.window.nets = nets;
        let folder = tempfile::tempdir().unwrap();
        let order = order(&settings, folder.path(), Limit::Steps(16), 1);
        let report = run(&order, &Clock::still()).unwrap();
        let rows: Vec<u64> = report.points.iter().map(|point| point.rows).collect();
        let windows: Vec<u64> = report.points.iter().map(|point| point.window.unwrap()).collect();
        (rows, windows)
    };
    let (rows, fresh) = windows(0);
    assert_eq!(fresh, rows, "only what the newest network played");
    let (rows, some) = windows(1);
    assert_eq!(some[3], rows[2] + rows[3]);
    let (rows, all) = windows(12);
    assert_eq!(all[3], rows.iter().sum::<u64>());
}

#[test]
fn the_window_grows_with_the_run_and_has_its_ends() {
    let window = Window { least: 100, share: 0.5, most: 1000, nets: 4 };
    assert_eq!([50, 150, 400, 9000].map(|all| window.rows(all)), [100, 100, 200, 1000]);
}

#[test]
fn accepted_champions_become_opponents() {
    let mut settings = small();
    settings.selfplay.opponent_share = 1.0;
    settings.pool = 1;
    // Whatever was trained is accepted.
    settings.gate.test = arena::Bounds { elo0: -2000.0, elo1: -1900.0, alpha: 0.4, beta: 0.1 };
    settings.gate.guard_score = 0.0;
    let folder = tempfile::tempdir().unwrap();
    let order = order(&settings, folder.path(), Limit::Steps(12), 1);
    let report = run(&order, &Clock::still()).unwrap();
    assert!(report.promotions() > 1, "{:?}", report.points);
    let hash = |net: usize| report.nets[net].hash.clone();
    for game in games_of(folder.path()) {
        let players: BTreeSet<String> = game.record.players.iter().cloned().collect();
        let net = report.nets.iter().position(|net| net.hash == game.model).unwrap();
        let promoted = |point: &&Point| point.verdict == Verdict::Promoted;
        let champions = report.points.iter().filter(promoted).filter_map(|point| point.net);
        let before: Vec<usize> = [0].into_iter().chain(champions.filter(|n| *n < net)).collect();
        let opponent = if net == 0 { 0 } else { before[before.len() - 1] };
        assert_eq!(players, [hash(net), hash(opponent)].into_iter().collect(), "network {net}");
    }
}

/// Each way of being damaged has happened to somebody; a few lucky games are no promotion.
#[test]
fn fault_14_a_damaged_candidate_is_promoted() {
    let mut settings = small();
    settings.selfplay = crate::selfplay::Settings { games: 150, ..settings.selfplay };
    settings.train = train::Settings { steps: 300, batch: 128, ..settings.train };
    settings.reuse = 100.0;
    settings.gate = Gate { simulations: 16, pairs: 60, guard_pairs: 10, ..settings.gate };
    let folder = tempfile::tempdir().unwrap();
    let order = order(&settings, folder.path(), Limit::Steps(300), 1);
    let clock = Clock::still();
    let watch = Watch::new(&clock);
    let mut session = Session::new(&order, &watch).unwrap();
    session.iterate().unwrap();
    assert_eq!(session.report.promotions(), 1, "{:?}", session.report.points);
    let good = session.bytes(1).unwrap();
    let network = Network::from_bytes(&good).unwrap();

    let mut check = |name: &str, bytes: &[u8], reason: &str| {
        let out = folder.path().join(name);
        fs_err::create_dir_all(&out).unwrap();
        let file = out.join("candidate.safetensors");
        fs_err::write(&file, bytes).unwrap();
        let mut point = session.point(&[]);
        session.judge(&out, &file, &mut point, &mut Time::default()).unwrap();
        let Verdict::Kept(why) = &point.verdict else { panic!("{name} was promoted") };
        assert!(why.contains(reason), "{name}: {why}");
        assert_eq!(session.report.champion, 1);
    };
    let changed = |change: &dyn Fn(&mut ringrift_player::Weights)| {
        let mut weights = network.weights().clone();
        change(&mut weights);
        Network::from_weights(order.config, weights, 2).to_bytes()
    };
    check("random", &Network::random(order.config, 9).to_bytes(), "stronger than the champion");
    check("permuted", &changed(&|weights| weights.moves.reverse()), "stronger than the champion");
    check("numbers", &changed(&|weights| weights.value[0] = f32::NAN), "file checks: ");
    check("endless", &changed(&|weights| weights.policy_bias.fill(f32::MAX)), "is no number");
    let text = String::from_utf8_lossy(&good[..4000]).into_owned();
    let id = ringrift_player::ENCODER_ID;
    let at = text.find(id).unwrap();
    let mut foreign = good.clone();
    foreign[at + id.len() - 1] = b'9';
    check("foreign", &foreign, "file checks: ");
    let other = Network::random(config("square8_2p"), 1).to_bytes();
    check("board", &other, "has config \"square8_2p\"");
    check("half", &good[..good.len() / 2], "file checks: ");
}

#[test]
fn fault_23_a_network_is_matched_although_a_byte_of_it_changed() {
    let settings = small();
    let folder = tempfile::tempdir().unwrap();
    let order = order(&settings, folder.path(), Limit::Steps(4), 1);
    let mut report = run(&order, &Clock::still()).unwrap();
    let file = folder.path().join(&report.nets[report.champion].file);
    let mut bytes = fs_err::read(&file).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs_err::write(&file, bytes).unwrap();
    check_refused(close(&order, &mut report, &Clock::still()), "is damaged: its hash is");
    assert!(report.closing.is_empty());
}

/// Fault 7, in the loop: what an export refuses ends the run with its sentence.
#[test]
fn a_bad_batch_stops_the_run_and_the_run_says_why() {
    let mut settings = small();
    settings.export.judged_rows = 10;
    settings.export.phase_share = 0.01;
    let folder = tempfile::tempdir().unwrap();
    let order = order(&settings, folder.path(), Limit::Steps(4), 1);
    check_refused(run(&order, &Clock::still()), "of the rows are of the phase");
    let report = Report::read(folder.path()).unwrap();
    let Stand::Failed(why) = &report.stand else { panic!("{:?}", report.stand) };
    assert!(why.contains("of the rows are of the phase"), "{why}");
}

fn check_refused<T: std::fmt::Debug>(result: anyhow::Result<T>, sentence: &str) {
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains(sentence), "{error}");
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    check_refused(Report::read(place), "there is no run.json");
    let settings = small();
    let limit = Limit::Steps(4);
    let report = Report::new(config("hex8_2p"), 1, 1, limit, settings.clone());
    report.write(place).unwrap();
    check_refused(Report::read(place), "never came to an end");
    check_refused(run(&order(&settings, place, limit, 1), &Clock::still()), "is not empty");
    let foreign = Report { format: "other-1".to_owned(), ..report.clone() };
    foreign.write(place).unwrap();
    check_refused(Report::read(place), "its format is \"other-1\"");
    Report { stand: Stand::Learned, ..report }.write(place).unwrap();
    check_refused(Report::read(place), "names a network that it does not have");
    fs_err::write(place.join(RUN_FILE), "{").unwrap();
    check_refused(Report::read(place), "read the run");
}

#[test]
fn an_order_out_of_range_is_refused_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("new");
    let check = |change: &dyn Fn(&mut Settings), sentence: &str| {
        let mut settings = small();
        change(&mut settings);
        check_refused(order(&settings, &place, Limit::Steps(4), 1).check(), sentence);
    };
    check(&|s| s.selfplay.games = 0, "section selfplay: games is 0");
    check(&|s| s.train.lambda = 2.0, "section train: lambda is 2");
    check(&|s| s.window.share = 1.5, "window.share is 1.5");
    check(&|s| s.window.least = 1 << 40, "0 < least <= most");
    check(&|s| s.reuse = 0.0, "reuse is 0");
    check(&|s| s.cooling = f32::NAN, "cooling is NaN");
    check(&|s| s.gate.guards = vec!["model:x@3".to_owned()], "no fixed player");
    check(&|s| s.gate.guards = vec!["nobody".to_owned()], "unknown player");
    check(&|s| s.closing.first_games = 3, "closing.first_games is 3");
    check(&|s| s.closing.rulers[0].games = 5, "closing.rulers.0.games is 5");
    let stage = Stage { until: 5, games: 1, simulations: 0, fast_simulations: 1 };
    check(&|s| s.early = vec![stage], "early.0 has a 0");
    let settings = small();
    check_refused(order(&settings, &place, Limit::Minutes(f64::NAN), 1).check(), "minutes is NaN");
    check_refused(order(&settings, &place, Limit::Steps(0), 1).check(), "steps is 0");
    check_refused(order(&settings, &place, Limit::Steps(1), 0).check(), "threads is 0");
    assert!(!place.exists());
}
