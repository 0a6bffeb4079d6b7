//! Sections that bear a name: `[machines.NAME]`, the machine of a node, and `[providers.NAME]`.
//!
//! They stand in the file alone: a variable cannot hold such a name. Whoever leads acts by them, so every
//! coordinator of a cluster has the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hosts::{Budget, InstanceId, Programs, Ssh};
use serde_json::{Value, json};

use super::{Resolved, kind::Kind, nearest, schema::Key};

/// The families of sections.
const FAMILIES: [&str; 2] = ["machines", "providers"];
/// What stands for the name in the reference.
const NAME: &str = "NAME";

/// The machine of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSettings {
    /// How commands get there; none = they run on the node that leads.
    pub ssh: Option<Ssh>,
    /// The command that restarts the node's service.
    pub restart: Option<Vec<String>>,
    /// Its provider, and what that calls it.
    pub provided: Option<(String, InstanceId)>,
}

/// Who provides machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    /// Its commands.
    pub programs: Programs,
    /// It is only told what would be done.
    pub is_dry: bool,
    /// Most actions within an hour.
    pub budget: Budget,
}

/// The keys of such sections, with [`NAME`] in place of the name.
pub fn named_keys() -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |path: &str, kind: Kind, default: Value, about: &str| {
        let (path, about) = (path.to_owned(), about.to_owned());
        keys.push(Key { path, kind, default, about, variables: Vec::new() });
    };
    let null = || Value::Null;
    add(
        "machines.NAME.ssh",
        Kind::Destination,
        null(),
        "the machine of the node NAME, as `ssh` of this machine knows it; without it commands run here",
    );
    add("machines.NAME.restart", Kind::Command, null(), "command that restarts the node's service");
    add("machines.NAME.provider", Kind::Name, null(), "section of its provider");
    add("machines.NAME.instance", Kind::Instance, null(), "what the provider calls it");
    add(
        "providers.NAME.list",
        Kind::Command,
        null(),
        "command that prints {\"instances\": [{\"id\": ..., \"state\": ...}]}",
    );
    for (action, does) in [("start", "starts"), ("stop", "stops"), ("reboot", "reboots")] {
        let about = format!("command that {does} an instance, whose id is added at its end");
        add(&format!("providers.NAME.{action}"), Kind::Command, null(), &about);
    }
    add(
        "providers.NAME.limit",
        Kind::Seconds { min: 1.0, max: 60.0 },
        json!(30.0),
        "time that each command has",
    );
    add(
        "providers.NAME.dry_run",
        Kind::Flag,
        json!(true),
        "only say what would be done; instances are listed all the same",
    );
    let count = || Kind::Whole { min: 0, max: 1000 };
    add("providers.NAME.actions_per_hour", count(), json!(4), "most actions within an hour");
    add(
        "providers.NAME.actions_per_instance",
        count(),
        json!(2),
        "most actions on one instance within an hour",
    );
    keys
}

/// The key that a path of the file means, if it is of such a section; an error if there is no such key.
pub(super) fn find(path: &str) -> Option<Result<Key, String>> {
    let (family, rest) = path.split_once('.')?;
    if !FAMILIES.contains(&family) {
        return None;
    }
    let Some((name, key)) = rest.rsplit_once('.') else {
        return Some(Err(format!("{path}: it stands in a section [{family}.NAME]")));
    };
    if let Err(allowed) = Kind::Name.read_value(&name.into()) {
        return Some(Err(format!("{path}: '{name}' is not allowed as a name: {allowed}")));
    }
    let known = named_keys();
    let template = format!("{family}.{NAME}.{key}");
    if let Some(key) = known.iter().find(|key| key.path == template) {
        return Some(Ok(Key { path: path.to_owned(), ..key.clone() }));
    }
    let of_it = known.iter().filter_map(|key| {
        key.path.strip_prefix(family)?.strip_prefix('.')?.strip_prefix(NAME)?.strip_prefix('.')
    });
    let hint = nearest(key, of_it)
        .map_or_else(String::new, |nearest| format!("; did you mean {family}.{name}.{nearest}?"));
    Some(Err(format!("unknown key {path}{hint}; `ringrift docs configuration` lists all")))
}

/// Gives each section that is there the keys that nobody set.
pub(super) fn fill(values: &mut BTreeMap<String, Resolved>) {
    for family in FAMILIES {
        for name in names(values, family) {
            for key in named_keys() {
                if !key.path.starts_with(family) {
                    continue;
                }
                let path = key.path.replacen(NAME, &name, 1);
                let default = Resolved::default_of(&path, &key.default);
                values.entry(path).or_insert(default);
            }
        }
    }
}

