//! The lives of all daemons as one state machine, without tasks, clocks or channels.
//!
//! Time comes in as the age of the supervisor. Every method changes states and leaves commands;
//! whoever drives it carries them out and reports what came of them. That a daemon never has two
//! tasks is visible here: only [`Lifecycle::spawn`] makes one, from a phase that has none.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    DaemonId, GraphError, Health, History, Leadership, Reason, RestartPolicy, Spec, State,
    order::Graph,
    policy::{Cascade, Restarts},
};

/// Age of the supervisor.
pub(crate) type At = Duration;

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
    /// Tell people that something keeps this daemon from starting for long.
    Late { at: usize, obstacle: Obstacle },
    /// Tell people that a task cannot be ended.
    Hung { at: usize },
    /// Tell whoever keeps it that the history of this daemon is another.
    Remember { at: usize },
    /// Tell people of many crashes in a short time.
    CrashLoop { at: usize, crashes: u32 },
    /// Tell people that automatic restarts are suspended because of this one.
    Tripped { at: usize },
    /// Tell people that they are not any more, and who was started for that.
    Closed { revived: Vec<usize> },
}

/// What keeps a daemon from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// A daemon that it needs does not run well.
    Need(usize),
    /// So many percent of the memory are in use.
    Memory(u8),
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

/// The limits that the machine needs.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) restart: Arc<RestartPolicy>,
    pub(crate) health_interval: Duration,
    pub(crate) critical_health_interval: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) dependency_wait: Duration,
    pub(crate) abort_grace: Duration,
    pub(crate) bad_results: u32,
    /// From so many percent of memory in use on only critical daemons start.
    pub(crate) memory_limit: u8,
}

/// What follows the end of a task that was asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum After {
    Stop,
    StartAgain,
    StandBy,
    Crash(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Stopped,
    /// Leader-only, and this node does not lead.
    StandingBy,
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
    /// `held`: its time is over, but the breaker suspends all restarts.
    Backoff {
        until: At,
        held: bool,
    },
    Parked {
        until: At,
        held: bool,
    },
    Failed,
    ImportFailed,
}

impl Phase {
    fn state(&self) -> State {
        match self {
            Self::Stopped | Self::StandingBy => State::Stopped,
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
    restarts: Restarts,
    /// The state of `restarts` that was handed out to be kept.
    kept: u64,
    last_error: Option<String>,
    finished: bool,
    pauses: BTreeSet<String>,
    health: Health,
    read_at: At,
    /// What its dependents were told of it last.
    seen: Seen,
    /// Its entry in the table of deadlines.
    deadline: Option<At>,
    /// Somebody who shows it has to look again.
    changed: bool,
}

/// What dependents see of a daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    runs: bool,
    /// Runs, and is not unhealthy.
    well: bool,
}

/// Do earlier crashes count for a start?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Fresh,
    Counted,
}

/// Where a shutdown stands.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// Level whose daemons are ending; all levels above have ended.
    level: usize,
    over: bool,
}

/// See the module.
///
/// Costs go by what happens, not by how many daemons there are: who was touched is looked at, then
/// those who need it if it rose or fell, and time is a table of deadlines.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    rules: Rules,
    graph: Graph,
    lives: Vec<Life>,
    drain: Option<Drain>,
    cascade: Cascade,
    leadership: Leadership,
    /// Percent of memory in use at the last look.
    memory: Option<u8>,
    commands: Vec<Command>,
    /// Ranks of those that must be looked at, so that needs come before dependents.
    touched: BTreeSet<usize>,
    deadlines: BTreeSet<(At, usize)>,
    changed: Vec<usize>,
}

impl Lifecycle {
    pub(crate) fn new(specs: &[&'static Spec], rules: Rules) -> Result<Self, GraphError> {
        let graph = Graph::new(specs)?;
        let life = |&spec: &&'static Spec| Life {
            spec,
            phase: Phase::Stopped,
            asked: false,
            run: 0,
            restarts: Restarts::new(rules.restart.clone(), spec),
            kept: 0,
            last_error: None,
            finished: false,
            pauses: BTreeSet::new(),
            health: Health::Unknown,
            read_at: At::ZERO,
            seen: Seen::default(),
            deadline: None,
            changed: false,
        };
        Ok(Self {
            graph,
            lives: specs.iter().map(life).collect(),
            drain: None,
            cascade: Cascade::new(rules.restart.breaker.clone()),
            leadership: Leadership::Held,
            memory: None,
            rules,
            commands: Vec::new(),
            touched: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            changed: Vec::new(),
        })
    }

