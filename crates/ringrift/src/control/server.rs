//! The manager's end of the socket. It lives on the supervisor's runtime: a daemon that hangs does
//! not keep it from answering.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{Answer, Control, answer};

/// Requests at a time; the next one waits in the kernel's queue.
const MOST_AT_A_TIME: usize = 16;
/// Longest request, bytes.
const REQUEST_MAX: u64 = 64 << 10;
/// A client that has not said its request within this time is cut off.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

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
