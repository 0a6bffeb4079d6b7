//! Modules: a file that nobody declares is never compiled, and no tool of rustc says so.

use super::Finding;
use super::source::{code, mentions};
use super::tree::{Tree, split};

/// The categories of daemons, which are the folders of `ringrift-daemons`.
/// Source: manager contract, section 20.
const CATEGORIES: &[&str] = &[
    "distribution",
    "evaluation",
    "event",
    "feedback",
    "health",
    "misc",
    "pipeline",
    "provider",
    "queue",
    "recovery",
    "replication",
    "resource",
    "sync",
];

const DAEMONS: &str = "crates/ringrift-daemons/src/";

/// Rule `unreachable`: every Rust file is a root or declared by the module above it.
pub fn unreachable(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, _) in tree.rust("crates/").chain(tree.rust("xtask/")) {
        if is_root(path) || declaration(tree, path).is_some() || is_named_by_path(tree, path) {
            continue;
        }
        let parents = parents(path);
        let parent = parents.iter().find(|parent| tree.text(parent).is_some());
        let sentence = format!(
            "no module declares this file, so nobody compiles it; write `mod {};` in {}",
            module_name(path),
            parent.unwrap_or(&parents[0]),
        );
        findings.push(Finding { path: path.to_owned(), line: 0, rule: "unreachable", sentence });
    }
}

/// Rule `daemons`: the folder is the category, the file is the name, and `DAEMONS` lists it.
pub fn daemons(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.rust(DAEMONS) {
        let Some((line, name)) = daemon_name(text) else { continue };
        let mut report = |sentence: String| {
            findings.push(Finding { path: path.to_owned(), line, rule: "daemons", sentence });
        };
        let snake = name.to_lowercase();
        let (folder, file) = split(path);
        let category = folder.strip_prefix(DAEMONS).unwrap_or_default();
        if file != format!("{snake}.rs") {
            report(format!("`{name}` is not the name of its file; it lies in {snake}.rs"));
        }
        if !CATEGORIES.contains(&category) {
            let known = CATEGORIES.join(", ");
            report(format!("`{category}` is no category of daemons; there are: {known}"));
            continue;
        }
        let list = format!("{folder}/mod.rs");
        let entry = format!("::<{}::", file.trim_end_matches(".rs"));
        let listed =
            code(tree.text(&list).unwrap_or_default()).any(|(_, line)| line.contains(&entry));
        if !listed {
            report(format!("`{name}` is not in DAEMONS; add `Entry::of{entry}..>()` to {list}"));
        }
    }
}

/// The line of the id and the id in it, if the file implements a daemon.
fn daemon_name(text: &str) -> Option<(usize, &str)> {
    if !code(text).any(|(_, line)| line.contains("const SPEC: Spec")) {
        return None;
    }
    code(text).find_map(|(number, line)| {
        let (_, id) = line.split_once("id: DaemonId(\"")?;
        Some((number, id.split('"').next()?))
    })
}

/// Whether a module is compiled for tests alone: it, or one above it, stands under `cfg(test)`.
pub fn only_for_tests(tree: &Tree, path: &str) -> bool {
    let mut path = path.to_owned();
    while let Some(declaration) = declaration(tree, &path) {
        if declaration.under_test {
            return true;
        }
        path = declaration.by;
    }
    false
}

struct Declaration {
    by: String,
    under_test: bool,
}

fn declaration(tree: &Tree, path: &str) -> Option<Declaration> {
    if is_root(path) {
        return None;
    }
    let declaration = format!("mod {};", module_name(path));
    parents(path).into_iter().find_map(|parent| {
        let lines: Vec<&str> = tree.text(&parent)?.lines().map(str::trim).collect();
        let index = lines.iter().position(|line| {
            let rest = line.strip_suffix(declaration.as_str());
            rest.is_some_and(|before| before.is_empty() || before.starts_with("pub"))
        })?;
        let attributes = lines[..index].iter().rev().take_while(|line| line.starts_with("#["));
        let under_test = attributes.clone().any(|line| mentions(line, "test"));
        Some(Declaration { by: parent, under_test })
    })
}

/// `#[path = "..."]` or `include!("...")` somewhere in the package.
fn is_named_by_path(tree: &Tree, path: &str) -> bool {
    let name = format!("{}\"", split(path).1);
    let package: String = path.split_inclusive('/').take(2).collect();
    tree.rust(&package).any(|(other, text)| other != path && text.contains(&name))
}

