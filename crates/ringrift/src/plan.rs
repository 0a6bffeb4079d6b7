//! Which daemons are started when somebody asks for a profile, for some, or for all.

use std::collections::BTreeSet;

use ringrift_daemons::{Entry, FULL, Found, PROFILES, find, of_profile, profile};
use serde::{Deserialize, Serialize};
use warden::DaemonId;

use crate::config::{Settings, nearest};

/// Every profile has these. Source: decisions, "Registry, profiles, dependencies".
const ALWAYS: [&str; 3] = ["EVENT_ROUTER", "DAEMON_WATCHDOG", "HEALTH_SERVER"];

/// Which daemons are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// These; one that is not built refuses the whole request.
    Daemons(Vec<String>),
    /// Those of a profile that are built and enabled.
    Profile(String),
    /// All that are built and enabled.
    All,
}

/// What selections stand for: only types that exist, and whatever was named can run.
#[derive(Default)]
pub struct Wanted {
    /// Asked for by name: started even if the configuration keeps them out of profiles.
    named: Vec<&'static Entry>,
    /// Part of a profile, or of all.
    listed: Vec<&'static Entry>,
    /// What whoever asked should know, one sentence each.
    pub warnings: Vec<String>,
}

impl Wanted {
    /// Reads selections; what is wrong with any of them refuses all, in one sentence.
    pub fn of(selections: &[Selection]) -> Result<Self, String> {
        let mut wanted = Self::default();
        for selection in selections {
            match selection {
                Selection::All => wanted.listed.extend(of_profile(FULL)),
                Selection::Profile(name) => {
                    let profile = profile(name).ok_or_else(|| unknown_profile(name))?;
                    wanted.listed.extend(of_profile(profile));
                }
                Selection::Daemons(names) if names.is_empty() => {
                    return Err("no daemon is named".into());
                }
                Selection::Daemons(names) => {
                    for name in names {
                        let entry = wanted.startable(name)?;
                        wanted.named.push(entry);
                    }
                }
            }
        }
        Ok(wanted)
    }

    fn startable(&mut self, name: &str) -> Result<&'static Entry, String> {
        let entry = match find(name).map_err(|unknown| unknown.to_string())? {
            Found::Active(_, entry) => entry,
            Found::Retired(retired) => {
                let Some(successor) = retired.successor else {
                    return Err(retired.refusal());
                };
                let Some(entry) = entry(successor).filter(|entry| entry.is_built()) else {
                    return Err(format!(
                        "{} is retired, and what took over is not built yet: {}",
                        retired.name, retired.sentence
                    ));
                };
                self.warnings.push(format!(
                    "{} is retired, {successor} is started instead: {}",
                    retired.name, retired.sentence
                ));
                entry
            }
        };
        if !entry.is_built() {
            return Err(not_built(entry.spec.id));
        }
        match missing_need(entry) {
            Some(need) => Err(format!("{} needs {need}, which is not built yet", entry.spec.id)),
            None => Ok(entry),
        }
    }
}

/// The sentence for a planned type.
fn not_built(id: DaemonId) -> String {
    format!("{id} is not built yet; `ringrift registry` says which are")
}

fn unknown_profile(name: &str) -> String {
    let names: Vec<&str> = PROFILES.iter().map(|(profile, _)| profile.0).collect();
    let hint = nearest(name, names.iter().copied())
        .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
    format!("unknown profile '{name}'{hint}; there are: {}", names.join(", "))
}

/// The daemon of this name, which must be one that can run.
pub fn built(name: &str) -> Result<DaemonId, String> {
    match find(name).map_err(|unknown| unknown.to_string())? {
        Found::Active(_, entry) if entry.is_built() => Ok(entry.spec.id),
        Found::Active(_, entry) => Err(not_built(entry.spec.id)),
        Found::Retired(retired) => Err(retired.refusal()),
    }
}

/// What is started, and what is not although a profile names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Built and wanted.
    pub start: Vec<DaemonId>,
    /// Not asked for, but needed by one that is, or part of every profile.
    pub added: Vec<DaemonId>,
    /// Not built yet, or in need of one that is not.
    pub skipped: Vec<DaemonId>,
    /// Switched off by configuration.
    pub disabled: Vec<DaemonId>,
    /// Whether a node of a cluster that starts these takes part in leading.
    pub may_lead: bool,
}

/// Who leads a cluster hands out what was promoted.
const COORDINATES: &str = "MODEL_DISTRIBUTION";

