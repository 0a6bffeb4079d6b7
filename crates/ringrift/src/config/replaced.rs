//! Variables of the old system that have no meaning here, each with what took its place.
//!
//! Source: manager contract, sections 14 and 18. Those that still mean something are other names of
//! keys, see the schema.

/// Variable and what is said to whoever sets it.
pub const REPLACED: &[(&str, &str)] = &[
    // Loops of daemons.
    ("RINGRIFT_DAEMON_CHECK_INTERVAL", EACH_INTERVAL),
    ("RINGRIFT_DAEMON_ERROR_BACKOFF_BASE", ERRORS_ARE_CRASHES),
    ("RINGRIFT_DAEMON_ERROR_BACKOFF_MAX", ERRORS_ARE_CRASHES),
    (
        "RINGRIFT_DAEMON_MAX_CONSECUTIVE_ERRORS",
        "an error of a cycle is a crash, and RINGRIFT_DAEMON_RESTART_MAX counts them",
    ),
    (
        "RINGRIFT_DAEMON_SHUTDOWN_GRACE",
        "RINGRIFT_DAEMON_SHUTDOWN_TIMEOUT holds for each level of daemons",
    ),
    ("RINGRIFT_DAEMON_HEALTH_TIMEOUT", HEALTH_IS_PUBLISHED),
    ("RINGRIFT_DAEMON_ERROR_RATE_THRESHOLD", ERRORS_ARE_CRASHES),
    ("RINGRIFT_DAEMON_MIN_CYCLES_ERROR_CHECK", ERRORS_ARE_CRASHES),
    // Health.
    (
        "RINGRIFT_DAEMON_CRITICAL_CHECK_INTERVAL",
        "critical daemons are read every RINGRIFT_DAEMON_HEALTH_INTERVAL, but at least every 15 s",
    ),
    ("RINGRIFT_DAEMON_MAX_FAILURES", "three bad cycles in a row restart a daemon"),
    (
        "RINGRIFT_DAEMON_STARTUP_TIMEOUT",
        "how long a start may take belongs to the type of daemon; 30 s unless it says otherwise",
    ),
    ("RINGRIFT_DAEMON_HEALTH_CHECK_TIMEOUT", HEALTH_IS_PUBLISHED),
    ("RINGRIFT_DAEMON_PARALLEL_HEALTH", HEALTH_IS_PUBLISHED),
    ("RINGRIFT_DAEMON_MAX_PARALLEL_HEALTH", HEALTH_IS_PUBLISHED),
    ("RINGRIFT_DAEMON_DEPENDENCY_POLL", NEEDS_ARE_AWAITED),
    ("RINGRIFT_DAEMON_DEPENDENCY_TIMEOUT", NEEDS_ARE_AWAITED),
    // The process.
    ("RINGRIFT_IS_COORDINATOR", PROFILE_IS_ROLE),
    ("RINGRIFT_NODE_ROLE", PROFILE_IS_ROLE),
    (
        "RINGRIFT_NODE_ID",
        "the name of an installation is made once and stays in the file `node` of its data directory",
    ),
    (
        "RINGRIFT_FAIL_ON_CRITICAL_DAEMON_FAILURE",
        "a critical daemon that fails makes /health answer 503 and `ringrift health` exit with 1; \
         what then happens is for whoever watches, e.g. systemd",
    ),
    ("RINGRIFT_REACTIVE_DISPATCH", "events always wake the daemons that wait for them"),
    (
        "RINGRIFT_WATCHDOG_INTERVAL",
        "it had two meanings: RINGRIFT_DAEMON_WATCHDOG_INTERVAL is the watchdog's cycle, and \
         `ringrift service install` gives the whole process a watchdog",
    ),
    ("RINGRIFT_HEARTBEAT_STALE_THRESHOLD", SERVICE_RESTARTS),
    ("RINGRIFT_MAX_RESTARTS_PER_HOUR", SERVICE_RESTARTS),
    ("RINGRIFT_MASTER_LOOP_INTERVAL", "there is no master loop: every daemon has its own interval"),
    ("RINGRIFT_SKIP_MASTER_LOOP_CHECK", "there is no master loop, and so no check for one"),
    (
        "RINGRIFT_MIN_GAMES_FOR_EXPORT",
        "accepted games are exported at once; RINGRIFT_TRAINING_TRIGGER_MIN_NEW_ROWS says how many \
         new rows make a training due",
    ),
    (
        "RINGRIFT_EVENT_HANDLER_TIMEOUT",
        "events only wake daemons; how long a cycle may be silent belongs to the type of daemon",
    ),
    ("RINGRIFT_S3_BUCKET", "RINGRIFT_STORE_URL names bucket and prefix: s3://BUCKET/PREFIX"),
    (
        "RINGRIFT_S3_SYNC_INTERVAL",
        "what is new is copied at once; `pause` of [daemons.s3_backup] is the least time between two manifests",
    ),
    ("RINGRIFT_S3_BANDWIDTH_LIMIT", "RINGRIFT_STORE_RATE is the limit, in bytes a second"),
    ("RINGRIFT_DISABLE_DLQ_REPLAY", "RINGRIFT_DLQ_RETRY_ENABLED=0 is the switch"),
    ("RINGRIFT_ALLOW_STALE_TRAINING", TRAINING_BY_ROWS),
    ("RINGRIFT_MAX_DATA_AGE_HOURS", TRAINING_BY_ROWS),
];

const EACH_INTERVAL: &str = "every daemon has its own, e.g. RINGRIFT_AUTO_SYNC_INTERVAL";
const ERRORS_ARE_CRASHES: &str = "an error of a cycle is a crash: RINGRIFT_DAEMON_RESTART_BACKOFF, \
     RINGRIFT_DAEMON_RESTART_BACKOFF_MAX and RINGRIFT_DAEMON_RESTART_MAX say what follows";
const HEALTH_IS_PUBLISHED: &str = "a daemon publishes its health and is not asked for it; one that \
     is silent for too long is named";
const NEEDS_ARE_AWAITED: &str = "a daemon starts at the moment when what it needs is ready, however late; after 30 s that is a warning";
const PROFILE_IS_ROLE: &str =
    "the profile says what a node does: RINGRIFT_MANAGER_PROFILE, or `ringrift up --profile`";
const SERVICE_RESTARTS: &str =
    "`ringrift service install` lets systemd watch the process and start it again";
const TRAINING_BY_ROWS: &str = "training is due by new rows since the last one, not by the age of data: \
     RINGRIFT_TRAINING_TRIGGER_MIN_NEW_ROWS";

/// What is said to whoever sets this variable, if it is one of them.
pub fn replaced(variable: &str) -> Option<&'static str> {
    REPLACED.iter().find(|(name, _)| *name == variable).map(|(_, sentence)| *sentence)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::keys;

    #[test]
    fn no_replaced_variable_is_read_and_each_that_a_sentence_names_is() {
        let read: BTreeSet<String> = keys().into_iter().flat_map(|key| key.variables).collect();
        for (variable, sentence) in REPLACED {
            assert!(!read.contains(*variable), "{variable}");
            assert!(!sentence.ends_with('.'), "{variable}");
            let named = sentence.split(|c: char| !c.is_ascii_uppercase() && c != '_');
            for name in named.filter(|name| name.starts_with("RINGRIFT_") && !name.ends_with('_')) {
                assert!(read.contains(name), "{variable}: {name} is no variable");
            }
        }
    }
}
