//! What self-play, the network and training cost, for `cargo xtask bench learn`: prints one JSON object.
//! `cargo run --release -p ringrift-learn --example learn_bench -- CONFIG FOLDER [GAMES [SECONDS [KERNELS]]]`
//!
//! It leaves `network.safetensors` and `positions.json` in FOLDER, for programs that do the same with other libraries: positions of its
//! self-play as the network sees them, what the network says about them, and what it is to learn from them. KERNELS are for the figures of
//! the network; self-play and training take the best there are.

#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ringrift_learn::games::Games;
use ringrift_learn::{Flow, Progress, Unwatched, export, selfplay, train};
use ringrift_player::{Encoded, Instructions, Kernels, MoveRows, Network, Scratch};
use ringrift_rules::{Config, Move, State};
use rustix::time::{ClockId, clock_gettime};

/// Positions that are evaluated over and over: more than caches hold, as in a search.
const POSITIONS: usize = 4096;
const BATCH: usize = 64;
/// Positions that other programs get.
const EXPORTED: usize = 1024;

/// Time of this thread on a processor: others on the machine cost it little.
fn clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("the clock starts at zero and goes on")
}

/// Counts the time from the first step of a training on.
#[derive(Default)]
struct Watch {
    start: Option<Duration>,
}

impl Progress for Watch {
    fn beat(&mut self, _done: u64, _total: u64) -> Flow {
        self.start.get_or_insert_with(clock);
        Flow::Continue
    }

    fn elapsed(&self) -> Duration {
        self.start.map_or(Duration::ZERO, |start| clock().saturating_sub(start))
    }
}

struct Position {
    state: State,
    moves: Vec<Move>,
    encoded: Encoded,
    rows: Vec<MoveRows>,
    /// What the search found: one probability per move, and the mover's chance to win.
    policy: Vec<f32>,
    chance: f32,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [config, folder, rest @ ..] = words.as_slice() else {
        bail!("usage: bench CONFIG FOLDER [GAMES [SECONDS [KERNELS]]]");
    };
    let config: Config = config.parse()?;
    let folder = PathBuf::from(folder);
    fs_err::create_dir_all(&folder)?;
    let games: u32 = rest.first().map_or(Ok(100), |text| text.parse()).context("GAMES")?;
    let seconds: f64 = rest.get(1).map_or(Ok(2.0), |text| text.parse()).context("SECONDS")?;
    let budget = Duration::from_secs_f64(seconds);
    let mut network = Network::random(config, 1);
    if let Some(name) = rest.get(2) {
        let known = Instructions::ALL.into_iter().find(|known| known.name() == name);
        let instructions = known.with_context(|| format!("no kernels {name:?}"))?;
        let kernels = Kernels::of(instructions);
        let kernels = kernels.with_context(|| format!("this processor has no {name}"))?;
        network = network.with_kernels(kernels);
    }
    fs_err::write(folder.join("network.safetensors"), network.to_bytes())?;

    let start = clock();
    let settings =
        selfplay::Settings { games, simulations: 64, full_share: 1.0, ..Default::default() };
    let file = network.to_bytes();
    let played = selfplay::run(&settings, config, &file, &[], &folder, &mut Unwatched)?;
    let selfplay = clock().saturating_sub(start).as_secs_f64();
    let exported = export::run(
        &export::Settings::default(),
        config,
        std::slice::from_ref(&played.file),
        &folder,
        &mut Unwatched,
    )?;

    let positions = positions(&network, &played.file)?;
    hand_out(&network, &positions, &folder)?;
    let count = |of: &dyn Fn(&Position) -> usize| {
        let sum: usize = positions.iter().map(of).sum();
        share(sum as u64, positions.len() as u64)
    };
    let mut logits = Vec::new();
    let network_single = per_second(&positions, budget, |position| {
        black_box(network.evaluate_encoded(&position.encoded, &position.rows, &mut logits));
    });
    let value_single = per_second(&positions, budget, |position| {
        black_box(network.evaluate_encoded(&position.encoded, &[], &mut logits));
    });
    let mut results = Vec::with_capacity(BATCH);
    let network_batch = per_second(&positions, budget, |position| {
        if results.len() == BATCH {
            black_box(&mut results).clear();
        }
        results.push(network.evaluate_encoded(&position.encoded, &position.rows, &mut logits));
    });
    let mut encoded = Encoded::default();
    let encode = per_second(&positions, budget, |position| {
        network.encoder().encode(&position.state, &mut encoded);
    });
    let mut rows = Vec::new();
    let encode_moves = per_second(&positions, budget, |position| {
        network.encoder().encode_moves(&position.state, &position.moves, &mut rows);
    });
    let mut moves = Vec::new();
    let legal_moves = per_second(&positions, budget, |position| {
        position.state.legal_moves(&mut moves);
    });
    let mut scratch = Scratch::default();
    let evaluate = per_second(&positions, budget, |position| {
        let Position { state, moves, .. } = position;
        black_box(network.evaluate(state, moves, &mut scratch, &mut logits));
    });

