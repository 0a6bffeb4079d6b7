//! Which crate may know which: the table of ARCHITECTURE.md, from the manifests and the imports.

use std::collections::BTreeSet;

use toml::Value;

use super::Finding;
use super::manifest::{Dependency, Kind, Manifest, packages, root};
use super::modules;
use super::source::{code, mentions, production};
use super::tree::{Tree, extension};

/// Crates that somebody with another game could use: each stands alone.
pub const GENERIC: &[&str] = &["warden", "courier", "depot", "hosts", TESTKIT];

/// What tests share; no code that is shipped uses it.
const TESTKIT: &str = "testkit";

/// A crate and the crates of this workspace that it may use, in tests too; there [`TESTKIT`] besides.
const EDGES: &[(&str, &[&str])] = &[
    ("warden", &[]),
    ("courier", &[]),
    ("depot", &[]),
    ("hosts", &[]),
    ("ringrift-rules", &[]),
    ("ringrift-player", &["ringrift-rules"]),
    ("ringrift-pipeline", &["courier", "ringrift-rules"]),
    ("ringrift-learn", &["ringrift-player", "ringrift-rules"]),
    (
        "ringrift-daemons",
        &["courier", "depot", "hosts", "ringrift-pipeline", "ringrift-rules", "warden"],
    ),
    (
        "ringrift",
        &[
            "courier",
            "depot",
            "hosts",
            "ringrift-daemons",
            "ringrift-learn",
            "ringrift-pipeline",
            "ringrift-player",
            "ringrift-rules",
            "warden",
        ],
    ),
    (TESTKIT, &[]),
    ("xtask", &[]),
];

/// What a crate must not know beside its siblings; tests are free of it.
struct Ignorance {
    package: &'static str,
    /// External crates that its `[dependencies]` do not list.
    dependencies: &'static [&'static str],
    /// What its code does not name, except in the modules `known_to`.
    names: &'static [&'static str],
    known_to: &'static [&'static str],
    instead: &'static str,
}

const IGNORANCE: &[Ignorance] = &[
    Ignorance {
        package: "warden",
        dependencies: &["async-nats", "axum", "hyper", "reqwest", "rusqlite", "tower-http"],
        names: &[],
        known_to: &[],
        instead: "SQL and NATS belong to courier, HTTP to the binary",
    },
    Ignorance {
        package: "ringrift-rules",
        dependencies: &["fastrand", "fs-err", "jiff", "rand", "rayon", "rusqlite", "tokio"],
        names: &["std::fs", "std::io", "std::net", "std::thread", "std::time", "async fn"],
        known_to: &[],
        instead: "the rules are pure: time, chance and bytes come in as values",
    },
    Ignorance {
        package: "ringrift-rules",
        dependencies: &[],
        names: &["serde", "serde_json"],
        known_to: &["notation"],
        instead: "only `notation` knows formats",
    },
    Ignorance {
        package: "ringrift-player",
        dependencies: &["axum", "rusqlite", "tokio"],
        names: &[],
        known_to: &[],
        instead: "bytes and files in, bytes and files out",
    },
    Ignorance {
        package: "ringrift-learn",
        dependencies: &["axum", "rusqlite", "tokio"],
        names: &[],
        known_to: &[],
        instead: "bytes and files in, bytes and files out",
    },
    Ignorance {
        package: "ringrift-pipeline",
        dependencies: &["axum", "fastrand", "rand"],
        names: &[
            "tokio::spawn",
            "tokio::task",
            "tokio::time",
            "JoinSet",
            "TaskTracker",
            "Instant::now",
            "SystemTime::now",
            "Timestamp::now",
        ],
        known_to: &[],
        instead: "the fold is pure: time comes in, tasks belong to warden and courier",
    },
    Ignorance {
        package: "ringrift-daemons",
        dependencies: &[
            "axum",
            "ndarray",
            "nvml-wrapper",
            "object_store",
            "safetensors",
            "sysinfo",
        ],
        names: &[],
        known_to: &[],
        instead: "machines and clouds through `hosts`, files through `depot`, tensors in workers",
    },
];

