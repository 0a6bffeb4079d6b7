//! A history that many tasks write, of one process or of several lives of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::linear::What;
use super::search::Operation;
use crate::conformance::NOW;

/// What a line of a process that may be killed begins with.
const LINE: &str = "history ";

/// Operations in the order in which they were called. One clock for all who write it, which counts what happens.
#[derive(Debug, Default)]
pub struct History {
    told: Mutex<Told>,
    /// Each step is a line of the standard output as well.
    is_told: bool,
    is_over: AtomicBool,
    /// The time of those who ask for leases, milliseconds since it began.
    time_ms: AtomicI64,
}

#[derive(Debug, Default)]
struct Told {
    clock: u64,
    /// Those without a meaning yet are questions that wait for their answer.
    operations: Vec<Operation<Option<What>>>,
}

#[derive(Serialize, Deserialize)]
enum Line {
    Called(usize, Option<What>),
    Answered(usize, Option<What>),
}

impl History {
    /// One that another process reads: each step is a line of the standard output.
    pub fn told() -> Self {
        Self { is_told: true, ..Self::default() }
    }

    /// From now on nobody begins anything.
    pub fn close(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether nobody is to begin anything.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The time by which all who write it acquire and prolong leases, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        NOW + self.time_ms.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub(super) fn pass(&self, time_ms: i64) {
        self.time_ms.fetch_add(time_ms, Ordering::Relaxed);
    }

    fn so_far(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation begins; what it is if no answer ever comes, if it has an effect then.
    pub fn call(&self, what: Option<What>) -> usize {
        let mut told = self.so_far();
        let n = told.operations.len();
        // Before it is begun: no later than the call.
        self.tell(|| Line::Called(n, what.clone()));
        told.clock += 1;
        let called = told.clock;
        told.operations.push(Operation { called, answered: None, what });
        n
    }

    /// An operation answered; none if the answer says nothing.
    pub fn answer(&self, n: usize, what: Option<What>) {
        let mut told = self.so_far();
        self.tell(|| Line::Answered(n, what.clone()));
        told.clock += 1;
        let answered = told.clock;
        if let Some(operation) = told.operations.get_mut(n) {
            operation.answered = Some(answered);
            operation.what = what;
        }
    }

    #[expect(clippy::print_stdout, reason = "how a process that is killed tells what it did")]
    fn tell(&self, line: impl FnOnce() -> Line) {
        if self.is_told {
            let line = serde_json::to_string(&line()).unwrap_or_default();
            println!("{LINE}{line}");
        }
    }

    /// All so far that say something.
    pub fn operations(&self) -> Vec<Operation<What>> {
        let said = self.so_far();
        let all = said.operations.iter().filter_map(|Operation { called, answered, what }| {
            let what = what.clone()?;
            Some(Operation { called: *called, answered: *answered, what })
        });
        all.collect()
    }
}

/// Reads what one life of a process told, into the history of all its lives.
#[derive(Debug)]
pub struct Life<'a> {
    history: &'a History,
    numbers: HashMap<usize, usize>,
}

impl<'a> Life<'a> {
    /// A life that begins.
    pub fn new(history: &'a History) -> Self {
        Self { history, numbers: HashMap::new() }
    }

    /// Takes a line; says whether it was an answer. The last one of a life may be torn.
    pub fn take(&mut self, line: &str) -> bool {
        let line = line.strip_prefix(LINE).and_then(|line| serde_json::from_str(line).ok());
        match line {
            Some(Line::Called(n, what)) => {
                self.numbers.insert(n, self.history.call(what));
                false
            }
            Some(Line::Answered(n, what)) => {
                if let Some(n) = self.numbers.get(&n) {
                    self.history.answer(*n, what);
                }
                true
            }
            None => false,
        }
    }
}
