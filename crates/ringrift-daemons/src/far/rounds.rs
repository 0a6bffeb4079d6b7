//! Looking at everything once in a long while, a part at a time.

use std::time::Duration;

use ringrift_pipeline::BlobHash;

/// Parts of a round. Prime, so that a machine that is on for the same hours of every day still comes by
/// every part in time.
pub(crate) const PARTS: u64 = 167;

/// Which part's turn it is; remembered nowhere, it follows from the clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds(pub(crate) Duration);

impl Rounds {
    /// The part whose turn it is, counted from the Unix epoch.
    pub(crate) fn part(self, now_ms: i64) -> u64 {
        let length = self.0.as_millis() / u128::from(PARTS);
        let length = u64::try_from(length).unwrap_or(u64::MAX).max(1);
        u64::try_from(now_ms).unwrap_or(0) / length
    }
}

/// Has an artefact's part come since the last one that was done?
///
/// The part follows from the hash alone, so nothing has to be remembered over restarts.
pub(crate) fn is_due(hash: &BlobHash, done: Option<u64>, now: u64) -> bool {
    let Some(done) = done else { return true };
    let digits = hash.as_str().get(..8).unwrap_or_default();
    // A hash that cannot be read is due every time: its look names it.
    let Ok(own) = u64::from_str_radix(digits, 16).map(|number| number % PARTS) else { return true };
    now.saturating_sub(done) >= PARTS || (done + 1..=now).any(|part| part % PARTS == own)
}
