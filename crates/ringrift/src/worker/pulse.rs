//! Signs of life, the manager's death, and the request to stop.

use std::{
    io::{self, Read as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use ringrift_pipeline::WorkerLine;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use super::line;
use crate::exit::TRY_AGAIN;

/// Time between two beats; the contract asks for one every 10 s.
const BEAT: Duration = Duration::from_secs(5);

/// Work that has not moved for so long gets no more beats, so that the manager sees it as stuck.
/// The longest unit known is the reading of a large training window: seconds.
const STUCK: Duration = Duration::from_mins(5);

/// What the work shares with the thread that keeps its pulse.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// Milliseconds after `started` at which the work moved last.
    moved: AtomicU64,
    stop: AtomicBool,
}

impl Pulse {
    /// Starts the threads.
    pub fn start() -> anyhow::Result<Self> {
        let pulse = Self(Arc::new(Shared {
            started: Instant::now(),
            moved: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }));
        std::thread::Builder::new()
            .name("parent".into())
            .spawn(leave_with_the_parent)
            .context("start the thread that watches standard input")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Made here, so that a signal that comes next is not missed.
        let mut terminate = {
            let _inside = runtime.enter();
            signal(SignalKind::terminate()).context("listen for SIGTERM")?
        };
        let beating = pulse.clone();
        std::thread::Builder::new()
            .name("pulse".into())
            .spawn(move || {
                runtime.block_on(async {
                    let mut beats = tokio::time::interval(BEAT);
                    loop {
                        tokio::select! {
                            _ = terminate.recv() => beating.0.stop.store(true, Ordering::Release),
                            _ = beats.tick() => {
                                if beating.still() < STUCK && line::say(&WorkerLine::Beat).is_err() {
                                    std::process::exit(i32::from(TRY_AGAIN));
                                }
                            }
                        }
                    }
                });
            })
            .context("start the thread that keeps the pulse")?;
        Ok(pulse)
    }

    /// The work moved.
    pub fn moved(&self) {
        let now = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.moved.store(now, Ordering::Release);
    }

    /// Time since the work began.
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Was it asked to stop?
    pub fn stopping(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    fn still(&self) -> Duration {
        self.elapsed().saturating_sub(Duration::from_millis(self.0.moved.load(Ordering::Acquire)))
    }
}

/// Blocks until standard input ends, which it does when the manager is gone.
fn leave_with_the_parent() {
    let mut nothing = [0_u8; 256];
    while io::stdin().lock().read(&mut nothing).is_ok_and(|read| read > 0) {}
    std::process::exit(i32::from(TRY_AGAIN));
}
