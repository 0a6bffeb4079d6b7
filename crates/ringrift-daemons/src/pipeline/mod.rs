//! Category `pipeline`.

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[];
