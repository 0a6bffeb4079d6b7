//! Category `feedback`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
