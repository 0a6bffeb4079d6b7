//! What a person sees who looks at a running manager: one line per thing worth knowing.

use std::collections::{BTreeMap, BTreeSet};

use courier::Stream;
use ringrift_pipeline::{CatalogueError, Config, Event, TestDecision, WorkKind};
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};
use tracing::warn;

use super::goal::Goal;
use crate::{commands::lists::elo_text, console, state::State};

/// Time between two lines that count games.
const COUNT_EVERY: Duration = Duration::from_mins(1);
/// Facts read at a time.
const CHUNK: usize = 500;

/// What was saved while this manager ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    /// Games committed.
    pub games: u64,
    /// Models made.
    pub models: u64,
    /// Models promoted.
    pub promotions: u64,
}

/// Reads the log from a position on and tells what happens.
pub struct Feed {
    state: State,
    position: u64,
    /// What happened since the start.
    pub saved: Saved,
    began: Instant,
    counted: Instant,
    recent: BTreeMap<Config, u64>,
    /// Configs with games in this run.
    playing: BTreeSet<Config>,
    obstacle: Option<String>,
    failed: Vec<&'static str>,
}

impl Feed {
    /// A feed that begins after `position`.
    pub fn new(state: State, position: u64) -> Self {
        let now = Instant::now();
        Self {
            state,
            position,
            saved: Saved::default(),
            began: now,
            counted: now,
            recent: BTreeMap::new(),
            playing: BTreeSet::new(),
            obstacle: None,
            failed: Vec::new(),
        }
    }

    /// Wakes when there are new facts.
    pub fn tail(&self) -> watch::Receiver<u64> {
        self.state.catalogue.log().tail(Stream::Pipeline)
    }

    /// Tells everything that is new; the log is read only if it moved.
    pub async fn turn(&mut self, moved: bool) {
        if moved {
            self.read().await;
        }
        self.look_at_obstacles();
        self.look_at_daemons();
        if self.counted.elapsed() >= COUNT_EVERY {
            self.count();
        }
        console::status(&self.status_line());
    }

    /// Is the goal reached?
    pub async fn is_reached(&self, goal: Goal) -> Result<bool, CatalogueError> {
        let configs = &self.state.the_loop.configs;
        Ok(goal.reached(&self.state.catalogue, configs).await?.0)
    }

    /// Reads what is new, at the end once more, for the last count.
    pub async fn read(&mut self) {
        loop {
            let log = self.state.catalogue.log();
            let facts = match log.read(Stream::Pipeline, self.position, CHUNK).await {
                Ok(facts) => facts,
                Err(error) => return warn!(%error, "the log cannot be read for the progress lines"),
            };
            let Some(last) = facts.last() else { return };
            self.position = last.position;
            for fact in facts {
                // What does not decode is EVENT_ROUTER's affair: it goes to the dead letters.
                if let Ok(event) = serde_json::from_value::<Event>(fact.body) {
                    self.tell(&event);
                }
            }
        }
    }

