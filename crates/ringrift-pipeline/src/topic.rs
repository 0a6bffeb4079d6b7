//! Topics: one name for each kind of fact, and the names it goes by outside.
//!
//! Inside there is one spelling, that of [`Topic::TOPIC`]. What else people and older tools say is
//! understood at the edges, by [`resolve`], and goes no further.

use courier::Stream;

/// An event type: its topic is known without a value, so that daemons can name what they say and
/// what wakes them.
pub trait Topic {
    /// `<thing>.<past tense>`.
    const TOPIC: &'static str;
    /// Where its facts are kept.
    const STREAM: Stream;
}

/// A struct that is told field by field, in a fact or in a part of one.
pub trait Body {
    /// Its fields, in order.
    const FIELDS: &'static [Field];
}

/// A field of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its type, as it stands in the code.
    pub kind: &'static str,
    /// What it says, with its unit.
    pub about: &'static str,
}

/// A kind of fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its topic.
    pub topic: &'static str,
    /// Where its facts are kept.
    pub stream: Stream,
    /// What it says.
    pub about: &'static str,
    /// What its body holds beside `topic`.
    pub fields: &'static [Field],
}

impl Kind {
    /// What it is called outside, beside other spellings of the topic itself.
    pub fn aliases(&self) -> &'static [&'static str] {
        ALIASES.iter().find(|(topic, _)| *topic == self.topic).map_or(&[], |(_, names)| names)
    }
}

/// Structs that are told inside a body, by the names of their types.
pub const PARTS: &[(&str, &[Field])] = &[
    ("Capabilities", crate::Capabilities::FIELDS),
    ("MatchResult", crate::MatchResult::FIELDS),
    ("Parameters", crate::Parameters::FIELDS),
    ("TrainReport", crate::TrainReport::FIELDS),
];

/// Every kind of fact, in both streams.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    crate::Event::KINDS.iter().chain(crate::Operational::KINDS)
}

/// Topics that a text from outside means: one by its name in any spelling (`MODEL_PROMOTED`), by
/// an alias (`promotion_complete`), or all below a word (`work`). Empty: nothing is called so.
pub fn resolve(text: &str) -> Vec<&'static str> {
    let wanted = squashed(text);
    let named = |kind: &&Kind| {
        squashed(kind.topic) == wanted || kind.aliases().iter().any(|name| *name == wanted)
    };
    if let Some(kind) = kinds().find(named) {
        return vec![kind.topic];
    }
    let below = format!("{wanted}.");
    kinds().map(|kind| kind.topic).filter(|topic| topic.starts_with(&below)).collect()
}

/// Upper and lower case and the three ways to join words are one spelling.
fn squashed(name: &str) -> String {
    name.trim().to_lowercase().replace(['.', '-'], "_")
}

/// What older tools call a topic. Source: event contract, sections 3, 12 and 14; a name is here if
/// its fact would say the same or a part of it.
const ALIASES: &[(&str, &[&str])] = &[
    ("work.queued", &["task_spawned"]),
    ("work.released", &["work_retry"]),
    ("work.failed", &["task_failed"]),
    ("work.completed", &["task_completed"]),
    ("work.cancelled", &["task_cancelled"]),
    (
        "games.committed",
        &[
            "new_games",
            "new_games_available",
            "selfplay_complete",
            "canonical_selfplay_complete",
            "gpu_selfplay_complete",
        ],
    ),
    (
        "games.accepted",
        &["consolidation_complete", "parity_validation_complete", "parity_validation_completed"],
    ),
    ("samples.exported", &["export_complete", "npz_export_complete"]),
    ("samples.combined", &["npz_combination_complete"]),
    ("training.checkpointed", &["checkpoint_saved"]),
    ("training.completed", &["training_complete"]),
    ("evaluation.completed", &["evaluation_complete", "shadow_tournament_complete"]),
    ("model.rejected", &["promotion_rejected"]),
    ("model.promoted", &["promotion_complete", "tier_gating_complete"]),
    (
        "model.distributed",
        &["model_distribution_complete", "model_sync_complete", "p2p_model_synced"],
    ),
    ("parameters.set", &["adaptive_params_changed", "hyperparameter_updated"]),
    ("advice.given", &["plateau_detected", "regression_detected"]),
    ("selfplay.allocated", &["selfplay_allocation_updated", "selfplay_target_updated"]),
    ("node.unhealthy", &["health_check_failed", "host_offline", "p2p_node_dead"]),
    ("node.recovered", &["host_online"]),
    ("node.availability_changed", &["cluster_status_changed"]),
    ("recovery.begun", &["node_recovery_triggered", "recovery_initiated"]),
    ("recovery.ended", &["recovery_completed"]),
    ("artefact.trashed", &["disk_cleanup_triggered"]),
    ("daemon.status_changed", &["daemon_permanently_failed", "daemon_started", "daemon_stopped"]),
    (
        "gate.changed",
        &["backpressure_activated", "backpressure_released", "training_blocked_by_quality"],
    ),
    (
        "alarm.changed",
        &[
            "cluster_stall_detected",
            "disk_space_low",
            "dlq_stale_events",
            "health_alert",
            "memory_pressure",
            "progress_recovered",
            "progress_stall_detected",
        ],
    ),
    ("training.fell_back", &["stale_training_fallback"]),
    ("dead_letters.replayed", &["dlq_events_purged", "dlq_events_replayed"]),
];

