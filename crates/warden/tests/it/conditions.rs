//! Conditions of the world under which daemons start, stand by and come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use warden::{Health, Leadership, MemoryGauge, State};

use crate::puppet::{A, Act, B, Bench, Follows, Leads, Puppet, Script};

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test(start_paused = true)]
async fn without_memory_only_critical_daemons_start_and_the_others_wait_for_it() {
    let used = Arc::new(AtomicU8::new(93));
    let gauge = used.clone();
    let mut bench = Bench::with(
        |diary| {
            vec![
                Puppet::<A>::runnable(Script::default(), diary),
                Puppet::<B>::runnable(
                    Script::default().cycle([Act::Done, Act::Fail, Act::Done]),
                    diary,
                ),
            ]
        },
        |settings| {
            settings.memory = MemoryGauge::new(move || Some(gauge.load(Ordering::SeqCst)));
        },
    );
    bench.handle.start(&[B::ID]).await.unwrap();
    bench.pass(secs(29)).await;
    let snapshot = bench.handle.snapshot();
    assert_eq!(snapshot.get(A::ID).unwrap().state, State::Running);
    let waits = snapshot.get(B::ID).unwrap();
    assert_eq!((waits.state, &waits.health), (State::Starting, &Health::Unknown));
    assert_eq!(waits.cause.as_deref(), Some("waiting for memory (93 % used)"));
    used.store(90, Ordering::SeqCst);
    bench.pass(secs(2)).await;
    let waits = bench.handle.snapshot().get(B::ID).unwrap().clone();
    assert_eq!(waits.cause.as_deref(), Some("waiting for memory (90 % used)"));
    assert_eq!(waits.health, Health::Degraded("90 % of memory is used".into()));

    used.store(89, Ordering::SeqCst);
    bench.pass(secs(2)).await;
    assert_eq!(bench.diary.times("B start"), [32_000]);
    // A restart needs memory like a start, and the crash is counted once.
    used.store(95, Ordering::SeqCst);
    bench.pass(secs(30)).await;
    let waits = bench.handle.snapshot().get(B::ID).unwrap().clone();
    assert_eq!((waits.state, waits.restarts), (State::Restarting, 1));
    used.store(10, Ordering::SeqCst);
    bench.until_state(B::ID, State::Running).await;
    let moves: Vec<_> = bench.moves_of(B::ID).into_iter().map(|(_, _, reason)| reason).collect();
    assert_eq!(moves, ["start_requested", "ready", "exception", "restart_complete"]);
}

#[tokio::test(start_paused = true)]
async fn a_need_that_the_leader_runs_holds_nobody_up_on_the_other_nodes() {
    let bench = Bench::new(|diary| {
        vec![
            Puppet::<Leads>::runnable(Script::default(), diary),
            Puppet::<Follows>::runnable(Script::default(), diary),
        ]
    });
    bench.handle.lead(Leadership::Lost).await.unwrap();
    bench.handle.start(&[Follows::ID]).await.unwrap();
    bench.until_state(Follows::ID, State::Running).await;
    assert_eq!(bench.handle.snapshot().get(Leads::ID).unwrap().state, State::Stopped);
    // Who begins to lead starts the need; what runs already runs on.
    bench.handle.lead(Leadership::Held).await.unwrap();
    bench.until_state(Leads::ID, State::Running).await;
    bench.handle.lead(Leadership::Lost).await.unwrap();
    bench.until_state(Leads::ID, State::Stopped).await;
    bench.pass(secs(100)).await;
    assert_eq!(bench.diary.times("Follows start"), [0]);
    let view = bench.handle.snapshot().get(Follows::ID).unwrap().clone();
    assert_eq!((view.state, view.health, view.cause), (State::Running, Health::Healthy, None));
}

#[tokio::test(start_paused = true)]
async fn leader_only_daemons_stand_by_without_leadership_and_come_back_by_themselves() {
    let mut bench = Bench::new(|diary| {
        vec![
            Puppet::<Leads>::runnable(Script::default().stop(Act::Take(secs(2))), diary),
            Puppet::<A>::runnable(Script::default(), diary),
        ]
    });
    bench.handle.start(&[Leads::ID, A::ID]).await.unwrap();
    bench.until_state(Leads::ID, State::Running).await;
    bench.handle.lead(Leadership::Lost).await.unwrap();
    let view = bench.handle.snapshot().get(Leads::ID).unwrap().clone();
    assert_eq!((view.state, view.cause.as_deref()), (State::Stopping, Some("another node leads")));
    bench.until_state(Leads::ID, State::Stopped).await;
    bench.pass(secs(100)).await;
    let snapshot = bench.handle.snapshot();
    let view = snapshot.get(Leads::ID).unwrap();
    assert_eq!((view.asked, view.cause.as_deref()), (false, Some("another node leads")));
    assert!(snapshot.not_running().is_empty());
    assert_eq!(bench.diary.times("A start").len(), 1);
    // A request is kept until this node leads.
    assert_eq!(bench.handle.start(&[Leads::ID]).await.unwrap().started, []);

    bench.handle.lead(Leadership::Held).await.unwrap();
    bench.until_state(Leads::ID, State::Running).await;
    assert_eq!(bench.diary.times("Leads start"), [0, 102_000]);
    // Lost and held again before the task has ended: one task after the other.
    bench.handle.lead(Leadership::Lost).await.unwrap();
    bench.handle.lead(Leadership::Held).await.unwrap();
    bench.pass(secs(3)).await;
    assert_eq!(bench.diary.times("Leads start"), [0, 102_000, 104_000]);
    let reasons: Vec<_> = bench.moves_of(Leads::ID).into_iter().map(|moved| moved.2).collect();
    let comes = ["leadership_lost", "ended", "leadership_gained", "ready"];
    assert_eq!(reasons[2..6], comes);

    bench.handle.lead(Leadership::Lost).await.unwrap();
    bench.handle.stop(Leads::ID).await.unwrap();
    bench.handle.lead(Leadership::Held).await.unwrap();
    bench.pass(secs(100)).await;
    assert_eq!(bench.diary.times("Leads start").len(), 3, "what was stopped stays so");
}
