//! How a run is watched, timed and stopped: many threads work, one caller looks on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::report::{Duel, Point};
use crate::progress::{Flow, Progress, float};
use crate::rating::Rating;

/// The caller's side of a run.
pub trait Host: Sync {
    /// Time since the run was asked for. It decides when a run by minutes ends, and nothing else.
    fn elapsed(&self) -> Duration;

    /// Whether the run should come to an end: what is complete is kept.
    fn stopping(&self) -> bool;

    /// What is going on; said at every game, step and pair.
    fn live(&self, live: &Live) {
        let _ = live;
    }

    /// An iteration is over; `champion` is the number of the network that is champion now.
    fn iterated(&self, point: &Point, champion: usize) {
        let _ = (point, champion);
    }

    /// A match after the end is over.
    fn dueled(&self, duel: &Duel) {
        let _ = duel;
    }
}

/// What a run does at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All threads play.
    Play,
    /// Games become samples.
    Export,
    /// One thread trains, the others play.
    Train,
    /// A candidate is matched.
    Gate,
    /// The last champion is matched.
    Close,
}

/// What is going on.
#[derive(Debug, Clone)]
pub struct Live {
    /// The step.
    pub step: Step,
    /// Units of it that are done: games, steps, pairs.
    pub done: u64,
    /// Units in all, 0 where unknown.
    pub total: u64,
    /// How much of the run is over, 0..=1.
    pub part: f64,
    /// Number of the iteration, from 1.
    pub iteration: usize,
    /// Games of self-play in all.
    pub games: u64,
    /// Games per second in the last step that played.
    pub games_per_second: f64,
    /// Samples per second in the last training.
    pub samples_per_second: f64,
    /// Losses of the last training.
    pub loss: Option<[f64; 2]>,
    /// Number of the network that plays.
    pub net: usize,
    /// When it was there.
    pub net_since: Duration,
    /// Number of the champion.
    pub champion: usize,
    /// Its rating.
    pub rating: Option<Rating>,
}

/// What the threads of a run share.
pub(super) struct Watch<'a> {
    host: &'a dyn Host,
    live: Mutex<Live>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(host: &'a dyn Host) -> Self {
        let live = Live {
            step: Step::Play,
            done: 0,
            total: 0,
            part: 0.0,
            iteration: 1,
            games: 0,
            games_per_second: 0.0,
            samples_per_second: 0.0,
            loss: None,
            net: 0,
            net_since: Duration::ZERO,
            champion: 0,
            rating: None,
        };
        Self { host, live: Mutex::new(live) }
    }

    pub(super) fn host(&self) -> &'a dyn Host {
        self.host
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        // A thread that panicked ends the run; the numbers are for show.
        self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins a step, which ends at the latest when the caller's clock shows `until`.
    pub(super) fn begin(&'a self, step: Step, total: u64, until: Option<Duration>) -> Phase<'a> {
        let mut live = self.live();
        (live.step, live.done, live.total) = (step, 0, total);
        self.host.live(&live);
        Phase {
            watch: self,
            until,
            ended: AtomicBool::new(false),
            began: self.host.elapsed(),
            games: live.games,
        }
    }
}

/// A step of the run.
pub(super) struct Phase<'a> {
    watch: &'a Watch<'a>,
    until: Option<Duration>,
    ended: AtomicBool,
    began: Duration,
    /// Games when it began.
    games: u64,
}

impl Phase<'_> {
    /// Lets those who work in this step come to an end.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Does nobody need to go on?
    pub(super) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.is_interrupted()
    }

    /// Does the caller or the clock want an end?
    pub(super) fn is_interrupted(&self) -> bool {
        let host = self.watch.host;
        host.stopping() || self.until.is_some_and(|until| host.elapsed() >= until)
    }

    /// Seconds since it began.
    pub(super) fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    fn elapsed(&self) -> Duration {
        self.watch.host.elapsed().saturating_sub(self.began)
    }

    /// Progress of the work that this step is named after.
    pub(super) fn work(&self) -> Work<'_> {
        Work { phase: self, began: self.watch.host.elapsed() }
    }

    /// Progress of one thread that plays.
    pub(super) fn games(&self) -> GameWork<'_> {
        GameWork { phase: self, began: self.watch.host.elapsed(), told: 0 }
    }

    fn add_games(&self, games: u64) {
        let mut live = self.watch.live();
        live.games += games;
        let seconds = self.seconds();
        let here = live.games - self.games;
        if seconds > 0.0 && here > 0 {
            live.games_per_second = float(here) / seconds;
        }
        if live.step == Step::Play {
            live.done = here;
        }
        self.watch.host.live(&live);
    }
}

/// See [`Phase::work`].
pub(super) struct Work<'a> {
    phase: &'a Phase<'a>,
    began: Duration,
}

impl Progress for Work<'_> {
    fn beat(&mut self, done: u64, total: u64) -> Flow {
        let mut live = self.phase.watch.live();
        (live.done, live.total) = (done, total);
        self.phase.watch.host.live(&live);
        drop(live);
        if self.phase.is_interrupted() { Flow::Stop } else { Flow::Continue }
    }

    fn elapsed(&self) -> Duration {
        self.phase.watch.host.elapsed().saturating_sub(self.began)
    }
}

/// See [`Phase::games`].
pub(super) struct GameWork<'a> {
    phase: &'a Phase<'a>,
    began: Duration,
    told: u64,
}

impl GameWork<'_> {
    /// So many games are finished.
    pub(super) fn finished(&mut self, games: u64) {
        self.phase.add_games(games.saturating_sub(self.told));
        self.told = games;
    }
}

impl Progress for GameWork<'_> {
    fn beat(&mut self, done: u64, _total: u64) -> Flow {
        self.finished(done);
        if self.phase.is_over() { Flow::Stop } else { Flow::Continue }
    }

    fn elapsed(&self) -> Duration {
        self.phase.watch.host.elapsed().saturating_sub(self.began)
    }
}
