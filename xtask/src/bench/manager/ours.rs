//! What our own examples measure, each in a release build and as one JSON object.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::figures::{Goal, Reading, Row, Spread, Unit};
use super::otp::{self, Otp};
use super::table::Sheet;
use super::{Choice, Place};
use crate::workspace::{Workspace, capture};

#[derive(Debug, Clone, Copy)]
pub enum Target {
    Example(&'static str),
    Program(&'static str),
}

/// Builds a release; gives its program.
pub fn build(workspace: &Workspace, package: &str, target: Target) -> anyhow::Result<PathBuf> {
    let (flag, name) = match target {
        Target::Example(name) => ("--example", name),
        Target::Program(name) => ("--bin", name),
    };
    eprintln!("building {name}");
    let mut cargo = workspace.cargo(&["build", "--quiet", "--release", "--package", package]);
    cargo.args([flag, name, "--message-format=json-render-diagnostics"]);
    let messages = match capture(cargo) {
        Ok(messages) => messages,
        Err(error) => {
            let complaint = format!("{error:#}");
            let why = complaint.lines().find(|line| line.starts_with("error"));
            bail!("{package} has no {name} that builds: {}", why.unwrap_or(&complaint));
        }
    };
    let program = messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    program.with_context(|| format!("the build of {name} names no program"))
}

/// What one example said, or why it said nothing.
pub struct Answer(Result<Value, String>);

impl Answer {
    pub fn of(place: &Place<'_>, package: &str, example: &'static str, words: &[&str]) -> Self {
        let run = || {
            let program = build(place.workspace, package, Target::Example(example))?;
            eprintln!("running {example}");
            let mut command = place.workspace.command(program);
            command.current_dir(place.home).args(words);
            let text = capture(command)?;
            serde_json::from_str(&text).with_context(|| format!("read what {example} prints"))
        };
        Self(run().map_err(|error: anyhow::Error| one_line(&format!("{error:#}"))))
    }

    /// The figure at a path of keys, times a factor into the unit of the row.
    pub fn reading(&self, path: &[&str], factor: f64) -> Reading {
        let value = match &self.0 {
            Ok(value) => value,
            Err(why) => return Reading::Absent(why.clone()),
        };
        let found = path.iter().try_fold(value, |value, key| value.get(*key));
        let Some(spread) = found.and_then(Spread::read) else {
            return Reading::Absent(format!("the example has no field {}", path.join(".")));
        };
        let Spread { min, median, p95, n } = spread;
        Reading::Measured(Spread {
            min: min * factor,
            median: median * factor,
            p95: p95 * factor,
            n,
        })
    }
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Rows of the supervisor of tasks.
pub const TASKS: &[&str] = &["start", "stop", "crash", "sweep", "idle"];

/// They, with OTP measured before and after ours.
pub fn tasks(place: &Place<'_>, choice: &Choice, sheet: &mut Sheet) {
    let mut otp = Otp::default();
    let with_otp = choice.has_peer("otp");
    if with_otp {
        otp.measure(place);
    }
    let chosen: Vec<&str> = TASKS.iter().copied().filter(|row| choice.has_row(row)).collect();
    let words = ["--json", "--rows", &chosen.join(",")];
    let answer = Answer::of(place, "warden", "manager_bench", &words);
    if with_otp {
        otp.measure(place);
    }
    let mut add = |row: Row| {
        if choice.has_row(row.name) {
            sheet.add(row);
        }
    };
    let row = |name, title, goal, field: &str, has_bare: bool| Row {
        name,
        title,
        unit: Unit::Microseconds,
        goal,
        ours: answer.reading(&[field], 1.0),
        bare: has_bare.then(|| answer.reading(&["bare", field], 1.0)),
        peers: if with_otp && has_bare {
            vec![("otp".to_owned(), otp.reading(field))]
        } else {
            Vec::new()
        },
    };
    add(row(
        "start",
        "89 daemons asked -> all RUNNING",
        Goal::AtMost(1_000.0),
        "start_89_us",
        true,
    ));
    if choice.has_row("start") {
        let recorded = Answer::of(place, "ringrift-daemons", "record_bench", &[]);
        add(Row {
            name: "start",
            title: "... and every change of their states in the log",
            unit: Unit::Microseconds,
            goal: Goal::AtMost(20_000.0),
            ours: recorded.reading(&["start_89_recorded_us"], 1.0),
            bare: None,
            peers: Vec::new(),
        });
    }
    add(row(
        "crash",
        "task crash -> running again",
        Goal::AtMost(28.0),
        "crash_to_running_us",
        true,
    ));
    add(row("sweep", "health sweep of 89 daemons", Goal::AtMost(300.0), "health_sweep_us", false));
    add(row("stop", "89 idle daemons asked -> stopped", Goal::AtMost(1_000.0), "stop_89_us", true));
    if !choice.has_row("idle") {
        return;
    }
    let (memory, processor) = if with_otp {
        eprintln!("OTP idle");
        otp::idle(place)
    } else {
        let left_out = Reading::Absent("left out".to_owned());
        (left_out.clone(), left_out)
    };
    let idle = |title, unit, goal, field, factor, peer: Reading| Row {
        name: "idle",
        title,
        unit,
        goal,
        ours: answer.reading(&["idle", field], factor),
        bare: Some(answer.reading(&["bare", "idle", field], factor)),
        peers: if with_otp { vec![("otp".to_owned(), peer)] } else { Vec::new() },
    };
    add(idle(
        "resident memory, 89 idle daemons with health",
        Unit::Mebibytes,
        Goal::AtMost(20.0),
        "rss_kib",
        1.0 / 1024.0,
        memory,
    ));
    add(idle(
        "processor time, 89 idle daemons with health",
        Unit::Percent,
        Goal::AtMost(0.03),
        "cpu_percent",
        1.0,
        processor,
    ));
}

/// The rows of the log, beside bare commits of the same engine.
pub fn facts(place: &Place<'_>, sheet: &mut Sheet) {
    let answer = Answer::of(place, "courier", "courier_bench", &[]);
    let rows = [
        ("durable facts, 1 subscriber", Goal::AtLeastTimesBare(0.5), "append_1_subscriber_per_s"),
        (
            "durable facts, 10 subscribers",
            Goal::AtLeastTimesBare(0.5),
            "append_10_subscribers_per_s",
        ),
        ("durable facts, batched", Goal::AtLeast(200_000.0), "batched_per_s"),
    ];
    for (title, goal, field) in rows {
        sheet.add(Row {
            name: "facts",
            title,
            unit: Unit::PerSecond,
            goal,
            ours: answer.reading(&[field], 1.0),
            bare: Some(answer.reading(&["bare_commits_per_s"], 1.0)),
            peers: Vec::new(),
        });
    }
}