/// What does not fit together.
pub(super) fn check(values: &BTreeMap<String, Resolved>, problems: &mut Vec<String>) {
    let known = names(values, "providers");
    for name in &known {
        if value(values, "providers", name, "list").is_null() {
            problems.push(format!("providers.{name}: it needs the key list"));
        }
    }
    let mut owners: BTreeMap<(String, String), &str> = BTreeMap::new();
    let machines = names(values, "machines");
    for name in &machines {
        let text = |key| value(values, "machines", name, key).as_str().map(str::to_owned);
        let (provider, instance) = match (text("provider"), text("instance")) {
            (Some(provider), Some(instance)) => (provider, instance),
            (None, None) => continue,
            (Some(_), None) => {
                problems.push(format!("machines.{name}: provider without instance says nothing"));
                continue;
            }
            (None, Some(_)) => {
                problems.push(format!("machines.{name}: instance without provider says nothing"));
                continue;
            }
        };
        if !known.contains(&provider) {
            let hint = nearest(&provider, known.iter().map(String::as_str))
                .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
            problems.push(format!(
                "machines.{name}.provider: there is no section [providers.{provider}]{hint}"
            ));
        }
        if let Some(other) = owners.insert((provider, instance.clone()), name) {
            problems.push(format!(
                "machines.{name}.instance: {instance} is the machine of {other} already"
            ));
        }
    }
}

/// The machines of nodes, by node. What the keys hold was checked before.
pub(super) fn machines(values: &BTreeMap<String, Resolved>) -> BTreeMap<String, MachineSettings> {
    let read = |name: String| {
        let text = |key| value(values, "machines", &name, key).as_str().map(str::to_owned);
        let instance = text("instance").map(|id| id.parse().expect("a name of an instance"));
        let settings = MachineSettings {
            ssh: text("ssh").map(|ssh| Ssh::to(&ssh).expect("a destination")),
            restart: command(value(values, "machines", &name, "restart")),
            provided: text("provider").zip(instance),
        };
        (name, settings)
    };
    names(values, "machines").into_iter().map(read).collect()
}

/// Who provides them, by name. What the keys hold was checked before.
pub(super) fn providers(values: &BTreeMap<String, Resolved>) -> BTreeMap<String, ProviderSettings> {
    let read = |name: String| {
        let of = |key: &str| value(values, "providers", &name, key);
        let count = |key| {
            let count = of(key).as_u64().expect("a whole number");
            usize::try_from(count).expect("at most 1000")
        };
        let programs = Programs {
            list: command(of("list")).expect("a command"),
            start: command(of("start")),
            stop: command(of("stop")),
            reboot: command(of("reboot")),
            limit: Duration::from_secs_f64(of("limit").as_f64().expect("a number of seconds")),
        };
        let budget = Budget {
            actions: count("actions_per_hour"),
            per_instance: count("actions_per_instance"),
        };
        let is_dry = of("dry_run").as_bool().expect("true or false");
        (name.clone(), ProviderSettings { programs, is_dry, budget })
    };
    names(values, "providers").into_iter().map(read).collect()
}

fn names(values: &BTreeMap<String, Resolved>, family: &str) -> BTreeSet<String> {
    let named = |path: &String| {
        let rest = path.strip_prefix(family)?.strip_prefix('.')?;
        rest.rsplit_once('.').map(|(name, _)| name.to_owned())
    };
    values.keys().filter_map(named).collect()
}

fn value<'a>(
    values: &'a BTreeMap<String, Resolved>,
    family: &str,
    name: &str,
    key: &str,
) -> &'a Value {
    let path = format!("{family}.{name}.{key}");
    values.get(&path).map_or(&Value::Null, |resolved| &resolved.value)
}

