//! The lives of all daemons as one state machine, without tasks, clocks or channels.
//!
//! Time comes in as the age of the supervisor. Every method changes states and leaves commands;
//! whoever drives it carries them out and reports what came of them. That a daemon never has two
//! tasks is visible here: only [`Lifecycle::spawn`] makes one, from a phase that has none.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    DaemonId, GraphError, Health, Reason, RestartPolicy, Spec, State, order::Graph, policy::Next,
};

/// Age of the supervisor.
pub(crate) type At = Duration;

/// Window of [`crate::Hourly`].
const HOUR: Duration = Duration::from_hours(1);

/// What the driver must do; positions are those of the registered list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Make a fresh task; its number is unique per daemon.
    Spawn { at: usize, run: u64 },
    /// Request a stop of the task.
    Ask { at: usize, run: u64 },
    /// End the task at its next wait.
    Abort { at: usize, run: u64 },
    /// No new cycles, or cycles again.
    Pause { at: usize, paused: bool },
    /// Tell people of a change.
    Moved { at: usize, from: State, to: State, reason: Reason, error: Option<String> },
    /// Tell people that a need is not ready for long.
    Late { at: usize, need: usize },
    /// Tell people that a task cannot be ended.
    Hung { at: usize },
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It returned `Ok`.
    Finished,
    /// It returned an error or panicked.
    Crashed(String),
    /// It returned an error that names what the machine lacks.
    Missing(String),
    /// It was aborted.
    Aborted,
}

/// What a reading of a running daemon saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vitals {
    pub(crate) health: Health,
    pub(crate) bad_in_a_row: u32,
    pub(crate) in_cycle: bool,
    pub(crate) last_beat: At,
    pub(crate) due: Option<At>,
}

/// The limits that the machine needs.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) restart: RestartPolicy,
    pub(crate) health_interval: Duration,
    pub(crate) critical_health_interval: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) dependency_wait: Duration,
    pub(crate) abort_grace: Duration,
    pub(crate) bad_results: u32,
}

/// What follows the end of a task that was asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum After {
    Stop,
    StartAgain,
    Crash(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Stopped,
    /// No task yet: needs somebody. `again`: this is a try after a crash.
    Waiting {
        since: At,
        again: bool,
        late: bool,
    },
    /// Has a task that is not ready.
    Starting {
        ready_by: At,
        again: bool,
    },
    /// Has a task that is ready.
    Running {
        since: At,
    },
    /// Has a task that must end.
    Ending {
        after: After,
        abort_at: At,
        aborted: Option<At>,
        hung: bool,
    },
    Backoff {
        until: At,
    },
    Parked {
        until: At,
    },
    Failed,
    ImportFailed,
}

impl Phase {
    fn state(&self) -> State {
        match self {
            Self::Stopped => State::Stopped,
            Self::Waiting { again: false, .. } | Self::Starting { again: false, .. } => {
                State::Starting
            }
            // RESTARTING lasts until it runs again, or fails.
            Self::Waiting { again: true, .. }
            | Self::Starting { again: true, .. }
            | Self::Ending { after: After::Crash(_), .. }
            | Self::Backoff { .. } => State::Restarting,
            Self::Running { .. } => State::Running,
            Self::Ending { .. } => State::Stopping,
            Self::Parked { .. } => State::Degraded,
            Self::Failed => State::Failed,
            Self::ImportFailed => State::ImportFailed,
        }
    }

    fn has_task(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Running { .. } | Self::Ending { .. })
    }
}

#[derive(Debug)]
struct Life {
    spec: &'static Spec,
    phase: Phase,
    asked: bool,
    /// Number of the newest task.
    run: u64,
    /// Crashes in a row.
    crashes: u32,
    /// Times of the crashes of the last hour.
    recent: VecDeque<At>,
    last_error: Option<String>,
    finished: bool,
    pauses: BTreeSet<String>,
    health: Health,
    read_at: At,
}

/// Where a shutdown stands.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// Level whose daemons are ending; all levels above have ended.
    level: usize,
    over: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    rules: Rules,
    graph: Graph,
    lives: Vec<Life>,
    drain: Option<Drain>,
    commands: Vec<Command>,
}

