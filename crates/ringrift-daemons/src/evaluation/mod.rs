//! Category `evaluation`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
