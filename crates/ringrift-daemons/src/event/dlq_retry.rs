//! `DLQ_RETRY`: has dead letters delivered again, and gives up the hopeless ones.
//!
//! Reads   letters that wait.
//! Writes  which of them are to be tried again or given up; `dead_letters.replayed`.
//! Never   handles a letter itself: the subscriber that could not digest it gets it, nobody else.

use std::time::Duration;

use courier::{DeadLetter, LetterCounts, LetterFilter, LetterState};
use ringrift_pipeline::{Catalogue, DeadLettersReplayed, Operational, Topic as _};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, STANDALONE, TRAINING_FULL, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    event::event_router::MAX_ATTEMPTS,
};

/// Name of the alarm on many letters.
pub(crate) const ALARM: &str = "dead_letters";
/// Letters that are looked at in a cycle.
const MOST_LISTED: usize = 1000;

/// `[daemons.dlq_retry]`. Source of all figures: event contract, section 8.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Letters sent back in one cycle, the oldest first.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_retried_per_cycle: usize,
    /// Failed retries after which a letter is given up.
    pub max_retries: u32,
    /// Deliveries that failed before the letter was written; what comes on top are retries.
    pub first_attempts: u32,
    /// Pause after a failed retry; it doubles with each further one.
    #[serde(with = "crate::seconds")]
    pub backoff: Duration,
    /// Longest such pause.
    #[serde(with = "crate::seconds")]
    pub longest_backoff: Duration,
    /// Age at which a letter is given up whatever its count.
    #[serde(with = "crate::seconds")]
    pub give_up_after: Duration,
    /// Age at which a letter that is over is removed.
    #[serde(with = "crate::seconds")]
    pub forget_after: Duration,
    /// Waiting letters that raise the alarm.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub alarm_at: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_retried_per_cycle: 10,
            max_retries: 5,
            first_attempts: MAX_ATTEMPTS,
            backoff: Duration::from_mins(1),
            longest_backoff: Duration::from_hours(1),
            give_up_after: Duration::from_hours(168),
            forget_after: Duration::from_hours(168),
            alarm_at: 50,
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Letters that wait for their next try.
    pub pending: u64,
    /// Letters on their way.
    pub retrying: u64,
    /// Letters sent back since the daemon started.
    pub retried: u64,
    /// Letters given up since the daemon started.
    pub abandoned: u64,
    /// Letters that were handled at last, all that are remembered.
    pub recovered: u64,
}

/// The daemon.
pub struct DlqRetry {
    config: Config,
    catalogue: Catalogue,
    alarms: Alarms,
    /// Letters that had been handled when the last fact about them was written.
    told_recovered: u64,
    /// Letters given up that no fact has told yet.
    untold_abandoned: u32,
    status: Status,
}

impl Emits for DlqRetry {
    const EMITS: Topics = &[&[DeadLettersReplayed::TOPIC], crate::alarms::EMITS];
}

impl Daemon for DlqRetry {
    const SPEC: Spec = Spec {
        id: DaemonId("DLQ_RETRY"),
        about: "has dead letters delivered again",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL, TRAINING_FULL, STANDALONE],
        period: Duration::from_mins(1),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = Catalogue;
    type Status = Status;

    fn new(config: Config, catalogue: Catalogue) -> Self {
        Self {
            config,
            catalogue,
            alarms: Alarms::default(),
            told_recovered: 0,
            untold_abandoned: 0,
            status: Status::default(),
        }
    }

    async fn start(&mut self, _: &Cx) -> anyhow::Result<()> {
        self.told_recovered = self.catalogue.log().letter_counts().await?.recovered;
        Ok(())
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if last.pending < self.config.alarm_at {
            return Health::Healthy;
        }
        Health::Degraded(format!("{} dead letters wait", last.pending))
    }
}

