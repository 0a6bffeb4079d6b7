//! Self-play on several threads, games into samples.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use ringrift_rules::Config;

use super::watch::Phase;
use crate::{export, selfplay};

/// Games that a thread takes at once, at most: it opens the networks anew for each lot.
const LARGEST_LOT: u64 = 50;
/// Lots per thread and iteration, at least: the threads are to end at about the same time.
const LOTS: u64 = 8;

/// A file of games.
pub(super) struct Part {
    /// Number of its first game.
    first: u64,
    /// Number of the network that played.
    pub(super) net: usize,
    pub(super) report: selfplay::Report,
}

/// What the threads that play share.
pub(super) struct Ground<'a> {
    settings: selfplay::Settings,
    config: Config,
    net: usize,
    network: Vec<u8>,
    opponents: Vec<Vec<u8>>,
    folder: &'a Path,
    lot: u64,
    claim: Mutex<Claim>,
}

struct Claim {
    next: u64,
    /// Games that are still to be begun; none = until the step ends.
    left: Option<u64>,
}

impl<'a> Ground<'a> {
    /// A ground for games from number `first` on; `wanted` of them, or as many as can be.
    pub(super) fn new(
        settings: selfplay::Settings,
        config: Config,
        (net, network): (usize, Vec<u8>),
        opponents: Vec<Vec<u8>>,
        folder: &'a Path,
        (first, wanted): (u64, Option<u64>),
        threads: usize,
    ) -> Self {
        let usual = wanted.unwrap_or(u64::from(settings.games));
        let lot = (usual / (threads as u64 * LOTS)).clamp(1, LARGEST_LOT);
        let claim = Mutex::new(Claim { next: first, left: wanted });
        Self { settings, config, net, network, opponents, folder, lot, claim }
    }

    fn claim(&self) -> Option<(u64, u64)> {
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        let games = claim.left.map_or(self.lot, |left| left.min(self.lot));
        let first = claim.next;
        claim.next += games;
        if let Some(left) = &mut claim.left {
            *left -= games;
        }
        (games > 0).then_some((first, games))
    }

    /// Number of the game after all that were given out.
    pub(super) fn next(&self) -> u64 {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Plays on `threads` threads until no game is left or the step is over.
    pub(super) fn play_on(&self, threads: usize, phase: &Phase<'_>) -> anyhow::Result<Vec<Part>> {
        let played = in_parallel(threads, |_| {
            let played = self.play(phase);
            if played.is_err() {
                phase.end();
            }
            played
        });
        let lots = played.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let mut parts: Vec<Part> = lots.into_iter().flatten().collect();
        parts.sort_by_key(|part| part.first);
        Ok(parts)
    }

    /// What one thread plays.
    pub(super) fn play(&self, phase: &Phase<'_>) -> anyhow::Result<Vec<Part>> {
        let mut parts = Vec::new();
        while !phase.is_over()
            && let Some((first, games)) = self.claim()
        {
            let folder = self.folder.join(format!("games-{first:07}"));
            fs_err::create_dir_all(&folder)?;
            let games = u32::try_from(games).context("a lot is small")?;
            let settings = selfplay::Settings { games, first, ..self.settings.clone() };
            let mut work = phase.games();
            let report = selfplay::run(
                &settings,
                self.config,
                &self.network,
                &self.opponents,
                &folder,
                &mut work,
            )?;
            work.finished(report.games);
            if report.games == 0 {
                fs_err::remove_dir_all(&folder)?;
            } else {
                parts.push(Part { first, net: self.net, report });
            }
        }
        Ok(parts)
    }
}

/// Samples of one file.
pub(super) struct Exported {
    /// Number of the oldest network that played for it.
    pub(super) net: usize,
    pub(super) report: export::Report,
}

/// Divides the games among `threads` files, and makes a sample file of each.
pub(super) fn export_on(
    threads: usize,
    settings: &export::Settings,
    config: Config,
    parts: &[Part],
    folder: &Path,
    phase: &Phase<'_>,
) -> anyhow::Result<Vec<Exported>> {
    let shares: Vec<Vec<&Part>> = (0..threads)
        .map(|thread| parts.iter().skip(thread).step_by(threads).collect::<Vec<_>>())
        .filter(|share| !share.is_empty())
        .collect();
    let made = in_parallel(shares.len(), |index| {
        let share = &shares[index];
        let out = folder.join(format!("samples-{}", index + 1));
        fs_err::create_dir_all(&out)?;
        let games = out.join(selfplay::GAMES_FILE);
        join(share, &games)?;
        let report = export::run(settings, config, &[games], &out, &mut phase.work())?;
        let net = share.iter().map(|part| part.net).min().context("a share has a part")?;
        Ok(Exported { net, report })
    });
    let made: Vec<Exported> = made.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(made.into_iter().filter(|made| !made.report.stopped).collect())
}

/// One file of games out of several, which it replaces: members of a gzip file may follow each other.
fn join(parts: &[&Part], to: &Path) -> anyhow::Result<()> {
    crate::files::write_atomically(to, |file| {
        for part in parts {
            std::io::copy(&mut fs_err::File::open(&part.report.file)?, file)?;
        }
        Ok(())
    })?;
    for part in parts {
        let folder: PathBuf = part.report.file.parent().map(Path::to_owned).unwrap_or_default();
        fs_err::remove_dir_all(folder)?;
    }
    Ok(())
}

/// Does work `count` times at once and gives the results in order; a single one without a thread of its own.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if count == 1 {
        return vec![work(0)];
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || work(index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(resume)).collect()
    })
}

/// A panic of a thread goes on in whoever waits for it.
pub(super) fn resume<T>(panic: Box<dyn std::any::Any + Send>) -> T {
    std::panic::resume_unwind(panic)
}
