//! Category `health`: what works and what does not.

pub(crate) mod cluster_monitor;
pub(crate) mod coordinator_health_monitor;
pub(crate) mod daemon_watchdog;
pub(crate) mod health_server;
pub(crate) mod memory_monitor;
pub(crate) mod planned;
pub(crate) mod progress_watchdog;
pub(crate) mod queue_monitor;
pub(crate) mod work_queue_monitor;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<queue_monitor::QueueMonitor>(),
    Entry::of::<daemon_watchdog::DaemonWatchdog>(),
    Entry::planned(&planned::QUALITY_MONITOR),
    Entry::planned(&planned::MODEL_PERFORMANCE_WATCHDOG),
    Entry::of::<cluster_monitor::ClusterMonitor>(),
    Entry::planned(&planned::CLUSTER_WATCHDOG),
    Entry::of::<coordinator_health_monitor::CoordinatorHealthMonitor>(),
    Entry::of::<work_queue_monitor::WorkQueueMonitor>(),
    Entry::of::<health_server::HealthServer>(),
    Entry::planned(&planned::AVAILABILITY_NODE_MONITOR),
    Entry::of::<progress_watchdog::ProgressWatchdog>(),
    Entry::planned(&planned::P2P_RECOVERY),
    Entry::of::<memory_monitor::MemoryMonitor>(),
    Entry::planned(&planned::TAILSCALE_HEALTH),
];
