//! What holds in every position of every game (section 14), on random games of all configurations.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use ringrift_rules::json::Position;
use ringrift_rules::record::{GameRecord, GameResult, ReplayError, replay};
use ringrift_rules::{
    Cell, CellId, Config, Kind, Move, Options, Phase, Reason, SplitMix64, State, Symmetry,
};

/// A game to play: everything random comes from the seed.
#[derive(Debug, Clone)]
struct Plan {
    config: Config,
    options: Options,
    seed: u64,
    /// Chooses the type of move first, so that rare types come up often.
    rare_first: bool,
}

impl Plan {
    fn any() -> impl Strategy<Value = Plan> {
        let rings = prop_oneof![3 => Just(None), 1 => (3u16..12).prop_map(Some)];
        (0..12usize, rings, any::<bool>(), 1u8..4, any::<u64>(), any::<bool>()).prop_map(
            |(config, rings_per_player, swap_rule, lps_rounds, seed, rare_first)| Plan {
                config: Config::ALL[config],
                options: Options { swap_rule, rings_per_player, lps_rounds },
                seed,
                rare_first,
            },
        )
    }

    /// Large boards are cut: their games are ten times as long.
    fn most_moves(&self) -> u32 {
        if self.config.board.cell_count() < 100 { 2000 } else { 150 }
    }

    /// Plays, and shows each position with its legal list and the move chosen, before it is made.
    fn play(&self, mut visit: impl FnMut(&State, &[Move], &Move, &mut SplitMix64)) -> State {
        let mut random = SplitMix64::new(self.seed);
        let mut state = State::new(self.config, self.options);
        let mut moves = Vec::new();
        while !state.is_over() && state.move_number() < self.most_moves() {
            state.legal_moves(&mut moves);
            assert!(!moves.is_empty(), "no legal move\n{}", state.render());
            let mv = if self.rare_first {
                let mut kinds: Vec<Kind> = moves.iter().map(Move::kind).collect();
                kinds.sort_unstable();
                kinds.dedup();
                let kind = kinds[random.below(kinds.len())];
                let of_kind: Vec<&Move> = moves.iter().filter(|mv| mv.kind() == kind).collect();
                *of_kind[random.below(of_kind.len())]
            } else {
                moves[random.below(moves.len())]
            };
            visit(&state, &moves, &mv, &mut random);
            state.apply(&mv).unwrap();
        }
        let small = self.config.board.cell_count() < 100;
        assert!(state.is_over() || !small, "the game does not end");
        let bound = self.config.most_moves(state.rings_per_player());
        assert!(u64::from(state.move_number()) <= bound, "longer than {bound} moves");
        state
    }
}

/// Counts everything again from the cells.
fn counters_follow_from_the_board(state: &State) {
    let mut on_board = [0u16; 4];
    let (mut markers, mut territory, mut stacks) = ([0u16; 4], [0u16; 4], [0u16; 4]);
    for cell in state.geometry().cells() {
        match state.cell(cell) {
            Cell::Empty => {}
            Cell::Marker(seat) => markers[seat.index()] += 1,
            Cell::Collapsed(seat) => territory[seat.index()] += 1,
            Cell::Stack(stack) => {
                stacks[stack.controller().index()] += 1;
                let rings: Vec<_> = stack.rings().collect();
                assert_eq!(rings.len(), usize::from(stack.height()));
                assert_eq!(rings[0], stack.controller());
                let cap = rings.iter().take_while(|ring| **ring == rings[0]).count();
                assert_eq!(cap, usize::from(stack.cap()));
                for ring in rings {
                    on_board[ring.index()] += 1;
                }
            }
        }
    }
    let mut all = 0;
    for seat in state.config().seats() {
        assert_eq!(state.rings_on_board(seat), on_board[seat.index()]);
        assert_eq!(state.markers(seat), markers[seat.index()]);
        assert_eq!(state.territory(seat), territory[seat.index()]);
        assert_eq!(state.stacks(seat), stacks[seat.index()]);
        all += state.hand(seat) + state.rings_on_board(seat) + state.eliminated(seat);
    }
    assert_eq!(all, u16::from(state.config().players) * state.rings_per_player());
}

/// S of section 14.
fn progress(state: &State) -> u32 {
    let one = |seat| state.markers(seat) + state.territory(seat) + state.eliminated(seat);
    state.config().seats().map(|seat| u32::from(one(seat))).sum()
}

/// Whether a move makes S grow for certain. Processing a region does by its payment at the latest:
/// the region may consist of markers alone.
fn must_progress(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::MoveStack
            | Kind::OvertakingCapture
            | Kind::ContinueCapture
            | Kind::EliminateRings
            | Kind::ForcedElimination
    )
}

