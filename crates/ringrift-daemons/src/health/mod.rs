//! Category `health`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
