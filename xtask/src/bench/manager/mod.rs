//! `bench manager`: the daemon manager beside other supervisors and beside bare tokio.
//!
//! All of one run: contenders take turns, so that they meet the same neighbours. Every process that
//! is started carries a mark and is ended by its number, whatever happens.

mod births;
mod contender;
mod figures;
mod fleet;
mod http;
mod otp;
mod ours;
mod processes;
mod supervisors;
mod table;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use figures::Row;
use supervisors::PEERS;
use table::Sheet;

use crate::workspace::Workspace;

const ROWS: &[&str] = &[
    "start", "crash", "kill", "children", "orphans", "sweep", "stop", "health", "metrics", "idle",
    "facts", "flood",
];
/// Kills of one child of each.
const ROUNDS: usize = 30;
const CHILDREN: usize = 100;

/// What is measured.
pub struct Choice {
    rows: Vec<String>,
    peers: Vec<String>,
    rounds: usize,
    as_json: bool,
}

impl Choice {
    fn read(words: &[&str]) -> Result<Self, String> {
        let known_peers: Vec<&str> = PEERS.iter().map(|kind| kind.name).chain(["otp"]).collect();
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut choice =
            Self { rows: owned(ROWS), peers: owned(&known_peers), rounds: ROUNDS, as_json: false };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word {
                "--json" => choice.as_json = true,
                "--rows" => choice.rows = names(value()?, "row", ROWS)?,
                "--peers" => choice.peers = names(value()?, "peer", &known_peers)?,
                "--rounds" => {
                    let text = value()?;
                    let rounds = text.parse().ok().filter(|rounds| (1..=CHILDREN).contains(rounds));
                    choice.rounds =
                        rounds.ok_or(format!("--rounds {text}: allowed are 1 to {CHILDREN}"))?;
                }
                _ => {
                    return Err(format!(
                        "bench manager knows no `{word}`; allowed are --rows, --peers, --rounds and --json"
                    ));
                }
            }
        }
        Ok(choice)
    }

    fn has_row(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row == name)
    }

    fn has_peer(&self, name: &str) -> bool {
        self.peers.iter().any(|peer| peer == name)
    }

    fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has_row(name))
    }
}

/// Names joined by commas; `none` is the empty list.
fn names(text: &str, what: &str, known: &[&str]) -> Result<Vec<String>, String> {
    let parts = text.split(',').filter(|name| *name != "none");
    parts
        .map(|name| {
            if known.contains(&name) {
                Ok(name.to_owned())
            } else {
                Err(format!("no {what} `{name}`; there are: {}, none", known.join(", ")))
            }
        })
        .collect()
}

/// Where a run works.
pub struct Place<'a> {
    workspace: &'a Workspace,
    /// A folder that is gone afterwards.
    home: &'a Path,
    /// The measured child.
    child: PathBuf,
    /// What all processes of this run carry.
    mark: String,
    /// How many children a supervisor gets.
    children: usize,
}

/// Prints each row when it is known, and the table at the end. Exit code 0 says that it was printed, not that every goal is met.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let choice = match Choice::read(words) {
        Ok(choice) => choice,
        Err(sentence) => {
            eprintln!("{sentence}");
            return Ok(ExitCode::from(2));
        }
    };
    let ended = processes::end_leftovers()?;
    if ended > 0 {
        eprintln!("{ended} processes of a bench that was killed are ended");
    }
    let home = tempfile::tempdir()?;
    let place = Place {
        workspace,
        home: home.path(),
        child: births::compile_child(workspace, home.path())?,
        mark: processes::run_mark()?,
        children: CHILDREN,
    };
    let mut sheet = Sheet::default();
    if choice.has_any(ours::TASKS) {
        ours::tasks(&place, &choice, &mut sheet);
    }
    if choice.has_any(&["kill", "children", "orphans", "idle"]) {
        fleet::measure(&place, &choice, &mut sheet);
    }
    if choice.has_any(&["health", "metrics", "flood", "idle"]) {
        http::measure(&place, &choice, &mut sheet);
    }
    if choice.has_row("facts") {
        ours::facts(&place, &mut sheet);
    }
    if choice.as_json {
        println!("{}", serde_json::to_string_pretty(&judged(sheet.rows()))?);
    } else {
        table::print(sheet.rows());
    }
    Ok(ExitCode::SUCCESS)
}

fn judged(rows: &[Row]) -> Vec<serde_json::Value> {
    rows.iter()
        .map(|row| {
            let mut value = serde_json::json!(row);
            value["verdict"] = serde_json::json!(row.verdict());
            value
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured_unless_somebody_chooses() {
        let choice = Choice::read(&[]).unwrap();
        assert!(choice.has_row("flood") && choice.has_peer("otp") && choice.has_peer("pm2"));
        let choice = Choice::read(&["--rows", "kill,stop", "--peers", "none"]).unwrap();
        assert!(choice.has_row("stop") && !choice.has_row("start") && choice.peers.is_empty());
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        let refused = |words: &[&str]| Choice::read(words).err().unwrap();
        assert_eq!(
            refused(&["--peers", "upstart"]),
            "no peer `upstart`; there are: runit, s6, supervisor, circus, pm2, otp, none"
        );
        assert_eq!(refused(&["--rounds", "0"]), "--rounds 0: allowed are 1 to 100");
        assert_eq!(refused(&["--rows"]), "--rows wants a value");
        assert_eq!(
            refused(&["fast"]),
            "bench manager knows no `fast`; allowed are --rows, --peers, --rounds and --json"
        );
    }
}
