//! All daemons of the loop together, on real files and real processes.

use std::{sync::Arc, time::Duration};

use courier::Lease;
use ringrift_pipeline::{
    Catalogue, CheckJob, Config, Job, NodeId, Record, SeedJob, WorkClaimed, WorkId, WorkReleased,
    WorkState,
};
use tokio_util::sync::CancellationToken;
use warden::{Cx, Daemon, Probe};

use crate::{
    Backlog, Finished, Leases, Loop, Obstacle, Order, Report, Running, WorkError, Workshop,
    distribution::model_distribution::ModelDistribution,
    evaluation::{
        auto_promotion::AutoPromotion, evaluation::Evaluation, gauntlet_feedback::GauntletFeedback,
    },
    feedback::{curriculum_integration::CurriculumIntegration, feedback_loop::FeedbackLoop},
    lease_of,
    pipeline::{
        auto_export::AutoExport, data_consolidation::DataConsolidation,
        data_pipeline::DataPipeline, npz_combination::NpzCombination,
        selfplay_coordinator::SelfplayCoordinator, training_trigger::TrainingTrigger,
    },
    queue::queue_populator::{self, QueuePopulator},
    resource::idle_resource::IdleResource,
    testbed::{Bed, handed_to, hex, square},
};

/// One life of all daemons of the loop.
struct Life {
    selfplay_coordinator: SelfplayCoordinator,
    queue_populator: QueuePopulator,
    idle_resource: IdleResource,
    data_consolidation: DataConsolidation,
    auto_export: AutoExport,
    npz_combination: NpzCombination,
    training_trigger: TrainingTrigger,
    evaluation: Evaluation,
    auto_promotion: AutoPromotion,
    model_distribution: ModelDistribution,
    gauntlet_feedback: GauntletFeedback,
    feedback_loop: FeedbackLoop,
    curriculum_integration: CurriculumIntegration,
    data_pipeline: DataPipeline,
    cx: Cx,
    probe: Probe,
}

impl Life {
    fn new(bed: &Bed, catalogue: &Catalogue, shop: &Workshop) -> Self {
        let (the_loop, blobs, pressure) = (&bed.the_loop, &bed.blobs, &bed.pressure);
        macro_rules! with {
            ($daemon:ty: $($port:expr),+) => {
                (handed_to::<$daemon>(catalogue), $($port.clone()),+)
            };
        }
        let (cx, probe) = bed.cx::<QueuePopulator>();
        let leases = Leases::of_node(&Lease {
            name: lease_of(&the_loop.node),
            holder: the_loop.node.to_string(),
            epoch: 1,
            expires_ms: 0,
            note: String::new(),
        });
        Self {
            selfplay_coordinator: daemon(with!(SelfplayCoordinator: the_loop)),
            queue_populator: QueuePopulator::new(
                queue_populator::Config {
                    games_per_item: 100,
                    ..queue_populator::Config::default()
                },
                with!(QueuePopulator: shop, the_loop, pressure, Backlog::default()),
            ),
            idle_resource: daemon(with!(IdleResource: shop, the_loop, pressure)),
            data_consolidation: daemon(with!(DataConsolidation: shop, the_loop, pressure)),
            auto_export: daemon(with!(AutoExport: shop, the_loop, pressure)),
            npz_combination: daemon(with!(NpzCombination: blobs, shop, the_loop, pressure)),
            training_trigger: daemon(with!(TrainingTrigger: blobs, shop, the_loop, pressure)),
            evaluation: daemon(with!(Evaluation: blobs, shop, the_loop, pressure)),
            auto_promotion: daemon(with!(AutoPromotion: blobs, the_loop)),
            model_distribution: daemon(with!(ModelDistribution: blobs, the_loop, leases)),
            gauntlet_feedback: daemon(with!(GauntletFeedback: the_loop)),
            feedback_loop: daemon(with!(FeedbackLoop: the_loop)),
            curriculum_integration: daemon(with!(CurriculumIntegration: the_loop)),
            data_pipeline: daemon(with!(DataPipeline: the_loop)),
            cx,
            probe,
        }
    }

    /// One cycle of each.
    async fn turn(&mut self) -> anyhow::Result<()> {
        let cx = &self.cx;
        self.selfplay_coordinator.cycle(cx).await?;
        self.queue_populator.cycle(cx).await?;
        self.idle_resource.cycle(cx).await?;
        self.data_consolidation.cycle(cx).await?;
        self.auto_export.cycle(cx).await?;
        self.npz_combination.cycle(cx).await?;
        self.training_trigger.cycle(cx).await?;
        self.evaluation.cycle(cx).await?;
        self.auto_promotion.cycle(cx).await?;
        self.model_distribution.cycle(cx).await?;
        self.gauntlet_feedback.cycle(cx).await?;
        self.feedback_loop.cycle(cx).await?;
        self.curriculum_integration.cycle(cx).await?;
        self.data_pipeline.cycle(cx).await?;
        Ok(())
    }
}