/// Rule `layout`: flat `crates/`, the folder is the name, one version, the lints of the workspace.
pub fn flat(tree: &Tree, findings: &mut Vec<Finding>) {
    let version = root(tree).and_then(|root| {
        Some(root.get(&["workspace", "package", "version"])?.as_str()?.to_owned())
    });
    for package in packages(tree) {
        let name = package.name().expect("packages have names");
        let mut report = |sentence: String| {
            let path = package.path.to_owned();
            findings.push(Finding { path, line: 0, rule: "layout", sentence });
        };
        let expected =
            if name == "xtask" { "xtask/".to_owned() } else { format!("crates/{name}/") };
        if package.folder != expected {
            report(format!("package `{name}` lies elsewhere; its folder is {expected}"));
            // A workspace of its own has its own version and lints.
            continue;
        }
        let own = match package.get(&["package", "version"]) {
            Some(Value::String(version)) => Some(version.clone()),
            Some(_) => version.clone(),
            None => None,
        };
        if own.as_deref() != Some("0.0.0") {
            report(format!("package `{name}` has a version; nothing is published: 0.0.0"));
        }
        if package.get(&["lints", "workspace"]) != Some(&Value::Boolean(true)) {
            report(format!("package `{name}` lacks `[lints] workspace = true`"));
        }
        if !EDGES.iter().any(|(known, _)| *known == name) {
            report(format!("package `{name}` has no row in EDGES; say what it may use"));
        }
    }
}

/// Rule `edges`: dependencies between crates are those of the table.
pub fn between_crates(tree: &Tree, findings: &mut Vec<Finding>) {
    let siblings: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    for package in packages(tree) {
        let name = package.name().expect("packages have names");
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else { continue };
        for dependency in package.dependencies() {
            let other = dependency.name.as_str();
            if other == TESTKIT && dependency.kind == Kind::Development {
                continue;
            }
            // A crate may name itself: that is how its own tests switch a feature on.
            if other != name && siblings.contains(other) && !allowed.contains(&other) {
                let allowed = if allowed.is_empty() { "none".into() } else { allowed.join(", ") };
                findings.push(at(
                    &package,
                    &dependency,
                    "edges",
                    format!("`{name}` does not use `{other}`; of our crates it may use: {allowed}"),
                ));
            }
        }
    }
}

/// Rule `ignorance`: the second table, as far as dependencies and names show it.
pub fn must_not_know(tree: &Tree, findings: &mut Vec<Finding>) {
    for package in packages(tree) {
        let name = package.name().expect("packages have names");
        for ignorance in IGNORANCE.iter().filter(|it| it.package == name) {
            for dependency in package.dependencies() {
                let known = ignorance.dependencies.contains(&dependency.name.as_str());
                if known && dependency.kind == Kind::Normal {
                    let what = &dependency.name;
                    let sentence = format!("`{name}` does not use `{what}`; {}", ignorance.instead);
                    findings.push(at(&package, &dependency, "ignorance", sentence));
                }
            }
            for (path, text) in sources(tree, &package) {
                let module = path.strip_prefix(&format!("{}src/", package.folder));
                let module = module.and_then(|path| path.split(['/', '.']).next());
                if module.is_some_and(|module| ignorance.known_to.contains(&module)) {
                    continue;
                }
                for (line, code) in production(text) {
                    for what in ignorance.names.iter().filter(|what| mentions(code, what)) {
                        findings.push(Finding {
                            path: path.to_owned(),
                            line,
                            rule: "ignorance",
                            sentence: format!(
                                "`{name}` does not know `{what}`; {}",
                                ignorance.instead
                            ),
                        });
                    }
                }
            }
        }
    }
}