    /// Takes over what an earlier supervisor knew; what it had given up stays given up.
    pub(crate) fn remember(&mut self, at: usize, history: &History, now_ms: i64) {
        let life = self.touch(at);
        if life.restarts.remember(history, now_ms) {
            life.phase = Phase::Failed;
        }
        life.last_error.clone_from(&history.last_error);
        self.settle(At::ZERO);
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// Takes out of the commands what makes tasks: it need not wait for its turn.
    pub(crate) fn take_spawns(&mut self) -> Vec<(usize, u64)> {
        let mut spawns = Vec::new();
        self.commands.retain(|command| match command {
            Command::Spawn { at, run } => {
                spawns.push((*at, *run));
                false
            }
            _ => true,
        });
        spawns
    }

    /// Those of whom something may look different now.
    pub(crate) fn take_changed(&mut self) -> Vec<usize> {
        for &at in &self.changed {
            self.lives[at].changed = false;
        }
        std::mem::take(&mut self.changed)
    }

    /// The way to a life that is about to change.
    fn touch(&mut self, at: usize) -> &mut Life {
        self.touched.insert(self.graph.rank(at));
        &mut self.lives[at]
    }

    // ---- reports

    pub(crate) fn ready(&mut self, now: At, at: usize, run: u64) {
        if !self.is_current(at, run) {
            return;
        }
        if let Phase::Starting { again, .. } = self.lives[at].phase {
            let reason = if again { Reason::RestartComplete } else { Reason::Ready };
            self.touch(at).read_at = next_on_grid(now, self.interval(at));
            self.set(at, Phase::Running { since: now }, reason, None);
        }
        self.settle(now);
    }

    pub(crate) fn ended(&mut self, now: At, at: usize, run: u64, end: End) {
        if !self.is_current(at, run) {
            return;
        }
        self.touch(at).health = Health::Unknown;
        let phase = self.lives[at].phase.clone();
        match phase {
            Phase::Ending { after, .. } => self.ended_as_asked(now, at, after, end),
            Phase::Starting { .. } | Phase::Running { .. } => match end {
                End::Finished => {
                    let life = self.touch(at);
                    life.finished = true;
                    life.asked = false;
                    self.set(at, Phase::Stopped, Reason::Finished, None);
                }
                End::Missing(what) => {
                    self.touch(at).last_error = Some(what.clone());
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
            After::Stop | After::StartAgain | After::StandBy => {
                if error.is_some() {
                    self.touch(at).last_error.clone_from(&error);
                }
                let stands_by = after == After::StandBy && !self.draining();
                let phase = if stands_by { Phase::StandingBy } else { Phase::Stopped };
                self.set(at, phase, Reason::Ended, error);
                if after == After::StartAgain && !self.draining() {
                    self.begin(now, at, Begin::Fresh, Reason::StartRequested);
                }
            }
        }
    }

    /// Takes a reading; three bad results in a row end the task.
    pub(crate) fn read(&mut self, now: At, at: usize, run: u64, vitals: &Vitals) {
        if !self.is_current(at, run) || !matches!(self.lives[at].phase, Phase::Running { .. }) {
            return;
        }
        let read_at = next_on_grid(now, self.interval(at));
        let limit = self.rules.bad_results;
        let life = self.touch(at);
        life.read_at = read_at;
        let (health, bad) = judge(life.spec, now, vitals);
        life.health = health;
        if bad >= limit
            && let Health::Unhealthy(message) = &life.health
        {
            let error = format!("unhealthy: {message}");
            self.end(now, at, After::Crash(error), Reason::Unhealthy);
        }
        self.settle(now);
    }

    /// Lets pass what is due.
    pub(crate) fn tick(&mut self, now: At) {
        if self.cascade.close(now) && !self.draining() {
            self.revive(now);
        }
        for at in self.due(now) {
            self.touch(at);
        }
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
        let interval = spec.health_interval.unwrap_or(if spec.critical {
            common.min(self.rules.critical_health_interval)
        } else {
            common
        });
        // A daemon that went silent is named within two of its limits.
        interval.min(spec.cycle_limit)
    }

    /// The first need that keeps this daemon from starting. One that stands by does not: the node that
    /// leads runs it.
    fn unmet(&self, at: usize) -> Option<usize> {
        let lacks = |need: usize| !self.lives[need].seen.well && !self.stands_by(need);
        self.graph.needs(at).iter().copied().find(|&need| lacks(need))
    }

    fn obstacle(&self, at: usize) -> Option<Obstacle> {
        let full = self.memory.filter(|&used| used >= self.rules.memory_limit);
        let memory = full.filter(|_| !self.lives[at].spec.critical).map(Obstacle::Memory);
        self.unmet(at).map(Obstacle::Need).or(memory)
    }

    fn stands_by(&self, at: usize) -> bool {
        self.leadership == Leadership::Lost && self.lives[at].spec.leader_only
    }

    /// The first need that does not run any more.
    fn fallen(&self, at: usize) -> Option<usize> {
        let lacks = |need: usize| !self.lives[need].seen.runs && !self.stands_by(need);
        self.graph.needs(at).iter().copied().find(|&need| lacks(need))
    }

    fn set(&mut self, at: usize, phase: Phase, reason: Reason, error: Option<String>) {
        let life = self.touch(at);
        let from = life.phase.state();
        let to = phase.state();
        life.phase = phase;
        if from != to {
            self.commands.push(Command::Moved { at, from, to, reason, error });
        }
    }

    /// Into `STARTING`, from a phase without a task.
    fn begin(&mut self, now: At, at: usize, past: Begin, reason: Reason) {
        let life = self.touch(at);
        life.asked = true;
        life.finished = false;
        life.restarts.take_up();
        if past == Begin::Fresh {
            life.restarts.forgive();
        }
        let again = matches!(life.phase, Phase::Backoff { .. } | Phase::Parked { .. });
        let waiting = Phase::Waiting { since: now, again, late: false };
        self.set(at, waiting, reason, None);
    }

    fn spawn(&mut self, now: At, at: usize, again: bool) {
        let life = self.touch(at);
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
                    After::Stop | After::StartAgain | After::StandBy => None,
                };
                let ending = Phase::Ending { after, abort_at, aborted: None, hung: false };
                self.set(at, ending, reason, error);
                self.commands.push(Command::Ask { at, run });
            }
            Phase::Stopped => {}
            // A shutdown leaves FAILED visible; a person's stop clears it.
            Phase::Failed | Phase::ImportFailed if reason == Reason::Shutdown => {}
            _ => {
                self.touch(at).restarts.take_up();
                self.set(at, Phase::Stopped, reason, None);
            }
        }
    }

