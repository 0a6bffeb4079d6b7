//! A second, small account of what a supervisor must do, written for reading and not for speed.
//!
//! It knows nothing of tasks, channels or the real machine: only the rules of the contract, one
//! daemon after the other, until nothing changes any more.

use warden::State;

/// How long things take, in milliseconds.
pub const SLOW: u64 = 12_000;
pub const READY_WITHIN: u64 = 30_000;
pub const STOP_WITHIN: u64 = 30_000;
pub const HOUR: u64 = 3_600_000;
pub const MAX: u32 = 5;

/// What a start comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    Quick,
    Slow,
    Never,
    Fails,
    Lacks,
}

/// What a running daemon is made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Crash,
    Panic,
    Sick,
    Finish,
    /// Heeds nothing any more, not even a stop.
    Hang,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Stop,
    Again,
    StandBy,
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Off,
    StandsBy,
    Waits { again: bool },
    Begins { since: u64, how: Begin, again: bool },
    Runs { since: u64, hangs: bool },
    Leaves { at: u64, then: Then },
    Pauses { until: u64 },
    GivenUp,
    Lacking,
}

#[derive(Debug, Clone)]
pub struct Daemon {
    pub needs: Vec<usize>,
    pub leader_only: bool,
    /// How long a stop takes.
    pub stop: u64,
    pub begin: Begin,
    pub asked: bool,
    pub crashes: u32,
    pub at: At,
    /// Tasks so far.
    pub born: u64,
}

impl Daemon {
    pub fn state(&self) -> State {
        match self.at {
            At::Off | At::StandsBy => State::Stopped,
            At::Waits { again: false } | At::Begins { again: false, .. } => State::Starting,
            At::Waits { again: true }
            | At::Begins { again: true, .. }
            | At::Leaves { then: Then::Crash, .. }
            | At::Pauses { .. } => State::Restarting,
            At::Runs { .. } => State::Running,
            At::Leaves { .. } => State::Stopping,
            At::GivenUp => State::Failed,
            At::Lacking => State::ImportFailed,
        }
    }

    fn has_task(&self) -> bool {
        matches!(self.at, At::Begins { .. } | At::Runs { .. } | At::Leaves { .. })
    }

    fn leave(&mut self, now: u64, then: Then) {
        let at = match self.at {
            At::Begins { how: Begin::Never, .. } | At::Runs { hangs: true, .. } => STOP_WITHIN,
            At::Runs { .. } => self.stop,
            At::Leaves { at, .. } => at - now,
            _ => 0,
        };
        self.at = At::Leaves { at: now + at, then };
    }

    fn crash(&mut self, now: u64, ran: u64) {
        if ran >= HOUR {
            self.crashes = 0;
        }
        if self.crashes == MAX {
            self.at = At::GivenUp;
        } else {
            self.at = At::Pauses { until: now + 1000 * (1 << self.crashes).min(16) };
            self.crashes += 1;
        }
    }
}

/// All daemons; each needs only earlier ones.
#[derive(Debug, Clone)]
pub struct Oracle {
    pub daemons: Vec<Daemon>,
    pub leads: bool,
}

impl Oracle {
    fn closure(&self, of: usize) -> Vec<usize> {
        let mut inside = vec![false; of + 1];
        inside[of] = true;
        for at in (0..=of).rev().filter(|&at| inside[at]).collect::<Vec<_>>() {
            self.mark(at, &mut inside);
        }
        (0..=of).filter(|&at| inside[at]).collect()
    }

    fn mark(&self, at: usize, inside: &mut [bool]) {
        for &need in &self.daemons[at].needs {
            inside[need] = true;
            self.mark(need, inside);
        }
    }

    pub fn start(&mut self, now: u64, of: usize) {
        self.ask(of, |_| true);
        self.settle(now);
    }

    /// A request takes effect as a whole, before anything that it begins is ready. Who is revived is
    /// tried again if it was given up, and its earlier crashes do not count.
    fn ask(&mut self, of: usize, revived: impl Fn(usize) -> bool) {
        for at in self.closure(of) {
            let fresh = revived(at);
            let daemon = &mut self.daemons[at];
            match &mut daemon.at {
                At::Lacking => continue,
                At::GivenUp if !fresh => {}
                At::Off | At::GivenUp => {
                    if fresh {
                        daemon.crashes = 0;
                    }
                    daemon.at = At::Waits { again: false };
                }
                At::Leaves { then: then @ Then::Stop, .. } => *then = Then::Again,
                _ => {}
            }
            daemon.asked = true;
        }
    }

    pub fn stop(&mut self, now: u64, of: usize) {
        let daemon = &mut self.daemons[of];
        daemon.asked = false;
        if daemon.has_task() {
            daemon.leave(now, Then::Stop);
        } else {
            daemon.at = At::Off;
        }
        self.settle(now);
    }

    pub fn restart(&mut self, now: u64, of: usize) {
        let daemon = &mut self.daemons[of];
        let had_task = daemon.has_task();
        if matches!(daemon.at, At::Pauses { .. }) {
            daemon.at = At::Waits { again: true };
            daemon.crashes = 0;
        }
        self.ask(of, |at| at == of);
        let daemon = &mut self.daemons[of];
        if had_task && daemon.has_task() {
            daemon.crashes = 0;
            daemon.leave(now, Then::Again);
        }
        self.settle(now);
    }

