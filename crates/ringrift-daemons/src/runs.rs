//! Derivations: at most one run per key, polled by the owner's cycle, tried again after a pause.
//!
//! A derivation needs no queue: the catalogue shows that it is due, and doing it twice gives the same
//! file. So nothing is lost when its owner or its worker dies.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use warden::{Cx, Health};

use crate::{Finished, Order, Report, Running, WorkError, Workshop};

/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The runs of one daemon.
#[derive(Debug)]
pub(crate) struct Runs<K> {
    running: BTreeMap<K, Running>,
    trouble: BTreeMap<K, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    failures: u32,
    until: Instant,
    sentence: String,
}

/// How one run ended.
#[derive(Debug)]
pub(crate) struct Ended<K> {
    pub(crate) key: K,
    pub(crate) order: Order,
    pub(crate) end: Result<Finished, WorkError>,
}

impl<K> Default for Runs<K> {
    fn default() -> Self {
        Self { running: BTreeMap::new(), trouble: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Runs<K> {
    /// Neither at work nor in the pause after a failure.
    pub(crate) fn may_start(&self, key: K) -> bool {
        !self.running.contains_key(&key)
            && self.trouble.get(&key).is_none_or(|trouble| trouble.until <= Instant::now())
    }

    /// How many are at work.
    pub(crate) fn at_work(&self) -> usize {
        self.running.len()
    }

    /// Starts a run.
    pub(crate) fn start(&mut self, key: K, order: Order, workshop: &Workshop, cx: &Cx) {
        self.running.insert(key, workshop.start(order, &cx.token()));
    }

    /// The runs that ended since the last call.
    pub(crate) fn ended(&mut self) -> Vec<Ended<K>> {
        let mut ended = Vec::new();
        for (key, running) in &mut self.running {
            while let Some(report) = running.try_next() {
                if let Report::End(end) = report {
                    ended.push(Ended { key: *key, order: running.order.clone(), end });
                    break;
                }
            }
        }
        for one in &ended {
            self.running.remove(&one.key);
        }
        ended
    }

    /// Notes that a run gave nothing; the next one waits 1, 2, 4 .. 60 s.
    pub(crate) fn failed(&mut self, key: K, error: &WorkError) {
        if *error == WorkError::Stopped {
            return;
        }
        let failures = self.trouble.get(&key).map_or(0, |trouble| trouble.failures) + 1;
        let pause = Duration::from_secs(1 << (failures - 1).min(6)).min(LONGEST_PAUSE);
        let trouble =
            Trouble { failures, until: Instant::now() + pause, sentence: error.to_string() };
        self.trouble.insert(key, trouble);
    }

    /// Notes that a run was good.
    pub(crate) fn succeeded(&mut self, key: K) {
        self.trouble.remove(&key);
    }

    /// Degraded as long as something fails.
    pub(crate) fn health(&self) -> Health {
        match self.trouble.values().max_by_key(|trouble| trouble.failures) {
            Some(worst) => Health::Degraded(format!(
                "failed {} times in a row: {}",
                worst.failures, worst.sentence
            )),
            None => Health::Healthy,
        }
    }
}
