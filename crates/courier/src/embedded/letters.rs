//! Whether a subscriber has letters to be delivered again, without a look into the file each time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::dead::{LetterFilter, LetterState};

/// How long "there are none" holds: another process may have asked for one meanwhile.
const HOLDS: Duration = Duration::from_secs(1);

/// What was seen of each subscriber. Every subscriber looks before every page of facts, and hardly
/// ever finds any.
#[derive(Default)]
pub(super) struct Retries(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// Letters that this process wanted to be delivered again.
    asked: u64,
    /// By subscriber and prefix: nothing was found, how often had been asked then, and when it was.
    none: HashMap<(String, String), (u64, Instant)>,
}

/// A look that has begun.
pub(super) struct Look {
    key: (String, String),
    asked: u64,
}

impl Retries {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One was asked for; its subscriber is woken after that.
    pub(super) fn add(&self) {
        self.lock().asked += 1;
    }

    /// None for other questions than a subscriber's.
    pub(super) fn look(&self, filter: &LetterFilter) -> Option<Look> {
        let LetterFilter { id: None, subscriber: Some(name), prefix, state, limit } = filter else {
            return None;
        };
        let is_ours = *state == Some(LetterState::Retrying) && *limit > 0;
        let asked = self.lock().asked;
        is_ours.then(|| Look { key: (name.clone(), prefix.clone()), asked })
    }

    /// It would find none: none was found a moment ago, and none was asked for since.
    pub(super) fn finds_none(&self, look: &Look) -> bool {
        let seen = self.lock();
        let none = seen.none.get(&look.key);
        none.is_some_and(|(asked, at)| *asked == look.asked && at.elapsed() < HOLDS)
    }

    /// It found none.
    pub(super) fn found_none(&self, look: Look) {
        self.lock().none.insert(look.key, (look.asked, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> LetterFilter {
        LetterFilter {
            subscriber: Some(name.to_owned()),
            state: Some(LetterState::Retrying),
            ..LetterFilter::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn none_holds_for_a_moment_and_until_one_is_asked_for() {
        let retries = Retries::default();
        let look = || retries.look(&of("a")).unwrap();
        assert!(!retries.finds_none(&look()));
        retries.found_none(look());
        assert!(retries.finds_none(&look()));
        assert!(!retries.finds_none(&retries.look(&of("b")).unwrap()));
        tokio::time::advance(HOLDS).await;
        assert!(!retries.finds_none(&look()));

        // Asked for while the file was looked into.
        let begun = look();
        retries.add();
        retries.found_none(begun);
        assert!(!retries.finds_none(&look()));
    }

    #[test]
    fn other_questions_are_not_answered_from_memory() {
        let retries = Retries::default();
        assert!(retries.look(&LetterFilter::default()).is_none());
        assert!(retries.look(&LetterFilter { id: Some(1), ..of("a") }).is_none());
        assert!(retries.look(&LetterFilter { limit: 0, ..of("a") }).is_none());
        assert!(
            retries.look(&LetterFilter { state: Some(LetterState::Pending), ..of("a") }).is_none()
        );
    }
}
