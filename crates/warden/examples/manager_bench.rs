//! What supervision costs: times of the supervisor beside bare tokio, in one run.
//!
//! `cargo run --release -p warden --example manager_bench -- [--json] [--seconds N] [--rows LIST]`
//!
//! The supervisor has a thread of its own and the daemons a runtime of theirs, as in a manager.
//! Each `bare` row does the least that tokio allows for the same end, with the same layout.

#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    runtime::{Builder, Runtime},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::Instant,
};
use warden::{
    Clock, Cx, Daemon, DaemonId, Handle, Outcome, RestartPolicy, Runnable, Settings, Spec, State,
    Supervisor,
    worker::{Worker, WorkerSpec, Workers},
};

const DAEMONS: usize = 89;
const CHILDREN: usize = 100;
const ROUNDS: usize = 30;
const CRASHES: usize = 1000;
const KILLS: usize = 30;
/// As many as a manager has at least.
const THREADS: usize = 4;
/// What can be chosen.
const ROWS: &[&str] = &["start", "stop", "crash", "sweep", "idle", "children"];
/// Between two sweeps when they are measured: short, so that they outweigh all else.
const SWEEP_EVERY: Duration = Duration::from_millis(5);

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--child"] => return child(),
        ["--idle", kind, seconds] => return idle(kind, seconds.parse()?),
        ["--children", kind] => return parent(kind),
        _ => {}
    }
    let (mut as_json, mut seconds) = (false, 20);
    let mut rows: Vec<&str> = ROWS.to_vec();
    let mut rest = args.iter();
    while let Some(&arg) = rest.next() {
        match arg {
            "--json" => as_json = true,
            "--seconds" => {
                let text = rest.next().context("--seconds: a number is missing")?;
                seconds = text.parse().with_context(|| format!("--seconds {text}: no number"))?;
            }
            "--rows" => {
                rows = rest.next().context("--rows: a list is missing")?.split(',').collect();
                if let Some(unknown) = rows.iter().find(|row| !ROWS.contains(row)) {
                    bail!("--rows {unknown}: unknown; allowed are {}", ROWS.join(", "));
                }
            }
            _ => bail!("{arg}: unknown; allowed are --json, --seconds N and --rows LIST"),
        }
    }
    let figures = measure(&rows, seconds)?;
    if as_json {
        println!("{figures}");
    } else {
        println!("{figures:#}");
    }
    Ok(())
}

/// The figures of the chosen rows, each beside the bare one.
fn measure(rows: &[&str], seconds: u64) -> anyhow::Result<Value> {
    let asking = Builder::new_current_thread().enable_all().build()?;
    let has = |row| rows.contains(&row);
    let (mut ours, mut bare) = (Map::new(), Map::new());
    let mut note = |name: &str, figure: Value, least: Value| {
        ours.insert(name.to_owned(), figure);
        bare.insert(name.to_owned(), least);
    };
    asking.block_on(async {
        if has("start") || has("stop") {
            let (starts, stops) = start_and_stop().await?;
            let (bare_starts, bare_stops) = bare_start_and_stop().await?;
            note("start_89_us", starts, bare_starts);
            note("stop_89_us", stops, bare_stops);
        }
        if has("crash") {
            let crash = crash_to_running().await?;
            note("crash_to_running_us", crash.running, bare_crash(false).await?);
            note("crash_to_recorded_us", crash.recorded, Value::Null);
            note("crash_to_running_on_two_threads_us", Value::Null, bare_crash(true).await?);
        }
        if has("sweep") {
            note("health_sweep_us", health_sweep(seconds.clamp(1, 5)).await?, Value::Null);
        }
        if has("idle") {
            let seconds = seconds.to_string();
            let idle = own_process(&["--idle", "warden", &seconds]).await?;
            note("idle", idle, own_process(&["--idle", "bare", &seconds]).await?);
        }
        if has("children") {
            let ours = own_process(&["--children", "warden"]).await?;
            let bare = own_process(&["--children", "bare"]).await?;
            for (name, field) in [
                ("child_kill_to_running_us", "kill_to_running_us"),
                ("children_start_100_ms", "start_100_ms"),
                ("children_stop_100_ms", "stop_100_ms"),
            ] {
                note(name, ours[field].clone(), bare[field].clone());
            }
        }
        anyhow::Ok(())
    })?;
    ours.insert("bare".to_owned(), bare.into());
    Ok(ours.into())
}

// ---- daemons

/// Does nothing, once a minute.
struct Idle;

impl Daemon for Idle {
    const SPEC: Spec = Spec::DEFAULT;
    type Config = ();
    type Ports = ();
    type Status = ();

