//! `STALE_FALLBACK`: decides whether a training may begin although newer samples cannot be reached.
//!
//! Reads   the newest window of each config, and whether samples exist that are newer than its own.
//! Writes  the answer of its gate per config when that changes, and `training.fell_back` for each time that
//!         it lets a training begin.
//! Never   lets one begin by being silent: `TRAINING_TRIGGER` asks as soon as a window is behind, and waits for
//!         the answer that is stored.
//!
//! A window is behind when samples that are not in it have been known for an hour: they lie on a node that does not
//! give them, or the combination fails. A loop that stood still for a week is not behind.
//!
//! All these times are counted by the clock of this process, from when it saw a thing first: the times of facts are
//! those of whoever led then, and his clock may be an hour off. Whoever leads next counts anew, but a window that the
//! one before found behind stays so, because the answer is stored. The times of facts count at one limit only, that of
//! 48 h, and only where they make a window older. On one machine all samples are here.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use courier::Stream;
use ringrift_pipeline::{
    BlobHash, Catalogue, Config as GameConfig, Gate, GateChanged, Operational, Topic as _,
    TrainingFellBack, WindowRow, fallback_subject,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, Loop, Topics,
    cycle::{EVENT_ROUTER, settled},
    sync::auto_sync::AutoSync,
};

/// A window that lacks samples of less is as good as new. Source: cluster contract, 12: 1 to 2 h.
const FRESH: Duration = Duration::from_hours(1);
/// Sights of newer samples that are remembered of a config; of what comes beyond, the newest counts as seen with the
/// last of them.
const MOST_SIGHTS: usize = 64;
/// Code of the gate while a training may begin with what there is.
const FALLBACK: &str = "fallback";

/// `[daemons.stale_fallback]`. Source of all figures: sync contract, `STALE_FALLBACK`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether a training ever begins with a window that is behind.
    pub allow: bool,
    /// Looks in a row at which newer samples were out of reach, after which it may.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_failures: u32,
    /// Time for which they were out of reach, after which it may.
    #[serde(with = "crate::seconds")]
    pub max_wait: Duration,
    /// A window that is further behind is never used.
    #[serde(with = "crate::seconds")]
    pub max_behind: Duration,
    /// Games of a window that is used.
    pub min_games: u64,
    /// Time between two trainings of one config that begin so.
    #[serde(with = "crate::seconds")]
    pub cooldown: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allow: true,
            // A look in a minute: with the contract's 5 the time below would never count.
            max_failures: 30,
            max_wait: Duration::from_mins(45),
            max_behind: Duration::from_hours(48),
            min_games: 1000,
            cooldown: Duration::from_mins(5),
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Configs whose window is behind, and what is decided.
    pub behind: BTreeMap<String, String>,
    /// Configs of which a training may begin so.
    pub fallen_back: Vec<String>,
    /// Times that a training was let begin so, ever, by config.
    pub times: BTreeMap<String, u32>,
    /// What there is to do here, if nothing.
    pub nothing_to_do: Option<&'static str>,
}

/// The daemon.
pub struct StaleFallback {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    newer: Newer,
    /// At the first look of this life: the window that another one had found behind, if there was one.
    inherited: BTreeMap<GameConfig, Option<BlobHash>>,
    /// Windows that are behind.
    misses: BTreeMap<GameConfig, Misses>,
    /// The last time that a training of a config was let begin so, and when that was seen here.
    last: BTreeMap<GameConfig, (u32, Instant)>,
}

/// What this life saw of a window that is behind.
#[derive(Debug, Clone, Copy)]
struct Misses {
    /// Looks in a row at which it was so.
    looks: u32,
    since: Instant,
}

impl Emits for StaleFallback {
    const EMITS: Topics = &[&[TrainingFellBack::TOPIC], crate::cycle::EMITS];
}

