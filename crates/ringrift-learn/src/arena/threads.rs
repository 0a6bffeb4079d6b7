//! A match on several threads, with the result that it has on one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::ensure;
use ringrift_player::Player;
use ringrift_rules::Config;

use super::{Book, Opening, Pair, Report, Settings, Tally, book, play_pair, run};
use crate::progress::{Flow, Progress};

/// Longest wait for a pair before the caller is asked again whether to go on.
const PATIENCE: Duration = Duration::from_millis(100);

/// Makes the two players of a match; each thread needs a pair of its own.
type Openers<'a> = &'a (dyn Fn() -> anyhow::Result<[Box<dyn Player>; 2]> + Sync);

/// Like [`run`], on `threads` threads. Pairs count in the order of the book whoever plays them first, so that the result does not
/// depend on the number of threads; a pair that was begun beyond the end of the test is dropped.
///
/// # Errors
/// As [`run`], and what `open` returns.
pub fn run_on(
    threads: usize,
    settings: &Settings,
    config: Config,
    open: Openers<'_>,
    out_dir: Option<&Path>,
    progress: &mut dyn Progress,
) -> anyhow::Result<Report> {
    ensure!(threads > 0, "a match needs at least 1 thread");
    if threads == 1 {
        let [mut a, mut b] = open()?;
        return run(settings, config, &mut *a, &mut *b, out_dir, progress);
    }
    settings.check(config)?;
    let hall = Hall {
        settings,
        config,
        openings: book(config, settings.pairs, settings.seed)?,
        next: AtomicU32::new(0),
        closed: AtomicBool::new(false),
    };
    let players = (0..threads).map(|_| open()).collect::<anyhow::Result<Vec<_>>>()?;
    let names = [players[0][0].name(), players[0][1].name()];
    let mut tally = Tally::new(settings, config, Book::of(&hall.openings));
    let mut stopped = false;
    std::thread::scope(|scope| {
        // A pair is some 100 kB; more than one waiting per thread cannot be.
        let (sender, pairs) = sync_channel(threads);
        for players in players {
            let (hall, sender) = (&hall, sender.clone());
            scope.spawn(move || hall.play(players, &sender));
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut counted = 0;
        loop {
            if !hall.is_closed()
                && progress.beat(counted.into(), settings.pairs.into()) == Flow::Stop
            {
                stopped = true;
                hall.close();
            }
            match pairs.recv_timeout(PATIENCE) {
                Ok((number, pair)) => {
                    early.insert(number, pair);
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while !hall.is_closed()
                && let Some(pair) = early.remove(&counted)
            {
                counted += 1;
                if tally.add(pair) {
                    hall.close();
                }
            }
        }
    });
    tally.finish(names, out_dir, progress, stopped)
}

/// Where a match is played.
struct Hall<'a> {
    settings: &'a Settings,
    config: Config,
    openings: Vec<Opening>,
    next: AtomicU32,
    closed: AtomicBool,
}

impl Hall<'_> {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Plays one pair after the other until the book or the match is at its end.
    fn play(&self, [mut a, mut b]: [Box<dyn Player>; 2], pairs: &SyncSender<(u32, Pair)>) {
        while !self.is_closed() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(opening) = self.openings.get(number as usize) else { break };
            let players: [&mut dyn Player; 2] = [&mut *a, &mut *b];
            let pair = play_pair(self.settings, self.config, number, opening, players);
            if pairs.send((number, pair)).is_err() {
                break;
            }
        }
    }
}
