//! What programs ask of a handle.

use std::time::Duration;

use warden::{DaemonId, DegradedDaemon, Hourly, State, Tier};

use crate::puppet::{A, Act, B, Bench, C, Puppet, Script};

#[tokio::test(start_paused = true)]
async fn programs_get_health_restarts_and_errors_in_the_words_of_the_runbook() {
    let bench = Bench::with(
        |diary| {
            vec![
                Puppet::<A>::runnable(Script::default().cycle([Act::Fail, Act::Done]), diary),
                Puppet::<B>::runnable(Script::default().start([Act::Lack]), diary),
                Puppet::<C>::runnable(Script::default(), diary),
            ]
        },
        |settings| settings.restart.hourly = Some(Hourly { normal_max: 0, ..Hourly::default() }),
    );
    let handle = &bench.handle;
    assert!(handle.liveness_probe(), "nobody is asked for");
    handle.start(&[C::ID]).await.unwrap();
    bench.pass(Duration::from_secs(2)).await;
    assert!(!handle.liveness_probe(), "A is critical and pauses after its crash");
    let slowed = DegradedDaemon {
        id: A::ID,
        tier: Tier::Elevated,
        next_retry_in: Some(Duration::from_secs(158)),
        critical: true,
    };
    assert_eq!(handle.degraded_daemons(), [slowed]);
    bench.pass(Duration::from_secs(200)).await;

    let health = handle.daemon_health(A::ID).unwrap();
    assert_eq!((health.status, health.message.as_str()), ("healthy", ""));
    assert_eq!(health.details, serde_json::json!({ "status": "healthy" }));
    let health = handle.daemon_health(C::ID).unwrap();
    assert_eq!((health.status, health.message.as_str()), ("degraded", "B is not ready"));
    let all: Vec<_> = handle.all_daemon_health().into_iter().map(|(id, _)| id).collect();
    assert_eq!(all, [A::ID, B::ID, C::ID]);
    assert_eq!(handle.daemon_health(DaemonId("NOBODY")), None);

    let info = handle.daemon_info(A::ID).unwrap();
    assert_eq!((info.restart_count, info.last_error.as_deref()), (1, Some("boom")));
    assert_eq!((info.state, info.next_retry_in, info.asked), (State::Running, None, true));
    assert_eq!(handle.failed_daemons(), [(B::ID, "open: missing: driver".to_owned())]);
    assert_eq!(handle.recent_restarts(), [(A::ID, 1)]);
    let summary = handle.lifecycle_summary();
    assert_eq!((summary.total_restarts, summary.most_restarts), (1, Some((A::ID, 1))));
    assert_eq!(summary.longest_uptime, summary.average_uptime);
    assert!(!summary.shortest_uptime.is_zero());
    let breaker = handle.circuit_breaker_status();
    assert_eq!((breaker.enabled, breaker.recent_restart_count), (false, 1));
    assert!(handle.liveness_probe());
}
