//! `restore`: makes a data directory again from nothing but a far store.
//!
//! What is not finished lies in `restore/` below the directory, and no manager starts beside it: the log comes
//! to its place last, when everything that it names is there. So whoever is killed is called again, and goes on.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, anyhow};
use clap::Args;
use depot::{Depot, far::Far};
use futures_util::{StreamExt as _, stream};
use ringrift_daemons::{Archive, Manifest, Mark, extension};
use ringrift_pipeline::{ArtefactTrashed, BlobRow, Catalogue, Record, WorkReleased, WorkState};
use serde::{Deserialize, Serialize};

use super::{asked, configured, hash, manifest, rebuild, stopped};
use crate::{
    cli::{Places, warn},
    commands::{offline::block_on, verify},
    config::kind::bytes_text,
    console,
    data_dir::DataDir,
    exit::{Failure, OrExit as _, Outcome},
    interrupt::Interrupt,
};

/// Artefacts that are fetched at a time: most are small, and a service answers late rather than slowly.
const AT_A_TIME: usize = 8;
/// Facts that are recorded at a time.
const RECORDS: usize = 500;
/// What may lie in a directory that counts as empty.
const HARMLESS: [&str; 4] = ["ringrift.toml", "run", "logs", "lost+found"];

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    places: Places,
    /// The far store [default: store.url of the configuration]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// An older manifest instead of the newest, as `ringrift store status` shows it
    #[arg(long, value_name = "FACTS/HASH")]
    manifest: Option<Mark>,
    /// Go on without artefacts that the far store does not give: they are recorded as given up
    #[arg(long)]
    accept_losses: bool,
}

/// What a restore that was begun goes on with.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    from: String,
    manifest: String,
}

/// Runs the command.
pub fn run(args: &RestoreArgs) -> Outcome {
    let flag = args.from.clone().map(|url| ("store.url", "--from", url));
    let settings = args.places.settings(flag.into_iter().collect())?;
    warn(&settings);
    let far = configured(&settings)?;
    let dir = DataDir::new(&settings.data).or_usage()?;
    if dir.restore().join("plan.json").exists() && dir.exists() && !facts_aside(&dir).exists() {
        // Only the last step was cut off.
        fs_err::remove_dir_all(dir.restore())?;
    } else {
        check_empty(&dir).or_usage()?;
        dir.create()?;
        let lock = dir.lock().or_usage()?;
        block_on(make(args, &far, &dir))?;
        drop(lock);
    }
    verify::check(&dir, false)
}

fn facts_aside(dir: &DataDir) -> std::path::PathBuf {
    dir.restore().join("facts.sqlite")
}

fn check_empty(dir: &DataDir) -> anyhow::Result<()> {
    anyhow::ensure!(
        !dir.exists(),
        "{} has a history of its own: name an empty directory with --data",
        dir.root().display()
    );
    if dir.restore().exists() || !dir.root().exists() {
        return Ok(());
    }
    for entry in fs_err::read_dir(dir.root())? {
        let name = entry?.file_name();
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            anyhow::bail!(
                "{} is not empty, {} lies there: name an empty directory with --data",
                dir.root().display(),
                name.display()
            );
        }
    }
    Ok(())
}

async fn make(args: &RestoreArgs, far: &Far, dir: &DataDir) -> Outcome {
    let interrupt = Interrupt::listen()?;
    let archive = Archive::of(far);
    let (mark, manifest) = begin(args, far, &archive, dir, &interrupt).await?;
    console::say(&format!("from {far}, {} facts", manifest.facts));
    let catalogue = rebuild(&archive, &manifest, &dir.restore(), &interrupt, false).await?;
    console::status("");
    let rows = catalogue.blobs(None).await?;
    let (wanted, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| manifest.roles.contains(&row.role));
    let lost = fetch_all(far, dir, wanted, &interrupt).await?;
    if !lost.is_empty() && !args.accept_losses {
        for (row, why) in &lost {
            console::say(&format!("{} of {}: {why}", row.role, row.config));
        }
        return Err(anyhow!(
            "the far store does not give {} artefacts: the same command asks again, and with --accept-losses it \
             goes on without them",
            lost.len()
        )
        .into());
    }
    let given_up = lost.into_iter().map(|(row, why)| (row, format!("lost: {why}")));
    let not_kept = others.into_iter().map(|row| {
        let why = format!("restored from a far store that holds no {}", row.role);
        (row, why)
    });
    record(&catalogue, &mark, given_up.chain(not_kept).collect()).await?;
    drop(catalogue);
    finish(dir)?;
    Ok(())
}

