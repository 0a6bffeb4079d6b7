//! `DAEMON_WATCHDOG`: raises alarms on daemons that do not work, and on a process that does nothing.
//!
//! Reads   the supervisor's view, and when the last fact was written.
//! Writes  alarms.
//! Never   restarts anything: there is one restarter, the supervisor.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use courier::Stream;
use ringrift_pipeline::Catalogue;
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, DaemonView, Health, Outcome, Priority, Snapshot, Spec, State};

use crate::{
    Bell, COORDINATOR_FULL, Emits, MINIMAL, Pressure, STANDALONE, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    resource::idle_resource::IdleResource,
};

/// Name of the alarm on a process whose daemons run and whose log stands still.
pub(crate) const SILENCE: &str = "silence";
/// Name of the alarm on a supervisor that no longer turns.
pub(crate) const SUPERVISOR: &str = "supervisor";

/// Name of the alarm on a daemon.
pub(crate) fn alarm_on(daemon: &str) -> String {
    format!("daemon.{daemon}")
}

/// `[daemons.daemon_watchdog]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Restarts in a row that are an alarm although the daemon is not given up yet.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub many_restarts: u32,
    /// Silence of the supervisor that is an alarm.
    #[serde(with = "crate::seconds")]
    pub supervisor_silence: Duration,
    /// Time without any fact of the pipeline that is an alarm while self-play should run. A batch of
    /// games takes minutes.
    #[serde(with = "crate::seconds")]
    pub pipeline_silence: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            many_restarts: 3,
            supervisor_silence: Duration::from_mins(1),
            pipeline_silence: Duration::from_mins(30),
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Daemons that were looked at.
    pub watched: usize,
    /// Daemons that do not work, and why.
    pub complaints: BTreeMap<String, String>,
}

/// The daemon.
pub struct DaemonWatchdog {
    config: Config,
    catalogue: Catalogue,
    bell: Bell,
    pressure: Pressure,
    alarms: Alarms,
    /// When this life began: silence before it is not this process's.
    began_ms: Option<i64>,
    /// Daemons that were asked for at the last look: an alarm on one that no longer is must end.
    known: BTreeSet<DaemonId>,
}

impl Emits for DaemonWatchdog {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for DaemonWatchdog {
    const SPEC: Spec = Spec {
        id: DaemonId("DAEMON_WATCHDOG"),
        about: "raises alarms on daemons that do not work",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL, MINIMAL, STANDALONE],
        period: Duration::from_secs(30),
        critical: true,
        health_interval: Some(Duration::from_secs(30)),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Bell, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, bell, pressure): Self::Ports) -> Self {
        Self {
            config,
            catalogue,
            bell,
            pressure,
            alarms: Alarms::default(),
            began_ms: None,
            known: BTreeSet::new(),
        }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        if last.complaints.is_empty() {
            return Health::Healthy;
        }
        let names: Vec<&str> = last.complaints.keys().map(String::as_str).collect();
        Health::Degraded(format!("not working: {}", names.join(", ")))
    }
}

