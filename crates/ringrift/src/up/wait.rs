//! What a manager begins with may be out of reach for a while: the log of a cluster whose servers are not there yet,
//! as after a power cut. It is waited for, and whoever asks to stop meanwhile is heard.

use std::time::Duration;

use courier::{Error, FoldError, LeaseError, OpenError};
use ringrift_pipeline::CatalogueError;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{manage::Signals, notify};
use crate::{console, exit::Failure};

/// Pause before a log out of reach is tried again; each try waits for an election by itself.
const AGAIN: Duration = Duration::from_secs(2);

/// Opens what needs the log, again and again while that is out of reach; none if somebody asked to stop meanwhile.
///
/// # Errors
/// What waiting does not mend.
pub async fn within_reach<T>(
    mut open: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let mut signals = Signals::listen()?;
    let mut was_away = false;
    loop {
        let opened = tokio::select! {
            () = signals.next() => return Ok(None),
            opened = open() => opened,
        };
        let Some(why) = opened.as_ref().err().and_then(out_of_reach) else {
            if was_away && opened.is_ok() {
                info!("the log is within reach");
            }
            return opened.map(Some);
        };
        if !std::mem::replace(&mut was_away, true) {
            warn!(why, "this manager waits for the log");
            console::say(&format!("{why}; it is waited for (Ctrl-C ends this)"));
        }
        notify::waits("the log is out of reach");
        tokio::select! {
            () = signals.next() => return Ok(None),
            () = sleep(AGAIN) => {}
        }
    }
}

/// The sentence of a log that may come back.
fn out_of_reach(failure: &Failure) -> Option<String> {
    let error = failure.error.as_ref()?;
    let is_away = error.chain().any(|cause| {
        let log = |log: &Error| matches!(log, Error::Unavailable(_));
        cause.downcast_ref().is_some_and(log)
            || cause.downcast_ref().is_some_and(|lease| match lease {
                LeaseError::Failed(failed) => log(failed),
                LeaseError::Held { .. } | LeaseError::Lost { .. } => false,
            })
            || cause.downcast_ref().is_some_and(|opened| match opened {
                OpenError::Unreachable { .. } => true,
                OpenError::Failed(failed) => log(failed),
                _ => false,
            })
            || cause.downcast_ref().is_some_and(|fold| match fold {
                FoldError::Log(failed) => log(failed),
                _ => false,
            })
            || cause.downcast_ref().is_some_and(CatalogueError::is_out_of_reach)
    });
    is_away.then(|| format!("{error:#}"))
}
