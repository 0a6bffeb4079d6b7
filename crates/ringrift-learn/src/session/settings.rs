//! Every number of the schedule, in one place.

use anyhow::{Context, ensure};
use ringrift_player::PlayerSpec;
use serde::{Deserialize, Serialize};

use crate::{arena, export, selfplay, train};

/// How a run goes. What its order gives (seed, threads, how long) is no setting; what the schedule sets for a step (the seeds, the
/// number of the first game) is overwritten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Self-play from where [`Settings::early`] ends; `games` are those of one iteration.
    pub selfplay: selfplay::Settings,
    /// Cheaper iterations at the start, in order. Early networks know little, so that many games teach more than deep searches.
    /// Source of the idea: `MiniZero`, progressive simulation.
    pub early: Vec<Stage>,
    /// The last accepted champions that are opponents in self-play, see `selfplay.opponent_share`.
    pub pool: usize,
    /// Limits of the data reports.
    pub export: export::Settings,
    /// What training sees.
    pub window: Window,
    /// Training; `steps` are the most of one iteration.
    pub train: train::Settings,
    /// How often a new row is trained on, on average; it gives the steps of an iteration.
    pub reuse: f64,
    /// Part of the learning rate that is left at the end of the run; it falls to it evenly.
    pub cooling: f32,
    /// Which network training goes on from.
    pub parent: Parent,
    /// Who becomes champion.
    pub gate: Gate,
    /// Matches after the end.
    pub closing: Closing,
}

/// A cheaper iteration at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// It lasts until so many games were played.
    pub until: u64,
    /// Games of an iteration.
    pub games: u32,
    /// Simulations of a full search.
    pub simulations: u32,
    /// Simulations of a fast search.
    pub fast_simulations: u32,
}

/// What training sees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Window {
    /// Rows it may always have.
    pub least: u64,
    /// Share of all rows so far, beyond which older ones are left out: it grows with the run.
    pub share: f64,
    /// Most rows.
    pub most: u64,
    /// Samples of a network so many trainings older than the newest are still seen.
    pub nets: u32,
}

/// Which network training goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// The newest that passed the file checks.
    Newest,
    /// The champion.
    Champion,
}

/// Who becomes champion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// Simulations of both sides.
    pub simulations: u32,
    /// Most pairs of games.
    pub pairs: u32,
    /// The test that decides.
    pub test: arena::Bounds,
    /// Fixed players that a candidate must not do worse against than the champion.
    pub guards: Vec<String>,
    /// Pairs of games against each of them.
    pub guard_pairs: u32,
    /// Score against a guard that is good enough whatever the champion's.
    pub guard_score: f64,
    /// Elo against a guard that a candidate may lose, compared with the champion.
    pub guard_loss: f64,
}

/// Matches after the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Closing {
    /// Fixed players.
    pub rulers: Vec<Ruler>,
    /// Simulations against earlier networks of the run.
    pub simulations: u32,
    /// Games against the network that the run began with; 0 = none.
    pub first_games: u32,
    /// Games against the champion of half time; 0 = none. With two seats most games, as the test of the gate ends the match.
    pub half_games: u32,
}

/// A fixed player of the closing matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ruler {
    /// Its specification.
    pub player: String,
    /// Games; an even number, as each opening is played twice.
    pub games: u32,
    /// Simulations of the champion; 1 plays what the policy alone prefers.
    pub simulations: u32,
}

