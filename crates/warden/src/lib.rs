//! Supervision of long-lived tasks and of the child processes that do their heavy work.
//!
//! A [`Daemon`] is an object with a cycle. Its constant [`Spec`] says what it needs and what wakes
//! it. The supervisor starts daemons in order of needs, believes no readiness but their own word,
//! judges their health from what they publish and from the age of their beats, restarts what
//! crashed after growing pauses, and stops all in reverse order.
//!
//! Absent on purpose: which daemons exist, what a wake-up means, databases, networks. Time on the
//! wall comes in as a [`Clock`]; waits use the runtime's time, which tests can pause.

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

pub use clock::Clock;
pub use cx::{Cx, Probe, Stopping, TimedOut};
pub use daemon::{Daemon, Health, Missing, Outcome};
pub use gauge::MemoryGauge;
pub use handle::{Handle, Leadership, Refusal, ShutdownReport, Started};
pub use order::{Graph, GraphError};
pub use policy::{Breaker, BreakerStatus, History, Hourly, RestartPolicy, Tier};
pub use runnable::Runnable;
pub use spec::{DaemonId, Priority, Profile, Spec, Wake};
pub use supervisor::{Settings, Supervisor};
pub use view::{Crashes, DaemonView, Notice, Reason, Snapshot, State, Transition};