    /// Lets time and the states of others take effect on whoever was touched.
    fn settle(&mut self, now: At) {
        loop {
            while let Some(rank) = self.touched.pop_first() {
                let at = self.graph.order()[rank];
                self.advance(now, at);
                // What it did to itself has had its effect.
                self.touched.remove(&rank);
                self.note(at);
            }
            self.drain_levels(now);
            if self.touched.is_empty() {
                return;
            }
        }
    }

    /// Brings what is kept about a life up to date, and tells its dependents.
    fn note(&mut self, at: usize) {
        let life = &self.lives[at];
        let runs = matches!(life.phase, Phase::Running { .. });
        let seen = Seen { runs, well: runs && !matches!(life.health, Health::Unhealthy(_)) };
        let deadline = self.deadline(life);
        let life = &mut self.lives[at];
        let changes = life.restarts.changes();
        if std::mem::replace(&mut life.kept, changes) != changes {
            self.commands.push(Command::Remember { at });
        }
        if let Some(old) = std::mem::replace(&mut life.deadline, deadline) {
            self.deadlines.remove(&(old, at));
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, at)));
        if !std::mem::replace(&mut life.changed, true) {
            self.changed.push(at);
        }
        if std::mem::replace(&mut life.seen, seen) != seen {
            let ranks = self.graph.dependents(at).iter().map(|&other| self.graph.rank(other));
            self.touched.extend(ranks);
        }
    }

    fn advance(&mut self, now: At, at: usize) {
        let run = self.lives[at].run;
        if let Phase::Backoff { until, .. } | Phase::Parked { until, .. } = self.lives[at].phase
            && until <= now
        {
            self.try_again(now, at);
        }
        self.follow(now, at);
        match self.lives[at].phase {
            Phase::Waiting { since, again, late } => match self.obstacle(at) {
                None => self.spawn(now, at, again),
                Some(obstacle) if !late && since + self.rules.dependency_wait <= now => {
                    self.touch(at).phase = Phase::Waiting { since, again, late: true };
                    self.commands.push(Command::Late { at, obstacle });
                }
                Some(_) => {}
            },
            Phase::Starting { ready_by, .. } if ready_by <= now => {
                let limit = self.lives[at].spec.ready_within;
                let error = format!("not ready within {limit:?}");
                self.end(now, at, After::Crash(error), Reason::NotReady);
                // It had its time; more grace would only add to it.
                if let Phase::Ending { aborted, .. } = &mut self.touch(at).phase {
                    *aborted = Some(now);
                }
                self.commands.push(Command::Abort { at, run });
            }
            Phase::Running { since } if since + self.rules.restart.reset_after <= now => {
                self.touch(at).restarts.forgive();
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

/// Time as restarts are counted in.
fn millis(at: At) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

mod comebacks;
mod questions;
mod requests;
mod vitals;

pub(crate) use requests::{Asker, Begun};
pub(crate) use vitals::Vitals;
use vitals::{judge, next_on_grid};

#[cfg(test)]
mod tests;
