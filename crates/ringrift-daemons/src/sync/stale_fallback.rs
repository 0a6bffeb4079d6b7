//! `STALE_FALLBACK`: decides whether a training may begin although newer samples cannot be reached.
//!
//! Reads   the newest window of each config, and how old its newest samples are against the newest there are.
//! Writes  the answer of its gate per config when that changes, and `training.fell_back` for each time that
//!         it lets a training begin.
//! Never   lets one begin by being silent: `TRAINING_TRIGGER` asks as soon as a window is behind, and waits for
//!         the answer that is stored.
//!
//! A window is behind when samples exist that are an hour newer and are not in it: they lie on a node that
//! does not give them, or the combination fails. How far behind is told by the times of two facts of the
//! export, so a loop that stood still for a week is not behind. On one machine all samples are here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use courier::Stream;
use ringrift_pipeline::{
    Catalogue, Config as GameConfig, Gate, GateChanged, Operational, Topic as _, TrainingFellBack,
    WindowRow, fallback_subject,
};
use serde::{Deserialize, Serialize};
use tracing::warn;
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Emits, Loop, Topics,
    cycle::{EVENT_ROUTER, settled},
    sync::auto_sync::AutoSync,
};

/// A window that lacks samples of less is as good as new. Source: cluster contract, 12: 1 to 2 h.
const FRESH: Duration = Duration::from_hours(1);
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
    /// Looks in a row at which a window was behind.
    failures: BTreeMap<GameConfig, u32>,
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
        Self { config, catalogue, the_loop, failures: BTreeMap::new() }
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
        let Some((window, behind)) = behind(&self.catalogue, config).await? else {
            self.failures.remove(&config);
            // What was never closed need not be opened.
            if told.is_some() {
                self.tell(Gate::Allow.to_fact(Self::ID.0, Some(config)), cx).await?;
            }
            return Ok(());
        };
        let failures = self.failures.entry(config).or_default();
        *failures = failures.saturating_add(1);
        let case = Case {
            behind,
            games: window.games,
            failures: *failures,
            // The gate was closed by the first look that found it so, in this life or an earlier one.
            waited: told.as_ref().map_or(Duration::ZERO, |(gate, since)| {
                match gate.code.as_str() {
                    "behind" => elapsed(*since, cx.now()),
                    _ => Duration::ZERO,
                }
            }),
            since_last: last.map(|(_, at_ms)| elapsed(at_ms, cx.now())),
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

    /// Which time was the last that a training of a config was let begin so, and when (ms).
    async fn last(&self, config: GameConfig) -> anyhow::Result<Option<(u32, i64)>> {
        let log = self.catalogue.log();
        let fact = log.last_on(Stream::Operational, &fallback_subject(config)).await?;
        let Some(fact) = fact else { return Ok(None) };
        let number = match serde_json::from_value(fact.body)? {
            Operational::TrainingFellBack(fell_back) => fell_back.number,
            _ => 0,
        };
        Ok(Some((number, fact.time_ms)))
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

fn elapsed(since_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms - since_ms).unwrap_or(0))
}

/// The newest window of a config, if no training has read it and it is behind, and how far.
pub(crate) async fn behind(
    catalogue: &Catalogue,
    config: GameConfig,
) -> anyhow::Result<Option<(WindowRow, Duration)>> {
    let window = catalogue.windows(config, 1).await?.pop().filter(|window| !window.trained);
    let Some(window) = window else { return Ok(None) };
    let times = catalogue.sample_times(config, window.newest_samples).await?;
    let Some((of_window, newest)) = times else { return Ok(None) };
    let behind = elapsed(of_window, newest);
    Ok((behind >= FRESH).then_some((window, behind)))
}

/// The answer to `TRAINING_TRIGGER`: may a training of this config begin with its newest window?
pub(crate) async fn may_begin(
    catalogue: &Catalogue,
    the_loop: &Loop,
    config: GameConfig,
) -> anyhow::Result<Gate> {
    if !the_loop.shared {
        return Ok(Gate::Allow);
    }
    let Some((_, behind)) = behind(catalogue, config).await? else { return Ok(Gate::Allow) };
    let told = catalogue.of_node(None).gate(StaleFallback::ID.0, Some(config)).await?;
    if told.is_some_and(|(gate, _)| gate.code == FALLBACK) {
        return Ok(Gate::Allow);
    }
    Ok(Gate::deny(
        "stale",
        format!("samples exist that are {} newer than the window's", told_of(behind)),
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

    fn fallback(bed: &Bed, the_loop: &Arc<Loop>) -> StaleFallback {
        let config = Config { max_failures: 3, min_games: 1, ..Config::default() };
        StaleFallback::new(config, (bed.catalogue_of::<StaleFallback>(), the_loop.clone()))
    }

    #[tokio::test]
    async fn a_window_that_stays_behind_is_used_at_last_once_and_over_a_restart() {
        let bed = Bed::new().await;
        let the_loop = Arc::new(Loop { shared: true, ..(*bed.the_loop).clone() });
        let mut daemon = fallback(&bed, &the_loop);
        let (cx, probe) = bed.cx::<StaleFallback>();
        let told = async || bed.catalogue.log().head(Stream::Operational).await.unwrap();
        let may = async || may_begin(&bed.catalogue, &the_loop, hex()).await.unwrap().is_open();
        let first = samples(&bed, hex(), "first", 300).await;
        window(&bed, hex(), &[first], 300).await;
        bed.pass_time(Duration::from_mins(59));
        samples(&bed, hex(), "second", 300).await;
        assert_eq!(done(daemon.cycle(&cx).await), Status::default());
        assert!(may().await && told().await == 0, "less than an hour is nothing");
        bed.pass_time(Duration::from_mins(30));
        samples(&bed, hex(), "third", 300).await;
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
        let mut daemon = fallback(&bed, &the_loop);
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
    async fn the_time_since_the_first_failure_outlives_the_daemon() {
        let bed = Bed::new().await;
        let the_loop = Arc::new(Loop { shared: true, ..(*bed.the_loop).clone() });
        let (cx, _probe) = bed.cx::<StaleFallback>();
        let first = samples(&bed, hex(), "first", 300).await;
        window(&bed, hex(), &[first], 300).await;
        bed.pass_time(Duration::from_hours(2));
        samples(&bed, hex(), "second", 300).await;
        assert_eq!(done(fallback(&bed, &the_loop).cycle(&cx).await).fallen_back.len(), 0);
        bed.pass_time(Duration::from_mins(45));
        assert_eq!(done(fallback(&bed, &the_loop).cycle(&cx).await).fallen_back.len(), 1);
    }

    #[tokio::test]
    async fn one_machine_has_all_its_samples() {
        let bed = Bed::new().await;
        let mut daemon = fallback(&bed, &bed.the_loop);
        let (cx, _probe) = bed.cx::<StaleFallback>();
        let status = done(daemon.cycle(&cx).await);
        assert!(status.nothing_to_do.is_some());
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert!(may_begin(&bed.catalogue, &bed.the_loop, hex()).await.unwrap().is_open());
    }
}
