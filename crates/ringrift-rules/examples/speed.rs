//! Speed of random play with full legal lists, and of copying a position:
//! `cargo run --release -p ringrift-rules --example speed [config] [games]`.
//!
//! The number of moves is the signature of the rules: it changes only when legal lists do.

#![expect(clippy::print_stdout, reason = "it is what the example is for")]
#![expect(clippy::disallowed_types, reason = "it measures real time, nothing waits for it")]

use std::hint::black_box;
use std::time::Instant;

use ringrift_rules::{Config, Options, SplitMix64, State};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let configs: Vec<Config> = match arguments.next() {
        Some(name) => vec![name.parse().expect("a configuration")],
        None => Config::ALL.to_vec(),
    };
    let games: u32 = arguments.next().map_or(200, |n| n.parse().expect("a number of games"));
    for config in configs {
        // Large boards have games of a thousand moves.
        let games = if config.board.cell_count() < 100 { games } else { games.div_ceil(20) };
        let mut random = SplitMix64::new(1);
        let (mut moves, mut listed) = (0u64, 0u64);
        let mut list = Vec::new();
        let mut middle = State::new(config, Options::default());
        let started = Instant::now();
        for _ in 0..games {
            let mut state = State::new(config, Options::default());
            while !state.is_over() {
                state.legal_moves(&mut list);
                listed += list.len() as u64;
                state.apply_legal(&list[random.below(list.len())]);
                moves += 1;
                if state.move_number() == 100 {
                    middle = state.clone();
                }
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let copies = 200_000u32;
        let started = Instant::now();
        for _ in 0..copies {
            black_box(black_box(&middle).clone());
        }
        let copy = started.elapsed() / copies;
        let rate = f64::from(u32::try_from(moves).unwrap_or(u32::MAX)) / seconds;
        println!(
            "{config}: {moves} moves in {games} games, {listed} listed, {rate:.0} moves/s, copy {copy:?}"
        );
    }
}
