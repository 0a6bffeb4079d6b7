//! Connections: how many, how long a head may take, how large it may be.
//!
//! When all places are taken, whoever has asked nothing for the longest time gives its place up. So
//! connections that are opened and left to wait, however many, keep no probe out.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::HttpBody as _};
use futures_util::future::Either;
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::routes::{self, App};

/// Connections at a time. A browser holds six, a scraper one. Each may hold [`MAX_HEAD_BYTES`] and a
/// body, so this bounds the memory of all.
const MAX_CONNECTIONS: usize = 128;

/// Longest time for a request's head, which is also the longest pause between two requests of one
/// connection: an idle connection gives its place back.
const HEAD_WITHIN: Duration = Duration::from_secs(20);

/// Most header lines, and most bytes of a head. Browsers send twenty lines and 1 KiB.
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 32 << 10;

/// Pause after a failed accept: it fails again at once while no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    retry-after: 5\r\nconnection: close\r\ncontent-length: 50\r\n\r\n\
    {\"error\":\"too many connections, try again later\"}\n";

/// Accepts and answers until `stop`, with a task that lives as long.
pub(super) async fn run(
    app: &Arc<App>,
    listener: TcpListener,
    beside: impl Future + Send + 'static,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (http, router) = (&app.http, routes::router(Arc::clone(app)));
    let guests = Arc::new(Guests::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(async { drop(beside.await) });
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    http.set_fault(None);
                    match Guests::admit(&guests) {
                        Some(seat) => {
                            let (app, router) = (Arc::clone(app), router.clone());
                            tasks.spawn(connection(stream, app, router, seat));
                        }
                        // Whether it arrives or not: nothing is held for whoever is too many.
                        None => drop(stream.try_write(TOO_MANY)),
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    http.set_fault(Some(format!("cannot accept a connection: {error}")));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    tasks.shutdown().await;
    Ok(())
}

async fn connection(stream: TcpStream, app: Arc<App>, router: Router, seat: Seat) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        seat.answering();
        let answer = match routes::at_once(&app, &request) {
            Some(answer) => Either::Left(std::future::ready(Ok(answer))),
            None => Either::Right(router.call(request)),
        };
        async {
            let answer = answer.await;
            // A body of unknown length is a stream: it is at work until it ends.
            if answer.as_ref().is_ok_and(|answer| answer.size_hint().exact().is_some()) {
                seat.idle();
            }
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let served = tokio::select! {
        served = serving => served,
        () = seat.guest.leave.cancelled() => Ok(()),
    };
    if let Err(error) = served {
        debug!(%error, "connection ended");
    }
}

/// Who is connected.
#[derive(Default)]
struct Guests {
    open: Mutex<BTreeMap<u64, Arc<Guest>>>,
    /// Counts arrivals and ends of answers: a smaller number is longer ago.
    turns: AtomicU64,
}

struct Guest {
    /// The turn since which it asks nothing; [`ANSWERING`] while it is answered.
    idle_since: AtomicU64,
    leave: CancellationToken,
}

const ANSWERING: u64 = u64::MAX;

impl Guests {
    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// A place; none if everybody who has one is being answered.
    fn admit(guests: &Arc<Self>) -> Option<Seat> {
        let number = guests.turn();
        let guest =
            Arc::new(Guest { idle_since: AtomicU64::new(number), leave: CancellationToken::new() });
        let mut open = guests.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_CONNECTIONS {
            let idle = |guest: &Guest| guest.idle_since.load(Ordering::Relaxed);
            let (longest, _) = (open.iter().map(|(number, guest)| (*number, idle(guest))))
                .filter(|(_, since)| *since != ANSWERING)
                .min_by_key(|(_, since)| *since)?;
            open.remove(&longest)?.leave.cancel();
        }
        open.insert(number, Arc::clone(&guest));
        drop(open);
        Some(Seat { guests: Arc::clone(guests), number, guest })
    }
}

/// A place among the guests, given back when it is dropped.
struct Seat {
    guests: Arc<Guests>,
    number: u64,
    guest: Arc<Guest>,
}

impl Seat {
    fn answering(&self) {
        self.guest.idle_since.store(ANSWERING, Ordering::Relaxed);
    }

    fn idle(&self) {
        self.guest.idle_since.store(self.guests.turn(), Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.guests.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.number);
    }
}