/// What the nodes of a cluster start beside what was asked for: the rest of their part in the loop. The
/// runbook's profiles name only what stands out of each role; on one machine `standalone` has it all.
const IN_A_CLUSTER: [(&str, &[&str]); 3] = [
    (
        COORDINATES,
        &[
            "AUTO_EXPORT",
            "AUTO_PROMOTION",
            "CLUSTER_MONITOR",
            "COORDINATOR_HEALTH_MONITOR",
            "AVAILABILITY_NODE_MONITOR",
            "CLUSTER_WATCHDOG",
            "CURRICULUM_INTEGRATION",
            "DATA_CONSOLIDATION",
            "DLQ_RETRY",
            "ELO_SYNC",
            "EVALUATION",
            "FEEDBACK_LOOP",
            "GAUNTLET_FEEDBACK",
            "JOB_SCHEDULER",
            "MODEL_SYNC",
            "NODE_AVAILABILITY",
            "NODE_RECOVERY",
            "NPZ_COMBINATION",
            "PROGRESS_WATCHDOG",
            "QUEUE_MONITOR",
            "QUEUE_POPULATOR",
            "S3_BACKUP",
            "S3_CONSOLIDATION",
            "SELFPLAY_COORDINATOR",
            "STALE_FALLBACK",
            "WORK_QUEUE_MONITOR",
        ],
    ),
    (
        "TRAINING_NODE_WATCHER",
        &[
            "TRAINING_TRIGGER",
            "MODEL_DISTRIBUTION",
            "MODEL_SYNC",
            "S3_NODE_SYNC",
            "TRAINING_DATA_SYNC",
            "HIGH_QUALITY_SYNC",
        ],
    ),
    ("IDLE_RESOURCE", &["MODEL_DISTRIBUTION", "MODEL_SYNC", "S3_NODE_SYNC"]),
];

/// What every node of a cluster with a part in the loop starts: what the others say, what is where, whether it is
/// so, and whether its memory lasts.
const ON_EVERY_NODE: [&str; 9] = [
    "CROSS_PROCESS_POLLER",
    "DATA_SERVER",
    "GOSSIP_SYNC",
    "INTEGRITY_CHECK",
    "MEMORY_MONITOR",
    "ORPHAN_DETECTION",
    "P2P_BACKEND",
    "P2P_RECOVERY",
    "SYNC_PUSH",
];

/// Why a type is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Because {
    Named,
    Listed,
    Needed,
}

/// Plans a start, closed under needs; on a node of a cluster with the rest of its role.
pub fn plan(settings: &Settings, wanted: &Wanted, in_a_cluster: bool) -> Plan {
    let asked =
        |name: &str| wanted.named.iter().chain(&wanted.listed).any(|entry| entry.spec.id.0 == name);
    let mut plan = Plan { may_lead: asked(COORDINATES), ..Plan::default() };
    let mut planned: BTreeSet<DaemonId> = BTreeSet::new();
    let with = |entries: &[&'static Entry], because| -> Vec<(&'static Entry, Because)> {
        entries.iter().map(|entry| (*entry, because)).collect()
    };
    let mut open = with(&wanted.named, Because::Named);
    open.extend(with(&wanted.listed, Because::Listed));
    open.extend(ALWAYS.iter().filter_map(|name| entry(name)).map(|e| (e, Because::Needed)));
    let roles = IN_A_CLUSTER.iter().filter(|(mark, _)| in_a_cluster && asked(mark));
    let rest = roles.flat_map(|(_, rest)| rest.iter().chain(&ON_EVERY_NODE));
    let rest = rest.filter_map(|name| entry(name));
    open.extend(rest.map(|entry| (entry, Because::Listed)));
    let mut next = 0;
    while let Some((entry, because)) = open.get(next).copied() {
        next += 1;
        let id = entry.spec.id;
        if !planned.insert(id) {
            continue;
        }
        if !entry.is_built() || missing_need(entry).is_some() {
            plan.skipped.push(id);
        } else if because == Because::Listed && !is_enabled(settings, entry) {
            plan.disabled.push(id);
            // Another one may need it all the same.
            planned.remove(&id);
        } else {
            if because == Because::Needed {
                plan.added.push(id);
            }
            plan.start.push(id);
            let needs = entry.spec.needs.iter().filter_map(|id| self::entry(id.0));
            open.extend(needs.map(|need| (need, Because::Needed)));
        }
    }
    plan.disabled.retain(|id| !plan.start.contains(id));
    plan.added.sort_unstable();
    plan
}

fn entry(name: &str) -> Option<&'static Entry> {
    match find(name) {
        Ok(Found::Active(_, entry)) => Some(entry),
        _ => None,
    }
}

/// A need, near or far, that cannot run.
fn missing_need(entry: &Entry) -> Option<DaemonId> {
    entry.spec.needs.iter().copied().find_map(|id| match self::entry(id.0) {
        Some(needed) if needed.is_built() => missing_need(needed),
        _ => Some(id),
    })
}

