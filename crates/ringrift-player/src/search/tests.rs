use ringrift_rules::{Config, Options, SplitMix64};

use super::*;

fn config(name: &str) -> Config {
    name.parse().unwrap()
}

/// Looks at every position of random games.
fn positions(config: Config, games: u64, mut look: impl FnMut(&State, &[Move])) {
    for seed in 0..games {
        let mut random = SplitMix64::new(seed);
        let (mut state, mut moves) = (State::new(config, Options::default()), Vec::new());
        while !state.is_over() {
            state.legal_moves(&mut moves);
            look(&state, &moves);
            let played = moves[random.below(moves.len())];
            state.apply_legal(&played);
        }
    }
}

fn searcher(config: Config) -> Searcher {
    Searcher::new(Network::random(config, 1))
}

#[test]
fn every_search_does_the_simulations_it_was_asked_for_and_none_for_a_forced_move() {
    for name in ["hex8_2p", "square8_3p"] {
        let config = config(name);
        let mut searcher = searcher(config);
        let mut rng = fastrand::Rng::with_seed(1);
        positions(config, 1, |state, moves| {
            let wanted = 1 + state.move_number() % 40;
            let settings = SearchSettings { simulations: wanted, noise: 1.0, ..Default::default() };
            let found = searcher.search(state, moves, &settings, &mut rng);
            assert_eq!(found.simulations, if moves.len() == 1 { 0 } else { wanted });
            assert_eq!(found.policy.len(), moves.len());
            let sum: f32 = found.policy.iter().sum();
            assert!((sum - 1.0).abs() < 1e-3);
            assert!(found.chosen < moves.len());
        });
    }
}

#[test]
fn equal_generators_give_equal_searches_and_noise_differs() {
    let config = config("hex8_2p");
    let settings = SearchSettings { simulations: 24, noise: 1.0, ..Default::default() };
    let (mut one, mut two) = (searcher(config), searcher(config));
    let mut moved_on = 0;
    positions(config, 1, |state, moves| {
        let search = |searcher: &mut Searcher, seed| {
            searcher.search(state, moves, &settings, &mut fastrand::Rng::with_seed(seed))
        };
        let (first, second) = (search(&mut one, 5), search(&mut two, 5));
        assert_eq!((first.chosen, first.policy), (second.chosen, second.policy));
        moved_on += u32::from(search(&mut one, 6).chosen != first.chosen);
    });
    assert!(moved_on > 5, "{moved_on}");
}

/// Whether playing the move, and all forced ones after it, wins for the seat that chose.
fn wins_at_once(state: &State, played: &Move) -> bool {
    let (mut after, mut moves) = (state.clone(), Vec::new());
    after.apply_legal(played);
    loop {
        if let Some(outcome) = after.outcome() {
            return outcome.winner == state.to_move();
        }
        after.legal_moves(&mut moves);
        let [forced] = moves.as_slice() else { return false };
        after.apply_legal(forced);
    }
}

#[test]
fn a_win_at_once_is_found_by_each_seat() {
    let config = config("square8_2p");
    let settings = SearchSettings { simulations: 64, ..Default::default() };
    let mut searcher = searcher(config);
    let mut rng = fastrand::Rng::with_seed(1);
    let (mut met, mut found_by_seat) = (0, [0, 0]);
    positions(config, 40, |state, moves| {
        // Sixteen moves are considered at the root, so each of these is tried.
        if !(2..=16).contains(&moves.len()) {
            return;
        }
        let wins: Vec<bool> = moves.iter().map(|played| wins_at_once(state, played)).collect();
        if !wins.contains(&true) || wins.iter().all(|win| *win) {
            return;
        }
        met += 1;
        let found = searcher.search(state, moves, &settings, &mut rng);
        // The target goes to winning moves, for each mover alike; there may be a slower win that looks as good.
        let share: f32 = found.policy.iter().zip(&wins).filter(|(_, w)| **w).map(|(p, _)| p).sum();
        if wins[found.chosen] && share > 0.5 {
            found_by_seat[state.to_move().index()] += 1;
            assert!(found.values.chance(state.to_move().index()) > 0.5);
        }
    });
    assert!(met >= 10, "{met} such positions");
    assert!(found_by_seat[0] > 0 && found_by_seat[1] > 0, "{found_by_seat:?}");
    assert!((found_by_seat[0] + found_by_seat[1]) * 10 >= met * 9, "{found_by_seat:?} of {met}");
}

#[test]
fn a_simulation_goes_on_through_moves_that_are_as_good_as_forced() {
    let config = config("hex8_2p");
    let asked = |follow: f32, state: &State, moves: &[Move]| {
        let settings = SearchSettings { simulations: 16, follow, ..Default::default() };
        let mut rng = fastrand::Rng::with_seed(1);
        let found = searcher(config).search(state, moves, &settings, &mut rng);
        assert_eq!(found.simulations, 16);
        found.positions
    };
    let mut longer = 0;
    positions(config, 1, |state, moves| {
        if moves.len() == 1 || state.move_number() % 8 != 0 {
            return;
        }
        assert!(asked(2.0, state, moves) <= 17, "a simulation asks about one new position at most");
        // A prior of 0 is enough for every move: simulations go on to the end of the game.
        longer += u32::from(asked(0.0, state, moves) > 17);
    });
    assert!(longer > 3, "{longer}");
}

#[test]
fn what_the_last_search_asked_changes_no_result() {
    for name in ["square8_2p", "hex8_3p"] {
        let config = config(name);
        let settings = SearchSettings { simulations: 24, noise: 1.0, ..Default::default() };
        let (mut kept, mut rng) = (searcher(config), fastrand::Rng::with_seed(1));
        let (mut state, mut moves) = (State::new(config, Options::default()), Vec::new());
        let mut reused = 0;
        while !state.is_over() {
            state.legal_moves(&mut moves);
            let seed = rng.u64(..);
            let search = |searcher: &mut Searcher| {
                searcher.search(&state, &moves, &settings, &mut fastrand::Rng::with_seed(seed))
            };
            let (with, without) = (search(&mut kept), search(&mut searcher(config)));
            assert_eq!((with.chosen, &with.policy), (without.chosen, &without.policy));
            assert_eq!(with.values, without.values);
            reused += u32::from(kept.tree.remembers(&state));
            state.apply_legal(&moves[with.chosen]);
        }
        assert!(reused > 10, "{reused} positions were known from the search before");
    }
}
