//! The rows about HTTP: wrk against an idle manager and against the least that sends the same bytes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::births::marked;
use super::figures::{Goal, Reading, Row, Unit, mebibytes, percent};
use super::ours::{Target, build};
use super::processes::{Family, Message, Process, Usage, now, send};
use super::table::Sheet;
use super::tools::Package;
use super::{Choice, Place};
use crate::workspace::capture;

const WRK: Package = Package::Debian { name: "wrk", program: "wrk" };
const ROUNDS: usize = 9;
/// As the anchors were measured: one thread of wrk, four connections; it shares the cores.
const STEADY: &[&str] = &["-t1", "-c4", "-d3s"];
/// 256 connections that ask as fast as they can, for longer than the probe beside them.
const FLOOD: &[&str] = &["-t1", "-c256", "-d9s"];
const PROBE: &[&str] = &["-t1", "-c1", "-d5s", "--latency"];
/// The profile with the fewest daemons: no work that would take processor time from the answers.
const PROFILE: &str = "minimal";
const READY: u64 = 20;
const IDLE: Duration = Duration::from_secs(20);

/// A manager at work, and beside it a bare server of the same bodies.
struct Servers<'a> {
    manager: Child,
    ours: String,
    bare: Option<(Child, String)>,
    place: &'a Place<'a>,
    mark: String,
}

impl<'a> Servers<'a> {
    fn start(place: &'a Place<'a>) -> anyhow::Result<Self> {
        let program = build(place.workspace, "ringrift", Target::Program("ringrift"))?;
        let bare = build(place.workspace, "ringrift", Target::Example("bare_http"))?;
        let dir = place.home.join("manager");
        let data = dir.join("data");
        fs_err::create_dir_all(&dir)?;
        let mark = format!("{}.manager", place.mark);
        let mut command = place.workspace.command(program);
        command.args(["up", "--profile", PROFILE, "--port", "0", "--data"]).arg(&data);
        let manager = marked(command, &mark, &dir)?.spawn().context("start a manager")?;
        let mut servers = Self { manager, ours: String::new(), bare: None, place, mark };
        servers.ours = servers.ready(&data.join("run/port")).with_context(|| {
            let said = fs_err::read_to_string(dir.join("output")).unwrap_or_default();
            format!("the manager said: {}", said.lines().last().unwrap_or("nothing"))
        })?;

        let mut command = place.workspace.command(bare);
        command.arg(&servers.ours);
        let mut command = marked(command, &servers.mark, &dir)?;
        let mut process = command.stdout(Stdio::piped()).spawn().context("start bare_http")?;
        let output = process.stdout.take().context("its output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        servers.bare = Some((process, address.trim().to_owned()));
        Ok(servers)
    }

    /// Its address, once it answers.
    fn ready(&mut self, port: &Path) -> anyhow::Result<String> {
        let until = now() + READY * 1_000_000_000;
        while now() < until {
            std::thread::sleep(Duration::from_millis(50));
            anyhow::ensure!(self.manager.try_wait()?.is_none(), "it ended by itself");
            let Ok(port) = fs_err::read_to_string(port) else { continue };
            let address = format!("127.0.0.1:{}", port.trim());
            if answers(&address).unwrap_or(false) {
                return Ok(address);
            }
        }
        anyhow::bail!("it does not answer within {READY} s")
    }

    /// What the manager alone uses.
    fn usage(&self) -> anyhow::Result<Usage> {
        let family = Family::of(&self.mark, None, &self.place.child)?;
        let is_manager = |process: &Process| process.pid == self.manager.id();
        let manager: Vec<Process> = family.others.into_iter().filter(is_manager).collect();
        Ok(Usage::of(&manager))
    }
}

/// Whether all daemons are ready.
fn answers(address: &str) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        let mut end = || {
            send(self.manager.id(), Message::TERM)?;
            for _ in 0..50 {
                if self.manager.try_wait()?.is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Family::end(&self.mark, &self.place.child)?;
            self.manager.wait()?;
            if let Some((bare, _)) = &mut self.bare {
                bare.wait()?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = end() {
            eprintln!("manager: {error:#}");
        }
    }
}

struct Wrk<'a> {
    place: &'a Place<'a>,
    program: &'a Path,
}

impl Wrk<'_> {
    fn command(&self, how: &[&str], url: &str) -> std::process::Command {
        let mut command = self.place.workspace.command(self.program);
        command.args(how).arg(url);
        command
    }

    fn per_second(&self, url: &str) -> anyhow::Result<f64> {
        per_second(&capture(self.command(STEADY, url))?)
    }
}

fn per_second(report: &str) -> anyhow::Result<f64> {
    if let Some(line) = report.lines().find(|line| line.contains("Non-2xx")) {
        anyhow::bail!("{}", line.trim());
    }
    let line = report.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(line.context("wrk prints no rate")?.trim().parse()?)
}

/// The 99th percentile in microseconds.
fn slowest_percent(report: &str) -> anyhow::Result<f64> {
    let line = report.lines().find_map(|line| line.trim().strip_prefix("99%"));
    let text = line.context("wrk prints no percentiles")?.trim();
    let digits = text.trim_end_matches(char::is_alphabetic);
    let figure: f64 = digits.parse().with_context(|| format!("read `{text}`"))?;
    match &text[digits.len()..] {
        "us" => Ok(figure),
        "ms" => Ok(figure * 1e3),
        "s" => Ok(figure * 1e6),
        unit => anyhow::bail!("wrk prints an unknown unit `{unit}`"),
    }
}

