//! All that waits is measured on paused time, to the millisecond.

use std::time::Duration;

use warden::{
    Clock, Cx, DaemonId, GraphError, Health, Refusal, Settings, State, Stopping, Supervisor,
    TimedOut,
};

use crate::puppet::{A, Act, AfterSlow, B, Bench, C, Puppet, Script, Slow, WAKE};

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn chain(scripts: [Script; 3]) -> Bench {
    let [a, b, c] = scripts;
    Bench::new(|diary| {
        vec![
            Puppet::<C>::runnable(c, diary),
            Puppet::<B>::runnable(b, diary),
            Puppet::<A>::runnable(a, diary),
        ]
    })
}

fn single(script: Script) -> Bench {
    Bench::new(|diary| vec![Puppet::<A>::runnable(script, diary)])
}

#[tokio::test(start_paused = true)]
async fn a_crashing_daemon_climbs_the_ladder_and_then_waits_for_a_person() {
    let mut bench = single(Script::default().cycle([Act::Fail]));
    bench.handle.start(&[A::ID]).await.unwrap();
    let snapshot = bench.until_state(A::ID, State::Failed).await;
    let view = snapshot.get(A::ID).unwrap();
    assert_eq!((view.restarts, view.next_retry_in), (5, None));
    assert_eq!(view.last_error.as_deref(), Some("boom"));
    assert_eq!(bench.diary.times("A start"), [0, 1_000, 3_000, 7_000, 15_000, 31_000]);

    bench.pass(secs(10_000)).await;
    assert_eq!(bench.handle.snapshot().get(A::ID).unwrap().state, State::Failed);
    let moves = bench.moves_of(A::ID);
    assert_eq!(
        moves[..4],
        [
            (0, State::Starting, "start_requested"),
            (0, State::Running, "ready"),
            (0, State::Restarting, "exception"),
            (1_000, State::Running, "restart_complete"),
        ]
    );
    assert_eq!(moves.last(), Some(&(31_000, State::Failed, "max_restarts_exceeded")));
    assert_eq!(moves.len(), 13);
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_running_forgives_the_crashes() {
    let mut acts = vec![Act::Fail; 3];
    acts.push(Act::Take(secs(3600)));
    acts.push(Act::Fail);
    acts.push(Act::Pend);
    // The long cycle is silent for an hour, which is another matter.
    let bench = Bench::with(
        |diary| vec![Puppet::<A>::runnable(Script::default().cycle(acts), diary)],
        |settings| settings.bad_results = u32::MAX,
    );
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.pass(secs(7)).await;
    let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
    assert_eq!((view.state, view.restarts), (State::Running, 3));
    bench.pass(secs(3601)).await;
    assert_eq!(bench.handle.snapshot().get(A::ID).unwrap().restarts, 0);
    bench.pass(secs(20)).await;
    let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
    assert_eq!((view.state, view.restarts), (State::Running, 1));
    assert_eq!(bench.diary.times("A start"), [0, 1_000, 3_000, 7_000, 3_618_000]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_crash_like_any_other() {
    let bench = single(Script::default().cycle([Act::Panic, Act::Done]));
    bench.handle.start(&[A::ID]).await.unwrap();
    let snapshot = bench.until_state(A::ID, State::Restarting).await;
    let view = snapshot.get(A::ID).unwrap();
    assert_eq!(view.last_error.as_deref(), Some("panicked: at the disco"));
    assert_eq!(view.cause.as_deref(), Some("restart 1 of 5"));
    assert_eq!(view.next_retry_in, Some(secs(1)));
    bench.until_state(A::ID, State::Running).await;
    assert_eq!(bench.diary.ms(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn what_the_machine_lacks_is_not_tried_again_unless_forced() {
    let bench = single(Script::default().start([Act::Lack, Act::Done]));
    bench.handle.start(&[A::ID]).await.unwrap();
    let snapshot = bench.until_state(A::ID, State::ImportFailed).await;
    assert_eq!(snapshot.get(A::ID).unwrap().cause.as_deref(), Some("open: missing: driver"));
    bench.pass(secs(10_000)).await;
    assert_eq!(bench.diary.times("A start"), [0]);

    let again = bench.handle.start(&[A::ID]).await.unwrap();
    assert_eq!(again.missing, [(A::ID, "open: missing: driver".to_owned())]);
    let refused = bench.handle.retry(A::ID, false).await;
    assert_eq!(refused, Err(Refusal::NothingToRetry { id: A::ID, state: State::ImportFailed }));
    bench.handle.retry(A::ID, true).await.unwrap();
    bench.until_state(A::ID, State::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_never_says_ready_has_failed_to_start_after_its_time() {
    let mut bench = single(Script::default().start([Act::Deaf, Act::Done]));
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.until_state(A::ID, State::Running).await;
    assert_eq!(bench.diary.times("A start"), [0, 31_000]);
    assert_eq!(
        bench.moves_of(A::ID)[1..],
        [(30_000, State::Restarting, "not_ready"), (31_000, State::Running, "restart_complete"),]
    );
    let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
    assert_eq!((view.restarts, view.last_error.as_deref()), (1, Some("not ready within 30s")));
}

#[tokio::test(start_paused = true)]
async fn starting_one_starts_all_it_needs_in_order_and_says_what_it_added() {
    let bench = chain([
        Script::default().start([Act::Take(secs(2))]),
        Script::default().start([Act::Take(secs(3))]),
        Script::default(),
    ]);
    let started = bench.handle.start(&[C::ID]).await.unwrap();
    assert_eq!(started.started, [A::ID, B::ID, C::ID]);
    assert_eq!(started.added, [A::ID, B::ID]);
    bench.until_state(C::ID, State::Running).await;
    let starts = ["A start", "B start", "C start"].map(|line| bench.diary.times(line));
    assert_eq!(starts, [vec![0], vec![2_000], vec![5_000]]);
    assert_eq!(bench.handle.start(&[C::ID]).await.unwrap().started, []);
    let order: Vec<_> = bench.handle.snapshot().daemons.iter().map(|view| view.id).collect();
    assert_eq!(order, [A::ID, B::ID, C::ID]);
}

#[tokio::test(start_paused = true)]
async fn a_late_need_keeps_its_dependent_starting_and_is_no_restart() {
    let mut bench = Bench::new(|diary| {
        let slow = Script::default().start([Act::Take(secs(40))]);
        vec![
            Puppet::<Slow>::runnable(slow, diary),
            Puppet::<AfterSlow>::runnable(Script::default(), diary),
        ]
    });
    bench.handle.start(&[AfterSlow::ID]).await.unwrap();
    bench.pass(secs(29)).await;
    let view = bench.handle.snapshot().get(AfterSlow::ID).unwrap().clone();
    assert_eq!((view.state, view.health), (State::Starting, Health::Unknown));
    assert_eq!(view.cause.as_deref(), Some("waiting for Slow"));
    bench.pass(secs(2)).await;
    let view = bench.handle.snapshot().get(AfterSlow::ID).unwrap().clone();
    assert_eq!(view.health, Health::Degraded("Slow is not ready".into()));
    bench.until_state(AfterSlow::ID, State::Running).await;
    assert_eq!(
        bench.moves_of(AfterSlow::ID),
        [(0, State::Starting, "start_requested"), (40_000, State::Running, "ready"),]
    );
    assert_eq!(bench.handle.snapshot().get(AfterSlow::ID).unwrap().restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn when_a_need_falls_its_dependents_go_on_degraded() {
    let bench = chain([Script::default(), Script::default(), Script::default()]);
    bench.handle.start(&[C::ID]).await.unwrap();
    bench.until_state(C::ID, State::Running).await;
    bench.handle.stop(A::ID).await.unwrap();
    let snapshot = bench.until(|s| s.get(B::ID).unwrap().health.message().is_some()).await;
    let health = |id| snapshot.get(id).unwrap().health.clone();
    assert_eq!(health(B::ID), Health::Degraded("needs A".into()));
    assert_eq!(health(C::ID), Health::Healthy);
    bench.pass(secs(600)).await;
    assert_eq!(bench.diary.times("B start"), [0]);
    assert!(bench.diary.times("B cycle").len() > 50);
    assert_eq!(bench.handle.snapshot().get(A::ID).unwrap().state, State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn an_expected_obstacle_is_shown_and_never_restarts() {
    let bench = single(Script::default().cycle([Act::Blocked]));
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.pass(secs(3_000)).await;
    let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
    assert_eq!((view.state, view.restarts), (State::Running, 0));
    assert_eq!(view.health.to_string(), "degraded - no disk");
    assert_eq!(bench.diary.times("A start"), [0]);
}

#[tokio::test(start_paused = true)]
async fn three_bad_cycles_in_a_row_restart_and_two_do_not() {
    use Act::{Done, Sick};
    let acts = [Sick, Sick, Done, Sick, Sick, Sick, Done];
    let bench = single(Script::default().cycle(acts));
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.pass(secs(60)).await;
    // The sixth cycle, at 50 s, is the third bad one in a row; then 1 s of backoff.
    assert_eq!(bench.diary.times("A start"), [0, 51_000]);
    assert_eq!(bench.diary.times("A stop"), [50_000]);
    let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
    assert_eq!(view.last_error.as_deref(), Some("unhealthy: sick"));
    assert_eq!((view.state, view.restarts), (State::Running, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cycle_without_beats_is_unhealthy_and_is_replaced_after_three_limits() {
    let bench = single(Script::default().cycle([Act::Deaf, Act::Done]));
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.pass(secs(76)).await;
    let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
    // Critical, so it is read every 15 s.
    assert_eq!(view.health, Health::Unhealthy("no beat for 75 s".into()));
    assert_eq!(view.in_cycle, Some(secs(76)));
    bench.until(|s| s.get(A::ID).unwrap().restarts == 1).await;
    // Three limits of 60 s, then 30 s in which it could have stopped.
    assert_eq!(bench.diary.ms(), 210_000);
    bench.until_state(A::ID, State::Running).await;
    assert_eq!(bench.diary.times("A start"), [0, 211_000]);
}

#[tokio::test(start_paused = true)]
async fn many_wakes_are_one_cycle_and_none_is_lost() {
    let bench = single(Script::default().cycle([Act::Take(secs(5)), Act::Done]));
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.pass(secs(1)).await;
    for _ in 0..100 {
        bench.handle.wake(WAKE);
    }
    bench.pass(secs(8)).await;
    assert_eq!(bench.diary.times("A cycle"), [0, 5_050]);
    assert!(bench.handle.wake_daemon(A::ID) && !bench.handle.wake_daemon(B::ID));
    bench.settle().await;
    assert_eq!(bench.diary.times("A cycle"), [0, 5_050, 9_000]);
    bench.pass(secs(11)).await;
    assert_eq!(bench.diary.times("A cycle"), [0, 5_050, 9_000, 19_000]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_only_when_every_cause_of_it_is_gone() {
    let bench = single(Script::default());
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.pass(secs(1)).await;
    bench.handle.pause(&[A::ID], "disk").await.unwrap();
    bench.handle.pause(&[A::ID], "load").await.unwrap();
    bench.pass(secs(100)).await;
    let view = bench.handle.snapshot().get(A::ID).unwrap().clone();
    assert_eq!((view.state, view.cause.as_deref()), (State::Running, Some("paused: disk, load")));
    assert_eq!(view.health, Health::Healthy);
    bench.handle.resume(&[A::ID], "disk").await.unwrap();
    bench.handle.restart(A::ID).await.unwrap();
    bench.pass(secs(100)).await;
    assert_eq!(bench.diary.times("A cycle"), [0]);
    bench.handle.resume(&[A::ID], "load").await.unwrap();
    bench.settle().await;
    assert_eq!(bench.diary.times("A cycle"), [0, 201_000]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_goes_down_level_by_level_and_each_has_its_time() {
    let bench = chain([
        Script::default().stop(Act::Take(secs(5))),
        Script::default().cycle([Act::Deaf]),
        Script::default().cycle([Act::Pend]).stop(Act::Take(secs(7))),
    ]);
    bench.handle.start(&[C::ID]).await.unwrap();
    bench.until_state(C::ID, State::Running).await;
    bench.pass(secs(1)).await;
    let report = bench.handle.shutdown().await.unwrap();
    // C leaves its cycle at once and works 7 s; B is aborted after 30 s; A works 5 s.
    assert_eq!(report.took, secs(42));
    assert_eq!(report.stopped, [C::ID, B::ID, A::ID]);
    assert_eq!((report.aborted, report.hung), (vec![B::ID], vec![]));
    assert_eq!(bench.diary.times("C stop"), [1_000]);
    assert_eq!(bench.diary.times("B stop"), [0; 0]);
    assert_eq!(bench.diary.times("A stop"), [38_000]);
    assert_eq!(bench.handle.start(&[A::ID]).await, Err(Refusal::Gone));
    assert!(bench.handle.snapshot().daemons.iter().all(|view| view.state == State::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_second_shutdown_stops_at_once() {
    let deaf = Script::default().cycle([Act::Deaf]);
    let bench = chain([deaf.clone(), deaf.clone(), deaf]);
    bench.handle.start(&[C::ID]).await.unwrap();
    bench.until_state(C::ID, State::Running).await;
    let second = async {
        tokio::time::sleep(secs(3)).await;
        bench.handle.shutdown().await.unwrap()
    };
    let (first, second) = tokio::join!(bench.handle.shutdown(), second);
    assert_eq!(first.unwrap(), second);
    assert_eq!(second.took, secs(3));
    assert_eq!(second.aborted.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_those_that_wait_and_leaves_failures_visible() {
    let bench = chain([Script::default().start([Act::Lack]), Script::default(), Script::default()]);
    bench.handle.start(&[C::ID]).await.unwrap();
    bench.until_state(A::ID, State::ImportFailed).await;
    let report = bench.handle.shutdown().await.unwrap();
    assert_eq!(report.took, Duration::ZERO);
    let states = [A::ID, B::ID, C::ID].map(|id| bench.handle.snapshot().get(id).unwrap().state);
    assert_eq!(states, [State::ImportFailed, State::Stopped, State::Stopped]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_is_a_shutdown() {
    let bench = single(Script::default());
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.until_state(A::ID, State::Running).await;
    let diary = bench.diary.clone();
    assert_eq!(bench.report().await.stopped, [A::ID]);
    assert_eq!(diary.times("A stop").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_restart_and_a_start_during_a_stop_take_effect() {
    let bench = single(Script::default().cycle([Act::Fail, Act::Done]).stop(Act::Take(secs(4))));
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.until_state(A::ID, State::Restarting).await;
    bench.handle.stop(A::ID).await.unwrap();
    assert_eq!(bench.handle.snapshot().get(A::ID).unwrap().state, State::Stopped);
    bench.pass(secs(100)).await;
    assert_eq!(bench.diary.times("A start"), [0]);

    bench.handle.start(&[A::ID]).await.unwrap();
    bench.until_state(A::ID, State::Running).await;
    let again = async {
        tokio::time::sleep(secs(1)).await;
        bench.handle.start(&[A::ID]).await
    };
    let (stopped, again) = tokio::join!(bench.handle.stop(A::ID), again);
    assert_eq!((stopped, again.unwrap().started), (Ok(()), vec![A::ID]));
    bench.until_state(A::ID, State::Running).await;
    assert_eq!(bench.diary.times("A start"), [0, 100_000, 104_000]);
}

#[tokio::test(start_paused = true)]
async fn a_person_gets_a_fresh_ladder_and_a_plain_retry_does_not() {
    let bench = Bench::with(
        |diary| vec![Puppet::<A>::runnable(Script::default().cycle([Act::Fail]), diary)],
        |settings| settings.restart.max_override = Some(1),
    );
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.until_state(A::ID, State::Failed).await;
    assert_eq!(bench.diary.times("A start").len(), 2);
    bench.handle.retry(A::ID, false).await.unwrap();
    bench.pass(secs(100)).await;
    assert_eq!(bench.diary.times("A start").len(), 3);
    bench.handle.start(&[A::ID]).await.unwrap();
    bench.pass(secs(100)).await;
    assert_eq!(bench.diary.times("A start").len(), 5);
    assert_eq!(bench.handle.snapshot().get(A::ID).unwrap().state, State::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_retry_leaves_a_need_that_was_given_up_unless_it_is_forced() {
    let fails = || Script::default().cycle([Act::Fail]);
    let bench = chain([fails(), fails(), Script::default()]);
    bench.handle.start(&[B::ID]).await.unwrap();
    bench.until_state(A::ID, State::Failed).await;
    bench.handle.stop(B::ID).await.unwrap();
    let starts = || bench.diary.times("A start").len();
    let before = starts();
    let tried = bench.handle.retry(B::ID, false).await.unwrap();
    assert_eq!((tried.started, tried.added, tried.failed), (vec![B::ID], vec![], vec![A::ID]));
    bench.pass(secs(100)).await;
    assert_eq!(
        (starts(), bench.handle.snapshot().get(A::ID).unwrap().state),
        (before, State::Failed)
    );

    bench.handle.stop(B::ID).await.unwrap();
    let tried = bench.handle.retry(B::ID, true).await.unwrap();
    assert_eq!((tried.started, tried.failed), (vec![A::ID, B::ID], vec![]));
    bench.pass(secs(0)).await;
    assert_eq!(starts(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn probes_look_at_what_is_asked_for() {
    let bench = chain([
        Script::default().cycle([Act::Done, Act::Sick]),
        Script::default(),
        Script::default(),
    ]);
    assert!(bench.handle.snapshot().dead_criticals().is_empty());
    bench.handle.start(&[B::ID]).await.unwrap();
    let snapshot = bench.until_state(B::ID, State::Running).await;
    assert!(snapshot.not_running().is_empty() && snapshot.dead_criticals().is_empty());
    bench.pass(secs(11)).await;
    let snapshot = bench.handle.snapshot();
    let dead: Vec<_> = snapshot.dead_criticals().iter().map(|view| view.id).collect();
    assert_eq!(dead, [A::ID]);
    assert_eq!(bench.handle.find("a"), Some(A::ID));
    assert_eq!(bench.handle.find("nobody"), None);
    assert_eq!(
        bench.handle.stop(DaemonId("Nobody")).await,
        Err(Refusal::Unknown(DaemonId("Nobody")))
    );
}

#[tokio::test(start_paused = true)]
async fn waits_of_a_context_have_a_bound_and_heed_a_stop() {
    let (cx, probe) = Cx::detached(A::ID, Clock::new(|| 7));
    assert_eq!(cx.now(), 7);
    assert_eq!(cx.within(secs(1), async { 5 }).await.unwrap(), 5);
    let late = cx.within(secs(1), std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(late.downcast_ref(), Some(&TimedOut(secs(1))));
    cx.publish(&"half way").unwrap();
    assert_eq!(probe.details(), "half way");
    probe.stop_at_beat(probe.beats() + 2);
    assert_eq!(cx.beat(), Ok(()));
    assert_eq!(cx.beat(), Err(Stopping));
    assert_eq!(cx.sleep(secs(1)).await, Err(Stopping));
    let stopped = cx.within(secs(1), async {}).await.unwrap_err();
    assert!(stopped.is::<Stopping>() && cx.stopping() && cx.token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn an_unsound_graph_makes_no_supervisor() {
    let bench = Bench::new(|_| vec![]);
    let only_b = vec![Puppet::<B>::runnable(Script::default(), &bench.diary)];
    let settings = Settings::new(tokio::runtime::Handle::current());
    let refused = Supervisor::new(only_b, settings, Clock::system()).err();
    assert_eq!(refused, Some(GraphError::UnknownNeed { daemon: B::ID, need: A::ID }));
}
