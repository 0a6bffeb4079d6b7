//! Category `sync`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
