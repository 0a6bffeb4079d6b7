//! The files of the repository, read once.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::workspace::{Workspace, capture};

/// Path from the root, with `/`, to file.
pub struct Tree(BTreeMap<String, File>);

pub struct File {
    /// Bytes.
    pub size: u64,
    /// Empty for a file that is no text.
    pub text: String,
}

impl Tree {
    /// What git tracks or would track: a file that is only not added yet shall speak up too.
    pub fn read(workspace: &Workspace) -> anyhow::Result<Self> {
        let mut list = workspace.command("git");
        list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let mut files = BTreeMap::new();
        for path in capture(list)?.split_terminator('\0') {
            let place = workspace.root().join(path);
            // Removed from the disk but not yet from the index, or a link to nowhere.
            if !place.is_file() {
                continue;
            }
            let bytes = fs_err::read(&place).context("read a tracked file")?;
            let size = bytes.len() as u64;
            let text = String::from_utf8(bytes).unwrap_or_default();
            files.insert(path.to_owned(), File { size, text });
        }
        Ok(Self(files))
    }

    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let file = |text: &str| File { size: text.len() as u64, text: text.to_owned() };
        Self(files.iter().map(|&(path, text)| (path.to_owned(), file(text))).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &File)> {
        self.0.iter().map(|(path, file)| (path.as_str(), file))
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(|file| file.text.as_str())
    }

    /// Files below a folder, whose name ends with `/`.
    pub fn below(&self, folder: &str) -> impl Iterator<Item = (&str, &File)> {
        self.iter().filter(move |(path, _)| path.starts_with(folder))
    }

    /// Rust files below a folder, whose name ends with `/`.
    pub fn rust(&self, folder: &str) -> impl Iterator<Item = (&str, &str)> {
        self.below(folder)
            .filter(|(path, _)| extension(path) == "rs")
            .map(|(path, file)| (path, file.text.as_str()))
    }
}

/// `a/b` and `c.rs` of `a/b/c.rs`; the folder of a file in the root is empty.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// `rs` of `a/b.rs`; empty without a dot.
pub fn extension(path: &str) -> &str {
    split(path).1.rsplit_once('.').map_or("", |(_, extension)| extension)
}
