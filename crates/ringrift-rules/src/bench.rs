//! What the rules cost, and a signature of what they do.
//!
//! The clock comes in, as the rules know no time.

use alloc::vec::Vec;
use core::hint::black_box;
use core::time::Duration;

use crate::config::{Board, Config, Options};
use crate::moves::Move;
use crate::random::SplitMix64;
use crate::state::State;

/// Configurations that are measured.
pub const CONFIGS: [Config; 8] = [
    Config { board: Board::Square8, players: 2 },
    Config { board: Board::Hex8, players: 2 },
    Config { board: Board::Square19, players: 2 },
    Config { board: Board::Hexagonal, players: 2 },
    Config { board: Board::Square8, players: 4 },
    Config { board: Board::Hex8, players: 4 },
    Config { board: Board::Square19, players: 4 },
    Config { board: Board::Hexagonal, players: 4 },
];

/// What one configuration costs, on one core.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// The configuration.
    pub config: Config,
    /// Random games to their end that were played.
    pub games: u64,
    /// Their moves, bookkeeping moves included.
    pub moves: u64,
    /// Moves of the longest of them.
    pub longest: u64,
    /// Moves that no game can exceed.
    pub bound: u64,
    /// Games a second, the complete legal list at every move.
    pub games_per_second: f64,
    /// Moves a second, in the same games.
    pub moves_per_second: f64,
    /// Moves a second, one random move drawn without listing.
    pub sampled_moves_per_second: f64,
    /// Nanoseconds of one complete legal list, over the positions of games.
    pub list_ns: f64,
    /// Of making one listed move.
    pub apply_ns: f64,
    /// Of copying a position.
    pub copy_ns: f64,
    /// Of drawing one move without listing.
    pub sample_ns: f64,
}

/// A position of a random game with a move that is legal there.
struct Point {
    state: State,
    mv: Move,
}

/// Positions of random games, evenly over their length.
fn points(config: Config, wanted: usize) -> Vec<Point> {
    let mut points = Vec::new();
    let mut random = SplitMix64::new(42);
    let mut moves = Vec::new();
    while points.len() < wanted {
        let mut state = State::new(config, Options::default());
        while !state.is_over() && points.len() < wanted {
            state.legal_moves(&mut moves);
            let mv = moves.swap_remove(random.below(moves.len()));
            if random.below(3) == 0 {
                points.push(Point { state: state.clone(), mv });
            }
            state.apply_legal(&mv);
        }
    }
    points
}