impl Daemon for StaleFallback {
    const SPEC: Spec = Spec {
        id: DaemonId("STALE_FALLBACK"),
        about: "decides whether to train on stale data",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER, AutoSync::ID],
        health_interval: Some(Duration::from_mins(5)),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            the_loop,
            newer: Newer::default(),
            inherited: BTreeMap::new(),
            misses: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if !last.fallen_back.is_empty() {
            let configs = last.fallen_back.join(", ");
            return Health::Degraded(format!("trainings may begin with old data: {configs}"));
        }
        match last.behind.iter().next() {
            Some((config, decided)) => Health::Degraded(format!("{config}: {decided}")),
            None => Health::Healthy,
        }
    }
}

impl StaleFallback {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        let mut status = Status::default();
        if !self.the_loop.shared {
            status.nothing_to_do = Some("this machine is alone: all samples there are are here");
            return Ok(Outcome::Done(status));
        }
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            self.look(config, &mut status, cx).await?;
        }
        Ok(Outcome::Done(status))
    }

    async fn look(
        &mut self,
        config: GameConfig,
        status: &mut Status,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        let told = self.catalogue.gate(Self::ID.0, Some(config)).await?;
        let last = self.last(config).await?;
        if let Some((number, _)) = last {
            status.times.insert(config.to_string(), number);
        }
        let lacking = self.newer.look(&self.catalogue, config).await?;
        // What another life found behind is so until there is a newer window.
        let inherited = self.inherited.entry(config).or_insert_with(|| {
            let was_behind = told.as_ref().is_some_and(|(gate, _)| is_of_one_behind(gate));
            lacking.as_ref().filter(|_| was_behind).map(|(window, _)| window.hash.clone())
        });
        let is_behind = |window: &WindowRow, seen: Duration| {
            seen >= FRESH || inherited.as_ref() == Some(&window.hash)
        };
        let Some((window, seen)) = lacking.filter(|(window, seen)| is_behind(window, *seen)) else {
            self.misses.remove(&config);
            // What was never closed need not be opened.
            if told.is_some() {
                self.tell(Gate::Allow.to_fact(Self::ID.0, Some(config)), cx).await?;
            }
            return Ok(());
        };
        let misses =
            self.misses.entry(config).or_insert_with(|| Misses { looks: 0, since: Instant::now() });
        misses.looks = misses.looks.saturating_add(1);
        let Misses { looks, since } = *misses;
        let times = self.catalogue.sample_times(config, window.newest_samples).await?;
        let by_facts = times.map_or(Duration::ZERO, |(of_window, newest)| {
            Duration::from_millis(u64::try_from(newest - of_window).unwrap_or(0))
        });
        let behind = seen.max(by_facts);
        let case = Case {
            behind,
            games: window.games,
            failures: looks,
            waited: since.elapsed(),
            since_last: last.map(|(_, seen)| seen.elapsed()),
            fell_back: told.as_ref().is_some_and(|(gate, _)| gate.code == FALLBACK),
        };
        match decide(&case, &self.config) {
            Ok(reason) => {
                if !case.fell_back {
                    let number = last.map_or(0, |(number, _)| number) + 1;
                    self.fall_back(config, &window, number, behind, &reason, cx).await?;
                    status.times.insert(config.to_string(), number);
                }
                status.fallen_back.push(config.to_string());
                status.behind.insert(config.to_string(), reason);
            }
            Err(gate) => {
                if let Gate::Deny { reason, .. } = &gate {
                    status.behind.insert(config.to_string(), reason.clone());
                }
                self.tell(gate.to_fact(Self::ID.0, Some(config)), cx).await?;
            }
        }
        Ok(())
    }

    /// Which time was the last that a training of a config was let begin so, and when that was seen here first.
    async fn last(&mut self, config: GameConfig) -> anyhow::Result<Option<(u32, Instant)>> {
        let log = self.catalogue.log();
        let fact = log.last_on(Stream::Operational, &fallback_subject(config)).await?;
        let Some(fact) = fact else { return Ok(None) };
        let number = match serde_json::from_value(fact.body)? {
            Operational::TrainingFellBack(fell_back) => fell_back.number,
            _ => 0,
        };
        let last = self.last.entry(config).or_insert_with(|| (number, Instant::now()));
        if last.0 != number {
            *last = (number, Instant::now());
        }
        Ok(Some(*last))
    }

    async fn fall_back(
        &self,
        config: GameConfig,
        window: &WindowRow,
        number: u32,
        behind: Duration,
        reason: &str,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        warn!(%config, reason, "a training may begin with old data");
        let gate = GateChanged {
            gate: Self::ID.0.to_owned(),
            config: Some(config),
            open: true,
            code: FALLBACK.to_owned(),
            reason: reason.to_owned(),
            needs: String::new(),
        };
        let fell_back = TrainingFellBack {
            config,
            number,
            window: window.hash.clone(),
            behind_seconds: behind.as_secs(),
            reason: reason.to_owned(),
        };
        let both = vec![Operational::TrainingFellBack(fell_back), Operational::GateChanged(gate)];
        Ok(self.catalogue.note_all(both, cx.now()).await?)
    }

    /// A full disk is an obstacle here: an answer that is not stored lets nothing begin.
    async fn tell(&self, gate: GateChanged, cx: &Cx) -> anyhow::Result<()> {
        self.catalogue.tell_gate(gate, cx.now()).await?;
        Ok(())
    }
}

