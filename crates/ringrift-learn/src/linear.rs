//! Training the linear baseline: self-play, one move ahead, and TD(lambda) after every game.
//!
//! It exists to be beaten: a network that does not beat it has learned nothing that a sum of learned numbers does not know.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use ringrift_player::{Active, Linear, Values, best_for};
use ringrift_rules::{Config, Options, State};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::progress::{Flow, Progress, float};
use crate::selfplay::game_seed;

/// Name of the file in the output folder.
pub const LINEAR_FILE: &str = "linear.safetensors";

/// Games after which a step is 1 / sqrt(2) of the first one.
const SLOWER: f32 = 1000.0;

/// How it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Games of self-play; the caller may stop before.
    pub games: u64,
    /// How far back a result counts, 0..=1: 1 = every position is compared with the end of its game, 0 = with the next position.
    pub lambda: f32,
    /// How far the value of a position moves to what it should be in the first game, above 0. It falls with the root of the games.
    pub rate: f32,
    /// Share of random decisions, 0..=1.
    pub exploration: f32,
    /// Most random decisions at the start of a game; each game draws its own number, 0 included.
    pub opening_moves: u32,
    /// Where all chance comes from; equal seeds give equal files.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { games: 1000, lambda: 0.5, rate: 1.0, exploration: 0.1, opening_moves: 8, seed: 1 }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Games played and learned from.
    pub games: u64,
    /// Decisions in them.
    pub positions: u64,
    /// Recorded moves in them.
    pub moves: u64,
    /// Mean square of what a value was off its target, as a chance to win, over the last tenth of the games.
    pub error: f64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Whether the caller stopped before all games were played.
    pub stopped: bool,
}

