//! Who says what, and who hears it: every topic with its two ends.
//!
//! Listeners follow from `wakes_on`. Emitters follow from [`Emits`]: a daemon's handle to the
//! catalogue knows what the daemon declares, and in a build with debug assertions recording anything
//! else is a panic, so the tests of a daemon find a declaration that lags behind.

use ringrift_pipeline::{
    AlarmChanged, ArtefactTrashed, ArtefactsHeld, ArtefactsReleased, BatchRejected,
    DaemonRestartsChanged, DaemonStatusChanged, DeadLettersReplayed, GateChanged, Kind,
    ModelAccepted, NodeAdmitted, NodeAvailabilityChanged, NodeDrained, NodeInvited, NodeJoined,
    NodeRemoved, Operational, RecoveryAttempted, RecoveryBegun, RecoveryEnded, Topic as _,
    TrainingFellBack, WorkRaised, WorkReleased, kinds,
};
use warden::Transition;

use crate::registry;

/// Topics in groups: what a daemon says itself, and what shared parts say in its name.
pub type Topics = &'static [&'static [&'static str]];

/// What a daemon says.
pub trait Emits {
    /// The topics of all facts that it records.
    const EMITS: Topics;
}

/// A topic and its two ends.
#[derive(Debug, Clone)]
pub struct Route {
    /// The topic, and what its facts hold.
    pub kind: &'static Kind,
    /// Who records its facts: daemons by name, and `the manager`.
    pub emitters: Vec<&'static str>,
    /// Daemons that its facts wake.
    pub listeners: Vec<&'static str>,
    /// Who takes note where no daemon is woken, and why none need be.
    pub otherwise: Option<&'static str>,
}

/// What the binary records itself.
const OF_THE_MANAGER: &[&str] = &[
    DaemonStatusChanged::TOPIC,
    DaemonRestartsChanged::TOPIC,
    NodeInvited::TOPIC,
    NodeAdmitted::TOPIC,
    NodeJoined::TOPIC,
    NodeDrained::TOPIC,
    NodeRemoved::TOPIC,
];

/// Topics that wake no daemon, and why.
const WAKES_NOBODY: &[(&str, &str)] = &[
    (
        WorkReleased::TOPIC,
        "the item is found in the catalogue by the next cycle that has room; waking for it would \
         turn an obstacle into a busy loop",
    ),
    (WorkRaised::TOPIC, "whoever has room next: the order of the catalogue is another one"),
    (BatchRejected::TOPIC, "people, and the catalogue: a refused batch is nobody's work"),
    (ModelAccepted::TOPIC, "`model.promoted` is in the same append, and wakes"),
    (ArtefactTrashed::TOPIC, "the catalogue: nobody waits for a file to go"),
    (
        ArtefactsHeld::TOPIC,
        "the catalogue: each artefact is told by every node, too often to wake for",
    ),
    (ArtefactsReleased::TOPIC, "the catalogue: who looks for copies looks by itself"),
    (
        NodeJoined::TOPIC,
        "the managers of all nodes, which serve their artefacts to this one from now on",
    ),
    (NodeInvited::TOPIC, "the manager where newcomers ask, when one comes with this ticket"),
    (NodeAdmitted::TOPIC, "the same: a ticket is used once"),
    (NodeDrained::TOPIC, "the manager of the node, whose daemons take no new work from then on"),
    (NodeRemoved::TOPIC, "the managers of all nodes, which serve their artefacts to it no more"),
    (RecoveryBegun::TOPIC, "the next leader, which finds in the catalogue what was tried"),
    (RecoveryAttempted::TOPIC, "the same, and people: `ringrift events --topic recovery`"),
    (RecoveryEnded::TOPIC, "people: the node is back, or nobody may touch it any more"),
    (NodeAvailabilityChanged::TOPIC, "people; who acts on a machine asks its provider again"),
    (
        DaemonStatusChanged::TOPIC,
        "people; DAEMON_WATCHDOG looks at the supervisor, which knows it first",
    ),
    (DaemonRestartsChanged::TOPIC, "the next manager, which reads it at its start"),
    (GateChanged::TOPIC, "people: `ringrift why`, and the alarms of PROGRESS_WATCHDOG quote it"),
    (AlarmChanged::TOPIC, "people: `ringrift why`, the page, `ringrift events`"),
    (TrainingFellBack::TOPIC, "people; TRAINING_TRIGGER reads the answer of the gate with it"),
    (DeadLettersReplayed::TOPIC, "people: `ringrift events`, `ringrift dlq`"),
];

/// What the manager records of a daemon's change of state.
pub fn status_changed(change: Transition) -> Operational {
    Operational::DaemonStatusChanged(DaemonStatusChanged {
        daemon: change.daemon.0.to_owned(),
        from: change.from.name().to_lowercase(),
        to: change.to.name().to_lowercase(),
        reason: change.reason.name().to_owned(),
        error: change.error,
    })
}

/// Every topic with its two ends.
pub fn routes() -> Vec<Route> {
    let route = |kind: &'static Kind| {
        let manager = OF_THE_MANAGER.contains(&kind.topic).then_some("the manager");
        let speaks =
            registry().filter(|(_, entry)| entry.emits.iter().any(|of| of.contains(&kind.topic)));
        let hears = registry()
            .filter(|(_, entry)| entry.spec.wakes_on.iter().any(|wake| wake.0 == kind.topic));
        Route {
            kind,
            emitters: manager.into_iter().chain(speaks.map(|(_, entry)| entry.spec.id.0)).collect(),
            listeners: hears.map(|(_, entry)| entry.spec.id.0).collect(),
            otherwise: WAKES_NOBODY
                .iter()
                .find(|(topic, _)| *topic == kind.topic)
                .map(|(_, why)| *why),
        }
    };
    kinds().map(route).collect()
}

