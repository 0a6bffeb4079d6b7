//! How full the machine's memory is, as a value that the caller supplies.

use std::{fmt, sync::Arc};

/// Source of the share of memory in use.
#[derive(Clone)]
pub struct MemoryGauge(Arc<dyn Fn() -> Option<u8> + Send + Sync>);

impl MemoryGauge {
    /// A gauge that asks `used` for percents; `None` = it cannot be told, and nothing waits for it.
    ///
    /// Asked on the supervisor's thread, once a turn at most and only while something wants to
    /// start, so it may take milliseconds, but must not block.
    pub fn new(used: impl Fn() -> Option<u8> + Send + Sync + 'static) -> Self {
        Self(Arc::new(used))
    }

    /// A gauge that never holds anything back.
    pub fn none() -> Self {
        Self::new(|| None)
    }

    pub(crate) fn percent(&self) -> Option<u8> {
        (self.0)()
    }
}

impl fmt::Debug for MemoryGauge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("MemoryGauge")
    }
}