/// Of slides that complete several runs the order of the axes decides, which no symmetry keeps.
fn depends_on_axes(state: &State) -> bool {
    let (seat, geometry) = (state.to_move(), state.geometry());
    if state.phase() != Phase::Movement || !state.is_recovery_eligible(seat) {
        return false;
    }
    let own = |cell: CellId| matches!(state.cell(cell), Cell::Marker(owner) if owner == seat);
    let least = state.config().line_length().min(state.board().detection_length());
    let several_runs = |from: CellId, to: CellId| {
        let reach = |direction: u8| {
            let ray = geometry.ray(to, direction).iter();
            ray.take_while(|cell| **cell != from && own(**cell)).count()
        };
        let run = |axis: u8| 1 + reach(axis) + reach(geometry.opposite(axis));
        geometry.axes().iter().filter(|axis| run(**axis) >= usize::from(least)).count() > 1
    };
    geometry.cells().filter(|from| own(*from)).any(|from| {
        let mut steps = geometry.neighbours(from);
        steps.any(|to| matches!(state.cell(to), Cell::Empty) && several_runs(from, to))
    })
}

fn turned_position_has_turned_moves(state: &State, moves: &[Move], mv: &Move, by: &Symmetry) {
    if depends_on_axes(state) {
        return;
    }
    let image = state.permuted(by);
    let mut listed = Vec::new();
    image.legal_moves(&mut listed);
    let listed: HashSet<Move> = listed.into_iter().collect();
    let wanted: HashSet<Move> = moves.iter().map(|mv| mv.permuted(state, by)).collect();
    assert_eq!(listed, wanted, "{}", state.render());

    let (mut then, mut image) = (state.clone(), image);
    then.apply_legal(mv);
    image.apply_legal(&mv.permuted(state, by));
    assert!(then.permuted(by) == image, "{}\n{}", then.permuted(by).render(), image.render());
    // A turned position counts its hash anew; the image was kept in step by the move.
    assert_eq!(then.permuted(by).position_hash(), image.position_hash());
}

proptest! {
    // The same games in every run: a failure that comes and goes is no test.
    #![proptest_config(ProptestConfig {
        cases: 60,
        rng_seed: RngSeed::Fixed(20_251_230),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn rings_are_conserved_and_progress_never_falls(plan in Plan::any()) {
        let mut before = 0;
        let mut last = None;
        let end = plan.play(|state, _, mv, _| {
            counters_follow_from_the_board(state);
            let now = progress(state);
            assert!(now >= before, "S fell from {before} to {now}");
            if last.is_some_and(must_progress) {
                assert!(now > before, "S stayed at {now} after {last:?}");
            }
            before = now;
            last = Some(mv.kind());
            assert!(state.phase() != Phase::RingPlacement
                || state.has_any_ring(state.to_move()));
        });
        counters_follow_from_the_board(&end);
        let cells = u32::try_from(end.geometry().len()).unwrap();
        let rings = u32::from(end.rings_per_player()) * u32::from(plan.config.players);
        prop_assert!(progress(&end) <= 2 * cells + rings);
    }

    #[test]
    fn every_legal_move_is_listed_once_and_reads_back_from_its_text(plan in Plan::any()) {
        plan.play(|state, moves, mv, random| {
            let distinct: HashSet<&Move> = moves.iter().collect();
            assert_eq!(distinct.len(), moves.len(), "{moves:?}");
            for mv in [mv, &moves[random.below(moves.len())]] {
                assert_eq!(&state.parse(&state.notate(mv)).unwrap(), mv);
            }
        });
    }

    #[test]
    fn a_turned_position_has_the_turned_moves(plan in Plan::any()) {
        plan.play(|state, moves, mv, random| {
            let symmetries = state.geometry().symmetries();
            let by = &symmetries[random.below(symmetries.len())];
            turned_position_has_turned_moves(state, moves, mv, by);
        });
    }

    #[test]
    fn a_position_copied_over_another_is_the_same_in_every_respect(plan in Plan::any()) {
        let mut copy = State::new(plan.config, Options::default());
        plan.play(|state, _, mv, _| {
            copy.clone_from(state);
            assert!(copy == *state);
            let (mut one, mut two) = (copy.clone(), state.clone());
            one.apply_legal(mv);
            two.apply_legal(mv);
            assert!(one == two);
            assert_eq!(one.position_hash(), two.position_hash());
        });
    }

    #[test]
    fn positions_with_one_hash_are_one_position(plan in Plan::any()) {
        let mut seen: HashMap<u64, String> = HashMap::new();
        plan.play(|state, _, _, _| {
            let text = state.digest_text();
            let known = seen.entry(state.position_hash()).or_insert_with(|| text.clone());
            assert_eq!(*known, text);
        });
        prop_assert!(seen.len() > 10);
    }

    #[test]
    fn a_move_of_another_position_is_refused_or_legal(plan in Plan::any()) {
        let mut seen: Vec<Move> = Vec::new();
        plan.play(|state, moves, mv, random| {
            for _ in 0..3 {
                let Some(other) = seen.get(random.below(seen.len())) else { break };
                let mut copy = state.clone();
                match copy.apply(other) {
                    Ok(()) => assert!(moves.contains(other)),
                    Err(illegal) => {
                        assert!(!moves.contains(other), "{illegal}");
                        assert!(copy == *state, "a refused move changed the position");
                        assert!(!illegal.reason.is_empty());
                    }
                }
            }
            seen.push(*mv);
        });
    }

    #[test]
    fn a_position_reads_back_from_json(plan in Plan::any()) {
        plan.play(|state, moves, _, random| {
            if random.below(8) > 0 {
                return;
            }
            let text = serde_json::to_string(&Position::of(state)).unwrap();
            let position: Position = serde_json::from_str(&text).unwrap();
            let read = position.state(plan.config, plan.options).unwrap();
            assert_eq!(read.digest_text(), state.digest_text());
            let mut again = Vec::new();
            read.legal_moves(&mut again);
            assert_eq!(again, moves);
        });
    }

    #[test]
    fn a_recorded_game_replays_to_its_result(plan in Plan::any()) {
        let mut texts = Vec::new();
        let end = plan.play(|state, _, mv, _| texts.push(state.notate(mv)));
        let record = GameRecord {
            id: "test".to_owned(),
            config: plan.config,
            options: plan.options,
            seed: plan.seed,
            players: plan.config.seats().map(|seat| format!("random {seat}")).collect(),
            moves: texts,
            result: GameResult::of(&end),
        };
        let text = serde_json::to_string(&record).unwrap();
        let read: GameRecord = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &record);
        prop_assert!(replay(&read) == Ok(end));
    }
}

