//! What the servers of a log lost, as a node of it kept it.

use std::path::{Path, PathBuf};

/// What the names of such files begin with; then comes the last position that they hold.
pub(crate) const LOST: &str = "lost-";

/// The copies in a node's folder: what it knew when the servers had lost facts or had another log, the oldest first. A
/// log that goes on from one of them is begun with the most that any node knew; files that nobody needs may be removed.
pub fn lost(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix(LOST).and_then(|rest| rest.strip_suffix(".sqlite"));
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
