//! How daemons make the supervisor look at them: each names itself, and one sleeper is woken.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use crate::sync::{Mutex, lock};

/// Held by the supervisor and by every daemon.
///
/// A list instead of a bare wake-up, so that a turn of the supervisor costs by who has news, not by
/// how many there are. It is short: nobody is on it twice, however many runs he ends meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Bell(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    by: Vec<usize>,
    sleeper: Option<Waker>,
}

impl Bell {
    /// Says that `at` has news.
    pub(crate) fn call(&self, at: usize) {
        let sleeper = {
            let mut calls = lock(&self.0);
            if !calls.by.contains(&at) {
                calls.by.push(at);
            }
            calls.sleeper.take()
        };
        // Outside the lock: whoever wakes wants it first of all.
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Those who called since the last call.
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut lock(&self.0).by)
    }

    /// Ends when somebody has called who was not taken yet; for one waiter at a time.
    pub(crate) async fn called(&self) {
        poll_fn(|cx| self.poll_called(cx)).await;
    }

    fn poll_called(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut calls = lock(&self.0);
        if calls.by.is_empty() {
            calls.sleeper = Some(cx.waker().clone());
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}
