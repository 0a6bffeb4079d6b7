//! What a node says of itself: what it has in hand, and if nothing, why.

use std::{collections::BTreeSet, sync::Arc};

use ringrift_pipeline::{
    Catalogue, CatalogueError, Config, GateChanged, WorkId, WorkKind, WorkState,
};
use serde::{Deserialize, Serialize};
use warden::{Daemon as _, DaemonView, Health, Snapshot, State};

use crate::{
    LiveWork, Loop, Pressure, evaluation::evaluation::Evaluation,
    pipeline::training_trigger::TrainingTrigger, queue::queue_populator::QueuePopulator,
    resource::idle_resource::IdleResource,
};

/// Most works, and most daemons in trouble, that are named; the rest are counted.
const MOST: usize = 32;
/// Longest sentence, characters: every node gets the reports of all.
const LONGEST: usize = 240;
/// Free space is told in steps of so many bytes, so that it does not change all the time.
const DISK_STEP: u64 = 256 << 20;

/// A reason in one sentence, and who gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Why {
    /// A daemon, or another part of the manager.
    pub by: String,
    /// What is so.
    pub reason: String,
    /// What would change it; empty when nothing is wrong.
    pub needs: String,
}

impl Why {
    fn new(by: &str, reason: impl Into<String>, needs: impl Into<String>) -> Self {
        Self { by: by.to_owned(), reason: short(reason), needs: short(needs) }
    }
}

fn short(text: impl Into<String>) -> String {
    let text = text.into();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A work that a node has in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidWork {
    /// Names it.
    pub work: WorkId,
    /// Its kind.
    pub kind: String,
    /// Configuration of the game.
    pub config: Config,
}

/// What a node says of itself. A field that an older program does not tell has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeReport {
    /// What runs or waits for a slot, the first of them.
    pub works: Vec<SaidWork>,
    /// How many there are beyond those.
    pub more_works: usize,
    /// Worker slots that nobody uses.
    pub free_slots: usize,
    /// Why it does nothing; none while it has work in hand.
    pub idle: Option<Why>,
    /// What holds production up there.
    pub obstacles: Vec<Why>,
    /// Daemons that were asked for and do not run well.
    pub troubles: Vec<Why>,
    /// Daemons that run.
    pub running: usize,
    /// Daemons that were asked for.
    pub asked: usize,
    /// Free space of its data directory, bytes, in steps; none if it cannot be told.
    pub disk_free: Option<u64>,
    /// Threads that can run at the same time.
    pub cores: usize,
    /// Whether it leads when nobody else does.
    pub competes: bool,
}

/// What a report is made of.
pub struct Reporter<'a> {
    /// What is the case; its gates are those of this node.
    pub catalogue: &'a Catalogue,
    /// What the loop is about.
    pub the_loop: &'a Loop,
    /// The daemons; none before the supervisor runs.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The brake.
    pub pressure: &'a Pressure,
    /// What runs or waits for a slot.
    pub live: Vec<LiveWork>,
    /// Worker slots.
    pub slots: usize,
    /// Whether this node leads.
    pub leads: bool,
}

