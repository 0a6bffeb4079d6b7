//! `logs/daemons.log`: one line per event, the daemon's name first, put aside by size.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Map, Value};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer as _, Registry,
    filter::{FilterExt as _, LevelFilter, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

/// Size at which the file is put aside, bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Files put aside that are kept; `daemons.log.1` is the newest.
pub const KEEP: u32 = 4;
/// Lines that wait for the thread that writes; their places are memory from the start, so not the
/// library's 128,000, which are 4 MiB.
const LINES_WAITING: usize = 4096;
/// The file that is written.
pub const FILE: &str = "daemons.log";

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `TIME LEVEL DAEMON: message key=value`.
    Text,
    /// One JSON object with the same in `time`, `level`, `daemon`, `message` and the keys.
    Json,
}

/// A log that is written while this lives.
pub struct Log {
    /// How much is written.
    pub level: LogLevel,
    /// What is still on its way is written when this is dropped.
    _guard: WorkerGuard,
}

/// The least level that the file takes; a clone changes the same log.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<LevelFilter, Registry>);

impl LogLevel {
    /// The level in lower case.
    pub fn now(&self) -> String {
        self.0.clone_current().map_or_else(|| "off".into(), |level| level.to_string())
    }

    /// Takes another level, or says in a sentence why not.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let level: LevelFilter = level.parse().map_err(|_| {
            format!("'{level}' is no level: allowed are error, warn, info, debug and trace")
        })?;
        self.0.reload(level).map_err(|error| format!("the level cannot be changed: {error}"))
    }
}

/// Sends events of this level and above to `logs/daemons.log`, and warnings to standard error.
pub fn start(folder: &Path, level: &str, format: Format) -> anyhow::Result<Log> {
    let level: LevelFilter = level.parse().context("read the log level")?;
    let file = RotatingFile::open(folder.join(FILE)).context("open the log")?;
    // Its own thread writes; when that is too slow, lines are dropped rather than daemons held up.
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_WAITING).finish(file);
    let (level, handle) = reload::Layer::new(level);
    let to_file = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(DaemonFirst { time: true, format })
        .with_writer(writer)
        .with_filter(level.and(filter_fn(is_discreet)));
    let to_people = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(DaemonFirst { time: false, format: Format::Text })
        .with_writer(io::stderr)
        .with_filter(LevelFilter::WARN.and(filter_fn(is_discreet)));
    tracing_subscriber::registry()
        .with(to_file)
        .with(to_people)
        .try_init()
        .context("start the log")?;
    Ok(Log { level: LogLevel(handle), _guard: guard })
}

/// The client of a cluster's servers tells their addresses with what stands before the host, and each of its
/// tries to reach them. What matters of it the log's engine says, once.
fn is_discreet(event: &Metadata<'_>) -> bool {
    !event.target().starts_with("async_nats")
}

/// One line per event, whoever speaks before the message.
struct DaemonFirst {
    time: bool,
    format: Format,
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
        let mut time = String::new();
        if self.time {
            SystemTime.format_time(&mut Writer::new(&mut time))?;
        }
        let level = event.metadata().level().as_str();
        let target = event.metadata().target();
        match self.format {
            Format::Text => {
                let mut fields = Fields::default();
                event.record(&mut fields);
                let daemon = fields.daemon.unwrap_or_else(|| speaker(target));
                let space = if self.time { " " } else { "" };
                writeln!(out, "{time}{space}{level} {daemon}: {}{}", fields.message, fields.rest)
            }
            Format::Json => {
                let mut fields = JsonFields::default();
                event.record(&mut fields);
                let mut line = Map::new();
                line.insert("time".into(), time.into());
                line.insert("level".into(), level.into());
                line.insert("daemon".into(), speaker(target).into());
                // What an event says of itself comes last, so `daemon` as a field wins.
                line.extend(fields.0);
                writeln!(out, "{}", Value::Object(line))
            }
        }
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

/// The fields of an event with their types.
#[derive(Default)]
struct JsonFields(Map<String, Value>);

impl JsonFields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for JsonFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
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
    use std::sync::{Arc, Mutex};

    use super::*;

    fn line(format: Format) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&written);
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(DaemonFirst { time: false, format })
            .with_writer(move || Shared(Arc::clone(&writer)));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                daemon = "AUTO_SYNC",
                files = 3,
                error = "two\nlines",
                "sync {}",
                "ends"
            );
        });
        let bytes = written.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_in_either_form() {
        assert_eq!(line(Format::Text), "WARN AUTO_SYNC: sync ends files=3 error=\"two\\nlines\"\n");
        let json = line(Format::Json);
        assert_eq!(json.lines().count(), 1, "{json}");
        let json: Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!({
            "time": "", "level": "WARN", "daemon": "AUTO_SYNC", "message": "sync ends",
            "files": 3, "error": "two\nlines",
        });
        assert_eq!(json, expected);
    }

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
