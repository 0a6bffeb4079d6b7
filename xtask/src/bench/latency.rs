//! `latency`: how long the loop of a real manager leaves things lying, read from its own facts.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

use crate::workspace::{Workspace, capture, succeed};

/// Facts that are read at most; a run of a few promotions has some thousands.
const MOST: &str = "1000000";

/// What is measured, and the goal in seconds. Source: spec/learning.md, T4.
const ROWS: [(&str, f64); 4] = [
    ("last games of a window safe -> its training runs", 20.0),
    ("candidate made -> decided", 60.0),
    ("promoted -> handed to this node's workers", 2.0),
    ("promoted -> a worker begins to play with it", 2.0),
];

/// Gets at most a config and a number of promotions.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let (config, promotions) = match words {
        [] => ("square8_2p", 3),
        [config] => (*config, 3),
        [config, count] if count.parse::<u32>().is_ok_and(|count| count > 0) => {
            (*config, count.parse()?)
        }
        _ => {
            eprintln!("usage: cargo xtask bench latency [CONFIG [PROMOTIONS]]");
            return Ok(ExitCode::from(2));
        }
    };
    succeed(workspace.cargo(&["build", "--release", "--package", "ringrift"]))?;
    let data = tempfile::tempdir()?;
    let ringrift = workspace.root().join("target/release/ringrift");
    let program = |words: &[&str]| {
        let mut command = workspace.command(&ringrift);
        command.args(words).arg("--data").arg(data.path());
        command
    };
    let goal = format!("promotions>={promotions}");
    let up = ["up", "--configs", config, "--port", "0", "--until", &goal, "--timeout", "20m"];
    succeed(program(&up))?;
    let text = capture(program(&["events", "--json", "--after", "0", "--limit", MOST]))?;
    let facts: Vec<Value> = serde_json::from_str(&text).context("read the facts")?;
    for line in table(&measured(&facts)) {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Seconds of each row.
fn measured(facts: &[Value]) -> [Vec<f64>; 4] {
    let mut found: [Vec<f64>; 4] = Default::default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // When things happened, ms.
    let mut safe: BTreeMap<String, i64> = BTreeMap::new();
    let mut complete: BTreeMap<String, i64> = BTreeMap::new();
    let mut windows: BTreeMap<String, i64> = BTreeMap::new();
    let mut claimed: BTreeMap<String, i64> = BTreeMap::new();
    let mut made: BTreeMap<String, i64> = BTreeMap::new();
    let mut plays: BTreeMap<String, String> = BTreeMap::new();
    // Promoted, and not handed out or played with yet.
    let (mut to_hand, mut to_play) = (BTreeMap::new(), BTreeMap::new());
    for fact in facts {
        let (body, at) = (&fact["body"], fact["time_ms"].as_i64().unwrap_or_default());
        let latest = |of: &Value, times: &BTreeMap<String, i64>| {
            let names = of.as_array().into_iter().flatten();
            names.filter_map(|name| times.get(name.as_str()?).copied()).max().unwrap_or(at)
        };
        let mut since = |row: usize, began: Option<i64>| {
            let passed = began.map(|began| std::time::Duration::from_millis(at.abs_diff(began)));
            found[row].extend(passed.map(|passed| passed.as_secs_f64()));
        };
        match fact["topic"].as_str().unwrap_or_default() {
            "games.committed" => {
                safe.insert(text(&body["batch"]), at);
            }
            "samples.exported" => {
                complete.insert(text(&body["samples"]), latest(&body["batches"], &safe));
            }
            "samples.combined" => {
                windows.insert(text(&body["window"]), latest(&body["samples"], &complete));
            }
            "work.queued" => {
                let work = text(&body["work"]);
                let job = &body["job"];
                if job["kind"] == "selfplay" {
                    plays.insert(work, text(&job["model"]["id"]));
                }
            }
            "work.claimed" => {
                let work = text(&body["work"]);
                if let Some(model) = plays.get(&work) {
                    since(3, to_play.remove(model));
                }
                claimed.insert(work, at);
            }
            "training.completed" => {
                let began = claimed.get(&text(&body["work"]));
                let ready = windows.get(&text(&body["window"]));
                if let (Some(began), Some(ready)) = (began, ready) {
                    let waited = std::time::Duration::from_millis(began.abs_diff(*ready));
                    found[0].push(waited.as_secs_f64());
                }
            }
            "model.created" if body["generation"] != 0 => {
                made.insert(text(&body["model"]), at);
            }
            "model.accepted" | "model.rejected" => since(1, made.remove(&text(&body["model"]))),
            "model.promoted" => {
                to_hand.insert(text(&body["model"]), at);
                to_play.insert(text(&body["model"]), at);
            }
            "model.distributed" => since(2, to_hand.remove(&text(&body["model"]))),
            _ => {}
        }
    }
    found
}

fn table(found: &[Vec<f64>; 4]) -> Vec<String> {
    let mut lines =
        vec![format!("{:<50} {:>8} {:>8} {:>6}  {}", "row", "median s", "worst s", "n", "goal")];
    for ((name, goal), seconds) in ROWS.iter().zip(found) {
        let mut seconds = seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let Some(worst) = seconds.last() else {
            lines.push(format!("{name:<50} {:>8} {:>8} {:>6}  < {goal} s", "-", "-", 0));
            continue;
        };
        let met = if worst < goal { "met" } else { "NOT met" };
        lines.push(format!(
            "{name:<50} {:>8.2} {worst:>8.2} {:>6}  < {goal} s {met} in the worst case",
            seconds[seconds.len() / 2],
            seconds.len()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn waits_are_read_from_the_facts() {
        let fact = |at: i64, topic: &str, body: Value| json!({ "time_ms": at, "topic": topic, "body": body });
        let selfplay = |model: &str| json!({ "kind": "selfplay", "model": { "id": model } });
        let facts = [
            fact(1_000, "games.committed", json!({ "batch": "a" })),
            fact(4_000, "games.committed", json!({ "batch": "b" })),
            fact(5_000, "samples.exported", json!({ "samples": "s", "batches": ["a", "b"] })),
            fact(6_000, "samples.combined", json!({ "window": "w", "samples": ["s"] })),
            fact(9_500, "work.claimed", json!({ "work": "train" })),
            fact(20_000, "training.completed", json!({ "work": "train", "window": "w" })),
            fact(20_000, "model.created", json!({ "model": "m1", "generation": 1 })),
            fact(27_000, "model.accepted", json!({ "model": "m1" })),
            fact(27_000, "model.promoted", json!({ "model": "m1" })),
            fact(27_250, "model.distributed", json!({ "model": "m1" })),
            fact(27_500, "work.queued", json!({ "work": "old", "job": selfplay("m0") })),
            fact(27_500, "work.queued", json!({ "work": "new", "job": selfplay("m1") })),
            fact(28_000, "work.claimed", json!({ "work": "old" })),
            fact(28_500, "work.claimed", json!({ "work": "new" })),
        ];
        let found = measured(&facts);
        assert_eq!(found, [vec![5.5], vec![7.0], vec![0.25], vec![1.5]]);
        let lines = table(&found);
        assert!(
            lines[1].ends_with("5.50     5.50      1  < 20 s met in the worst case"),
            "{lines:?}"
        );
    }
}
