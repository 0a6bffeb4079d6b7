//! The loop over a daemon's cycles: timer and wake-ups, one cycle at a time.

use std::time::Duration;

use anyhow::Context as _;

use crate::{Cx, Daemon, Health, Outcome, Stopping};

pub(crate) async fn cycles<D: Daemon>(mut daemon: D, cx: Cx) -> anyhow::Result<()> {
    if let Err(error) = daemon.start(&cx).await {
        return if interrupted(&cx, &error) { Ok(()) } else { Err(error) };
    }
    cx.ready();
    let ended = until_stopped(&mut daemon, &cx).await;
    match ended {
        // A crash outside a stop: the object is in a state that nobody vouches for.
        Err(error) if !cx.stopping() => Err(error),
        ended => {
            let last = daemon.stop(&cx.for_last_work()).await.context("last work at the stop");
            ended.and(last)
        }
    }
}

async fn until_stopped<D: Daemon>(daemon: &mut D, cx: &Cx) -> anyhow::Result<()> {
    let pulse = cx.pulse();
    while !cx.stopping() {
        if !unpaused(cx).await {
            break;
        }
        pulse.begin_cycle();
        let rest = match daemon.cycle(cx).await {
            Ok(Outcome::Done(status)) => {
                pulse.end_cycle(Some(&status), daemon.health(&status))?;
                pulse.period
            }
            Ok(Outcome::Blocked { reason, retry_in, status }) => {
                tracing::debug!(daemon = %cx.id(), reason, "cycle blocked");
                pulse.end_cycle(status.as_ref(), Health::Degraded(reason))?;
                retry_in.map_or(pulse.period, |retry| retry.min(pulse.period))
            }
            Err(error) if interrupted(cx, &error) => break,
            Err(error) => return Err(error),
        };
        rest_for(cx, rest).await;
    }
    Ok(())
}

/// The error only says that the requested stop took effect.
fn interrupted(cx: &Cx, error: &anyhow::Error) -> bool {
    cx.stopping() && error.chain().any(<dyn std::error::Error>::is::<Stopping>)
}

/// Waits while the daemon is paused; false when a stop came.
async fn unpaused(cx: &Cx) -> bool {
    let mut paused = cx.pulse().paused.clone();
    tokio::select! {
        biased;
        () = cx.stopped() => false,
        // An error means that the supervisor is gone; its runtime ends this task then.
        open = paused.wait_for(|paused| !paused) => open.is_ok(),
    }
}

async fn rest_for(cx: &Cx, rest: Duration) {
    let pulse = cx.pulse();
    pulse.set_due(Some(rest));
    // The gap bounds a daemon that wakes itself, or a storm of wake-ups, to a known rate.
    let woken = async {
        tokio::time::sleep(pulse.wake_gap).await;
        pulse.wake.notified().await;
    };
    tokio::select! {
        biased;
        () = cx.stopped() => {}
        () = tokio::time::sleep(rest) => {}
        () = woken => {}
    }
    pulse.set_due(None);
}