    fn new((): (), (): ()) -> Self {
        Self
    }

    async fn cycle(&mut self, _: &Cx) -> anyhow::Result<Outcome<()>> {
        Ok(Outcome::Done(()))
    }
}

/// Fails when it is told to, and notes when.
struct Fragile {
    order: Arc<Notify>,
    stamps: Arc<Mutex<Stamps>>,
}

#[derive(Default)]
struct Stamps {
    failed: Option<Instant>,
    runs: Option<Instant>,
}

impl Daemon for Fragile {
    const SPEC: Spec = Spec { id: DaemonId("FRAGILE"), ..Spec::DEFAULT };
    type Config = Arc<Notify>;
    type Ports = Arc<Mutex<Stamps>>;
    type Status = ();

    fn new(order: Self::Config, stamps: Self::Ports) -> Self {
        Self { order, stamps }
    }

    async fn run(self, cx: Cx) -> anyhow::Result<()> {
        self.stamps.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.runs = Some(Instant::now());
        cx.ready();
        tokio::select! {
            () = cx.stopped() => return Ok(()),
            () = self.order.notified() => {}
        }
        self.stamps.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.failed = Some(Instant::now());
        bail!("told to")
    }
}

/// Daemons of one type under many names.
fn idle_daemons() -> Vec<Runnable> {
    let named = |number: usize| {
        let name: &'static str = format!("DAEMON_{number:02}").leak();
        let mut runnable = Runnable::of::<Idle>(|| Ok(Idle));
        // A critical one has an interval of its own, and sweeps shall meet all.
        runnable.spec = Box::leak(Box::new(Spec { id: DaemonId(name), ..Spec::DEFAULT }));
        runnable
    };
    (0..DAEMONS).map(named).collect()
}

/// A supervisor at work, laid out like a manager.
struct Stage {
    handle: Handle,
    ids: Vec<DaemonId>,
    thread: JoinHandle<Option<u64>>,
    daemons: Runtime,
}

impl Stage {
    fn new(runnables: Vec<Runnable>, set: impl FnOnce(&mut Settings)) -> anyhow::Result<Self> {
        let daemons = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
        let own = Builder::new_current_thread().enable_all().build()?;
        let ids = runnables.iter().map(|runnable| runnable.spec.id).collect();
        let mut settings = Settings::new(daemons.handle().clone());
        set(&mut settings);
        let (handle, drive) = Supervisor::new(runnables, settings, Clock::system())?;
        let thread = std::thread::spawn(move || {
            own.block_on(drive);
            run_time("/proc/thread-self/schedstat")
        });
        Ok(Self { handle, ids, thread, daemons })
    }

    async fn start(&self) -> anyhow::Result<Duration> {
        let mut snapshots = self.handle.subscribe();
        let began = Instant::now();
        self.handle.start(&self.ids).await?;
        snapshots.wait_for(|s| s.daemons.iter().all(|view| view.state == State::Running)).await?;
        Ok(began.elapsed())
    }

    /// Stops all; gives the time that it took, and the processor time of the supervisor's thread.
    async fn stop(self) -> anyhow::Result<(Duration, u64)> {
        let began = Instant::now();
        self.handle.shutdown().await?;
        let took = began.elapsed();
        let used = self.thread.join().ok().flatten().context("read the thread's run time")?;
        self.daemons.shutdown_background();
        Ok((took, used))
    }
}

async fn start_and_stop() -> anyhow::Result<(Value, Value)> {
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let stage = Stage::new(idle_daemons(), |_| {})?;
        starts.push(stage.start().await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
        stops.push(stage.stop().await?.0);
    }
    Ok((median_us(starts), median_us(stops)))
}

struct Crash {
    /// Until the replacement runs, as peers are measured.
    running: Value,
    /// Until somebody on a third thread has heard of it.
    recorded: Value,
}

async fn crash_to_running() -> anyhow::Result<Crash> {
    let (order, stamps) = (Arc::<Notify>::default(), Arc::<Mutex<Stamps>>::default());
    let runnable = {
        let (order, stamps) = (order.clone(), stamps.clone());
        Runnable::of(move || Ok(Fragile::new(order.clone(), stamps.clone())))
    };
    let stage = Stage::new(vec![runnable], |settings| {
        let (base, cap) = (Duration::ZERO, Duration::ZERO);
        settings.restart = RestartPolicy { base, cap, max: u32::MAX, ..Default::default() };
    })?;
    stage.start().await?;
    let mut moves = stage.handle.transitions();
    let (mut running, mut recorded) = (Vec::new(), Vec::new());
    for _ in 0..CRASHES {
        order.notify_one();
        while moves.recv().await?.to != State::Running {}
        let seen = Instant::now();
        let stamps = stamps.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        let failed = stamps.failed.context("it failed")?;
        recorded.push(seen - failed);
        running.push(stamps.runs.context("it runs")? - failed);
    }
    stage.stop().await?;
    Ok(Crash { running: spread_us(running), recorded: spread_us(recorded) })
}

