//! Files as they come: JSON, JSON lines, either of them gzipped, known by their content.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use flate2::read::MultiGzDecoder;
use fs_err::File;
use ringrift_rules::binary::MAGIC;
use serde_json::Value;

/// Longest line and largest JSON file that is read; recorded games stay far below.
const MOST_BYTES: u64 = 256 << 20;
/// Deepest folders that are searched: a link in a circle ends somewhere.
const DEEPEST: usize = 16;

/// What a file holds.
pub enum Content {
    /// One JSON value.
    Json(Value),
    /// A JSON value a line.
    Lines(Lines),
    /// A binary game record.
    Record(Vec<u8>),
    /// Bytes that are no text of JSON.
    Other,
}

/// JSON lines.
pub struct Lines {
    reader: Box<dyn BufRead>,
    /// The first line was read to see what the file is.
    first: Option<Value>,
    number: usize,
}

impl Lines {
    /// The next line that is not blank.
    pub fn next(&mut self) -> anyhow::Result<Option<Value>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            self.number += 1;
            let place = || format!("line {}", self.number);
            let Some(line) = read_line(self.reader.as_mut()).with_context(place)? else {
                return Ok(None);
            };
            if !line.trim_ascii().is_empty() {
                return serde_json::from_slice(&line).map(Some).with_context(place);
            }
        }
    }

    /// Number of the line read last, from 1.
    pub fn number(&self) -> usize {
        self.number
    }
}

fn read_line(reader: &mut dyn BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(MOST_BYTES + 1).read_until(b'\n', &mut line)?;
    if line.len() as u64 > MOST_BYTES {
        bail!("longer than {} MiB", MOST_BYTES >> 20);
    }
    Ok((!line.is_empty()).then_some(line))
}

/// Opens a file and looks what it is.
pub fn open(path: &Path) -> anyhow::Result<Content> {
    let mut plain = BufReader::new(File::open(path)?);
    let is_gzip = plain.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn BufRead> = if is_gzip {
        Box::new(BufReader::new(MultiGzDecoder::new(plain)))
    } else {
        Box::new(plain)
    };
    if reader.fill_buf().context("line 1")?.starts_with(&MAGIC) {
        let mut bytes = Vec::new();
        reader.take(MOST_BYTES).read_to_end(&mut bytes)?;
        return Ok(Content::Record(bytes));
    }
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let starts_json = {
        let head = reader.fill_buf().context("line 1")?;
        let start = head.iter().find(|byte| !blank(byte));
        start.is_none_or(|byte| matches!(byte, b'{' | b'['))
    };
    if !starts_json {
        return Ok(Content::Other);
    }
    let Some(mut bytes) = read_line(reader.as_mut()).context("line 1")? else {
        bail!("the file is empty");
    };
    // A whole value on the first line, and more behind it: lines. Else one value over all lines.
    if let Ok(first) = serde_json::from_slice::<Value>(&bytes) {
        let more = reader.fill_buf().context("line 2")?;
        if !more.iter().all(u8::is_ascii_whitespace) {
            return Ok(Content::Lines(Lines { reader, first: Some(first), number: 1 }));
        }
        return Ok(Content::Json(first));
    }
    reader.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        bail!("larger than {} MiB", MOST_BYTES >> 20);
    }
    Ok(Content::Json(serde_json::from_slice(&bytes)?))
}

/// A file to read; whether it was named, or met in a folder, where other files may lie about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Named on the command line.
    pub named: bool,
}

/// All files of these paths; of folders all within, by name.
pub fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for path in paths {
        let about = fs_err::metadata(path)?;
        if about.is_dir() {
            walk(path, 0, &mut found)?;
        } else {
            found.push(Found { path: path.clone(), named: true });
        }
    }
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<Found>) -> anyhow::Result<()> {
    if depth > DEEPEST {
        bail!("{} lies more than {DEEPEST} folders deep", folder.display());
    }
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        entries.push(entry?.path());
    }
    entries.sort_unstable();
    for path in entries {
        if path.is_dir() {
            walk(&path, depth + 1, found)?;
        } else if path.is_file() {
            found.push(Found { path, named: false });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    fn opened(bytes: &[u8]) -> Result<Vec<Value>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any name");
        fs_err::write(&path, bytes).unwrap();
        let sentence = |error: anyhow::Error| format!("{error:#}");
        match open(&path).map_err(sentence)? {
            Content::Json(value) => Ok(vec![value]),
            Content::Record(_) | Content::Other => Err("other".to_owned()),
            Content::Lines(mut lines) => {
                let mut all = Vec::new();
                while let Some(value) = lines.next().map_err(sentence)? {
                    all.push(value);
                }
                Ok(all)
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn files_are_known_by_their_content() {
        let one = vec![json!({ "a": 1 })];
        let two = vec![json!({ "a": 1 }), json!([2])];
        for pack in [|bytes: &[u8]| bytes.to_vec(), |bytes: &[u8]| gzip(bytes)] {
            assert_eq!(opened(&pack(b"{\"a\":1}")), Ok(one.clone()));
            assert_eq!(opened(&pack(b"\n {\n\"a\"\n:1}\n")), Ok(one.clone()));
            assert_eq!(opened(&pack(b"{\"a\":1}\n\n[2]\n")), Ok(two.clone()));
            assert_eq!(opened(&pack(b"{\"a\":1}\r\n[2]")), Ok(two.clone()));
            assert_eq!(opened(&pack(b"# A title\n")), Err("other".to_owned()));
        }
    }

    #[test]
    fn what_is_broken_is_refused_with_the_place() {
        let check = |bytes: &[u8], place: &str| {
            let error = opened(bytes).unwrap_err();
            assert!(error.contains(place), "{error}");
        };
        check(b"", "empty");
        check(b"{\"a\":1}\n{\"a\":\n", "line 2");
        check(b"{\"a\":1", "line 1 column");
        check(b"{\"a\":1}\n\xff\n", "line 2");
        let whole = gzip(&b"{\"a\":1234567890}\n".repeat(1000));
        check(&whole[..whole.len() - 20], "line");
        let mut flipped = gzip(b"{\"a\":1}\n[2]\n");
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        check(&flipped, "line");
    }

    #[test]
    fn a_folder_gives_all_its_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("b")).unwrap();
        for name in ["b/2", "b/1", "a", "c"] {
            fs_err::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<String> = files(&[folder.path().to_owned()])
            .unwrap()
            .iter()
            .map(|f| f.path.strip_prefix(folder.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["a", "b/1", "b/2", "c"]);
        assert!(files(&[folder.path().join("none")]).is_err());
    }
}
