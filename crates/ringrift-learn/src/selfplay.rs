//! Self-play: a network plays itself and notes what its search found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ringrift_player::{Network, SearchSettings, Searcher};
use ringrift_rules::record::{GameRecord, GameResult};
use ringrift_rules::{Config, Options, RULES_VERSION, State};
use serde::{Deserialize, Serialize};

use crate::games::{self, Decision, PlayedGame};
use crate::progress::{Flow, Progress};

/// Name of the file in the output folder.
pub const GAMES_FILE: &str = "games.jsonl.gz";

/// Recorded moves after which a game counts as endless, which the rules exclude: the longest known one has 1,165.
/// Source: spec/learning.md section 3.1.
const ENDLESS: usize = 20_000;

/// How games are played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Games to play.
    pub games: u32,
    /// Number of the first one; a game depends on the seed and its number, not on the call that plays it.
    pub first: u64,
    /// Simulations of a full search, which gives a policy target.
    pub simulations: u32,
    /// Simulations of a fast search, which moves the game on and gives a value target only.
    pub fast_simulations: u32,
    /// Share of full searches among all, 0..=1.
    pub full_share: f32,
    /// Searched decisions per game whose move is drawn from the improved policy instead of chosen.
    pub temperature_moves: u32,
    /// Flatness of that draw: 1 as it is, more = flatter.
    pub temperature: f32,
    /// Most random decisions at the start of a game; each game draws its own number, 0 included.
    pub opening_moves: u32,
    /// Share of games in which one seat is played by one of the opponents, 0..=1; without opponents no effect.
    pub opponent_share: f32,
    /// Most root moves that share the simulations.
    pub considered: usize,
    /// Where all chance comes from; equal seeds give equal files.
    pub seed: u64,
}

impl Default for Settings {
    /// Measured on `hex8_2p`, one busy core: 20 to 40 games a second; three trainings on 2000 games each gave three promotions in four
    /// minutes, which scored 0.89, 0.95, 0.98 against the random network at 32 simulations each. Trainings on 1000 games each: 0.93, 0.92, 0.90, 0.95;
    /// on `square8_2p` 0.87, 0.93, 0.94, -, 0.95, 0.98. With half the simulations it is twice as fast and the first candidates are weaker.
    fn default() -> Self {
        Self {
            games: 100,
            first: 0,
            simulations: 64,
            fast_simulations: 16,
            full_share: 0.5,
            temperature_moves: 12,
            temperature: 1.0,
            opening_moves: 4,
            opponent_share: 0.1,
            considered: 16,
            seed: 1,
        }
    }
}

/// What was played.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Finished games in it.
    pub games: u64,
    /// Searched decisions.
    pub positions: u64,
    /// Decisions with a policy target.
    pub policies: u64,
    /// Recorded moves.
    pub moves: u64,
    /// Simulations really done.
    pub simulations: u64,
    /// Games won per seat, seat 1 first.
    pub wins: Vec<u64>,
    /// Games per reason of their end.
    pub reasons: BTreeMap<String, u64>,
    /// Mean recorded moves per game.
    pub mean_length: f64,
    /// Time it took, in seconds.
    pub seconds: f64,
    /// Whether the caller stopped before all games were played.
    pub stopped: bool,
}

/// Plays games and writes them to [`GAMES_FILE`] in `out_dir`.
///
/// A stop lets the game in hand finish; games so far are written. `opponents` are older networks that a share of the games is
/// played against; their decisions are no samples.
///
/// # Errors
/// Settings out of range, a network that cannot be used, an endless game (a fault of the rules), and a file that cannot be written.
pub fn run(
    settings: &Settings,
    config: Config,
    network: &[u8],
    opponents: &[Vec<u8>],
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> anyhow::Result<Report> {
    settings.check()?;
    let learner = Contender::new(settings, config, network).context("the network that learns")?;
    let others = opponents
        .iter()
        .map(|bytes| Contender::new(settings, config, bytes))
        .collect::<anyhow::Result<Vec<_>>>()
        .context("an opponent of self-play")?;
    let mut table = Table { settings, config, learner, others };
    let mut report = Report {
        file: out_dir.join(GAMES_FILE),
        wins: vec![0; usize::from(config.players)],
        ..Report::default()
    };
    let mut played = Vec::new();
    for index in 0..settings.games {
        if progress.beat(index.into(), settings.games.into()) == Flow::Stop {
            report.stopped = true;
            break;
        }
        let (game, simulations) = table.play(settings.first + u64::from(index), progress)?;
        report.count(&game, simulations);
        played.push(game);
    }
    games::write(&report.file, &played)?;
    report.mean_length =
        crate::progress::float(report.moves) / crate::progress::float(report.games.max(1));
    report.seconds = progress.elapsed().as_secs_f64();
    Ok(report)
}

impl Settings {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let share = |x: f32| (0.0..=1.0).contains(&x);
        ensure!(self.games > 0, "games is 0, self-play needs at least 1");
        ensure!(self.simulations > 0, "simulations is 0, a full search needs at least 1");
        ensure!(share(self.full_share), "full_share is {}, not within 0..=1", self.full_share);
        ensure!(
            self.full_share > 0.0,
            "full_share is 0, so that there would be no policy target at all"
        );
        ensure!(
            self.full_share >= 1.0 || self.fast_simulations > 0,
            "fast_simulations is 0, a fast search needs at least 1"
        );
        let usual = self.temperature.is_finite() && self.temperature > 0.0;
        ensure!(usual, "temperature is {}, not above 0", self.temperature);
        let opponents = self.opponent_share;
        ensure!(share(opponents), "opponent_share is {opponents}, not within 0..=1");
        ensure!(self.considered > 0, "considered is 0, a search needs at least one root move");
        Ok(())
    }
}