/// Does this stored answer say that the window is behind, whatever follows from it?
fn is_of_one_behind(gate: &GateChanged) -> bool {
    !gate.open || gate.code == FALLBACK
}

/// Since when samples are known that newest windows lack, by the clock of this process.
#[derive(Debug, Default)]
pub(crate) struct Newer(BTreeMap<GameConfig, VecDeque<(u64, Instant)>>);

impl Newer {
    /// The newest window of a config, if no training has read it and it lacks samples that exist; and for how long
    /// that has been seen here.
    async fn look(
        &mut self,
        catalogue: &Catalogue,
        config: GameConfig,
    ) -> anyhow::Result<Option<(WindowRow, Duration)>> {
        let newest = catalogue.samples(config, 1).await?.pop().map_or(0, |row| row.position);
        let window = catalogue.windows(config, 1).await?.pop();
        let sights = self.0.entry(config).or_default();
        let within = window.as_ref().map_or(0, |window| window.newest_samples);
        if newest > within && sights.back().is_none_or(|(position, _)| newest > *position) {
            let is_full = sights.len() >= MOST_SIGHTS;
            match sights.back_mut().filter(|_| is_full) {
                Some(last) => last.0 = newest,
                None => sights.push_back((newest, Instant::now())),
            }
        }
        sights.retain(|(position, _)| *position > within);
        let seen = sights.front().map(|(_, at)| at.elapsed());
        Ok(window.filter(|window| !window.trained).zip(seen))
    }
}

/// The answer to `TRAINING_TRIGGER`: may a training of this config begin with its newest window? To be asked often:
/// `newer` is what whoever asks has seen himself.
pub(crate) async fn may_begin(
    newer: &mut Newer,
    catalogue: &Catalogue,
    the_loop: &Loop,
    config: GameConfig,
) -> anyhow::Result<Gate> {
    if !the_loop.shared {
        return Ok(Gate::Allow);
    }
    let Some((_, seen)) = newer.look(catalogue, config).await? else { return Ok(Gate::Allow) };
    let told = catalogue.of_node(None).gate(StaleFallback::ID.0, Some(config)).await?;
    let told = told.map(|(gate, _)| gate);
    if told.as_ref().is_some_and(|gate| gate.code == FALLBACK) {
        return Ok(Gate::Allow);
    }
    if seen < FRESH && told.is_none_or(|gate| gate.open) {
        return Ok(Gate::Allow);
    }
    Ok(Gate::deny(
        "stale",
        "samples have been known for an hour or more that the window lacks",
        "a window with them, or that STALE_FALLBACK lets it begin without",
    ))
}

