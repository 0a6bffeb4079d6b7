//! `store` and `restore`: what lies in a far store, and a directory made of it alone.

mod restore;
mod store;

use std::{ops::ControlFlow, path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use courier::{Embedded, Folder, Options, Stream};
use depot::far::{Far, FarError, FarResult, Watch};
use ringrift_daemons::{Archive, Manifest, Mark};
use ringrift_pipeline::{Catalogue, PipelineFold};

pub use restore::{RestoreArgs, run as restore};
pub use store::{StoreArgs, run as store};

use super::cluster::{append_again, digest};
use crate::{
    config::Settings,
    console,
    exit::{Failure, OrExit as _},
    far,
    interrupt::Interrupt,
};

/// Longest wait for the catalogue: folding a million facts takes about a minute.
const FOLD_LIMIT: Duration = Duration::from_mins(10);

/// The store of these settings.
fn configured(settings: &Settings) -> Result<Far, Failure> {
    let far = far::far(&settings.store).or_usage()?;
    far.ok_or_else(|| {
        Failure::usage(anyhow!(
            "no far store is named: store.url in the configuration, or the flag"
        ))
    })
}

/// Runs a call on a far store where it may block.
async fn asked<T: Send + 'static>(
    interrupt: &Interrupt,
    call: impl FnOnce(Watch<'_>) -> FarResult<T> + Send + 'static,
) -> anyhow::Result<FarResult<T>> {
    let interrupt = interrupt.clone();
    let work = tokio::task::spawn_blocking(move || {
        call(&mut |_| {
            if interrupt.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    work.await.context("wait for the far store")
}

/// The manifest that is meant: this one, or the newest.
async fn manifest(
    archive: &Archive,
    wanted: Option<Mark>,
    interrupt: &Interrupt,
) -> Result<Option<(Mark, Manifest)>, Failure> {
    let reader = archive.clone();
    let read = asked(interrupt, move |watch| match wanted {
        Some(mark) => reader.manifest(&mark, watch).map(|manifest| Some((mark, manifest))),
        None => reader.newest(watch),
    });
    let error = match read.await? {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if !error.is_loss() {
        return Err(error.into());
    }
    // The newest of those that can be read, for whoever decides.
    let reader = archive.clone();
    let whole = asked(interrupt, move |watch| {
        Ok(reader.older()?.into_iter().find(|mark| reader.manifest(mark, watch).is_ok()))
    });
    Err(Failure::from(match whole.await?? {
        Some(mark) => anyhow!("{error}; the newest manifest that is whole is --manifest {mark}"),
        None => anyhow!("{error}; and there is no other manifest"),
    }))
}

/// Makes the log of a manifest again in a folder, or goes on where an earlier try was cut off; gives the
/// catalogue of it.
async fn rebuild(
    archive: &Archive,
    manifest: &Manifest,
    folder: &Path,
    interrupt: &Interrupt,
    quiet: bool,
) -> Result<Catalogue, Failure> {
    let path = folder.join("facts.sqlite");
    let log = tokio::task::spawn_blocking(move || Embedded::open(&path, Options::default()));
    let log = log.await.context("open the log")??;
    let there = digest(&log, Stream::Pipeline, u64::MAX).await?.facts;
    let mut passed = 0;
    for segment in &manifest.segments {
        passed += segment.facts;
        if passed <= there {
            continue;
        }
        let (reader, segment) = (archive.clone(), segment.clone());
        let facts = asked(interrupt, move |watch| reader.facts(&segment, watch)).await??;
        append_again(&log, Stream::Pipeline, &facts).await?;
        if !quiet {
            console::status(&format!("{passed} of {} facts", manifest.facts));
        }
    }
    let found = digest(&log, Stream::Pipeline, manifest.facts).await?;
    if found != manifest.history() {
        let sentence = "the facts in the far store are not those that its manifest was written for";
        return Err(anyhow!("{sentence}: {} of {}", found.facts, manifest.facts).into());
    }
    let folder = Folder::open(&folder.join("catalogue.sqlite"), PipelineFold, log.clone()).await?;
    folder.caught_up(log.head(Stream::Pipeline).await?, FOLD_LIMIT).await?;
    Ok(Catalogue::new(log, folder).for_source("restore"))
}

/// What an interrupted command says.
fn stopped(error: FarError) -> anyhow::Error {
    match error {
        FarError::Stopped => anyhow!("stopped; the same command goes on where this one ended"),
        error => error.into(),
    }
}

/// A hash as the depot writes it.
fn hash(text: &ringrift_pipeline::BlobHash) -> anyhow::Result<depot::Hash> {
    text.as_str().parse().with_context(|| format!("read the hash '{text}'"))
}