impl Report {
    fn count(&mut self, game: &PlayedGame, simulations: u64) {
        self.games += 1;
        self.moves += game.record.moves.len() as u64;
        self.positions += game.decisions.len() as u64;
        self.policies += game.decisions.iter().filter(|d| !d.policy.is_empty()).count() as u64;
        self.simulations += simulations;
        if let Some(result) = &game.record.result {
            self.wins[usize::from(result.winner) - 1] += 1;
            *self.reasons.entry(result.reason.clone()).or_default() += 1;
        }
    }
}

/// A network at the table.
struct Contender {
    name: String,
    searcher: Searcher,
    full: SearchSettings,
    fast: SearchSettings,
}

impl Contender {
    fn new(settings: &Settings, config: Config, bytes: &[u8]) -> anyhow::Result<Self> {
        let network = Network::for_config(bytes, config)?;
        let full = SearchSettings {
            simulations: settings.simulations,
            considered: settings.considered,
            noise: 1.0,
            ..SearchSettings::default()
        };
        let fast = SearchSettings { simulations: settings.fast_simulations, noise: 0.0, ..full };
        Ok(Self { name: games::hash(bytes), searcher: Searcher::new(network), full, fast })
    }
}

struct Table<'a> {
    settings: &'a Settings,
    config: Config,
    learner: Contender,
    others: Vec<Contender>,
}

impl Table<'_> {
    /// Plays one game to its end; gives it and the simulations it took.
    fn play(
        &mut self,
        number: u64,
        progress: &mut dyn Progress,
    ) -> anyhow::Result<(PlayedGame, u64)> {
        let settings = self.settings;
        let seed = game_seed(settings.seed, number);
        let mut rng = fastrand::Rng::with_seed(seed);
        let seats = usize::from(self.config.players);
        let guest = (!self.others.is_empty() && rng.f32() < settings.opponent_share)
            .then(|| (rng.usize(..seats), rng.usize(..self.others.len())));
        let mut random_left = rng.u32(..=settings.opening_moves);
        let mut drawn_left = settings.temperature_moves;

        let mut state = State::new(self.config, Options::default());
        let (mut moves, mut texts, mut decisions) = (Vec::new(), Vec::new(), Vec::new());
        let mut simulations = 0_u64;
        while !state.is_over() {
            ensure!(
                texts.len() < ENDLESS,
                "game {number} of seed {} has no end after {ENDLESS} moves: the rules are broken",
                settings.seed
            );
            state.legal_moves(&mut moves);
            let chooser = state.to_move().index();
            let index = if moves.len() == 1 {
                0
            } else if random_left > 0 {
                random_left -= 1;
                rng.usize(..moves.len())
            } else {
                let full = rng.f32() < settings.full_share;
                let is_guest = guest.is_some_and(|(seat, _)| seat == chooser);
                let contender = match guest {
                    Some((seat, index)) if seat == chooser => &mut self.others[index],
                    _ => &mut self.learner,
                };
                let effort = if full { contender.full } else { contender.fast };
                let found = contender.searcher.search(&state, &moves, &effort, &mut rng);
                simulations += u64::from(found.simulations);
                if !is_guest {
                    decisions.push(Decision {
                        at: texts.len(),
                        values: found.values.seats().to_vec(),
                        policy: if full {
                            games::name_policy(&state, &moves, &found.policy)
                        } else {
                            Vec::new()
                        },
                    });
                }
                if drawn_left > 0 {
                    drawn_left -= 1;
                    draw(&found.policy, settings.temperature, &mut rng)
                } else {
                    found.chosen
                }
            };
            texts.push(state.notate(&moves[index]));
            state.apply_legal(&moves[index]);
            progress.position(&state, &moves[index]);
        }

        let players = (0..seats).map(|seat| match guest {
            Some((taken, index)) if taken == seat => self.others[index].name.clone(),
            _ => self.learner.name.clone(),
        });
        let record = GameRecord {
            id: format!("{}-{}-{number}", self.config, settings.seed),
            config: self.config,
            options: Options::default(),
            seed,
            players: players.collect(),
            moves: texts,
            result: GameResult::of(&state),
        };
        let game = PlayedGame {
            rules: RULES_VERSION.to_owned(),
            model: self.learner.name.clone(),
            search: format!(
                "gumbel {} simulations, {} in fast searches, {} root moves, followed from a prior of {}",
                settings.simulations,
                settings.fast_simulations,
                settings.considered,
                SearchSettings::default().follow
            ),
            record,
            decisions,
        };
        Ok((game, simulations))
    }
}

/// Seed of one game: neighbouring numbers must not give related generators.
pub(crate) fn game_seed(seed: u64, number: u64) -> u64 {
    let mut mixer = ringrift_rules::SplitMix64::new(seed);
    let start = mixer.next_u64();
    ringrift_rules::SplitMix64::new(start ^ number).next_u64()
}

/// Draws an index with probability proportional to `policy` to the power 1 / `temperature`.
fn draw(policy: &[f32], temperature: f32, rng: &mut fastrand::Rng) -> usize {
    let weights: Vec<f32> = policy.iter().map(|p| p.powf(temperature.recip())).collect();
    let mut left = rng.f32() * weights.iter().sum::<f32>();
    for (index, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return index;
        }
    }
    // Rounding may leave a rest behind the last move.
    weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0)
}
