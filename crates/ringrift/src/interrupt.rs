//! Ctrl-C in commands that work for a long time without a manager.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a command that was ended by force. Source: shells, 128 + SIGINT.
const FORCED: i32 = 130;

/// Becomes true at the first SIGINT or SIGTERM: time to come to an end. The second one ends the process at once.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    pub fn listen() -> anyhow::Result<Self> {
        let asked = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Made here, so that a signal that comes next is not missed.
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).context("listen for signals");
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
        };
        let heard = asked.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        tokio::select! {
                            _ = interrupt.recv() => {}
                            _ = terminate.recv() => {}
                        }
                        if heard.0.swap(true, Ordering::AcqRel) {
                            std::process::exit(FORCED);
                        }
                    }
                });
            })
            .context("start the thread that listens for signals")?;
        Ok(asked)
    }

    /// Was there a signal?
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