/// Repeats work over all points until the time is over; gives nanoseconds of one.
fn nanoseconds(
    budget: Duration,
    clock: &dyn Fn() -> Duration,
    points: &[Point],
    mut work: impl FnMut(&Point),
) -> f64 {
    let began = clock();
    let mut done = 0u64;
    loop {
        for point in points {
            work(point);
        }
        done += points.len() as u64;
        let took = clock().saturating_sub(began);
        if took >= budget {
            return took.as_secs_f64() * 1e9 / lossy(done);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
const fn lossy(count: u64) -> f64 {
    count as f64
}

/// Random games that were played.
struct Played {
    games: u64,
    moves: u64,
    longest: u64,
    seconds: f64,
}

/// Plays random games for a while.
fn play(
    config: Config,
    budget: Duration,
    clock: &dyn Fn() -> Duration,
    mut step: impl FnMut(&mut State, &mut SplitMix64),
) -> Played {
    let mut random = SplitMix64::new(1);
    let (mut games, mut moves, mut longest) = (0, 0, 0);
    let began = clock();
    loop {
        let mut state = State::new(config, Options::default());
        while !state.is_over() {
            step(&mut state, &mut random);
        }
        games += 1;
        moves += u64::from(state.move_number());
        longest = longest.max(state.move_number().into());
        let took = clock().saturating_sub(began);
        if took >= budget {
            return Played { games, moves, longest, seconds: took.as_secs_f64() };
        }
    }
}

/// Measures a configuration; the budget is shared by six figures.
pub fn measure(config: Config, budget: Duration, clock: &dyn Fn() -> Duration) -> Cost {
    let part = budget / 6;
    let mut list = Vec::new();
    let played = play(config, part * 2, clock, |state, random| {
        state.legal_moves(&mut list);
        state.apply_legal(&list[random.below(list.len())]);
    });
    let sampled = play(config, part, clock, |state, random| {
        if let Some(mv) = state.sample(random) {
            state.apply_legal(&mv);
        }
    });
    let points = points(config, 256);
    let mut out = Vec::new();
    let list_ns = nanoseconds(part, clock, &points, |point| {
        black_box(&point.state).legal_moves(&mut out);
        black_box(&out);
    });
    let copy_ns = nanoseconds(part / 2, clock, &points, |point| {
        black_box(black_box(&point.state).clone());
    });
    // A move needs a position of its own, so it is measured with the copy, which is taken off.
    let both_ns = nanoseconds(part, clock, &points, |point| {
        let mut state = black_box(&point.state).clone();
        state.apply_legal(&point.mv);
        black_box(&state);
    });
    let mut random = SplitMix64::new(7);
    let sample_ns = nanoseconds(part / 2, clock, &points, |point| {
        black_box(black_box(&point.state).sample(&mut random));
    });
    Cost {
        config,
        games: played.games,
        moves: played.moves,
        longest: played.longest,
        bound: config.most_moves(config.board.rings_per_player()),
        games_per_second: lossy(played.games) / played.seconds,
        moves_per_second: lossy(played.moves) / played.seconds,
        sampled_moves_per_second: lossy(sampled.moves) / sampled.seconds,
        list_ns,
        apply_ns: (both_ns - copy_ns).max(0.0),
        copy_ns,
        sample_ns,
    }
}

/// Number of positions of a fixed search over fixed positions of all twelve configurations, mixed
/// with the number of moves listed on the way. It changes only when legal lists, their order or the
/// effects of moves do: a change of behaviour cannot pass unseen.
pub fn signature() -> u64 {
    let mut nodes = 0u64;
    for config in Config::ALL {
        let small = config.board.cell_count() < 100;
        let (stride, depth) = if small { (23, 4) } else { (97, 3) };
        let mut random = SplitMix64::new(2026);
        let mut state = State::new(config, Options::default());
        let mut moves = Vec::new();
        while !state.is_over() {
            state.legal_moves(&mut moves);
            if state.move_number().is_multiple_of(stride) {
                search(&state, depth, &mut nodes);
            }
            state.apply_legal(&moves[random.below(moves.len())]);
        }
    }
    nodes
}

/// Visits some of the moves of each position, to a fixed depth.
fn search(state: &State, depth: u32, nodes: &mut u64) {
    let mut moves = Vec::new();
    state.legal_moves(&mut moves);
    *nodes += 1 + moves.len() as u64;
    if depth == 0 {
        return;
    }
    for mv in moves.iter().step_by(moves.len().div_ceil(5).max(1)) {
        let mut next = state.clone();
        next.apply_legal(mv);
        search(&next, depth - 1, nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new number is a change of behaviour: say so in the commit, and raise the rules version.
    #[test]
    fn the_signature_is_the_recorded_one() {
        assert_eq!(signature(), 124_110);
    }

    #[test]
    fn a_measurement_fills_every_figure() {
        let ticks = core::cell::Cell::new(0u64);
        let clock = || {
            ticks.set(ticks.get() + 1);
            Duration::from_millis(ticks.get())
        };
        let cost = measure(CONFIGS[0], Duration::from_millis(12), &clock);
        assert!(cost.games > 0 && cost.moves > cost.games);
        assert!(cost.longest > 10 && cost.longest <= cost.bound);
        for figure in [cost.games_per_second, cost.moves_per_second, cost.list_ns, cost.sample_ns] {
            assert!(figure > 0.0, "{cost:?}");
        }
    }
}
