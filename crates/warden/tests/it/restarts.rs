//! What only some switch on: restarts by the hour, the breaker; and what outlives a supervisor.

use std::time::Duration;

use warden::{
    Breaker, Crashes, DaemonId, Degraded, History, Hourly, Notice, RestartPolicy, Settings, State,
    Tier,
};

use crate::puppet::{A, Act, B, Bench, Puppet, Script};

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn failing(set: impl FnOnce(&mut Settings)) -> Bench {
    let fail = || Script::default().cycle([Act::Fail]);
    Bench::with(
        |diary| vec![Puppet::<A>::runnable(fail(), diary), Puppet::<B>::runnable(fail(), diary)],
        set,
    )
}

#[tokio::test(start_paused = true)]
async fn by_the_hour_pauses_grow_in_tiers_and_nothing_is_given_up() {
    let mut bench = failing(|settings| settings.restart.hourly = Some(Hourly::default()));
    bench.handle.start(&[A::ID]).await.unwrap();
    let crashes = |bench: &Bench| bench.handle.snapshot().get(A::ID).unwrap().crashes;
    bench.pass(secs(100)).await;
    let normal = Crashes { total_restarts: 5, recent: 5, looping: true, tier: Some(Tier::Normal) };
    assert_eq!(crashes(&bench), normal);
    bench.pass(secs(100)).await;
    assert_eq!(crashes(&bench).tier, Some(Tier::Elevated));

    let snapshot = bench.until_state(A::ID, State::Degraded).await;
    let view = snapshot.get(A::ID).unwrap();
    assert_eq!(view.cause.as_deref(), Some("too many crashes in an hour"));
    assert_eq!((view.next_retry_in, view.crashes.tier), (Some(secs(1800)), Some(Tier::Degraded)));
    bench.pass(secs(1801)).await;
    let starts = [0, 5, 15, 35, 75, 155, 315, 635, 955, 1275, 1595, 3395].map(|s| s * 1000);
    assert_eq!(bench.diary.times("A start"), starts);
    assert!(bench.moves_of(A::ID).contains(&(1_595_000, State::Degraded, "hourly_limit_exceeded")));
}

#[tokio::test(start_paused = true)]
async fn the_breaker_suspends_all_restarts_and_then_revives_what_is_critical() {
    let bench = failing(|settings| {
        settings.restart = RestartPolicy {
            cap: secs(1),
            max: 8,
            breaker: Some(Breaker::default()),
            ..RestartPolicy::default()
        };
    });
    let mut notices = bench.handle.notices();
    bench.handle.start(&[A::ID, B::ID]).await.unwrap();
    let snapshot = bench.until(|snapshot| snapshot.breaker.breaker_open).await;
    // Two a second, and at most 10 while no critical one runs.
    assert_eq!(bench.diary.ms(), 6_000);
    let breaker = &snapshot.breaker;
    assert_eq!((breaker.recent_restart_count, breaker.threshold), (11, 10));
    assert_eq!((breaker.base_threshold, breaker.cooldown_remaining), (15, 120));
    assert_eq!((breaker.window_seconds, breaker.triggered_by), (300, Some(A::ID)));
    for id in [A::ID, B::ID] {
        let view = snapshot.get(id).unwrap();
        assert_eq!(view.state, State::Restarting);
        assert_eq!(view.cause.as_deref(), Some("too many restarts of all daemons"));
        assert_eq!(view.next_retry_in, Some(secs(120)));
    }

    // A person is not suspended.
    bench.pass(secs(60)).await;
    assert_eq!(bench.diary.times("A start").len(), 6);
    bench.handle.restart(A::ID).await.unwrap();
    bench.settle().await;
    assert_eq!(bench.diary.times("A start").len(), 7);

    bench.until(|snapshot| !snapshot.breaker.breaker_open).await;
    assert_eq!(bench.diary.ms(), 126_000);
    bench.settle().await;
    assert_eq!(bench.diary.times("A start").last(), Some(&126_000));
    let mut told = Vec::new();
    while let Ok(notice) = notices.try_recv() {
        told.push(notice);
    }
    let loops = |notice: &&Notice| matches!(notice, Notice::CrashLoop { crashes: 3, .. });
    assert_eq!(told.iter().filter(loops).count(), 2);
    assert!(told.iter().any(|notice| matches!(notice, Notice::BreakerTripped(_))));
    assert!(told.contains(&Notice::BreakerClosed { revived: vec![A::ID] }));
}

