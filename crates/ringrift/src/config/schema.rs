//! The keys there are: one table, from which file, environment, `config show` and the reference follow.

use ringrift_daemons::{COMMON_KEYS, DERIVED, PROFILE_ALIASES, PROFILES, registry};
use serde_json::{Value, json};
use warden::Hourly;

use super::kind::Kind;

/// Kinds of jobs whose worker a program may replace.
pub const JOB_KINDS: [&str; 7] =
    ["seed", "selfplay", "check", "export", "combine", "train", "gauntlet"];

/// Names of variables that the runbook and the old system gave; each is another name of a key.
///
/// Source: runbook, "Environment Variables" and "Training Activity Config"; manager contract, section 18.
pub const ALIASES: &[(&str, &str)] = &[
    ("http.port", "RINGRIFT_DAEMON_HEALTH_PORT"),
    ("http.port", "RINGRIFT_HEALTH_PORT"),
    ("manager.restart_max", "RINGRIFT_DAEMON_RESTART_MAX"),
    ("manager.restart_base", "RINGRIFT_DAEMON_RESTART_BACKOFF"),
    ("manager.restart_cap", "RINGRIFT_DAEMON_RESTART_BACKOFF_MAX"),
    ("manager.health_interval", "RINGRIFT_DAEMON_HEALTH_INTERVAL"),
    ("manager.shutdown_timeout", "RINGRIFT_DAEMON_SHUTDOWN_TIMEOUT"),
    ("manager.degraded_mode", "RINGRIFT_DEGRADED_MODE_ENABLED"),
    ("manager.degraded_normal_max", "RINGRIFT_DEGRADED_NORMAL_MAX"),
    ("manager.degraded_normal_base", "RINGRIFT_DEGRADED_NORMAL_BACKOFF_BASE"),
    ("manager.degraded_normal_cap", "RINGRIFT_DEGRADED_NORMAL_BACKOFF_MAX"),
    ("manager.degraded_elevated_max", "RINGRIFT_DEGRADED_ELEVATED_MAX"),
    ("manager.degraded_elevated_base", "RINGRIFT_DEGRADED_ELEVATED_BACKOFF_BASE"),
    ("manager.degraded_elevated_cap", "RINGRIFT_DEGRADED_ELEVATED_BACKOFF_MAX"),
    ("manager.degraded_retry_critical", "RINGRIFT_DEGRADED_CRITICAL_RETRY_INTERVAL"),
    ("manager.degraded_retry_other", "RINGRIFT_DEGRADED_NONCRITICAL_RETRY_INTERVAL"),
    ("manager.degraded_reset_hours", "RINGRIFT_DEGRADED_RESET_HOURS"),
    ("manager.log_level", "RINGRIFT_LOG_LEVEL"),
    ("daemons.cluster_watchdog.max_failures", "RINGRIFT_WATCHDOG_MAX_FAILURES"),
    ("daemons.p2p_recovery.max_failures", "RINGRIFT_P2P_MAX_FAILURES"),
    ("daemons.p2p_recovery.restart_cooldown", "RINGRIFT_P2P_RESTART_COOLDOWN"),
    ("daemons.p2p_recovery.min_peers", "RINGRIFT_P2P_MIN_PEERS"),
    ("daemons.p2p_recovery.min_peer_ratio", "RINGRIFT_P2P_MIN_PEER_RATIO"),
    ("daemons.training_trigger.interval", "RINGRIFT_TRAINING_CHECK_INTERVAL"),
    ("daemons.selfplay_coordinator.interval", "RINGRIFT_ALLOCATION_CHECK_INTERVAL"),
    ("daemons.training_node_watcher.enabled", "RINGRIFT_TRAINING_ACTIVITY_ENABLED"),
    ("daemons.training_node_watcher.interval", "RINGRIFT_TRAINING_ACTIVITY_INTERVAL"),
    ("daemons.training_node_watcher.handle_signals", "RINGRIFT_TRAINING_ACTIVITY_HANDLE_SIGNALS"),
    ("daemons.training_node_watcher.trigger_sync", "RINGRIFT_TRAINING_ACTIVITY_TRIGGER_SYNC"),
];

/// Variables that name no key: where data and file lie.
pub const PLACES: [&str; 2] = ["RINGRIFT_DATA_DIR", "RINGRIFT_CONFIG"];

