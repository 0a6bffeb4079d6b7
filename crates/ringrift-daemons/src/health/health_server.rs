//! `HEALTH_SERVER`: opens the HTTP server, and closes it at the stop.
//!
//! Reads   how many requests were answered, and whether the server still works.
//! Writes  nothing.
//! Never   computes health: the supervisor publishes it, the server shows it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Health, Priority, Spec};

use crate::{
    COORDINATOR_FULL, EPHEMERAL, Emits, HttpPort, MINIMAL, SELFPLAY_FULL, STANDALONE,
    TRAINING_FULL, Topics, cycle::EVENT_ROUTER,
};

/// `[daemons.health_server]`. Its address is the process's: it is taken before any work.
/// It serves: `interval` has no meaning for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often it looks whether the server still works.
    #[serde(with = "crate::seconds")]
    pub look_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { look_every: Duration::from_secs(5) }
    }
}

/// What the server does.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Where it answers.
    pub address: String,
    /// Requests answered since the process started.
    pub requests: u64,
}

/// The daemon.
pub struct HealthServer {
    config: Config,
    http: Arc<dyn HttpPort>,
}

impl Emits for HealthServer {
    const EMITS: Topics = &[];
}

impl Daemon for HealthServer {
    const SPEC: Spec = Spec {
        id: DaemonId("HEALTH_SERVER"),
        about: "answers probes, metrics and pages over HTTP",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL, TRAINING_FULL, EPHEMERAL, SELFPLAY_FULL, MINIMAL, STANDALONE],
        period: Duration::from_secs(5),
        health_interval: Some(Duration::from_secs(30)),
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = Arc<dyn HttpPort>;
    type Status = Status;

    fn new(config: Config, http: Self::Ports) -> Self {
        Self { config, http }
    }

    async fn run(self, cx: Cx) -> anyhow::Result<()> {
        let address = self.http.open().context("open the HTTP server")?;
        // Closed however this ends, so that a restart never meets its own port.
        let _open = Open(Arc::clone(&self.http));
        info!(%address, "answering");
        cx.ready();
        while !cx.stopping() {
            let status = Status { address: address.to_string(), requests: self.http.requests() };
            let health = self.http.fault().map_or(Health::Healthy, Health::Unhealthy);
            cx.report(&status, health)?;
            tokio::select! {
                () = cx.stopped() => {}
                () = tokio::time::sleep(self.config.look_every) => {}
            }
        }
        Ok(())
    }
}

struct Open(Arc<dyn HttpPort>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{Mutex, PoisonError},
    };

    use warden::Clock;

    use super::*;

    #[derive(Default)]
    struct Server {
        open: Mutex<bool>,
        fault: Mutex<Option<String>>,
        taken: bool,
    }

    impl HttpPort for Server {
        fn open(&self) -> anyhow::Result<SocketAddr> {
            anyhow::ensure!(!self.taken, "the port is taken");
            *self.open.lock().unwrap() = true;
            Ok(SocketAddr::from(([127, 0, 0, 1], 8790)))
        }
        fn close(&self) {
            *self.open.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
        fn requests(&self) -> u64 {
            7
        }
        fn fault(&self) -> Option<String> {
            self.fault.lock().unwrap().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_when_the_server_is_open_and_closes_it_at_the_stop() {
        let server = Arc::new(Server::default());
        let (cx, probe) = Cx::detached(HealthServer::ID, Clock::new(|| 0));
        let port: Arc<dyn HttpPort> = server.clone();
        let running = HealthServer::new(Config::default(), port).run(cx);
        let script = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(probe.is_ready() && *server.open.lock().unwrap());
            assert_eq!(probe.health(), Health::Healthy);
            assert_eq!(probe.details()["address"], "127.0.0.1:8790");
            *server.fault.lock().unwrap() = Some("the listener is gone".into());
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(probe.health(), Health::Unhealthy("the listener is gone".into()));
            probe.stop();
        };
        let (ended, ()) = tokio::join!(running, script);
        ended.unwrap();
        assert!(!*server.open.lock().unwrap());
    }

    #[tokio::test]
    async fn a_server_that_cannot_open_is_a_crash_with_its_reason() {
        let server = Arc::new(Server { taken: true, ..Server::default() });
        let (cx, probe) = Cx::detached(HealthServer::ID, Clock::new(|| 0));
        let error = HealthServer::new(Config::default(), server).run(cx).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "open the HTTP server: the port is taken");
        assert!(!probe.is_ready());
    }
}