/// Rule `unused`: every dependency is named by code, and its version stands in the root alone.
pub fn unused(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut inherited = BTreeSet::new();
    for package in packages(tree) {
        let everything: Vec<&str> = tree.rust(&package.folder).map(|(_, text)| text).collect();
        let shipped: Vec<&str> = sources(tree, &package).map(|(_, text)| text).collect();
        let itself = package.name().expect("packages have names");
        for dependency in package.dependencies() {
            if dependency.name == itself {
                continue;
            }
            let identifier = dependency.name.replace('-', "_");
            let named = |line: &str| mentions(line, &identifier);
            let anywhere = everything.iter().any(|text| code(text).any(|(_, line)| named(line)));
            let in_production =
                shipped.iter().any(|text| production(text).any(|(_, line)| named(line)));
            let what = &dependency.name;
            if !anywhere {
                let sentence = format!("`{what}` is used by no code; remove it");
                findings.push(at(&package, &dependency, "unused", sentence));
            } else if dependency.kind == Kind::Normal && !in_production {
                let sentence = format!("only tests use `{what}`; it goes into [dev-dependencies]");
                findings.push(at(&package, &dependency, "unused", sentence));
            }
            if dependency.inherited {
                inherited.insert(dependency.name);
            } else {
                let sentence =
                    format!("`{what}` has a version of its own; write {what}.workspace = true");
                findings.push(at(&package, &dependency, "unused", sentence));
            }
        }
    }
    let Some(root) = root(tree) else { return };
    let Some(shared) = root.get(&["workspace", "dependencies"]).and_then(Value::as_table) else {
        return;
    };
    for name in shared.keys().filter(|name| !inherited.contains(*name)) {
        findings.push(Finding {
            path: root.path.to_owned(),
            line: root.line_of(name, Kind::Normal),
            rule: "unused",
            sentence: format!("no crate uses `{name}`; remove it from [workspace.dependencies]"),
        });
    }
}

/// Files that are compiled into what we ship: `src` and the build script, less the test modules.
fn sources<'a>(tree: &'a Tree, package: &Manifest<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let source = format!("{}src/", package.folder);
    let script = format!("{}build.rs", package.folder);
    tree.iter()
        .filter(move |(path, _)| path.starts_with(&source) || *path == script)
        .filter(|(path, _)| extension(path) == "rs" && !modules::only_for_tests(tree, path))
        .map(|(path, file)| (path, file.text.as_str()))
}

fn at(
    manifest: &Manifest<'_>,
    dependency: &Dependency,
    rule: &'static str,
    sentence: String,
) -> Finding {
    Finding { path: manifest.path.to_owned(), line: dependency.line, rule, sentence }
}

#[cfg(test)]
mod tests {
    use super::super::says;
    use super::*;

    const MANIFEST: &str = "\
[package]
name = \"courier\"
version.workspace = true

[lints]
workspace = true

[dependencies]
";
    const ROOT: &str = "\
[workspace.package]
version = \"0.0.0\"

[workspace.dependencies]
serde = \"1\"
";

    fn manifest(name: &str, dependencies: &str) -> String {
        MANIFEST.replace("courier", name) + dependencies
    }

    #[test]
    fn a_crate_in_order_says_nothing() {
        let itself = "[dev-dependencies]\ncourier = { path = \".\", features = [\"x\"] }\n";
        let lines = format!("serde.workspace = true\n\n{itself}");
        let files = [
            ("Cargo.toml", ROOT),
            ("crates/courier/Cargo.toml", &*manifest("courier", &lines)),
            ("crates/courier/src/lib.rs", "use serde::Serialize;\n"),
        ];
        for rule in [flat, between_crates, must_not_know, unused] {
            assert_eq!(says(rule, &files), Vec::<String>::new());
        }
    }

    #[test]
    fn the_mechanisms_do_not_use_each_other() {
        let text = manifest("courier", "depot.workspace = true\n");
        assert_eq!(
            says(between_crates, &[("crates/courier/Cargo.toml", &text)]),
            [
                "crates/courier/Cargo.toml:9: `courier` does not use `depot`; of our crates it may use: none [edges]"
            ]
        );
    }

    #[test]
    fn what_tests_share_is_for_tests_alone() {
        let line = "testkit.workspace = true\n";
        let says = |section: &str| {
            let text = manifest("courier", &format!("{section}{line}"));
            says(between_crates, &[("crates/courier/Cargo.toml", &text)])
        };
        assert_eq!(says("\n[dev-dependencies]\n"), Vec::<String>::new());
        for shipped in ["", "\n[build-dependencies]\n"] {
            let [said] = <[String; 1]>::try_from(says(shipped)).unwrap();
            assert!(said.contains("`courier` does not use `testkit`"), "{said}");
        }
    }

