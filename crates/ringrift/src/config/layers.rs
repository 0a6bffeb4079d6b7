//! The four layers, and how one value is chosen out of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use depot::far::{Plain, check_endpoint};
use ringrift_daemons::{Found, find};
use serde_json::Value;

use super::{
    Problems, Resolved, Settings, keys, nearest,
    replaced::replaced,
    schema::{Key, PLACES},
};

/// Settings of the command line; texts are read by the same rules as variables.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Key, flag and its text.
    pub keys: Vec<(&'static str, &'static str, String)>,
}

/// Everything that settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The command line.
    pub flags: Flags,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The folder that relative defaults lie in.
    pub here: PathBuf,
}

impl Sources {
    /// The command line given, and the environment of this process.
    pub fn of_process(flags: Flags) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value)))
            .filter(|(key, _)| key.starts_with("RINGRIFT_"))
            // A value that is no text is wrong for every key; its lossy form makes the error.
            .map(|(key, value)| (key, value.to_string_lossy().into_owned()))
            .collect();
        Self { flags, env, here: PathBuf::from(".") }
    }

    /// An empty variable counts as not set.
    fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The data directory and where it comes from.
    pub fn data(&self) -> (PathBuf, String) {
        if let Some(data) = &self.flags.data {
            return (data.clone(), "flag --data".into());
        }
        match self.variable("RINGRIFT_DATA_DIR") {
            Some(data) => (data.into(), "environment RINGRIFT_DATA_DIR".into()),
            None => (self.here.join("ringrift-data"), "default".into()),
        }
    }

    /// The data directory that somebody named.
    pub fn given_data(&self) -> Option<PathBuf> {
        let variable = || self.variable("RINGRIFT_DATA_DIR").map(PathBuf::from);
        self.flags.data.clone().or_else(variable)
    }

    /// The file, if there is one; one that was named must exist.
    fn file(&self, data: &Path) -> Result<Option<PathBuf>, String> {
        let named = match (&self.flags.file, self.variable("RINGRIFT_CONFIG")) {
            (Some(file), _) => Some((file.clone(), "--config")),
            (None, Some(file)) => Some((PathBuf::from(file), "RINGRIFT_CONFIG")),
            (None, None) => None,
        };
        if let Some((file, by)) = named {
            if file.is_file() {
                return Ok(Some(file));
            }
            return Err(format!("{by}: there is no file {}", file.display()));
        }
        let usual = [data.join("ringrift.toml"), self.here.join("ringrift.toml")];
        Ok(usual.into_iter().find(|file| file.is_file()))
    }
}

/// Resolves every key.
///
/// # Errors
/// All that is wrong, in the order of the layers.
pub fn load(sources: &Sources) -> Result<Settings, Problems> {
    let mut problems = Vec::new();
    let (data, data_origin) = sources.data();
    let file = sources.file(&data).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let keys = keys();
    let known: BTreeMap<&str, &Key> = keys.iter().map(|key| (key.path.as_str(), key)).collect();
    let mut values: BTreeMap<String, Resolved> = keys
        .iter()
        .map(|key| (key.path.clone(), Resolved::default_of(&key.path, &key.default)))
        .collect();
    if let Some(file) = &file {
        read_file(file, &known, &mut values, &mut problems);
    }
    let mut warnings = read_variables(sources, &keys, &mut values, &mut problems);
    for (path, flag, text) in &sources.flags.keys {
        let Some(key) = known.get(path) else { continue };
        match key.kind.read_text(text) {
            Ok(value) => set(&mut values, path, value, format!("flag {flag}")),
            Err(allowed) => problems
                .push(format!("{flag}: '{}' is not allowed: {allowed}", key.kind.shown(text))),
        }
    }
    check_daemons(&keys, &values, &mut problems);
    check_store(&values, &mut problems);
    warnings.extend(idle_tiers(&values));
    if problems.is_empty() {
        Ok(Settings::of(data, data_origin, file, values, warnings))
    } else {
        Err(Problems(problems))
    }
}

