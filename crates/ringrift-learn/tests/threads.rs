//! Row 24 of the original's faults: pools of threads inside of the work, which stand still as soon as a core is taken.
//!
//! Alone in its program, as the threads of a whole program are counted.
#![cfg(target_os = "linux")]

use std::time::Duration;

use ringrift_learn::{Flow, Progress, export, selfplay, train};
use ringrift_player::Network;

/// The most threads that were seen while the work went on.
#[derive(Default)]
struct Counter {
    most: usize,
}

impl Progress for Counter {
    fn beat(&mut self, _done: u64, _total: u64) -> Flow {
        self.most = self.most.max(threads());
        Flow::Continue
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

fn threads() -> usize {
    fs_err::read_dir("/proc/self/task").expect("the system lists them").count()
}

#[test]
fn playing_and_training_use_the_thread_they_are_called_on_and_no_other() {
    let (folder, config) = (tempfile::tempdir().unwrap(), "hex8_2p".parse().unwrap());
    let (out, before) = (folder.path(), threads());
    let mut counter = Counter::default();
    let settings = selfplay::Settings { games: 2, simulations: 8, ..Default::default() };
    let network = Network::random(config, 1).to_bytes();
    let played = selfplay::run(&settings, config, &network, &[], out, &mut counter).unwrap();
    let files = [played.file];
    let exported =
        export::run(&export::Settings::default(), config, &files, out, &mut counter).unwrap();
    let settings = train::Settings { steps: 3, batch: 16, ..Default::default() };
    train::run(&settings, &exported.file, Some(&network), out, &mut counter).unwrap();
    assert_eq!((counter.most, threads()), (before, before));
}
