//! Everything that a manager is put together of, and in which order it is opened and closed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use courier::{Courier, Folder, Outbox, Stream};
use depot::Depot;
use hosts::{Guard, Reach};
use ringrift_daemons::{
    Backlog, Bell, Blobs, Loop, Machine, Machines, Neighbours, Pressure, Provided, STANDALONE,
    Wiring, Workshop, WorkshopSettings, profile, registry,
};
use ringrift_pipeline::{Catalogue, NodeId, PipelineFold};
use tracing::{info, warn};
use warden::{Clock, Runnable, worker::Workers};

use super::{
    capable::{Part, try_machine},
    leader::Seat,
    others::Others,
};
use crate::{
    config::{MachineSettings, Settings},
    data_dir::DataDir,
    exit::{Failure, OrExit as _},
    far::{self, FromFar},
    http::Http,
    logs::LogLevel,
    membership::{Membership, open_log},
    plan::{Plan, Wanted, plan},
    state::State,
};

/// Longest wait for the catalogue at the start: folding a million facts takes about a minute.
const FOLD_LIMIT: Duration = Duration::from_mins(10);
/// Time allowed to one write into the catalogue.
const PATIENCE: Duration = Duration::from_secs(10);
/// Free bytes that the store leaves alone: what facts, logs and SQLite need to say that the disk is
/// full.
pub const KEEP_FREE: u64 = 4 << 20;

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
    /// The leases, unless somebody keeps them at the moment.
    pub seat: Option<Seat>,
    /// The cluster that this node is of.
    pub membership: Option<Membership>,
    /// The other nodes of it.
    pub others: Option<Others>,
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
        let log = open_log(dir, settings.durability).await.or_usage()?;
        let membership = Membership::of(dir).or_usage()?;
        let shared = membership.is_some();
        let depot = Depot::open(dir.root(), depot::Options { keep_free: KEEP_FREE }).or_usage()?;
        let node =
            hosts::identity(&dir.node()).context("find this installation's name").or_usage()?;
        let node = NodeId(node);
        // Ends what survived of an earlier life, before anything new can meet it.
        let workers = Workers::new(&dir.run()).context("prepare for worker processes")?;
        let plan = plan(settings, wanted, shared);
        tell(&plan);
        let competes = !shared || plan.may_lead;
        let mut seat = Seat::take(&log, &node, &clock, shared).await?;
        let leases = seat.leases();

        let folder = Folder::open(&dir.catalogue(), PipelineFold, log.clone()).await?;
        if let Some(why) = folder.rebuilt() {
            info!(why, "the catalogue is folded anew");
        }
        let began_at = log.head(Stream::Pipeline).await?;
        folder.caught_up(began_at, FOLD_LIMIT).await?;
        let catalogue = Catalogue::new(log.clone(), folder).fenced(leases.node());
        let mut catalogue = catalogue.of_node(shared.then(|| node.clone()));
        if shared {
            let outbox = dir.outbox();
            let opened = tokio::task::spawn_blocking(move || Outbox::open(&outbox)).await;
            let opened = opened.context("open the outbox").or_usage()?;
            catalogue = catalogue.with_outbox(opened.context("open the outbox").or_usage()?);
        }

        let bell = Bell::default();
        let pressure = Pressure::default();
        let blobs = Blobs::new(depot);
        let others = match &membership {
            Some(membership) => {
                let own = catalogue.for_source(format!("manager@{node}"));
                let met = Others::meet(membership, dir, &blobs, &own, &node, seat.nodes()).await;
                Some(met.or_usage()?)
            }
            None => None,
        };
        let store = far::open(&settings.store).or_usage()?;
        if store.get().is_some() {
            let catalogue = catalogue.for_source(format!("manager@{node}"));
            let (store, depot) = (store.clone(), Arc::clone(blobs.depot()));
            blobs.connect_far(FromFar { store, catalogue, depot });
        }
        let neighbours = Neighbours::default();
        if let Some(others) = &others {
            neighbours.connect(others.clone());
        }
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
            node,
            seed: settings.seed,
            data: dir.root().to_path_buf(),
            profile: profile(&settings.profile).unwrap_or(STANDALONE),
            standalone: settings.profile == STANDALONE.0,
            shared,
            memory: hosts::memory().context("ask how much memory there is")?.total,
            nodes: seat.nodes(),
        });
        let wiring = Wiring {
            catalogue: catalogue.clone(),
            leases: leases.clone(),
            blobs,
            far: store,
            neighbours,
            workshop: workshop.clone(),
            the_loop: the_loop.clone(),
            pressure: pressure.clone(),
            backlog: Backlog::default(),
            bell: bell.clone(),
            http,
            machines: machines(settings),
            patience: PATIENCE,
        };
        let plays = plan.start.iter().any(|id| id.0 == "IDLE_RESOURCE");
        let began = async {
            if let Some(others) = &others {
                if let Some(why) = others.refusal().await? {
                    seat.leave().await?;
                    return Err(Failure::usage(anyhow!(why)));
                }
                let slots = workshop.slots();
                let playing = if plays { slots } else { 0 };
                let can = tokio::task::spawn_blocking(try_machine)
                    .await
                    .context("try this machine")??;
                let part = Part { role: asked.clone(), slots, playing, can };
                others.tell(part, clock.now_ms()).await?;
                // A node that is drained takes nothing from the first moment on.
                others.look(&pressure).await?;
            }
            // Not before it is known that it may be here: a program that is too old leads nobody.
            if competes {
                seat.compete().await?;
            }
            Ok(())
        };
        let began: Result<(), Failure> = began.await;
        if began.is_err()
            && let Some(others) = &others
        {
            // Its port is wanted by the next try.
            others.leave().await;
        }
        began?;
        let mut runnables = Vec::new();
        for (_, entry) in registry() {
            let section = settings.daemons.get(&entry.section()).cloned().unwrap_or_default();
            runnables.extend(entry.runnable(&wiring, section).or_usage()?);
        }
        let state = State {
            catalogue: if shared {
                catalogue.for_source(format!("manager@{}", the_loop.node))
            } else {
                catalogue
            },
            leases,
            bell: bell.clone(),
            workshop,
            pressure,
            the_loop,
            started_ms,
            clock: clock.clone(),
            log_level,
        };
        let seat = Some(seat);
        Ok(Self {
            state,
            runnables,
            asked,
            plan,
            bell,
            log,
            seat,
            membership,
            others,
            began_at,
            clock,
        })
    }

    /// Gives back what the next manager wants.
    pub async fn close(&mut self) {
        if let Some(others) = &self.others {
            others.leave().await;
        }
        if let Some(seat) = &mut self.seat
            && let Err(error) = seat.leave().await
        {
            warn!(%error, "the leases are not given back; they run out by themselves");
        }
        info!(at_ms = self.clock.now_ms(), "this manager has ended");
    }
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

/// The machines of nodes. All of one provider share its budget.
fn machines(settings: &Settings) -> Machines {
    let guards: BTreeMap<&str, Arc<Guard>> = settings
        .providers
        .iter()
        .map(|(name, provider)| {
            let guard = Guard::new(provider.programs.clone(), provider.is_dry, provider.budget);
            (name.as_str(), Arc::new(guard))
        })
        .collect();
    let machine = |(node, machine): (&String, &MachineSettings)| {
        let provided = machine.provided.as_ref().and_then(|(provider, instance)| {
            let guard = Arc::clone(guards.get(provider.as_str())?);
            Some(Provided { provider: provider.clone(), instance: instance.clone(), guard })
        });
        let reach = machine.ssh.clone().map_or(Reach::Here, Reach::Ssh);
        (NodeId(node.clone()), Machine { reach, restart: machine.restart.clone(), provided })
    };
    Machines::new(settings.machines.iter().map(machine).collect())
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