/// What a request to start did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) started: Vec<usize>,
    pub(crate) missing: Vec<usize>,
}

impl Lifecycle {
    pub(crate) fn new(specs: &[&'static Spec], rules: Rules) -> Result<Self, GraphError> {
        let graph = Graph::new(specs)?;
        let life = |&spec: &&'static Spec| Life {
            spec,
            phase: Phase::Stopped,
            asked: false,
            run: 0,
            crashes: 0,
            recent: VecDeque::new(),
            last_error: None,
            finished: false,
            pauses: BTreeSet::new(),
            health: Health::Unknown,
            read_at: At::ZERO,
        };
        let lives = specs.iter().map(life).collect();
        Ok(Self { rules, graph, lives, drain: None, commands: Vec::new() })
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    // ---- requests

    /// Starts the asked and all they need; a person asked, so `FAILED` gets a fresh ladder.
    pub(crate) fn start(&mut self, now: At, asked: &[usize]) -> Begun {
        let mut begun = Begun::default();
        if self.draining() {
            return begun;
        }
        for at in self.graph.closure_of(asked) {
            match &mut self.lives[at].phase {
                Phase::ImportFailed => {
                    begun.missing.push(at);
                    continue;
                }
                Phase::Stopped | Phase::Failed => self.begin(now, at, true),
                Phase::Ending { after: after @ After::Stop, .. } => *after = After::StartAgain,
                _ => {
                    self.lives[at].asked = true;
                    continue;
                }
            }
            self.lives[at].asked = true;
            begun.started.push(at);
        }
        self.settle(now);
        begun
    }

    pub(crate) fn stop(&mut self, now: At, at: usize) {
        self.lives[at].asked = false;
        self.end(now, at, After::Stop, Reason::StopRequested);
        self.settle(now);
    }

    /// A fresh object at once, with a fresh ladder; what it needs is started as well.
    pub(crate) fn restart(&mut self, now: At, at: usize) -> Begun {
        if self.draining() {
            return Begun::default();
        }
        let had_task = self.lives[at].phase.has_task();
        if matches!(self.lives[at].phase, Phase::Backoff { .. } | Phase::Parked { .. }) {
            self.begin(now, at, true);
        }
        let mut begun = self.start(now, &[at]);
        if had_task {
            self.lives[at].crashes = 0;
            self.end(now, at, After::StartAgain, Reason::StopRequested);
            if !begun.started.contains(&at) {
                begun.started.push(at);
            }
            self.settle(now);
        }
        begun
    }

    /// Tries one that is not running; without `force` its crashes still count.
    ///
    /// False from a state in which there is nothing to try, and for `IMPORT_FAILED` without force.
    pub(crate) fn retry(&mut self, now: At, at: usize, force: bool) -> bool {
        let possible = match self.lives[at].phase {
            Phase::Failed | Phase::Stopped | Phase::Backoff { .. } | Phase::Parked { .. } => true,
            Phase::ImportFailed => force,
            _ => false,
        };
        if !possible || self.draining() {
            return false;
        }
        if force {
            self.lives[at].last_error = None;
            self.lives[at].recent.clear();
        }
        self.begin(now, at, force);
        let needs = self.graph.needs(at).to_vec();
        self.start(now, &needs);
        self.settle(now);
        true
    }

    pub(crate) fn pause(&mut self, at: usize, cause: &str) {
        let life = &mut self.lives[at];
        if life.pauses.insert(cause.to_owned()) && life.pauses.len() == 1 {
            self.commands.push(Command::Pause { at, paused: true });
        }
    }

    pub(crate) fn resume(&mut self, at: usize, cause: &str) {
        let life = &mut self.lives[at];
        if life.pauses.remove(cause) && life.pauses.is_empty() {
            self.commands.push(Command::Pause { at, paused: false });
        }
    }

    /// Stops all, the highest level first; asked a second time, all at once and without grace.
    pub(crate) fn shutdown(&mut self, now: At) {
        if self.draining() {
            for at in 0..self.lives.len() {
                self.end(now, at, After::Stop, Reason::Shutdown);
                if let Phase::Ending { abort_at, .. } = &mut self.lives[at].phase {
                    *abort_at = (*abort_at).min(now);
                }
            }
        } else {
            self.drain = Some(Drain { level: self.graph.level_count(), over: false });
            for at in 0..self.lives.len() {
                if matches!(
                    self.lives[at].phase,
                    Phase::Waiting { .. } | Phase::Backoff { .. } | Phase::Parked { .. }
                ) {
                    self.end(now, at, After::Stop, Reason::Shutdown);
                }
            }
        }
        self.settle(now);
    }

    // ---- reports

    pub(crate) fn ready(&mut self, now: At, at: usize, run: u64) {
        if !self.is_current(at, run) {
            return;
        }
        if let Phase::Starting { again, .. } = self.lives[at].phase {
            let reason = if again { Reason::RestartComplete } else { Reason::Ready };
            self.lives[at].read_at = now + self.interval(at);
            self.set(at, Phase::Running { since: now }, reason, None);
        }
        self.settle(now);
    }

    pub(crate) fn ended(&mut self, now: At, at: usize, run: u64, end: End) {
        if !self.is_current(at, run) {
            return;
        }
        self.lives[at].health = Health::Unknown;
        let phase = self.lives[at].phase.clone();
        match phase {
            Phase::Ending { after, .. } => self.ended_as_asked(now, at, after, end),
            Phase::Starting { .. } | Phase::Running { .. } => match end {
                End::Finished => {
                    self.lives[at].finished = true;
                    self.lives[at].asked = false;
                    self.set(at, Phase::Stopped, Reason::Finished, None);
                }
                End::Missing(what) => {
                    self.lives[at].last_error = Some(what.clone());
                    self.set(at, Phase::ImportFailed, Reason::ImportError, Some(what));
                }
                End::Crashed(error) => self.crashed(now, at, error),
                End::Aborted => self.crashed(now, at, "the runtime ended the task".into()),
            },
            // These have no task.
            _ => {}
        }
        self.settle(now);
    }

    fn ended_as_asked(&mut self, now: At, at: usize, after: After, end: End) {
        let error = match end {
            End::Crashed(error) | End::Missing(error) => Some(error),
            End::Finished | End::Aborted => None,
        };
        match after {
            After::Crash(reason) => self.crashed(now, at, reason),
            After::Stop | After::StartAgain => {
                if error.is_some() {
                    self.lives[at].last_error.clone_from(&error);
                }
                self.set(at, Phase::Stopped, Reason::Ended, error);
                if after == After::StartAgain && !self.draining() {
                    self.begin(now, at, true);
                }
            }
        }
    }

    /// Takes a reading; three bad results in a row end the task.
    pub(crate) fn read(&mut self, now: At, at: usize, run: u64, vitals: &Vitals) {
        if !self.is_current(at, run) || !matches!(self.lives[at].phase, Phase::Running { .. }) {
            return;
        }
        let interval = self.interval(at);
        let life = &mut self.lives[at];
        life.read_at = now + interval;
        let (health, bad) = judge(life.spec, now, vitals);
        life.health = health;
        if bad >= self.rules.bad_results
            && let Health::Unhealthy(message) = &life.health
        {
            let error = format!("unhealthy: {message}");
            self.end(now, at, After::Crash(error), Reason::Unhealthy);
        }
        self.settle(now);
    }

    pub(crate) fn tick(&mut self, now: At) {
        self.settle(now);
    }

    // ---- the machine

    fn id(&self, at: usize) -> DaemonId {
        self.lives[at].spec.id
    }

    fn is_current(&self, at: usize, run: u64) -> bool {
        self.lives[at].run == run && self.lives[at].phase.has_task()
    }

    fn interval(&self, at: usize) -> Duration {
        let spec = self.lives[at].spec;
        let common = self.rules.health_interval;
        spec.health_interval.unwrap_or(if spec.critical {
            common.min(self.rules.critical_health_interval)
        } else {
            common
        })
    }

    /// The first need that keeps this daemon from starting.
    fn unmet(&self, at: usize) -> Option<usize> {
        let met = |&need: &usize| {
            let need = &self.lives[need];
            matches!(need.phase, Phase::Running { .. })
                && !matches!(need.health, Health::Unhealthy(_))
        };
        self.graph.needs(at).iter().copied().find(|need| !met(need))
    }

    /// The first need that does not run any more.
    fn fallen(&self, at: usize) -> Option<usize> {
        let runs = |&need: &usize| matches!(self.lives[need].phase, Phase::Running { .. });
        self.graph.needs(at).iter().copied().find(|need| !runs(need))
    }

    fn set(&mut self, at: usize, phase: Phase, reason: Reason, error: Option<String>) {
        let from = self.lives[at].phase.state();
        let to = phase.state();
        self.lives[at].phase = phase;
        if from != to {
            self.commands.push(Command::Moved { at, from, to, reason, error });
        }
    }

    /// Into `STARTING`, from a phase without a task.
    fn begin(&mut self, now: At, at: usize, fresh: bool) {
        let life = &mut self.lives[at];
        life.asked = true;
        life.finished = false;
        if fresh {
            life.crashes = 0;
        }
        let again = matches!(life.phase, Phase::Backoff { .. } | Phase::Parked { .. });
        let waiting = Phase::Waiting { since: now, again, late: false };
        self.set(at, waiting, Reason::StartRequested, None);
    }

    fn spawn(&mut self, now: At, at: usize, again: bool) {
        let life = &mut self.lives[at];
        life.run += 1;
        life.health = Health::Unknown;
        let run = life.run;
        // Same state as while it waited, so nothing is told.
        life.phase = Phase::Starting { ready_by: now + life.spec.ready_within, again };
        self.commands.push(Command::Spawn { at, run });
    }

    /// Into the phase that ends the task, or straight to what follows if there is none.
    fn end(&mut self, now: At, at: usize, after: After, reason: Reason) {
        let run = self.lives[at].run;
        let abort_at = now + self.rules.shutdown_timeout;
        match &self.lives[at].phase {
            // Only requests come here, and they replace what the supervisor meant to do.
            Phase::Ending { abort_at: limit, aborted, hung, .. } => {
                let (abort_at, aborted, hung) = ((*limit).min(abort_at), *aborted, *hung);
                self.set(at, Phase::Ending { after, abort_at, aborted, hung }, reason, None);
            }
            Phase::Starting { .. } | Phase::Running { .. } => {
                let error = match &after {
                    After::Crash(error) => Some(error.clone()),
                    After::Stop | After::StartAgain => None,
                };
                let ending = Phase::Ending { after, abort_at, aborted: None, hung: false };
                self.set(at, ending, reason, error);
                self.commands.push(Command::Ask { at, run });
            }
            Phase::Stopped => {}
            // A shutdown leaves FAILED visible; a person's stop clears it.
            Phase::Failed | Phase::ImportFailed if reason == Reason::Shutdown => {}
            _ => self.set(at, Phase::Stopped, reason, None),
        }
    }

    fn crashed(&mut self, now: At, at: usize, error: String) {
        let draining = self.draining();
        let life = &mut self.lives[at];
        life.last_error = Some(error.clone());
        if draining {
            return self.set(at, Phase::Stopped, Reason::Ended, Some(error));
        }
        // The exact instant of forgiveness may come in the same turn as the crash.
        if let Phase::Running { since } = life.phase
            && now.saturating_sub(since) >= self.rules.restart.reset_after
        {
            life.crashes = 0;
        }
        life.recent.push_back(now);
        while life.recent.front().is_some_and(|&crash| crash + HOUR < now) {
            life.recent.pop_front();
        }
        let in_hour = u32::try_from(life.recent.len()).unwrap_or(u32::MAX);
        let crash = life.crashes + 1;
        let (phase, reason) = match self.rules.restart.after(life.spec, crash, in_hour) {
            Next::Retry(pause) => {
                life.crashes = crash;
                (Phase::Backoff { until: now + pause }, Reason::Exception)
            }
            Next::Park(pause) => {
                (Phase::Parked { until: now + pause }, Reason::HourlyLimitExceeded)
            }
            Next::Fail => (Phase::Failed, Reason::MaxRestartsExceeded),
        };
        self.set(at, phase, reason, Some(error));
    }

    /// Lets time and the states of others take effect.
    fn settle(&mut self, now: At) {
        for at in self.graph.order().to_vec() {
            self.advance(now, at);
        }
        self.drain_levels(now);
    }

    fn advance(&mut self, now: At, at: usize) {
        let run = self.lives[at].run;
        if let Phase::Backoff { until } | Phase::Parked { until } = self.lives[at].phase
            && until <= now
        {
            let waiting = Phase::Waiting { since: now, again: true, late: false };
            self.set(at, waiting, Reason::AutoRestart, None);
        }
        match self.lives[at].phase {
            Phase::Waiting { since, again, late } => match self.unmet(at) {
                None => self.spawn(now, at, again),
                Some(need) if !late && since + self.rules.dependency_wait <= now => {
                    self.lives[at].phase = Phase::Waiting { since, again, late: true };
                    self.commands.push(Command::Late { at, need });
                }
                Some(_) => {}
            },
            Phase::Starting { ready_by, .. } if ready_by <= now => {
                let limit = self.lives[at].spec.ready_within;
                let error = format!("not ready within {limit:?}");
                self.end(now, at, After::Crash(error), Reason::NotReady);
                // It had its time; more grace would only add to it.
                if let Phase::Ending { aborted, .. } = &mut self.lives[at].phase {
                    *aborted = Some(now);
                }
                self.commands.push(Command::Abort { at, run });
            }
            Phase::Running { since } if since + self.rules.restart.reset_after <= now => {
                self.lives[at].crashes = 0;
            }
            _ => {}
        }
        if let Phase::Ending { abort_at, aborted, hung, .. } = &mut self.lives[at].phase {
            match *aborted {
                None if *abort_at <= now => {
                    *aborted = Some(now);
                    self.commands.push(Command::Abort { at, run });
                }
                Some(aborted) if !*hung && aborted + self.rules.abort_grace <= now => {
                    *hung = true;
                    self.commands.push(Command::Hung { at });
                }
                _ => {}
            }
        }
    }

    fn drain_levels(&mut self, now: At) {
        let Some(mut drain) = self.drain else { return };
        while !drain.over {
            let busy = (0..self.lives.len()).any(|at| {
                self.graph.level(at) >= drain.level && self.has_task(at) && !self.is_hung(at)
            });
            if busy {
                break;
            }
            if drain.level == 0 {
                drain.over = true;
            } else {
                drain.level -= 1;
                for at in 0..self.lives.len() {
                    if self.graph.level(at) == drain.level {
                        self.end(now, at, After::Stop, Reason::Shutdown);
                    }
                }
            }
        }
        self.drain = Some(drain);
    }
}

/// Health, and how many bad results in a row stand behind it.
fn judge(spec: &Spec, now: At, vitals: &Vitals) -> (Health, u32) {
    let limit = spec.cycle_limit.max(Duration::from_millis(1));
    let silence = now.saturating_sub(vitals.last_beat);
    if vitals.in_cycle && silence >= limit {
        // Each full limit of silence is one result, so that reading often does not count double.
        let silent = u32::try_from(silence.as_millis() / limit.as_millis()).unwrap_or(u32::MAX);
        let message = format!("no beat for {} s", silence.as_secs());
        return (Health::Unhealthy(message), vitals.bad_in_a_row.saturating_add(silent));
    }
    let overdue = vitals.due.and_then(|due| now.checked_sub(due + limit));
    let health = match (&vitals.health, overdue) {
        // Its runtime is starved, mostly by others: a restart would not help, so only degraded.
        (Health::Healthy | Health::Unknown, Some(over)) => {
            Health::Degraded(format!("cycle overdue by {} s", (over + limit).as_secs()))
        }
        (health, _) => health.clone(),
    };
    (health, vitals.bad_in_a_row)
}

mod questions;
#[cfg(test)]
mod tests;