fn told_of(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs() / 60 * 60))
}

/// What is decided on.
#[derive(Debug, Clone, Copy)]
struct Case {
    behind: Duration,
    /// Games of the window; 0 = not known.
    games: u64,
    failures: u32,
    /// Since the window was found to be behind.
    waited: Duration,
    /// Since a training of this config was last let begin so.
    since_last: Option<Duration>,
    /// It was decided already, for a training that did not begin yet.
    fell_back: bool,
}

/// The whole policy: why a training may begin with a window that is behind, or why not.
fn decide(case: &Case, config: &Config) -> Result<String, Gate> {
    let behind = told_of(case.behind);
    if !config.allow {
        let what =
            format!("the window is {behind} behind, and trainings with old data are switched off");
        return Err(Gate::deny("off", what, "newer samples within reach"));
    }
    if case.behind >= config.max_behind {
        let most = humantime::format_duration(config.max_behind);
        let what = format!("the window is {behind} behind, {most} are the most");
        return Err(Gate::deny("too_old", what, "newer samples within reach"));
    }
    if case.games > 0 && case.games < config.min_games {
        let what = format!("the window is {behind} behind and has {} games", case.games);
        return Err(Gate::deny(
            "few_games",
            what,
            format!("{} games, or newer samples", config.min_games),
        ));
    }
    let reason = || {
        let minutes = case.waited.as_secs() / 60;
        format!(
            "newer samples were out of reach at {} looks, for {minutes} min; the window is {behind} behind",
            case.failures
        )
    };
    if case.fell_back {
        return Ok(reason());
    }
    if case.since_last.is_some_and(|since| since < config.cooldown) {
        let pause = humantime::format_duration(config.cooldown);
        let what = format!("a training began with old data less than {pause} ago");
        return Err(Gate::deny("cooldown", what, "some minutes"));
    }
    if case.failures >= config.max_failures || case.waited >= config.max_wait {
        return Ok(reason());
    }
    let what = format!("the window is {behind} behind: newer samples are out of reach");
    let wait = humantime::format_duration(config.max_wait);
    Err(Gate::deny("behind", what, format!("a window with them, or {wait} without one")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::testbed::{Bed, done, hex, samples, window};

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn the_rules_are_asked_in_order() {
        let check = |change: &dyn Fn(&mut Case, &mut Config), expected: Result<(), &str>| {
            let mut case = Case {
                behind: 120 * MINUTE,
                games: 5000,
                failures: 1,
                waited: Duration::ZERO,
                since_last: None,
                fell_back: false,
            };
            let mut config = Config::default();
            change(&mut case, &mut config);
            let found = match decide(&case, &config) {
                Ok(_) => Ok(()),
                Err(Gate::Deny { code, .. }) => Err(code),
                Err(Gate::Allow) => panic!("an error that allows"),
            };
            assert_eq!(found, expected, "{case:?}");
        };
        check(&|_, _| {}, Err("behind"));
        check(&|case, _| case.failures = 30, Ok(()));
        check(&|case, _| case.waited = 45 * MINUTE, Ok(()));
        check(&|case, _| case.waited = 44 * MINUTE, Err("behind"));
        check(
            &|case, config| {
                case.failures = 30;
                config.allow = false;
            },
            Err("off"),
        );
        let late = |case: &mut Case| case.failures = 99;
        check(
            &|case, _| {
                late(case);
                case.behind = 48 * 60 * MINUTE;
            },
            Err("too_old"),
        );
        check(
            &|case, _| {
                late(case);
                case.games = 999;
            },
            Err("few_games"),
        );
        check(
            &|case, _| {
                late(case);
                case.games = 0;
            },
            Ok(()),
        );
        check(
            &|case, _| {
                late(case);
                case.since_last = Some(4 * MINUTE);
            },
            Err("cooldown"),
        );
        check(
            &|case, _| {
                late(case);
                case.since_last = Some(5 * MINUTE);
            },
            Ok(()),
        );
        check(
            &|case, _| {
                case.since_last = Some(MINUTE);
                case.fell_back = true;
            },
            Ok(()),
        );
    }

    fn fallback(bed: &Bed, max_failures: u32) -> StaleFallback {
        let config = Config { max_failures, min_games: 1, ..Config::default() };
        StaleFallback::new(config, (bed.catalogue_of::<StaleFallback>(), bed.shared()))
    }

    /// Time by the clock of this process, which nobody sets.
    async fn pass_own_time(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn a_window_that_stays_behind_is_used_at_last_once_and_over_a_restart() {
        let bed = Bed::new().await;
        let mut daemon = fallback(&bed, 3);
        let (cx, probe) = bed.cx::<StaleFallback>();
        let told = async || bed.catalogue.log().head(Stream::Operational).await.unwrap();
        let mut newer = Newer::default();
        let mut may = async || {
            may_begin(&mut newer, &bed.catalogue, &bed.shared(), hex()).await.unwrap().is_open()
        };
        let first = samples(&bed, hex(), "first", 300).await;
        window(&bed, hex(), &[first], 300).await;
        samples(&bed, hex(), "second", 300).await;
        assert_eq!(done(daemon.cycle(&cx).await), Status::default());
        assert!(may().await);
        pass_own_time(59 * MINUTE).await;
        assert_eq!(done(daemon.cycle(&cx).await), Status::default());
        assert!(may().await && told().await == 0, "less than an hour is nothing");
        samples(&bed, hex(), "third", 300).await;
        pass_own_time(30 * MINUTE).await;
        assert!(!may().await, "nobody has decided yet");

        let status = done(daemon.cycle(&cx).await);
        let reason = "the window is 1h 29m behind: newer samples are out of reach";
        assert_eq!(status.behind["hex8_2p"], reason);
        assert_eq!(daemon.health(&status), Health::Degraded(format!("hex8_2p: {reason}")));
        done(daemon.cycle(&cx).await);
        assert!(!may().await && told().await == 1, "a second cycle tells nothing");
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.fallen_back.len(), status.times["hex8_2p"]), (1, 1));
        assert!(may().await);
        let facts = told().await;

        // A new life, on another node perhaps, goes by what is stored.
        let mut daemon = fallback(&bed, 3);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.fallen_back.len(), told().await), (1, facts));
        let all: Vec<_> = bed.catalogue.samples(hex(), 9).await.unwrap();
        let newest = window(&bed, hex(), &[all[0].hash.clone()], 900).await;
        assert!(!newest.0.is_empty() && may().await);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.behind.len(), status.times["hex8_2p"]), (0, 1));
        let (gate, _) = bed.catalogue.gate("STALE_FALLBACK", Some(hex())).await.unwrap().unwrap();
        assert_eq!(gate.code, "open");

        probe.stop_at_beat(probe.beats() + 2);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
    }

    #[tokio::test]
    async fn a_leader_whose_clock_is_an_hour_off_neither_closes_the_gate_nor_falls_back_at_once() {
        const HOUR_MS: i64 = 3_600_000;
        for off in [HOUR_MS, -HOUR_MS] {
            let bed = Bed::new().await;
            let (cx, _probe) = bed.cx::<StaleFallback>();
            let set_clock = |by: i64| bed.now.fetch_add(by, Ordering::Relaxed);
            let mut newer = Newer::default();
            let mut may = async || {
                may_begin(&mut newer, &bed.catalogue, &bed.shared(), hex()).await.unwrap().is_open()
            };
            let first = samples(&bed, hex(), "first", 300).await;
            window(&bed, hex(), &[first], 300).await;
            set_clock(off);
            samples(&bed, hex(), "second", 300).await;
            let mut daemon = fallback(&bed, 30);
            assert_eq!(done(daemon.cycle(&cx).await), Status::default(), "{off}");
            assert!(may().await, "{off}");
            pass_own_time(61 * MINUTE).await;
            let status = done(daemon.cycle(&cx).await);
            assert_eq!((status.behind.len(), status.fallen_back.len()), (1, 0), "{off}");
            assert!(!may().await, "{off}");

            // The one that leads next: what was found stays, and how long it waits is counted anew.
            set_clock(off);
            let mut daemon = fallback(&bed, 30);
            for minutes in [0, 44] {
                pass_own_time(minutes * MINUTE).await;
                let status = done(daemon.cycle(&cx).await);
                assert_eq!((status.behind.len(), status.fallen_back.len()), (1, 0), "{off}");
                assert!(!may().await, "{off}");
            }
            pass_own_time(MINUTE).await;
            assert_eq!(done(daemon.cycle(&cx).await).fallen_back.len(), 1, "{off}");
            assert!(may().await, "{off}");
        }
    }

    #[tokio::test]
    async fn a_newer_window_is_not_behind_although_newer_samples_come_all_the_time() {
        for next_life in [false, true] {
            let bed = Bed::new().await;
            let (cx, _probe) = bed.cx::<StaleFallback>();
            let first = samples(&bed, hex(), "first", 300).await;
            window(&bed, hex(), std::slice::from_ref(&first), 300).await;
            let second = samples(&bed, hex(), "second", 300).await;
            let mut daemon = fallback(&bed, 30);
            done(daemon.cycle(&cx).await);
            pass_own_time(61 * MINUTE).await;
            assert_eq!(done(daemon.cycle(&cx).await).behind.len(), 1);
            if next_life {
                daemon = fallback(&bed, 30);
                assert_eq!(done(daemon.cycle(&cx).await).behind.len(), 1);
            }
            window(&bed, hex(), &[first, second], 600).await;
            samples(&bed, hex(), "third", 300).await;
            assert!(done(daemon.cycle(&cx).await).behind.is_empty(), "{next_life}");
            let gate = bed.catalogue.gate("STALE_FALLBACK", Some(hex())).await.unwrap();
            assert!(gate.unwrap().0.open, "{next_life}");
        }
    }

    #[tokio::test]
    async fn the_pause_between_two_times_is_counted_by_the_clock_of_this_process() {
        let bed = Bed::new().await;
        let (cx, _probe) = bed.cx::<StaleFallback>();
        let first = samples(&bed, hex(), "first", 300).await;
        window(&bed, hex(), std::slice::from_ref(&first), 300).await;
        samples(&bed, hex(), "second", 300).await;
        let mut daemon = fallback(&bed, 1);
        done(daemon.cycle(&cx).await);
        pass_own_time(61 * MINUTE).await;
        assert_eq!(done(daemon.cycle(&cx).await).times["hex8_2p"], 1);
        // Somebody reads the window; the next one lacks samples, too. The one that leads now is an hour behind.
        bed.now.fetch_sub(3_600_000, Ordering::Relaxed);
        let second = bed.catalogue.samples(hex(), 1).await.unwrap().remove(0).hash;
        window(&bed, hex(), &[first, second], 600).await;
        assert!(done(daemon.cycle(&cx).await).behind.is_empty());
        samples(&bed, hex(), "third", 300).await;
        done(daemon.cycle(&cx).await);
        pass_own_time(61 * MINUTE).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.fallen_back.len(), status.times["hex8_2p"]), (1, 2));
    }

    #[tokio::test]
    async fn one_machine_has_all_its_samples() {
        let bed = Bed::new().await;
        let mut daemon = fallback(&bed, 3);
        daemon.the_loop = bed.the_loop.clone();
        let (cx, _probe) = bed.cx::<StaleFallback>();
        let status = done(daemon.cycle(&cx).await);
        assert!(status.nothing_to_do.is_some());
        assert_eq!(daemon.health(&status), Health::Healthy);
        let mut newer = Newer::default();
        let answer = may_begin(&mut newer, &bed.catalogue, &bed.the_loop, hex()).await;
        assert!(answer.unwrap().is_open());
    }
}
