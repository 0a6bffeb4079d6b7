//! The server that keeps a cluster's log, where this node runs it: a child process that is started again when
//! it ends.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{net::TcpStream, runtime::Runtime, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use warden::worker::{Limits, Worker, WorkerSpec, Workers};

use crate::{data_dir::DataDir, membership::Membership};

/// Names the program, if it is not found by its name.
pub const PROGRAM: &str = "NATS_SERVER";
/// Time until it must take connections; one with a large store reads it first.
const BEGINS_WITHIN: Duration = Duration::from_mins(1);
/// Time for the server of an earlier life to free its port.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// It is started again after 1, 2, 4, 8, then 16 seconds: nothing goes on without it, so never given up.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// One that ran for so long begins again with the shortest.
const WELL: Duration = Duration::from_mins(1);
/// A server says nothing on its standard output.
const SILENCE: Duration = Duration::from_hours(24 * 365 * 10);

/// The running server; ended when this is dropped.
pub struct LogServer {
    /// Its own: daemons and their threads are gone before it ends.
    runtime: Runtime,
    stop: CancellationToken,
    kept: Option<tokio::task::JoinHandle<()>>,
}

impl LogServer {
    /// The program that is named for the server of a directory, if that has one.
    ///
    /// # Errors
    /// What the directory belongs to cannot be read.
    pub fn named(dir: &DataDir) -> anyhow::Result<Option<PathBuf>> {
        let serves = Membership::of(dir)?.is_some_and(|membership| membership.serve.is_some());
        Ok(std::env::var_os(PROGRAM).filter(|_| serves).map(|_| program()))
    }

    /// Starts the server of a directory, if that has one, and waits until it takes connections.
    ///
    /// # Errors
    /// The program is not there, or does not get as far.
    pub fn start(dir: &DataDir) -> anyhow::Result<Option<Self>> {
        match Membership::of(dir)?.and_then(|membership| membership.serve) {
            Some(listen) => Self::at(dir, listen).map(Some),
            None => Ok(None),
        }
    }

    /// Starts the server that was set up in a directory, and waits until it takes connections there.
    ///
    /// # Errors
    /// The program is not there, or does not get as far.
    pub fn at(dir: &DataDir, listen: SocketAddr) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let workers =
            Workers::new(&dir.run().join("server")).context("prepare for the server of the log")?;
        // Else a stranger's server would be taken for ours. One of an earlier life may need a moment to go.
        let began = Instant::now();
        while let Err(error) = TcpListener::bind(listen) {
            if began.elapsed() > GONE_WITHIN {
                bail!(
                    "the log of this cluster cannot be served at {listen}: {error}; end what listens there"
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let spec = spec(dir);
        let program = spec.program.display().to_string();
        let mut first = runtime.block_on(workers.start(spec.clone())).with_context(|| {
            format!(
                "start {program}, which keeps the log of this cluster: install nats-server 2.12.8 or \
                 newer, or name it in {PROGRAM}"
            )
        })?;
        let log = spec.log.display();
        runtime.block_on(async {
            tokio::select! {
                end = first.finished() => {
                    bail!("{program}, which keeps the log of this cluster, ended at once ({:?}); {log} says why", end.exit)
                }
                () = listens(listen) => Ok(()),
                () = tokio::time::sleep(BEGINS_WITHIN) => {
                    bail!("{program} does not keep the log of this cluster at {listen}; {log} says why")
                }
            }
        })?;
        info!(%listen, "the server of the log runs");
        let stop = CancellationToken::new();
        let kept = runtime.spawn(keep(workers, spec, first, stop.clone()));
        Ok(Self { runtime, stop, kept: Some(kept) })
    }
}

impl Drop for LogServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(kept) = self.kept.take()
            && let Err(error) = self.runtime.block_on(kept)
        {
            error!(%error, "what kept the server of the log ended badly");
        }
    }
}

/// Returns when somebody takes connections there.
async fn listens(at: SocketAddr) {
    while TcpStream::connect(at).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn program() -> PathBuf {
    match std::env::var_os(PROGRAM).map(PathBuf::from) {
        // It is started in another folder than ours.
        Some(path) if path.components().count() > 1 => std::path::absolute(&path).unwrap_or(path),
        Some(name) => name,
        None => "nats-server".into(),
    }
}

fn spec(dir: &DataDir) -> WorkerSpec {
    let program = program();
    WorkerSpec {
        args: vec!["-c".to_owned(), "server.conf".to_owned()],
        log: dir.logs().join("log-server.log"),
        limits: Limits { beat: SILENCE, ..Limits::default() },
        ..WorkerSpec::new(program, dir.cluster(), String::new())
    }
}

async fn keep(workers: Workers, spec: WorkerSpec, first: Worker, stop: CancellationToken) {
    let mut running = Some(first);
    let mut pause = Duration::from_secs(1);
    loop {
        if let Some(mut server) = running.take() {
            let began = Instant::now();
            tokio::select! {
                () = stop.cancelled() => {
                    server.terminate();
                    server.finished().await;
                    return;
                }
                end = server.finished() => error!(?end, "the server of the log ended"),
            }
            if began.elapsed() > WELL {
                pause = Duration::from_secs(1);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        match workers.start(spec.clone()).await {
            Ok(server) => running = Some(server),
            Err(error) => error!(%error, "the server of the log does not start"),
        }
    }
}