fn latest(notices: &mut tokio::sync::broadcast::Receiver<Notice>, id: DaemonId) -> History {
    let mut last = None;
    while let Ok(notice) = notices.try_recv() {
        match notice {
            Notice::History { daemon, history } if daemon == id => last = Some(history),
            _ => {}
        }
    }
    last.expect("a history was told")
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_stays_so_under_the_next_supervisor_until_a_person_asks() {
    let bench = failing(|_| {});
    let mut notices = bench.handle.notices();
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.until_state(A::ID, State::Failed).await;
    let history = latest(&mut notices, A::ID);
    let recent_ms = vec![0, 1_000, 3_000, 7_000, 15_000, 31_000];
    let last_error = Some("boom".into());
    let noted_ms = 31_000;
    let degraded = None;
    assert_eq!(
        history,
        History { crashes: 5, recent_ms, given_up: true, degraded, last_error, noted_ms }
    );

    let next = Bench::new(|diary| {
        let runnable = Puppet::<A>::runnable(Script::default(), diary);
        vec![
            runnable.remembering(History { noted_ms: 0, ..history }),
            Puppet::<B>::runnable(Script::default(), diary),
        ]
    });
    let mut notices = next.handle.notices();
    let started = next.handle.start_planned(&[B::ID]).await.unwrap();
    assert_eq!((started.started, started.failed), (vec![B::ID], vec![A::ID]));
    next.pass(secs(100)).await;
    let snapshot = next.handle.snapshot();
    let (a, b) = (snapshot.get(A::ID).unwrap(), snapshot.get(B::ID).unwrap());
    assert_eq!((a.state, a.restarts, a.last_error.as_deref()), (State::Failed, 5, Some("boom")));
    assert_eq!(b.cause.as_deref(), Some("waiting for A"));

    next.handle.start(&[A::ID]).await.unwrap();
    next.until_state(B::ID, State::Running).await;
    let after = latest(&mut notices, A::ID);
    assert_eq!((after.crashes, after.given_up), (0, false));
}

#[tokio::test(start_paused = true)]
async fn crashes_of_an_earlier_life_count_and_an_hour_of_running_forgives_them() {
    let history = History { crashes: 4, noted_ms: 0, ..History::default() };
    let bench = Bench::new(|diary| {
        let script = Script::default().cycle([Act::Fail, Act::Done]);
        vec![Puppet::<A>::runnable(script, diary).remembering(history)]
    });
    let mut notices = bench.handle.notices();
    bench.handle.start_planned(&[A::ID]).await.unwrap();
    bench.pass(secs(20)).await;
    // Number five waits 16 s.
    assert_eq!(bench.diary.times("A start"), [0, 16_000]);
    assert_eq!(latest(&mut notices, A::ID).crashes, 5);
    bench.pass(secs(3600)).await;
    assert_eq!(latest(&mut notices, A::ID).crashes, 0);
}

#[tokio::test(start_paused = true)]
async fn the_long_pause_of_a_degraded_daemon_goes_on_under_the_next_supervisor() {
    let hourly = Hourly { normal_max: 0, elevated_max: 0, ..Hourly::default() };
    let set = |settings: &mut Settings| settings.restart.hourly = Some(hourly.clone());
    let bench = failing(set);
    let mut notices = bench.handle.notices();
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.until_state(A::ID, State::Degraded).await;
    // The clock of the next one begins at zero again: half of the half hour is over.
    let mut history = latest(&mut notices, A::ID);
    let stay = history.degraded.unwrap();
    assert_eq!((stay.since_ms, stay.retry_ms), (0, 1_800_000));
    history.degraded = Some(Degraded { since_ms: -900_000, retry_ms: 900_000 });

    let next = || {
        Bench::with(
            |diary| {
                let runnable = Puppet::<A>::runnable(Script::default(), diary);
                vec![
                    runnable.remembering(history.clone()),
                    Puppet::<B>::runnable(Script::default(), diary),
                ]
            },
            set,
        )
    };
    let bench = next();
    bench.handle.start_planned(&[B::ID]).await.unwrap();
    let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
    assert_eq!((view.state, view.next_retry_in), (State::Degraded, Some(secs(900))));
    bench.pass(secs(1000)).await;
    assert_eq!(bench.diary.times("A start"), [900_000]);
    assert_eq!(bench.handle.snapshot().get(B::ID).unwrap().state, State::Running);

    // Whom nobody asks for does not come back by himself, and a person does not wait.
    let bench = next();
    bench.pass(secs(1000)).await;
    assert_eq!(bench.handle.snapshot().get(A::ID).unwrap().state, State::Stopped);
    let bench = next();
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.until_state(A::ID, State::Running).await;
}
