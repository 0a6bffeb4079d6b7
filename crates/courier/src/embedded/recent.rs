//! The newest facts, in memory: subscribers that keep up share them instead of reading each for
//! itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::courier::Page;
use crate::fact::Fact;

/// Most facts kept: four pages of a subscriber.
const MOST: usize = 1024;
/// Most bytes of their bodies as JSON.
const MOST_BYTES: usize = 512 << 10;

/// How long nothing newer is looked for behind the last one: only another process can have appended
/// it, and its facts wake nobody here.
const HOLDS: Duration = Duration::from_millis(50);

/// A fact that was just appended, and the size of its body.
pub(super) type Fresh = (Arc<Fact>, usize);

/// Without gaps: a fact between two of these would have been appended by another process.
#[derive(Default)]
pub(super) struct Recent {
    facts: VecDeque<Fresh>,
    bytes: usize,
    /// When the last one was appended.
    at: Option<Instant>,
}

impl Recent {
    /// Gives those that it forgets for them: to drop a thousand takes a while, which is not the
    /// writer's.
    pub(super) fn add(&mut self, fresh: Vec<Fresh>) -> Vec<Fresh> {
        let mut forgotten = Vec::new();
        if !fresh.is_empty() {
            self.at = Some(Instant::now());
        }
        for (fact, bytes) in fresh {
            let follows = |(last, _): &Fresh| last.position + 1 == fact.position;
            if !self.facts.back().is_none_or(follows) {
                forgotten.extend(self.facts.drain(..));
                self.bytes = 0;
            }
            self.facts.push_back((fact, bytes));
            self.bytes += bytes;
            while self.facts.len() > MOST || self.bytes > MOST_BYTES {
                let Some(oldest) = self.facts.pop_front() else { break };
                self.bytes -= oldest.1;
                forgotten.push(oldest);
            }
        }
        forgotten
    }

    /// The page after a position; none if the file has to be read for it.
    pub(super) fn page(&self, after: u64, prefix: &str, limit: usize) -> Option<Page> {
        let (first, last) = (self.facts.front()?.0.position, self.facts.back()?.0.position);
        if after + 1 < first || after > last {
            return None;
        }
        if after == last {
            let holds = self.at.is_some_and(|at| at.elapsed() < HOLDS);
            return holds.then(|| Page { facts: Vec::new(), through: last });
        }
        let skip = usize::try_from(after + 1 - first).ok()?;
        let newer = self.facts.iter().skip(skip).map(|(fact, _)| fact);
        let facts: Vec<Arc<Fact>> =
            newer.filter(|fact| is_below(&fact.subject, prefix)).take(limit).cloned().collect();
        let through = match facts.last() {
            Some(last) if facts.len() >= limit => last.position,
            _ => last,
        };
        Some(Page { facts, through })
    }
}

/// A subject is `prefix` or begins with it and a dot; an empty prefix matches all.
fn is_below(subject: &str, prefix: &str) -> bool {
    let rest = subject.strip_prefix(prefix);
    prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn fresh(position: u64, subject: &str, bytes: usize) -> Fresh {
        let fact = Fact {
            position,
            id: position.to_string(),
            subject: subject.to_owned(),
            time_ms: 0,
            source: String::new(),
            cause: None,
            body: Value::Null,
        };
        (Arc::new(fact), bytes)
    }

    fn positions(recent: &Recent, after: u64, prefix: &str, limit: usize) -> Option<Vec<u64>> {
        let page = recent.page(after, prefix, limit)?;
        Some(page.facts.iter().map(|fact| fact.position).chain([page.through]).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_there_only_if_nothing_of_it_can_be_missing() {
        let mut recent = Recent::default();
        assert_eq!(positions(&recent, 0, "", 9), None);
        recent.add(vec![fresh(5, "a.b", 1), fresh(6, "a.bc", 1), fresh(7, "a", 1)]);
        assert_eq!(positions(&recent, 3, "", 9), None, "4 is not known");
        assert_eq!(positions(&recent, 4, "", 9), Some(vec![5, 6, 7, 7]));
        assert_eq!(positions(&recent, 5, "", 1), Some(vec![6, 6]));
        assert_eq!(positions(&recent, 4, "a.b", 9), Some(vec![5, 7]));
        assert_eq!(positions(&recent, 4, "x", 9), Some(vec![7]));
        assert_eq!(positions(&recent, 7, "", 9), Some(vec![7]), "nothing came since a moment ago");
        tokio::time::advance(HOLDS).await;
        assert_eq!(positions(&recent, 7, "", 9), None, "8 may be another process's");
        assert_eq!(positions(&recent, 8, "", 9), None, "it is");
        recent.add(vec![fresh(9, "a", 1)]);
        assert_eq!(positions(&recent, 6, "", 9), None);
        assert_eq!(positions(&recent, 8, "", 9), Some(vec![9, 9]));
    }

    #[test]
    fn few_are_kept_and_fewer_of_large_ones() {
        let mut recent = Recent::default();
        recent.add((1..5000).map(|position| fresh(position, "a", 1)).collect());
        assert_eq!((recent.facts.len(), recent.bytes), (MOST, MOST));
        let forgotten =
            recent.add((5000..5005).map(|position| fresh(position, "a", MOST_BYTES / 2)).collect());
        assert_eq!((recent.facts.len(), recent.bytes), (2, MOST_BYTES));
        assert_eq!(forgotten.len(), MOST + 3);
        recent.add(vec![fresh(5005, "a", MOST_BYTES + 1)]);
        assert_eq!((recent.facts.len(), recent.bytes), (0, 0));
    }
}
