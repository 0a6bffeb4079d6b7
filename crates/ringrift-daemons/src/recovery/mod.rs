//! Category `recovery`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
