//! Category `resource`.

pub(crate) mod idle_resource;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[Entry::of::<idle_resource::IdleResource>()];
