//! One config's loop as it is told to the log: every kind of event, in an order that can happen.

use ringrift_pipeline::{
    Advice, AdviceGiven, AllocationUpdated, ArtefactTrashed, ArtefactsHeld, ArtefactsOffered,
    ArtefactsReleased, Availability, BatchAccepted, BatchRejected, BlobHash, ChampionInstalled,
    CheckpointSaved, Config, CurriculumRebalanced, EvaluationCompleted, Event, GamesCommitted,
    GauntletJob, Job, Layer, MatchPlayed, MatchResult, ModelAccepted, ModelCreated,
    ModelDistributed, ModelId, ModelPromoted, ModelRef, ModelRejected, NodeAdmitted,
    NodeAvailabilityChanged, NodeDrained, NodeId, NodeInvited, NodeJoined, NodeRecovered,
    NodeRemoved, NodeUnhealthy, Parameters, ParametersSet, RecoveryAttempted, RecoveryBegun,
    RecoveryEnded, RecoveryOutcome, RecoveryStep, SamplesExported, SelfplayJob, TestDecision,
    TrainJob, TrainReport, TrainingCompleted, WindowCombined, WorkCancelled, WorkClaimed,
    WorkCompleted, WorkFailed, WorkId, WorkKind, WorkQueued, WorkRaised, WorkReleased,
};

pub(crate) fn hex() -> Config {
    "hex8_2p".parse().unwrap()
}

/// A node has these.
pub(crate) fn held(node: &str, names: &[&str]) -> Event {
    let hashes = names.iter().map(|name| hash(name)).collect();
    ArtefactsHeld { node: NodeId(node.into()), hashes }.into()
}

pub(crate) fn hash(name: &str) -> BlobHash {
    BlobHash(format!("{name:0>64}"))
}

pub(crate) fn model(generation: u32) -> ModelId {
    ModelId::new(hex(), generation)
}

pub(crate) fn work(kind: WorkKind, number: u64) -> WorkId {
    WorkId::new(kind, hex(), number)
}

fn reference(generation: u32) -> ModelRef {
    ModelRef { id: model(generation), weights: hash(&format!("e{generation}")) }
}

pub(crate) fn selfplay(number: u64) -> WorkQueued {
    WorkQueued {
        work: work(WorkKind::Selfplay, number),
        config: hex(),
        job: Job::Selfplay(SelfplayJob {
            model: reference(0),
            opponents: Vec::new(),
            opponent_share: 0.0,
            games: 10,
            simulations: 32,
            fast_simulations: 8,
            full_share: 0.5,
            opening_moves: 4,
            temperature_moves: 12,
            temperature: 1.0,
            seed: number,
        }),
        reason: "games are needed".into(),
    }
}

fn train(number: u64) -> WorkQueued {
    WorkQueued {
        work: work(WorkKind::Train, number),
        config: hex(),
        job: Job::Train(TrainJob {
            candidate: model(1),
            generation: 1,
            parent: reference(0),
            window: hash("f1"),
            steps: 100,
            batch: 64,
            learning_rate: 0.002,
            checkpoint_steps: 50,
            checkpoint: None,
            seed: 3,
        }),
        reason: "rows are new".into(),
    }
}

fn gauntlet(number: u64) -> WorkQueued {
    WorkQueued {
        work: work(WorkKind::Gauntlet, number),
        config: hex(),
        job: Job::Gauntlet(GauntletJob {
            candidate: reference(1),
            champion: reference(0),
            simulations: 32,
            elo0: 0.0,
            elo1: 50.0,
            alpha: 0.05,
            beta: 0.05,
            max_pairs: 300,
            guard_pairs: 25,
            heuristic_pairs: 25,
            seed: 4,
        }),
        reason: "it has not met the champion".into(),
    }
}

pub(crate) fn claimed(work: WorkId, attempt: u32) -> WorkClaimed {
    WorkClaimed { work, attempt, node: NodeId("here".into()), epoch: 3 }
}

pub(crate) fn committed(batch: &str, number: u64) -> GamesCommitted {
    GamesCommitted {
        batch: hash(batch),
        bytes: 100,
        config: hex(),
        work: work(WorkKind::Selfplay, number),
        model: model(0),
        games: 10,
        positions: 300,
        seat_wins: vec![6, 4],
        seconds: 2.5,
    }
}

fn created(generation: u32) -> ModelCreated {
    ModelCreated {
        model: model(generation),
        config: hex(),
        generation,
        parent: generation.checked_sub(1).map(model),
        weights: hash(&format!("e{generation}")),
        bytes: 50,
    }
}

pub(crate) fn result() -> MatchResult {
    MatchResult {
        a: "model:hex8_2p-m0001@32".into(),
        b: "model:hex8_2p-m0000@32".into(),
        games: 100,
        wins: 70,
        losses: 30,
        pairs: [10, 10, 30],
        score: 0.7,
        elo: 147.19,
        elo_low: 77.0,
        elo_high: 233.5,
        llr: 3.01,
        decision: Some(TestDecision::Stronger),
        finishes: None,
        distinct_games: 99,
        book: None,
        seconds: 12.25,
    }
}