    let settings = train::Settings { steps: 400, checkpoint_steps: 1000, ..Default::default() };
    let trained =
        train::run(&settings, &exported.file, Some(&file), &folder, &mut Watch::default())?;

    let printed = serde_json::json!({
        "config": config.to_string(),
        "kernels": network.kernels().instructions().name(),
        "games": played.games,
        "simulations": played.simulations,
        "games_per_second": f64::from(games) / selfplay,
        "simulations_per_second": share(played.simulations, 1) / selfplay,
        "positions": positions.len(),
        "features": count(&|position| position.encoded.features.len()),
        "moves": count(&|position| position.moves.len()),
        "network_per_second": network_single,
        "network_batch_per_second": network_batch,
        "value_per_second": value_single,
        "evaluate_per_second": evaluate,
        "encode_per_second": encode,
        "encode_moves_per_second": encode_moves,
        "legal_moves_per_second": legal_moves,
        "batch": settings.batch,
        "trained_per_second": trained.samples_per_second,
    });
    println!("{printed}");
    Ok(())
}

/// Searched positions of the games, as the network sees them.
fn positions(network: &Network, file: &Path) -> anyhow::Result<Vec<Position>> {
    let mut positions = Vec::new();
    for game in Games::open(file)? {
        let game = game?;
        let mut state = State::new(game.record.config, game.record.options);
        let mut decisions = game.decisions.iter().peekable();
        for (at, text) in game.record.moves.iter().enumerate() {
            if let Some(decision) = decisions.next_if(|decision| decision.at == at) {
                if positions.len() == POSITIONS {
                    return Ok(positions);
                }
                let (mut moves, mut encoded, mut rows) =
                    (Vec::new(), Encoded::default(), Vec::new());
                state.legal_moves(&mut moves);
                network.encoder().encode(&state, &mut encoded);
                network.encoder().encode_moves(&state, &moves, &mut rows);
                let named = |played: &Move| {
                    let name = state.notate(played);
                    let found = decision.policy.iter().find(|(known, _)| *known == name);
                    found.map_or(0.0, |(_, probability)| *probability)
                };
                let policy = moves.iter().map(named).collect();
                let chance = decision.values[usize::from(encoded.mover)].midpoint(1.0);
                let state = state.clone();
                positions.push(Position { state, moves, encoded, rows, policy, chance });
            }
            let played = state.parse(text)?;
            state.apply_legal(&played);
        }
    }
    Ok(positions)
}

/// Writes positions for programs that have no encoder.
fn hand_out(network: &Network, positions: &[Position], folder: &Path) -> anyhow::Result<()> {
    let encoder = network.encoder();
    let mut logits = Vec::new();
    let positions: Vec<_> = positions
        .iter()
        .take(EXPORTED)
        .map(|position| {
            let Position { encoded, rows, policy, chance, .. } = position;
            let views: Vec<Vec<u32>> = (0..usize::from(network.config().players))
                .map(|turn| {
                    encoded.features.iter().map(|&f| encoder.view(turn)[f as usize]).collect()
                })
                .collect();
            let values = network.evaluate_encoded(encoded, rows, &mut logits);
            serde_json::json!({
                "views": views,
                "rows": rows,
                "policy": policy,
                "chance": chance,
                "logits": logits,
                "value": values.seats()[usize::from(encoded.mover)],
            })
        })
        .collect();
    let text = serde_json::to_vec(&serde_json::json!({
        "features": encoder.features(),
        "rows": encoder.rows(),
        "positions": positions,
    }))?;
    Ok(fs_err::write(folder.join("positions.json"), text)?)
}

/// How often a second the work is done, the best of three attempts.
fn per_second(positions: &[Position], budget: Duration, mut work: impl FnMut(&Position)) -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..3 {
        let (start, mut done) = (clock(), 0);
        let took = loop {
            positions.iter().for_each(&mut work);
            done += positions.len() as u64;
            let took = clock().saturating_sub(start);
            if took >= budget / 3 {
                break took;
            }
        };
        best = best.max(share(done, 1) / took.as_secs_f64());
    }
    best
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench stay far below 2^52")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
