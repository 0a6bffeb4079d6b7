//! Reading a data directory without its manager, or beside it.

use courier::{Courier, Embedded, Reader, Stream, folded, refold};
use ringrift_pipeline::{Catalogue, PipelineFold};

use crate::{
    data_dir::DataDir,
    exit::{Failure, OrExit as _},
    membership::known,
};

/// The log and a catalogue that shows all of it.
pub struct Offline {
    /// What is the case.
    pub catalogue: Catalogue,
    /// What happened.
    pub log: Courier,
    /// Holds a catalogue that was folded for this command alone.
    _folder: Option<tempfile::TempDir>,
}

impl Offline {
    /// Opens what lies in the directory; nothing in it is changed.
    ///
    /// A catalogue that is missing, damaged or not up to date is folded anew into a temporary file.
    pub async fn open(dir: &DataDir) -> Result<Self, Failure> {
        let log = open_log(dir).await.or_usage()?;
        let head = log.head(Stream::Pipeline).await?;
        let file = dir.catalogue();
        // A running manager folds what it wrote within milliseconds.
        let there = folded(&file, PipelineFold, &log).await?;
        if there.is_some_and(|position| position >= head || dir.is_locked()) {
            let catalogue = Catalogue::read_only(log.clone(), Reader::new(&file));
            return Ok(Self { catalogue, log, _folder: None });
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("catalogue.sqlite");
        refold(&file, PipelineFold, log.clone(), head).await?;
        let catalogue = Catalogue::read_only(log.clone(), Reader::new(&file));
        Ok(Self { catalogue, log, _folder: Some(folder) })
    }
}

/// Opens what the directory knows of its log for reading, also beside the manager: its own file, or the
/// replica of a cluster's log, which shows what this node knew last.
pub async fn open_log(dir: &DataDir) -> anyhow::Result<Courier> {
    let path = known(dir)?;
    let opened = tokio::task::spawn_blocking(move || Embedded::open_read_only(&path)).await?;
    Ok(opened?)
}

/// Runs a command that waits for little else than the disk.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A blocked read must not keep a command from ending.
    runtime.shutdown_background();
    result
}