/// Processor time of the supervisor's thread with many sweeps, less the same without any.
async fn health_sweep(seconds: u64) -> anyhow::Result<Value> {
    let time = Duration::from_secs(seconds);
    let run = async |interval| {
        let stage = Stage::new(idle_daemons(), |settings| {
            settings.health_interval = interval;
            settings.critical_health_interval = interval;
        })?;
        stage.start().await?;
        tokio::time::sleep(time).await;
        anyhow::Ok(stage.stop().await?.1)
    };
    let (with, without) = (run(SWEEP_EVERY).await?, run(Duration::from_hours(1)).await?);
    let sweeps = u64::try_from(time.as_micros() / SWEEP_EVERY.as_micros())?;
    Ok(json!(rounded(micros(Duration::from_nanos(with.saturating_sub(without) / sweeps)))))
}

// ---- idle, in a process of its own

/// A fork costs by the memory of its parent, and idling by what ran before: so each kind of figure
/// that depends on it comes from a fresh process.
async fn own_process(args: &[&str]) -> anyhow::Result<Value> {
    let output = Command::new(std::env::current_exe()?).args(args).output().await?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("read the figures of {args:?}"))
}

fn idle(kind: &str, seconds: u64) -> anyhow::Result<()> {
    let time = Duration::from_secs(seconds);
    let asking = Builder::new_current_thread().enable_all().build()?;
    let figures = asking.block_on(async {
        if kind == "warden" {
            let stage = Stage::new(idle_daemons(), |_| {})?;
            stage.start().await?;
            let figures = rest(time).await?;
            stage.stop().await?;
            return Ok(figures);
        }
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut tasks = JoinSet::new();
        for _ in 0..DAEMONS {
            let every_second = async {
                let mut ticks = tokio::time::interval(Duration::from_secs(1));
                loop {
                    ticks.tick().await;
                }
            };
            tasks.spawn_on(every_second, runtime.handle());
        }
        let figures = rest(time).await?;
        tasks.abort_all();
        runtime.shutdown_background();
        anyhow::Ok(figures)
    })?;
    println!("{figures}");
    Ok(())
}

async fn rest(time: Duration) -> anyhow::Result<Value> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = run_time_of_all()?;
    tokio::time::sleep(time).await;
    let used = Duration::from_nanos(run_time_of_all()?.saturating_sub(before));
    let status = fs_err::read_to_string("/proc/self/status")?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok());
    let percent = 100.0 * used.as_secs_f64() / time.as_secs_f64();
    let percent = (percent * 1e5).round() / 1e5;
    Ok(json!({"rss_kib": rss, "cpu_percent": percent, "seconds": time.as_secs()}))
}

/// Nanoseconds that a thread has run; see `proc_pid_schedstat`.
fn run_time(file: impl AsRef<std::path::Path>) -> Option<u64> {
    let text = fs_err::read_to_string(file.as_ref()).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn run_time_of_all() -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs_err::read_dir("/proc/self/task")? {
        sum += run_time(task?.path().join("schedstat")).unwrap_or(0);
    }
    Ok(sum)
}

// ---- children

/// Says that it runs, and waits until its parent lets it go.
fn child() -> anyhow::Result<()> {
    println!("up");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn parent(kind: &str) -> anyhow::Result<()> {
    let asking = Builder::new_current_thread().enable_all().build()?;
    let figures = asking.block_on(async {
        let ours = kind == "warden";
        let (start, stop) = if ours { children().await? } else { bare_children().await? };
        let kill = if ours { child_kill().await? } else { bare_child_kill().await? };
        anyhow::Ok(json!({"start_100_ms": start, "stop_100_ms": stop, "kill_to_running_us": kill}))
    })?;
    println!("{figures}");
    Ok(())
}

struct Nursery {
    // Before the folder, so that it still has one when it ends.
    workers: Workers,
    dir: tempfile::TempDir,
}

impl Nursery {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { workers: Workers::new(dir.path())?, dir })
    }

    async fn start(&self) -> anyhow::Result<Worker> {
        let mut spec =
            WorkerSpec::new(std::env::current_exe()?, self.dir.path().join("work"), "{}".into());
        spec.args = vec!["--child".into()];
        Ok(self.workers.start(spec).await?)
    }
}

