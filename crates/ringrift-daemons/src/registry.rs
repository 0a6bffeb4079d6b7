//! The registry: every daemon type there is, built, planned or retired.

mod validity;

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use warden::{Daemon, DaemonId, Profile, Runnable, Spec};

use crate::{Emits, FULL, FromWiring, RETIRED, Retired, Topics, Wiring};
pub use validity::{
    RegistryDetails, RegistryHealth, check_registry_health, daemons_by_category, validate_registry,
};

/// One of the 13 categories; also the name of the folder that holds its daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Category(pub &'static str);

/// The categories in the order of the registry. Source: manager contract, section 20.
pub const CATEGORIES: &[(Category, &[Entry])] = &[
    (Category("sync"), crate::sync::DAEMONS),
    (Category("event"), crate::event::DAEMONS),
    (Category("health"), crate::health::DAEMONS),
    (Category("pipeline"), crate::pipeline::DAEMONS),
    (Category("evaluation"), crate::evaluation::DAEMONS),
    (Category("distribution"), crate::distribution::DAEMONS),
    (Category("replication"), crate::replication::DAEMONS),
    (Category("resource"), crate::resource::DAEMONS),
    (Category("provider"), crate::provider::DAEMONS),
    (Category("queue"), crate::queue::DAEMONS),
    (Category("feedback"), crate::feedback::DAEMONS),
    (Category("recovery"), crate::recovery::DAEMONS),
    (Category("misc"), crate::misc::DAEMONS),
];

type Make = fn(&Wiring, serde_json::Value) -> anyhow::Result<Runnable>;

/// Does the type exist as code?
#[derive(Clone, Copy)]
pub enum Build {
    /// Yes: how it is made, and its configuration's defaults.
    Built {
        /// Makes a runnable from a configuration section; an error names the key.
        make: Make,
        /// The section's defaults.
        defaults: fn() -> serde_json::Value,
        /// Reads a section as the daemon will; an error names the key.
        read: fn(serde_json::Value) -> anyhow::Result<()>,
    },
    /// Not yet: listed, configurable, refused when asked for by name.
    Planned,
}

/// A line of the registry.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The constant description.
    pub spec: &'static Spec,
    /// The topics of the facts that it records.
    pub emits: Topics,
    /// Built or planned.
    pub build: Build,
}

/// Keys that every daemon's section has beside its own.
pub const COMMON_KEYS: &[(&str, &str)] =
    &[("enabled", "whether profiles start it"), ("interval", "period of its cycle, seconds")];

impl Entry {
    /// The entry of a built daemon.
    pub const fn of<D>() -> Self
    where
        D: Daemon + Emits,
        D::Config: DeserializeOwned + Serialize + Default + Clone + Sync,
        D::Ports: FromWiring,
    {
        Self {
            spec: &D::SPEC,
            emits: D::EMITS,
            build: Build::Built {
                make: make::<D>,
                defaults: defaults::<D::Config>,
                read: read::<D::Config>,
            },
        }
    }

    /// The entry of a type that is not built yet.
    pub const fn planned(spec: &'static Spec) -> Self {
        Self { spec, emits: &[], build: Build::Planned }
    }

    /// Is it built?
    pub fn is_built(&self) -> bool {
        matches!(self.build, Build::Built { .. })
    }

    /// The name of its configuration section below `[daemons]`: the type's name in lower case.
    pub fn section(&self) -> String {
        self.spec.id.0.to_lowercase()
    }

    /// Defaults of the whole section, common keys included.
    pub fn defaults(&self) -> serde_json::Value {
        let mut section = match self.build {
            Build::Built { defaults, .. } => defaults(),
            Build::Planned => serde_json::json!({}),
        };
        if let Some(map) = section.as_object_mut() {
            map.insert("enabled".into(), true.into());
            map.insert("interval".into(), self.spec.period.as_secs_f64().into());
        }
        section
    }

    /// Would the daemon take this section? The common keys are not its affair.
    pub fn check(&self, mut section: serde_json::Value) -> anyhow::Result<()> {
        let Build::Built { read, .. } = self.build else { return Ok(()) };
        if let Some(map) = section.as_object_mut() {
            for (key, _) in COMMON_KEYS {
                map.remove(*key);
            }
        }
        read(section)
    }

    /// Makes the runnable from its section; an unknown key or a wrong type is an error with the key.
    pub fn runnable(
        &self,
        wiring: &Wiring,
        mut section: serde_json::Value,
    ) -> anyhow::Result<Option<Runnable>> {
        let Build::Built { make, .. } = self.build else { return Ok(None) };
        let mut period = None;
        if let Some(map) = section.as_object_mut() {
            map.remove("enabled");
            if let Some(interval) = map.remove("interval") {
                let interval: Duration = crate::seconds::deserialize(interval)
                    .map_err(|e| anyhow::anyhow!("daemons.{}.interval: {e}", self.section()))?;
                anyhow::ensure!(
                    !interval.is_zero(),
                    "daemons.{}.interval: 0 is out of range; allowed is more than 0 seconds",
                    self.section()
                );
                period = Some(interval);
            }
        }
        let runnable = make(wiring, section)
            .map_err(|e| e.context(format!("configuration section daemons.{}", self.section())))?;
        Ok(Some(match period {
            Some(period) => runnable.every(period),
            None => runnable,
        }))
    }
}