impl Default for Settings {
    /// Sources: docs/learning.md, "Settings".
    fn default() -> Self {
        Self {
            selfplay: selfplay::Settings { games: 1000, ..selfplay::Settings::default() },
            early: vec![
                Stage { until: 1_500, games: 500, simulations: 16, fast_simulations: 8 },
                Stage { until: 6_000, games: 1000, simulations: 32, fast_simulations: 8 },
            ],
            pool: 4,
            export: export::Settings::default(),
            window: Window::default(),
            train: train::Settings { steps: 1200, ..train::Settings::default() },
            reuse: 2.0,
            cooling: 0.2,
            parent: Parent::Newest,
            gate: Gate::default(),
            closing: Closing::default(),
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { least: 50_000, share: 0.5, most: 400_000, nets: 12 }
    }
}

impl Default for Gate {
    /// Source: spec/learning.md section 4.1, "in the loop", and the guard of `AUTO_PROMOTION`.
    fn default() -> Self {
        Self {
            simulations: 64,
            pairs: 300,
            test: arena::Bounds::default(),
            guards: vec!["random".to_owned(), "heuristic".to_owned()],
            guard_pairs: 20,
            guard_score: 0.8,
            guard_loss: 30.0,
        }
    }
}

impl Default for Closing {
    /// Source: spec/learning.md section 4, L1 to L5.
    fn default() -> Self {
        let ruler = |player: &str, games, simulations| Ruler {
            player: player.to_owned(),
            games,
            simulations,
        };
        let rulers = [
            ruler("random", 200, 64),
            ruler("heuristic", 400, 64),
            ruler("heuristic", 400, 1),
            ruler("rollout:512", 100, 64),
        ];
        Self { rulers: rulers.to_vec(), simulations: 64, first_games: 200, half_games: 2000 }
    }
}

impl Ruler {
    /// The player.
    pub(super) fn spec(&self) -> Result<PlayerSpec, ringrift_player::ParsePlayerError> {
        self.player.parse()
    }
}

impl Settings {
    /// Refuses what no run could go by.
    ///
    /// # Errors
    /// A sentence with the key, its value and what is allowed.
    pub fn check(&self) -> anyhow::Result<()> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        self.selfplay.check().context("section selfplay")?;
        self.train.check().context("section train")?;
        for (index, stage) in self.early.iter().enumerate() {
            let Stage { games, simulations, fast_simulations, .. } = *stage;
            let fits = games > 0 && simulations > 0 && fast_simulations > 0;
            ensure!(fits, "early.{index} has a 0; games and simulations are at least 1");
        }
        ensure!(
            self.early.is_sorted_by(|a, b| a.until < b.until),
            "early is not in order: each stage ends after the one before"
        );
        let Window { least, share: part, most, .. } = self.window;
        ensure!(share(part), "window.share is {part}, not within 0..=1");
        ensure!(
            0 < least && least <= most,
            "window.least is {least} and window.most {most}; needed is 0 < least <= most"
        );
        ensure!(
            self.reuse > 0.0 && self.reuse <= 1000.0,
            "reuse is {}, not above 0 and at most 1000",
            self.reuse
        );
        ensure!(
            self.cooling > 0.0 && self.cooling <= 1.0,
            "cooling is {}, not above 0 and at most 1",
            self.cooling
        );
        let gate = &self.gate;
        ensure!(gate.simulations > 0, "gate.simulations is 0, a search needs at least 1");
        ensure!(gate.guard_pairs > 0, "gate.guard_pairs is 0, a match needs at least 1");
        ensure!(
            share(gate.guard_score),
            "gate.guard_score is {}, not within 0..=1",
            gate.guard_score
        );
        for guard in &gate.guards {
            let spec: PlayerSpec = guard.parse()?;
            ensure!(is_fixed(&spec), "gate.guards has {guard}, which is no fixed player");
        }
        let closing = &self.closing;
        ensure!(closing.simulations > 0, "closing.simulations is 0, a search needs at least 1");
        for (name, games) in [
            ("closing.first_games", closing.first_games),
            ("closing.half_games", closing.half_games),
        ] {
            ensure!(games % 2 == 0, "{name} is {games}; each opening is played twice");
        }
        for (index, ruler) in closing.rulers.iter().enumerate() {
            let spec = ruler.spec()?;
            let Ruler { player, games, simulations } = ruler;
            ensure!(is_fixed(&spec), "closing.rulers has {player}, which is no fixed player");
            ensure!(
                *games > 0 && games % 2 == 0,
                "closing.rulers.{index}.games is {games}; allowed are even numbers from 2 on"
            );
            ensure!(
                *simulations > 0,
                "closing.rulers.{index}.simulations is 0, at least 1 is needed"
            );
        }
        Ok(())
    }

    /// Self-play of an iteration that begins after so many games.
    pub(super) fn selfplay_after(&self, games: u64) -> selfplay::Settings {
        let mut settings = self.selfplay.clone();
        if let Some(stage) = self.early.iter().find(|stage| games < stage.until) {
            settings.games = stage.games;
            settings.simulations = stage.simulations;
            settings.fast_simulations = stage.fast_simulations;
        }
        settings
    }
}

impl Window {
    /// Most rows of the window after so many rows in all.
    pub(super) fn rows(&self, all: u64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count of rows is a count of rows"
        )]
        let part = (crate::progress::float(all) * self.share) as u64;
        part.clamp(self.least, self.most)
    }
}

/// Is the player the same in every run?
fn is_fixed(spec: &PlayerSpec) -> bool {
    !matches!(spec, PlayerSpec::Model { .. })
}
