//! What the servers of a log lost, as a node of it kept it.

use std::path::{Path, PathBuf};

/// What the name of such a file says: the position and the time of the last fact in it.
#[cfg(feature = "jetstream")]
pub(crate) fn name_of(position: u64, time_ms: i64) -> String {
    format!("lost-{position}-{time_ms}.sqlite")
}

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
        let said = name.strip_prefix("lost-").and_then(|rest| rest.strip_suffix(".sqlite"));
        let time_ms = said.and_then(|said| said.split_once('-')?.1.parse::<i64>().ok());
        found.extend(time_ms.map(|time_ms| (time_ms, path)));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
