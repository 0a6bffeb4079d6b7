//! A history that many tasks write, of one process or of several lives of it.

use std::collections::HashMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::linear::{Operation, What};

/// What a line of a process that may be killed begins with.
const LINE: &str = "history ";

/// Operations in the order in which they were called.
#[derive(Default)]
pub(crate) struct History {
    told: Mutex<Told>,
    /// Each step is a line of the standard output as well.
    is_told: bool,
}

#[derive(Default)]
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
    /// One that another process reads.
    pub(crate) fn told() -> Self {
        Self { is_told: true, ..Self::default() }
    }

    /// An operation begins; what it is if no answer ever comes, if it has an effect then.
    pub(crate) fn call(&self, what: Option<What>) -> usize {
        let mut told = self.told.lock().unwrap();
        let n = told.operations.len();
        // Before it is begun: no later than the call.
        self.tell(&Line::Called(n, what.clone()));
        told.clock += 1;
        let called = told.clock;
        told.operations.push(Operation { called, answered: None, what });
        n
    }

    /// An operation answered; none if the answer says nothing.
    pub(crate) fn answer(&self, n: usize, what: Option<What>) {
        let mut told = self.told.lock().unwrap();
        self.tell(&Line::Answered(n, what.clone()));
        told.clock += 1;
        let answered = told.clock;
        let operation = &mut told.operations[n];
        operation.answered = Some(answered);
        operation.what = what;
    }

    fn tell(&self, line: &Line) {
        if self.is_told {
            println!("{LINE}{}", serde_json::to_string(line).unwrap());
        }
    }

    /// All that say something.
    pub(crate) fn into_operations(self) -> Vec<Operation<What>> {
        let all = self.told.into_inner().unwrap().operations.into_iter();
        all.filter_map(|Operation { called, answered, what }| {
            Some(Operation { called, answered, what: what? })
        })
        .collect()
    }
}

/// Reads what one life of a process told, into the history of all its lives.
pub(crate) struct Life<'a> {
    history: &'a History,
    numbers: HashMap<usize, usize>,
}

impl<'a> Life<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        Self { history, numbers: HashMap::new() }
    }

    /// Takes a line; says whether it was an answer. The last one of a life may be torn.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        let line = line.strip_prefix(LINE).and_then(|line| serde_json::from_str(line).ok());
        match line {
            Some(Line::Called(n, what)) => {
                self.numbers.insert(n, self.history.call(what));
                false
            }
            Some(Line::Answered(n, what)) => {
                self.history.answer(self.numbers[&n], what);
                true
            }
            None => false,
        }
    }
}
