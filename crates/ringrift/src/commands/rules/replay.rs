//! `rules replay`: recorded games, compared position by position.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use ringrift_player::check_heuristic;
use ringrift_rules::{
    binary::decode,
    corpus::{Divergence, Replayer, Tally},
    record::{GameRecord, ReplayError, replay},
    vectors::{Checked, Verdict, check_line},
};
use serde_json::{Value, json};

use super::input::{Content, Lines, files, open};
use crate::{
    cli::Print,
    console,
    exit::{FAILED, Failure, OrExit as _, Outcome},
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Files of recorded games: JSON lines, gzipped or not, or binary records
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    print: Print,
}

/// What became of one file.
struct Replayed {
    path: PathBuf,
    tally: Tally,
    /// Vectors that stand in the file, as cases of victory.
    vectors: u64,
    /// Why it could not be read to its end.
    fault: Option<String>,
    first: Option<Divergence>,
}

/// Runs the command.
pub fn run(args: &ReplayArgs) -> Outcome {
    let mut all = Vec::new();
    for file in files(&args.files).or_usage()? {
        let (path, tally) = (file.path, Tally::default());
        let mut done = Replayed { path, tally, vectors: 0, fault: None, first: None };
        if let Err(error) = done.read(args.print.json) {
            done.fault = Some(format!("{error:#}"));
        }
        if !args.print.json {
            console::status("");
            done.print();
        }
        all.push(done);
    }
    let sum = |count: fn(&Tally) -> u64| all.iter().map(|done| count(&done.tally)).sum::<u64>();
    let faults = all.iter().filter(|done| done.fault.is_some()).count();
    if args.print.json {
        console::say_json(&json!({
            "files": all.iter().map(Replayed::json).collect::<Vec<_>>(),
            "games": sum(|t| t.games), "moves": sum(|t| t.moves), "failed": sum(|t| t.failed),
            "lists": sum(|t| t.lists), "faults": faults,
        }))?;
    } else {
        console::say(&format!(
            "{} games with {} moves and {} whole legal lists agree, {} part, {faults} files are \
             unreadable",
            sum(|t| t.games),
            sum(|t| t.moves),
            sum(|t| t.lists),
            sum(|t| t.failed),
        ));
    }
    if faults > 0 || sum(|tally| tally.failed) > 0 {
        return Err(Failure::told(FAILED));
    }
    Ok(())
}

impl Replayed {
    fn read(&mut self, quiet: bool) -> anyhow::Result<()> {
        match open(&self.path)? {
            Content::Json(value) => self.one(&value),
            Content::Lines(lines) => self.lines(lines, quiet),
            Content::Record(bytes) => {
                let record = decode(&bytes)?;
                self.record(&record);
                Ok(())
            }
            Content::Other => bail!("it holds no recorded game: it is no JSON"),
        }
    }

    fn lines(&mut self, mut lines: Lines, quiet: bool) -> anyhow::Result<()> {
        let mut replayer = Replayer::new();
        let mut any_game = false;
        let path = self.path.clone();
        while let Some(value) = lines.next()? {
            let number = lines.number();
            if !quiet && number.is_multiple_of(500) {
                progress(&path, number);
            }
            if let Some(record) = own_record(&value) {
                self.record(&record.with_context(|| format!("line {number}"))?);
                continue;
            }
            // The folder of games holds cases of victory and the like beside them.
            if let Some(vector) = check_line(&value, &check_heuristic) {
                self.vector(&vector, number);
                continue;
            }
            any_game |= value["kind"] == "game";
            if !any_game {
                bail!("line {number}: it is no recorded game");
            }
            let fed = replayer.feed(value);
            self.part(fed, number);
        }
        self.part(replayer.close(), lines.number());
        self.add(replayer.tally());
        Ok(())
    }

    fn one(&mut self, value: &Value) -> anyhow::Result<()> {
        let record = own_record(value).ok_or_else(|| anyhow!("it is no recorded game"))??;
        self.record(&record);
        Ok(())
    }

    /// A game of our own: every move, and the result.
    fn record(&mut self, record: &GameRecord) {
        match replay(record) {
            Ok(_) => {
                let moves = record.moves.len() as u64;
                self.add(Tally { games: 1, moves, ..Tally::default() });
            }
            Err(error) => {
                let parted = divergence(record, &error);
                self.first.get_or_insert(parted);
                self.add(Tally { failed: 1, ..Tally::default() });
            }
        }
    }

    /// A vector among games: `rules verify` has more to say of it.
    fn vector(&mut self, vector: &Checked, line: usize) {
        self.vectors += 1;
        if let Verdict::Failed { reason, board } = &vector.verdict {
            let parted = Divergence {
                game: vector.id.clone(),
                place: format!("line {line}"),
                reason: reason.clone(),
                board: board.clone(),
            };
            self.first.get_or_insert(parted);
            self.add(Tally { failed: 1, ..Tally::default() });
        }
    }

    fn part(&mut self, fed: Result<(), Divergence>, line: usize) {
        if let Err(mut parted) = fed {
            parted.place = format!("line {line}, {}", parted.place);
            self.first.get_or_insert(parted);
        }
    }

    fn add(&mut self, more: Tally) {
        self.tally.games += more.games;
        self.tally.moves += more.moves;
        self.tally.failed += more.failed;
        self.tally.lists += more.lists;
    }

    fn print(&self) {
        let Tally { games, failed, moves, .. } = self.tally;
        let name = self.path.display();
        if games + failed > 0 || self.vectors == 0 {
            console::say(&format!("{name}: {games} games, {moves} moves, {failed} part"));
        } else {
            let vectors = self.vectors;
            console::say(&format!("{name}: no games, {vectors} vectors for `rules verify`"));
        }
        if let Some(fault) = &self.fault {
            console::say(&format!("unreadable, {name}: {fault}"));
        }
        if let Some(parted) = &self.first {
            console::say(&format!("first divergence, {name}: {parted}"));
            console::say(parted.board.trim_end());
        }
    }

    fn json(&self) -> Value {
        let first = self.first.as_ref().map(|parted| {
            json!({
                "game": parted.game, "place": parted.place, "reason": parted.reason,
                "board": parted.board,
            })
        });
        json!({
            "file": self.path, "games": self.tally.games, "moves": self.tally.moves,
            "failed": self.tally.failed, "lists": self.tally.lists, "vectors": self.vectors,
            "fault": self.fault,
            "first_divergence": first,
        })
    }
}

/// A game as self-play stores it, or its record alone; `None` if it is neither.
fn own_record(value: &Value) -> Option<anyhow::Result<GameRecord>> {
    let record = if value["record"].is_object() { &value["record"] } else { value };
    let is_record = record["config"].is_string() && record["moves"].is_array();
    is_record.then(|| Ok(serde_json::from_value(record.clone())?))
}

/// The position before the move at fault.
fn divergence(record: &GameRecord, error: &ReplayError) -> Divergence {
    let mut before = record.clone();
    before.moves.truncate(error.move_number().saturating_sub(1));
    before.result = None;
    let board = match replay(&before) {
        Ok(state) => state.render(),
        Err(_) => String::new(),
    };
    let place = format!("move {}", error.move_number());
    Divergence { game: record.id.clone(), place, reason: error.to_string(), board }
}

fn progress(path: &Path, line: usize) {
    console::status(&format!("{}: line {line}", path.display()));
}
