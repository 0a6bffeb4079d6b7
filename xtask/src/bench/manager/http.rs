//! The rows about HTTP: wrk against our router and a bare one, in turn.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::figures::{Goal, Reading, Row, Unit};
use super::processes::{Message, send};
use super::tools::Package;
use super::{Choice, Place, ours};
use crate::workspace::capture;

const WRK: Package = Package::Debian { name: "wrk", program: "wrk" };
const ROUNDS: usize = 3;
/// As the anchors were measured: one thread of wrk, four connections; it shares the cores.
const STEADY: &[&str] = &["-t1", "-c4", "-d3s"];
/// Nine seconds of 256 connections that ask as fast as they can.
const FLOOD: &[&str] = &["-t1", "-c256", "-d9s"];
const PROBE: &[&str] = &["-t1", "-c1", "-d5s", "--latency"];

/// The example at work: two servers on ports of their own.
struct Servers {
    process: Child,
    ours: String,
    bare: String,
}

impl Servers {
    /// It prints one JSON object, `{"ours": URL, "bare": URL}`, and serves until its input ends.
    fn start(place: &Place<'_>) -> anyhow::Result<Self> {
        let program = ours::build(place.workspace, "ringrift", "http_bench")?;
        let mut command = place.workspace.command(program);
        command.arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("start http_bench")?;
        let output = process.stdout.take().context("its output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let mut servers = Self { process, ours: String::new(), bare: String::new() };
        let said: Value = serde_json::from_str(&line)
            .with_context(|| format!("http_bench says `{}`, no JSON", line.trim()))?;
        let url = |name: &str| {
            let url = said.get(name).and_then(Value::as_str);
            let url = url.with_context(|| format!("http_bench names no `{name}` address"))?;
            anyhow::Ok(url.trim_end_matches('/').to_owned())
        };
        (servers.ours, servers.bare) = (url("ours")?, url("bare")?);
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.process.stdin.take();
        std::thread::sleep(Duration::from_millis(200));
        let ended = match self.process.try_wait() {
            Ok(None) => send(self.process.id(), Message::KILL),
            _ => Ok(()),
        };
        if let Err(error) = ended.and_then(|()| Ok(self.process.wait()?)) {
            eprintln!("http_bench: {error:#}");
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

#[derive(Default)]
struct Figures {
    health: Vec<f64>,
    health_bare: Vec<f64>,
    metrics: Vec<f64>,
    flood: Vec<f64>,
    flood_bare: Vec<f64>,
}

/// Measures the chosen rows.
pub fn measure(place: &Place<'_>, choice: &Choice) -> Vec<Row> {
    let mut figures = Figures::default();
    let fault = run(place, choice, &mut figures).err().map(|error| format!("{error:#}"));
    let why = fault.as_deref().and_then(|text| text.lines().next()).unwrap_or("left out");
    let reading = |values: &[f64]| Reading::of(values.to_vec(), why);
    let rows = [
        Row {
            name: "health",
            title: "/health",
            unit: Unit::PerSecond,
            goal: Goal::AtLeastTimesBare(0.8),
            ours: reading(&figures.health),
            bare: Some(reading(&figures.health_bare)),
            peers: Vec::new(),
        },
        Row {
            name: "metrics",
            title: "/metrics",
            unit: Unit::PerSecond,
            goal: Goal::AtLeast(10_000.0),
            ours: reading(&figures.metrics),
            bare: None,
            peers: Vec::new(),
        },
        Row {
            name: "flood",
            title: "p99 of /health under a flood of 256 connections",
            unit: Unit::Microseconds,
            goal: Goal::AtMost(100_000.0),
            ours: reading(&figures.flood),
            bare: Some(reading(&figures.flood_bare)),
            peers: Vec::new(),
        },
    ];
    rows.into_iter().filter(|row| choice.has_row(row.name)).collect()
}

fn run(place: &Place<'_>, choice: &Choice, figures: &mut Figures) -> anyhow::Result<()> {
    let servers = Servers::start(place)?;
    let wrk = WRK.program(place.workspace)?;
    let wrk = Wrk { place, program: &wrk };
    let (health, health_bare) =
        (format!("{}/health", servers.ours), format!("{}/health", servers.bare));
    for round in 0..ROUNDS {
        eprintln!("requests, round {} of {ROUNDS}", round + 1);
        if choice.has_row("health") {
            figures.health.push(wrk.per_second(&health)?);
            figures.health_bare.push(wrk.per_second(&health_bare)?);
        }
        if choice.has_row("metrics") {
            figures.metrics.push(wrk.per_second(&format!("{}/metrics", servers.ours))?);
        }
    }
    if choice.has_row("flood") {
        eprintln!("flood");
        figures.flood.push(flood(&wrk, &format!("{}/metrics", servers.ours), &health)?);
        figures.flood_bare.push(flood(&wrk, &health_bare, &health_bare)?);
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
