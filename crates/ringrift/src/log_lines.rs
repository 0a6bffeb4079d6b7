//! Reading a log and what was put aside of it: the last lines, and those to come.

use std::{
    io::{self, BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::logs::KEEP;

/// A line of the log, text or JSON as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    raw: String,
}

impl LogLine {
    /// The line as it stands in the file.
    pub fn as_text(&self) -> &str {
        &self.raw
    }

    /// Who speaks: a daemon in upper case, or a part of the manager.
    pub fn speaker(&self) -> Option<String> {
        match self.object() {
            Some(object) => object.get("daemon")?.as_str().map(str::to_owned),
            None => self.parts().map(|(_, _, speaker, _)| speaker.to_owned()),
        }
    }

    /// Time, level, speaker and message of either form; a line of neither is all message.
    pub fn as_json(&self) -> Value {
        if let Some(object) = self.object() {
            return Value::Object(object);
        }
        match self.parts() {
            Some((time, level, daemon, message)) => {
                json!({ "time": time, "level": level, "daemon": daemon, "message": message })
            }
            None => json!({ "message": self.raw }),
        }
    }

    fn object(&self) -> Option<Map<String, Value>> {
        if self.raw.starts_with('{') { serde_json::from_str(&self.raw).ok() } else { None }
    }

    /// `TIME LEVEL SPEAKER: message`.
    fn parts(&self) -> Option<(&str, &str, &str, &str)> {
        let (time, rest) = self.raw.split_once(' ')?;
        let (level, rest) = rest.split_once(' ')?;
        let (speaker, message) = rest.split_once(": ")?;
        let plain = !speaker.is_empty() && !speaker.contains(' ');
        plain.then_some((time, level, speaker, message))
    }
}

/// Which lines are wanted: all, or those of one daemon.
#[derive(Debug, Clone, Default)]
pub struct Of(pub Option<String>);

impl Of {
    fn takes(&self, line: &LogLine) -> bool {
        self.0.as_ref().is_none_or(|name| line.speaker().as_ref() == Some(name))
    }
}

/// The last `count` lines, oldest first, of the file and of those put aside as `FILE.1` and so on.
pub fn last(file: &Path, of: &Of, count: usize) -> io::Result<Vec<LogLine>> {
    let mut newest_first = Vec::new();
    let aside = (1..=KEEP).map(|number| {
        let mut path = file.as_os_str().to_owned();
        path.push(format!(".{number}"));
        PathBuf::from(path)
    });
    for path in std::iter::once(file.to_owned()).chain(aside) {
        if newest_first.len() >= count {
            break;
        }
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().rev().map(|raw| LogLine { raw: raw.to_owned() });
        let missing = count - newest_first.len();
        newest_first.extend(lines.filter(|line| of.takes(line)).take(missing));
    }
    newest_first.reverse();
    Ok(newest_first)
}

/// Reads what is written from now on, also when the file is put aside meanwhile.
pub struct Follower {
    path: PathBuf,
    of: Of,
    reader: BufReader<fs_err::File>,
    inode: u64,
    /// The begin of a line whose end is not written yet.
    torn: Vec<u8>,
}

impl Follower {
    /// Begins at the end of the file.
    pub fn new(file: &Path, of: Of) -> io::Result<Self> {
        use std::io::Seek as _;
        let path = file.to_owned();
        let (mut reader, inode) = open(&path)?;
        reader.seek(io::SeekFrom::End(0))?;
        Ok(Self { path, of, reader, inode, torn: Vec::new() })
    }

    /// What came since the last call.
    pub fn new_lines(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        // Looked at before the rest is read: what comes after this look is in the new file.
        let now = match fs_err::metadata(&self.path) {
            Ok(now) => now.ino(),
            // Between two steps of putting it aside.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.inode,
            Err(error) => return Err(error),
        };
        self.drain(&mut lines)?;
        if now != self.inode {
            (self.reader, self.inode) = open(&self.path)?;
            self.torn.clear();
            self.drain(&mut lines)?;
        }
        Ok(lines)
    }

    fn drain(&mut self, lines: &mut Vec<LogLine>) -> io::Result<()> {
        while self.reader.read_until(b'\n', &mut self.torn)? > 0 && self.torn.ends_with(b"\n") {
            let raw = String::from_utf8_lossy(&self.torn).trim_end().to_owned();
            self.torn.clear();
            let line = LogLine { raw };
            if self.of.takes(&line) {
                lines.push(line);
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(BufReader<fs_err::File>, u64)> {
    let file = fs_err::File::open(path)?;
    let inode = file.metadata()?.ino();
    Ok((BufReader::new(file), inode))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tempfile::tempdir;

    use super::*;

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(LogLine::as_text).collect()
    }

    #[test]
    fn both_forms_of_a_line_name_who_speaks() {
        let text = LogLine { raw: "2026-01-01T00:00:00Z WARN AUTO_SYNC: slow: very a=1".into() };
        assert_eq!(text.speaker().unwrap(), "AUTO_SYNC");
        assert_eq!(text.as_json()["message"], "slow: very a=1");
        let raw = r#"{"time":"t","level":"INFO","daemon":"EVALUATION","message":"x","games":3}"#;
        let line = LogLine { raw: raw.into() };
        assert_eq!(
            (line.speaker().unwrap().as_str(), &line.as_json()["games"]),
            ("EVALUATION", &3.into())
        );
        let torn = LogLine { raw: "no line of ours".into() };
        assert_eq!(
            (torn.speaker(), torn.as_json()),
            (None, json!({ "message": "no line of ours" }))
        );
    }

    #[test]
    fn the_last_lines_reach_back_into_what_was_put_aside() {
        let dir = tempdir().unwrap();
        assert_eq!(last(&dir.path().join("daemons.log"), &Of(None), 5).unwrap(), []);
        fs_err::write(dir.path().join("daemons.log.2"), "t INFO A: 1\nt INFO B: 2\n").unwrap();
        fs_err::write(dir.path().join("daemons.log.1"), "t INFO A: 3\n").unwrap();
        fs_err::write(dir.path().join("daemons.log"), "t INFO B: 4\nt INFO A: 5\n").unwrap();
        let check = |of: Option<&str>, count, expected: &[&str]| {
            let found =
                last(&dir.path().join("daemons.log"), &Of(of.map(str::to_owned)), count).unwrap();
            assert_eq!(texts(&found), expected);
        };
        check(None, 2, &["t INFO B: 4", "t INFO A: 5"]);
        check(Some("A"), 9, &["t INFO A: 1", "t INFO A: 3", "t INFO A: 5"]);
        check(Some("A"), 2, &["t INFO A: 3", "t INFO A: 5"]);
    }

    #[test]
    fn a_follower_loses_no_line_when_the_file_is_put_aside() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("daemons.log");
        fs_err::write(&path, "t INFO A: old\n").unwrap();
        let mut follower = Follower::new(&path, Of(Some("A".into()))).unwrap();
        assert_eq!(follower.new_lines().unwrap(), []);
        let mut file = fs_err::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"t INFO A: 1\nt INFO B: 2\nt INFO A: to").unwrap();
        assert_eq!(texts(&follower.new_lines().unwrap()), ["t INFO A: 1"]);
        file.write_all(b"rn\n").unwrap();
        fs_err::rename(&path, dir.path().join("daemons.log.1")).unwrap();
        assert_eq!(texts(&follower.new_lines().unwrap()), ["t INFO A: torn"]);
        file.write_all(b"t INFO A: 3\n").unwrap();
        fs_err::write(&path, "t INFO A: 4\n").unwrap();
        assert_eq!(texts(&follower.new_lines().unwrap()), ["t INFO A: 3", "t INFO A: 4"]);
    }
}
