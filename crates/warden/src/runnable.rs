//! A daemon without its type: a spec and the means to make a fresh task of it.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use crate::{Cx, Daemon, History, Spec};

pub(crate) type Task = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A type of daemon as the supervisor runs it.
pub struct Runnable {
    /// Its constant description.
    pub spec: &'static Spec,
    /// Period to use instead of the spec's.
    pub period: Option<Duration>,
    /// What an earlier supervisor knew of it.
    pub history: Option<History>,
    spawn: Box<dyn Fn(Cx) -> Task + Send + Sync>,
}

impl Runnable {
    /// Runs what `make` gives, a fresh object for each start and restart.
    ///
    /// An error or a panic of `make` counts like one of the daemon. It runs inside the daemon's
    /// task, so it may be slow, but it must not block for long.
    pub fn of<D: Daemon>(make: impl Fn() -> anyhow::Result<D> + Send + Sync + 'static) -> Self {
        let make = std::sync::Arc::new(make);
        Self {
            spec: &D::SPEC,
            period: None,
            history: None,
            spawn: Box::new(move |cx| {
                let make = make.clone();
                Box::pin(async move { make()?.run(cx).await })
            }),
        }
    }

    /// The same with another period.
    #[must_use]
    pub fn every(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }

    /// The same with a past: crashes count, and what was given up stays given up.
    #[must_use]
    pub fn remembering(mut self, history: History) -> Self {
        self.history = Some(history);
        self
    }

    pub(crate) fn task(&self, cx: Cx) -> Task {
        (self.spawn)(cx)
    }
}

impl fmt::Debug for Runnable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Runnable").field("spec", &self.spec).finish_non_exhaustive()
    }
}
