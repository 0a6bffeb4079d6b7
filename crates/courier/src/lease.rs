//! Leases: the right to do something, for a time, with a number that outlives it.

use serde::{Deserialize, Serialize};

use crate::fact::Fence;

/// A lease as it was granted or prolonged.
///
/// The epoch is what counts. It strictly grows with every grant of the same name (not by one in
/// every engine), so whatever carries an older one can be refused where it lands, however late it
/// comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What it is about.
    pub name: String,
    /// Who holds it.
    pub holder: String,
    /// The number of this grant.
    pub epoch: u64,
    /// When it ends unless prolonged, milliseconds since the Unix epoch.
    pub expires_ms: i64,
    /// What its holder says to whoever looks at it; of a new grant empty. Only the last one is kept, so
    /// nothing may rest on it. To be kept to some kilobytes: every process that follows the log gets it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Lease {
    /// What proves that it is held.
    pub fn fence(&self) -> Fence {
        Fence { lease: self.name.clone(), epoch: self.epoch }
    }
}