    /// False: there is nothing to retry.
    pub fn retry(&mut self, now: u64, of: usize, force: bool) -> bool {
        let daemon = &mut self.daemons[of];
        let again = matches!(daemon.at, At::Pauses { .. });
        let forced = force && daemon.at == At::Lacking;
        let possible = again || forced || matches!(daemon.at, At::Off | At::GivenUp);
        if !possible {
            return false;
        }
        if force {
            daemon.crashes = 0;
        }
        daemon.asked = true;
        daemon.at = At::Waits { again };
        for need in daemon.needs.clone() {
            self.ask(need, |_| force);
        }
        self.settle(now);
        true
    }

    pub fn lead(&mut self, now: u64, leads: bool) {
        self.leads = leads;
        self.settle(now);
    }

    /// Does the daemon what it is made to do? Only if it runs and heeds.
    pub fn suffers(&mut self, now: u64, of: usize, fate: Fate) -> bool {
        let daemon = &mut self.daemons[of];
        let At::Runs { since, hangs: false } = daemon.at else { return false };
        match fate {
            Fate::Crash | Fate::Panic => daemon.crash(now, now - since),
            // It is asked to stop, and its end is the crash.
            Fate::Sick => daemon.leave(now, Then::Crash),
            Fate::Finish => {
                daemon.asked = false;
                daemon.at = At::Off;
            }
            Fate::Hang => daemon.at = At::Runs { since, hangs: true },
        }
        self.settle(now);
        true
    }

    /// Lets time pass, deadline by deadline.
    pub fn pass(&mut self, from: u64, to: u64) {
        let mut now = from;
        while let Some(next) = self.next().filter(|&next| next <= to) {
            now = next.max(now);
            self.due(now);
            self.settle(now);
        }
    }

    fn next(&self) -> Option<u64> {
        self.daemons
            .iter()
            .filter_map(|daemon| match daemon.at {
                At::Begins { since, how: Begin::Slow, .. } => Some(since + SLOW),
                At::Begins { since, .. } => Some(since + READY_WITHIN),
                At::Runs { since, .. } if daemon.crashes > 0 => Some(since + HOUR),
                At::Leaves { at, .. } => Some(at),
                At::Pauses { until } => Some(until),
                _ => None,
            })
            .min()
    }

    fn due(&mut self, now: u64) {
        for daemon in &mut self.daemons {
            match daemon.at {
                At::Begins { since, how: Begin::Slow, .. } if since + SLOW <= now => {
                    daemon.at = At::Runs { since: now, hangs: false };
                }
                At::Begins { since, how: Begin::Never, .. } if since + READY_WITHIN <= now => {
                    daemon.crash(now, 0);
                }
                At::Runs { since, .. } if since + HOUR <= now => daemon.crashes = 0,
                At::Pauses { until } if until <= now => daemon.at = At::Waits { again: true },
                At::Leaves { at, then } if at <= now => daemon.left(now, then),
                _ => {}
            }
        }
    }

    fn settle(&mut self, now: u64) {
        loop {
            let before = self.daemons.iter().map(|daemon| daemon.at).collect::<Vec<_>>();
            self.due(now);
            for at in 0..self.daemons.len() {
                self.follow(now, at);
                self.begin(now, at);
            }
            if self.daemons.iter().map(|daemon| daemon.at).eq(before) {
                return;
            }
        }
    }

    fn follow(&mut self, now: u64, of: usize) {
        let leads = self.leads;
        let daemon = &mut self.daemons[of];
        if !daemon.leader_only {
            return;
        }
        match &mut daemon.at {
            At::StandsBy if leads => daemon.at = At::Waits { again: false },
            At::Leaves { then: then @ Then::StandBy, .. } if leads => *then = Then::Again,
            At::Leaves { then: then @ (Then::Again | Then::Crash), .. } if !leads => {
                *then = Then::StandBy;
            }
            At::Waits { .. } | At::Pauses { .. } if !leads => daemon.at = At::StandsBy,
            At::Begins { .. } | At::Runs { .. } if !leads => daemon.leave(now, Then::StandBy),
            _ => {}
        }
    }

    fn begin(&mut self, now: u64, of: usize) {
        let At::Waits { again } = self.daemons[of].at else { return };
        // What the leader alone runs is run by another node.
        let met = |&need: &usize| {
            let need = &self.daemons[need];
            matches!(need.at, At::Runs { .. }) || (need.leader_only && !self.leads)
        };
        if !self.daemons[of].needs.iter().all(met) {
            return;
        }
        let daemon = &mut self.daemons[of];
        daemon.born += 1;
        match daemon.begin {
            Begin::Quick => daemon.at = At::Runs { since: now, hangs: false },
            Begin::Fails => daemon.crash(now, 0),
            Begin::Lacks => daemon.at = At::Lacking,
            how => daemon.at = At::Begins { since: now, how, again },
        }
    }
}

impl Daemon {
    fn left(&mut self, now: u64, then: Then) {
        match then {
            Then::Stop => self.at = At::Off,
            Then::StandBy => self.at = At::StandsBy,
            Then::Again => {
                self.crashes = 0;
                self.at = At::Waits { again: false };
            }
            Then::Crash => self.crash(now, 0),
        }
    }
}