impl DlqRetry {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let log = self.catalogue.log().clone();
        let fence = self.catalogue.fence().cloned();
        let mut sent = 0;
        for state in [LetterState::Pending, LetterState::Retrying] {
            let filter =
                LetterFilter { state: Some(state), limit: MOST_LISTED, ..LetterFilter::default() };
            // The oldest first.
            for letter in log.dead_letters(filter).await?.into_iter().rev() {
                cx.beat()?;
                match decide(&letter, &self.config, cx.now()) {
                    Fate::GiveUp(why) => {
                        info!(
                            letter = letter.id,
                            subject = letter.fact.subject,
                            why,
                            "letter given up"
                        );
                        log.settle(letter.id, fence.clone(), LetterState::Abandoned, None).await?;
                        self.status.abandoned += 1;
                        self.untold_abandoned += 1;
                    }
                    Fate::Again if sent < self.config.max_retried_per_cycle => {
                        log.retry(letter.id, fence.clone(), cx.now()).await?;
                        sent += 1;
                        self.status.retried += 1;
                    }
                    Fate::Again | Fate::Wait => {}
                }
            }
        }
        let counts = log.letter_counts().await?;
        self.tell(&counts, cx.now()).await?;
        self.status.pending = counts.pending;
        self.status.retrying = counts.retrying;
        self.status.recovered = counts.recovered;
        let forget = i64::try_from(self.config.forget_after.as_millis()).unwrap_or(i64::MAX);
        log.purge_letters(fence, cx.now().saturating_sub(forget)).await?;
        // Purged letters are no longer counted.
        self.told_recovered = log.letter_counts().await?.recovered;
        Ok(Outcome::Done(self.status.clone()))
    }

    async fn tell(&mut self, counts: &LetterCounts, now_ms: i64) -> anyhow::Result<()> {
        let recovered = counts.recovered.saturating_sub(self.told_recovered);
        let recovered = u32::try_from(recovered).unwrap_or(u32::MAX);
        if recovered > 0 || self.untold_abandoned > 0 {
            let fact = DeadLettersReplayed { recovered, abandoned: self.untold_abandoned };
            self.catalogue.note(Operational::DeadLettersReplayed(fact), now_ms).await?;
            self.untold_abandoned = 0;
        }
        let sentence = (counts.pending >= self.config.alarm_at).then(|| {
            let about: Vec<&str> =
                counts.open_by_subject.keys().map(String::as_str).take(5).collect();
            format!("{} dead letters wait, about {}", counts.pending, about.join(", "))
        });
        self.alarms.set(&self.catalogue, ALARM, sentence, now_ms).await?;
        Ok(())
    }
}

/// What is to become of a letter now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Wait,
    Again,
    GiveUp(&'static str),
}

/// The whole policy.
fn decide(letter: &DeadLetter, config: &Config, now_ms: i64) -> Fate {
    let since = |then: i64| {
        Duration::from_millis(u64::try_from(now_ms.saturating_sub(then)).unwrap_or_default())
    };
    let retries = letter.attempts.saturating_sub(config.first_attempts);
    if retries >= config.max_retries {
        return Fate::GiveUp("too many retries");
    }
    if since(letter.buried_ms) >= config.give_up_after {
        return Fate::GiveUp("too old");
    }
    if letter.state == LetterState::Retrying {
        return Fate::Wait;
    }
    match letter.retried_ms {
        None => Fate::Again,
        Some(last) => {
            let pause = config.backoff.saturating_mul(1 << retries.min(16));
            if since(last) >= pause.min(config.longest_backoff) { Fate::Again } else { Fate::Wait }
        }
    }
}

#[cfg(test)]
mod tests {
    use LetterState::{Abandoned, Pending, Recovered, Retrying};
    use courier::{Batch, Fact, NewFact, NewLetter, Stream};
    use serde_json::json;

    use super::*;
    use crate::testbed::{Bed, blocked, done};

    const NOW: i64 = 1_000_000_000_000;

    fn check(
        attempts: u32,
        buried_ago_s: i64,
        retried_ago_s: Option<i64>,
        state: LetterState,
        expected: Fate,
    ) {
        let letter = DeadLetter {
            id: 1,
            subscriber: "s".into(),
            stream: Stream::Pipeline,
            fact: Fact {
                position: 1,
                id: "f".into(),
                subject: "s".into(),
                time_ms: 0,
                source: "t".into(),
                cause: None,
                body: json!({}),
            },
            error: "no".into(),
            attempts,
            buried_ms: NOW - buried_ago_s * 1000,
            retried_ms: retried_ago_s.map(|ago| NOW - ago * 1000),
            state,
        };
        assert_eq!(decide(&letter, &Config::default(), NOW), expected, "{letter:?}");
    }

    #[test]
    fn retries_come_at_once_then_after_doubling_pauses_until_the_letter_is_given_up() {
        check(3, 0, None, Pending, Fate::Again);
        check(4, 100, Some(119), Pending, Fate::Wait);
        check(4, 100, Some(120), Pending, Fate::Again);
        check(5, 100, Some(239), Pending, Fate::Wait);
        check(5, 100, Some(240), Pending, Fate::Again);
        check(7, 100, Some(959), Pending, Fate::Wait);
        check(7, 100, Some(960), Pending, Fate::Again);
        check(8, 100, Some(9999), Pending, Fate::GiveUp("too many retries"));
        check(3, 168 * 3600 - 1, None, Pending, Fate::Again);
        check(3, 168 * 3600, None, Pending, Fate::GiveUp("too old"));
        check(3, 100, Some(9999), Retrying, Fate::Wait);
        check(3, 168 * 3600, Some(9999), Retrying, Fate::GiveUp("too old"));
    }

    #[test]
    fn no_pause_is_longer_than_the_longest() {
        let config = Config { max_retries: 50, ..Config::default() };
        let letter_age = |attempts: u32, ago_s: i64| {
            let letter = DeadLetter {
                id: 1,
                subscriber: "s".into(),
                stream: Stream::Pipeline,
                fact: Fact {
                    position: 1,
                    id: "f".into(),
                    subject: "s".into(),
                    time_ms: 0,
                    source: "t".into(),
                    cause: None,
                    body: json!({}),
                },
                error: String::new(),
                attempts,
                buried_ms: NOW,
                retried_ms: Some(NOW - ago_s * 1000),
                state: LetterState::Pending,
            };
            decide(&letter, &config, NOW)
        };
        assert_eq!(letter_age(40, 3599), Fate::Wait);
        assert_eq!(letter_age(40, 3600), Fate::Again);
    }

