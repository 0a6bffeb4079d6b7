//! Whether a history of operations, seen from outside, could have happened one after the other.
//!
//! The search of Wing and Gong with the memory of Lowe: of the operations that nobody had to wait for, one
//! is taken as the next, until all are taken or none fits.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

/// An operation of one task: when it was called, when it answered, and both in one value.
#[derive(Debug, Clone)]
pub(crate) struct Operation<O> {
    pub(crate) called: u64,
    /// None: no answer came. It may take effect at any later time, or never.
    pub(crate) answered: Option<u64>,
    pub(crate) what: O,
}

/// What may follow from what.
pub(crate) trait Machine {
    type Operation: Debug;
    type State: Clone + Eq + std::hash::Hash + Debug + Default;

    /// The state after an operation, if it can have answered like that in this state. An operation
    /// without an answer fits wherever it can have an effect.
    fn apply(state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// Says what does not fit, if the history is not one of the machine.
pub(crate) fn check<M: Machine>(mut history: Vec<Operation<M::Operation>>) -> Result<(), String> {
    history.sort_by_key(|operation| operation.called);
    let total = history.iter().filter(|operation| operation.answered.is_some()).count();
    let mut seen: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut deepest: (usize, String) = (0, String::new());
    let words = history.len().div_ceil(64);
    let mut stack = vec![(vec![0_u64; words], M::State::default(), 0_usize)];
    while let Some((done, state, count)) = stack.pop() {
        if count == total {
            return Ok(());
        }
        let is_done = |n: usize| done[n / 64] >> (n % 64) & 1 == 1;
        // Whoever was called after one of these had answered comes after it.
        let open = || (0..history.len()).filter(|n| !is_done(*n));
        let first_answer = open().filter_map(|n| history[n].answered).min().unwrap_or(u64::MAX);
        for n in open() {
            let operation = &history[n];
            if operation.called > first_answer {
                break;
            }
            let Some(next) = M::apply(&state, &operation.what) else {
                if count >= deepest.0 {
                    let after = format!("{operation:?} does not fit after {count} in {state:?}");
                    deepest = (count, after);
                }
                continue;
            };
            let mut done = done.clone();
            done[n / 64] |= 1 << (n % 64);
            if seen.insert((done.clone(), next.clone())) {
                let answered = usize::from(operation.answered.is_some());
                stack.push((done, next, count + answered));
            }
        }
    }
    Err(format!("no order fits; the longest try took {} of {total}: {}", deepest.0, deepest.1))
}

/// One subject, and one lease that fences its appends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum What {
    /// An append that expects the last position; the position it got, or the last one when refused.
    Append { id: String, after: u64, fence: Option<u64>, outcome: Appended },
    /// The last position on the subject.
    Last(u64),
    /// An acquisition by a holder that succeeded with this epoch; none if the answer did not come, and
    /// both engines count by one.
    Acquired { by: String, epoch: Option<u64> },
    /// An acquisition that was refused because this one holds the lease.
    Held { by: String },
    /// A lease given back.
    Released { by: String, epoch: u64 },
    /// Who holds the lease, with the epoch.
    Holds(Option<(String, u64)>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Appended {
    At(u64),
    Conflict(u64),
    Fenced,
}

/// The subject's last position, and the lease: holder and epoch.
pub(crate) struct OneSubject;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct SubjectState {
    last: u64,
    holder: Option<String>,
    epoch: u64,
}

impl Machine for OneSubject {
    type Operation = What;
    type State = SubjectState;

    fn apply(state: &SubjectState, operation: &What) -> Option<SubjectState> {
        let mut next = state.clone();
        let fits = match operation {
            What::Append { after, fence, outcome, .. } => {
                let holds =
                    fence.is_none_or(|epoch| state.holder.is_some() && epoch == state.epoch);
                match outcome {
                    Appended::At(position) => {
                        next.last = *position;
                        holds && state.last == *after && position > after
                    }
                    Appended::Conflict(actual) => holds && actual != after && state.last == *actual,
                    Appended::Fenced => !holds,
                }
            }
            What::Last(position) => state.last == *position,
            What::Acquired { by, epoch } => {
                let free = state.holder.as_ref().is_none_or(|holder| holder == by);
                next.holder = Some(by.clone());
                next.epoch = epoch.unwrap_or(state.epoch + 1);
                free && next.epoch > state.epoch
            }
            What::Held { by } => state.holder.as_ref() == Some(by),
            What::Released { by, epoch } => {
                if state.holder.as_ref() == Some(by) && state.epoch == *epoch {
                    next.holder = None;
                }
                true
            }
            What::Holds(who) => {
                state.holder.as_ref().map(|holder| (holder.clone(), state.epoch)) == *who
            }
        };
        fits.then_some(next)
    }
}

/// For messages about a history.
pub(crate) fn tally(history: &[Operation<What>]) -> String {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for Operation { answered, what, .. } in history {
        let kind = match (answered, what) {
            (None, _) => "without an answer",
            (_, What::Append { outcome: Appended::At(_), .. }) => "appended",
            (_, What::Append { outcome: Appended::Conflict(_), .. }) => "conflicts",
            (_, What::Append { outcome: Appended::Fenced, .. }) => "fenced",
            (_, What::Last(_) | What::Holds(_)) => "read",
            (_, What::Acquired { .. }) => "acquired",
            (_, What::Held { .. }) => "held by another",
            (_, What::Released { .. }) => "released",
        };
        *counts.entry(kind).or_default() += 1;
    }
    format!("{} operations: {counts:?}", history.len())
}

fn operation(called: u64, answered: u64, what: What) -> Operation<What> {
    Operation { called, answered: Some(answered), what }
}

fn append(after: u64, fence: Option<u64>, outcome: Appended) -> What {
    What::Append { id: String::new(), after, fence, outcome }
}

#[test]
fn what_overlaps_may_have_happened_in_any_order() {
    let history = vec![
        operation(0, 5, append(0, None, Appended::Conflict(3))),
        operation(1, 4, append(0, None, Appended::At(3))),
        operation(2, 6, What::Last(0)),
    ];
    check::<OneSubject>(history).unwrap();
}

#[test]
fn what_cannot_have_happened_is_found() {
    let acquired = |epoch| What::Acquired { by: format!("h{epoch}"), epoch: Some(epoch) };
    for (name, history) in [
        (
            "two took the same step",
            vec![
                operation(0, 3, append(0, None, Appended::At(3))),
                operation(1, 4, append(0, None, Appended::At(4))),
            ],
        ),
        (
            "a read behind an answer does not see it",
            vec![operation(0, 1, append(0, None, Appended::At(3))), operation(2, 3, What::Last(0))],
        ),
        (
            "an append of an epoch that is over",
            vec![
                operation(0, 1, acquired(1)),
                operation(2, 3, What::Released { by: "h1".to_owned(), epoch: 1 }),
                operation(4, 5, append(0, Some(1), Appended::At(3))),
            ],
        ),
        (
            "refused for a holder who is not one",
            vec![operation(0, 1, acquired(1)), operation(2, 3, What::Held { by: "h2".to_owned() })],
        ),
        (
            "fenced before anybody took the lease",
            vec![
                operation(0, 1, acquired(1)),
                operation(2, 3, append(0, Some(1), Appended::Fenced)),
            ],
        ),
    ] {
        assert!(check::<OneSubject>(history).is_err(), "{name}");
    }
}

#[test]
fn an_operation_without_an_answer_may_have_happened_or_not() {
    for last in [0, 3] {
        let history = vec![
            Operation { called: 0, answered: None, what: append(0, None, Appended::At(3)) },
            operation(1, 2, What::Last(last)),
        ];
        check::<OneSubject>(history).unwrap();
    }
}