/// What is restored: what an earlier call began, or the newest.
async fn begin(
    args: &RestoreArgs,
    far: &Far,
    archive: &Archive,
    dir: &DataDir,
    interrupt: &Interrupt,
) -> Result<(Mark, Manifest), Failure> {
    let path = dir.restore().join("plan.json");
    let mut wanted = args.manifest.clone();
    if path.exists() {
        let plan: Plan = serde_json::from_slice(&fs_err::read(&path)?).context("read the plan")?;
        let other = |manifest: &Mark| manifest.to_string() != plan.manifest;
        if plan.from != far.to_string() || args.manifest.as_ref().is_some_and(other) {
            return Err(Failure::usage(anyhow!(
                "a restore from {}, manifest {}, was begun in {}: go on with that, or remove the directory",
                plan.from,
                plan.manifest,
                dir.root().display()
            )));
        }
        wanted = Some(plan.manifest.parse::<Mark>().map_err(|error| anyhow!(error))?);
    }
    let Some((mark, manifest)) = manifest(archive, wanted, interrupt).await? else {
        return Err(Failure::usage(anyhow!("{far} holds nothing that S3_BACKUP has written")));
    };
    if !path.exists() {
        fs_err::create_dir_all(dir.restore())?;
        let plan = Plan { from: far.to_string(), manifest: mark.to_string() };
        let aside = path.with_extension("new");
        let mut file = fs_err::File::create(&aside)?;
        file.write_all(&serde_json::to_vec(&plan)?)?;
        file.sync_all()?;
        fs_err::rename(&aside, &path)?;
        sync(&dir.restore())?;
        sync(dir.root())?;
    }
    Ok((mark, manifest))
}

/// Brings artefacts here; gives those that the store does not give.
async fn fetch_all(
    far: &Far,
    dir: &DataDir,
    wanted: Vec<BlobRow>,
    interrupt: &Interrupt,
) -> Result<Vec<(BlobRow, String)>, Failure> {
    let depot = Depot::open(dir.root(), depot::Options { keep_free: crate::up::KEEP_FREE })?;
    let mut lacking = 0;
    for row in &wanted {
        if !depot.contains(&hash(&row.hash)?)? {
            lacking += row.bytes;
        }
    }
    // All of it, before the first byte.
    drop(depot.reserve(lacking)?);
    let (total, mut done, mut bytes) = (wanted.len(), 0_u64, 0_u64);
    let fetch = |row: BlobRow| {
        let (far, depot) = (far.clone(), depot.clone());
        async move {
            let hash = hash(&row.hash)?;
            let (size, role) = (row.bytes, row.role.clone());
            let fetched = asked(interrupt, move |watch| {
                far.fetch(&depot, &hash, (size, extension(&role)), watch)
            });
            anyhow::Ok((row, fetched.await?))
        }
    };
    let mut fetches = stream::iter(wanted).map(fetch).buffer_unordered(AT_A_TIME);
    let mut lost = Vec::new();
    while let Some(fetched) = fetches.next().await {
        match fetched? {
            (_, Ok(stored)) => {
                done += 1;
                bytes += stored.bytes;
            }
            (row, Err(error)) if error.is_loss() => lost.push((row, error.to_string())),
            (_, Err(error)) => return Err(stopped(error).into()),
        }
        console::status(&format!("{done} of {total} artefacts, {}", bytes_text(bytes)));
    }
    console::status("");
    console::say(&format!("{done} of {total} artefacts, {}", bytes_text(bytes)));
    lost.sort_by_key(|(row, _)| row.position);
    Ok(lost)
}

/// Records what is otherwise than it was: artefacts that are not here, and work that nobody does any more.
async fn record(
    catalogue: &Catalogue,
    mark: &Mark,
    missing: Vec<(BlobRow, String)>,
) -> anyhow::Result<()> {
    let key = format!("restore/{mark}");
    let mut records: Vec<Record> = missing
        .into_iter()
        .map(|(row, reason)| Record::once(ArtefactTrashed { hash: row.hash, reason }, &key))
        .collect();
    for item in catalogue.open_works().await? {
        if item.state == WorkState::Claimed {
            let reason = "restored from a far store: nobody works on it any more".to_owned();
            records.push(Record::once(WorkReleased { work: item.id, reason }, &key));
        }
    }
    let now_ms = warden::Clock::system().now_ms();
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(RECORDS));
        catalogue.record(std::mem::replace(&mut records, rest), now_ms).await?;
    }
    Ok(())
}

/// Puts the log in its place, which makes the directory a whole one.
fn finish(dir: &DataDir) -> anyhow::Result<()> {
    let aside = facts_aside(dir);
    for end in ["-wal", "-shm"] {
        let left = aside.with_file_name(format!("facts.sqlite{end}"));
        anyhow::ensure!(!left.exists(), "{} is still in use", left.display());
    }
    fs_err::rename(&aside, dir.facts())?;
    sync(dir.root())?;
    fs_err::remove_dir_all(dir.restore())?;
    Ok(())
}

fn sync(folder: &Path) -> anyhow::Result<()> {
    Ok(fs_err::File::open(folder)?.sync_all()?)
}