/// What cargo compiles by itself: targets, by their places in the package.
fn is_root(path: &str) -> bool {
    let inside = path.strip_prefix("xtask/").or_else(|| {
        let (_, inside) = path.strip_prefix("crates/")?.split_once('/')?;
        Some(inside)
    });
    let inside: Vec<&str> = inside.unwrap_or(path).split('/').collect();
    matches!(
        inside[..],
        ["build.rs"]
            | ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["src", "bin", _, "main.rs"]
            | ["tests" | "examples" | "benches", _]
            | ["tests" | "examples" | "benches", _, "main.rs"]
    )
}

/// `b` of `a/b.rs` and of `a/b/mod.rs`.
fn module_name(path: &str) -> &str {
    let path = path.strip_suffix("/mod.rs").unwrap_or(path);
    split(path).1.trim_end_matches(".rs")
}

/// The files that may declare the module of a file.
fn parents(path: &str) -> Vec<String> {
    let folder = split(path.strip_suffix("/mod.rs").unwrap_or(path)).0;
    if folder.ends_with("/src") {
        return vec![format!("{folder}/lib.rs"), format!("{folder}/main.rs")];
    }
    vec![format!("{folder}/mod.rs"), format!("{folder}.rs"), format!("{folder}/main.rs")]
}

#[cfg(test)]
mod tests {
    use super::super::says;
    use super::*;

    #[test]
    fn a_file_without_a_mod_line_is_found() {
        let files = [
            ("crates/depot/src/lib.rs", "pub mod store;\nmod trash;\n"),
            ("crates/depot/src/store/mod.rs", "pub(crate) mod disk;\n"),
            ("crates/depot/src/store/disk.rs", ""),
            ("crates/depot/src/store/lost.rs", ""),
            ("crates/depot/src/trash.rs", "mod sweep;\n// mod gone;\n"),
            ("crates/depot/src/trash/sweep.rs", ""),
            ("crates/depot/src/trash/gone.rs", ""),
            ("crates/depot/src/bin/tool.rs", ""),
            ("crates/depot/tests/it/main.rs", "mod kill;\n"),
            ("crates/depot/tests/it/kill.rs", ""),
        ];
        let sentence = "no module declares this file, so nobody compiles it; write";
        assert_eq!(
            says(unreachable, &files),
            [
                format!(
                    "crates/depot/src/store/lost.rs:1: {sentence} `mod lost;` in crates/depot/src/store/mod.rs [unreachable]"
                ),
                format!(
                    "crates/depot/src/trash/gone.rs:1: {sentence} `mod gone;` in crates/depot/src/trash.rs [unreachable]"
                ),
            ]
        );
    }

    #[test]
    fn a_module_below_a_test_module_is_only_for_tests() {
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", "mod b;\n#[cfg(test)]\n#[path = \"x\"]\nmod tests;\n"),
            ("crates/a/src/b.rs", ""),
            ("crates/a/src/tests.rs", "mod deep;\n"),
            ("crates/a/src/tests/deep.rs", ""),
        ]);
        let check = |path, expected| assert_eq!(only_for_tests(&tree, path), expected, "{path}");
        check("crates/a/src/lib.rs", false);
        check("crates/a/src/b.rs", false);
        check("crates/a/src/tests.rs", true);
        check("crates/a/src/tests/deep.rs", true);
    }

    #[test]
    fn a_daemon_is_listed_in_the_folder_of_its_category() {
        let daemon =
            |id: &str| format!("    const SPEC: Spec = Spec {{\n        id: DaemonId(\"{id}\"),\n");
        let files = [
            (
                "crates/ringrift-daemons/src/event/mod.rs",
                "    Entry::of::<event_router::EventRouter>(),\n",
            ),
            ("crates/ringrift-daemons/src/event/event_router.rs", &*daemon("EVENT_ROUTER")),
            ("crates/ringrift-daemons/src/event/dlq.rs", &*daemon("DLQ_RETRY")),
            ("crates/ringrift-daemons/src/event/policy.rs", "fn judge() {}\n"),
            ("crates/ringrift-daemons/src/core/elo_sync.rs", &*daemon("ELO_SYNC")),
        ];
        assert_eq!(
            says(daemons, &files),
            [
                "crates/ringrift-daemons/src/core/elo_sync.rs:2: `core` is no category of daemons; there are: \
             distribution, evaluation, event, feedback, health, misc, pipeline, provider, queue, recovery, \
             replication, resource, sync [daemons]",
                "crates/ringrift-daemons/src/event/dlq.rs:2: `DLQ_RETRY` is not in DAEMONS; \
             add `Entry::of::<dlq::..>()` to crates/ringrift-daemons/src/event/mod.rs [daemons]",
                "crates/ringrift-daemons/src/event/dlq.rs:2: `DLQ_RETRY` is not the name of its file; \
             it lies in dlq_retry.rs [daemons]",
            ]
        );
    }
}
