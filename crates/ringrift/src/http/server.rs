//! Connections: how many, how long a head may take, how large it may be.

use std::{net::TcpListener, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Http;

/// Connections at a time. A browser holds six, a scraper one; whoever comes above that is told so at
/// once instead of waiting behind connections that may never end.
const MAX_CONNECTIONS: usize = 96;

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
    http: &Http,
    listener: TcpListener,
    app: Router,
    beside: impl Future + Send + 'static,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    tasks.spawn(async { drop(beside.await) });
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    http.set_fault(None);
                    match Arc::clone(&places).try_acquire_owned() {
                        Ok(place) => { tasks.spawn(connection(stream, app.clone(), place)); }
                        // Whether it arrives or not: nothing is held for whoever is too many.
                        Err(_) => drop(stream.try_write(TOO_MANY)),
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

async fn connection(stream: TcpStream, app: Router, _place: OwnedSemaphorePermit) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .await;
    if let Err(error) = served {
        debug!(%error, "connection ended");
    }
}
