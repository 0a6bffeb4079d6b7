//! One subject and one lease as a machine: what may have been answered in which state.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use super::search::{Machine, Operation, check};

/// One subject, and one lease that fences its appends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// An append that expects the last position; the position it got, or the last one when refused.
    Append {
        /// Of its fact.
        id: String,
        /// The position that it expects.
        after: u64,
        /// The epoch of the lease that it carries.
        fence: Option<u64>,
        /// What came of it.
        outcome: Appended,
    },
    /// The last position on the subject.
    Last(u64),
    /// An acquisition by a holder that succeeded with this epoch, the one after the last; none if the answer did
    /// not come.
    Acquired {
        /// The holder.
        by: String,
        /// As it was granted.
        epoch: Option<u64>,
        /// The time that he named.
        now_ms: i64,
    },
    /// An acquisition that was refused because this one holds the lease.
    Held {
        /// The holder.
        by: String,
        /// The time that was named.
        now_ms: i64,
    },
    /// A lease prolonged.
    Renewed {
        /// The holder.
        by: String,
        /// As it was granted.
        epoch: u64,
        /// The time that he named.
        now_ms: i64,
    },
    /// The same, refused because it is not held any more.
    Lost {
        /// The holder.
        by: String,
        /// As it was granted.
        epoch: u64,
        /// The time that he named.
        now_ms: i64,
    },
    /// A lease given back.
    Released {
        /// The holder.
        by: String,
        /// As it was granted.
        epoch: u64,
    },
    /// Who holds the lease at a time, with the epoch.
    Holds {
        /// The holder and the epoch.
        who: Option<(String, u64)>,
        /// The time that was named.
        now_ms: i64,
    },
}

/// What comes of an append.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Appended {
    /// It got this position.
    At(u64),
    /// Refused, because this is the last position on the subject.
    Conflict(u64),
    /// Refused, because the lease is not held with this epoch.
    Fenced,
}

/// How long each lease is granted or prolonged, milliseconds.
pub(super) const TTL_MS: i64 = 3_600_000;

/// The subject's last position, and the lease: holder, epoch and end. A lease ends by the time that is named; a fence
/// holds until another one takes it.
pub(super) struct OneSubject {
    /// The epochs of which somebody was told that they are his: nobody else can have got them.
    granted: HashSet<u64>,
}

impl OneSubject {
    pub(super) fn of(history: &[Operation<What>]) -> Self {
        let granted = history.iter().filter_map(|operation| match operation.what {
            What::Acquired { epoch, .. } => epoch,
            _ => None,
        });
        Self { granted: granted.collect() }
    }
}

/// Says what does not fit, if nothing that is so could have seen this.
pub(super) fn is_in_order(history: Vec<Operation<What>>) -> Result<(), String> {
    check(&OneSubject::of(&history), history)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct SubjectState {
    last: u64,
    holder: Option<String>,
    epoch: u64,
    until_ms: i64,
}

impl SubjectState {
    fn is_of(&self, by: &str, epoch: u64) -> bool {
        self.holder.as_deref() == Some(by) && self.epoch == epoch
    }

    /// Who holds it at a time.
    fn holder_at(&self, now_ms: i64) -> Option<&str> {
        self.holder.as_deref().filter(|_| self.until_ms > now_ms)
    }

    fn is_held(&self, by: &str, epoch: u64, now_ms: i64) -> bool {
        self.holder_at(now_ms) == Some(by) && self.epoch == epoch
    }
}

impl Machine for OneSubject {
    type Operation = What;
    type State = SubjectState;

    fn apply(&self, state: &SubjectState, operation: &What) -> Option<SubjectState> {
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
            What::Acquired { by, epoch, now_ms } => {
                let free = state.holder_at(*now_ms).is_none_or(|holder| holder == by);
                next.holder = Some(by.clone());
                next.epoch = state.epoch + 1;
                next.until_ms = now_ms + TTL_MS;
                let is_his = match epoch {
                    Some(epoch) => *epoch == next.epoch,
                    None => !self.granted.contains(&next.epoch),
                };
                free && is_his
            }
            What::Held { by, now_ms } => state.holder_at(*now_ms) == Some(by),
            What::Renewed { by, epoch, now_ms } => {
                next.until_ms = now_ms + TTL_MS;
                state.is_held(by, *epoch, *now_ms)
            }
            What::Lost { by, epoch, now_ms } => !state.is_held(by, *epoch, *now_ms),
            What::Released { by, epoch } => {
                if state.is_of(by, *epoch) {
                    next.holder = None;
                    next.until_ms = 0;
                }
                true
            }
            What::Holds { who, now_ms } => {
                let holder = state.holder_at(*now_ms);
                holder.map(|holder| (holder.to_owned(), state.epoch)) == *who
            }
        };
        fits.then_some(next)
    }

    fn only_looks(operation: &What) -> bool {
        match operation {
            What::Append { outcome, .. } => !matches!(outcome, Appended::At(_)),
            What::Last(_) | What::Held { .. } | What::Holds { .. } | What::Lost { .. } => true,
            What::Acquired { .. } | What::Renewed { .. } | What::Released { .. } => false,
        }
    }
}

