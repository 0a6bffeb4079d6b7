//! `doctor`: what would keep the loop from running here, and what to do about it.

use std::{
    io::Write as _,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use clap::Args;
use courier::{Embedded, OpenError};
use ringrift_pipeline::{Config, Job, SeedJob, WORKER_CONTRACT, WorkId, WorkerJob, WorkerLine};
use serde::Serialize;

use super::status::PATIENCE;
use crate::{
    cli::{Places, Print, warn},
    config::{Settings, kind::bytes_text},
    console,
    control::{Request, ask, status},
    data_dir::DataDir,
    exit::{FAILED, Failure, Outcome},
    membership::known,
};

/// Least free space that the loop starts with, bytes. Source: decisions, disk limits of standalone.
const DISK: u64 = 2 << 30;
/// Least memory per worker with which the loop is comfortable, bytes.
const MEMORY: u64 = 512 << 20;

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    print: Print,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    /// What was found.
    found: String,
    /// What to do, if it is not well.
    advice: Option<String>,
}

impl Finding {
    fn well(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, ok: true, found: found.into(), advice: None }
    }

    /// It runs all the same.
    fn weak(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, ok: true, found: found.into(), advice: Some(advice.into()) }
    }

    fn ill(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, ok: false, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Runs the command.
pub fn run(args: &DoctorArgs) -> Outcome {
    examine(&args.places.settings(Vec::new())?, args.print)
}

/// Looks at everything and prints what it found.
pub fn examine(settings: &Settings, print: Print) -> Outcome {
    let findings = findings(settings)?;
    let well = findings.iter().all(|finding| finding.ok);
    if print.json {
        console::say_json(&serde_json::json!({ "ok": well, "findings": findings }))?;
    } else {
        warn(settings);
        for finding in &findings {
            let word = match (finding.ok, &finding.advice) {
                (true, None) => "ok     ",
                (true, Some(_)) => "warning",
                (false, _) => "problem",
            };
            console::say(&format!("{word}  {}: {}", finding.what, finding.found));
            if let Some(advice) = &finding.advice {
                console::say(&format!("         {advice}"));
            }
        }
    }
    if well { Ok(()) } else { Err(Failure::told(FAILED)) }
}

/// What would keep the loop from running, one sentence each.
pub fn problems(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let ill = findings(settings)?.into_iter().filter(|finding| !finding.ok);
    Ok(ill
        .map(|finding| {
            let advice = finding.advice.unwrap_or_default();
            format!("{}: {}; {advice}", finding.what, finding.found)
        })
        .collect())
}

fn findings(settings: &Settings) -> anyhow::Result<Vec<Finding>> {
    let dir = DataDir::new(&settings.data)?;
    let file = settings.file.as_ref();
    let mut findings = vec![
        Finding::well(
            "configuration",
            file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string()),
        ),
        data(&dir),
        facts(&dir),
        port(settings, &dir),
        disk(dir.root()),
        memory(settings),
        worker(),
    ];
    findings.extend(daemons(&dir));
    findings.extend(settings.plugins.iter().map(|(kind, command)| plugin(kind, command)));
    Ok(findings)
}

fn data(dir: &DataDir) -> Finding {
    let what = "data directory";
    let place = dir.root().display();
    // Nothing is left behind where nobody has run `up` yet.
    let mut there = dir.root();
    while !there.exists() {
        match there.parent() {
            Some(parent) => there = parent,
            None => break,
        }
    }
    match tempfile::tempfile_in(there).and_then(|mut file| file.write_all(b"x")) {
        Ok(()) if there == dir.root() => Finding::well(what, format!("{place} can be written")),
        Ok(()) => Finding::well(what, format!("{place} can be made")),
        Err(error) => Finding::ill(
            what,
            format!("{}: {error}", there.display()),
            "make it writable, or name another directory with --data",
        ),
    }
}

fn facts(dir: &DataDir) -> Finding {
    let what = "facts";
    let path = match known(dir) {
        Ok(path) => path,
        Err(error) => return Finding::ill(what, format!("{error:#}"), "mend or remove that file"),
    };
    match Embedded::open_read_only(&path) {
        Ok(_) => Finding::well(what, format!("{} is sound", path.display())),
        Err(OpenError::Missing { .. }) => Finding::well(what, "none yet"),
        Err(error) => Finding::ill(what, format!("{error:#}"), "see the sentence above"),
    }
}

fn port(settings: &Settings, dir: &DataDir) -> Finding {
    let what = "port";
    if dir.is_locked() {
        return Finding::well(what, "a manager is running on this data directory");
    }
    match TcpListener::bind(settings.address()) {
        Ok(_) => Finding::well(what, format!("{} is free", settings.address())),
        Err(error) => Finding::ill(
            what,
            format!("{}: {error}", settings.address()),
            "stop the program that listens there, or choose another port with --port (0 = any)",
        ),
    }
}

