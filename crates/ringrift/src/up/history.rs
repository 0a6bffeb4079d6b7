//! What outlives a manager of its daemons: crashes in a row, recent crashes, what was given up.
//!
//! Kept as operational facts, the newest of each daemon counts. The supervisor knows what is too old.

use anyhow::Context as _;
use courier::{Courier, Stream};
use ringrift_pipeline::{
    AlarmChanged, Catalogue, DaemonRestartsChanged, NodeId, Operational, restarts_subject,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing::warn;
use warden::{Clock, Degraded, History, Notice, Runnable};

/// Gives each daemon the history that an earlier manager kept of it, on this node of a cluster.
///
/// # Errors
/// The log cannot be read.
pub async fn recall(
    log: &Courier,
    node: Option<&NodeId>,
    runnables: Vec<Runnable>,
) -> anyhow::Result<Vec<Runnable>> {
    let mut recalled = Vec::with_capacity(runnables.len());
    for runnable in runnables {
        let daemon = runnable.spec.id.name();
        let kept = log.last_on(Stream::Operational, &restarts_subject(daemon, node)).await;
        let kept = kept.with_context(|| format!("read the history of {daemon}"))?;
        let Some(fact) = kept else {
            recalled.push(runnable);
            continue;
        };
        let known = serde_json::from_value(fact.body);
        recalled.push(if let Ok(Operational::DaemonRestartsChanged(past)) = known {
            runnable.remembering(to_history(past, fact.time_ms))
        } else {
            // Of another version: a fresh ladder is better than no manager.
            warn!(daemon, "the history that an earlier manager kept is not understood");
            runnable
        });
    }
    Ok(recalled)
}

fn to_history(past: DaemonRestartsChanged, noted_ms: i64) -> History {
    History {
        crashes: past.crashes,
        recent_ms: past.recent_ms,
        given_up: past.given_up,
        degraded: past
            .degraded_since_ms
            .zip(past.retry_ms)
            .map(|(since_ms, retry_ms)| Degraded { since_ms, retry_ms }),
        last_error: past.last_error,
        noted_ms,
    }
}

/// Keeps every history that the supervisor tells, and raises an alarm while it restarts nothing.
pub async fn keep(
    mut notices: Receiver<Notice>,
    catalogue: Catalogue,
    node: Option<NodeId>,
    clock: Clock,
) {
    loop {
        let notice = match notices.recv().await {
            Ok(notice) => notice,
            Err(RecvError::Lagged(missed)) => {
                warn!(missed, "histories of daemons changed faster than they could be kept");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let (fact, at_ms) = match notice {
            Notice::History { daemon, history } => (
                Operational::DaemonRestartsChanged(DaemonRestartsChanged {
                    daemon: daemon.name().to_owned(),
                    node: node.clone(),
                    crashes: history.crashes,
                    recent_ms: history.recent_ms,
                    given_up: history.given_up,
                    degraded_since_ms: history.degraded.map(|degraded| degraded.since_ms),
                    retry_ms: history.degraded.map(|degraded| degraded.retry_ms),
                    last_error: history.last_error,
                }),
                history.noted_ms,
            ),
            Notice::BreakerTripped(status) => {
                let sentence = format!(
                    "{} restarts within {} s are more than {}: none for {} s",
                    status.recent_restart_count,
                    status.window_seconds,
                    status.threshold,
                    status.cooldown_remaining
                );
                (breaker_alarm(true, sentence), clock.now_ms())
            }
            Notice::BreakerClosed { revived } => {
                let sentence =
                    format!("restarts go on; {} critical daemons revived", revived.len());
                (breaker_alarm(false, sentence), clock.now_ms())
            }
            // The supervisor logs it, and the status shows it for as long as it lasts.
            Notice::CrashLoop { .. } => continue,
        };
        // What cannot be written (disk full) is written with the next change.
        if let Err(error) = catalogue.note(fact, at_ms).await {
            warn!(%error, "the history of a daemon is not kept");
        }
    }
}

fn breaker_alarm(raised: bool, sentence: String) -> Operational {
    Operational::AlarmChanged(AlarmChanged { alarm: "cascade_breaker".into(), raised, sentence })
}

#[cfg(test)]
mod tests {
    use courier::{Embedded, Folder, Options};
    use ringrift_pipeline::PipelineFold;
    use tokio::task::JoinSet;
    use warden::{Cx, Daemon, DaemonId, RestartPolicy, Settings, Spec, State, Supervisor};

    use super::*;

    struct Failing;

    impl Daemon for Failing {
        const SPEC: Spec = Spec { id: DaemonId("FAILING"), ..Spec::DEFAULT };
        type Config = ();
        type Ports = ();
        type Status = ();

        fn new((): (), (): ()) -> Self {
            Self
        }

        async fn start(&mut self, _: &Cx) -> anyhow::Result<()> {
            anyhow::bail!("no such table")
        }
    }

    #[tokio::test]
    async fn what_one_supervisor_gave_up_the_next_one_does_not_try() {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts"), Options::default()).unwrap();
        let place = dir.path().join("catalogue");
        let folder = Folder::open(&place, PipelineFold, log.clone()).await.unwrap();
        let catalogue = Catalogue::new(log.clone(), folder);
        let mut tasks = JoinSet::new();

        for (life, crashes) in [(1, 1), (2, 0)] {
            let runnables = recall(&log, None, vec![Runnable::of(|| Ok(Failing))]).await.unwrap();
            let settings = Settings {
                restart: RestartPolicy { max: 0, ..RestartPolicy::default() },
                ..Settings::new(tokio::runtime::Handle::current())
            };
            let (handle, drive) = Supervisor::new(runnables, settings, Clock::system()).unwrap();
            let mut moves = handle.transitions();
            tasks.spawn(async { drop(drive.await) });
            tasks.spawn(keep(handle.notices(), catalogue.clone(), None, Clock::system()));
            handle.start_planned(&[Failing::ID]).await.unwrap();
            let failed = |s: &std::sync::Arc<warden::Snapshot>| s.daemons[0].state == State::Failed;
            let mut snapshots = handle.subscribe();
            let view = snapshots.wait_for(failed).await.unwrap().daemons[0].clone();
            assert_eq!(view.last_error.as_deref(), Some("no such table"), "life {life}");
            handle.shutdown().await.unwrap();
            let mut told = 0;
            while let Ok(moved) = moves.try_recv() {
                told += usize::from(moved.to == State::Failed);
            }
            assert_eq!(told, crashes, "life {life}");
            let subject = restarts_subject("FAILING", None);
            while log.last_on(Stream::Operational, &subject).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        }
    }
}