fn defaults<C: Serialize + Default>() -> serde_json::Value {
    serde_json::to_value(C::default()).unwrap_or_else(|_| serde_json::json!({}))
}

fn read<C: DeserializeOwned>(section: serde_json::Value) -> anyhow::Result<()> {
    let _: C = serde_json::from_value(section)?;
    Ok(())
}

fn make<D>(wiring: &Wiring, section: serde_json::Value) -> anyhow::Result<Runnable>
where
    D: Daemon,
    D::Config: DeserializeOwned + Serialize + Default + Clone + Sync,
    D::Ports: FromWiring,
{
    let config: D::Config = serde_json::from_value(section)?;
    let wiring = wiring.clone();
    Ok(Runnable::of::<D>(move || Ok(D::new(config.clone(), D::Ports::from_wiring(&wiring, D::ID)))))
}

/// Every active type (built and planned) with its category, in registry order.
pub fn registry() -> impl Iterator<Item = (Category, &'static Entry)> {
    CATEGORIES.iter().flat_map(|(category, entries)| entries.iter().map(|entry| (*category, entry)))
}

/// What a name stands for.
#[derive(Clone, Copy)]
pub enum Found {
    /// An active type.
    Active(Category, &'static Entry),
    /// A retired type.
    Retired(&'static Retired),
}

/// No type has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown daemon '{name}'{}; `ringrift registry` lists all 89", suggestion(.nearest.as_deref()))]
pub struct UnknownDaemon {
    /// The name.
    pub name: String,
    /// The most similar known name.
    pub nearest: Option<String>,
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"))
}

/// Finds a type by its name, in upper or lower case.
pub fn find(name: &str) -> Result<Found, UnknownDaemon> {
    let wanted = name.trim().to_uppercase();
    if let Some((category, entry)) = registry().find(|(_, entry)| entry.spec.id.0 == wanted) {
        return Ok(Found::Active(category, entry));
    }
    if let Some(retired) = RETIRED.iter().find(|retired| retired.name == wanted) {
        return Ok(Found::Retired(retired));
    }
    let nearest = registry()
        .map(|(_, entry)| entry.spec.id.0)
        .chain(RETIRED.iter().map(|retired| retired.name))
        .map(|known| (strsim::damerau_levenshtein(known, &wanted), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known.to_owned());
    Err(UnknownDaemon { name: name.to_owned(), nearest })
}

/// The types of a profile, in registry order, not closed under `needs`.
pub fn of_profile(profile: Profile) -> Vec<&'static Entry> {
    registry()
        .map(|(_, entry)| entry)
        .filter(|entry| profile == FULL || entry.spec.profiles.contains(&profile))
        .collect()
}

/// Ties of the topological order: subscribers before emitters. Source: manager contract, section 4.
const FIRST: &[&str] = &[
    "EVENT_ROUTER",
    "DAEMON_WATCHDOG",
    "DATA_PIPELINE",
    "FEEDBACK_LOOP",
    "AUTO_SYNC",
    "QUEUE_POPULATOR",
    "WORK_QUEUE_MONITOR",
    "COORDINATOR_HEALTH_MONITOR",
    "IDLE_RESOURCE",
    "TRAINING_TRIGGER",
    "CLUSTER_MONITOR",
    "NODE_HEALTH_MONITOR",
    "HEALTH_SERVER",
    "CLUSTER_WATCHDOG",
    "NODE_RECOVERY",
    "MEMORY_MONITOR",
    "QUALITY_MONITOR",
    "NNUE_TRAINING",
    "ARCHITECTURE_FEEDBACK",
    "DISTILLATION",
    "EVALUATION",
    "UNIFIED_PROMOTION",
    "AUTO_PROMOTION",
    "MODEL_DISTRIBUTION",
];

/// All active types in start order: topological by `needs`, ties by the fixed list, then registry
/// order.
pub fn in_start_order() -> Vec<(Category, &'static Entry)> {
    let mut rest: Vec<(Category, &'static Entry)> = registry().collect();
    let rank = |id: DaemonId| FIRST.iter().position(|name| *name == id.0).unwrap_or(FIRST.len());
    rest.sort_by_key(|(_, entry)| rank(entry.spec.id));
    let mut ordered: Vec<(Category, &'static Entry)> = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let ready = rest.iter().position(|(_, entry)| {
            entry
                .spec
                .needs
                .iter()
                .all(|need| ordered.iter().any(|(_, done)| done.spec.id == *need))
        });
        // `validate_registry` refuses a cycle; the rest is then still listed, in its own order.
        let next = rest.remove(ready.unwrap_or(0));
        ordered.push(next);
    }
    ordered
}

#[cfg(test)]
mod tests;
