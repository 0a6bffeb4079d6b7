//! The streams of a log: how they are made, and what must be so of those that are there.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};

use super::Options;
use super::wire::{Names, Source};
use crate::Stream;

/// Bytes of the largest message: a body of [`crate::MAX_BODY_BYTES`], its head, and the error in a dead letter
/// fit in. The server refuses a larger one, whoever sends it, for it would be kept for ever.
pub(super) const LARGEST: usize = 2 << 20;

/// How long the server remembers the ids of messages.
const REMEMBERED: Duration = Duration::from_mins(10);

/// The same for a stream: not longer than its messages, or the server would not have it.
pub(super) fn remembered(source: Source, options: &Options) -> Duration {
    match options.retention.max_age {
        age if source == Source::Facts(Stream::Operational) && !age.is_zero() => {
            age.min(REMEMBERED)
        }
        _ => REMEMBERED,
    }
}

/// A stream as it is made.
pub(super) fn config(names: &Names, source: Source, options: &Options) -> Config {
    Config {
        name: names.stream(source),
        subjects: vec![format!("{}.>", names.root(source))],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        num_replicas: options.replicas.unwrap_or(3),
        duplicate_window: remembered(source, options),
        max_messages: -1,
        max_bytes: -1,
        max_message_size: i32::try_from(LARGEST).unwrap_or(i32::MAX),
        max_consumers: -1,
        max_messages_per_subject: if source == Source::State { 1 } else { -1 },
        max_age: match source {
            Source::Facts(Stream::Operational) => options.retention.max_age,
            _ => Duration::ZERO,
        },
        // What is in the log stays there, whoever connects.
        deny_delete: true,
        deny_purge: source != Source::Facts(Stream::Operational),
        // For the guards among the operational facts, which must outlive them.
        allow_message_ttl: source == Source::Facts(Stream::Operational),
        allow_atomic_publish: true,
        ..Config::default()
    }
}

/// What is wrong with a stream that is there, whoever made it, and what to do.
pub(super) fn wrong(wanted: &Config, found: &Config) -> Option<String> {
    let is_kept = wanted.deny_purge;
    let has_limits =
        found.max_messages > 0 || found.max_bytes > 0 || found.max_age != Duration::ZERO;
    let most = |config: &Config| match config.max_message_size {
        size @ 1.. => size,
        _ => i32::MAX,
    };
    Some(if found.subjects != wanted.subjects {
        format!("takes {:?}, not {:?}", found.subjects, wanted.subjects)
    } else if !found.allow_atomic_publish {
        "takes no atomic batches: switch `allow_atomic` on".to_owned()
    } else if wanted.allow_message_ttl && !found.allow_message_ttl {
        "lets no message outlive the others: switch `allow_msg_ttl` on".to_owned()
    } else if found.storage != wanted.storage {
        "lies in memory, and is lost with its servers: begin a log of another name, whose streams \
         lie in files"
            .to_owned()
    } else if found.retention != wanted.retention {
        format!(
            "lets go what was read (retention {:?}): set its retention to `limits`",
            found.retention
        )
    } else if found.sealed {
        "is sealed, and takes nothing any more: begin a log of another name".to_owned()
    } else if found.max_messages_per_subject != wanted.max_messages_per_subject {
        let (found, wanted) = (found.max_messages_per_subject, wanted.max_messages_per_subject);
        format!("keeps {found} messages a subject, not {wanted}")
    } else if is_kept && has_limits {
        "has limits, and what is in it must be kept for ever: remove them".to_owned()
    } else if !found.deny_delete {
        "lets its messages be deleted: switch `deny_delete` on".to_owned()
    } else if is_kept && !found.deny_purge {
        "lets itself be purged, and what is in it must be kept for ever: switch `deny_purge` on"
            .to_owned()
    } else if most(found) < most(wanted) {
        let (found, least) = (most(found), most(wanted));
        format!("takes messages of {found} bytes, at least {least} are needed: set `max_msg_size`")
    } else if found.duplicate_window < wanted.duplicate_window {
        let (found, least) = (found.duplicate_window, wanted.duplicate_window);
        format!("remembers ids for {found:?}, not for {least:?}: set `duplicate_window`")
    } else {
        return None;
    })
}

/// What is not as safe as it could be of a stream of several servers. It works, so it is not refused: a log that was
/// made when there was one server goes on.
pub(super) fn weak(wanted: &Config, found: &Config) -> Option<String> {
    let (found, wanted) = (found.num_replicas, wanted.num_replicas);
    (found < wanted).then(|| {
        format!(
            "lies on {found} of the servers, not on {wanted}: who loses one may lose the log; \
             raise it with `nats stream edit --replicas {wanted}`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(source: Source) -> Config {
        config(&Names("log".to_owned()), source, &Options::new("a", "log", "folder"))
    }

    #[test]
    fn a_stream_that_loses_what_is_in_it_is_refused_and_told_why() {
        let check = |source: Source, change: fn(&mut Config), said: &str| {
            let wanted = made(source);
            let mut found = wanted.clone();
            assert_eq!(wrong(&wanted, &found), None);
            change(&mut found);
            let wrong = wrong(&wanted, &found).expect(said);
            assert!(wrong.contains(said), "{wrong}");
        };
        let operational = Source::Facts(Stream::Operational);
        check(operational, |it| it.allow_message_ttl = false, "switch `allow_msg_ttl` on");
        for source in Source::ALL {
            check(source, |it| it.storage = StorageType::Memory, "lies in memory");
            check(source, |it| it.retention = RetentionPolicy::Interest, "to `limits`");
            check(source, |it| it.retention = RetentionPolicy::WorkQueue, "to `limits`");
            check(source, |it| it.allow_atomic_publish = false, "switch `allow_atomic` on");
            check(source, |it| it.deny_delete = false, "switch `deny_delete` on");
            check(source, |it| it.max_message_size = 1 << 20, "takes messages of 1048576 bytes");
            check(source, |it| it.duplicate_window /= 2, "remembers ids for");
            check(source, |it| it.sealed = true, "is sealed");
            if source != operational {
                check(source, |it| it.deny_purge = false, "switch `deny_purge` on");
                check(source, |it| it.max_age = Duration::from_hours(1), "has limits");
            }
        }
    }

    #[test]
    fn a_stream_without_a_largest_message_goes_on() {
        let wanted = made(Source::State);
        for size in [-1, 0, 8 << 20] {
            assert_eq!(wrong(&wanted, &Config { max_message_size: size, ..wanted.clone() }), None);
        }
    }

    #[test]
    fn fewer_replicas_than_servers_are_told_and_not_refused() {
        let wanted = made(Source::State);
        assert_eq!(weak(&wanted, &wanted), None);
        let one = Config { num_replicas: 1, ..wanted.clone() };
        assert_eq!(wrong(&wanted, &one), None);
        let weak = weak(&wanted, &one).unwrap();
        assert!(weak.contains("on 1 of the servers, not on 3"), "{weak}");
        assert!(weak.contains("`nats stream edit --replicas 3`"), "{weak}");
    }
}
