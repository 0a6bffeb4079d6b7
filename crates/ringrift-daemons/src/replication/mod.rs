//! Category `replication`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
