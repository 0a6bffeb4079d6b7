use std::{collections::BTreeMap, fmt::Write as _};

use warden::Graph;

use super::*;
use crate::{
    COORDINATOR, COORDINATOR_FULL, EPHEMERAL, MINIMAL, PROFILES, SELFPLAY, SELFPLAY_FULL,
    STANDALONE, TRAINING, TRAINING_FULL, cycle::EVENT_ROUTER, event::event_router::EventRouter,
    profile,
};

fn names(entries: &[&Entry]) -> Vec<&'static str> {
    entries.iter().map(|entry| entry.spec.id.0).collect()
}

#[test]
fn there_are_78_active_and_11_retired_types_in_13_categories() {
    assert_eq!(registry().count(), 78);
    assert_eq!(RETIRED.len(), 11);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (category, _) in registry() {
        *counts.entry(category.0).or_default() += 1;
    }
    for retired in RETIRED {
        *counts.entry(retired.category.0).or_default() += 1;
    }
    // Source: manager contract, section 20.
    let expected = BTreeMap::from([
        ("distribution", 4),
        ("evaluation", 4),
        ("event", 3),
        ("feedback", 3),
        ("health", 17),
        ("misc", 8),
        ("pipeline", 11),
        ("provider", 3),
        ("queue", 2),
        ("recovery", 10),
        ("replication", 2),
        ("resource", 8),
        ("sync", 14),
    ]);
    assert_eq!(counts, expected);
}

#[test]
fn every_type_says_what_it_is_and_bears_a_name_of_its_own() {
    for (_, entry) in registry() {
        let Spec { id, about, .. } = entry.spec;
        assert!(!about.is_empty() && !about.ends_with('.'), "{id}: {about:?}");
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(id.0.chars().all(plain), "{id}");
        assert!(!entry.spec.period.is_zero(), "{id}");
    }
    let mut known: Vec<&str> = registry().map(|(_, entry)| entry.spec.id.0).collect();
    known.extend(RETIRED.iter().map(|retired| retired.name));
    known.sort_unstable();
    known.dedup();
    assert_eq!(known.len(), 89);
    assert_eq!(EventRouter::ID, EVENT_ROUTER, "the name that all others need");
}

#[test]
fn a_retired_type_names_a_successor_that_is_active() {
    for retired in RETIRED {
        assert!(CATEGORIES.iter().any(|(category, _)| *category == retired.category));
        assert!(retired.sentence.ends_with('.'), "{}", retired.name);
        if let Some(successor) = retired.successor {
            assert!(
                matches!(find(successor), Ok(Found::Active(..))),
                "{}: {successor}",
                retired.name
            );
        }
    }
}

#[test]
fn the_profiles_of_the_runbook_are_exactly_its_lists() {
    let check = |profile, expected: &[&str]| {
        let (mut found, mut expected) = (names(&of_profile(profile)), expected.to_vec());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{profile:?}");
    };
    check(
        COORDINATOR,
        &[
            "EVENT_ROUTER",
            "DATA_PIPELINE",
            "FEEDBACK_LOOP",
            "AUTO_SYNC",
            "MODEL_DISTRIBUTION",
            "EVALUATION",
            "COORDINATOR_DISK_MANAGER",
        ],
    );
    check(TRAINING, &["EVENT_ROUTER", "TRAINING_NODE_WATCHER", "DISK_SPACE_MANAGER"]);
    check(SELFPLAY, &["EVENT_ROUTER", "IDLE_RESOURCE", "DISK_SPACE_MANAGER"]);
    check(MINIMAL, &["EVENT_ROUTER", "DAEMON_WATCHDOG", "HEALTH_SERVER"]);
    assert_eq!(profile("training_node"), Some(TRAINING));
}