impl Reporter<'_> {
    /// What this node says of itself now.
    ///
    /// # Errors
    /// It does nothing, and the catalogue cannot be asked why.
    pub async fn report(&self) -> Result<NodeReport, CatalogueError> {
        let daemons = self.snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.daemons);
        let asked: Vec<&DaemonView> = daemons.iter().filter(|view| view.asked).collect();
        let obstacles: Vec<Why> = self
            .pressure
            .obstacles()
            .into_iter()
            .map(|(by, obstacle)| Why::new(by, obstacle.reason, obstacle.needs))
            .collect();
        let taken = self.live.iter().filter(|live| !live.is_short()).count();
        let disk = hosts::disk(&self.the_loop.data).ok();
        Ok(NodeReport {
            works: self.live.iter().take(MOST).map(said).collect(),
            more_works: self.live.len().saturating_sub(MOST),
            free_slots: self.slots.saturating_sub(taken),
            idle: if self.live.is_empty() { Some(self.idle(&obstacles).await?) } else { None },
            obstacles,
            troubles: asked.iter().filter_map(|view| trouble(view)).take(MOST).collect(),
            running: asked.iter().filter(|view| view.state == State::Running).count(),
            asked: asked.len(),
            disk_free: disk.map(|disk| disk.available - disk.available % DISK_STEP),
            cores: hosts::cores(),
            competes: self.the_loop.nodes.competes() || !self.the_loop.shared,
        })
    }

    async fn idle(&self, obstacles: &[Why]) -> Result<Why, CatalogueError> {
        let view = |name: &str| {
            let daemons = &self.snapshot.as_ref()?.daemons;
            daemons.iter().find(|view| view.id.0 == name).filter(|view| view.asked)
        };
        let [player, trainer, judge] =
            [IdleResource::ID, TrainingTrigger::ID, Evaluation::ID].map(|id| view(id.0));
        let claimers = [player, trainer, judge];
        let mut standing = Standing {
            stopping: self.snapshot.as_ref().is_some_and(|snapshot| snapshot.stopping),
            obstacle: obstacles.first().cloned(),
            trouble: claimers.into_iter().flatten().find_map(trouble),
            plays: player.is_some(),
            trains: trainer.is_some(),
            judges: judge.is_some(),
            leads: self.leads,
            competes: self.the_loop.nodes.competes(),
            ..Standing::default()
        };
        if standing.plays {
            let open = self.catalogue.open_works().await?;
            let queued: BTreeSet<Config> = open
                .iter()
                .filter(|item| item.kind == WorkKind::Selfplay && item.state == WorkState::Queued)
                .map(|item| item.config)
                .filter(|config| self.the_loop.configs.contains(config))
                .collect();
            standing.queued = queued.len();
            for config in queued {
                let node = &self.the_loop.node;
                if self.catalogue.distribution(config, node).await?.is_none() {
                    standing.without_model.push(config);
                }
            }
        }
        // Whether games or a training are due is the same on all nodes.
        let of_all = self.catalogue.of_node(None);
        for config in self.the_loop.configs.iter().copied() {
            if standing.plays && standing.queued == 0 {
                let gate = of_all.gate(QueuePopulator::ID.0, Some(config)).await?;
                standing.no_games.extend(closed(gate));
            }
            if standing.trains {
                let gate = of_all.gate(TrainingTrigger::ID.0, Some(config)).await?;
                standing.no_training.extend(closed(gate));
            }
        }
        Ok(standing.why())
    }
}

fn said(live: &LiveWork) -> SaidWork {
    SaidWork { work: live.work.clone(), kind: live.kind.to_owned(), config: live.config }
}

fn closed(told: Option<(GateChanged, i64)>) -> Option<Why> {
    let (gate, _) = told.filter(|(gate, _)| !gate.open)?;
    let reason = match gate.config {
        Some(config) => format!("{config}: {}", gate.reason),
        None => gate.reason,
    };
    Some(Why::new(&gate.gate, reason, gate.needs))
}

/// What is wrong with a daemon that was asked for.
fn trouble(view: &DaemonView) -> Option<Why> {
    let told = match (&view.state, &view.health) {
        (State::Running, Health::Degraded(why) | Health::Unhealthy(why)) => why.clone(),
        (State::Running, _) => return None,
        (State::Starting, health) if !matches!(health, Health::Degraded(_)) => return None,
        (state, _) => {
            let why = view.last_error.as_ref().or(view.cause.as_ref());
            why.map_or_else(|| state.to_string(), |why| format!("{state}: {why}"))
        }
    };
    Some(Why::new(view.id.0, told, format!("`ringrift health {}` there says more", view.id)))
}

/// How a node stands that has nothing in hand.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact of the node")]
struct Standing {
    stopping: bool,
    obstacle: Option<Why>,
    trouble: Option<Why>,
    plays: bool,
    trains: bool,
    judges: bool,
    leads: bool,
    competes: bool,
    /// Configs of which self-play waits.
    queued: usize,
    /// Those of them of which this node was handed no model.
    without_model: Vec<Config>,
    /// Why no self-play is asked for.
    no_games: Vec<Why>,
    /// Why no training is asked for.
    no_training: Vec<Why>,
}