impl Operation<What> {
    /// Whether it is an append that entered the log, of a fact whose id has this in it.
    pub fn is_appended(&self, part: &str) -> bool {
        match &self.what {
            What::Append { id, outcome: Appended::At(_), .. } => id.contains(part),
            _ => false,
        }
    }
}

/// How many operations of a history came to what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    /// Nothing is known of these.
    pub const UNANSWERED: &'static str = "without an answer";
    /// Appends that entered the log.
    pub const APPENDED: &'static str = "appended";
    /// Grants to somebody else than the holder before, who never gave it back: his time was over.
    pub const TAKEN_OVER: &'static str = "taken over";

    /// Counts them.
    pub fn of(history: &[Operation<What>]) -> Self {
        let mut counts = BTreeMap::new();
        for Operation { answered, what, .. } in history {
            let kind = match (answered, what) {
                (None, _) => Self::UNANSWERED,
                (_, What::Append { outcome: Appended::At(_), .. }) => Self::APPENDED,
                (_, What::Append { outcome: Appended::Conflict(_), .. }) => "conflicts",
                (_, What::Append { outcome: Appended::Fenced, .. }) => "fenced",
                (_, What::Last(_) | What::Holds { .. }) => "read",
                (_, What::Acquired { .. }) => "acquired",
                (_, What::Held { .. }) => "held by another",
                (_, What::Renewed { .. }) => "renewed",
                (_, What::Lost { .. }) => "lost",
                (_, What::Released { .. }) => "released",
            };
            *counts.entry(kind).or_default() += 1;
        }
        counts.insert(Self::TAKEN_OVER, taken_over(history));
        Self(counts)
    }

    /// How many came to this.
    pub fn count(&self, kind: &str) -> usize {
        self.0.get(kind).copied().unwrap_or_default()
    }

    /// All of them. Those taken over are among those acquired.
    pub fn total(&self) -> usize {
        self.0.values().sum::<usize>() - self.count(Self::TAKEN_OVER)
    }
}

