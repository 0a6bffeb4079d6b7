//! The rows about child processes: ours, bare tokio and the peers in turn, round after round.

use std::time::Duration;

use super::contender::Contender;
use super::figures::{Goal, Reading, Row, Unit, mebibytes, percent};
use super::processes::{Usage, now};
use super::supervisors::{BARE, Kind, OURS, PEERS};
use super::table::Sheet;
use super::{Choice, Place, ours};

/// Starts and stops of ours and the bare one; a round of the others takes ten seconds.
const STARTS: usize = 7;
const STARTS_OF_PEERS: usize = 3;
/// Kills of a child a moment after its birth.
const KILLS_AT_ONCE: usize = 15;
/// Children that have lived for a second are replaced at once even by those that throttle.
const GROW_UP: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(20);
/// Within which children of a killed supervisor must be gone, and all quiet after a new start.
const SETTLE: Duration = Duration::from_secs(5);

/// What one contender gave.
#[derive(Default)]
struct Column {
    start: Vec<f64>,
    stop: Vec<f64>,
    kill: Vec<f64>,
    kill_at_once: Vec<f64>,
    memory: Vec<f64>,
    processor: Vec<f64>,
    orphans: Vec<f64>,
    again: Vec<f64>,
    helper: Vec<f64>,
    /// Why there is no more of it.
    fault: Option<String>,
}

type Pick = fn(&Column) -> &Vec<f64>;

struct Lane {
    name: &'static str,
    contender: Option<Contender>,
    column: Column,
}

impl Lane {
    fn new(
        kind: &'static Kind,
        place: &Place<'_>,
        program: anyhow::Result<std::path::PathBuf>,
    ) -> Self {
        let built = program.and_then(|program| Contender::new(kind, program, place));
        let mut lane = Self { name: kind.name, contender: None, column: Column::default() };
        match built {
            Ok(contender) => lane.contender = Some(contender),
            Err(error) => lane.column.fault = Some(format!("{error:#}")),
        }
        lane
    }

    /// One step; who fails is out, with the reason, and the others go on.
    fn step(&mut self, step: impl FnOnce(&mut Contender, &mut Column) -> anyhow::Result<()>) {
        let Some(contender) = &mut self.contender else { return };
        if let Err(error) = step(contender, &mut self.column) {
            eprintln!("{}: {error:#}", self.name);
            self.column.fault = Some(format!("{error:#}"));
            self.contender = None;
        }
    }

    fn reading(&self, pick: Pick) -> Reading {
        let why = self.column.fault.as_deref().unwrap_or("it has none");
        Reading::of(pick(&self.column).clone(), why)
    }

    fn is_peer(&self) -> bool {
        self.name != OURS.name && self.name != BARE.name
    }
}

