//! Category `event`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
