//! A made-up manager that goes on living, for a person who works on the page.

use std::{sync::Arc, time::Duration};

use ringrift_daemons::{LiveWork, Obstacle};
use ringrift_pipeline::WorkId;
use ringrift_pipeline::WorkKind;
use ringrift_rules::{Options, SplitMix64, State as Game};
use serde_json::json;
use warden::{Clock, DaemonId, DaemonView, Health, State};

use super::{
    Sources as _,
    fixture::{Story, World, critical, daemon, note_crash, playing},
};
use crate::view::BoardView;

/// The daemons of the loop, some of them in trouble.
fn daemons(world: &World, second: u64) -> Vec<DaemonView> {
    let well = [
        "DATA_PIPELINE",
        "FEEDBACK_LOOP",
        "QUEUE_POPULATOR",
        "IDLE_RESOURCE",
        "TRAINING_TRIGGER",
        "HEALTH_SERVER",
        "EVALUATION",
        "AUTO_PROMOTION",
        "MODEL_DISTRIBUTION",
        "SELFPLAY_COORDINATOR",
        "DATA_CONSOLIDATION",
        "NPZ_COMBINATION",
        "GAUNTLET_FEEDBACK",
        "CURRICULUM_INTEGRATION",
        "DLQ_RETRY",
        "WORK_QUEUE_MONITOR",
        "PROGRESS_WATCHDOG",
        "TRAINING_NODE_WATCHER",
        "DISK_SPACE_MANAGER",
        "COORDINATOR_DISK_MANAGER",
    ];
    let mut all = vec![critical("EVENT_ROUTER"), critical("DAEMON_WATCHDOG")];
    all.extend(well.map(daemon));
    all.push(DaemonView {
        health: Health::Degraded("2 sync errors".into()),
        ..critical("AUTO_SYNC")
    });
    all.push(DaemonView {
        state: State::Restarting,
        restarts: 2,
        cause: Some("restart 2 of 5".into()),
        last_error: Some("open blobs/ab: permission denied".into()),
        next_retry_in: Some(Duration::from_secs(2)),
        ..daemon("AUTO_EXPORT")
    });
    all.push(DaemonView {
        state: State::Starting,
        cause: Some("waiting for AUTO_EXPORT".into()),
        health: Health::Unknown,
        cycles: 0,
        last_cycle: None,
        ..daemon("MEMORY_MONITOR")
    });
    all.push(DaemonView {
        asked: false,
        state: State::Stopped,
        health: Health::Unknown,
        ..daemon("ELO_SYNC")
    });
    for (view, place) in all.iter_mut().zip(0u64..) {
        if view.state == State::Running {
            view.cycles = (second + place) / (3 + place % 5);
            view.last_cycle = Some(Duration::from_millis(2 + (place * 37) % 90));
        }
        view.started_at_ms = Some(world.started_ms());
    }
    all
}

/// Two configs with an hour of history.
pub(super) async fn world() -> Arc<World> {
    let now = Clock::system().now_ms();
    let world = World::starting_at(now - 24 * 60_000).await;
    let mut hex = Story::of(&world, "hex8_2p", 1);
    hex.begin().await;
    let mut square = Story::of(&world, "square8_2p", 2);
    square.begin().await;
    hex.learn(4).await;
    square.learn(2).await;
    hex.learn(4).await;
    for _ in 0..6 {
        square.play(12).await;
        square.pass(8);
    }
    note_crash(&world).await;
    world
}

/// Plays on: a game on the board, batches now and then, a full disk for a while.
pub(super) async fn live(world: &Arc<World>) {
    let clock = Clock::system();
    let mut story = Story::of(world, "hex8_2p", 9);
    let mut random = SplitMix64::new(3);
    let mut game: Option<Game> = None;
    let mut legal = Vec::new();
    for step in 0_u64.. {
        world.at(clock.now_ms());
        if game.as_ref().is_none_or(Game::is_over) {
            game = Some(Game::new("hex8_2p".parse().unwrap(), Options::default()));
        }
        if let Some(state) = &mut game {
            state.legal_moves(&mut legal);
            let mv = legal[random.below(legal.len())];
            state.apply_legal(&mv);
            let board = BoardView::of(state).after(&mv, state);
            let selfplay = LiveWork {
                since_ms: world.started_ms(),
                note: format!("move {}", state.move_number()),
                view: Some(serde_json::to_value(board).unwrap()),
                ..playing("hex8_2p", 0, 1)
            };
            let train = LiveWork {
                work: WorkId::new(WorkKind::Train, "square8_2p".parse().unwrap(), 3),
                kind: "train",
                config: "square8_2p".parse().unwrap(),
                done: step % 600,
                total: 600,
                since_ms: world.now_ms() - 40_000,
                note: "policy loss 1.412".into(),
                view: Some(json!({ "loss": 1.4 })),
                ..playing("square8_2p", 0, 1)
            };
            *world.live.lock().unwrap() = vec![selfplay, train];
        }
        world.show(daemons(world, step / 2));
        let full = step % 240 > 200;
        let obstacle = full.then(|| Obstacle {
            reason: "only 1.2 GiB are free in the data directory, 2 GiB are wanted".into(),
            needs: "4 GiB of free space".into(),
        });
        world.pressure.set(DaemonId("DISK_SPACE_MANAGER"), obstacle);
        if step % 30 == 29 {
            world.at(clock.now_ms() - 4000);
            story.play(12).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