#[test]
fn the_wider_profiles_are_the_contracts_without_what_is_retired() {
    let check = |profile, expected: &str| {
        let mut found = names(&of_profile(profile));
        found.sort_unstable();
        assert_eq!(found, expected.split_whitespace().collect::<Vec<_>>(), "{profile:?}");
    };
    // Source: manager contract, section 17. The coordinator's list has three retired types more:
    // NPZ_DISTRIBUTION, REPLICATION_MONITOR and REPLICATION_REPAIR.
    check(
        COORDINATOR_FULL,
        "AUTO_EXPORT AUTO_SYNC CLUSTER_MONITOR CLUSTER_WATCHDOG COORDINATOR_DISK_MANAGER \
         CURRICULUM_INTEGRATION DAEMON_WATCHDOG DATA_CONSOLIDATION DLQ_RETRY ELO_SYNC \
         EVENT_ROUTER FEEDBACK_LOOP GAUNTLET_FEEDBACK HEALTH_SERVER IDLE_RESOURCE \
         JOB_SCHEDULER METRICS_ANALYSIS MODEL_DISTRIBUTION MODEL_PERFORMANCE_WATCHDOG \
         NODE_RECOVERY NPZ_COMBINATION ORPHAN_DETECTION P2P_BACKEND QUALITY_MONITOR \
         QUEUE_MONITOR QUEUE_POPULATOR S3_BACKUP TOURNAMENT_DAEMON TRAINING_TRIGGER \
         UNIFIED_PROMOTION",
    );
    check(
        TRAINING_FULL,
        "AUTO_EXPORT AUTO_SYNC CONTINUOUS_TRAINING_LOOP CURRICULUM_INTEGRATION \
         DATA_PIPELINE DISK_SPACE_MANAGER DLQ_RETRY EVALUATION EVENT_ROUTER FEEDBACK_LOOP \
         HEALTH_SERVER IDLE_RESOURCE METRICS_ANALYSIS NPZ_COMBINATION ORPHAN_DETECTION \
         P2P_AUTO_DEPLOY QUALITY_MONITOR TRAINING_NODE_WATCHER TRAINING_TRIGGER \
         UNIFIED_PROMOTION UTILIZATION_OPTIMIZER",
    );
    check(
        EPHEMERAL,
        "AUTO_SYNC DATA_PIPELINE DISK_SPACE_MANAGER EVENT_ROUTER FEEDBACK_LOOP \
         HEALTH_SERVER IDLE_RESOURCE ORPHAN_DETECTION QUALITY_MONITOR",
    );
    check(
        SELFPLAY_FULL,
        "AUTO_SYNC EVENT_ROUTER FEEDBACK_LOOP HEALTH_SERVER IDLE_RESOURCE QUALITY_MONITOR",
    );
    assert_eq!(of_profile(FULL).len(), 78);
}

/// Built, and not needed where there are no other nodes: most have nothing to do there, and games whose fact was
/// lost are played again there.
const FOR_SEVERAL_MACHINES: &[&str] = &[
    "HIGH_QUALITY_SYNC",
    "ELO_SYNC",
    "TRAINING_DATA_SYNC",
    "GOSSIP_SYNC",
    "SYNC_PUSH",
    "STALE_FALLBACK",
    "CROSS_PROCESS_POLLER",
    "QUEUE_MONITOR",
    "CLUSTER_MONITOR",
    "CLUSTER_WATCHDOG",
    "COORDINATOR_HEALTH_MONITOR",
    "AVAILABILITY_NODE_MONITOR",
    "P2P_RECOVERY",
    "MODEL_SYNC",
    "DATA_SERVER",
    "NODE_RECOVERY",
    "NODE_AVAILABILITY",
    "JOB_SCHEDULER",
    "ORPHAN_DETECTION",
    "P2P_BACKEND",
];

#[test]
fn what_up_starts_is_built_and_needs_nothing_outside_itself() {
    let standalone = of_profile(STANDALONE);
    for entry in &standalone {
        assert!(entry.is_built(), "{}", entry.spec.id);
        for need in entry.spec.needs {
            assert!(names(&standalone).contains(&need.0), "{} needs {need}", entry.spec.id);
        }
    }
    let beside: Vec<&str> = registry()
        .filter(|(_, entry)| entry.is_built() && !entry.spec.profiles.contains(&STANDALONE))
        .map(|(_, entry)| entry.spec.id.0)
        .collect();
    assert_eq!(beside, FOR_SEVERAL_MACHINES, "all else that is built closes the loop on one");
    for (profile, _) in PROFILES {
        assert!(names(&of_profile(*profile)).contains(&"EVENT_ROUTER"), "{profile:?}");
    }
}

#[test]
fn what_is_built_needs_only_what_is_built() {
    let built = || registry().map(|(_, entry)| entry).filter(|entry| entry.is_built());
    for entry in built() {
        for need in entry.spec.needs {
            let is_there = built().any(|needed| needed.spec.id == *need);
            assert!(is_there, "{} needs {need}: no manager would begin", entry.spec.id);
        }
    }
}

#[test]
fn a_profile_of_the_runbook_is_closed_by_what_its_types_need() {
    let specs: Vec<&Spec> = registry().map(|(_, entry)| entry.spec).collect();
    let graph = Graph::new(&specs).unwrap();
    let check = |profile, added: &[&str]| {
        let asked: Vec<DaemonId> = of_profile(profile).iter().map(|entry| entry.spec.id).collect();
        let mut closure = graph.closure(&asked);
        closure.retain(|id| !asked.contains(id));
        let mut found: Vec<&str> = closure.iter().map(|id| id.0).collect();
        found.sort_unstable();
        assert_eq!(found, added, "{profile:?}");
    };
    check(COORDINATOR, &["AUTO_PROMOTION", "DISK_SPACE_MANAGER"]);
    check(TRAINING, &["DATA_PIPELINE"]);
    check(SELFPLAY, &[]);
    check(STANDALONE, &[]);
}

