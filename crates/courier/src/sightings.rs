//! Leases as they are seen from here.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::lease::Lease;

/// Between two looks so much counts as silence of others at most, unless the pause was longer on purpose: who could
/// not look for longer was cut off himself, and knows nothing of that time.
const BETWEEN_LOOKS: Duration = Duration::from_secs(4);

/// Which leases are still prolonged, by the clock of who looks.
///
/// A lease says when it ends by its holder's wall clock, which may be an hour wrong. Whoever takes over
/// from another should wait until the lease stood still for as long as it is granted for, by his own
/// clock: [`Sightings::silent`].
#[derive(Debug, Default)]
pub struct Sightings {
    seen: BTreeMap<String, (Lease, Instant)>,
    looked: Option<Instant>,
    /// So long the next look may take after the last one.
    pause: Duration,
}

impl Sightings {
    /// Says how long it may be, from now on, from one look to the next: what happens meanwhile will be seen then, and
    /// counts as nobody's silence before.
    pub fn pause(&mut self, pause: Duration) {
        self.pause = pause;
    }

    /// Takes note of all leases as the log has them now, `log.leases(prefix, i64::MIN)`: those that were
    /// given back are gone, those that ran out are not. To be called every few seconds, or as often as [`pause`](Self::pause) says.
    pub fn note(&mut self, leases: Vec<Lease>, now: Instant) {
        let since_last = self.looked.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let blind = since_last.saturating_sub(self.pause.max(BETWEEN_LOOKS));
        self.looked = Some(now);
        let mut before = std::mem::take(&mut self.seen);
        for lease in leases {
            let since = match before.remove(&lease.name) {
                Some((known, since)) if known == lease => now.min(since + blind),
                _ => now,
            };
            self.seen.insert(lease.name.clone(), (lease, since));
        }
    }

    /// The lease of this name, and for how long it was seen to stand still.
    pub fn silent(&self, name: &str, now: Instant) -> Option<(&Lease, Duration)> {
        let (lease, since) = self.seen.get(name)?;
        Some((lease, self.silence(*since, now)))
    }

    fn silence(&self, since: Instant, now: Instant) -> Duration {
        let paused = self.looked.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        now.saturating_duration_since(since).saturating_sub(paused.min(self.pause))
    }

    /// All leases, by name, each with for how long it was seen to stand still.
    pub fn all(&self, now: Instant) -> impl Iterator<Item = (&Lease, Duration)> {
        self.seen.values().map(move |(lease, since)| (lease, self.silence(*since, now)))
    }

    /// Whether anybody looked yet.
    pub fn looked(&self) -> bool {
        self.looked.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Embedded, Options};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_lease_is_silent_from_its_last_change_on_whatever_its_holders_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts"), Options::default()).unwrap();
        let begin = Instant::now();
        let mut seen = Sightings::default();
        // An hour before everybody else, and ten years after.
        let late = log.acquire("node.late", "late", SECOND, -3_600_000).await.unwrap();
        let early = log.acquire("node.early", "early", SECOND, 315_360_000_000).await.unwrap();
        log.acquire("other", "late", SECOND, 0).await.unwrap();
        let leases = async || log.leases("node.", i64::MIN).await.unwrap();
        assert!(!seen.looked());
        seen.note(leases().await, begin);
        let silent = |seen: &Sightings, name: &str, at: u32| {
            seen.silent(name, begin + SECOND * at).map(|(_, silent)| silent)
        };
        assert_eq!(silent(&seen, "node.late", 0), Some(Duration::ZERO));
        assert_eq!(silent(&seen, "node.early", 3), Some(3 * SECOND));
        assert_eq!(silent(&seen, "other", 3), None);
        let all = seen.all(begin + SECOND).map(|(lease, silent)| (lease.holder.as_str(), silent));
        assert_eq!(all.collect::<Vec<_>>(), [("early", SECOND), ("late", SECOND)]);

        let late = log.renew(&late, SECOND, -3_599_500).await.unwrap();
        seen.note(leases().await, begin + 4 * SECOND);
        assert_eq!(silent(&seen, "node.late", 5), Some(SECOND));
        assert_eq!(silent(&seen, "node.early", 5), Some(5 * SECOND));

        log.release(&late).await.unwrap();
        log.release(&early).await.unwrap();
        seen.note(leases().await, begin + 6 * SECOND);
        assert_eq!(silent(&seen, "node.late", 6), None);
    }

    #[test]
    fn who_could_not_look_does_not_take_the_others_for_silent() {
        let begin = Instant::now();
        let lease = Lease {
            name: "node.a".into(),
            holder: "a".into(),
            epoch: 1,
            expires_ms: 30_000,
            note: String::new(),
        };
        let mut seen = Sightings::default();
        seen.note(vec![lease.clone()], begin);
        // The log was out of reach for a minute, for the other one as well.
        let back = begin + 60 * SECOND;
        seen.note(vec![lease.clone()], back);
        assert_eq!(seen.silent("node.a", back).unwrap().1, BETWEEN_LOOKS);
        // From here on it is its own silence.
        seen.note(vec![lease.clone()], back + 3 * SECOND);
        seen.note(vec![lease], back + 6 * SECOND);
        assert_eq!(seen.silent("node.a", back + 6 * SECOND).unwrap().1, BETWEEN_LOOKS + 6 * SECOND);
    }

    #[test]
    fn a_pause_that_was_meant_is_no_silence_until_it_is_over() {
        let begin = Instant::now();
        let lease = |expires_ms| Lease {
            name: "node.a".into(),
            holder: "a".into(),
            epoch: 1,
            expires_ms,
            note: String::new(),
        };
        let mut seen = Sightings::default();
        let silent = |seen: &Sightings, at: u32| {
            seen.silent("node.a", begin + SECOND * at).map(|(_, silent)| silent)
        };
        seen.pause(20 * SECOND);
        seen.note(vec![lease(30_000)], begin);
        assert_eq!(silent(&seen, 20), Some(Duration::ZERO));
        assert_eq!(silent(&seen, 23), Some(3 * SECOND), "the look does not come");
        // It stood still all the time.
        seen.note(vec![lease(30_000)], begin + 20 * SECOND);
        assert_eq!(silent(&seen, 20), Some(20 * SECOND));
        assert_eq!(silent(&seen, 39), Some(20 * SECOND));
        seen.note(vec![lease(60_000)], begin + 41 * SECOND);
        assert_eq!(silent(&seen, 41), Some(Duration::ZERO));
        seen.pause(Duration::ZERO);
        assert_eq!(silent(&seen, 43), Some(2 * SECOND));
    }
}
