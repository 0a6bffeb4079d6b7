//! `store`: what lies in the far store, and whether it is whole.

use std::collections::BTreeMap;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use courier::Stream;
use ringrift_daemons::{Archive, ORIGINALS};
use serde_json::json;

use super::{asked, configured, hash, manifest, rebuild, stopped};
use crate::{
    cli::{Places, Print, warn},
    commands::offline::{block_on, open_log},
    config::{Settings, kind::bytes_text},
    console,
    data_dir::DataDir,
    exit::{FAILED, Failure, Outcome},
    interrupt::Interrupt,
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Show how much the far store holds, and how far it is behind this directory
    Status(OfStore),
    /// Read everything in the far store back and check it against its facts
    Verify(OfStore),
}

#[derive(Debug, Args)]
struct OfStore {
    #[command(flatten)]
    places: Places,
    /// The far store [default: store.url of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    print: Print,
}

impl OfStore {
    fn settings(&self) -> Result<Settings, Failure> {
        let flag = self.url.clone().map(|url| ("store.url", "--url", url));
        let settings = self.places.settings(flag.into_iter().collect())?;
        warn(&settings);
        Ok(settings)
    }
}

/// Runs the command.
pub fn run(args: &StoreArgs) -> Outcome {
    match &args.command {
        StoreCommand::Status(args) => block_on(status(args)),
        StoreCommand::Verify(args) => block_on(verify(args)),
    }
}

async fn status(args: &OfStore) -> Outcome {
    let settings = args.settings()?;
    let far = configured(&settings)?;
    let interrupt = Interrupt::default();
    let archive = Archive::of(&far);
    let dir = DataDir::new(&settings.data)?;
    let here =
        if dir.exists() { Some(open_log(&dir).await?.head(Stream::Pipeline).await?) } else { None };
    let found = manifest(&archive, None, &interrupt).await?;
    let store = far.clone();
    let objects = asked(&interrupt, move |_| store.list("blobs")).await??;
    let bytes: u64 = objects.iter().map(|(_, bytes)| bytes).sum();
    let Some((mark, manifest)) = found else {
        if args.print.json {
            let value =
                json!({ "store": far.to_string(), "manifest": null, "artefacts": objects.len() });
            return Ok(console::say_json(&value)?);
        }
        console::say(&format!("store      {far}"));
        console::say(
            "manifest   none: nothing can be restored from it yet; S3_BACKUP writes there",
        );
        return Ok(());
    };
    if args.print.json {
        return Ok(console::say_json(&json!({
            "store": far.to_string(),
            "manifest": mark.to_string(),
            "written_ms": manifest.written_ms,
            "facts": manifest.facts,
            "segments": manifest.segments.len(),
            "facts_here": here,
            "artefacts": objects.len(),
            "artefact_bytes": bytes,
            "roles": manifest.roles,
            "lacks": manifest.lacks,
        }))?);
    }
    let packed: u64 = manifest.segments.iter().map(|segment| segment.bytes).sum();
    let segments = manifest.segments.len();
    console::say(&format!("store      {far}"));
    console::say(&format!("manifest   {mark}"));
    console::say(&format!(
        "facts      {} in {segments} segments ({})",
        manifest.facts,
        bytes_text(packed)
    ));
    console::say(&format!("artefacts  {} ({})", objects.len(), bytes_text(bytes)));
    console::say(&format!("roles      {}", manifest.roles.join(", ")));
    for hash in &manifest.lacks {
        console::say(&format!("lacks      {hash}"));
    }
    if let Some(here) = here {
        console::say(&format!(
            "behind     {} positions of {here} in {}",
            here.saturating_sub(manifest.facts),
            dir.root().display()
        ));
    }
    Ok(())
}

async fn verify(args: &OfStore) -> Outcome {
    let settings = args.settings()?;
    let far = configured(&settings)?;
    let interrupt = Interrupt::listen()?;
    let archive = Archive::of(&far);
    let Some((mark, manifest)) = manifest(&archive, None, &interrupt).await? else {
        return Err(anyhow!("{far} holds no manifest, so nothing can be restored from it").into());
    };
    let quiet = args.print.json;
    let folder = tempfile::tempdir()?;
    let catalogue = rebuild(&archive, &manifest, folder.path(), &interrupt, quiet).await?;
    let rows = catalogue.blobs(None).await?;
    let (wanted, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| manifest.roles.contains(&row.role));
    let mut faults = BTreeMap::new();
    let (mut whole, mut bytes) = (0_u64, 0_u64);
    for (number, row) in wanted.iter().enumerate() {
        if !quiet {
            console::status(&format!("{number} of {} artefacts", wanted.len()));
        }
        let (far, hash) = (far.clone(), hash(&row.hash)?);
        match asked(&interrupt, move |watch| far.verify(&hash, watch)).await? {
            Ok(size) => {
                whole += 1;
                bytes += size;
            }
            Err(error) if error.is_loss() => {
                faults.insert(
                    format!("{} of {}: {}", row.role, row.config, row.hash),
                    error.to_string(),
                );
            }
            Err(error) => return Err(stopped(error).into()),
        }
    }
    console::status("");
    let clean = faults.is_empty();
    if args.print.json {
        console::say_json(&json!({
            "store": far.to_string(), "manifest": mark.to_string(), "facts": manifest.facts,
            "artefacts": whole, "artefact_bytes": bytes, "not_kept": others.len(),
            "faults": faults, "clean": clean,
        }))?;
    } else {
        for (what, fault) in &faults {
            console::say(&format!("{what}: {fault}"));
        }
        let not_kept = match others.len() {
            0 => String::new(),
            count => {
                format!(" ({count} others do not go there: roles beside {})", ORIGINALS.join(", "))
            }
        };
        console::say(&format!(
            "{}: {whole} artefacts ({}) read back and hashed{not_kept}, {} facts, {} faults",
            if clean { "clean" } else { "NOT CLEAN" },
            bytes_text(bytes),
            manifest.facts,
            faults.len()
        ));
    }
    if clean { Ok(()) } else { Err(Failure::told(FAILED)) }
}