/// All of it.
pub(crate) fn story() -> Vec<Event> {
    let selfplay_of = |number| work(WorkKind::Selfplay, number);
    let (training, trial) = (work(WorkKind::Train, 1), work(WorkKind::Gauntlet, 1));
    let config = hex();
    let done = |work: WorkId| WorkCompleted { work, seconds: 2.5 };
    vec![
        created(0).into(),
        ChampionInstalled { model: model(0), config }.into(),
        ModelDistributed {
            model: model(0),
            config,
            weights: hash("e0"),
            node: NodeId("here".into()),
        }
        .into(),
        AllocationUpdated { shares: [(config, 1.0)].into(), reason: "one config".into() }.into(),
        selfplay(1).into(),
        selfplay(2).into(),
        selfplay(3).into(),
        claimed(selfplay_of(1), 1).into(),
        WorkReleased { work: selfplay_of(1), reason: "the process is gone".into() }.into(),
        claimed(selfplay_of(1), 1).into(),
        done(selfplay_of(1)).into(),
        committed("a1", 1).into(),
        claimed(selfplay_of(2), 1).into(),
        WorkFailed { work: selfplay_of(2), attempt: 1, error: "out of luck".into(), last: false }
            .into(),
        WorkRaised { work: selfplay_of(2), reason: "it has waited for 240 min".into() }.into(),
        claimed(selfplay_of(2), 2).into(),
        done(selfplay_of(2)).into(),
        committed("a2", 2).into(),
        WorkCancelled { work: selfplay_of(3), reason: "nobody needs it".into() }.into(),
        BatchAccepted {
            batch: hash("a1"),
            config,
            games: 10,
            ids: (0..10).map(|game| format!("game-{game}")).collect(),
        }
        .into(),
        BatchRejected { batch: hash("a2"), config, reason: "game 3 does not replay".into() }.into(),
        SamplesExported {
            samples: hash("b1"),
            bytes: 10,
            config,
            batches: vec![hash("a1")],
            rows: 300,
            games: 10,
            encoder: "test-1".into(),
        }
        .into(),
        WindowCombined {
            window: hash("f1"),
            bytes: 11,
            config,
            samples: vec![hash("b1")],
            rows: 300,
            games: 10,
        }
        .into(),
        train(1).into(),
        claimed(training.clone(), 1).into(),
        CheckpointSaved { work: training.clone(), config, checkpoint: hash("c1"), bytes: 9 }.into(),
        done(training.clone()).into(),
        TrainingCompleted {
            work: training,
            config,
            model: model(1),
            window: hash("f1"),
            report: TrainReport {
                steps: 100,
                samples: 6400,
                policy_loss: 1.25,
                value_loss: 0.5,
                seconds: 3.0,
            },
        }
        .into(),
        created(1).into(),
        gauntlet(1).into(),
        claimed(trial.clone(), 1).into(),
        done(trial).into(),
        MatchPlayed {
            id: "gauntlet-1-main".into(),
            config,
            result: result(),
            records: Some(hash("d1")),
            bytes: 12,
        }
        .into(),
        EvaluationCompleted {
            model: model(1),
            config,
            against: model(0),
            main: Some(result()),
            guard: None,
            heuristic: None,
            fault: None,
        }
        .into(),
        ModelAccepted { model: model(1), config, reason: "it is stronger".into() }.into(),
        ModelPromoted {
            model: model(1),
            config,
            over: model(0),
            elo: 147.19,
            elo_low: 77.0,
            elo_high: 233.5,
            games: 100,
        }
        .into(),
        created(2).into(),
        ModelRejected { model: model(2), config, reason: "not stronger".into() }.into(),
        AdviceGiven { config, model: model(2), advice: Advice::Plateau, reason: "slow".into() }
            .into(),
        ParametersSet {
            config,
            parameters: Parameters { simulations: 48, ..Parameters::default() },
            reason: "slow: simulations 32 to 48".into(),
        }
        .into(),
        CurriculumRebalanced { weights: [(config, 1.5)].into(), reason: "it gains".into() }.into(),
        ArtefactTrashed { hash: hash("c1"), reason: "its training is over".into() }.into(),
        NodeJoined {
            node: NodeId("there".into()),
            peer: "ab".repeat(32),
            addresses: vec!["10.0.0.2:4433".into()],
            role: "profile selfplay".into(),
            version: "0.0.0".into(),
            speaks: 1,
            slots: 2,
            playing: 2,
            can: None,
        }
        .into(),
        NodeInvited {
            invitation: "UABC".into(),
            role: "selfplay".into(),
            expires_ms: 5_000,
            by: NodeId("here".into()),
        }
        .into(),
        NodeAdmitted {
            invitation: "UABC".into(),
            node: NodeId("there".into()),
            key: "UDEF".into(),
            role: "selfplay".into(),
        }
        .into(),
        NodeUnhealthy {
            node: NodeId("there".into()),
            layer: Layer::Lease,
            reason: "its lease stood still for 95 s".into(),
        }
        .into(),
        RecoveryBegun {
            node: NodeId("there".into()),
            step: RecoveryStep::Restart,
            attempt: 1,
            how: "systemctl restart x by ssh on there".into(),
            by: NodeId("here".into()),
        }
        .into(),
        RecoveryAttempted {
            node: NodeId("there".into()),
            step: RecoveryStep::Restart,
            attempt: 1,
            outcome: RecoveryOutcome::Done,
            sentence: "it was restarted".into(),
        }
        .into(),
        RecoveryEnded { node: NodeId("there".into()), sentence: "its lease moves".into() }.into(),
        NodeRecovered { node: NodeId("there".into()), reason: "its lease moves".into() }.into(),
        NodeAvailabilityChanged {
            node: NodeId("there".into()),
            provider: "cupboard".into(),
            instance: "i-1".into(),
            state: Availability::Running,
        }
        .into(),
        NodeDrained { node: NodeId("there".into()), draining: true }.into(),
        held("there", &["b1", "b2"]),
        ArtefactsOffered {
            node: NodeId("there".into()),
            hashes: vec![hash("b1")],
            reason: "its disk fills".into(),
        }
        .into(),
        ArtefactsReleased {
            node: NodeId("there".into()),
            hashes: vec![hash("b2")],
            reason: "it is not in the store".into(),
        }
        .into(),
        NodeRemoved { node: NodeId("there".into()) }.into(),
    ]
}
