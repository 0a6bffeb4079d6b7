//! Category `misc`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
