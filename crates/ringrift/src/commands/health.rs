//! `health`: whether daemons run well; of one daemon all that explains why it does not.

use std::fmt::Write as _;

use anyhow::anyhow;
use clap::Args;
use ringrift_daemons::{Found, find};
use serde_json::{Value, json};

use super::status::PATIENCE;
use crate::{
    cli::{Place, Print},
    config::JOB_KINDS,
    console,
    control::{
        Request, ask,
        status::{self, runs_well},
    },
    exit::{FAILED, Failure, Outcome},
    log_lines::{LogLine, Of, last},
    plan::built,
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Only this daemon, with all that explains its state
    name: Option<String>,
    /// Newest lines of its log that are shown
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, requires = "name")]
    lines: usize,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// Runs the command: exit code 1 if what was asked about does not run well.
pub fn run(args: &HealthArgs) -> Outcome {
    let id = match &args.name {
        Some(name) => Some(built(name).map_err(|sentence| Failure::usage(anyhow!(sentence)))?),
        None => None,
    };
    let dir = args.place.dir()?;
    let answer = ask(&dir, &Request::Status, PATIENCE)?;
    let Some(id) = id else { return all(&answer, args.print) };
    let daemon = &answer["daemons"][id.0];
    let well = runs_well(daemon);
    let lines = last(&dir.log(), &Of(Some(id.0.to_owned())), args.lines)?;
    let worker = match worker_kind(daemon) {
        Some(kind) => last(&dir.worker_log(kind), &Of(None), args.lines)?,
        None => Vec::new(),
    };
    let needs = needs(id.0, &answer);
    if args.print.json {
        let mut shown = daemon.clone();
        if let Some(map) = shown.as_object_mut() {
            map.insert("name".into(), json!(id));
            map.insert("well".into(), well.into());
            map.insert("status".into(), daemon["health"].clone());
            let needs = needs.iter().map(|(name, daemon)| json!({ "name": name, "state": daemon["state"], "health": daemon["health"], "cause": daemon["cause"] }));
            map.insert("needs".into(), needs.collect());
            map.insert("log".into(), lines.iter().map(LogLine::as_json).collect());
            map.insert("worker_log".into(), worker.iter().map(LogLine::as_text).collect());
        }
        console::say_json(&shown)?;
    } else {
        console::say(explain(id.0, daemon, &needs, &lines, &worker).trim_end());
    }
    if well { Ok(()) } else { Err(Failure::told(FAILED)) }
}

fn all(answer: &Value, print: Print) -> Outcome {
    let daemons = answer["daemons"].as_object().cloned().unwrap_or_default();
    let names = answer["order"].as_array().map_or(&[][..], Vec::as_slice);
    let asked: Vec<(&str, &Value)> = names
        .iter()
        .filter_map(|name| Some((name.as_str()?, daemons.get(name.as_str()?)?)))
        .filter(|(_, daemon)| daemon["asked"] == true)
        .collect();
    let ill: Vec<&str> =
        asked.iter().filter(|(_, daemon)| !runs_well(daemon)).map(|(name, _)| *name).collect();
    if print.json {
        let shown: serde_json::Map<String, Value> = asked
            .iter()
            .map(|(name, daemon)| {
                let text = json!({
                    "status": daemon["health"], "message": daemon["message"],
                    "details": daemon["details"], "state": daemon["state"],
                    "cause": daemon["cause"], "well": runs_well(daemon),
                });
                ((*name).to_owned(), text)
            })
            .collect();
        console::say_json(&json!({ "well": ill.is_empty(), "daemons": shown }))?;
    } else {
        for (name, daemon) in &asked {
            console::say(&format!("{name}: {}", status::line(daemon)));
        }
        if ill.is_empty() {
            console::say("all that were asked for run well");
        } else {
            let more = "`ringrift health NAME` says why";
            console::say(&format!("not well: {}; {more}", ill.join(", ")));
        }
    }
    if ill.is_empty() { Ok(()) } else { Err(Failure::told(FAILED)) }
}

fn needs<'a>(name: &str, answer: &'a Value) -> Vec<(&'static str, &'a Value)> {
    let Ok(Found::Active(_, entry)) = find(name) else { return Vec::new() };
    entry.spec.needs.iter().map(|need| (need.0, &answer["daemons"][need.0])).collect()
}

/// The kind of the worker that a daemon complains of: works are called `KIND-CONFIG-NUMBER`.
fn worker_kind(daemon: &Value) -> Option<&'static str> {
    let complaints = ["message", "last_error"].into_iter().filter_map(|key| daemon[key].as_str());
    let of = |complaint: &str| {
        let of = |kind: &&str| complaint.contains(&format!("{kind}-"));
        complaint.contains("worker").then(|| JOB_KINDS.into_iter().find(of))?
    };
    complaints.into_iter().find_map(of)
}