fn taken_over(history: &[Operation<What>]) -> usize {
    let mut holders = BTreeMap::new();
    let mut given_back = HashSet::new();
    for Operation { what, .. } in history {
        match what {
            What::Acquired { by, epoch: Some(epoch), .. } => {
                holders.insert(*epoch, by);
            }
            What::Released { epoch, .. } => {
                given_back.insert(*epoch);
            }
            _ => {}
        }
    }
    let is_taken_over = |(epoch, by): (&u64, &&String)| {
        let before = epoch - 1;
        !given_back.contains(&before) && holders.get(&before).is_some_and(|other| other != by)
    };
    holders.iter().filter(|(epoch, by)| is_taken_over((epoch, by))).count()
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} operations: {:?}", self.total(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        is_in_order(history).unwrap();
    }

    #[test]
    fn what_cannot_have_happened_is_found() {
        let acquired_at =
            |epoch, now_ms| What::Acquired { by: format!("h{epoch}"), epoch: Some(epoch), now_ms };
        let acquired = |epoch| acquired_at(epoch, 0);
        let renewed = |now_ms| What::Renewed { by: "h1".to_owned(), epoch: 1, now_ms };
        let lost = |now_ms| What::Lost { by: "h1".to_owned(), epoch: 1, now_ms };
        let held = |by: &str, now_ms| What::Held { by: by.to_owned(), now_ms };
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
                vec![
                    operation(0, 1, append(0, None, Appended::At(3))),
                    operation(2, 3, What::Last(0)),
                ],
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
                vec![operation(0, 1, acquired(1)), operation(2, 3, held("h2", 0))],
            ),
            (
                "prolonged after another one took it",
                vec![
                    operation(0, 1, acquired(1)),
                    operation(2, 3, What::Released { by: "h1".to_owned(), epoch: 1 }),
                    operation(4, 5, acquired(2)),
                    operation(6, 7, renewed(0)),
                ],
            ),
            (
                "lost while it was held",
                vec![operation(0, 1, acquired(1)), operation(2, 3, lost(0))],
            ),
            (
                "taken over before its time was over",
                vec![operation(0, 1, acquired(1)), operation(2, 3, acquired_at(2, TTL_MS - 1))],
            ),
            (
                "taken over by the time that it had before it was prolonged",
                vec![
                    operation(0, 1, acquired(1)),
                    operation(2, 3, renewed(1)),
                    operation(4, 5, acquired_at(2, TTL_MS)),
                ],
            ),
            (
                "prolonged when its time was over",
                vec![operation(0, 1, acquired(1)), operation(2, 3, renewed(TTL_MS))],
            ),
            (
                "refused for a holder whose time was over",
                vec![operation(0, 1, acquired(1)), operation(2, 3, held("h1", TTL_MS))],
            ),
            (
                "an append of one whose lease was taken over",
                vec![
                    operation(0, 1, acquired(1)),
                    operation(2, 3, acquired_at(2, TTL_MS)),
                    operation(4, 5, append(0, Some(1), Appended::At(3))),
                ],
            ),
            (
                "a grant that nobody asked for",
                vec![operation(0, 1, acquired(1)), operation(2, 3, acquired(3))],
            ),
            (
                "fenced before anybody took the lease",
                vec![
                    operation(0, 1, acquired(1)),
                    operation(2, 3, append(0, Some(1), Appended::Fenced)),
                ],
            ),
        ] {
            assert!(is_in_order(history).is_err(), "{name}");
        }
    }

    #[test]
    fn a_lease_whose_time_is_over_is_taken_over_and_fences_until_then() {
        let acquired =
            |by: &str, epoch, now_ms| What::Acquired { by: by.to_owned(), epoch, now_ms };
        let renewed = What::Renewed { by: "a".to_owned(), epoch: 1, now_ms: 1 };
        let holds = |who: Option<(&str, u64)>, now_ms| What::Holds {
            who: who.map(|(by, epoch)| (by.to_owned(), epoch)),
            now_ms,
        };
        let history = vec![
            operation(0, 1, acquired("a", Some(1), 0)),
            operation(2, 3, renewed),
            operation(4, 5, holds(Some(("a", 1)), TTL_MS)),
            operation(6, 7, holds(None, TTL_MS + 1)),
            operation(8, 9, append(0, Some(1), Appended::At(3))),
            operation(10, 11, acquired("b", Some(2), TTL_MS + 1)),
            operation(12, 13, append(3, Some(1), Appended::Fenced)),
            operation(14, 15, holds(Some(("b", 2)), 2 * TTL_MS)),
        ];
        let tally = Tally::of(&history);
        assert_eq!((tally.count(Tally::TAKEN_OVER), tally.total()), (1, 8));
        is_in_order(history).unwrap();
    }

    #[test]
    fn an_operation_without_an_answer_may_have_happened_or_not() {
        for last in [0, 3] {
            let history = vec![
                Operation { called: 0, answered: None, what: append(0, None, Appended::At(3)) },
                operation(1, 2, What::Last(last)),
            ];
            is_in_order(history).unwrap();
        }
    }

    #[test]
    fn many_without_an_answer_are_tried_one_for_the_other() {
        let acquired = |epoch| What::Acquired { by: "h".to_owned(), epoch, now_ms: 0 };
        let lost = (0..30).map(|called| Operation { called, answered: None, what: acquired(None) });
        let grants = (1..40).filter(|epoch| epoch % 13 != 0);
        let told =
            grants.map(|epoch| operation(epoch * 100, epoch * 100 + 50, acquired(Some(epoch))));
        let appends =
            (1..400).map(|n| operation(n * 10, n * 10 + 9, append(n - 1, None, Appended::At(n))));
        is_in_order(lost.chain(told).chain(appends).collect()).unwrap();
    }

    /// What six tasks see of one machine, whose answers are lost now and then.
    struct Seen {
        state: SubjectState,
        now_ms: i64,
        /// Of each task: the last position that it knows, and the epoch that it has.
        tasks: [(u64, Option<u64>); 6],
        random: u64,
    }

    impl Seen {
        fn next(&mut self, below: u64) -> u64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % below
        }

        /// One operation, and what it is if its answer is lost.
        fn step(&mut self, n: u64) -> Option<(What, Option<What>)> {
            let task = usize::try_from(self.next(6)).unwrap();
            let by = format!("h{}", task % 2);
            self.now_ms += if self.next(10) == 0 { TTL_MS } else { 0 };
            // Who looked at the clock before others let time pass.
            let now_ms = self.now_ms - if self.next(4) == 0 { TTL_MS / 2 } else { 0 };
            let (last, lease) = self.tasks[task];
            Some(match self.next(8) {
                0 => {
                    if self.state.holder_at(now_ms).is_some_and(|holder| holder != by) {
                        return Some((What::Held { by: self.state.holder.clone()?, now_ms }, None));
                    }
                    let (epoch, until_ms) = (self.state.epoch + 1, now_ms + TTL_MS);
                    self.state =
                        SubjectState { holder: Some(by.clone()), epoch, until_ms, ..self.state };
                    self.tasks[task].1 = Some(epoch);
                    let acquired = |epoch| What::Acquired { by: by.clone(), epoch, now_ms };
                    (acquired(Some(epoch)), Some(acquired(None)))
                }
                1 => {
                    let epoch = lease?;
                    self.tasks[task].1 = None;
                    if self.state.is_of(&by, epoch) {
                        self.state.holder = None;
                        self.state.until_ms = 0;
                    }
                    let released = What::Released { by, epoch };
                    (released.clone(), Some(released))
                }
                2 | 3 => {
                    let epoch = lease?;
                    if !self.state.is_held(&by, epoch, now_ms) {
                        self.tasks[task].1 = None;
                        return Some((What::Lost { by, epoch, now_ms }, None));
                    }
                    self.state.until_ms = now_ms + TTL_MS;
                    let renewed = What::Renewed { by, epoch, now_ms };
                    (renewed.clone(), Some(renewed))
                }
                4 => {
                    let epoch = self.state.epoch;
                    let holder = self.state.holder_at(now_ms);
                    (What::Holds { who: holder.map(|by| (by.to_owned(), epoch)), now_ms }, None)
                }
                _ => {
                    let holds = |epoch| self.state.holder.is_some() && epoch == self.state.epoch;
                    let outcome = if !lease.is_none_or(holds) {
                        self.tasks[task].1 = None;
                        Appended::Fenced
                    } else if self.state.last == last {
                        self.state.last = n;
                        Appended::At(n)
                    } else {
                        Appended::Conflict(self.state.last)
                    };
                    if outcome != Appended::Fenced {
                        self.tasks[task].0 = self.state.last;
                    }
                    let is_in = matches!(outcome, Appended::At(_));
                    let append = append(last, lease, outcome);
                    (append.clone(), is_in.then_some(append))
                }
            })
        }
    }

    #[test]
    fn a_long_history_of_leases_that_run_out_is_found_to_be_in_order() {
        for seed in 1..20 {
            let mut seen = Seen {
                state: SubjectState::default(),
                now_ms: 0,
                tasks: Default::default(),
                random: seed,
            };
            let mut history = Vec::new();
            for n in 1..8000 {
                let before = (seen.state.clone(), seen.tasks);
                let Some((told, lost)) = seen.step(n) else { continue };
                let called = n * 10 - seen.next(30).min(n * 10 - 1);
                let answered = n * 10 + seen.next(30);
                // Now and then the log is away.
                let is_away = n % 800 < 20;
                if seen.next(1000) > 0 && !(is_away && seen.next(3) > 0) {
                    history.push(operation(called, answered, told));
                    continue;
                }
                let is_done = seen.next(2) == 0;
                if !is_done {
                    (seen.state, seen.tasks) = before;
                }
                let is_append = matches!(told, What::Append { .. });
                // An append that is not in the log never was.
                if let Some(what) = lost.filter(|_| is_done || !is_append) {
                    history.push(Operation { called, answered: None, what });
                }
            }
            assert_eq!(is_in_order(history), Ok(()), "{seed}");
        }
    }
}
