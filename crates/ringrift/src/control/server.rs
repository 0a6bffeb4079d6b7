//! The manager's end of the socket. It lives on the supervisor's runtime: a daemon that hangs does
//! not keep it from answering.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use ringrift_daemons::{Found, explain, find};
use ringrift_pipeline::Config;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use warden::Handle;

use super::{Answer, Request, status::status};
use crate::state::State;

/// Requests at a time; the next one waits in the kernel's queue.
const MOST_AT_A_TIME: usize = 16;
/// Longest request, bytes.
const REQUEST_MAX: u64 = 64 << 10;
/// A client that has not said its request within this time is cut off.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// What the socket reaches.
pub struct Control {
    /// What can be shown.
    pub state: State,
    /// What can be done.
    pub handle: Handle,
    /// Cancelled to end the manager.
    pub stop: CancellationToken,
    /// Where the page is.
    pub url: String,
}

/// Makes the socket, for its owner alone.
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is dropped.
pub async fn serve(listener: UnixListener, control: Arc<Control>) {
    let places = Arc::new(Semaphore::new(MOST_AT_A_TIME));
    let tasks = TaskTracker::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = Arc::clone(&control);
                tasks.spawn(async move {
                    let _place = place;
                    if let Err(error) = talk(stream, &control).await {
                        warn!(error = format!("{error:#}"), "a request on the socket failed");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection on the socket");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn talk(stream: UnixStream, control: &Control) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(REQUEST_MAX));
    timeout(REQUEST_WITHIN, reader.read_line(&mut line))
        .await
        .context("wait for the request")??;
    if line.is_empty() {
        return Ok(());
    }
    let answer = match serde_json::from_str(&line) {
        Ok(request) => answer(request, control).await,
        Err(error) => Answer::Refused(format!("the request cannot be read: {error}")),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await?;
    write.shutdown().await?;
    Ok(())
}

async fn answer(request: Request, control: &Control) -> Answer {
    match request {
        Request::Status => Answer::Ok(status(&control.state, &control.url)),
        Request::Why { config } => why(&config, control).await,
        Request::Stop { daemon: None } => {
            info!("asked over the socket to end");
            control.stop.cancel();
            Answer::Ok(json!({ "stopped": null, "pid": std::process::id() }))
        }
        Request::Stop { daemon: Some(name) } => match find(&name) {
            Ok(Found::Active(_, entry)) => {
                info!(daemon = entry.spec.id.0, "asked over the socket to stop");
                match control.handle.stop(entry.spec.id).await {
                    Ok(()) => Answer::Ok(json!({ "stopped": entry.spec.id })),
                    Err(error) => Answer::Failed(error.to_string()),
                }
            }
            Ok(Found::Retired(retired)) => {
                Answer::Refused(format!("{} is retired and never runs", retired.name))
            }
            Err(unknown) => Answer::Refused(unknown.to_string()),
        },
    }
}

async fn why(config: &str, control: &Control) -> Answer {
    let config: Config = match config.parse() {
        Ok(config) => config,
        Err(error) => return Answer::Refused(format!("{error}")),
    };
    let state = &control.state;
    if !state.the_loop.configs.contains(&config) {
        let played: Vec<String> = state.the_loop.configs.iter().map(ToString::to_string).collect();
        return Answer::Refused(format!(
            "{config} is not played by this manager: it plays {}",
            played.join(", ")
        ));
    }
    match explain(&state.catalogue, &state.pressure, config).await {
        Ok(sentences) => match serde_json::to_value(sentences) {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Failed(error.to_string()),
        },
        Err(error) => Answer::Failed(format!("{error:#}")),
    }
}
