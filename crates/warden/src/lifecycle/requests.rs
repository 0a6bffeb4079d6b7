//! What people and programs ask of the machine.

use super::{After, At, Begin, Command, Drain, Lifecycle, Phase, millis};
use crate::{Leadership, Reason};

/// What a request to start did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) started: Vec<usize>,
    pub(crate) missing: Vec<usize>,
    pub(crate) failed: Vec<usize>,
}

/// Who asks for a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Somebody who knows what was given up, and wants it tried all the same.
    Person,
    /// A list; what was given up waits for a person, and crashes of an earlier life count.
    Plan,
    /// Somebody who wants the named ones anew; for what they need it is a list.
    Restart,
}

impl Lifecycle {
    /// Starts the asked and all they need; for a person `FAILED` gets a fresh ladder.
    pub(crate) fn start(&mut self, now: At, asked: &[usize], by: Asker) -> Begun {
        let mut begun = Begun::default();
        if self.draining() {
            return begun;
        }
        for at in self.graph.closure_of(asked) {
            let by = match by {
                Asker::Restart if asked.contains(&at) => Asker::Person,
                Asker::Restart => Asker::Plan,
                by => by,
            };
            let life = self.touch(at);
            match &mut life.phase {
                Phase::ImportFailed => {
                    begun.missing.push(at);
                    continue;
                }
                Phase::Failed if by == Asker::Plan => {
                    life.asked = true;
                    begun.failed.push(at);
                    continue;
                }
                Phase::Stopped
                    if by == Asker::Plan && life.restarts.rests_until(millis(now)).is_some() =>
                {
                    life.asked = true;
                    self.rest_on(now, at);
                    continue;
                }
                Phase::Stopped | Phase::Failed => {
                    let past = if by == Asker::Plan { Begin::Counted } else { Begin::Fresh };
                    self.begin(now, at, past, Reason::StartRequested);
                }
                Phase::Ending { after: after @ After::Stop, .. } => *after = After::StartAgain,
                _ => {
                    life.asked = true;
                    continue;
                }
            }
            self.touch(at).asked = true;
            begun.started.push(at);
        }
        self.settle(now);
        begun
    }

    pub(crate) fn stop(&mut self, now: At, at: usize) {
        self.touch(at).asked = false;
        self.end(now, at, After::Stop, Reason::StopRequested);
        self.settle(now);
    }

    /// A fresh object at once, with a fresh ladder. What it needs is started as well, unless it was
    /// given up: that is a decision of its own.
    pub(crate) fn restart(&mut self, now: At, at: usize) -> Begun {
        if self.draining() {
            return Begun::default();
        }
        let had_task = self.lives[at].phase.has_task();
        if matches!(self.lives[at].phase, Phase::Backoff { .. } | Phase::Parked { .. }) {
            self.begin(now, at, Begin::Fresh, Reason::StartRequested);
        }
        let mut begun = self.start(now, &[at], Asker::Restart);
        if had_task {
            self.touch(at).restarts.forgive();
            self.end(now, at, After::StartAgain, Reason::StopRequested);
            if !begun.started.contains(&at) {
                begun.started.push(at);
            }
            self.settle(now);
        }
        begun
    }

    /// Tries one that is not running; without `force` its crashes still count. What it needs is
    /// started as well; what of that was given up, only with `force`.
    ///
    /// None from a state in which there is nothing to try, and for `IMPORT_FAILED` without force.
    pub(crate) fn retry(&mut self, now: At, at: usize, force: bool) -> Option<Begun> {
        let possible = match self.lives[at].phase {
            Phase::Failed | Phase::Stopped | Phase::Backoff { .. } | Phase::Parked { .. } => true,
            Phase::ImportFailed => force,
            _ => false,
        };
        if !possible || self.draining() {
            return None;
        }
        if force {
            let life = self.touch(at);
            life.last_error = None;
            life.restarts.forget();
        }
        let (past, by) =
            if force { (Begin::Fresh, Asker::Person) } else { (Begin::Counted, Asker::Plan) };
        self.begin(now, at, past, Reason::StartRequested);
        let needs = self.graph.needs(at).to_vec();
        let mut begun = self.start(now, &needs, by);
        begun.started.push(at);
        self.settle(now);
        Some(begun)
    }

    pub(crate) fn pause(&mut self, now: At, at: usize, cause: &str) {
        let life = self.touch(at);
        if life.pauses.insert(cause.to_owned()) && life.pauses.len() == 1 {
            self.commands.push(Command::Pause { at, paused: true });
        }
        self.settle(now);
    }

    pub(crate) fn resume(&mut self, now: At, at: usize, cause: &str) {
        let life = self.touch(at);
        if life.pauses.remove(cause) && life.pauses.is_empty() {
            self.commands.push(Command::Pause { at, paused: false });
        }
        self.settle(now);
    }

    pub(crate) fn lead(&mut self, now: At, leadership: Leadership) {
        self.leadership = leadership;
        for at in 0..self.lives.len() {
            let leads = |at: usize| self.lives[at].spec.leader_only;
            if leads(at) || self.graph.needs(at).iter().copied().any(leads) {
                self.touch(at);
            }
        }
        self.settle(now);
    }

    /// Takes a reading of the memory in use, in percent.
    pub(crate) fn weigh(&mut self, now: At, used: Option<u8>) {
        self.memory = used;
        for at in 0..self.lives.len() {
            if matches!(self.lives[at].phase, Phase::Waiting { .. }) {
                self.touch(at);
            }
        }
        self.settle(now);
    }

    /// Stops all, the highest level first; asked a second time, all at once and without grace.
    pub(crate) fn shutdown(&mut self, now: At) {
        if self.draining() {
            for at in 0..self.lives.len() {
                self.end(now, at, After::Stop, Reason::Shutdown);
                if let Phase::Ending { abort_at, .. } = &mut self.touch(at).phase {
                    *abort_at = (*abort_at).min(now);
                }
            }
        } else {
            self.drain = Some(Drain { level: self.graph.level_count(), over: false });
            for at in 0..self.lives.len() {
                if matches!(
                    self.lives[at].phase,
                    Phase::Waiting { .. }
                        | Phase::Backoff { .. }
                        | Phase::Parked { .. }
                        | Phase::StandingBy
                ) {
                    self.end(now, at, After::Stop, Reason::Shutdown);
                }
            }
        }
        self.settle(now);
    }
}