fn explain(
    name: &str,
    daemon: &Value,
    needs: &[(&str, &Value)],
    lines: &[LogLine],
    worker: &[LogLine],
) -> String {
    let mut out = format!("{name}: {}\n", status::line(daemon));
    let mut row = |head: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {head:<11} {text}");
    };
    let text = |key: &str| daemon[key].as_str();
    row("health", text("health").unwrap_or("unknown"));
    for (head, key) in [("message", "message"), ("cause", "cause"), ("last error", "last_error")] {
        // The message is one of the other two where health has nothing to say.
        let said = key == "message" && [text("cause"), text("last_error")].contains(&text(key));
        if let Some(text) = text(key).filter(|_| !said) {
            row(head, text);
        }
    }
    row("restarts", &daemon["restarts"].to_string());
    let seconds = |key: &str| daemon[key].as_f64();
    if let Some(wait) = seconds("next_retry_in_seconds") {
        row("next try", &format!("in {}", console::duration(wait)));
    }
    if let Some(up) = seconds("uptime_seconds").filter(|up| *up > 0.0) {
        row("runs for", &console::duration(up));
    }
    if let Some(age) = seconds("last_beat_age_seconds") {
        row("last beat", &format!("{} ago", console::duration(age)));
    }
    if let Some(last) = seconds("last_cycle_seconds") {
        row("cycles", &format!("{}, the last took {last:.3} s", daemon["cycles"]));
    }
    for (at, (need, daemon)) in needs.iter().enumerate() {
        let head = if at == 0 { "needs" } else { "" };
        row(head, &format!("{need}: {}", status::line(daemon)));
    }
    if let Some(details) = daemon["details"].as_object() {
        for (at, (key, value)) in details.iter().enumerate() {
            row(if at == 0 { "details" } else { "" }, &format!("{key} = {value}"));
        }
    }
    if let Some(advice) = advice(name, daemon) {
        row("what to do", &advice);
    }
    if lines.is_empty() {
        row("log", "no line of it");
    } else {
        row("log", "");
        for line in lines {
            let _ = writeln!(out, "    {}", line.as_text());
        }
    }
    if !worker.is_empty() {
        let _ = writeln!(out, "  worker      said last");
        for line in worker {
            let _ = writeln!(out, "    {}", line.as_text());
        }
    }
    out
}

/// The next step of a person, for the states that need one.
fn advice(name: &str, daemon: &Value) -> Option<String> {
    let cause = daemon["cause"].as_str().unwrap_or_default();
    Some(match daemon["state"].as_str()? {
        "stopped" => format!("`ringrift start {name}` starts it"),
        "starting" => match cause.strip_prefix("waiting for ") {
            Some(others) => {
                let first = others.split([',', ' ']).next().unwrap_or(others);
                format!("`ringrift health {first}` says what that one waits for")
            }
            None => return None,
        },
        "restarting" => {
            format!("it is tried again by itself; `ringrift retry {name}` does not wait")
        }
        "failed" => {
            format!("remove the cause of the last error, then `ringrift retry {name} --force`")
        }
        "import_failed" => format!("provide what is missing, then `ringrift retry {name} --force`"),
        "degraded" => {
            format!("it crashes too often; `ringrift retry {name}` tries it before its time")
        }
        "running" if daemon["message"].as_str().is_some_and(|text| text.starts_with("needs ")) => {
            let need = daemon["message"].as_str().unwrap_or_default().trim_start_matches("needs ");
            format!("`ringrift health {need}` says why that one does not run")
        }
        "running" if cause.starts_with("paused") && cause.contains("operator") => {
            format!("`ringrift resume {name}` takes the pause back")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_at_a_daemon_tells_state_cause_error_and_what_to_do() {
        let daemon = json!({
            "state": "failed", "health": "unhealthy", "message": "3 bad results", "cause": "given up after 5 restarts",
            "restarts": 5, "last_error": "open /x: no such file", "uptime_seconds": 0.0,
            "details": { "errors": 3 },
        });
        let needed = json!({ "state": "running", "health": "healthy" });
        let text = explain("AUTO_SYNC", &daemon, &[("EVENT_ROUTER", &needed)], &[], &[]);
        insta::assert_snapshot!(text, @"
        AUTO_SYNC: FAILED (given up after 5 restarts: open /x: no such file)
          health      unhealthy
          message     3 bad results
          cause       given up after 5 restarts
          last error  open /x: no such file
          restarts    5
          needs       EVENT_ROUTER: RUNNING (healthy)
          details     errors = 3
          what to do  remove the cause of the last error, then `ringrift retry AUTO_SYNC --force`
          log         no line of it
        ");
    }

    #[test]
    fn the_words_of_the_worker_that_failed_are_found() {
        let check = |message: &str, expected: Option<&str>| {
            assert_eq!(worker_kind(&json!({ "message": message })), expected);
        };
        check("train-hex8_2p-000002, attempt 3: the worker left with code 1", Some("train"));
        check("the mirror /mnt/train-x is not there", None);
        check("2 sync errors", None);
    }
}