/// Topics with a loose end, and reasons for a loose end that is none; empty = all is well.
pub(crate) fn loose_ends() -> Vec<String> {
    let mut faults = Vec::new();
    for route in routes() {
        let topic = route.kind.topic;
        if route.emitters.is_empty() {
            faults.push(format!("{topic}: nobody records it"));
        }
        match (route.listeners.is_empty(), route.otherwise) {
            (true, None) => faults.push(format!("{topic}: it wakes nobody, and nothing says why")),
            (false, Some(_)) => {
                faults.push(format!("{topic}: it is said to wake nobody, but it does"));
            }
            _ => {}
        }
    }
    for (_, entry) in registry() {
        for wake in entry.spec.wakes_on {
            if !kinds().any(|kind| kind.topic == wake.0) {
                faults.push(format!("{}: wakes on '{}', which is no topic", entry.spec.id, wake.0));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{Advice, AdviceGiven, Record};

    use super::*;
    use crate::{
        feedback::feedback_loop::FeedbackLoop,
        testbed::{Bed, candidate, hex},
    };

    #[test]
    fn every_topic_has_somebody_who_says_it_and_somebody_who_hears_it_or_a_reason() {
        assert_eq!(loose_ends(), Vec::<String>::new());
        for (topic, _) in WAKES_NOBODY {
            assert!(kinds().any(|kind| kind.topic == *topic), "{topic} is no topic");
        }
    }

    #[tokio::test]
    #[should_panic(expected = "FEEDBACK_LOOP@here records advice.given, which it does not declare")]
    async fn a_daemon_that_says_what_it_does_not_declare_is_found_out() {
        let bed = Bed::new().await;
        let model = candidate(&bed, hex(), 1).await;
        let advice =
            AdviceGiven { config: hex(), model, advice: Advice::Plateau, reason: "-".into() };
        let catalogue = bed.catalogue_of::<FeedbackLoop>();
        drop(catalogue.record(vec![Record::always(advice)], 1).await);
    }
}