impl Standing {
    /// The whole policy: what comes first in this order is the reason.
    fn why(self) -> Why {
        let by = |id: warden::DaemonId, reason: &str, needs: &str| Why::new(id.0, reason, needs);
        if self.stopping {
            return Why::new("manager", "its manager is being stopped", "");
        }
        if let Some(why) = self.obstacle.or(self.trouble) {
            return why;
        }
        if self.plays && self.queued > 0 {
            return match &self.without_model[..] {
                lacking if lacking.len() == self.queued => {
                    let configs: Vec<String> = lacking.iter().map(ToString::to_string).collect();
                    let reason = format!("no model was handed to it for {}", configs.join(", "));
                    by(IdleResource::ID, &reason, "MODEL_DISTRIBUTION hands it out")
                }
                _ => by(IdleResource::ID, "self-play was queued and is about to be claimed", ""),
            };
        }
        if self.plays {
            let none = || {
                let needs = "more of it, which the node that leads asks for";
                by(QueuePopulator::ID, "no self-play waits in the queue", needs)
            };
            return self.no_games.into_iter().next().unwrap_or_else(none);
        }
        if self.trains {
            let none = || by(TrainingTrigger::ID, "no training is due", "");
            return self.no_training.into_iter().next().unwrap_or_else(none);
        }
        let reason = match (self.leads, self.competes) {
            (true, _) if self.judges => {
                "it leads; nothing waits to be checked, exported or matched at the moment"
            }
            (true, _) => "it leads, and was asked to run nothing that plays, trains or matches",
            (false, true) => "it stands by, until the node that leads is gone",
            (false, false) => "it was asked to run nothing that plays, trains or matches",
        };
        Why::new("manager", reason, "")
    }
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{Gate, ModelRef, WorkQueued};
    use warden::DaemonId;

    use super::*;
    use crate::{
        Obstacle,
        testbed::{Bed, hex, selfplay, view_of},
    };

    #[test]
    fn the_first_reason_that_holds_is_the_one_that_is_told() {
        let check = |change: &dyn Fn(&mut Standing), by: &str, reason: &str| {
            let mut standing = Standing::default();
            change(&mut standing);
            let why = standing.why();
            assert_eq!((why.by.as_str(), why.reason.as_str()), (by, reason));
        };
        let obstacle = || Some(Why::new("DRAIN", "this node is drained", "a resume"));
        let trouble = || Some(Why::new("IDLE_RESOURCE", "failed: no", ""));
        check(&|_| {}, "manager", "it was asked to run nothing that plays, trains or matches");
        check(&|s| s.competes = true, "manager", "it stands by, until the node that leads is gone");
        check(
            &|s| (s.leads, s.judges) = (true, true),
            "manager",
            "it leads; nothing waits to be checked, exported or matched at the moment",
        );
        check(&|s| s.plays = true, "QUEUE_POPULATOR", "no self-play waits in the queue");
        check(
            &|s| {
                s.plays = true;
                s.no_games = vec![Why::new("QUEUE_POPULATOR", "60 rows wait", "")];
            },
            "QUEUE_POPULATOR",
            "60 rows wait",
        );
        check(
            &|s| {
                (s.plays, s.queued) = (true, 1);
                s.without_model = vec![hex()];
            },
            "IDLE_RESOURCE",
            "no model was handed to it for hex8_2p",
        );
        check(
            &|s| {
                (s.plays, s.queued) = (true, 2);
                s.without_model = vec![hex()];
            },
            "IDLE_RESOURCE",
            "self-play was queued and is about to be claimed",
        );
        check(&|s| s.trains = true, "TRAINING_TRIGGER", "no training is due");
        check(&|s| (s.plays, s.trouble) = (true, trouble()), "IDLE_RESOURCE", "failed: no");
        check(
            &|s| (s.trouble, s.obstacle) = (trouble(), obstacle()),
            "DRAIN",
            "this node is drained",
        );
        check(
            &|s| (s.obstacle, s.stopping) = (obstacle(), true),
            "manager",
            "its manager is being stopped",
        );
    }

    #[test]
    fn long_sentences_are_cut_at_a_letter() {
        assert_eq!(short("short"), "short");
        let cut = short("\u{fc}".repeat(300));
        assert_eq!(cut.chars().count(), LONGEST + 3);
    }