async fn child_kill() -> anyhow::Result<Value> {
    let nursery = Nursery::new()?;
    let mut times = Vec::new();
    let mut worker = nursery.start().await?;
    worker.next_line().await.context("the first line")?;
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        kill(worker.pid())?;
        worker.finished().await;
        worker = nursery.start().await?;
        worker.next_line().await.context("the first line")?;
        times.push(began.elapsed());
    }
    Ok(median_us(times))
}

async fn children() -> anyhow::Result<(Value, Value)> {
    let nursery = Nursery::new()?;
    let began = Instant::now();
    let mut workers = Vec::new();
    for _ in 0..CHILDREN {
        workers.push(nursery.start().await?);
    }
    for worker in &mut workers {
        worker.next_line().await.context("the first line")?;
    }
    let started = began.elapsed();
    let began = Instant::now();
    for worker in &workers {
        worker.terminate();
    }
    for worker in &mut workers {
        worker.finished().await;
    }
    Ok((json!(rounded(millis(started))), json!(rounded(millis(began.elapsed())))))
}

fn kill(pid: u32) -> anyhow::Result<()> {
    signal(pid, rustix::process::Signal::KILL)
}

fn signal(pid: u32, signal: rustix::process::Signal) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

// ---- bare tokio

async fn bare_start_and_stop() -> anyhow::Result<(Value, Value)> {
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
        let (up, mut ups) = mpsc::channel(DAEMONS);
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..DAEMONS {
            let up = up.clone();
            let task = async move {
                // Nobody counts any more: the round was given up.
                let _ = up.send(()).await;
                std::future::pending::<()>().await;
            };
            tasks.spawn_on(task, runtime.handle());
        }
        for _ in 0..DAEMONS {
            ups.recv().await.context("a daemon that runs")?;
        }
        starts.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        tasks.shutdown().await;
        stops.push(began.elapsed());
        runtime.shutdown_background();
    }
    Ok((median_us(starts), median_us(stops)))
}

/// `apart`: who watches has a thread of its own, like a supervisor.
async fn bare_crash(apart: bool) -> anyhow::Result<Value> {
    let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let daemons = runtime.handle().clone();
    let watch = async move {
        let mut times = Vec::new();
        for _ in 0..CRASHES {
            let mut tasks = JoinSet::new();
            let crash = async { Instant::now() };
            tasks.spawn_on(crash, &daemons);
            let failed = tasks.join_next().await.context("its end")??;
            tasks.spawn_on(async { Instant::now() }, &daemons);
            let runs = tasks.join_next().await.context("its end")??;
            times.push(runs - failed);
        }
        anyhow::Ok(times)
    };
    let times = if apart {
        watch.await?
    } else {
        let mut tasks = JoinSet::new();
        tasks.spawn_on(watch, runtime.handle());
        tasks.join_next().await.context("the watch ends")???
    };
    runtime.shutdown_background();
    Ok(spread_us(times))
}

async fn bare_child() -> anyhow::Result<tokio::process::Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--child")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let line = child.stdout.as_mut().context("its output")?;
    BufReader::new(line).read_line(&mut String::new()).await?;
    Ok(child)
}

async fn bare_child_kill() -> anyhow::Result<Value> {
    let mut times = Vec::new();
    let mut child = bare_child().await?;
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        kill(child.id().context("a process id")?)?;
        child.wait().await?;
        child = bare_child().await?;
        times.push(began.elapsed());
    }
    Ok(median_us(times))
}

async fn bare_children() -> anyhow::Result<(Value, Value)> {
    let began = Instant::now();
    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        let child = Command::new(std::env::current_exe()?)
            .arg("--child")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        children.push(child);
    }
    for child in &mut children {
        let line = child.stdout.as_mut().context("its output")?;
        BufReader::new(line).read_line(&mut String::new()).await?;
    }
    let started = began.elapsed();
    let began = Instant::now();
    for child in &children {
        signal(child.id().context("a process id")?, rustix::process::Signal::TERM)?;
    }
    for child in &mut children {
        child.wait().await?;
    }
    Ok((json!(rounded(millis(started))), json!(rounded(millis(began.elapsed())))))
}

// ---- figures

fn median_us(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    json!(times.get(times.len() / 2).map(|&time| rounded(micros(time))))
}

fn spread_us(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |index: usize| times.get(index).map(|&time| rounded(micros(time)));
    let last = times.len().saturating_sub(1);
    json!({"min": at(0), "median": at(times.len() / 2), "p95": at(last * 95 / 100)})
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}