fn daemon<D: Daemon<Config: Default>>(ports: D::Ports) -> D {
    D::new(D::Config::default(), ports)
}

async fn promotions(catalogue: &Catalogue, config: Config) -> usize {
    catalogue.promotions(Some(config)).await.unwrap().len()
}

/// What must be true of every log, whatever happened on the way.
async fn sound(bed: &Bed) {
    let mut completed = std::collections::BTreeSet::new();
    let facts = bed.catalogue.log().read(courier::Stream::Pipeline, 0, 100_000).await.unwrap();
    for fact in &facts {
        let text = |key: &str| fact.body[key].as_str().unwrap_or_default().to_owned();
        let once = match text("topic").as_str() {
            topic @ ("work.completed" | "training.completed") => {
                format!("{topic} {}", text("work"))
            }
            topic @ ("games.committed" | "games.accepted") => format!("{topic} {}", text("batch")),
            topic @ "model.created" => format!("{topic} {}", text("model")),
            _ => continue,
        };
        assert!(completed.insert(once.clone()), "twice: {once}");
    }
    for blob in bed.catalogue.blobs(None).await.unwrap() {
        bed.blobs.verify(&blob.hash).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_closes_for_two_configs_at_once() {
    let bed = Bed::with(vec![hex(), square()]).await;
    let shop = bed.workshop("honest");
    let mut life = Life::new(&bed, &bed.catalogue, &shop);
    while promotions(&bed.catalogue, hex()).await < 2
        || promotions(&bed.catalogue, square()).await < 2
    {
        life.turn().await.unwrap();
        bed.woken().await;
    }
    sound(&bed).await;
    for config in [hex(), square()] {
        let promoted = bed.catalogue.promotions(Some(config)).await.unwrap();
        let chain: Vec<(String, String)> =
            promoted.iter().map(|p| (p.over.0.clone(), p.model.0.clone())).collect();
        let model = |generation: u32| format!("{config}-m{generation:04}");
        assert_eq!(chain[..2], [(model(0), model(1)), (model(1), model(2))]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_is_torn_down_anywhere_goes_on() {
    let bed = Bed::new().await;
    let shop = bed.workshop("honest");
    // Each life ends at another beat, some in mid-cycle; the next one has a later epoch.
    let mut beats = 7;
    while promotions(&bed.catalogue, hex()).await < 1 {
        let catalogue = bed.next_epoch().await;
        let mut life = Life::new(&bed, &catalogue, &shop);
        life.probe.stop_at_beat(beats);
        while !life.cx.stopping() {
            if let Err(error) = life.turn().await {
                assert!(life.cx.stopping(), "{error:#}");
            }
            if promotions(&bed.catalogue, hex()).await >= 1 {
                break;
            }
            bed.woken().await;
        }
        beats += 13;
    }
    sound(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_of_an_item_that_somebody_else_moved_is_void() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let shop = bed.workshop("honest");
    let mut life = Life::new(&bed, &bed.catalogue, &shop);
    life.queue_populator.cycle(&life.cx).await.unwrap();
    life.idle_resource.cycle(&life.cx).await.unwrap();
    let claimed = bed.catalogue.open_works().await.unwrap().remove(0);
    let released = WorkReleased { work: claimed.id.clone(), reason: "by hand".into() };
    let record = Record::after(released, claimed.position);
    bed.catalogue.for_source("somebody").record(vec![record], 1).await.unwrap();
    while life.idle_resource.cycle(&life.cx).await.is_ok() {
        let item = bed.catalogue.work(&claimed.id).await.unwrap().unwrap();
        if item.state == WorkState::Done {
            break;
        }
        bed.woken().await;
    }
    sound(&bed).await;
    let committed = bed.catalogue.recent_batches(Some(hex()), 100).await.unwrap();
    let of_this = committed.iter().filter(|batch| batch.work == claimed.id).count();
    assert_eq!(of_this, 1, "played twice, counted once");
}

#[tokio::test]
async fn work_of_another_node_is_given_back_when_that_has_left_and_not_when_it_has_just_begun() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let shop = bed.workshop("slow");
    let mut alone = Life::new(&bed, &bed.catalogue, &shop);
    alone.queue_populator.cycle(&alone.cx).await.unwrap();
    let item = bed.catalogue.open_works().await.unwrap().remove(0);
    let bed = bed.in_a_cluster();
    let mut life = Life::new(&bed, &bed.catalogue, &shop);
    // At the last look there was nobody.
    bed.sees_nodes(&[]);
    let other = NodeId("other".into());
    let log = bed.catalogue.log();
    let lease = log.acquire(&lease_of(&other), "other", Duration::from_secs(30), 1).await.unwrap();
    let (work, node, epoch) = (item.id.clone(), other.clone(), lease.epoch);
    let claim = WorkClaimed { work, attempt: 1, node, epoch };
    let claim = Record::after(claim, item.position);
    bed.catalogue.for_source("somebody").record(vec![claim], 1).await.unwrap();
    life.idle_resource.cycle(&life.cx).await.unwrap();
    let claimed = bed.catalogue.work(&item.id).await.unwrap().unwrap();
    assert_eq!((claimed.state, claimed.node), (WorkState::Claimed, Some(other)));

    log.release(&lease).await.unwrap();
    bed.the_loop.nodes.look(log).await.unwrap();
    life.idle_resource.cycle(&life.cx).await.unwrap();
    let queued = bed.catalogue.work(&item.id).await.unwrap().unwrap();
    assert_eq!(queued.state, WorkState::Queued);
    assert_eq!(queued.error.as_deref(), Some("node other has left"));
}

#[tokio::test]
async fn items_of_a_config_that_is_not_asked_for_wait_and_hold_nobody_up() {
    let bed = Bed::with(vec![hex(), square()]).await;
    bed.champion(hex()).await;
    bed.champion(square()).await;
    let shop = bed.workshop("slow");
    let mut before = Life::new(&bed, &bed.catalogue, &shop);
    before.queue_populator.cycle(&before.cx).await.unwrap();
    let both = bed.catalogue.open_works().await.unwrap();
    assert_eq!(both.len(), 2, "one of each config");
    // The next life plays only one of them.
    let only = Arc::new(Loop { configs: vec![hex()], ..(*bed.the_loop).clone() });
    let ports = || (bed.catalogue.clone(), shop.clone(), only.clone(), bed.pressure.clone());
    let (catalogue, shop, the_loop, pressure) = ports();
    let brakes = (catalogue, shop, the_loop, pressure, Backlog::default());
    let mut populator: QueuePopulator = daemon(brakes);
    let mut idle: IdleResource = daemon(ports());
    populator.cycle(&before.cx).await.unwrap();
    idle.cycle(&before.cx).await.unwrap();
    let claimed: Vec<Config> = bed
        .catalogue
        .open_works()
        .await
        .unwrap()
        .iter()
        .filter(|item| item.state == WorkState::Claimed)
        .map(|item| item.config)
        .collect();
    assert_eq!(claimed, [hex(), hex()]);
}

fn order(work: &str, games: u32) -> Order {
    Order {
        work: WorkId(work.into()),
        attempt: 1,
        config: hex(),
        job: Job::Seed(SeedJob { seed: games.into() }),
        owner: IdleResource::ID,
    }
}

async fn end(mut running: Running) -> Result<Finished, WorkError> {
    loop {
        if let Report::End(end) = running.next().await {
            return end;
        }
    }
}

#[tokio::test]
async fn a_silent_worker_is_ended_with_a_sentence_and_leaves_no_folder() {
    let bed = Bed::new().await;
    let shop = bed.workshop_with("silent", |s| s.silence = Duration::from_millis(300));
    let token = CancellationToken::new();
    let error = end(shop.start(order("seed", 1), &token)).await.unwrap_err();
    assert_eq!(error.to_string(), "the worker was ended: it said nothing for 300ms");
    let left = fs_err::read_dir(bed.the_loop.data.join("work")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_plug_in_replaces_the_worker_of_its_kind_only() {
    let bed = Bed::new().await;
    let shop = bed.workshop_with("fails", |s| {
        let plug_in = vec![s.program[0].clone(), "honest".into()];
        s.plugins.insert("seed".into(), plug_in);
    });
    let token = CancellationToken::new();
    end(shop.start(order("seed", 1), &token)).await.unwrap();
    let check = Order { job: Job::Check(CheckJob { batches: Vec::new() }), ..order("check", 1) };
    assert!(matches!(end(shop.start(check, &token)).await, Err(WorkError::Failed(_))));
}

#[tokio::test]
async fn nothing_starts_while_an_obstacle_stands() {
    let bed = Bed::new().await;
    let shop = bed.workshop("honest");
    let obstacle = Obstacle { reason: "1 GiB is free".into(), needs: "2 GiB".into() };
    bed.pressure.set(IdleResource::ID, Some(obstacle));
    let error = end(shop.start(order("seed", 1), &CancellationToken::new())).await.unwrap_err();
    assert_eq!(error, WorkError::Obstacle("1 GiB is free".into()));
}

#[tokio::test]
async fn a_dropped_run_ends_its_worker() {
    let bed = Bed::new().await;
    let shop = bed.workshop("slow");
    let mut running = shop.start(order("seed", 1), &CancellationToken::new());
    assert!(matches!(running.next().await, Report::Progress));
    assert_eq!(shop.live().len(), 1);
    drop(running);
    tokio::time::timeout(Duration::from_secs(10), shop.closed()).await.expect("it ends");
    assert!(shop.live().is_empty());
}
