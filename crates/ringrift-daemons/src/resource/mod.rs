//! Category `resource`: machines are kept busy and sound.

pub(crate) mod idle_resource;
pub(crate) mod planned;
mod played;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<idle_resource::IdleResource>(),
    Entry::planned(&planned::NODE_RECOVERY),
    Entry::planned(&planned::RESOURCE_OPTIMIZER),
    Entry::planned(&planned::UTILIZATION_OPTIMIZER),
    Entry::planned(&planned::ADAPTIVE_RESOURCES),
    Entry::planned(&planned::NODE_AVAILABILITY),
    Entry::planned(&planned::AVAILABILITY_CAPACITY_PLANNER),
    Entry::planned(&planned::AVAILABILITY_PROVISIONER),
];