/// A row of this file: what it is called and what is wanted.
struct Line(&'static str, &'static str, Unit, Goal);

const MEMORY: Line = Line(
    "idle",
    "resident memory of a whole manager, smallest profile, HTTP on",
    Unit::Mebibytes,
    Goal::AtMost(20.0),
);
const PROCESSOR: Line = Line(
    "idle",
    "processor time of a whole manager, smallest profile, HTTP on",
    Unit::Percent,
    Goal::AtMost(0.03),
);
const HEALTH: Line = Line("health", "/health", Unit::PerSecond, Goal::AtLeastTimesBare(0.8));
const METRICS: Line = Line("metrics", "/metrics", Unit::PerSecond, Goal::AtLeast(10_000.0));
const FLOODED: Line = Line(
    "flood",
    "p99 of /health while 256 connections flood /metrics",
    Unit::Microseconds,
    Goal::AtMost(100_000.0),
);
const LINES: [Line; 5] = [MEMORY, PROCESSOR, HEALTH, METRICS, FLOODED];

impl Line {
    fn row(&self, ours: Reading, bare: Option<Reading>) -> Row {
        let &Self(name, title, unit, goal) = self;
        Row { name, title, unit, goal, ours, bare, peers: Vec::new() }
    }

    fn of(&self, ours: Vec<f64>, bare: Option<Vec<f64>>) -> Row {
        let reading = |values| Reading::of(values, "left out");
        self.row(reading(ours), bare.map(reading))
    }
}

/// Measures the chosen rows; those that a fault leaves over say which.
pub fn measure(place: &Place<'_>, choice: &Choice, sheet: &mut Sheet) {
    let Err(fault) = run(place, choice, sheet) else { return };
    let why = format!("{fault:#}").lines().next().unwrap_or_default().to_owned();
    for line in LINES.iter().filter(|line| choice.has_row(line.0)) {
        if !sheet.rows().iter().any(|row| row.title == line.1) {
            sheet.add(line.row(Reading::Absent(why.clone()), None));
        }
    }
}

fn run(place: &Place<'_>, choice: &Choice, sheet: &mut Sheet) -> anyhow::Result<()> {
    let servers = Servers::start(place)?;
    if choice.has_row("idle") {
        eprintln!("the manager idle for {} s", IDLE.as_secs());
        let before = servers.usage()?;
        let began = now();
        std::thread::sleep(IDLE);
        let after = servers.usage()?;
        sheet.add(MEMORY.of(vec![mebibytes(after.memory)], None));
        let used = percent(after.ran_since(&before), now() - began);
        sheet.add(PROCESSOR.of(vec![used], None));
    }
    if !choice.has_any(&["health", "metrics", "flood"]) {
        return Ok(());
    }
    let wrk = WRK.program(place.workspace)?;
    let wrk = Wrk { place, program: &wrk };
    let bare = servers.bare.as_ref().map(|(_, address)| address).context("a bare server")?;
    let url = |address: &str, path: &str| format!("http://{address}{path}");
    for (line, path) in [(HEALTH, "/health"), (METRICS, "/metrics")] {
        if !choice.has_row(line.0) {
            continue;
        }
        let (mut by_us, mut by_bare) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            eprintln!("requests of {path}, round {} of {ROUNDS}", round + 1);
            by_us.push(wrk.per_second(&url(&servers.ours, path))?);
            by_bare.push(wrk.per_second(&url(bare, path))?);
        }
        sheet.add(line.of(by_us, Some(by_bare)));
    }
    if choice.has_row("flood") {
        eprintln!("flood");
        let flooded =
            |address: &str| flood(&wrk, &url(address, "/metrics"), &url(address, "/health"));
        let ours = vec![flooded(&servers.ours)?];
        sheet.add(FLOODED.of(ours, Some(vec![flooded(bare)?])));
    }
    Ok(())
}

fn flood(wrk: &Wrk<'_>, flooded: &str, probed: &str) -> anyhow::Result<f64> {
    let mut command = wrk.command(FLOOD, flooded);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut flood = command.spawn().context("start the flood")?;
    std::thread::sleep(Duration::from_secs(1));
    let report = capture(wrk.command(PROBE, probed));
    flood.wait()?;
    slowest_percent(&report?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
Running 3s test @ http://127.0.0.1:1/health
  1 threads and 4 connections
  Latency Distribution
     50%   34.00us
     99%    1.30ms
  1000 requests in 3.00s, 1.00MB read
Requests/sec:  90645.12
Transfer/sec:     10.00MB
";

    #[test]
    fn the_report_of_wrk_is_read() {
        assert_eq!(per_second(REPORT).ok(), Some(90_645.12));
        assert_eq!(slowest_percent(REPORT).ok(), Some(1_300.0));
    }

    #[test]
    fn answers_that_refuse_are_no_figure() {
        let report = format!("{REPORT}  Non-2xx or 3xx responses: 7\n");
        let refused = per_second(&report).unwrap_err().to_string();
        assert_eq!(refused, "Non-2xx or 3xx responses: 7");
    }
}