/// Measures the chosen rows.
pub fn measure(place: &Place<'_>, choice: &Choice, sheet: &mut Sheet) {
    let bench = ours::build(place.workspace, "warden", ours::Target::Example("children_bench"));
    let bench = |_: &Kind| match &bench {
        Ok(program) => Ok(program.clone()),
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    let mut lanes: Vec<Lane> =
        [&OURS, &BARE].into_iter().map(|kind| Lane::new(kind, place, bench(kind))).collect();
    for kind in PEERS.iter().filter(|kind| choice.has_peer(kind.name)) {
        let Some(package) = kind.package else { continue };
        lanes.push(Lane::new(kind, place, package.program(place.workspace)));
    }

    if choice.has_row("children") {
        starts_and_stops(&mut lanes);
        add("children", &lanes, sheet);
    }
    let (kill, orphans, idle) =
        (choice.has_row("kill"), choice.has_row("orphans"), choice.has_row("idle"));
    if kill || orphans || idle {
        eprintln!("{} children under each", place.children);
        for lane in &mut lanes {
            lane.step(|contender, _| contender.start().map(drop));
        }
        std::thread::sleep(GROW_UP);
    }
    if idle {
        rest(&mut lanes);
        add("idle", &lanes, sheet);
    }
    if kill {
        kills(&mut lanes, choice.rounds);
        add("kill", &lanes, sheet);
    }
    if orphans {
        lose_supervisors(&mut lanes);
        add("orphans", &lanes, sheet);
    }
}

fn starts_and_stops(lanes: &mut [Lane]) {
    for round in 0..STARTS {
        eprintln!("start and stop, round {} of {STARTS}", round + 1);
        for lane in &mut *lanes {
            if lane.is_peer() && round >= STARTS_OF_PEERS {
                continue;
            }
            lane.step(|contender, column| {
                column.start.push(contender.start()?);
                std::thread::sleep(Duration::from_millis(300));
                column.stop.push(contender.stop()?);
                Ok(())
            });
        }
    }
}

/// All rest at the same time, so that all have the same neighbours.
fn rest(lanes: &mut [Lane]) {
    eprintln!("all idle for {} s", IDLE.as_secs());
    let before: Vec<Option<Usage>> = lanes.iter().map(used).collect();
    let began = now();
    std::thread::sleep(IDLE);
    for (lane, before) in lanes.iter_mut().zip(before) {
        let (Some(before), Some(after)) = (before, used(lane)) else { continue };
        lane.column.memory.push(mebibytes(after.memory));
        lane.column.processor.push(percent(after.ran_since(&before), now() - began));
    }
}

fn used(lane: &Lane) -> Option<Usage> {
    lane.contender.as_ref()?.usage().ok()
}

fn kills(lanes: &mut [Lane], rounds: usize) {
    eprintln!("kill a child of each, {rounds} times");
    for _ in 0..rounds {
        for lane in &mut *lanes {
            lane.step(|contender, column| {
                column.kill.push(contender.kill_oldest()?);
                Ok(())
            });
        }
    }
    eprintln!("kill the newest child of each at once, {KILLS_AT_ONCE} times");
    for _ in 0..KILLS_AT_ONCE {
        for lane in &mut *lanes {
            lane.step(|contender, column| {
                column.kill_at_once.push(contender.kill_youngest()?);
                Ok(())
            });
        }
    }
}

/// Supervisors die by SIGKILL, are started again, and lose a helper: how many children live?
fn lose_supervisors(lanes: &mut [Lane]) {
    eprintln!("kill the supervisors, then start them again");
    let count = |contender: &Contender| contender.children().map(f64_of);
    for lane in &mut *lanes {
        lane.step(|contender, _| contender.kill_supervisor());
    }
    std::thread::sleep(SETTLE);
    for lane in &mut *lanes {
        lane.step(|contender, column| {
            column.orphans.push(count(contender)?);
            contender.start_again()
        });
    }
    std::thread::sleep(SETTLE);
    for lane in &mut *lanes {
        lane.step(|contender, column| {
            column.again.push(count(contender)?);
            Ok(())
        });
    }
    let mut bereft = Vec::new();
    for lane in &mut *lanes {
        let mut killed = false;
        lane.step(|contender, _| {
            killed = contender.kill_helper()?;
            Ok(())
        });
        bereft.push(killed);
    }
    std::thread::sleep(SETTLE);
    for (lane, _) in lanes.iter_mut().zip(bereft).filter(|(_, bereft)| *bereft) {
        lane.step(|contender, column| {
            column.helper.push(count(contender)?);
            Ok(())
        });
    }
}

fn f64_of(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// A row of this file: what it is called, what is wanted, and which column it shows.
struct Line(&'static str, &'static str, Unit, Goal, Pick);

const LINES: &[Line] = &[
    Line(
        "kill",
        "kill -9 of a child -> replacement running, no delay",
        Unit::Microseconds,
        Goal::AtMostOrTimesBare(2_100.0, 2.0),
        |column| &column.kill,
    ),
    Line(
        "kill",
        "the same for a child of 20 ms",
        Unit::Microseconds,
        Goal::AtMostOrTimesBare(2_100.0, 2.0),
        |column| &column.kill_at_once,
    ),
    Line(
        "children",
        "100 children asked -> running",
        Unit::Microseconds,
        Goal::AtMost(200_000.0),
        |column| &column.start,
    ),
    Line(
        "children",
        "100 children asked -> all stopped",
        Unit::Microseconds,
        Goal::AtMost(20_000.0),
        |column| &column.stop,
    ),
    Line(
        "orphans",
        "supervisor killed: children living 5 s later",
        Unit::Processes,
        Goal::Exactly(0.0),
        |column| &column.orphans,
    ),
    Line(
        "orphans",
        "... then started again: children living",
        Unit::Processes,
        Goal::Exactly(100.0),
        |column| &column.again,
    ),
    Line(
        "orphans",
        "... then a helper process killed: children living",
        Unit::Processes,
        Goal::Exactly(100.0),
        |column| &column.helper,
    ),
    Line(
        "idle",
        "resident memory of a supervisor of 100 idle children",
        Unit::Mebibytes,
        Goal::AtMost(20.0),
        |column| &column.memory,
    ),
    Line(
        "idle",
        "processor time of a supervisor of 100 idle children",
        Unit::Percent,
        Goal::AtMost(0.03),
        |column| &column.processor,
    ),
];

/// The rows of one name, when all that they need is measured.
fn add(name: &str, lanes: &[Lane], sheet: &mut Sheet) {
    for &Line(name, title, unit, goal, pick) in LINES.iter().filter(|line| line.0 == name) {
        let reading = |wanted: &Kind| {
            lanes.iter().find(|lane| lane.name == wanted.name).map(|l| l.reading(pick))
        };
        let peers = lanes.iter().filter(|lane| lane.is_peer());
        let peers: Vec<_> = peers.map(|lane| (lane.name.to_owned(), lane.reading(pick))).collect();
        let ours = reading(&OURS).unwrap_or(Reading::Absent("it was left out".to_owned()));
        sheet.add(Row { name, title, unit, goal, ours, bare: reading(&BARE), peers });
    }
}