    fn tell(&mut self, event: &Event) {
        let line = match event {
            Event::GamesCommitted(games) => {
                if self.playing.insert(games.config) {
                    let (config, games) = (games.config, games.games);
                    self.say(&format!("{config}: the first {games} games of this run are safe"));
                }
                self.saved.games += u64::from(games.games);
                *self.recent.entry(games.config).or_default() += u64::from(games.games);
                return;
            }
            Event::ModelCreated(model) => {
                self.saved.models += 1;
                if model.generation > 0 {
                    return; // the training said so already
                }
                format!("{}: {} with random weights plays first", model.config, model.model)
            }
            Event::TrainingCompleted(training) => format!(
                "{}: {} is trained ({} steps, policy loss {:.3}, value loss {:.3}, {})",
                training.config,
                training.model,
                training.report.steps,
                training.report.policy_loss,
                training.report.value_loss,
                console::duration(training.report.seconds)
            ),
            Event::EvaluationCompleted(gauntlet) => match (&gauntlet.main, &gauntlet.fault) {
                (Some(main), _) => format!(
                    "{}: {} against {}: {} of {} games, Elo {}, {}",
                    gauntlet.config,
                    gauntlet.model,
                    gauntlet.against,
                    main.wins,
                    main.games,
                    elo_text(main),
                    match main.decision {
                        Some(TestDecision::Stronger) => "stronger",
                        Some(TestDecision::NotStronger) => "not stronger",
                        Some(TestDecision::Undecided) | None => "undecided",
                    }
                ),
                (None, fault) => format!(
                    "{}: {} was not played: {}",
                    gauntlet.config,
                    gauntlet.model,
                    fault.as_deref().unwrap_or("no reason was given")
                ),
            },
            Event::ModelPromoted(promoted) => {
                self.saved.promotions += 1;
                format!(
                    "{}: {} IS THE NEW CHAMPION, Elo {:+.0} ({:+.0} to {:+.0}) over {}",
                    promoted.config,
                    promoted.model,
                    promoted.elo,
                    promoted.elo_low,
                    promoted.elo_high,
                    promoted.over
                )
            }
            Event::ModelRejected(rejected) => {
                format!("{}: {} is rejected: {}", rejected.config, rejected.model, rejected.reason)
            }
            Event::WorkQueued(work) if work.job.kind() == WorkKind::Train.as_str() => {
                format!("{}: training begins: {}", work.config, work.reason)
            }
            // Refused batches and failed attempts are warnings of their daemons already.
            _ => return,
        };
        self.say(&line);
    }

    fn look_at_obstacles(&mut self) {
        let now = self.state.pressure.obstacle().map(|(_, obstacle)| obstacle.reason);
        if now == self.obstacle {
            return;
        }
        match &now {
            Some(reason) => self.say(&format!("production stands still: {reason}")),
            None => self.say("production goes on"),
        }
        self.obstacle = now;
    }

    fn look_at_daemons(&mut self) {
        let Some(snapshot) = self.state.bell.snapshot() else { return };
        let failed: Vec<&warden::DaemonView> = snapshot
            .daemons
            .iter()
            .filter(|view| {
                matches!(view.state, warden::State::Failed | warden::State::ImportFailed)
            })
            .collect();
        for view in &failed {
            if !self.failed.contains(&view.id.0) {
                let error = view.last_error.as_deref().unwrap_or("no error was told");
                self.say(&format!("{} is {}: {error}", view.id, view.state));
            }
        }
        self.failed = failed.iter().map(|view| view.id.0).collect();
    }

    /// One line on the games of the last minute.
    fn count(&mut self) {
        let minutes = self.counted.elapsed().as_secs_f64() / 60.0;
        self.counted = Instant::now();
        let recent = std::mem::take(&mut self.recent);
        if recent.is_empty() {
            return;
        }
        let rates: Vec<String> = recent
            .iter()
            .map(|(config, games)| format!("{config} {:.0} games/min", per_minute(*games, minutes)))
            .collect();
        self.say(&format!("{}; {} games in all", rates.join(", "), self.saved.games));
    }

    fn status_line(&self) -> String {
        let works: Vec<String> = self
            .state
            .workshop
            .live()
            .iter()
            .map(|work| {
                let total = if work.total > 0 { format!("/{}", work.total) } else { String::new() };
                format!("{} {} {}{total}", work.config, work.kind, work.done)
            })
            .collect();
        let Saved { games, models, promotions } = self.saved;
        let works = if works.is_empty() { "nothing at work".to_owned() } else { works.join(" | ") };
        format!("{works} -- {games} games, {models} models, {promotions} promotions")
    }

    /// A line with the time since the start.
    pub fn say(&self, line: &str) {
        console::status("");
        let seconds = self.began.elapsed().as_secs();
        console::say(&format!("[{:>3}:{:02}] {line}", seconds / 60, seconds % 60));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_minute(games: u64, minutes: f64) -> f64 {
    games as f64 / minutes.max(1.0 / 60.0)
}