fn set(values: &mut BTreeMap<String, Resolved>, path: &str, value: Value, origin: String) {
    values.insert(path.to_owned(), Resolved { key: path.to_owned(), value, origin });
}

fn read_file(
    file: &Path,
    known: &BTreeMap<&str, &Key>,
    values: &mut BTreeMap<String, Resolved>,
    problems: &mut Vec<String>,
) {
    let name = file.display();
    let text = match fs_err::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return problems.push(format!("read the configuration: {error}")),
    };
    let table: Value = match toml::from_str(&text) {
        Ok(table) => table,
        Err(error) => {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            return problems.push(format!("{name}, line {line}: {}", error.message().trim()));
        }
    };
    let mut found = Vec::new();
    flatten("", &table, known, &mut found);
    for (path, value) in found {
        let Some(key) = known.get(path.as_str()) else {
            problems.push(format!("{name}: {}", unknown_key(&path, known)));
            continue;
        };
        match key.kind.read_value(value) {
            Ok(value) => set(values, &path, value, format!("file {name}")),
            Err(allowed) => {
                let value = value.to_string();
                let value = key.kind.shown(&value);
                problems.push(format!("{name}: {path}: {value} is not allowed: {allowed}"));
            }
        }
    }
}

/// Paths of all values; tables are sections, unless a key holds a table.
fn flatten<'a>(
    prefix: &str,
    value: &'a Value,
    known: &BTreeMap<&str, &Key>,
    found: &mut Vec<(String, &'a Value)>,
) {
    let Value::Object(table) = value else { return };
    for (name, value) in table {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if value.is_object() && !known.contains_key(path.as_str()) {
            flatten(&path, value, known, found);
        } else {
            found.push((path, value));
        }
    }
}

fn unknown_key(path: &str, known: &BTreeMap<&str, &Key>) -> String {
    if let Some(name) = path.strip_prefix("daemons.").and_then(|rest| rest.split('.').next()) {
        match find(name) {
            Err(unknown) => return format!("{path}: {unknown}"),
            Ok(Found::Retired(retired)) => {
                return format!("{path}: {} is retired: {}", retired.name, retired.sentence);
            }
            Ok(Found::Active(..)) => {}
        }
    }
    let hint = nearest(path, known.keys().copied())
        .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
    format!("unknown key {path}{hint}; `ringrift config show` lists all")
}

/// Returns a warning for each variable of ours that nothing reads.
fn read_variables(
    sources: &Sources,
    keys: &[Key],
    values: &mut BTreeMap<String, Resolved>,
    problems: &mut Vec<String>,
) -> Vec<String> {
    for key in keys {
        let mut chosen: Option<(&str, &str, Value)> = None;
        for variable in &key.variables {
            let Some(text) = sources.variable(variable) else { continue };
            let value = match key.kind.read_text(text) {
                Ok(value) => value,
                Err(allowed) => {
                    let text = key.kind.shown(text);
                    problems.push(format!("{variable}: '{text}' is not allowed: {allowed}"));
                    continue;
                }
            };
            match &chosen {
                Some((other, before, earlier)) if *earlier != value => problems.push(format!(
                    "{other}={before} and {variable}={text} both name {} and differ: unset one",
                    key.path
                )),
                Some(_) => {}
                None => chosen = Some((variable, text, value)),
            }
        }
        if let Some((variable, _, value)) = chosen {
            set(values, &key.path, value, format!("environment {variable}"));
        }
    }
    let known: BTreeSet<&str> =
        keys.iter().flat_map(|key| &key.variables).map(String::as_str).chain(PLACES).collect();
    let unknown = sources
        .env
        .keys()
        .filter(|name| name.starts_with("RINGRIFT_") && !known.contains(name.as_str()));
    unknown
        .map(|name| {
            if let Some(sentence) = replaced(name) {
                return format!("variable {name} has no effect: {sentence}");
            }
            let hint = nearest(name, known.iter().copied())
                .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
            format!("unknown variable {name} has no effect{hint}")
        })
        .collect()
}

