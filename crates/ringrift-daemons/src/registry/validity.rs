//! Does the registry hold together? Asked by a command, by a test, by whoever embeds this crate.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use warden::{Graph, GraphError, Spec};

use super::{Found, registry};
use crate::{CATEGORIES, RETIRED, Retired, topics::loose_ends};

/// Most examples of one fault in [`RegistryDetails`]. Source: manager contract, section 19.
const EXAMPLES: usize = 5;

/// The types of exactly this category, retired ones last; of an unknown category none.
pub fn daemons_by_category(category: &str) -> Vec<Found> {
    let active = registry()
        .filter(|(of, _)| of.0 == category)
        .map(|(category, entry)| Found::Active(category, entry));
    let retired = RETIRED.iter().filter(|retired| retired.category.0 == category);
    active.chain(retired.map(Found::Retired)).collect()
}

/// What is wrong with the registry, one sentence each; empty = valid.
///
/// Source of the words: manager contract, section 19. A type without an entry cannot exist here: the
/// entry is the type.
pub fn validate_registry() -> Vec<String> {
    let specs: Vec<&Spec> = registry().map(|(_, entry)| entry.spec).collect();
    let mut faults = faults(&specs, RETIRED);
    faults.extend(cycle(&specs));
    faults.extend(loose_ends());
    faults
}

/// The state of the registry, as the old system reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistryHealth {
    /// Nothing is wrong with it.
    pub healthy: bool,
    /// `error` if anything is wrong, `degraded` if only types are missing, else `running`.
    pub status: &'static str,
    /// What that comes from.
    pub details: RegistryDetails,
}

/// Counts, and the first five of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistryDetails {
    /// Active and retired types.
    pub total_daemons: usize,
    /// Types per category.
    pub categories: BTreeMap<&'static str, usize>,
    /// Retired types.
    pub deprecated_count: usize,
    /// The first of them.
    pub deprecated_daemons: Vec<&'static str>,
    /// The first faults, without cycles.
    pub validation_errors: Vec<String>,
    /// Types that are planned and not built.
    pub missing_count: usize,
    /// The first of them.
    pub missing_runners: Vec<&'static str>,
    /// The cycle of needs, if there is one.
    pub cycle_issues: Vec<String>,
}

/// Looks at the whole registry.
pub fn check_registry_health() -> RegistryHealth {
    let specs: Vec<&Spec> = registry().map(|(_, entry)| entry.spec).collect();
    let mut errors = faults(&specs, RETIRED);
    errors.extend(loose_ends());
    let cycles: Vec<String> = cycle(&specs).into_iter().collect();
    let missing: Vec<&str> = registry()
        .filter(|(_, entry)| !entry.is_built())
        .map(|(_, entry)| entry.spec.id.0)
        .collect();
    let healthy = errors.is_empty() && cycles.is_empty();
    let categories =
        CATEGORIES.iter().map(|(category, _)| (category.0, daemons_by_category(category.0).len()));
    RegistryHealth {
        healthy,
        status: match (healthy, missing.is_empty()) {
            (false, _) => "error",
            (true, false) => "degraded",
            (true, true) => "running",
        },
        details: RegistryDetails {
            total_daemons: specs.len() + RETIRED.len(),
            categories: categories.collect(),
            deprecated_count: RETIRED.len(),
            deprecated_daemons: RETIRED.iter().map(|retired| retired.name).take(EXAMPLES).collect(),
            validation_errors: errors.into_iter().take(EXAMPLES).collect(),
            missing_count: missing.len(),
            missing_runners: missing.into_iter().take(EXAMPLES).collect(),
            cycle_issues: cycles,
        },
    }
}

fn faults(specs: &[&Spec], retired: &[Retired]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for name in specs.iter().map(|spec| spec.id.0).chain(retired.iter().map(|old| old.name)) {
        if !known.insert(name) {
            faults.push(format!("{name}: listed twice"));
        }
    }
    let active: BTreeSet<&str> = specs.iter().map(|spec| spec.id.0).collect();
    for spec in specs {
        let name = spec.id.0;
        let unknown = spec.needs.iter().filter(|need| !active.contains(need.0));
        faults.extend(unknown.map(|need| format!("{name}: dependency '{need}' not in registry")));
        if spec.needs.contains(&spec.id) {
            faults.push(format!("{name}: cannot depend on itself"));
        }
    }
    for old in retired {
        if let Some(successor) = old.successor.filter(|successor| !active.contains(successor)) {
            faults.push(format!("{}: successor '{successor}' not in registry", old.name));
        }
    }
    faults
}

fn cycle(specs: &[&Spec]) -> Option<String> {
    match Graph::new(specs) {
        Err(GraphError::Cycle(path)) => {
            let names: Vec<&str> = path.iter().map(|id| id.0).collect();
            Some(format!("Cycle detected: {}", names.join(" -> ")))
        }
        // The other errors are faults of their own.
        _ => None,
    }
}

impl Found {
    /// The name of the type.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Active(_, entry) => entry.spec.id.0,
            Self::Retired(retired) => retired.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use warden::DaemonId;

    use super::*;
    use crate::{Category, find};

    const A: Spec = Spec { id: DaemonId("A"), needs: &[DaemonId("B")], ..Spec::DEFAULT };
    const B: Spec = Spec { id: DaemonId("B"), ..Spec::DEFAULT };
    const BACK: Spec = Spec { id: DaemonId("B"), needs: &[DaemonId("A")], ..Spec::DEFAULT };
    const SELF: Spec = Spec { id: DaemonId("C"), needs: &[DaemonId("C")], ..Spec::DEFAULT };

    fn check(specs: &[&Spec], expected: &[&str]) {
        assert_eq!(faults(specs, &[]), expected);
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_the_contract() {
        check(&[&A, &B], &[]);
        check(&[&A], &["A: dependency 'B' not in registry"]);
        check(&[&B, &SELF], &["C: cannot depend on itself"]);
        check(&[&B, &B], &["B: listed twice"]);
        assert_eq!(cycle(&[&A, &BACK]).unwrap(), "Cycle detected: A -> B -> A");
        assert_eq!(cycle(&[&A, &B]), None);
        let old =
            Retired { name: "B", category: Category("sync"), successor: Some("X"), sentence: "" };
        assert_eq!(faults(&[&B], &[old]), ["B: listed twice", "B: successor 'X' not in registry"]);
    }

    #[test]
    fn ours_is_valid_and_counts_89_types_of_which_11_are_retired() {
        assert_eq!(validate_registry(), Vec::<String>::new());
        let health = check_registry_health();
        let planned = registry().filter(|(_, entry)| !entry.is_built()).count();
        assert!(health.healthy);
        assert_eq!(health.status, if planned > 0 { "degraded" } else { "running" });
        let details = health.details;
        assert_eq!((details.total_daemons, details.deprecated_count), (89, 11));
        assert_eq!(details.total_daemons - details.deprecated_count, 78);
        assert_eq!(details.categories.values().sum::<usize>(), 89);
        assert_eq!((details.missing_count, details.deprecated_daemons.len()), (planned, EXAMPLES));
    }

    #[test]
    fn a_category_has_its_retired_types_too_and_an_unknown_one_has_none() {
        let sync: Vec<&str> = daemons_by_category("sync").iter().map(Found::name).collect();
        assert_eq!(sync.len(), 14);
        assert!(sync.contains(&"AUTO_SYNC") && sync.contains(&"EPHEMERAL_SYNC"));
        for name in sync {
            assert_eq!(find(name).unwrap().name(), name);
        }
        assert!(daemons_by_category("snyc").is_empty());
    }
}
