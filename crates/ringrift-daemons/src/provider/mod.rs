//! Category `provider`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