/// Makes the enum of a stream, and what can be said of its kinds without a value.
macro_rules! facts {
    (
        $(#[$meta:meta])*
        enum $all:ident in $stream:ident;
        $($(#[doc = $about:literal])+ $name:ident = $topic:literal, $subject:expr;)*
    ) => {
        $(#[$meta])*
        #[serde(tag = "topic")]
        pub enum $all {
            $($(#[doc = $about])+ #[serde(rename = $topic)] $name($name),)*
        }

        $(
            impl $crate::Topic for $name {
                const TOPIC: &'static str = $topic;
                const STREAM: courier::Stream = courier::Stream::$stream;
            }
            impl From<$name> for $all {
                fn from(fact: $name) -> Self {
                    Self::$name(fact)
                }
            }
        )*

        impl $all {
            /// Every kind of fact of this stream.
            pub const KINDS: &'static [$crate::Kind] = &[$($crate::Kind {
                topic: $topic,
                stream: courier::Stream::$stream,
                about: concat!($($about),+),
                fields: <$name as $crate::Body>::FIELDS,
            },)*];

            /// The topic, e.g. `model.promoted`.
            pub fn topic(&self) -> &'static str {
                match self { $(Self::$name(_) => $topic,)* }
            }

            /// The log's subject: the key of the state machine that this fact moves.
            pub fn subject(&self) -> String {
                match self { $(Self::$name(fact) => ($subject)(fact),)* }
            }
        }
    };
}

/// Makes structs whose fields can be listed, with what their comments say.
macro_rules! bodies {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[doc = $about:literal])+ $(#[serde($($serde:tt)*)])? pub $field:ident: $kind:ty,)+
        }
    )+) => {
        $(
            $(#[$meta])*
            pub struct $name {
                $($(#[doc = $about])+ $(#[serde($($serde)*)])? pub $field: $kind,)+
            }

            impl $crate::Body for $name {
                const FIELDS: &'static [$crate::Field] = &[$($crate::Field {
                    name: stringify!($field),
                    kind: stringify!($kind),
                    about: concat!($($about),+),
                },)+];
            }
        )+
    };
}

pub(crate) use {bodies, facts};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_topic_is_found_in_any_spelling_by_its_alias_and_by_its_first_word() {
        let check = |text: &str, expected: &[&str]| assert_eq!(resolve(text), expected, "{text}");
        check("model.promoted", &["model.promoted"]);
        check(" MODEL_PROMOTED ", &["model.promoted"]);
        check("model-promoted", &["model.promoted"]);
        check("Promotion_Complete", &["model.promoted"]);
        check("NEW_GAMES", &["games.committed"]);
        check("DAEMON_STATUS_CHANGED", &["daemon.status_changed"]);
        check("games", &["games.committed", "games.accepted", "games.rejected"]);
        check("dead_letters", &["dead_letters.replayed"]);
        check("moon.landed", &[]);
        check("", &[]);
        check("mod", &[]);
    }

    #[test]
    fn an_alias_has_one_meaning_and_is_no_topic() {
        let topics: BTreeSet<String> = kinds().map(|kind| squashed(kind.topic)).collect();
        assert_eq!(topics.len(), kinds().count(), "two topics are one when squashed");
        let mut known = BTreeSet::new();
        for (topic, names) in ALIASES {
            assert!(kinds().any(|kind| kind.topic == *topic), "{topic} is no topic");
            for name in *names {
                assert_eq!(squashed(name), *name, "aliases are written squashed");
                assert!(!topics.contains(*name), "{name} is a spelling of a topic");
                assert!(known.insert(name), "{name} has two meanings");
                assert_eq!(resolve(name), [*topic]);
            }
        }
    }

    #[test]
    fn every_kind_and_field_says_what_it_means() {
        for kind in kinds() {
            assert!(kind.about.trim().ends_with('.'), "{}", kind.topic);
            for field in kind.fields {
                assert!(field.about.trim().len() > 3, "{}.{}", kind.topic, field.name);
            }
        }
    }
}
