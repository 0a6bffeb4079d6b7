//! Category `replication`: copies are counted; all its types are retired.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
