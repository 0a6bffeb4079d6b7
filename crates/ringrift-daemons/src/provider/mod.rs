//! Category `provider`: rented machines.

pub(crate) mod planned;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[Entry::planned(&planned::MULTI_PROVIDER)];
