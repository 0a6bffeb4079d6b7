//! Manifests: which package, which dependencies.

use toml::{Table, Value};

use super::tree::{Tree, split};

/// A parsed `Cargo.toml`.
pub struct Manifest<'a> {
    pub path: &'a str,
    /// With `/` at the end; empty for the root.
    pub folder: String,
    pub table: Table,
    text: &'a str,
}

/// One line of a dependency table.
pub struct Dependency {
    /// As the manifest writes it, which is also how the code names it (with `_`).
    pub name: String,
    pub kind: Kind,
    /// `name.workspace = true`: the version stands once, in the root.
    pub inherited: bool,
    pub line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Development,
    Build,
}

const TABLES: &[(&str, Kind)] = &[
    ("dependencies", Kind::Normal),
    ("dev-dependencies", Kind::Development),
    ("build-dependencies", Kind::Build),
];

/// Every manifest of the tree; one that does not parse is cargo's to report, and is left out here.
pub fn manifests(tree: &Tree) -> Vec<Manifest<'_>> {
    tree.iter()
        .filter(|(path, _)| split(path).1 == "Cargo.toml")
        .filter_map(|(path, file)| {
            let folder = path.strip_suffix("Cargo.toml").expect("filtered above").to_owned();
            Some(Manifest { path, folder, table: file.text.parse().ok()?, text: &file.text })
        })
        .collect()
}

/// The manifest of the workspace.
pub fn root(tree: &Tree) -> Option<Manifest<'_>> {
    manifests(tree).into_iter().find(|manifest| manifest.folder.is_empty())
}

/// Manifests of packages: all but a virtual root.
pub fn packages(tree: &Tree) -> Vec<Manifest<'_>> {
    manifests(tree).into_iter().filter(|manifest| manifest.name().is_some()).collect()
}

impl Manifest<'_> {
    pub fn name(&self) -> Option<&str> {
        self.table.get("package")?.get("name")?.as_str()
    }

    /// The value at a path of keys.
    pub fn get(&self, keys: &[&str]) -> Option<&Value> {
        let (first, rest) = keys.split_first()?;
        rest.iter().try_fold(self.table.get(*first)?, |value, key| value.get(*key))
    }

    /// All dependencies, those of single targets too.
    pub fn dependencies(&self) -> Vec<Dependency> {
        let mut scopes = vec![&self.table];
        let targets = self.get(&["target"]).and_then(Value::as_table);
        scopes.extend(targets.into_iter().flat_map(Table::values).filter_map(Value::as_table));
        let mut dependencies = Vec::new();
        for scope in scopes {
            for &(key, kind) in TABLES {
                let Some(table) = scope.get(key).and_then(Value::as_table) else { continue };
                for (name, value) in table {
                    dependencies.push(Dependency {
                        name: name.clone(),
                        kind,
                        inherited: value.get("workspace") == Some(&Value::Boolean(true)),
                        line: self.line_of(name, kind),
                    });
                }
            }
        }
        dependencies
    }

    /// The line that begins with the key, in a table of that kind if there are several.
    pub fn line_of(&self, key: &str, kind: Kind) -> usize {
        let wanted = TABLES.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name);
        let mut table = "";
        let mut anywhere = 0;
        for (index, line) in self.text.lines().enumerate() {
            if let Some(header) = line.strip_prefix('[') {
                table = header.trim_end_matches(']');
            }
            let ends_key = |rest: &str| rest.starts_with(['.', ' ', '=']);
            if line.strip_prefix(key).is_some_and(ends_key) {
                anywhere = index + 1;
                if table.rsplit('.').next() == Some(wanted) {
                    return anywhere;
                }
            }
        }
        anywhere
    }
}
