//! `where`: which nodes have an artefact, and which file it is here.

use clap::Args;
use ringrift_pipeline::{BlobRow, CopiesRow};
use serde_json::json;

use super::{
    lists::time,
    offline::{Offline, block_on},
};
use crate::{
    cli::{Place, Print},
    config::kind::bytes_text,
    console,
    exit::{Failure, Outcome},
};

/// Artefacts that are named when several begin alike.
const MOST_NAMED: u32 = 10;

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct WhereArgs {
    /// The hash of an artefact, or as many of its first digits as tell it from all others
    #[arg(value_parser = digits)]
    hash: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

fn digits(text: &str) -> Result<String, String> {
    let is_hash = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash {
        return Ok(text.to_ascii_lowercase());
    }
    Err("allowed are 1 to 64 digits 0-9 and a-f, as `ringrift games` and `ringrift models --json` show them"
        .to_owned())
}

/// Runs the command.
pub fn run(args: &WhereArgs) -> Outcome {
    let dir = args.place.existing()?;
    block_on(async {
        let offline = Offline::open(&dir).await?;
        let found = offline.catalogue.beginning_with(&args.hash, MOST_NAMED).await?;
        let [(CopiesRow { blob, holders }, trashed)] = &found[..] else {
            return Err(Failure::usage(anyhow::anyhow!(none_or_several(&args.hash, &found))));
        };
        let hash = blob.hash.as_str().parse::<depot::Hash>();
        let hash = hash.map_err(|error| anyhow::anyhow!("'{}' is no hash: {error}", blob.hash))?;
        let path =
            depot::Depot::open_existing(dir.root()).path_of(&hash).map_err(anyhow::Error::from)?;
        if args.print.json {
            let listed = holders.iter().map(|holder| {
                let since = time(holder.since_ms);
                json!({ "node": holder.node, "since": since, "offered": holder.offered })
            });
            console::say_json(&json!({
                "hash": blob.hash,
                "role": blob.role,
                "config": blob.config,
                "bytes": blob.bytes,
                "position": blob.position,
                "trashed": trashed,
                "here": path,
                "nodes": listed.collect::<Vec<_>>(),
            }))?;
            return Ok(());
        }
        console::say(&shown(blob));
        if let Some(why) = trashed {
            console::say(&format!("given up: {why}"));
        }
        console::say(&match path {
            Some(path) => format!("here: {}", path.display()),
            None => "not here".to_owned(),
        });
        if !holders.is_empty() {
            let row = |holder: &ringrift_pipeline::HoldingRow| {
                let wish = if holder.offered { "would give it up" } else { "" };
                vec![holder.node.to_string(), time(holder.since_ms), wish.to_owned()]
            };
            let rows: Vec<Vec<String>> = holders.iter().map(row).collect();
            console::table(&["NODE", "SINCE", ""], &rows);
        }
        Ok(())
    })
}

fn none_or_several(digits: &str, found: &[(CopiesRow, Option<String>)]) -> String {
    if found.is_empty() {
        return format!(
            "the log names no artefact whose hash begins with {digits}: `ringrift games` and `ringrift models --json` \
             list them"
        );
    }
    let named: Vec<String> = found.iter().map(|(row, _)| shown(&row.blob)).collect();
    format!(
        "several artefacts have a hash that begins with {digits}, give more of its digits:\n{}",
        named.join("\n")
    )
}

fn shown(blob: &BlobRow) -> String {
    let bytes = bytes_text(blob.bytes);
    format!("{} {} of {} ({bytes}, fact {})", blob.hash, blob.role, blob.config, blob.position)
}
