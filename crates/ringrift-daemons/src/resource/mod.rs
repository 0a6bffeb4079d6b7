//! Category `resource`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
