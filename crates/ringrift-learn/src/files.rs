//! Files that are visible only complete.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fs_err::File;

/// Writes a file under a temporary name beside `path`, flushes it to disk, and renames it.
pub(crate) fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(name) = path.file_name() else {
        bail!("{} is no file name", path.display());
    };
    let mut partial = name.to_owned();
    partial.push(".part");
    let partial: PathBuf = path.with_file_name(partial);
    let result = (|| {
        let mut buffer = BufWriter::new(File::create(&partial)?);
        fill(&mut buffer)?;
        let handle = buffer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        handle.sync_all()?;
        fs_err::rename(&partial, path)?;
        sync_folder(path)
    })();
    if result.is_err() {
        // The error that is reported is the first one; a leftover is no result.
        let _ = fs_err::remove_file(&partial);
    }
    result.with_context(|| format!("write {}", path.display()))
}

/// Writes bytes, see [`write_atomically`].
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, |writer| Ok(writer.write_all(bytes)?))
}

/// Makes a rename durable.
fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_neither_file_nor_leftover() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("games.gz");
        fs_err::write(&path, "old").unwrap();
        let error = write_atomically(&path, |writer| {
            writer.write_all(b"half")?;
            bail!("the disk is full")
        });
        assert!(format!("{:#}", error.unwrap_err()).contains("the disk is full"));
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
        write_bytes(&path, b"new").unwrap();
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "new");
    }
}