    async fn report(bed: &Bed, names: &[&'static str], live: Vec<LiveWork>) -> NodeReport {
        let daemons = names.iter().map(|name| view_of(DaemonId(name))).collect();
        let reporter = Reporter {
            catalogue: &bed.catalogue,
            the_loop: &bed.the_loop,
            snapshot: Some(Arc::new(Snapshot { daemons, ..Snapshot::default() })),
            pressure: &bed.pressure,
            live,
            slots: 2,
            leads: true,
        };
        reporter.report().await.unwrap()
    }

    fn reason(report: NodeReport) -> String {
        report.idle.unwrap().reason
    }

    #[tokio::test]
    async fn a_node_that_plays_tells_what_keeps_it_from_playing() {
        let bed = Bed::new().await;
        let plays = ["IDLE_RESOURCE"];
        let nothing = report(&bed, &plays, Vec::new()).await;
        assert_eq!((nothing.free_slots, nothing.running, nothing.asked), (2, 1, 1));
        assert!(nothing.disk_free.is_some() && nothing.competes && nothing.cores > 0);
        assert_eq!(reason(nothing), "no self-play waits in the queue");

        let ahead = Gate::deny("ahead", "60 rows wait for a training", "a training");
        bed.catalogue.tell_gate(ahead.to_fact("QUEUE_POPULATOR", Some(hex())), 1).await.unwrap();
        let told = report(&bed, &plays, Vec::new()).await;
        assert_eq!(reason(told), "hex8_2p: 60 rows wait for a training");

        let model =
            ModelRef { id: ringrift_pipeline::ModelId("m".into()), weights: bed.put("weights") };
        let job = selfplay(model, 1);
        let work = WorkId::new(WorkKind::Selfplay, hex(), 1);
        let queued = WorkQueued { work: work.clone(), config: hex(), job, reason: "test".into() };
        bed.record(vec![queued.into()]).await;
        let told = report(&bed, &plays, Vec::new()).await;
        assert_eq!(reason(told), "no model was handed to it for hex8_2p");
        bed.champion(hex()).await;
        let told = report(&bed, &plays, Vec::new()).await;
        assert_eq!(reason(told), "self-play was queued and is about to be claimed");

        bed.pressure.set(
            DaemonId("DRAIN"),
            Some(Obstacle { reason: "this node is drained".into(), needs: "a resume".into() }),
        );
        assert_eq!(reason(report(&bed, &plays, Vec::new()).await), "this node is drained");

        let live = LiveWork {
            work: work.clone(),
            kind: "selfplay",
            config: hex(),
            attempt: 1,
            pid: Some(1),
            since_ms: 0,
            done: 0,
            total: 1,
            note: String::new(),
            view: None,
        };
        let busy = report(&bed, &plays, vec![live]).await;
        assert_eq!((busy.idle, busy.free_slots), (None, 1));
        assert_eq!(busy.works[0].work, work);
        assert_eq!(busy.obstacles[0].by, "DRAIN", "what it ends in spite of that is told as well");
    }

    #[tokio::test]
    async fn a_report_is_bounded_and_survives_its_way_as_a_note() {
        let bed = Bed::new().await;
        let live = |number| LiveWork {
            work: WorkId::new(WorkKind::Selfplay, hex(), number),
            kind: "selfplay",
            config: hex(),
            attempt: 1,
            pid: None,
            since_ms: 0,
            done: 0,
            total: 1,
            note: "x".repeat(9999),
            view: None,
        };
        let many = report(&bed, &[], (0..100).map(live).collect()).await;
        assert_eq!((many.works.len(), many.more_works, many.free_slots), (MOST, 100 - MOST, 0));
        bed.the_loop.nodes.say(&many);
        let note = bed.the_loop.nodes.said();
        assert!(note.len() < 8000, "{} bytes", note.len());
        assert_eq!(serde_json::from_str::<NodeReport>(&note).unwrap(), many);
        let older: NodeReport = serde_json::from_str("{\"cores\": 4, \"new\": 1}").unwrap();
        assert_eq!(older, NodeReport { cores: 4, ..NodeReport::default() });
    }
}