/// Numbers of a mode that is off.
fn idle_tiers(values: &BTreeMap<String, Resolved>) -> Option<String> {
    let mode = values.get("manager.degraded_mode")?;
    let set: Vec<&str> = values
        .values()
        .filter(|value| value.key.starts_with("manager.degraded_") && value.key != mode.key)
        .filter(|value| value.origin != Resolved::DEFAULT)
        .map(|value| value.key.as_str())
        .collect();
    (mode.value == false && !set.is_empty())
        .then(|| format!("{} without effect: manager.degraded_mode is off", set.join(", ")))
}

/// Whether a service may be talked to in the clear depends on two keys.
fn check_store(values: &BTreeMap<String, Resolved>, problems: &mut Vec<String>) {
    let value = |key: &str| values.get(key).map(|resolved| &resolved.value);
    let plain = match value("store.allow_http") {
        Some(Value::Bool(true)) => Plain::Anybody,
        _ => Plain::Loopback,
    };
    if let Some(endpoint) = value("store.endpoint").and_then(Value::as_str)
        && let Err(error) = check_endpoint(endpoint, plain)
    {
        problems.push(format!("store.endpoint: {error}"));
    }
}

/// Lets each daemon judge the keys of its own that somebody set.
fn check_daemons(keys: &[Key], values: &BTreeMap<String, Resolved>, problems: &mut Vec<String>) {
    for key in keys {
        let Some((section, name)) =
            key.path.strip_prefix("daemons.").and_then(|rest| rest.split_once('.'))
        else {
            continue;
        };
        let Some(resolved) = values.get(&key.path) else { continue };
        if resolved.origin == Resolved::DEFAULT {
            continue;
        }
        let Ok(Found::Active(_, entry)) = find(section) else { continue };
        let mut defaults = entry.defaults();
        if let Some(map) = defaults.as_object_mut() {
            map.insert(name.to_owned(), resolved.value.clone());
        }
        if let Err(error) = entry.check(defaults) {
            problems.push(format!(
                "{} ({}): {} is not allowed: {error:#}",
                key.path, resolved.origin, resolved.value
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use warden::Hourly;

    use super::*;

    fn sources(env: &[(&str, &str)]) -> Sources {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Sources { flags: Flags::default(), env, here: PathBuf::from("/nonexistent") }
    }

    fn value(settings: &Settings, key: &str) -> (Value, String) {
        let found = settings.all.get(key).unwrap();
        (found.value.clone(), found.origin.clone())
    }

    fn check_refused(sources: &Sources, parts: &[&str]) {
        let problems = load(sources).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        for part in parts {
            assert!(problems.0[0].contains(part), "{problems} does not contain {part}");
        }
    }

    #[test]
    fn a_far_store_is_named_without_a_password_and_reached_encrypted() {
        let refused = sources(&[("RINGRIFT_STORE_URL", "s3://id:secret@far-away")]);
        check_refused(&refused, &["RINGRIFT_STORE_URL: '...' is not allowed", "no password"]);
        let endpoint = [("RINGRIFT_STORE_ENDPOINT", "http://objects.example:9000")];
        check_refused(&sources(&endpoint), &["store.endpoint: ", "store.allow_http = true"]);
        let [endpoint] = endpoint;
        let open = sources(&[endpoint, ("RINGRIFT_STORE_ALLOW_HTTP", "1")]);
        assert_eq!(load(&open).unwrap().store.plain, Plain::Anybody);
        let named =
            sources(&[("RINGRIFT_STORE_URL", "s3://far-away/a"), ("RINGRIFT_STORE_RATE", "1 MiB")]);
        let store = load(&named).unwrap().store;
        assert_eq!(
            (store.address.unwrap().to_string(), store.rate),
            ("s3://far-away/a".into(), 1 << 20)
        );
    }

    #[test]
    fn the_later_layer_wins_and_its_origin_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringrift.toml");
        fs_err::write(&file, "[http]\nport = 1000\n[loop]\nseed = 5\nconfigs = ['hex8_2p']\n")
            .unwrap();
        let mut sources = sources(&[("RINGRIFT_HTTP_PORT", "2000"), ("RINGRIFT_LOOP_SEED", "")]);
        sources.flags.file = Some(file.clone());
        let settings = load(&sources).unwrap();
        assert_eq!(settings.port, 2000);
        assert_eq!(value(&settings, "http.port").1, "environment RINGRIFT_HTTP_PORT");
        assert_eq!(value(&settings, "loop.seed"), (5.into(), format!("file {}", file.display())));
        assert_eq!(settings.configs.len(), 1);
        assert_eq!(value(&settings, "http.bind").1, "default");

        sources.flags.keys.push(("http.port", "--port", "3000".into()));
        assert_eq!(value(&load(&sources).unwrap(), "http.port").1, "flag --port");
    }

    #[test]
    fn the_file_beside_the_data_is_found_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("ringrift.toml"), "loop.seed = 9\n").unwrap();
        let mut sources = sources(&[]);
        sources.flags.data = Some(dir.path().to_owned());
        assert_eq!(load(&sources).unwrap().seed, 9);
    }

    #[test]
    fn the_runbooks_names_are_other_names_of_keys() {
        let settings = load(&sources(&[
            ("RINGRIFT_DAEMON_HEALTH_PORT", "8791"),
            ("RINGRIFT_DAEMON_RESTART_MAX", "3"),
            ("RINGRIFT_DAEMON_HEALTH_INTERVAL", "10"),
            ("RINGRIFT_DAEMON_SHUTDOWN_TIMEOUT", "5"),
        ]))
        .unwrap();
        assert_eq!((settings.port, settings.restart_max), (8791, Some(3)));
        assert_eq!(settings.health_interval.as_secs(), 10);
        assert_eq!(settings.shutdown_timeout.as_secs(), 5);
    }

    #[test]
    fn two_names_of_a_key_may_agree_but_not_differ() {
        let same = [("RINGRIFT_HTTP_PORT", "80"), ("RINGRIFT_DAEMON_HEALTH_PORT", "80")];
        assert_eq!(load(&sources(&same)).unwrap().port, 80);
        let other = [("RINGRIFT_HTTP_PORT", "80"), ("RINGRIFT_DAEMON_HEALTH_PORT", "81")];
        check_refused(
            &sources(&other),
            &["RINGRIFT_HTTP_PORT=80", "RINGRIFT_DAEMON_HEALTH_PORT=81", "http.port", "differ"],
        );
    }

    #[test]
    fn a_wrong_variable_is_named_with_its_value_and_what_is_allowed() {
        check_refused(
            &sources(&[("RINGRIFT_DAEMON_HEALTH_PORT", "99999")]),
            &["RINGRIFT_DAEMON_HEALTH_PORT", "'99999'", "0 to 65535"],
        );
        check_refused(
            &sources(&[("RINGRIFT_DAEMON_SHUTDOWN_TIMEOUT", "soon")]),
            &["'soon'", "1 to 600 seconds"],
        );
        check_refused(&sources(&[("RINGRIFT_LOOP_CONFIGS", "hex9_2p")]), &["did you mean hex8_2p"]);
        check_refused(
            &sources(&[("RINGRIFT_HTTP_BIND", "0.0.0.0")]),
            &["RINGRIFT_HTTP_BIND", "'0.0.0.0'", "a loopback address"],
        );
        check_refused(
            &sources(&[("RINGRIFT_CONFIG", "/no/file")]),
            &["RINGRIFT_CONFIG", "/no/file"],
        );
    }

    #[test]
    fn an_unknown_variable_is_a_warning_with_the_nearest_name() {
        let settings = load(&sources(&[("RINGRIFT_DAEMON_RESTRAT_MAX", "3")])).unwrap();
        assert_eq!(
            settings.warnings,
            ["unknown variable RINGRIFT_DAEMON_RESTRAT_MAX has no effect; \
              did you mean RINGRIFT_DAEMON_RESTART_MAX?"]
        );
    }

    #[test]
    fn a_variable_of_the_old_system_is_no_unknown_one() {
        let settings = load(&sources(&[
            ("RINGRIFT_IS_COORDINATOR", "1"),
            ("RINGRIFT_TRAINING_CHECK_INTERVAL", "90"),
            ("RINGRIFT_DAEMON_RESTART_BACKOFF", "5"),
            ("RINGRIFT_DAEMON_RESTART_BACKOFF_MAX", "300"),
            ("RINGRIFT_LOG_LEVEL", "INFO"),
        ]))
        .unwrap();
        assert_eq!(
            settings.warnings,
            ["variable RINGRIFT_IS_COORDINATOR has no effect: the profile says what a node does: \
              RINGRIFT_MANAGER_PROFILE, or `ringrift up --profile`"]
        );
        assert_eq!(value(&settings, "daemons.training_trigger.interval").0, 90.0);
        assert_eq!((settings.restart_base.as_secs(), settings.restart_cap.as_secs()), (5, 300));
    }

    #[test]
    fn the_tiers_of_degraded_mode_are_keys_with_the_old_names() {
        let mut variables = vec![
            ("RINGRIFT_DEGRADED_NORMAL_MAX", "1"),
            ("RINGRIFT_DEGRADED_NORMAL_BACKOFF_BASE", "2"),
            ("RINGRIFT_DEGRADED_NORMAL_BACKOFF_MAX", "3"),
            ("RINGRIFT_DEGRADED_ELEVATED_MAX", "4"),
            ("RINGRIFT_DEGRADED_ELEVATED_BACKOFF_BASE", "5"),
            ("RINGRIFT_DEGRADED_ELEVATED_BACKOFF_MAX", "6"),
            ("RINGRIFT_DEGRADED_CRITICAL_RETRY_INTERVAL", "7"),
            ("RINGRIFT_DEGRADED_NONCRITICAL_RETRY_INTERVAL", "8m"),
            ("RINGRIFT_DEGRADED_RESET_HOURS", "9"),
        ];
        let off = load(&sources(&variables)).unwrap();
        assert!(off.hourly.is_none());
        assert!(off.warnings[0].ends_with("without effect: manager.degraded_mode is off"));
        variables.push(("RINGRIFT_DEGRADED_MODE_ENABLED", "true"));
        let on = load(&sources(&variables)).unwrap();
        let secs = Duration::from_secs;
        let expected = Hourly {
            normal_max: 1,
            normal_base: secs(2),
            normal_cap: secs(3),
            elevated_max: 4,
            elevated_base: secs(5),
            elevated_cap: secs(6),
            retry_critical: secs(7),
            retry_other: secs(480),
            leave_after: Duration::from_hours(9),
        };
        assert_eq!((on.hourly, on.warnings), (Some(expected), vec![]));
        let mode = [("RINGRIFT_DEGRADED_MODE_ENABLED", "true")];
        assert_eq!(load(&sources(&mode)).unwrap().hourly, Some(Hourly::default()));
    }

    fn check_file(text: &str, parts: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringrift.toml");
        fs_err::write(&file, text).unwrap();
        let mut sources = sources(&[]);
        sources.flags.file = Some(file);
        check_refused(&sources, parts);
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_key() {
        check_file("[http]\nprot = 1\n", &["unknown key http.prot", "did you mean http.port?"]);
        check_file("[http]\nport = 'x'\n", &["http.port", "\"x\"", "0 to 65535"]);
        check_file("[http]\n\nport = = 1\n", &["line 3"]);
        check_file(
            "[workers.train]\ncommand = 'python3'\n",
            &["workers.train.command", "a program"],
        );
        check_file("[daemons.auto_snyc]\ninterval = 5\n", &["did you mean AUTO_SYNC?"]);
        check_file("[daemons.health_check]\ninterval = 5\n", &["retired"]);
        check_file(
            "[daemons.auto_sync]\nintervall = 5\n",
            &["did you mean daemons.auto_sync.interval?"],
        );
        check_file(
            "[daemons.auto_sync]\ninterval = 0\n",
            &["daemons.auto_sync.interval", "0.1 to"],
        );
    }
}
