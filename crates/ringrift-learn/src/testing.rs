//! What the tests of several modules share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringrift_player::Network;
use ringrift_rules::Config;

use crate::progress::{Flow, Progress, Unwatched};
use crate::{export, selfplay};

/// Stops at the beat after the given number of beats.
pub(crate) struct StopAfter(pub(crate) u32);

impl Progress for StopAfter {
    fn beat(&mut self, _done: u64, _total: u64) -> Flow {
        if self.0 == 0 {
            return Flow::Stop;
        }
        self.0 -= 1;
        Flow::Continue
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// A config by its name.
pub(crate) fn config(name: &str) -> Config {
    name.parse().unwrap()
}

/// Self-play that takes a moment.
pub(crate) fn short(games: u32, seed: u64) -> selfplay::Settings {
    selfplay::Settings { games, simulations: 4, fast_simulations: 2, seed, ..Default::default() }
}

/// A file of self-play games in a folder of its own.
pub(crate) fn games(folder: &Path, config: Config, games: u32, seed: u64) -> PathBuf {
    let out = folder.join(format!("games-{config}-{seed}"));
    fs_err::create_dir_all(&out).unwrap();
    let network = Network::random(config, 1).to_bytes();
    selfplay::run(&short(games, seed), config, &network, &[], &out, &mut Unwatched).unwrap().file
}

/// A sample file of such games.
pub(crate) fn samples(folder: &Path, config: Config, count: u32, seed: u64) -> PathBuf {
    let games = games(folder, config, count, seed);
    let settings = export::Settings::default();
    let out = games.parent().unwrap();
    export::run(&settings, config, std::slice::from_ref(&games), out, &mut Unwatched).unwrap().file
}
