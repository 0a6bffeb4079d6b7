//! What tasks and supervisor share state with.
//!
//! In one place, so that `tests/interleavings.rs` can put a simulated one here and try every
//! order of steps on the very same code.

use std::sync::PoisonError;
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Nothing panics while it holds one of our locks, and a daemon's panic must not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
