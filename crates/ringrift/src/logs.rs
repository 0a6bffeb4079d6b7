//! `logs/daemons.log`: one line per event, the daemon's name first, put aside by size.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{
    Layer as _,
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// Size at which the file is put aside, bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Files put aside that are kept; `daemons.log.1` is the newest.
const KEEP: u32 = 4;

/// Sends events of this level and above to `logs/daemons.log`, and warnings to standard error.
///
/// What is still on its way is written when the guard is dropped.
pub fn start(folder: &Path, level: &str) -> anyhow::Result<WorkerGuard> {
    let level: LevelFilter = level.parse().context("read the log level")?;
    let file = RotatingFile::open(folder.join("daemons.log")).context("open the log")?;
    // Its own thread writes; when that is too slow, lines are dropped rather than daemons held up.
    let (writer, guard) = tracing_appender::non_blocking(file);
    let to_file = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(DaemonFirst { time: true })
        .with_writer(writer)
        .with_filter(level);
    let to_people = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(DaemonFirst { time: false })
        .with_writer(io::stderr)
        .with_filter(LevelFilter::WARN);
    tracing_subscriber::registry()
        .with(to_file)
        .with(to_people)
        .try_init()
        .context("start the log")?;
    Ok(guard)
}

/// `2026-11-24T01:00:00.000000Z INFO AUTO_SYNC: message key=value`.
struct DaemonFirst {
    time: bool,
}

impl<S, N> FormatEvent<S, N> for DaemonFirst
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.time {
            SystemTime.format_time(&mut out)?;
            out.write_char(' ')?;
        }
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            Level::INFO => "INFO",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "TRACE",
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = event.metadata().target();
        let daemon = fields.daemon.unwrap_or_else(|| speaker(target));
        writeln!(out, "{level} {daemon}: {}{}", fields.message, fields.rest)
    }
}

/// Who speaks, by the module: `ringrift_daemons::<category>::<daemon>` is the daemon, any other the
/// crate and its module.
fn speaker(target: &str) -> String {
    let mut parts = target.split("::");
    match (parts.next(), parts.next(), parts.next()) {
        (Some("ringrift_daemons"), Some(_), Some(daemon)) => daemon.to_uppercase(),
        (Some(package), Some(module), _) => format!("{package}.{module}"),
        _ => target.to_owned(),
    }
}

#[derive(Default)]
struct Fields {
    daemon: Option<String>,
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A line is an event: what people typed or files contain must not make two.
        let text = format!("{value:?}").replace(['\n', '\r'], " ");
        self.add(field.name(), text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let plain = !value.is_empty() && !value.contains([' ', '"', '\n', '\r', '=']);
        let text =
            if plain || field.name() == "daemon" { value.to_owned() } else { format!("{value:?}") };
        self.add(field.name(), text);
    }
}

impl Fields {
    fn add(&mut self, name: &str, text: String) {
        match name {
            "message" => self.message = text,
            "daemon" => self.daemon = Some(text),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(self.rest, " {name}={text}");
            }
        }
    }
}

/// A file that is put aside when it is large.
struct RotatingFile {
    path: PathBuf,
    file: fs_err::File,
    bytes: u64,
}

impl RotatingFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = fs_err::OpenOptions::new().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEEP).rev() {
            let from = self.aside(number);
            if from.exists() {
                fs_err::rename(from, self.aside(number + 1))?;
            }
        }
        fs_err::rename(&self.path, self.aside(1))?;
        *self = Self::open(self.path.clone())?;
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes >= MAX_BYTES {
            self.rotate()?;
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_known_by_its_module() {
        assert_eq!(speaker("ringrift_daemons::sync::auto_sync"), "AUTO_SYNC");
        assert_eq!(speaker("ringrift_daemons::workshop"), "ringrift_daemons.workshop");
        assert_eq!(speaker("warden::supervisor"), "warden.supervisor");
    }

    #[test]
    fn a_large_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = RotatingFile::open(dir.path().join("daemons.log")).unwrap();
        for _ in 0..=KEEP {
            file.bytes = MAX_BYTES;
            file.write_all(b"line\n").unwrap();
        }
        assert_eq!(fs_err::read_to_string(&file.path).unwrap(), "line\n");
        assert!(file.aside(KEEP).exists());
        assert!(!file.aside(KEEP + 1).exists());
    }
}
