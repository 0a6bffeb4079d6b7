//! The settings, typed, once everything about them is known to be right.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use depot::far::{Address, Plain};
use ringrift_daemons::registry;
use ringrift_pipeline::Config;
use serde::Serialize;
use serde_json::Value;
use warden::Hourly;

use super::JOB_KINDS;
use crate::logs::Format;

/// A key's value and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resolved {
    /// Section and name.
    pub key: String,
    /// Its value; null = not set.
    pub value: Value,
    /// `default`, `file PATH`, `environment NAME` or `flag --name`.
    pub origin: String,
}

impl Resolved {
    /// The origin of what nobody set.
    pub const DEFAULT: &'static str = "default";

    pub(super) fn default_of(key: &str, value: &Value) -> Self {
        Self { key: key.into(), value: value.clone(), origin: Self::DEFAULT.into() }
    }
}

/// When a fact counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives the death of the process.
    Normal,
    /// It survives a power cut as well.
    Full,
}

/// The far store, as it is configured.
#[derive(Debug, Clone)]
pub struct Store {
    /// Where it is; none = there is none.
    pub address: Option<Address>,
    /// Roles of artefacts that go there beside those that always do.
    pub derived: Vec<String>,
    /// Most bytes a second; 0 = as many as it can.
    pub rate: u64,
    /// The service that has the bucket.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: String,
    /// Who may be talked to without encryption.
    pub plain: Plain,
    /// The file with the credentials.
    pub credentials: Option<PathBuf>,
}

/// Every setting of a manager.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data directory.
    pub data: PathBuf,
    /// Where that comes from.
    pub data_origin: String,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Configs that are played.
    pub configs: Vec<Config>,
    /// Seed of the loop.
    pub seed: u64,
    /// Port of probes and page; 0 = any.
    pub port: u16,
    /// Address of probes and page.
    pub bind: IpAddr,
    /// Name of the profile.
    pub profile: String,
    /// An operator's explicit number of restarts.
    pub restart_max: Option<u32>,
    /// Pause before the first restart.
    pub restart_base: Duration,
    /// Longest pause before a restart.
    pub restart_cap: Duration,
    /// Time between two readings of health.
    pub health_interval: Duration,
    /// Time that each level has to stop.
    pub shutdown_timeout: Duration,
    /// Restarts by the crashes of an hour; none = the ladder.
    pub hourly: Option<Hourly>,
    /// A breaker over all restarts.
    pub cascade_breaker: bool,
    /// When a fact counts as kept.
    pub durability: Durability,
    /// Least level that the log file takes.
    pub log_level: String,
    /// How the lines of the log file are written.
    pub log_format: Format,
    /// Workers at a time; 0 = one per core.
    pub slots: usize,
    /// Most memory of one worker, bytes.
    pub memory: u64,
    /// Longest silence of a worker.
    pub silence: Duration,
    /// Time between asking a worker to end and ending it.
    pub grace: Duration,
    /// Programs that replace the built-in worker, by kind of job.
    pub plugins: BTreeMap<String, Vec<String>>,
    /// The far store.
    pub store: Store,
    /// Section of each daemon.
    pub daemons: BTreeMap<String, Value>,
    /// What has no effect, one sentence each.
    pub warnings: Vec<String>,
    /// Every key.
    pub all: BTreeMap<String, Resolved>,
}

impl Settings {
    pub(super) fn of(
        data: PathBuf,
        data_origin: String,
        file: Option<PathBuf>,
        all: BTreeMap<String, Resolved>,
        warnings: Vec<String>,
    ) -> Self {
        // Each value was read by its key's kind, so the reads below cannot miss.
        let value = |key: &str| &all.get(key).expect("a key of the table").value;
        let whole = |key: &str| value(key).as_u64().expect("a whole number");
        let count = |key: &str| u32::try_from(whole(key)).expect("a small number");
        let text = |key: &str| value(key).as_str().expect("a text").to_owned();
        let flag = |key: &str| value(key).as_bool().expect("true or false");
        let time =
            |key: &str| Duration::from_secs_f64(value(key).as_f64().expect("a number of seconds"));
        let words = |value: &Value| -> Vec<String> {
            let words = value.as_array().expect("a list");
            words.iter().map(|word| word.as_str().expect("a text").to_owned()).collect()
        };
        let plugins = JOB_KINDS.into_iter().filter_map(|kind| {
            let command = value(&format!("workers.{kind}.command"));
            (!command.is_null()).then(|| (kind.to_owned(), words(command)))
        });
        let daemons = registry().map(|(_, entry)| {
            let section = entry.section();
            let mut values = entry.defaults();
            if let Some(map) = values.as_object_mut() {
                for (name, slot) in map {
                    slot.clone_from(value(&format!("daemons.{section}.{name}")));
                }
            }
            (section, values)
        });
        Self {
            configs: words(value("loop.configs"))
                .iter()
                .map(|name| name.parse().expect("a config"))
                .collect(),
            seed: whole("loop.seed"),
            port: u16::try_from(whole("http.port")).expect("a port"),
            bind: text("http.bind").parse().expect("an address"),
            profile: text("manager.profile"),
            restart_max: value("manager.restart_max")
                .as_u64()
                .map(|max| u32::try_from(max).expect("at most 1000")),
            restart_base: time("manager.restart_base"),
            restart_cap: time("manager.restart_cap"),
            health_interval: time("manager.health_interval"),
            shutdown_timeout: time("manager.shutdown_timeout"),
            hourly: flag("manager.degraded_mode").then(|| Hourly {
                normal_max: count("manager.degraded_normal_max"),
                normal_base: time("manager.degraded_normal_base"),
                normal_cap: time("manager.degraded_normal_cap"),
                elevated_max: count("manager.degraded_elevated_max"),
                elevated_base: time("manager.degraded_elevated_base"),
                elevated_cap: time("manager.degraded_elevated_cap"),
                retry_critical: time("manager.degraded_retry_critical"),
                retry_other: time("manager.degraded_retry_other"),
                leave_after: Duration::from_hours(whole("manager.degraded_reset_hours")),
            }),
            cascade_breaker: flag("manager.cascade_breaker"),
            durability: match text("manager.durability").as_str() {
                "full" => Durability::Full,
                _ => Durability::Normal,
            },
            log_level: text("manager.log_level"),
            log_format: match text("manager.log_format").as_str() {
                "json" => Format::Json,
                _ => Format::Text,
            },
            slots: usize::try_from(whole("workers.slots")).expect("at most 1024"),
            memory: whole("workers.memory"),
            silence: time("workers.silence"),
            grace: time("workers.grace"),
            plugins: plugins.collect(),
            store: Store {
                address: value("store.url").as_str().map(|url| url.parse().expect("an address")),
                derived: words(value("store.derived")),
                rate: whole("store.rate"),
                endpoint: value("store.endpoint").as_str().map(str::to_owned),
                region: text("store.region"),
                plain: if flag("store.allow_http") { Plain::Anybody } else { Plain::Loopback },
                credentials: value("store.credentials").as_str().map(PathBuf::from),
            },
            daemons: daemons.collect(),
            data,
            data_origin,
            file,
            warnings,
            all,
        }
    }

    /// Address of probes and page.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.port)
    }
}
