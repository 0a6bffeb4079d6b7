//! The peer for tasks: OTP's own supervisor in a virtual machine of its own.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::Place;
use super::births::marked;
use super::figures::{Reading, Spread, mebibytes, percent};
use super::processes::{Family, Usage, now};
use super::tools::Package;
use crate::workspace::{capture, succeed};

const ERLANG: Package = Package::Debian { name: "erlang-base", program: "erl" };
const COMPILER: Package = Package::Debian { name: "erlang-base", program: "erlc" };

const IDLE: Duration = Duration::from_secs(20);

fn compile(place: &Place<'_>) -> anyhow::Result<PathBuf> {
    let erl = ERLANG.program(place.workspace)?;
    let mut compiler = place.workspace.command(COMPILER.program(place.workspace)?);
    compiler.arg("-o").arg(place.home).arg("bench/otp_bench.erl");
    succeed(compiler).context("compile the OTP bench")?;
    Ok(erl)
}

fn command(place: &Place<'_>, erl: &Path, what: &str) -> std::process::Command {
    let mut command = place.workspace.command(erl);
    command.args(["-noshell", "-pa"]).arg(place.home).args(["-s", "otp_bench", what]);
    command
}

/// Measurements, collected over several runs with ours between them.
#[derive(Default)]
pub struct Otp {
    rounds: Vec<Value>,
    fault: Option<String>,
}

impl Otp {
    pub fn measure(&mut self, place: &Place<'_>) {
        let run = || {
            let erl = compile(place)?;
            let text = capture(command(place, &erl, "measure"))?;
            serde_json::from_str(&text).context("read what the OTP bench prints")
        };
        match run() {
            Ok(round) => self.rounds.push(round),
            Err(error) => self.fault = Some(format!("{error:#}")),
        }
    }

    pub fn reading(&self, field: &str) -> Reading {
        let lists = self.rounds.iter().filter_map(|round| round.get(field)?.as_array());
        let all: Vec<f64> = lists.flatten().filter_map(Value::as_f64).collect();
        let why = self.fault.as_deref().unwrap_or("it does not measure this");
        Spread::of(all).map_or_else(|| Reading::Absent(why.to_owned()), Reading::Measured)
    }
}

/// Resident memory and processor time of a virtual machine with 89 idle children, from outside.
pub fn idle(place: &Place<'_>) -> (Reading, Reading) {
    match rest(place) {
        Ok((memory, processor)) => {
            (Reading::of(vec![memory], ""), Reading::of(vec![processor], ""))
        }
        Err(error) => {
            let why = Reading::Absent(format!("{error:#}"));
            (why.clone(), why)
        }
    }
}

fn rest(place: &Place<'_>) -> anyhow::Result<(f64, f64)> {
    let machine = Idle::start(place)?;
    let before = machine.usage()?;
    let began = now();
    std::thread::sleep(IDLE);
    let after = machine.usage()?;
    Ok((mebibytes(after.memory), percent(after.ran_since(&before), now() - began)))
}

struct Idle<'a> {
    process: Child,
    mark: String,
    place: &'a Place<'a>,
}

impl<'a> Idle<'a> {
    fn start(place: &'a Place<'a>) -> anyhow::Result<Self> {
        let erl = compile(place)?;
        let dir = place.home.join("otp");
        fs_err::create_dir_all(&dir)?;
        let mark = format!("{}.otp", place.mark);
        let process = marked(command(place, &erl, "idle"), &mark, &dir)?.spawn()?;
        let idle = Self { process, mark, place };
        for _ in 0..400 {
            std::thread::sleep(Duration::from_millis(50));
            if fs_err::read_to_string(dir.join("output"))?.contains("up") {
                return Ok(idle);
            }
        }
        anyhow::bail!("OTP is not up after 20 s")
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        Ok(Usage::of(&Family::of(&self.mark, None, &self.place.child)?.others))
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        let ended = Family::end(&self.mark, &self.place.child);
        if let Err(error) = ended.and_then(|()| Ok(self.process.wait()?)) {
            eprintln!("otp: {error:#}");
        }
    }
}
