//! Category `health`: what works and what does not.

pub(crate) mod daemon_watchdog;
pub(crate) mod health_server;
pub(crate) mod memory_monitor;
pub(crate) mod planned;
pub(crate) mod progress_watchdog;
pub(crate) mod work_queue_monitor;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::planned(&planned::QUEUE_MONITOR),
    Entry::of::<daemon_watchdog::DaemonWatchdog>(),
    Entry::planned(&planned::QUALITY_MONITOR),
    Entry::planned(&planned::MODEL_PERFORMANCE_WATCHDOG),
    Entry::planned(&planned::CLUSTER_MONITOR),
    Entry::planned(&planned::CLUSTER_WATCHDOG),
    Entry::planned(&planned::COORDINATOR_HEALTH_MONITOR),
    Entry::of::<work_queue_monitor::WorkQueueMonitor>(),
    Entry::of::<health_server::HealthServer>(),
    Entry::planned(&planned::AVAILABILITY_NODE_MONITOR),
    Entry::of::<progress_watchdog::ProgressWatchdog>(),
    Entry::planned(&planned::P2P_RECOVERY),
    Entry::of::<memory_monitor::MemoryMonitor>(),
    Entry::planned(&planned::TAILSCALE_HEALTH),
];