/// Trains from zero weights, or from the bytes of an earlier file, and writes [`LINEAR_FILE`] into `out_dir`.
///
/// A stop lets the game in hand finish; what was learned until then is written.
///
/// # Errors
/// Settings out of range, a file that does not fit, weights that grow without bound, a file that cannot be written.
pub fn run(
    settings: &Settings,
    config: Config,
    start: Option<&[u8]>,
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> anyhow::Result<Report> {
    settings.check()?;
    let linear = match start {
        Some(bytes) => Linear::for_config(bytes, config).context("the function to go on from")?,
        None => Linear::zero(config),
    };
    let mut learner = Learner::new(linear, settings.clone());
    let mut report = Report { file: out_dir.join(LINEAR_FILE), ..Report::default() };
    // Per game; the caller may stop it at any time, so that nobody knows before which are the last ones.
    let mut errors = Vec::new();
    for number in 0..settings.games {
        if progress.beat(number, settings.games) == Flow::Stop {
            report.stopped = true;
            break;
        }
        let game = learner.play(number, progress);
        let error = learner.learn(&game, settings.rate_after(learner.linear.games()));
        learner.linear.add_games(1);
        ensure!(
            error.is_finite(),
            "game {number}: the weights grow without bound; rate {} is too large",
            settings.rate
        );
        errors.push((error, game.decisions.len() as u64));
        report.games += 1;
        report.positions += game.decisions.len() as u64;
        report.moves += game.moves;
    }
    let late = &errors[errors.len() - errors.len().div_ceil(10)..];
    let off: f64 = late.iter().map(|(error, _)| error).sum();
    let compared: u64 = late.iter().map(|(_, decisions)| decisions).sum();
    report.error = off / float(compared.max(1) * u64::from(config.players));
    files::write_bytes(&report.file, &learner.linear.to_bytes())?;
    report.seconds = progress.elapsed().as_secs_f64();
    Ok(report)
}

impl Settings {
    /// Steps get smaller, or late games would shake what early ones have settled.
    #[expect(clippy::cast_precision_loss, reason = "only the order of magnitude matters")]
    fn rate_after(&self, games: u64) -> f32 {
        self.rate / (1.0 + games as f32 / SLOWER).sqrt()
    }

    /// Refuses what no training could go by.
    ///
    /// # Errors
    /// A sentence with the key, its value and what is allowed.
    pub fn check(&self) -> anyhow::Result<()> {
        let share = |x: f32| (0.0..=1.0).contains(&x);
        ensure!(self.games > 0, "games is 0, training needs at least 1");
        ensure!(share(self.lambda), "lambda is {}, not within 0..=1", self.lambda);
        ensure!(share(self.exploration), "exploration is {}, not within 0..=1", self.exploration);
        let usual = self.rate.is_finite() && self.rate > 0.0;
        ensure!(usual, "rate is {}, not above 0", self.rate);
        Ok(())
    }
}

/// A position with a decision.
struct Decision {
    state: State,
    /// What the best move promised.
    promised: Values,
    /// Whether another move was played, by chance.
    explored: bool,
}

struct Game {
    decisions: Vec<Decision>,
    outcome: Values,
    moves: u64,
}

struct Learner {
    linear: Linear,
    settings: Settings,
    active: Active,
    values: Vec<Values>,
}

impl Learner {
    fn new(linear: Linear, settings: Settings) -> Self {
        Self { linear, settings, active: Active::default(), values: Vec::new() }
    }

    fn play(&mut self, number: u64, progress: &mut dyn Progress) -> Game {
        let config = self.linear.config();
        let mut rng = fastrand::Rng::with_seed(game_seed(self.settings.seed, number));
        let mut state = State::new(config, Options::default());
        let (mut moves, mut decisions, mut count) = (Vec::new(), Vec::new(), 0);
        let mut opening = rng.u32(..=self.settings.opening_moves);
        loop {
            if let Some(outcome) = state.outcome() {
                let outcome = Values::won(usize::from(config.players), outcome.winner.index());
                return Game { decisions, outcome, moves: count };
            }
            state.legal_moves(&mut moves);
            let chosen = if moves.len() == 1 {
                0
            } else {
                self.linear.look_ahead(&state, &moves, &mut self.active, &mut self.values);
                let best = best_for(state.to_move().index(), &self.values, &mut rng);
                let explored = opening > 0 || rng.f32() < self.settings.exploration;
                opening = opening.saturating_sub(1);
                let (state, promised) = (state.clone(), self.values[best]);
                decisions.push(Decision { state, promised, explored });
                if explored { rng.usize(..moves.len()) } else { best }
            };
            state.apply_legal(&moves[chosen]);
            progress.position(&state, &moves[chosen]);
            count += 1;
        }
    }

    /// Moves the value of each position towards its lambda-return, the last position first; gives the sum of squares that they were off.
    ///
    /// A position's return mixes what the best move promised with the return of the position that came of it. After a random move the
    /// rest of the game says nothing about the position, so only the promise counts (Watkins).
    fn learn(&mut self, game: &Game, rate: f32) -> f64 {
        let players = usize::from(self.linear.config().players);
        let mut target = game.outcome;
        let mut off = 0.0;
        for decision in game.decisions.iter().rev() {
            if decision.explored {
                target = decision.promised;
            } else {
                let mut mixed = decision.promised.scaled(1.0 - self.settings.lambda);
                mixed.add(&target, self.settings.lambda);
                target = mixed;
            }
            self.linear.activate(&decision.state, &mut self.active);
            let values = self.linear.values(&self.active);
            for seat in 0..players {
                let error = target.chance(seat) - values.chance(seat);
                off += f64::from(error * error);
                self.nudge(seat, rate * error);
            }
        }
        off
    }

    /// The gradient of the cross-entropy: each active weight of the seat gets its share.
    #[expect(clippy::cast_precision_loss, reason = "some hundred active weights")]
    fn nudge(&mut self, seat: usize, error: f32) {
        let list = self.active.of(seat);
        let step = error / list.len() as f32;
        let weights = self.linear.weights_mut();
        for &index in list {
            weights[index as usize] += step;
        }
    }
}

#[cfg(test)]
mod tests;
