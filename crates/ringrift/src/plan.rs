//! Which daemons are started when somebody asks for a profile, for some, or for all.

use std::collections::BTreeSet;

use ringrift_daemons::{Entry, FULL, Found, find, of_profile};
use warden::{DaemonId, Profile};

use crate::config::Settings;

/// Every profile has these. Source: decisions, "Registry, profiles, dependencies".
const ALWAYS: [&str; 3] = ["EVENT_ROUTER", "DAEMON_WATCHDOG", "HEALTH_SERVER"];

/// What is started, and what is not although the profile names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Built and wanted.
    pub start: Vec<DaemonId>,
    /// Not in the profile, but needed by one that is, or part of every profile.
    pub added: Vec<DaemonId>,
    /// Not built yet, or in need of one that is not.
    pub skipped: Vec<DaemonId>,
    /// Switched off by configuration.
    pub disabled: Vec<DaemonId>,
}

/// What somebody asks for.
#[derive(Clone)]
pub enum Wanted {
    /// The types of a profile that the configuration does not switch off.
    Profile(Profile),
    /// All types that the configuration does not switch off.
    All,
    /// Just these, even if the configuration keeps them out of profiles.
    Daemons(Vec<&'static Entry>),
}

/// Plans a start, closed under needs.
pub fn plan(settings: &Settings, wanted: Wanted) -> Plan {
    let (wanted, by_name) = match wanted {
        Wanted::Profile(profile) => (of_profile(profile), false),
        Wanted::All => (of_profile(FULL), false),
        Wanted::Daemons(entries) => (entries, true),
    };
    let mut plan = Plan::default();
    let mut planned: BTreeSet<DaemonId> = BTreeSet::new();
    let mut open: Vec<(&Entry, bool)> = wanted.into_iter().map(|entry| (entry, true)).collect();
    open.extend(ALWAYS.iter().filter_map(|name| entry(name)).map(|entry| (entry, false)));
    let mut next = 0;
    while let Some((entry, named)) = open.get(next).copied() {
        next += 1;
        if !planned.insert(entry.spec.id) {
            continue;
        }
        if !entry.is_built() || !needs_are_built(entry) {
            plan.skipped.push(entry.spec.id);
        } else if named && !by_name && !is_enabled(settings, entry) {
            plan.disabled.push(entry.spec.id);
            // Another one may need it all the same.
            planned.remove(&entry.spec.id);
        } else {
            if !named {
                plan.added.push(entry.spec.id);
            }
            plan.start.push(entry.spec.id);
            open.extend(
                entry.spec.needs.iter().filter_map(|id| self::entry(id.0)).map(|e| (e, false)),
            );
        }
    }
    plan.added.sort_unstable();
    plan
}

fn entry(name: &str) -> Option<&'static Entry> {
    match find(name) {
        Ok(Found::Active(_, entry)) => Some(entry),
        _ => None,
    }
}

fn needs_are_built(entry: &Entry) -> bool {
    entry.spec.needs.iter().all(|id| {
        self::entry(id.0).is_some_and(|needed| needed.is_built() && needs_are_built(needed))
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