/// A key.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Section and name, joined by a dot.
    pub path: String,
    /// What it may hold.
    pub kind: Kind,
    /// Without any setting; null = not set.
    pub default: Value,
    /// One clause for people.
    pub about: String,
    /// Its variables; the first is the one derived from its path.
    pub variables: Vec<String>,
}

/// Every key, sections in the order of the reference.
pub fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |path: &str, kind: Kind, default: Value, about: &str| {
        // `[daemons.auto_sync] interval` is RINGRIFT_AUTO_SYNC_INTERVAL: the daemons' section is
        // left out, as the runbook writes it.
        let name = path.strip_prefix("daemons.").unwrap_or(path);
        let mut variables = vec![format!("RINGRIFT_{}", name.replace('.', "_").to_uppercase())];
        let more = ALIASES.iter().filter(|(key, _)| *key == path);
        variables.extend(more.map(|(_, variable)| (*variable).to_owned()));
        keys.push(Key { path: path.into(), kind, default, about: about.into(), variables });
    };
    let profiles = PROFILES.iter().map(|(profile, _)| profile.0);
    let profiles = profiles.chain(PROFILE_ALIASES.iter().map(|(alias, _)| *alias)).collect();

    add("loop.configs", Kind::Configs, json!(["hex8_2p", "square8_2p"]), "configs that are played");
    add(
        "loop.seed",
        Kind::Whole { min: 0, max: i64::MAX.cast_unsigned() },
        json!(1),
        "seed of the whole loop: same seed, same model 0",
    );
    add(
        "http.port",
        Kind::Whole { min: 0, max: 65_535 },
        json!(8790),
        "port of probes and page; 0 = any free one, the real one stands in run/port",
    );
    add("http.bind", Kind::Loopback, json!("127.0.0.1"), "address of probes and page");
    add("manager.profile", Kind::Word(profiles), json!("standalone"), "which daemons are started");
    add(
        "manager.restart_max",
        Kind::MaybeWhole { min: 0, max: 1000 },
        Value::Null,
        "restarts in a row before a daemon is FAILED; not set = 5, or what the type says",
    );
    add(
        "manager.restart_base",
        Kind::Seconds { min: 0.0, max: 3600.0 },
        json!(1.0),
        "pause before the first restart; each further one in a row doubles it",
    );
    add(
        "manager.restart_cap",
        Kind::Seconds { min: 0.0, max: 86_400.0 },
        json!(16.0),
        "longest pause before a restart",
    );
    add(
        "manager.health_interval",
        Kind::Seconds { min: 1.0, max: 3600.0 },
        json!(30.0),
        "time between two readings of health; critical daemons: 15 s at most",
    );
    add(
        "manager.shutdown_timeout",
        Kind::Seconds { min: 1.0, max: 600.0 },
        json!(30.0),
        "time that each level of daemons has to stop",
    );
    add(
        "manager.degraded_mode",
        Kind::Flag,
        json!(false),
        "restart by the crashes of an hour, without an end, instead of the ladder and FAILED",
    );
    let hourly = Hourly::default();
    let crashes = Kind::Whole { min: 0, max: 1000 };
    let pause = Kind::Seconds { min: 0.0, max: 604_800.0 };
    for (key, most, about) in [
        ("normal", hourly.normal_max, "crashes within an hour up to which pauses are short"),
        (
            "elevated",
            hourly.elevated_max,
            "crashes within an hour up to which pauses are minutes; beyond it a daemon is DEGRADED",
        ),
    ] {
        let about = format!("degraded mode: {about}");
        add(&format!("manager.degraded_{key}_max"), crashes.clone(), json!(most), &about);
    }
    for (key, time, about) in [
        ("normal_base", hourly.normal_base, "first short pause; each crash of the hour doubles it"),
        ("normal_cap", hourly.normal_cap, "longest short pause"),
        ("elevated_base", hourly.elevated_base, "first pause beyond the short ones"),
        ("elevated_cap", hourly.elevated_cap, "longest of those"),
        ("retry_critical", hourly.retry_critical, "pause of a critical daemon that is DEGRADED"),
        ("retry_other", hourly.retry_other, "pause of any other daemon that is DEGRADED"),
    ] {
        let about = format!("degraded mode: {about}");
        let default = json!(time.as_secs_f64());
        add(&format!("manager.degraded_{key}"), pause.clone(), default, &about);
    }
    add(
        "manager.degraded_reset_hours",
        Kind::Whole { min: 1, max: 168 },
        json!(hourly.leave_after.as_secs() / 3600),
        "degraded mode: hours after which a daemon is no longer DEGRADED, its crashes forgotten",
    );
    add(
        "manager.cascade_breaker",
        Kind::Flag,
        json!(false),
        "suspend all restarts for 2 minutes when there are too many within 5",
    );
    add(
        "manager.durability",
        Kind::Word(vec!["normal", "full"]),
        json!("normal"),
        "normal: facts survive the death of the process; full: a power cut as well",
    );
    add(
        "manager.log_level",
        Kind::Word(vec!["error", "warn", "info", "debug", "trace"]),
        json!("info"),
        "least level that logs/daemons.log takes; `ringrift log-level` changes it at run time",
    );
    add(
        "manager.log_format",
        Kind::Word(vec!["text", "json"]),
        json!("text"),
        "text: TIME LEVEL DAEMON: message key=value; json: one object a line",
    );
    add(
        "workers.slots",
        Kind::Whole { min: 0, max: 1024 },
        json!(0),
        "worker processes at a time; 0 = one per core",
    );
    add(
        "workers.memory",
        Kind::Bytes { min: 64 << 20, max: 1 << 50 },
        json!(4_u64 << 30),
        "most memory of one worker and its children",
    );
    add(
        "workers.silence",
        Kind::Seconds { min: 1.0, max: 3600.0 },
        json!(30.0),
        "a worker that says nothing for so long is ended",
    );
    add(
        "workers.grace",
        Kind::Seconds { min: 0.0, max: 600.0 },
        json!(10.0),
        "time between asking a worker to end and ending it",
    );
    for kind in JOB_KINDS {
        let about = format!("program that does the jobs '{kind}' instead of the built-in one");
        add(&format!("workers.{kind}.command"), Kind::Command, Value::Null, &about);
    }
    add("store.url", Kind::FarStore, Value::Null, "far store: where copies of everything lie");
    add(
        "store.derived",
        Kind::Words(DERIVED.to_vec()),
        json!(["samples"]),
        "artefacts that go there beside weights, games and records, which always do",
    );
    add(
        "store.rate",
        Kind::Bytes { min: 0, max: 1 << 40 },
        json!(0),
        "most bytes a second to or from the far store; 0 = as many as it can",
    );
    add(
        "store.endpoint",
        Kind::Endpoint,
        Value::Null,
        "service that has the bucket; not set = Amazon's, Google's or Azure's, as store.url begins",
    );
    add("store.region", Kind::Name, json!("us-east-1"), "region of the bucket, for s3:// alone");
    add(
        "store.allow_http",
        Kind::Flag,
        json!(false),
        "talk to a service on another machine without encryption",
    );
    add(
        "store.credentials",
        Kind::Path,
        Value::Null,
        "file that proves us to the service, see docs/cluster.md; not set = its usual variables",
    );
    for (_, entry) in registry() {
        let section = entry.section();
        let Value::Object(defaults) = entry.defaults() else { continue };
        for (name, default) in defaults {
            let common = COMMON_KEYS.iter().find(|(key, _)| *key == name);
            let about = match common {
                Some((_, about)) => format!("{}: {about}", entry.spec.id),
                None => format!("{}: {}", entry.spec.id, name.replace('_', " ")),
            };
            let kind = match name.as_str() {
                "enabled" => Kind::Flag,
                "interval" => Kind::Seconds { min: 0.1, max: 604_800.0 },
                _ => Kind::Daemon { default: default.clone() },
            };
            add(&format!("daemons.{section}.{name}"), kind, default, &about);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_variable_names_two_keys_and_no_alias_is_without_its_key() {
        let keys = keys();
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for key in &keys {
            for variable in &key.variables {
                let other = owners.insert(variable, &key.path);
                assert_eq!(other, None, "{variable} names {} as well", key.path);
            }
        }
        for (key, variable) in ALIASES {
            assert_eq!(owners.get(variable), Some(key), "{variable}");
        }
    }

    #[test]
    fn every_default_is_allowed() {
        for key in keys() {
            if !key.default.is_null() {
                let read = key.kind.read_value(&key.default);
                assert!(read.is_ok(), "{}: {} is not {read:?}", key.path, key.default);
            }
        }
    }
}