#[test]
fn a_false_record_is_refused_at_the_move_that_is_wrong() {
    let plan = Plan {
        config: "hex8_2p".parse().unwrap(),
        options: Options::default(),
        seed: 3,
        rare_first: false,
    };
    let mut texts = Vec::new();
    let end = plan.play(|state, _, mv, _| texts.push(state.notate(mv)));
    let record = GameRecord {
        id: "test".to_owned(),
        config: plan.config,
        options: plan.options,
        seed: plan.seed,
        players: vec!["a".to_owned(), "b".to_owned()],
        moves: texts,
        result: GameResult::of(&end),
    };
    assert!(replay(&record).is_ok());
    let count = record.moves.len();

    let mut wrong = record.clone();
    wrong.moves[4] = "P 9,9,9 1".to_owned();
    let error = replay(&wrong).unwrap_err();
    assert!(matches!(error, ReplayError::Unreadable { number: 5, .. }), "{error}");

    let mut wrong = record.clone();
    wrong.moves[2] = "NT".to_owned();
    let error = replay(&wrong).unwrap_err();
    assert!(matches!(error, ReplayError::Illegal { number: 3, .. }), "{error}");
    assert!(error.to_string().contains("territory_processing"), "{error}");

    let mut wrong = record.clone();
    wrong.moves.push("NP".to_owned());
    let error = replay(&wrong).unwrap_err();
    assert_eq!(error.move_number(), count + 1);
    assert!(error.to_string().contains("the game is over"), "{error}");

    let mut wrong = record.clone();
    let result = wrong.result.as_mut().unwrap();
    result.winner = 3 - result.winner;
    assert!(matches!(replay(&wrong), Err(ReplayError::Result { number, .. }) if number == count));

    let mut wrong = record.clone();
    wrong.moves.truncate(count - 1);
    assert!(matches!(replay(&wrong), Err(ReplayError::Result { .. })));

    let mut wrong = record;
    wrong.players.pop();
    assert!(matches!(replay(&wrong), Err(ReplayError::Players { found: 1, needed: 2 })));
}

#[test]
fn random_games_end_for_every_reason_and_rank_all_seats() {
    let mut seen = HashSet::new();
    for seed in 0..120 {
        let rare_first = seed % 2 == 0;
        let config = Config::ALL[[0, 1, 2, 6, 7, 8][usize::try_from(seed % 6).unwrap()]];
        let plan = Plan { config, options: Options::default(), seed, rare_first };
        let end = plan.play(|_, _, _, _| {});
        let outcome = end.outcome().unwrap();
        seen.insert(outcome.reason);
        assert_eq!(outcome.ranking[0], outcome.winner);
        assert_eq!(outcome.ranks[0], 1);
        assert!(outcome.ranks[1..].iter().all(|rank| *rank > 1));
        let seats: HashSet<_> = outcome.ranking.iter().collect();
        assert_eq!(seats.len(), usize::from(config.players));
        let mut none = vec![Move::NoLineAction];
        end.legal_moves(&mut none);
        assert!(none.is_empty());
    }
    let played_out = Reason::ALL
        .iter()
        .filter(|reason| !matches!(reason, Reason::Resignation | Reason::Timeout));
    assert_eq!(seen, played_out.copied().collect(), "{seen:?}");
}