/// What a manager that runs here says of its daemons.
fn daemons(dir: &DataDir) -> Option<Finding> {
    let what = "daemons";
    if !dir.is_locked() {
        return None;
    }
    let answer = match ask(dir, &Request::Status, PATIENCE) {
        Ok(answer) => answer,
        Err(failure) => {
            let why =
                failure.error.map_or_else(|| "no answer".into(), |error| format!("{error:#}"));
            let advice = "the manager that holds the data directory does not answer: end it";
            return Some(Finding::ill(what, why, advice));
        }
    };
    let empty = serde_json::Map::new();
    let daemons = answer["daemons"].as_object().unwrap_or(&empty);
    let asked: Vec<_> = daemons.iter().filter(|(_, daemon)| daemon["asked"] == true).collect();
    let ill: Vec<String> = asked
        .iter()
        .filter(|(_, daemon)| !status::runs_well(daemon))
        .map(|(name, daemon)| format!("{name}: {}", status::line(daemon)))
        .collect();
    if ill.is_empty() {
        return Some(Finding::well(what, format!("{} run well", asked.len())));
    }
    Some(Finding::ill(what, ill.join("; "), "`ringrift health NAME` says more of each"))
}

fn disk(path: &Path) -> Finding {
    let what = "disk";
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match hosts::disk(there) {
        Ok(disk) if disk.available < DISK.min(disk.total / 50) => Finding::ill(
            what,
            format!("{} free of {}", bytes_text(disk.available), bytes_text(disk.total)),
            "the loop would stand still: free some space, or name another directory with --data",
        ),
        Ok(disk) => Finding::well(
            what,
            format!("{} free of {}", bytes_text(disk.available), bytes_text(disk.total)),
        ),
        Err(error) => Finding::ill(what, error.to_string(), "name another directory with --data"),
    }
}

fn memory(settings: &Settings) -> Finding {
    let what = "cores and memory";
    let cores = hosts::cores();
    let slots = if settings.slots == 0 { cores } else { settings.slots };
    match hosts::memory() {
        Ok(memory) => {
            let found = format!(
                "{cores} cores, {slots} workers, {} free of {}",
                bytes_text(memory.available),
                bytes_text(memory.total)
            );
            if memory.available < MEMORY * slots as u64 {
                let advice = format!(
                    "fewer workers need less: set workers.slots ({} each is comfortable)",
                    bytes_text(MEMORY)
                );
                return Finding::weak(what, found, advice);
            }
            Finding::well(what, found)
        }
        Err(error) => Finding::ill(what, error.to_string(), "/proc must be readable"),
    }
}

/// Lets a worker do a small job, as the manager would.
fn worker() -> Finding {
    let what = "worker";
    match try_worker() {
        Ok(()) => Finding::well(what, "a worker process made a network"),
        Err(error) => Finding::ill(
            what,
            format!("{error:#}"),
            "processes must be allowed to start, and a temporary folder to be written (TMPDIR)",
        ),
    }
}

fn try_worker() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let job = WorkerJob {
        contract: WORKER_CONTRACT,
        work: WorkId("doctor".into()),
        attempt: 1,
        dir: folder.path().to_owned(),
        config: Config::ALL[0],
        inputs: std::collections::BTreeMap::new(),
        job: Job::Seed(SeedJob { seed: 1 }),
    };
    let mut child = Command::new("/proc/self/exe")
        .arg("worker")
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &mut stdin {
        writeln!(stdin, "{}", serde_json::to_string(&job)?)?;
    }
    // Standard input stays open until the end: its end would mean that we died.
    let stdout = {
        use std::io::Read as _;
        let mut text = String::new();
        if let Some(mut out) = child.stdout.take() {
            out.read_to_string(&mut text)?;
        }
        text
    };
    let output = child.wait_with_output()?;
    drop(stdin);
    anyhow::ensure!(
        output.status.success(),
        "it left with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let last = stdout.lines().last().unwrap_or_default();
    let line: WorkerLine = serde_json::from_str(last)?;
    anyhow::ensure!(
        matches!(line, WorkerLine::Result { .. }),
        "its last line is no report: {last}"
    );
    Ok(())
}

/// Is the program that replaces a worker there?
fn plugin(kind: &str, command: &[String]) -> Finding {
    let what = "program of a worker";
    let program = command.first().map_or("", String::as_str);
    let found = if program.contains('/') {
        Path::new(program).is_file()
    } else {
        std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        })
    };
    let text = format!("{kind}: {}", command.join(" "));
    if found {
        return Finding::well(what, text);
    }
    Finding::ill(
        what,
        format!("{text}: there is no program {program}"),
        format!("install it, or change workers.{kind}.command"),
    )
}