#[test]
fn the_critical_types_are_those_of_the_contract() {
    let mut critical: Vec<&str> = registry()
        .filter(|(_, entry)| entry.spec.critical)
        .map(|(_, entry)| entry.spec.id.0)
        .collect();
    critical.sort_unstable();
    // Source: manager contract, section 11.
    let expected = [
        "AUTO_SYNC",
        "DAEMON_WATCHDOG",
        "DATA_PIPELINE",
        "EVENT_ROUTER",
        "FEEDBACK_LOOP",
        "IDLE_RESOURCE",
        "MEMORY_MONITOR",
        "QUEUE_POPULATOR",
    ];
    assert_eq!(critical, expected);
}

#[test]
fn the_start_order_has_everybody_once_and_after_what_he_needs() {
    let order = in_start_order();
    assert_eq!(order.len(), 78);
    for (place, (_, entry)) in order.iter().enumerate() {
        for need in entry.spec.needs {
            let earlier = order[..place].iter().any(|(_, earlier)| earlier.spec.id == *need);
            assert!(earlier, "{} comes before {need}", entry.spec.id);
        }
    }
    let place = |name: &str| order.iter().position(|(_, entry)| entry.spec.id.0 == name).unwrap();
    assert_eq!(place("EVENT_ROUTER"), 0);
    // Subscribers before emitters. Source: manager contract, section 4.
    assert!(place("DATA_PIPELINE") < place("AUTO_SYNC"));
    assert!(place("FEEDBACK_LOOP") < place("AUTO_SYNC"));
    let specs: Vec<&Spec> = order.iter().map(|(_, entry)| entry.spec).collect();
    assert!(Graph::new(&specs).is_ok(), "the supervisor takes it");
}

#[test]
fn names_are_found_in_either_case_and_a_misspelt_one_has_a_neighbour() {
    assert!(matches!(find("auto_sync"), Ok(Found::Active(Category("sync"), _))));
    assert!(matches!(find(" EVALUATION "), Ok(Found::Active(..))));
    assert!(matches!(find("VAST_IDLE"), Ok(Found::Retired(_))));
    let error = find("EVALUTION").err().unwrap();
    assert_eq!(
        error.to_string(),
        "unknown daemon 'EVALUTION'; did you mean EVALUATION?; `ringrift registry` lists all 89"
    );
    assert_eq!(find("XYZZY").err().unwrap().nearest, None);
}

#[test]
fn every_built_section_reads_its_own_defaults_and_refuses_an_unknown_key() {
    for (_, entry) in registry().filter(|(_, entry)| entry.is_built()) {
        entry.check(entry.defaults()).unwrap_or_else(|e| panic!("{}: {e:#}", entry.spec.id));
        let mut wrong = entry.defaults();
        wrong["no_such_key"] = 1.into();
        let error = entry.check(wrong).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains("no_such_key"), "{}: {error}", entry.spec.id);
    }
}

#[test]
fn the_whole_registry_at_a_glance() {
    let mut text = String::new();
    for (category, entries) in CATEGORIES {
        writeln!(text, "{}", category.0).unwrap();
        for entry in *entries {
            let spec = entry.spec;
            let needs: Vec<&str> = spec.needs.iter().map(|need| need.0).collect();
            let profiles: Vec<&str> = spec.profiles.iter().map(|profile| profile.0).collect();
            let or_none =
                |list: Vec<&str>| if list.is_empty() { "-".into() } else { list.join(",") };
            writeln!(
                text,
                "  {} ({}{}{}, {:?}, every {}{}{}): {}\n      needs {}; in {}",
                spec.id,
                if entry.is_built() { "built" } else { "planned" },
                if spec.critical { ", critical" } else { "" },
                if spec.leader_only { ", leader only" } else { "" },
                spec.priority,
                humantime::format_duration(spec.period),
                spec.health_interval
                    .map(|time| format!(", health {}", humantime::format_duration(time)))
                    .unwrap_or_default(),
                spec.max_restarts.map(|max| format!(", {max} restarts")).unwrap_or_default(),
                spec.about,
                or_none(needs),
                or_none(profiles),
            )
            .unwrap();
        }
    }
    writeln!(text, "retired").unwrap();
    for retired in RETIRED {
        let successor = retired.successor.unwrap_or("-");
        writeln!(
            text,
            "  {} ({}) -> {successor}: {}",
            retired.name, retired.category.0, retired.sentence
        )
        .unwrap();
    }
    insta::assert_snapshot!("registry", text);
}
