//! How long it takes until 89 daemons run, and until the log holds every change of their states:
//! `cargo run --release -p ringrift-daemons --example record_bench` prints one JSON object.
//!
//! The daemons do nothing. Supervisor, log and catalogue are those of a manager, and so is the way
//! of a change of state into the log.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use anyhow::Context as _;
use courier::{Embedded, Folder, Options};
use ringrift_daemons::status_changed;
use ringrift_pipeline::{Catalogue, PipelineFold};
use serde_json::json;
use tokio::{runtime::Builder, time::Instant};
use warden::{
    Clock, Cx, Daemon, DaemonId, Handle, Outcome, Runnable, Settings, Spec, State, Supervisor,
    Transition,
};

const DAEMONS: usize = 89;
const ROUNDS: usize = 15;

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

fn main() -> anyhow::Result<()> {
    let daemons = Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let own = Builder::new_current_thread().enable_all().build()?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(own.block_on(round(daemons.handle()))?);
    }
    times.sort_by(f64::total_cmp);
    let at = |index: usize| times.get(index).map(|time| time.round());
    println!(
        "{}",
        json!({
            "start_89_recorded_us":
                {"min": at(0), "median": at(ROUNDS / 2), "p95": at((ROUNDS - 1) * 95 / 100), "n": ROUNDS},
        })
    );
    Ok(())
}

/// Microseconds from the request until the last change is in the log.
async fn round(daemons: &tokio::runtime::Handle) -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    let log = Embedded::open(&dir.path().join("facts.sqlite"), Options::default())?;
    let path = dir.path().join("catalogue.sqlite");
    let folder = Folder::open(&path, PipelineFold, log.clone()).await?;
    let catalogue = Catalogue::new(log, folder);

    let runnables: Vec<Runnable> = (0..DAEMONS).map(idle).collect();
    let ids: Vec<DaemonId> = runnables.iter().map(|runnable| runnable.spec.id).collect();
    let settings = Settings::new(daemons.clone());
    let (handle, supervision) = Supervisor::new(runnables, settings, Clock::system())?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { drop(supervision.await) });
    let took = start(&handle, &ids, &catalogue).await?;
    handle.shutdown().await?;
    tasks.shutdown().await;
    Ok(took)
}

async fn start(handle: &Handle, ids: &[DaemonId], catalogue: &Catalogue) -> anyhow::Result<f64> {
    let mut changes = handle.transitions();
    let began = Instant::now();
    let mut running = 0;
    let asked = handle.start(ids);
    let noted = async {
        while running < DAEMONS {
            let mut waiting = vec![changes.recv().await.context("a change of state")?];
            while let Ok(change) = changes.try_recv() {
                waiting.push(change);
            }
            running += waiting.iter().filter(|change| change.to == State::Running).count();
            note(catalogue, waiting).await?;
        }
        anyhow::Ok(())
    };
    let (asked, noted) = tokio::join!(asked, noted);
    asked?;
    noted?;
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

async fn note(catalogue: &Catalogue, changes: Vec<Transition>) -> anyhow::Result<()> {
    let at_ms = changes.last().map_or(0, |change| change.at_ms);
    let facts = changes.into_iter().map(status_changed);
    Ok(catalogue.note_all(facts.collect(), at_ms).await?)
}

fn idle(number: usize) -> Runnable {
    let name: &'static str = format!("DAEMON_{number:02}").leak();
    let mut runnable = Runnable::of::<Idle>(|| Ok(Idle));
    runnable.spec = Box::leak(Box::new(Spec { id: DaemonId(name), ..Spec::DEFAULT }));
    runnable
}
