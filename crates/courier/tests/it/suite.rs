//! The embedded engine passes the suite of all engines.

use courier::conformance::{Fixture, Violation};
use courier::{Answer, Courier, Embedded, Options};
use tempfile::TempDir;

struct OnDisk {
    dir: TempDir,
    log: Option<Courier>,
}

impl OnDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts.sqlite"), Options::default()).unwrap();
        Self { dir, log: Some(log) }
    }
}

impl Fixture for OnDisk {
    fn courier(&self) -> Courier {
        self.log.clone().unwrap()
    }

    fn reopen(&mut self) -> Answer<'_, Result<(), Violation>> {
        Box::pin(async {
            self.log = None;
            let file = self.dir.path().join("facts.sqlite");
            let wal = self.dir.path().join("facts.sqlite-wal");
            assert!(!wal.exists(), "the last handle waits until the file is closed");
            self.log = Some(Embedded::open(&file, Options::default())?);
            Ok(())
        })
    }
}

courier::conformance_suite!(OnDisk::new());
