//! `rules verify`: published vectors of every kind.

use std::{collections::BTreeMap, path::Path, path::PathBuf};

use anyhow::anyhow;
use clap::Args;
use ringrift_player::check_heuristic;
use ringrift_rules::{
    binary::decode,
    corpus::Replayer,
    vectors::{Checked, Outcomes, Source, Verdict, check, check_line},
};
use serde_json::{Value, json};

use super::input::{Content, Found, Lines, files, open};
use crate::{
    cli::Print,
    console,
    exit::{FAILED, Failure, OrExit as _, Outcome},
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Files of vectors, or folders of them; `ts_outcomes.json` beside or above them is read too
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    print: Print,
}

/// What was judged, and what cannot be read.
#[derive(Debug, Default)]
struct Findings {
    checked: Vec<(PathBuf, Checked)>,
    faults: Vec<String>,
    quiet: bool,
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> Outcome {
    let found = files(&args.paths).or_usage()?;
    let mut findings = Findings { quiet: args.print.json, ..Findings::default() };
    let outcomes = outcomes(&found);
    for file in &found {
        findings.file(file, &outcomes);
    }
    console::status("");
    if findings.checked.is_empty() && findings.faults.is_empty() {
        let paths: Vec<String> = args.paths.iter().map(|p| p.display().to_string()).collect();
        return Err(Failure::usage(anyhow!("no vector lies in {}", paths.join(", "))));
    }
    if args.print.json {
        console::say_json(&findings.json())?;
    } else {
        findings.print();
    }
    if findings.failed().next().is_some() || !findings.faults.is_empty() {
        return Err(Failure::told(FAILED));
    }
    Ok(())
}

/// What the reference did: every file of outcomes among the files, and those above them.
fn outcomes(found: &[Found]) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut folders: Vec<&Path> = Vec::new();
    for file in found {
        // A vector in a folder of its kind has the outcomes one folder up; bundles lie deeper.
        let above = file.path.ancestors().skip(1).take(3);
        for folder in above {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    for folder in folders {
        // One that cannot be read is named when it is met as a file itself.
        if let Ok(Content::Json(value)) = open(&folder.join("ts_outcomes.json")) {
            outcomes.absorb(&value);
        }
    }
    for file in found {
        if let Ok(Content::Json(value)) = open(&file.path) {
            outcomes.absorb(&value);
        }
    }
    outcomes
}

/// Lists that stand beside the vectors: what the reference did, which ids there are.
fn is_index(value: &Value) -> bool {
    let lists_of_text =
        |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    Outcomes::default().absorb(value)
        || value.as_object().is_some_and(|object| {
            object.values().any(lists_of_text)
                && object
                    .values()
                    .all(|value| lists_of_text(value) || !value.is_array() && !value.is_object())
        })
}

impl Findings {
    fn file(&mut self, file: &Found, outcomes: &Outcomes) {
        let path = &file.path;
        if !self.quiet {
            console::status(&format!("{} vectors, {}", self.checked.len(), path.display()));
        }
        let result = match open(path) {
            Ok(Content::Json(value)) => self.value(file, &value, outcomes),
            Ok(Content::Lines(lines)) => self.lines(file, lines),
            Ok(Content::Record(bytes)) => {
                // Nothing to judge but itself: it replays, or it is refused.
                decode(&bytes).map_err(anyhow::Error::from).map(|record| {
                    let one = Checked {
                        kind: "game records",
                        id: record.id,
                        verdict: Verdict::Passed,
                        note: format!("{} moves", record.moves.len()),
                    };
                    self.checked.push((path.clone(), one));
                })
            }
            Ok(Content::Other) if file.named => Err(anyhow!("it is no JSON")),
            Ok(Content::Other) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.faults.push(format!("{}: {error:#}", path.display()));
        }
    }

    fn value(&mut self, file: &Found, value: &Value, outcomes: &Outcomes) -> anyhow::Result<()> {
        let name = |part: Option<&std::ffi::OsStr>| {
            part.unwrap_or_default().to_string_lossy().into_owned()
        };
        let source = Source {
            folder: name(file.path.parent().and_then(Path::file_name)),
            stem: name(file.path.file_stem()),
        };
        // A file of lines may have a single one; its position alone would pass for a snapshot.
        if let Some(one) = check_line(value, &check_heuristic) {
            self.checked.push((file.path.clone(), one));
        } else if let Some(checked) = check(value, &source, outcomes) {
            self.checked.extend(checked.into_iter().map(|one| (file.path.clone(), one)));
        } else if file.named && !is_index(value) {
            return Err(anyhow!("it is no vector of a known kind"));
        }
        Ok(())
    }

    fn lines(&mut self, file: &Found, mut lines: Lines) -> anyhow::Result<()> {
        let mut replayer = Replayer::new();
        let mut games = 0u64;
        while let Some(value) = lines.next()? {
            if let Some(one) = check_line(&value, &check_heuristic) {
                self.checked.push((file.path.clone(), one));
                continue;
            }
            let is_game = value["kind"].is_string() || games > 0;
            if !is_game {
                anyhow::bail!("line {}: it is no vector of a known kind", lines.number());
            }
            games += u64::from(value["kind"] == "game");
            let before = replayer.tally().games;
            let fed = replayer.feed(value);
            let verdict = match fed {
                Err(parted) => {
                    Verdict::Failed { reason: parted.to_string(), board: parted.board.clone() }
                }
                Ok(()) if replayer.tally().games > before => Verdict::Passed,
                Ok(()) => continue,
            };
            let id = format!("game {games}");
            self.checked.push((
                file.path.clone(),
                Checked { kind: "games", id, verdict, note: String::new() },
            ));
        }
        replayer.close().map_err(|parted| anyhow!("line {}: {parted}", lines.number()))
    }

    fn failed(&self) -> impl Iterator<Item = (&Path, &Checked)> {
        self.checked.iter().filter_map(|(path, one)| {
            matches!(one.verdict, Verdict::Failed { .. }).then_some((path.as_path(), one))
        })
    }

    /// By kind: passed, failed, not applicable.
    fn tally(&self) -> BTreeMap<&'static str, [u64; 3]> {
        let mut tally: BTreeMap<&'static str, [u64; 3]> = BTreeMap::new();
        for (_, one) in &self.checked {
            let column = match one.verdict {
                Verdict::Passed => 0,
                Verdict::Failed { .. } => 1,
                Verdict::NotApplicable { .. } => 2,
            };
            tally.entry(one.kind).or_default()[column] += 1;
        }
        tally
    }

    fn json(&self) -> Value {
        let kinds: BTreeMap<&str, Value> = self
            .tally()
            .into_iter()
            .map(|(kind, [passed, failed, not_applicable])| {
                let counts = json!({
                    "passed": passed, "failed": failed, "not_applicable": not_applicable,
                });
                (kind, counts)
            })
            .collect();
        let vectors: Vec<Value> = self
            .checked
            .iter()
            .map(|(path, one)| {
                let (verdict, reason, board) = match &one.verdict {
                    Verdict::Passed => ("passed", one.note.as_str(), ""),
                    Verdict::Failed { reason, board } => {
                        ("failed", reason.as_str(), board.as_str())
                    }
                    Verdict::NotApplicable { reason } => ("not_applicable", reason.as_str(), ""),
                };
                let mut value = json!({
                    "file": path, "kind": one.kind, "id": one.id, "verdict": verdict,
                    "reason": reason,
                });
                if !board.is_empty() {
                    value["board"] = board.into();
                }
                value
            })
            .collect();
        json!({ "kinds": kinds, "vectors": vectors, "faults": self.faults })
    }

    fn print(&self) {
        let number = |count: u64| format!("{count:>6}");
        let rows: Vec<Vec<String>> = self
            .tally()
            .into_iter()
            .map(|(kind, counts)| {
                std::iter::once(kind.to_owned()).chain(counts.map(number)).collect()
            })
            .collect();
        console::table(&["kind", "passed", "failed", "not applicable"], &rows);
        let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for (_, one) in &self.checked {
            if let Verdict::NotApplicable { reason } = &one.verdict {
                reasons.entry((one.kind, reason)).or_default().push(&one.id);
            }
        }
        for ((kind, reason), ids) in reasons {
            let which =
                if let [only] = ids[..] { only.to_owned() } else { format!("{} times", ids.len()) };
            console::say(&format!("not applicable, {kind}, {which}: {reason}"));
        }
        for (path, one) in self.failed() {
            let Verdict::Failed { reason, board } = &one.verdict else { continue };
            console::say(&format!("failed, {}, {} {}: {reason}", path.display(), one.kind, one.id));
            if !board.is_empty() {
                console::say(board.trim_end());
            }
        }
        for fault in &self.faults {
            console::say(&format!("unreadable, {fault}"));
        }
    }
}
