//! Whether a history of operations, seen from outside, could have happened one after the other.
//!
//! The search of Wing and Gong with the memory of Lowe: of the operations that nobody had to wait for, one
//! is taken as the next, until all are taken or none fits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

/// An operation of one task: when it was called, when it answered, and both in one value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operation<O> {
    /// By the clock of its history.
    pub called: u64,
    /// None: no answer came. It may take effect at any later time, or never.
    pub answered: Option<u64>,
    /// What was asked, and what was said.
    pub what: O,
}

/// What may follow from what.
pub(super) trait Machine {
    type Operation: Debug + PartialEq;
    type State: Clone + Eq + Hash + Debug + Default;

    /// The state after an operation, if it can have answered like that in this state. An operation
    /// without an answer fits wherever it can have an effect.
    fn apply(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;

    /// Whether it leaves every state as it is: a question, or a refusal.
    fn only_looks(operation: &Self::Operation) -> bool;
}

/// After so many ways, of which each is remembered in 16 bytes, it is left open whether another one would fit.
const MOST_WAYS: usize = 10_000_000;

/// A way to some state: which operations were taken.
struct Way<S> {
    done: Vec<u64>,
    state: S,
    /// Those taken that have an answer.
    count: usize,
    /// Tells the set of those taken from any other.
    print: u128,
}

impl<S: Hash> Way<S> {
    /// The operations that may come next: whoever was called after one of these had answered comes after it.
    fn next<O>(&self, history: &[Operation<O>]) -> Vec<usize> {
        let mut next = Vec::new();
        let mut first_answer = u64::MAX;
        for (word, done) in self.done.iter().enumerate() {
            let mut open = !done;
            while open != 0 {
                let n = word * 64 + open.trailing_zeros() as usize;
                let Some(operation) = history.get(n) else { return next };
                if operation.called > first_answer {
                    return next;
                }
                first_answer = first_answer.min(operation.answered.unwrap_or(u64::MAX));
                next.push(n);
                open &= open - 1;
            }
        }
        next
    }

    fn take<O>(&mut self, n: usize, operation: &Operation<O>) {
        self.done[n / 64] |= 1 << (n % 64);
        self.count += usize::from(operation.answered.is_some());
        self.print ^= print(&n);
    }

    /// Tells what was taken and the state from any other such pair.
    fn place(&self) -> u128 {
        print(&(self.print, &self.state))
    }
}

/// 128 bits: that two of some millions are the same is less likely than a fault of the machine.
fn print(what: &impl Hash) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, what).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Says what does not fit, if the history is not one of the machine.
pub(super) fn check<M: Machine>(
    machine: &M,
    mut history: Vec<Operation<M::Operation>>,
) -> Result<(), String> {
    history.sort_by_key(|operation| operation.called);
    let total = history.iter().filter(|operation| operation.answered.is_some()).count();
    let mut seen: HashSet<u128> = HashSet::new();
    // What did not fit behind the longest way so far.
    let mut deepest: (usize, BTreeMap<usize, M::State>) = <_>::default();
    let words = history.len().div_ceil(64);
    let begin = Way { done: vec![0; words], state: M::State::default(), count: 0, print: 0 };
    let mut ways = vec![begin];
    while let Some(mut way) = ways.pop() {
        let mut next = way.next(&history);
        // Who only looks, was answered, and fits is taken at once: that keeps nobody else from fitting.
        while let Some(n) = next.iter().copied().find(|n| {
            let Operation { answered, what, .. } = &history[*n];
            answered.is_some() && M::only_looks(what) && machine.apply(&way.state, what).is_some()
        }) {
            way.take(n, &history[n]);
            next = way.next(&history);
        }
        if way.count == total {
            return Ok(());
        }
        if way.count > deepest.0 {
            deepest = (way.count, BTreeMap::new());
        }
        // The last of these is gone first: the one that answered first, and none without an answer as long as
        // another one fits, which it does later as well.
        next.sort_by_key(|n| Reverse((history[*n].answered.unwrap_or(u64::MAX), *n)));
        for (i, n) in next.iter().copied().enumerate() {
            let operation = &history[n];
            // Of those without an answer that are alike, the one that was called first: it fits wherever another does.
            let is_alike = |m: &usize| {
                let other = &history[*m];
                other.answered.is_none() && other.what == operation.what
            };
            if operation.answered.is_none() && next[i + 1..].iter().any(is_alike) {
                continue;
            }
            let Some(state) = machine.apply(&way.state, &operation.what) else {
                if way.count == deepest.0 && operation.answered.is_some() {
                    deepest.1.insert(n, way.state.clone());
                }
                continue;
            };
            if operation.answered.is_none() && state == way.state {
                // As if it never was.
                continue;
            }
            let (done, count, print) = (way.done.clone(), way.count, way.print);
            let mut longer = Way { done, state, count, print };
            longer.take(n, operation);
            if seen.insert(longer.place()) {
                ways.push(longer);
            }
        }
        if seen.len() > MOST_WAYS {
            break;
        }
    }
    let found = if seen.len() > MOST_WAYS {
        format!("no order in {MOST_WAYS} tries")
    } else {
        "no order fits".to_owned()
    };
    let (count, stuck) = deepest;
    let stuck = stuck.into_iter().map(|(n, state)| format!("\n{:?} in {state:?}", history[n]));
    let stuck: String = stuck.collect();
    Err(format!(
        "{found}; the longest try took {count} of {total}, behind which do not fit:{stuck}"
    ))
}
