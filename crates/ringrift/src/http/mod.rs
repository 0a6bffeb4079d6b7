//! The HTTP server: probes, metrics, JSON, the page, and what an operator may change. On loopback.
//! Showing is open to everybody on this machine; whatever changes something needs the operator's
//! token, and is carried out by what answers the control socket.
//!
//! The address is taken at the start of the process ([`Http::bind`]), so that a taken port stops it
//! before any work. Until `HEALTH_SERVER` opens it, and after that daemon has closed it, every
//! request is answered with 503.

mod api;
mod feed;
#[cfg(test)]
mod fixture;
mod guard;
mod made;
mod metrics;
mod openapi;
mod operate;
mod overview;
mod page;
#[cfg(test)]
mod preview;
mod probes;
mod ratings;
mod routes;
mod schemas;
mod server;
#[cfg(test)]
mod tests;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ringrift_daemons::{HttpPort, LiveWork, Loop, Pressure};
use ringrift_pipeline::Catalogue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use warden::Snapshot;

use feed::Feed;
use made::Counts;
pub use operate::Operator;
use routes::App;

/// What is shown. Everything here is published state: no request asks a daemon, so a daemon that
/// hangs cannot hang a probe.
pub trait Sources: Send + Sync + 'static {
    /// Facts and what is the case.
    fn catalogue(&self) -> &Catalogue;
    /// The supervisor's newest view; none before it runs.
    fn snapshot(&self) -> Option<Arc<Snapshot>>;
    /// The brake.
    fn pressure(&self) -> &Pressure;
    /// What runs or waits for a slot now.
    fn live(&self) -> Vec<LiveWork>;
    /// Workers that may run at a time.
    fn slots(&self) -> usize;
    /// What the loop is about.
    fn the_loop(&self) -> &Loop;
    /// When the manager started, ms since the Unix epoch.
    fn started_ms(&self) -> i64;
    /// Time on the wall, ms since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// Why no address could be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error(
        "{0} is taken by another process: stop that one, or choose another port with --port (0 = any free one)"
    )]
    Taken(SocketAddr),
    /// The token would cross the network readable: there is no TLS, so it stays at home.
    #[error(
        "{0} is not a loopback address: the page and the probes are served on 127.0.0.1 or ::1"
    )]
    NotLoopback(SocketAddr),
    /// Anything else.
    #[error("listen on {address}: {source}")]
    Failed {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The server; shared between `HEALTH_SERVER`, which opens and closes it, and the runtime that
/// answers.
pub struct Http {
    address: SocketAddr,
    /// Taken by [`Http::serve`].
    listener: Mutex<Option<TcpListener>>,
    open: watch::Sender<bool>,
    requests: AtomicU64,
    fault: Mutex<Option<String>>,
}

impl Http {
    /// Takes the address; nothing is answered yet. Port 0 takes any free one.
    pub fn bind(address: SocketAddr) -> Result<Arc<Self>, BindError> {
        if !address.ip().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => BindError::Taken(address),
            _ => BindError::Failed { address, source },
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Arc::new(Self {
            address,
            listener: Mutex::new(Some(listener)),
            open: watch::Sender::new(false),
            requests: AtomicU64::new(0),
            fault: Mutex::new(None),
        }))
    }

    /// The address that was taken, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled; then connections are cut, event streams included. Runs on
    /// the runtime it is polled on, once. Whoever shows the token reaches the operator.
    pub async fn serve(
        self: Arc<Self>,
        sources: Arc<dyn Sources>,
        operator: (Arc<dyn Operator>, String),
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(listener) = listener else {
            return Err(std::io::Error::other("the HTTP server was started twice"));
        };
        let open = self.open.subscribe();
        let (feed, feeding) = Feed::start(Arc::clone(&sources), open);
        let (counts, counting) = Counts::start(Arc::clone(&sources));
        let app = Arc::new(App::new(Arc::clone(&self), sources, operator, (feed, counts)));
        let beside = async { tokio::join!(feeding, counting) };
        let served = server::run(&app, listener, beside, stop).await;
        self.open.send_replace(false);
        self.set_fault(Some(match &served {
            Ok(()) => "the HTTP server has ended".to_owned(),
            Err(error) => format!("the HTTP server ended: {error}"),
        }));
        served
    }

    fn set_fault(&self, fault: Option<String>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl HttpPort for Http {
    fn open(&self) -> anyhow::Result<SocketAddr> {
        if let Some(fault) = self.fault() {
            anyhow::bail!(fault);
        }
        self.open.send_replace(true);
        Ok(self.address)
    }

    fn close(&self) {
        self.open.send_replace(false);
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
