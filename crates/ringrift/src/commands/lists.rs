//! `models`, `games`, `matches`: what there is, as a table or as JSON.

use clap::Args;
use ringrift_pipeline::{MatchResult, ModelRow, ModelStatus};
use serde_json::{Value, json};

use super::offline::{Offline, block_on};
use crate::{
    cli::{OfConfig, Place, Print},
    console,
    exit::Outcome,
};

/// Most rows of a list; the newest ones.
const MOST: u32 = 100_000;

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(flatten)]
    list: ListArgs,
    /// Only the champions
    #[arg(long)]
    champion: bool,
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    config: OfConfig,
    #[command(flatten)]
    print: Print,
}

/// `models`.
pub fn models(args: &ModelsArgs) -> Outcome {
    let dir = args.list.place.existing()?;
    block_on(async {
        let offline = Offline::open(&dir).await?;
        let mut models = offline.catalogue.models(args.list.config.config).await?;
        models.retain(|model| !args.champion || model.status == ModelStatus::Champion);
        if args.list.print.json {
            let list: Vec<Value> = models.iter().map(model_json).collect();
            console::say_json(&list)?;
            return Ok(());
        }
        if models.is_empty() {
            console::say("no models yet");
            return Ok(());
        }
        let rows: Vec<Vec<String>> = models
            .iter()
            .map(|model| {
                let main = model.evaluation.as_ref().and_then(|found| found.main.as_ref());
                vec![
                    model.id.to_string(),
                    status_word(model.status).to_owned(),
                    model.parent.as_ref().map_or("-".into(), ToString::to_string),
                    main.map_or("-".into(), elo_text),
                    time(model.created_ms),
                    model.verdict.clone().unwrap_or_default(),
                ]
            })
            .collect();
        console::table(
            &["MODEL", "STATUS", "PARENT", "ELO AGAINST CHAMPION", "CREATED", "VERDICT"],
            &rows,
        );
        Ok(())
    })
}

/// `games`.
pub fn games(args: &ListArgs) -> Outcome {
    let dir = args.place.existing()?;
    block_on(async {
        let offline = Offline::open(&dir).await?;
        let batches = offline.catalogue.recent_batches(args.config.config, MOST).await?;
        if args.print.json {
            let list: Vec<Value> = batches
                .iter()
                .map(|batch| {
                    json!({
                        "batch": batch.hash,
                        "config": batch.config,
                        "state": batch.state,
                        "model": batch.model,
                        "work": batch.work,
                        "games": batch.games,
                        "positions": batch.positions,
                        "seat_wins": batch.seat_wins,
                        "bytes": batch.bytes,
                        "seconds": batch.seconds,
                        "exported": batch.exported,
                        "reason": batch.reason,
                        "created": time(batch.created_ms),
                    })
                })
                .collect();
            console::say_json(&list)?;
            return Ok(());
        }
        if batches.is_empty() {
            console::say("no games yet");
            return Ok(());
        }
        let rows: Vec<Vec<String>> = batches
            .iter()
            .map(|batch| {
                vec![
                    batch.hash.as_str().chars().take(12).collect(),
                    batch.config.to_string(),
                    json!(batch.state).as_str().unwrap_or_default().to_owned(),
                    format!("{:>5}", batch.games),
                    format!("{:>9}", batch.positions),
                    batch.model.to_string(),
                    time(batch.created_ms),
                    batch.reason.clone().unwrap_or_default(),
                ]
            })
            .collect();
        let head = ["BATCH", "CONFIG", "STATE", "GAMES", "POSITIONS", "MODEL", "CREATED", "REASON"];
        console::table(&head, &rows);
        let sum: u64 = batches.iter().map(|batch| u64::from(batch.games)).sum();
        console::say(&format!("{sum} games in {} batches", batches.len()));
        Ok(())
    })
}

/// `matches`.
pub fn matches(args: &ListArgs) -> Outcome {
    let dir = args.place.existing()?;
    block_on(async {
        let offline = Offline::open(&dir).await?;
        let matches = offline.catalogue.matches(args.config.config, MOST).await?;
        if args.print.json {
            let list: Vec<Value> = matches
                .iter()
                .map(|played| {
                    let mut row = json!(played.result);
                    if let Some(row) = row.as_object_mut() {
                        row.insert("id".into(), json!(played.id));
                        row.insert("config".into(), json!(played.config));
                        row.insert("records".into(), json!(played.records));
                        row.insert("created".into(), json!(time(played.created_ms)));
                    }
                    row
                })
                .collect();
            console::say_json(&list)?;
            return Ok(());
        }
        if matches.is_empty() {
            console::say("no matches yet");
            return Ok(());
        }
        let rows: Vec<Vec<String>> = matches
            .iter()
            .map(|played| {
                let result = &played.result;
                vec![
                    result.a.clone(),
                    result.b.clone(),
                    format!("{:>5}", result.games),
                    format!("{:.3}", result.score),
                    elo_text(result),
                    json!(result.decision).as_str().unwrap_or("fixed length").replace('_', " "),
                    time(played.created_ms),
                ]
            })
            .collect();
        console::table(&["A", "B", "GAMES", "SCORE", "ELO OF A", "TEST", "PLAYED"], &rows);
        Ok(())
    })
}

/// A model as scripts read it. Source: decisions, "Commands", JSON contracts.
pub fn model_json(model: &ModelRow) -> Value {
    let gauntlet = model.evaluation.as_ref().map(|found| {
        json!({
            "against": found.against,
            "main": found.main,
            "guard": found.guard,
            "heuristic": found.heuristic,
            "fault": found.fault,
        })
    });
    json!({
        "id": model.id,
        "config": model.config,
        "generation": model.generation,
        "parent": model.parent,
        "status": model.status,
        "created": time(model.created_ms),
        "weights": model.weights,
        "bytes": model.bytes,
        "verdict": model.verdict,
        "gauntlet": gauntlet,
    })
}

fn status_word(status: ModelStatus) -> &'static str {
    match status {
        ModelStatus::Candidate => "candidate",
        ModelStatus::Champion => "champion",
        ModelStatus::Former => "former",
        ModelStatus::Rejected => "rejected",
    }
}

/// Elo with the ends of its interval.
pub fn elo_text(result: &MatchResult) -> String {
    format!("{:+.0} ({:+.0} to {:+.0})", result.elo, result.elo_low, result.elo_high)
}

/// A time in UTC, to the second.
pub fn time(ms: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}
