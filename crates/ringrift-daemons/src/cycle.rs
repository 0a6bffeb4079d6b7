//! What every cycle has in common: how it ends, what holds it back, where its chance comes from.

use std::time::Duration;

use ringrift_pipeline::{
    Catalogue, CatalogueError, Config, Gate, GateChanged, Topic as _, WorkKind,
};
use warden::{Daemon as _, DaemonId, Outcome};

use crate::{OutOfReach, Pressure, event::event_router::EventRouter};

/// What every daemon needs.
pub(crate) const EVENT_ROUTER: DaemonId = EventRouter::ID;

/// What [`tell`] says in the name of its daemon.
pub(crate) const EMITS: &[&str] = &[GateChanged::TOPIC];
/// Pause after somebody else was faster: their fact is folded by then.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Pause before a full disk is tried again.
const OBSTACLE: Duration = Duration::from_secs(5);
/// Pause after the first item that failed for good; it doubles with each further one.
const FIRST_REST: i64 = 30_000;
/// Longest such pause.
const LONGEST_REST: i64 = 3_600_000;

/// Ends a cycle: an obstacle or a faster fact is no crash, everything else is.
pub(crate) fn settled<S>(result: anyhow::Result<Outcome<S>>) -> anyhow::Result<Outcome<S>> {
    let error = match result {
        Ok(outcome) => return Ok(outcome),
        Err(error) => error,
    };
    match obstacle(&error) {
        Some((reason, retry_in)) => Ok(Outcome::blocked_for(reason, retry_in)),
        None => Err(error),
    }
}

/// Is this error an expected obstacle? Then its sentence, and when to look again.
pub(crate) fn obstacle(error: &anyhow::Error) -> Option<(String, Duration)> {
    error.chain().find_map(|cause| {
        if let Some(known) = cause.downcast_ref::<CatalogueError>() {
            let pause = match known {
                known if known.is_superseded() => LOOK_AGAIN,
                known if known.is_obstacle() => OBSTACLE,
                _ => return None,
            };
            return Some((known.to_string(), pause));
        }
        if let Some(known) = cause.downcast_ref::<OutOfReach>() {
            return Some((known.to_string(), OBSTACLE));
        }
        let known = cause.downcast_ref::<courier::Error>()?;
        let pause = match known {
            courier::Error::Fenced(_) => LOOK_AGAIN,
            courier::Error::Full { .. } | courier::Error::Unavailable(_) => OBSTACLE,
            _ => return None,
        };
        Some((known.to_string(), pause))
    })
}

/// Lets a cycle go on with the rest where one thing is out of reach; what held it up is told at its end.
pub(crate) fn beyond<T>(
    result: anyhow::Result<T>,
    held_up: &mut Option<anyhow::Error>,
) -> anyhow::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.chain().any(<dyn std::error::Error>::is::<OutOfReach>) => {
            held_up.get_or_insert(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The gate of everything that makes data: closed while a resource runs out.
pub(crate) fn brake(pressure: &Pressure) -> Gate {
    match pressure.obstacle() {
        None => Gate::Allow,
        Some((_, obstacle)) => Gate::deny("obstacle", obstacle.reason, obstacle.needs),
    }
}

/// The gate of whoever asks for work of a kind: closed for a while after items that failed for good,
/// so that a broken worker does not burn the machine.
pub(crate) fn rest_after_deaths(kind: WorkKind, deaths: u32, last_ms: i64, now_ms: i64) -> Gate {
    if deaths == 0 {
        return Gate::Allow;
    }
    let rest = FIRST_REST.saturating_mul(1 << (deaths - 1).min(16)).min(LONGEST_REST);
    let left = last_ms.saturating_add(rest).saturating_sub(now_ms);
    if left <= 0 {
        return Gate::Allow;
    }
    Gate::deny(
        "dead",
        format!("the last {deaths} items of kind {kind} failed for good"),
        format!("a pause of {} s after the last of them", rest / 1000),
    )
}

/// The first gate that is closed.
pub(crate) fn first_closed(gates: impl IntoIterator<Item = Gate>) -> Gate {
    gates.into_iter().find(|gate| !gate.is_open()).unwrap_or(Gate::Allow)
}

/// Stores a gate's answer for people. A full disk cannot keep it; the cycle's outcome says it then, and who no
/// longer leads is refused.
pub(crate) async fn tell(
    catalogue: &Catalogue,
    gate: &Gate,
    of: DaemonId,
    config: Option<Config>,
    now_ms: i64,
) -> Result<(), CatalogueError> {
    match catalogue.tell_gate(gate.to_fact(of.0, config), now_ms).await {
        Err(error) if error.is_obstacle() => Ok(()),
        told => told.map(|_| ()),
    }
}

/// The outcome of a cycle that a gate stopped.
pub(crate) fn denied<S>(gate: &Gate, status: S) -> Outcome<S> {
    match gate {
        Gate::Allow => Outcome::Done(status),
        Gate::Deny { reason, needs, .. } => {
            Outcome::blocked(format!("{reason}; needs {needs}")).with_status(status)
        }
    }
}

/// A seed for what has this name: the same for the same loop, in every process and version.
///
/// FNV-1a over the name, then the finaliser of `SplitMix64`: two names never share a stream.
pub(crate) fn seed(of_loop: u64, name: &str) -> u64 {
    let mut hash = of_loop ^ 0xcbf2_9ce4_8422_2325;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Obstacle;

    #[test]
    fn pauses_after_deaths_double_and_end() {
        let open = |deaths: u32, ago: i64| {
            rest_after_deaths(WorkKind::Train, deaths, 1_000_000, 1_000_000 + ago).is_open()
        };
        assert!(open(0, 0));
        assert!(!open(1, 29_999));
        assert!(open(1, 30_000));
        assert!(!open(2, 59_999));
        assert!(open(2, 60_000));
        assert!(!open(30, 3_599_999), "the longest pause is an hour");
        assert!(open(30, 3_600_000));
    }

    #[test]
    fn the_brake_names_what_holds_and_what_would_release() {
        let pressure = Pressure::default();
        assert!(brake(&pressure).is_open());
        pressure.set(
            DaemonId("DISK"),
            Some(Obstacle { reason: "1 GiB is free".into(), needs: "2 GiB".into() }),
        );
        assert_eq!(brake(&pressure), Gate::deny("obstacle", "1 GiB is free", "2 GiB"));
        pressure.set(DaemonId("DISK"), None);
        assert!(brake(&pressure).is_open());
    }

    #[test]
    fn a_full_disk_is_an_obstacle_and_a_bug_is_a_crash() {
        let full = anyhow::Error::new(CatalogueError::Full { topic: "work.queued" })
            .context("queue a training");
        let outcome = settled::<()>(Err(full)).unwrap();
        assert!(
            matches!(outcome, Outcome::Blocked { ref reason, .. } if reason.contains("no space"))
        );
        assert!(settled::<()>(Err(anyhow::anyhow!("a bug"))).is_err());
    }

    #[test]
    fn seeds_differ_by_name_and_by_loop() {
        assert_eq!(seed(1, "a"), seed(1, "a"));
        assert_ne!(seed(1, "a"), seed(1, "b"));
        assert_ne!(seed(1, "a"), seed(2, "a"));
    }
}