    /// Buries so many letters of facts that are no events.
    async fn bury(bed: &Bed, count: u64) {
        for n in 1..=count {
            let fact = NewFact::new(format!("odd{n}"), "odd.thing", "test", json!({}));
            bed.append(Batch::from(fact)).await;
            let letter = NewLetter {
                subscriber: "s".into(),
                stream: Stream::Pipeline,
                position: bed.facts().await,
                error: "no".into(),
                attempts: 3,
            };
            bed.catalogue.log().bury(letter, NOW).await.unwrap();
        }
    }

    async fn states(bed: &Bed) -> Vec<LetterState> {
        let letters = bed.catalogue.log().dead_letters(LetterFilter::default()).await.unwrap();
        letters.into_iter().rev().map(|letter| letter.state).collect()
    }

    fn daemon(bed: &Bed, config: Config) -> DlqRetry {
        bed.now.store(NOW, std::sync::atomic::Ordering::Relaxed);
        DlqRetry::new(config, bed.catalogue_of::<DlqRetry>())
    }

    #[tokio::test]
    async fn the_oldest_letters_are_sent_back_and_a_second_cycle_waits_for_their_answer() {
        let bed = Bed::new().await;
        bury(&bed, 3).await;
        let mut daemon = daemon(&bed, Config { max_retried_per_cycle: 2, ..Config::default() });
        let (cx, _probe) = bed.cx::<DlqRetry>();
        daemon.start(&cx).await.unwrap();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.retried, status.pending, status.retrying), (2, 1, 2));
        assert_eq!(states(&bed).await, [Retrying, Retrying, Pending]);
        done(daemon.cycle(&cx).await);
        assert_eq!(states(&bed).await, [Retrying, Retrying, Retrying]);
        assert_eq!(done(daemon.cycle(&cx).await).retried, 3, "nothing is left to send");

        let log = bed.catalogue.log();
        log.settle(1, None, Recovered, None).await.unwrap();
        for _ in 0..5 {
            log.settle(2, None, Pending, Some("again no".into())).await.unwrap();
        }
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.recovered, status.abandoned), (1, 1));
        assert_eq!(states(&bed).await, [Recovered, Abandoned, Retrying]);
        let told = log.last_on(Stream::Operational, "dead_letters").await.unwrap().unwrap();
        assert_eq!((&told.body["recovered"], &told.body["abandoned"]), (&json!(1), &json!(1)));
        let head = log.head(Stream::Operational).await.unwrap();
        done(daemon.cycle(&cx).await);
        assert_eq!(log.head(Stream::Operational).await.unwrap(), head, "told once");
    }

    #[tokio::test]
    async fn who_no_longer_leads_does_nothing_to_a_letter_and_raises_no_alarm() {
        let bed = Bed::new().await;
        bury(&bed, 2).await;
        bed.catalogue.log().settle(1, None, Recovered, None).await.unwrap();
        let old = bed.next_epoch().await;
        bed.next_epoch().await;
        bed.now.store(NOW, std::sync::atomic::Ordering::Relaxed);
        let (cx, _probe) = bed.cx::<DlqRetry>();
        let retries = Config { forget_after: Duration::ZERO, ..Config::default() };
        let gives_up = Config { give_up_after: Duration::ZERO, ..retries.clone() };
        let forgets = Config { max_retried_per_cycle: 0, ..retries.clone() };
        let raises = Config { alarm_at: 1, ..forgets.clone() };
        for (config, what) in
            [(retries, ""), (gives_up, ""), (forgets, ""), (raises, "record alarm.changed: ")]
        {
            let mut daemon = DlqRetry::new(config, old.clone());
            daemon.start(&cx).await.unwrap();
            let said = blocked(daemon.cycle(&cx).await);
            assert!(said.starts_with(&format!("{what}epoch 1 of the lease manager is")), "{said}");
        }
        assert_eq!(states(&bed).await, [Recovered, Pending]);
        assert_eq!(bed.catalogue.log().head(Stream::Operational).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn many_letters_raise_an_alarm_and_degrade() {
        let bed = Bed::new().await;
        bury(&bed, 3).await;
        let config = Config { alarm_at: 2, max_retried_per_cycle: 0, ..Config::default() };
        let mut daemon = daemon(&bed, config);
        let (cx, _probe) = bed.cx::<DlqRetry>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Degraded("3 dead letters wait".into()));
        let alarm = crate::alarms::alarm_of(&bed.catalogue, ALARM).await.unwrap().unwrap();
        assert_eq!(alarm.0, "3 dead letters wait, about odd.thing");
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_loses_no_letter() {
        let bed = Bed::new().await;
        bury(&bed, 3).await;
        let mut daemon = daemon(&bed, Config::default());
        let (cx, probe) = bed.cx::<DlqRetry>();
        probe.stop_at_beat(2);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert_eq!(states(&bed).await, [Retrying, Pending, Pending]);
    }
}
