//! `verify`: is everything that was ever reported there, whole, and as it was said?

use std::collections::BTreeSet;

use clap::Args;
use courier::{Reader, Stream, refold};
use ringrift_learn::{Unwatched, games};
use ringrift_pipeline::{BatchState, BlobRow, PipelineFold};
use serde_json::json;

use super::offline::{Offline, block_on};
use crate::{
    cli::{Place, Print},
    console,
    data_dir::DataDir,
    exit::{FAILED, Failure, OrExit as _, Outcome},
    membership::Membership,
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// What was looked at, and what is wrong.
#[derive(Debug, Default, serde::Serialize)]
struct Findings {
    artefacts: u64,
    bytes: u64,
    /// Hashes of those that are not on this node of a cluster, but on others.
    elsewhere: Vec<String>,
    games: u64,
    facts: u64,
    faults: Vec<String>,
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> Outcome {
    check(&args.place.existing()?, args.print.json)
}

/// Checks everything and prints what came of it.
pub fn check(dir: &DataDir, as_json: bool) -> Outcome {
    let findings = block_on(verify(dir, as_json))?;
    let clean = findings.faults.is_empty();
    console::status("");
    if as_json {
        let mut value = json!(findings);
        value["clean"] = clean.into();
        console::say_json(&value)?;
    } else {
        for fault in &findings.faults {
            console::say(fault);
        }
        let elsewhere = match findings.elsewhere.len() {
            0 => String::new(),
            count => format!(" ({count} are on other nodes)"),
        };
        console::say(&format!(
            "{}: {} artefacts ({}) hashed{elsewhere}, {} games replayed, {} facts folded, {} faults",
            if clean { "clean" } else { "NOT CLEAN" },
            findings.artefacts,
            crate::config::kind::bytes_text(findings.bytes),
            findings.games,
            findings.facts,
            findings.faults.len()
        ));
    }
    if clean { Ok(()) } else { Err(Failure::told(FAILED)) }
}

async fn verify(dir: &DataDir, quiet: bool) -> Result<Findings, Failure> {
    let mut findings = Findings::default();
    let offline = Offline::open(dir).await?;
    check_catalogue(dir, &offline, &mut findings).await?;
    let blobs = offline.catalogue.blobs(None).await?;
    let batches = offline.catalogue.recent_batches(None, u32::MAX).await?;
    let refused: BTreeSet<&str> = batches
        .iter()
        .filter(|batch| batch.state == BatchState::Rejected)
        .map(|batch| batch.hash.as_str())
        .collect();
    let depot = depot::Depot::open_existing(dir.root());
    let shared = Membership::of(dir).or_usage()?.is_some();
    let total = blobs.len();
    for (number, blob) in blobs.into_iter().enumerate() {
        if !quiet {
            console::status(&format!("{number} of {total} artefacts, {} games", findings.games));
        }
        let path = match verify_blob(&depot, &blob) {
            Ok(Some(path)) => path,
            Ok(None) if shared => {
                findings.elsewhere.push(blob.hash.to_string());
                continue;
            }
            found => {
                let fault = match found {
                    Err(fault) => fault,
                    Ok(_) => format!("{} is missing", shown(&blob)),
                };
                // A manager at work may have thrown it away since the list was made.
                if !offline.catalogue.is_trashed(&blob.hash).await? {
                    findings.faults.push(fault);
                }
                continue;
            }
        };
        findings.artefacts += 1;
        findings.bytes += blob.bytes;
        // A refused batch is kept as it came; that its games do not replay is known.
        let replayed = match blob.role.as_str() {
            "games" if refused.contains(blob.hash.as_str()) => continue,
            "games" => games::check(&path, &mut Unwatched),
            "records" => games::check_match(&path, &mut Unwatched),
            _ => continue,
        };
        match replayed {
            Ok(report) => findings.games += report.games,
            Err(fault) => findings.faults.push(format!("{fault:#}")),
        }
    }
    Ok(findings)
}

fn shown(blob: &BlobRow) -> String {
    format!("{} of {} (fact {}): {}", blob.role, blob.config, blob.position, blob.hash)
}

/// Where a whole artefact lies, none if it is not here; or what is wrong with it, file name included.
fn verify_blob(depot: &depot::Depot, blob: &BlobRow) -> Result<Option<std::path::PathBuf>, String> {
    let named = || format!("{} of {} (fact {})", blob.role, blob.config, blob.position);
    let hash: depot::Hash = blob
        .hash
        .as_str()
        .parse()
        .map_err(|error| format!("{}: '{}' is no hash: {error}", named(), blob.hash))?;
    match depot.verify(&hash) {
        Ok(()) => {}
        Err(depot::Fault::Missing { .. }) => return Ok(None),
        Err(fault) => return Err(format!("{}: {fault}", named())),
    }
    depot.path_of(&hash).map_err(|error| format!("{}: {error}", named()))
}

/// Folds the log again and compares with the catalogue that lies there.
async fn check_catalogue(
    dir: &DataDir,
    offline: &Offline,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let head = offline.log.head(Stream::Pipeline).await?;
    findings.facts = head;
    let file = dir.catalogue();
    if courier::folded(&file, PipelineFold, &offline.log).await?.is_none() {
        // Missing is not wrong: it is rebuilt. Damaged is rebuilt as well, but people should know.
        if file.exists() {
            findings.faults.push(format!("{}: it is not a catalogue of this log", file.display()));
        }
        return Ok(());
    }
    let there = Reader::new(&file).digest().await?;
    let folder = tempfile::tempdir()?;
    let again = refold(
        &folder.path().join("again.sqlite"),
        PipelineFold,
        offline.log.clone(),
        there.position,
    )
    .await?;
    let different = again.differences(&there);
    if !different.is_empty() {
        findings.faults.push(format!(
            "{}: the tables {} are not what the log says; delete the file and it is made again",
            file.display(),
            different.join(", ")
        ));
    }
    Ok(())
}
