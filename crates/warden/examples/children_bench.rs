//! A small supervisor of equal children, to be measured from outside:
//! `children_bench warden|bare RUN_DIR CHILDREN PROGRAM [ARGUMENT..]`.
//!
//! Keeps so many copies of the program running, starts each again as soon as it ends, and leaves
//! after SIGTERM when all have ended. `warden` does it through [`Workers`], `bare` with nothing but
//! tokio's processes.

use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use warden::worker::{Limits, WorkerSpec, Workers};

/// The children say nothing, and are not to be stopped for it.
const BEAT: Duration = Duration::from_hours(1);

struct Order {
    run_dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
}

type Tasks = JoinSet<anyhow::Result<()>>;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args_os().skip(1);
    let mut word = |what: &str| words.next().with_context(|| format!("{what} is missing"));
    let kind = word("`warden` or `bare`")?;
    let run_dir = word("the folder for records")?.into();
    let children = text(word("the number of children")?)?;
    let children: usize = children.parse().with_context(|| format!("`{children}` is no number"))?;
    let program = word("the program")?.into();
    let arguments = words.map(text).collect::<anyhow::Result<_>>()?;
    let order = Order { run_dir, program, arguments };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = CancellationToken::new();
        let mut tasks = match kind.to_str() {
            Some("warden") => with_warden(&order, children, &stop)?,
            Some("bare") => with_tokio(&order, children, &stop),
            _ => bail!("{}: allowed are warden and bare", kind.display()),
        };
        tokio::select! {
            _ = terminate.recv() => stop.cancel(),
            Some(ended) = tasks.join_next() => ended??,
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    })
}

fn text(word: OsString) -> anyhow::Result<String> {
    word.into_string().map_err(|word| anyhow::anyhow!("{} is not UTF-8", word.display()))
}

fn with_warden(order: &Order, children: usize, stop: &CancellationToken) -> anyhow::Result<Tasks> {
    let workers = Workers::new(&order.run_dir)?;
    let mut spec = WorkerSpec::new(&order.program, order.run_dir.join("work"), "{}".into());
    spec.args.clone_from(&order.arguments);
    spec.limits = Limits { beat: BEAT, ..Limits::default() };
    let mut tasks = JoinSet::new();
    for _ in 0..children {
        let (workers, spec, stop) = (workers.clone(), spec.clone(), stop.clone());
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                let mut worker = workers.start(spec.clone()).await?;
                let ended = tokio::select! {
                    _ = worker.finished() => true,
                    () = stop.cancelled() => false,
                };
                if !ended {
                    worker.terminate();
                    worker.finished().await;
                }
            }
            Ok(())
        });
    }
    Ok(tasks)
}

fn with_tokio(order: &Order, children: usize, stop: &CancellationToken) -> Tasks {
    let mut tasks = JoinSet::new();
    for _ in 0..children {
        let (program, arguments) = (order.program.clone(), order.arguments.clone());
        let stop = stop.clone();
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                let mut child =
                    Command::new(&program).args(&arguments).stdin(Stdio::null()).spawn()?;
                let ended = tokio::select! {
                    ended = child.wait() => ended.map(|_| true)?,
                    () = stop.cancelled() => false,
                };
                if !ended {
                    terminate(&child)?;
                    child.wait().await?;
                }
            }
            Ok(())
        });
    }
    tasks
}

fn terminate(child: &Child) -> anyhow::Result<()> {
    let pid = child.id().context("a child that was not reaped")?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}