    #[test]
    fn daemons_never_meet_the_player_not_even_in_tests() {
        let text = manifest(
            "ringrift-daemons",
            "warden.workspace = true\n\n[dev-dependencies]\nringrift-player.workspace = true\n",
        );
        assert_eq!(
            says(between_crates, &[("crates/ringrift-daemons/Cargo.toml", &text)]),
            [
                "crates/ringrift-daemons/Cargo.toml:12: `ringrift-daemons` does not use `ringrift-player`; \
             of our crates it may use: courier, depot, hosts, ringrift-pipeline, ringrift-rules, warden [edges]"
            ]
        );
    }

    #[test]
    fn learning_does_not_know_events() {
        let text = manifest("ringrift-learn", "ringrift-pipeline.workspace = true\n");
        assert_eq!(says(between_crates, &[("crates/ringrift-learn/Cargo.toml", &text)]).len(), 1);
    }

    #[test]
    fn a_package_lies_in_the_folder_of_its_name_with_version_zero() {
        let odd = manifest("extra", "").replace("version.workspace = true", "version = \"1.0.0\"");
        let files = [
            ("Cargo.toml", ROOT),
            ("crates/a/courier/Cargo.toml", MANIFEST),
            ("crates/extra/Cargo.toml", &odd),
            ("crates/hosts/Cargo.toml", "[package]\nname = \"hosts\"\nversion = \"0.0.0\"\n"),
        ];
        assert_eq!(
            says(flat, &files),
            [
                "crates/a/courier/Cargo.toml:1: package `courier` lies elsewhere; its folder is crates/courier/ [layout]",
                "crates/extra/Cargo.toml:1: package `extra` has a version; nothing is published: 0.0.0 [layout]",
                "crates/extra/Cargo.toml:1: package `extra` has no row in EDGES; say what it may use [layout]",
                "crates/hosts/Cargo.toml:1: package `hosts` lacks `[lints] workspace = true` [layout]",
            ]
        );
    }

    #[test]
    fn the_rules_know_no_clock_but_their_tests_may() {
        let files = [
            ("crates/ringrift-rules/Cargo.toml", &*manifest("ringrift-rules", "rand = \"1\"\n")),
            ("crates/ringrift-rules/src/lib.rs", "mod notation;\n#[cfg(test)]\nmod tests;\n"),
            ("crates/ringrift-rules/src/notation.rs", "use serde::Serialize;\n"),
            (
                "crates/ringrift-rules/src/turn.rs",
                "use serde::Serialize;\nuse std::time::Duration;\n",
            ),
            ("crates/ringrift-rules/src/tests.rs", "use std::fs;\n"),
        ];
        assert_eq!(
            says(must_not_know, &files),
            [
                "crates/ringrift-rules/Cargo.toml:9: `ringrift-rules` does not use `rand`; \
             the rules are pure: time, chance and bytes come in as values [ignorance]",
                "crates/ringrift-rules/src/turn.rs:1: `ringrift-rules` does not know `serde`; \
             only `notation` knows formats [ignorance]",
                "crates/ringrift-rules/src/turn.rs:2: `ringrift-rules` does not know `std::time`; \
             the rules are pure: time, chance and bytes come in as values [ignorance]",
            ]
        );
    }

    #[test]
    fn a_dependency_is_used_and_where_it_is_used_decides_its_table() {
        let lines = "serde.workspace = true\ntempfile = \"3\"\ntoml.workspace = true\n";
        let files = [
            ("Cargo.toml", "[workspace.dependencies]\nserde = \"1\"\nzip = \"1\"\n"),
            ("crates/courier/Cargo.toml", &*manifest("courier", lines)),
            (
                "crates/courier/src/lib.rs",
                "// serde\n#[cfg(test)]\nmod tests {\n    use toml::Table;\n}\n",
            ),
            ("crates/courier/tests/it/main.rs", "use tempfile::tempdir;\n"),
        ];
        assert_eq!(
            says(unused, &files),
            [
                "Cargo.toml:3: no crate uses `zip`; remove it from [workspace.dependencies] [unused]",
                "crates/courier/Cargo.toml:9: `serde` is used by no code; remove it [unused]",
                "crates/courier/Cargo.toml:10: `tempfile` has a version of its own; write tempfile.workspace = true [unused]",
                "crates/courier/Cargo.toml:10: only tests use `tempfile`; it goes into [dev-dependencies] [unused]",
                "crates/courier/Cargo.toml:11: only tests use `toml`; it goes into [dev-dependencies] [unused]",
            ]
        );
    }
}
