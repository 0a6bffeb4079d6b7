//! Supervision of long-lived tasks and of the child processes that do their heavy work.
//!
//! A [`Daemon`] is an object with a cycle. Its constant [`Spec`] says what it needs and what wakes
//! it. The supervisor starts daemons in order of needs, believes no readiness but their own word,
//! judges their health from what they publish and from the age of their beats, restarts what
//! crashed after growing pauses, and stops all in reverse order.
//!
//! ```
//! use warden::{
//!     Clock, Cx, Daemon, DaemonId, Health, Outcome, Runnable, Settings, Spec, Supervisor,
//! };
//!
//! struct Sweeper;
//!
//! impl Daemon for Sweeper {
//!     const SPEC: Spec = Spec {
//!         id: DaemonId("SWEEPER"),
//!         about: "sweeps the floor",
//!         critical: true,
//!         ..Spec::DEFAULT
//!     };
//!     type Config = ();
//!     type Ports = ();
//!     type Status = u32;
//!
//!     fn new((): (), (): ()) -> Self {
//!         Self
//!     }
//!
//!     async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<u32>> {
//!         cx.beat()?;
//!         Ok(Outcome::Done(42))
//!     }
//! }
//!
//! # fn main() -> anyhow::Result<()> {
//! // The supervisor has a thread of its own, so that a daemon that blocks cannot hold it up.
//! let daemons = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//! let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! own.block_on(async {
//!     let runnables = vec![Runnable::of(|| Ok(Sweeper))];
//!     let settings = Settings::new(daemons.handle().clone());
//!     let (manager, supervision) = Supervisor::new(runnables, settings, Clock::system())?;
//!     let mut tasks = tokio::task::JoinSet::new();
//!     tasks.spawn(supervision);
//!
//!     manager.start(&[Sweeper::ID]).await?;
//!     // It is healthy as soon as it is ready; its first cycle says more.
//!     let swept = |view: &warden::DaemonView| view.health == Health::Healthy && view.details == 42;
//!     manager.subscribe().wait_for(|all| all.get(Sweeper::ID).is_some_and(swept)).await?;
//!
//!     let health = manager.daemon_health(Sweeper::ID).expect("it is registered");
//!     assert_eq!((health.status, &health.details), ("healthy", &42.into()));
//!     assert_eq!(manager.all_daemon_health().len(), 1);
//!     assert!(manager.liveness_probe());
//!     let info = manager.daemon_info(Sweeper::ID).expect("it is registered");
//!     assert_eq!((info.restart_count, info.last_error), (0, None));
//!
//!     manager.restart(Sweeper::ID).await?;
//!     manager.stop(Sweeper::ID).await?;
//!     let report = manager.shutdown().await?;
//!     assert!(report.hung.is_empty());
//!     Ok(())
//! })
//! # }
//! ```
//!
//! Absent on purpose: which daemons exist, what a wake-up means, databases, networks. Time on the
//! wall comes in as a [`Clock`]; waits use the runtime's time, which tests can pause.

mod answers;
mod bell;
mod clock;
mod cx;
mod daemon;
mod drive;
mod gauge;
mod handle;
mod lifecycle;
mod order;
mod policy;
mod runnable;
mod spec;
mod supervisor;
mod sync;
mod told;
mod view;
pub mod worker;

pub use answers::{DaemonHealth, DaemonInfo, DegradedDaemon, LifecycleSummary};
pub use clock::Clock;
pub use cx::{Cx, Probe, Stopping, TimedOut};
pub use daemon::{Daemon, Health, Missing, Outcome};
pub use gauge::MemoryGauge;
pub use handle::{Handle, Leadership, Refusal, ShutdownReport, Started};
pub use order::{Graph, GraphError};
pub use policy::{Breaker, BreakerStatus, Degraded, History, Hourly, RestartPolicy, Tier};
pub use runnable::Runnable;
pub use spec::{DaemonId, Priority, Profile, Spec, Wake};
pub use supervisor::{Settings, Supervisor};
pub use view::{Crashes, DaemonView, Notice, Reason, Snapshot, State, Transition};

/// What the runbook shows of the handle compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/runbook.md")]
struct Runbook;
