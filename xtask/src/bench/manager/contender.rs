//! One supervisor with its children, measured from outside: all of them in the same way.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::Place;
use super::births::{Birth, Births, marked};
use super::figures::microseconds;
use super::processes::{Departure, Family, Message, Process, Usage, now, send};
use super::supervisors::{Kind, Site, Stop, pid_in};

/// Longest waits, in seconds. What takes longer is a finding, not a figure.
const START: u64 = 60;
const STOP: u64 = 60;
const RESTART: u64 = 5;

pub struct Contender {
    pub kind: &'static Kind,
    site: Site,
    births: Births,
    mark: String,
    /// The command that was started last, and the supervisor itself.
    running: Option<(Child, u32)>,
    /// Children in the order of their first breath.
    alive: Vec<Birth>,
}

impl Contender {
    pub fn new(kind: &'static Kind, program: PathBuf, place: &Place<'_>) -> anyhow::Result<Self> {
        let dir = place.home.join(kind.name);
        fs_err::create_dir_all(&dir)?;
        let births = Births::listen(place.home.join(format!("{}.sock", kind.name)))?;
        let site = Site {
            program,
            dir,
            child: place.child.clone(),
            socket: births.path.clone(),
            children: place.children,
        };
        (kind.prepare)(&site)?;
        let mark = format!("{}.{}", place.mark, kind.name);
        Ok(Self { kind, site, births, mark, running: None, alive: Vec::new() })
    }

    fn spawn(&self, command: Command) -> anyhow::Result<Child> {
        let mut command = marked(command, &self.mark, &self.site.dir)?;
        command.spawn().with_context(|| format!("start {}", self.kind.name))
    }

    /// Starts the supervisor; gives the command that was started and the supervisor's number.
    fn begin(&self) -> anyhow::Result<(Child, u32)> {
        let mut process = self.spawn((self.kind.start)(&self.site))?;
        let supervisor = match self.kind.pid_file {
            None => process.id(),
            Some(file) => {
                process.wait()?;
                pid_in(&self.site.dir.join(file))?
            }
        };
        Ok((process, supervisor))
    }

    /// Asked for -> all children running, in microseconds.
    pub fn start(&mut self) -> anyhow::Result<f64> {
        self.births.drain()?;
        let count = self.site.children;
        // The socket holds few messages, so somebody must read from the start.
        let (began, running, born) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| self.births.several(count, START));
            let began = now();
            let running = self.begin();
            (began, running, reader.join())
        });
        self.running = Some(running?);
        let born = born.map_err(|_| anyhow::anyhow!("the reader of births broke"))??;
        if born.len() < count {
            let said = fs_err::read_to_string(self.site.dir.join("output")).unwrap_or_default();
            let last = said.lines().last().unwrap_or("it said nothing").to_owned();
            bail!("{} of {count} children ran after {START} s: {last}", born.len());
        }
        let last = born.iter().map(|birth| birth.at).max().unwrap_or(began);
        self.alive = born;
        Ok(microseconds(last.saturating_sub(began)))
    }

    /// Starts it once more, whatever is left of its first life.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.running = Some(self.begin()?);
        Ok(())
    }

    /// Asked to stop -> all children gone, in microseconds. Nothing of it is left afterwards.
    pub fn stop(&mut self) -> anyhow::Result<f64> {
        let Some((mut process, supervisor)) = self.running.take() else { bail!("it does not run") };
        let departure = Departure::of(&self.family()?.children)?;
        let began = now();
        let asked = match self.kind.stop {
            Stop::Signal(signal) => send(supervisor, signal).map(|()| None),
            Stop::Command(command) => self.spawn(command(&self.site)).map(Some),
        };
        let gone = departure.wait(STOP)?;
        if let Some(mut asking) = asked? {
            asking.wait()?;
        }
        let left = Departure::of(&self.family()?.others)?.wait(RESTART)?;
        if left.is_none() && self.kind.pid_file.is_none() {
            process.kill()?;
        }
        process.wait()?;
        self.end()?;
        let gone = gone.with_context(|| format!("children live {STOP} s after the stop"))?;
        Ok(microseconds(gone.saturating_sub(began)))
    }

    /// Kills one child with SIGKILL -> its replacement runs, in microseconds.
    pub fn kill_oldest(&mut self) -> anyhow::Result<f64> {
        anyhow::ensure!(!self.alive.is_empty(), "no child is left to kill");
        let victim = self.alive.remove(0);
        self.replace(victim)
    }

    /// The same for the child that was born last, a moment after its birth.
    pub fn kill_youngest(&mut self) -> anyhow::Result<f64> {
        let victim = self.alive.pop().context("no child is left to kill")?;
        let age = now().saturating_sub(victim.at);
        std::thread::sleep(Duration::from_millis(20).saturating_sub(Duration::from_nanos(age)));
        self.replace(victim)
    }

    fn replace(&mut self, victim: Birth) -> anyhow::Result<f64> {
        let killed = now();
        send(victim.pid, Message::KILL)?;
        while let Some(birth) = self.births.next(RESTART)? {
            if birth.at > killed {
                self.alive.push(birth);
                return Ok(microseconds(birth.at - killed));
            }
        }
        bail!("no replacement within {RESTART} s")
    }

    pub fn family(&self) -> anyhow::Result<Family> {
        let supervisor = self.running.as_ref().map(|(_, pid)| *pid);
        Family::of(&self.mark, supervisor, &self.site.child)
    }

    pub fn children(&self) -> anyhow::Result<usize> {
        Ok(self.family()?.children.len())
    }

    /// Resident bytes and nanoseconds run: the supervisor and its helpers, not the children.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let others: Vec<Process> = self.family()?.others;
        Ok(Usage::of(&others))
    }

    /// Kills the supervisor alone with SIGKILL.
    pub fn kill_supervisor(&mut self) -> anyhow::Result<()> {
        let Some((mut process, supervisor)) = self.running.take() else { bail!("it does not run") };
        send(supervisor, Message::KILL)?;
        process.wait()?;
        Ok(())
    }

    /// Kills one helper; false if it has none.
    pub fn kill_helper(&self) -> anyhow::Result<bool> {
        let Some((_, supervisor)) = &self.running else { bail!("it does not run") };
        let Some(helper) = self.family()?.helper(*supervisor) else { return Ok(false) };
        send(helper, Message::KILL)?;
        Ok(true)
    }

    /// Whatever happened: nothing of it is left.
    pub fn end(&mut self) -> anyhow::Result<()> {
        Family::end(&self.mark, &self.site.child)?;
        if let Some((mut process, _)) = self.running.take() {
            process.wait()?;
        }
        self.alive.clear();
        Ok(())
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error:#}", self.kind.name);
        }
    }
}
