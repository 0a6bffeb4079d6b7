//! Category `distribution`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
