//! Category `resource`: machines are kept busy and sound.

pub(crate) mod idle_resource;
pub(crate) mod node_availability;
pub(crate) mod node_recovery;
pub(crate) mod planned;
mod played;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<idle_resource::IdleResource>(),
    Entry::of::<node_recovery::NodeRecovery>(),
    Entry::planned(&planned::RESOURCE_OPTIMIZER),
    Entry::planned(&planned::UTILIZATION_OPTIMIZER),
    Entry::planned(&planned::ADAPTIVE_RESOURCES),
    Entry::of::<node_availability::NodeAvailability>(),
    Entry::planned(&planned::AVAILABILITY_CAPACITY_PLANNER),
    Entry::planned(&planned::AVAILABILITY_PROVISIONER),
];
