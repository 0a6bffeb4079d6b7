//! Category `queue`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
