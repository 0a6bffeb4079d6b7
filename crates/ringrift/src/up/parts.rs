//! Everything that a manager is put together of, and in which order it is opened and closed.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use courier::{Courier, Embedded, Folder, Lease, Options, Stream};
use depot::Depot;
use ringrift_daemons::{
    Bell, Blobs, Loop, Pressure, STANDALONE, Wiring, Workshop, WorkshopSettings, registry,
};
use ringrift_pipeline::{Catalogue, NodeId, PipelineFold};
use tracing::{info, warn};
use warden::{Clock, Runnable, worker::Workers};

use super::leader;
use crate::{
    config::{Durability, Settings},
    data_dir::DataDir,
    exit::{Failure, OrExit as _},
    http::Http,
    logs::LogLevel,
    plan::{Plan, Wanted, plan},
    state::State,
};

/// Longest wait for the catalogue at the start: folding a million facts takes about a minute.
const FOLD_LIMIT: Duration = Duration::from_mins(10);
/// Time allowed to one write into the catalogue.
const PATIENCE: Duration = Duration::from_secs(10);
/// Free bytes that the store leaves alone: what facts, logs and SQLite need to say that the disk is
/// full.
const KEEP_FREE: u64 = 4 << 20;

/// The parts of a manager.
pub struct Parts {
    /// What can be shown of them.
    pub state: State,
    /// What can be started.
    pub runnables: Vec<Runnable>,
    /// What was asked for, in words.
    pub asked: String,
    /// What is to be started.
    pub plan: Plan,
    /// The line to the supervisor.
    pub bell: Bell,
    /// The log.
    pub log: Courier,
    /// The right to write.
    pub lease: Lease,
    /// Where the log stood at the start.
    pub began_at: u64,
    clock: Clock,
}

impl Parts {
    /// Opens everything; nothing runs yet but the fold.
    ///
    /// # Errors
    /// What is wrong with the data directory or the configuration is exit code 2.
    pub async fn open(
        settings: &Settings,
        asked: String,
        wanted: &Wanted,
        dir: &DataDir,
        http: Arc<Http>,
        log_level: LogLevel,
    ) -> Result<Self, Failure> {
        let clock = Clock::system();
        let started_ms = clock.now_ms();
        let log = open_log(settings, dir).await.or_usage()?;
        let depot = Depot::open(dir.root(), depot::Options { keep_free: KEEP_FREE }).or_usage()?;
        let node =
            hosts::identity(&dir.node()).context("find this installation's name").or_usage()?;
        // Ends what survived of an earlier life, before anything new can meet it.
        let workers = Workers::new(&dir.run()).context("prepare for worker processes")?;
        let lease = leader::take(&log, &node, &clock).await?;
        info!(epoch = lease.epoch, node, "this manager leads");

        let folder = Folder::open(&dir.catalogue(), PipelineFold, log.clone()).await?;
        if let Some(why) = folder.rebuilt() {
            info!(why, "the catalogue is folded anew");
        }
        let began_at = log.head(Stream::Pipeline).await?;
        folder.caught_up(began_at, FOLD_LIMIT).await?;
        let catalogue = Catalogue::new(log.clone(), folder).fenced(leader::fence(&lease));

        let bell = Bell::default();
        let pressure = Pressure::default();
        let blobs = Blobs::new(depot);
        let workshop = Workshop::open(
            workshop_settings(settings, dir),
            workers,
            blobs.clone(),
            pressure.clone(),
            bell.clone(),
            clock.clone(),
        )?;
        let the_loop = Arc::new(Loop {
            configs: settings.configs.clone(),
            node: NodeId(node),
            seed: settings.seed,
            data: dir.root().to_path_buf(),
            standalone: settings.profile == STANDALONE.0,
        });
        let wiring = Wiring {
            catalogue: catalogue.clone(),
            blobs,
            workshop: workshop.clone(),
            the_loop: the_loop.clone(),
            pressure: pressure.clone(),
            bell: bell.clone(),
            http,
            patience: PATIENCE,
        };
        let mut runnables = Vec::new();
        for (_, entry) in registry() {
            let section = settings.daemons.get(&entry.section()).cloned().unwrap_or_default();
            runnables.extend(entry.runnable(&wiring, section).or_usage()?);
        }
        let plan = plan(settings, wanted);
        tell(&plan);
        let state = State {
            catalogue,
            bell: bell.clone(),
            workshop,
            pressure,
            the_loop,
            started_ms,
            clock: clock.clone(),
            log_level,
        };
        Ok(Self { state, runnables, asked, plan, bell, log, lease, began_at, clock })
    }

    /// Gives back what the next manager wants.
    pub async fn close(&self) {
        if let Err(error) = self.log.release(&self.lease).await {
            warn!(%error, "the lease is not given back; it runs out by itself");
        }
        info!(at_ms = self.clock.now_ms(), "this manager has ended");
    }
}

async fn open_log(settings: &Settings, dir: &DataDir) -> anyhow::Result<Courier> {
    let durability = match settings.durability {
        Durability::Normal => courier::Durability::Normal,
        Durability::Full => courier::Durability::Full,
    };
    let path = dir.facts();
    let options = Options { durability, ..Options::default() };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&path, options)).await?;
    Ok(opened?)
}

fn workshop_settings(settings: &Settings, dir: &DataDir) -> WorkshopSettings {
    WorkshopSettings {
        slots: if settings.slots == 0 { hosts::cores() } else { settings.slots },
        // The program that runs now, even if its file is replaced meanwhile: manager and workers
        // must speak the same version of the contract.
        program: vec!["/proc/self/exe".into(), "worker".into()],
        plugins: settings.plugins.clone(),
        work_dir: dir.work(),
        log_dir: dir.logs().join("workers"),
        memory: settings.memory,
        silence: settings.silence,
        grace: settings.grace,
    }
}

fn tell(plan: &Plan) {
    let names = |ids: &[warden::DaemonId]| ids.iter().map(|id| id.0).collect::<Vec<_>>().join(", ");
    if !plan.added.is_empty() {
        info!(
            daemons = names(&plan.added),
            "added because others need them, or every node has them"
        );
    }
    if !plan.skipped.is_empty() {
        warn!(daemons = names(&plan.skipped), "left out because they are not built yet");
    }
    if !plan.disabled.is_empty() {
        info!(daemons = names(&plan.disabled), "left out because the configuration disables them");
    }
}