fn is_enabled(settings: &Settings, entry: &Entry) -> bool {
    settings
        .daemons
        .get(&entry.section())
        .and_then(|section| section.get("enabled"))
        .and_then(serde_json::Value::as_bool)
        .unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn named(names: &[&str]) -> Result<(Vec<&'static str>, usize), String> {
        let names = names.iter().map(ToString::to_string).collect();
        let wanted = Wanted::of(&[Selection::Daemons(names)])?;
        let names = wanted.named.iter().map(|entry| entry.spec.id.0).collect();
        Ok((names, wanted.warnings.len()))
    }

    #[test]
    fn names_are_taken_in_either_case_and_retired_ones_lead_to_their_successor() {
        assert_eq!(named(&["auto_sync", "EVALUATION"]), Ok((vec!["AUTO_SYNC", "EVALUATION"], 0)));
        assert_eq!(named(&["EPHEMERAL_SYNC"]), Ok((vec!["AUTO_SYNC"], 1)));
        assert_eq!(named(&["NODE_HEALTH_MONITOR"]), Ok((vec!["CLUSTER_MONITOR"], 1)));
    }

    #[test]
    fn what_cannot_run_refuses_the_whole_request() {
        let refused = |names: &[&str]| named(names).unwrap_err();
        assert!(
            refused(&["AUTO_SYNC", "DISTILLATION"]).starts_with("DISTILLATION is not built yet")
        );
        assert!(refused(&["LAMBDA_IDLE"]).starts_with("LAMBDA_IDLE is retired and never runs"));
        assert!(refused(&["AUTO_SINK"]).contains("did you mean AUTO_SYNC?"));
        assert_eq!(refused(&[]), "no daemon is named");
        let profile = Wanted::of(&[Selection::Profile("trainin".into())]).err().unwrap();
        assert!(profile.contains("did you mean training?"), "{profile}");
        assert!(built("DISTILLATION").unwrap_err().contains("not built yet"));
        assert!(built("HEALTH_CHECK").unwrap_err().contains("retired"));
    }

    fn planned(env: &[(&str, &str)], selections: &[Selection]) -> Plan {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let here = "/nonexistent".into();
        let settings = load(&Sources { env, here, ..Sources::default() }).unwrap();
        plan(&settings, &Wanted::of(selections).unwrap(), false)
    }

    #[test]
    fn the_roles_of_a_cluster_have_the_whole_loop_between_them_and_one_of_them_leads() {
        let settings =
            load(&Sources { here: "/nonexistent".into(), ..Sources::default() }).unwrap();
        let of = |profile: &str| {
            let wanted = Wanted::of(&[Selection::Profile(profile.into())]).unwrap();
            plan(&settings, &wanted, true)
        };
        let roles = ["coordinator", "training", "selfplay"].map(of);
        assert_eq!(roles.each_ref().map(|plan| plan.may_lead), [true, false, false]);
        let started = |plan: &Plan, name: &str| plan.start.iter().any(|id| id.0 == name);
        for id in planned(&[], &[Selection::Profile("standalone".into())]).start {
            let on = roles.iter().filter(|plan| started(plan, id.0)).count();
            // Of the monitors of a whole machine the wider profiles have the rest.
            let wider = ["AUTO_SYNC", "COORDINATOR_DISK_MANAGER"];
            assert!(on > 0 || wider.contains(&id.0), "nobody runs {id}");
        }
        assert!(started(&roles[1], "TRAINING_TRIGGER") && !started(&roles[2], "TRAINING_TRIGGER"));
        assert!(started(&roles[2], "IDLE_RESOURCE") && !started(&roles[0], "IDLE_RESOURCE"));
        assert!(roles.iter().all(|plan| started(plan, "MODEL_DISTRIBUTION")));
        for name in ON_EVERY_NODE {
            assert!(roles.iter().all(|plan| started(plan, name)), "{name}");
        }
        let keeps_data_at_hand = roles.each_ref().map(|plan| started(plan, "TRAINING_DATA_SYNC"));
        assert_eq!(keeps_data_at_hand, [false, true, false]);
        // What several nodes need beyond that: one of them watches, and none on one machine.
        let alone = planned(&[], &[Selection::Profile("standalone".into())]);
        for watcher in ["CLUSTER_MONITOR", "COORDINATOR_HEALTH_MONITOR", "QUEUE_MONITOR"] {
            let on = roles.each_ref().map(|plan| started(plan, watcher));
            assert_eq!((on, started(&alone, watcher)), ([true, false, false], false), "{watcher}");
        }
    }

    #[test]
    fn a_profile_is_closed_and_what_the_configuration_switches_off_stays_out_unless_named() {
        let training = [Selection::Profile("training".into())];
        let plan = planned(&[], &training);
        let added: Vec<&str> = plan.added.iter().map(|id| id.0).collect();
        assert_eq!(added, ["DAEMON_WATCHDOG", "DATA_PIPELINE", "HEALTH_SERVER"]);
        assert_eq!(plan.start.len(), 6);

        let off = [("RINGRIFT_TRAINING_ACTIVITY_ENABLED", "0")];
        let plan = planned(&off, &training);
        assert_eq!(plan.disabled, [DaemonId("TRAINING_NODE_WATCHER")]);
        let watcher = Selection::Daemons(vec!["training_node_watcher".into()]);
        let plan = planned(&off, &[training[0].clone(), watcher]);
        assert_eq!(plan.disabled, []);
        assert!(plan.start.contains(&DaemonId("TRAINING_NODE_WATCHER")));
    }

    #[test]
    fn all_leaves_out_what_is_planned() {
        let plan = planned(&[], &[Selection::All]);
        assert_eq!(plan.start.len() + plan.skipped.len(), 78);
        assert!(plan.skipped.contains(&DaemonId("DISTILLATION")));
        assert_eq!((plan.added, plan.disabled), (vec![], vec![]));
    }
}