fn command(value: &Value) -> Option<Vec<String>> {
    let words = value.as_array()?.iter();
    Some(words.map(|word| word.as_str().expect("a text").to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Settings, Sources, load};

    fn read(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringrift.toml");
        fs_err::write(&file, text).unwrap();
        let flags = Flags { file: Some(file), ..Flags::default() };
        let here = "/nonexistent".into();
        load(&Sources { flags, here, ..Sources::default() }).map_err(|problems| {
            assert_eq!(problems.0.len(), 1, "{problems}");
            problems.to_string()
        })
    }

    #[test]
    fn without_such_sections_there_are_no_machines() {
        let settings = read("").unwrap();
        assert!(settings.machines.is_empty() && settings.providers.is_empty());
        assert!(!settings.all.keys().any(|key| key.starts_with("machines.")));
    }

    #[test]
    fn machines_and_providers_are_read_and_dry_unless_told_otherwise() {
        let settings = read(
            "[machines.gpu-a-0f3b22aa]\nssh = 'runner@10.0.0.5'\n\
             restart = ['systemctl', '--user', 'restart', 'ringrift']\n\
             provider = 'cupboard'\ninstance = 'i-1'\n\
             [machines.gpu-b]\nrestart = ['/opt/restart-b']\n\
             [providers.cupboard]\nlist = ['/opt/list']\nreboot = ['/opt/reboot', '--id']\nlimit = '20s'\n",
        )
        .unwrap();
        let a = &settings.machines["gpu-a-0f3b22aa"];
        assert_eq!(a.ssh, Some(Ssh::to("runner@10.0.0.5").unwrap()));
        assert_eq!(a.provided, Some(("cupboard".into(), "i-1".parse().unwrap())));
        assert_eq!(a.restart.as_ref().unwrap().len(), 4);
        let b = &settings.machines["gpu-b"];
        assert_eq!((&b.ssh, &b.provided), (&None, &None));
        let cupboard = &settings.providers["cupboard"];
        assert!(cupboard.is_dry);
        assert_eq!(cupboard.budget, Budget { actions: 4, per_instance: 2 });
        assert_eq!(cupboard.programs.reboot, Some(vec!["/opt/reboot".into(), "--id".into()]));
        assert_eq!((&cupboard.programs.start, cupboard.programs.limit.as_secs()), (&None, 20));
        let shown = &settings.all["providers.cupboard.dry_run"];
        assert_eq!((&shown.value, shown.origin.as_str()), (&json!(true), "default"));
        let off =
            read("[providers.a]\nlist = ['l']\ndry_run = false\nactions_per_hour = 1\n").unwrap();
        assert!(!off.providers["a"].is_dry);
        assert_eq!(off.providers["a"].budget.actions, 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        let check = |text: &str, parts: &[&str]| {
            let refused = read(text).unwrap_err();
            for part in parts {
                assert!(refused.contains(part), "{refused} does not contain {part}");
            }
        };
        check(
            "[machines.a]\nshs = 'b'\n",
            &["unknown key machines.a.shs", "did you mean machines.a.ssh?"],
        );
        check("[machines.a]\nxyzzy = 1\n", &["unknown key machines.a.xyzzy; `ringrift docs"]);
        check("[machines]\nssh = 'b'\n", &["machines.ssh: it stands in a section [machines.NAME]"]);
        check("[machines.'A b']\nssh = 'b'\n", &["'A b' is not allowed as a name", "lower case"]);
        check("[machines.a]\nssh = '-oX=y'\n", &["machines.a.ssh", "USER@HOST"]);
        check("[machines.a]\nssh = 'u:secret@b'\n", &["machines.a.ssh", "USER@HOST"]);
        check("[machines.a]\nrestart = 'reboot'\n", &["machines.a.restart", "a program"]);
        check("[machines.a]\nprovider = 'b'\n", &["machines.a: provider without instance"]);
        check("[machines.a]\ninstance = 'b'\n", &["machines.a: instance without provider"]);
        check("[providers.a]\nstart = ['b']\n", &["providers.a: it needs the key list"]);
        check(
            "[machines.a]\nprovider = 'cupbord'\ninstance = '1'\n[providers.cupboard]\nlist = ['l']\n",
            &["there is no section [providers.cupbord]", "did you mean cupboard?"],
        );
        check(
            "[machines.a]\nprovider = 'p'\ninstance = '--all'\n[providers.p]\nlist = ['l']\n",
            &["machines.a.instance", "does not begin with -"],
        );
        check(
            "[machines.a]\nprovider = 'p'\ninstance = '1'\n[machines.b]\nprovider = 'p'\n\
             instance = '1'\n[providers.p]\nlist = ['l']\n",
            &["machines.b.instance: 1 is the machine of a already"],
        );
        check(
            "[providers.p]\nlist = ['l']\nlimit = 3600\n",
            &["providers.p.limit", "1 to 60 seconds"],
        );
        check("[providers.p]\nlist = ['l']\ndry_run = 'no'\n", &["providers.p.dry_run"]);
    }
}