impl DaemonWatchdog {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        cx.beat()?;
        // Before the supervisor runs there is nothing to watch.
        let Some(snapshot) = self.bell.snapshot() else {
            return Ok(Outcome::Done(Status::default()));
        };
        let began_ms = *self.began_ms.get_or_insert(cx.now());
        let mut status = Status::default();
        for view in &snapshot.daemons {
            let complaint = complaint(view, &self.config);
            if view.asked {
                status.watched += 1;
            }
            if view.asked || self.known.contains(&view.id) {
                cx.beat()?;
                let alarm = alarm_on(view.id.0);
                self.alarms.set(&self.catalogue, &alarm, complaint.clone(), cx.now()).await?;
            }
            if view.asked {
                self.known.insert(view.id);
            }
            if let Some(complaint) = complaint {
                status.complaints.insert(view.id.to_string(), complaint);
            }
        }
        let age = cx.now().saturating_sub(snapshot.turned_at_ms);
        let stands = (snapshot.turned_at_ms > 0 && age > millis(self.config.supervisor_silence))
            .then(|| format!("the supervisor has not turned for {} s", age / 1000));
        self.alarms.set(&self.catalogue, SUPERVISOR, stands, cx.now()).await?;
        let silence = self.silence(&snapshot, began_ms, cx.now()).await?;
        self.alarms.set(&self.catalogue, SILENCE, silence, cx.now()).await?;
        Ok(Outcome::Done(status))
    }

    /// Daemons that run are not enough: something must come out.
    async fn silence(
        &self,
        snapshot: &Snapshot,
        began_ms: i64,
        now_ms: i64,
    ) -> anyhow::Result<Option<String>> {
        let plays = snapshot.get(IdleResource::ID).is_some_and(|view| view.state == State::Running);
        if !plays {
            return Ok(None);
        }
        let log = self.catalogue.log();
        let newest = log.head(Stream::Pipeline).await?;
        let last = log.read(Stream::Pipeline, newest.saturating_sub(1), 1).await?;
        let last_ms = last.first().map_or(0, |fact| fact.time_ms).max(began_ms);
        let age = now_ms.saturating_sub(last_ms);
        if age <= millis(self.config.pipeline_silence) {
            return Ok(None);
        }
        let held = match self.pressure.obstacle() {
            Some((owner, obstacle)) => format!("; {owner} holds it back: {}", obstacle.reason),
            None => String::new(),
        };
        Ok(Some(format!("nothing has happened in the pipeline for {} min{held}", age / 60_000)))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The whole policy: what is wrong with a daemon, if it is wanted and something is.
fn complaint(view: &DaemonView, config: &Config) -> Option<String> {
    if !view.asked {
        return None;
    }
    let error = view.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    match (view.state, &view.health) {
        (State::Failed, _) => Some(format!("given up after {} restarts{error}", view.restarts)),
        (State::ImportFailed, _) => Some(format!("this machine lacks something{error}")),
        (State::Degraded, _) => Some(format!("crashes too often{error}")),
        (_, Health::Unhealthy(message)) => Some(message.clone()),
        (State::Starting, Health::Degraded(message)) => Some(format!("does not start: {message}")),
        _ if view.cause.as_deref().is_some_and(|cause| cause.contains("hung")) => {
            Some("it is hung: its thread does not come back".to_owned())
        }
        _ if view.restarts >= config.many_restarts => {
            Some(format!("restarted {} times in a row{error}", view.restarts))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use warden::Wake;

    use super::*;
    use crate::{
        Supervision,
        alarms::alarm_of,
        testbed::{Bed, done, hex, view_of},
    };

    fn view(id: DaemonId, change: impl FnOnce(&mut DaemonView)) -> DaemonView {
        let mut view = view_of(id);
        change(&mut view);
        view
    }

    fn check(expected: Option<&str>, change: impl FnOnce(&mut DaemonView)) {
        let view = view(DaemonId("X"), change);
        assert_eq!(complaint(&view, &Config::default()).as_deref(), expected, "{view:?}");
    }

    #[test]
    fn only_what_is_wanted_and_does_not_work_is_complained_of() {
        check(None, |_| {});
        check(None, |view| view.health = Health::Degraded("the disk is full".into()));
        check(None, |view| view.state = State::Stopped);
        check(None, |view| view.restarts = 2);
        check(Some("restarted 3 times in a row"), |view| view.restarts = 3);
        check(Some("given up after 5 restarts: no such table"), |view| {
            view.state = State::Failed;
            view.restarts = 5;
            view.last_error = Some("no such table".into());
        });
        check(None, |view| {
            view.state = State::Failed;
            view.asked = false;
        });
        check(Some("this machine lacks something: missing: a driver"), |view| {
            view.state = State::ImportFailed;
            view.last_error = Some("missing: a driver".into());
        });
        check(Some("does not start: waits for Y for 40 s"), |view| {
            view.state = State::Starting;
            view.health = Health::Degraded("waits for Y for 40 s".into());
        });
        check(Some("no cycle for 120 s"), |view| {
            view.health = Health::Unhealthy("no cycle for 120 s".into());
        });
        check(Some("it is hung: its thread does not come back"), |view| {
            view.cause = Some("hung".into());
        });
    }

    #[derive(Clone, Default)]
    struct Views(Arc<Mutex<Arc<Snapshot>>>);

    impl Supervision for Views {
        fn wake(&self, _: Wake) {}
        fn wake_daemon(&self, _: DaemonId) {}
        fn snapshot(&self) -> Arc<Snapshot> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Views {
        fn show(&self, daemons: Vec<DaemonView>) {
            *self.0.lock().unwrap() = Arc::new(Snapshot { daemons, ..Snapshot::default() });
        }
    }

    fn watchdog(bed: &Bed) -> (DaemonWatchdog, Views) {
        let (views, bell) = (Views::default(), Bell::default());
        bell.connect(views.clone());
        let ports = (bed.catalogue_of::<DaemonWatchdog>(), bell, bed.pressure.clone());
        (DaemonWatchdog::new(Config::default(), ports), views)
    }

    #[tokio::test]
    async fn a_failed_daemon_is_an_alarm_until_it_runs_again_or_nobody_wants_it() {
        let bed = Bed::new().await;
        let (mut daemon, views) = watchdog(&bed);
        let (cx, _probe) = bed.cx::<DaemonWatchdog>();
        let (a, b) = (DaemonId("A"), DaemonId("B"));
        let alarm = async |id: &str| alarm_of(&bed.catalogue, &alarm_on(id)).await.unwrap();
        views.show(vec![view(a, |view| view.state = State::Failed), view(b, |_| {})]);
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Degraded("not working: A".into()));
        assert!(alarm("A").await.is_some() && alarm("B").await.is_none());
        let told = bed.catalogue.log().head(Stream::Operational).await.unwrap();
        done(daemon.cycle(&cx).await);
        assert_eq!(bed.catalogue.log().head(Stream::Operational).await.unwrap(), told);

        views.show(vec![view(a, |_| {}), view(b, |view| view.state = State::Failed)]);
        done(daemon.cycle(&cx).await);
        assert!(alarm("A").await.is_none() && alarm("B").await.is_some());
        views.show(vec![
            view(a, |_| {}),
            view(b, |view| {
                view.state = State::Failed;
                view.asked = false;
            }),
        ]);
        let status = done(daemon.cycle(&cx).await);
        assert!(alarm("B").await.is_none(), "nobody wants it any more");
        assert_eq!(daemon.health(&status), Health::Healthy);
    }

    #[tokio::test]
    async fn daemons_that_run_while_nothing_comes_out_are_an_alarm_with_its_cause() {
        let bed = Bed::new().await;
        let (mut daemon, views) = watchdog(&bed);
        let (cx, _probe) = bed.cx::<DaemonWatchdog>();
        views.show(vec![view(IdleResource::ID, |_| {})]);
        let silence = async || alarm_of(&bed.catalogue, SILENCE).await.unwrap();
        done(daemon.cycle(&cx).await);
        bed.pass_time(Duration::from_mins(29));
        done(daemon.cycle(&cx).await);
        assert!(silence().await.is_none());
        let obstacle = crate::Obstacle { reason: "1 GiB is free".into(), needs: "2 GiB".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        bed.pass_time(Duration::from_mins(2));
        done(daemon.cycle(&cx).await);
        let expected = "nothing has happened in the pipeline for 31 min; \
                        DISK holds it back: 1 GiB is free";
        assert_eq!(silence().await.unwrap().0, expected);
        bed.batch(hex(), &["g"]).await;
        done(daemon.cycle(&cx).await);
        assert!(silence().await.is_none());
    }

    #[tokio::test]
    async fn a_stop_in_the_middle_leaves_the_rest_to_the_next_look() {
        let bed = Bed::new().await;
        let (mut daemon, views) = watchdog(&bed);
        let (cx, probe) = bed.cx::<DaemonWatchdog>();
        let failed = |view: &mut DaemonView| view.state = State::Failed;
        views.show(vec![view(DaemonId("A"), failed), view(DaemonId("B"), failed)]);
        probe.stop_at_beat(3);
        assert!(daemon.cycle(&cx).await.unwrap_err().is::<warden::Stopping>());
        assert!(alarm_of(&bed.catalogue, "daemon.A").await.unwrap().is_some());
        assert!(alarm_of(&bed.catalogue, "daemon.B").await.unwrap().is_none());
    }
}
