//! How dead letters look. Source: event contract, section 9.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use courier::{DeadLetter, LetterCounts};
use serde_json::{Value, json};

use super::object;
use crate::{
    commands::{lists::time, status::PATIENCE},
    console::one_line,
    control::{Request, ask},
    data_dir::DataDir,
    exit::{Failure, NO_MANAGER},
    facts::tell,
};

/// Letters that wait, from which on that is unhealthy.
const TOO_MANY: u64 = 1000;
/// Longest error and longest body in a list, characters.
const ERROR_SHOWN: usize = 100;
const BODY_SHOWN: usize = 80;
/// Width of a rule.
const RULE: usize = 60;

/// A part of the answer: as JSON under its name, and as text under its title.
pub struct Section {
    name: &'static str,
    title: &'static str,
    value: Value,
    lines: Vec<String>,
}

/// All sections as one object.
pub fn json(sections: &[Section]) -> Value {
    sections.iter().map(|section| (section.name.to_owned(), section.value.clone())).collect()
}

/// All sections as text.
pub fn text(sections: &[Section]) -> String {
    let rule = "=".repeat(RULE);
    let texts: Vec<String> = sections
        .iter()
        .map(|s| format!("{rule}\n  {}\n{rule}\n{}", s.title, s.lines.join("\n")))
        .collect();
    texts.join("\n\n")
}

/// How many letters there are; those in `open` by topic.
pub fn stats(counts: &LetterCounts, open: &[DeadLetter]) -> Section {
    let mut by_topic: BTreeMap<String, u64> = BTreeMap::new();
    for letter in open {
        *by_topic.entry(topic_of(letter)).or_default() += 1;
    }
    let LetterCounts { pending, retrying, recovered, abandoned, .. } = *counts;
    let total = pending + retrying + recovered + abandoned;
    let rate = percent(recovered, total);
    let mut lines = vec![
        format!("Total events: {}", thousands(total)),
        format!("Pending: {}", thousands(pending)),
        format!("Retrying: {}", thousands(retrying)),
        format!("Recovered: {}", thousands(recovered)),
        format!("Abandoned: {}", thousands(abandoned)),
        format!("Recovery rate: {rate:.1}%"),
    ];
    let mut sorted: Vec<(&String, &u64)> = by_topic.iter().collect();
    sorted.sort_by_key(|(_, count)| Reverse(**count));
    if !sorted.is_empty() {
        lines.push("Events by type:".to_owned());
        lines.extend(
            sorted
                .iter()
                .map(|(topic, count)| format!("  {}: {}", one_line(topic), thousands(**count))),
        );
    }
    let value = json!({
        "total": total,
        "pending": pending,
        "retrying": retrying,
        "recovered": recovered,
        "abandoned": abandoned,
        "recovery_rate": rate / 100.0,
        "by_topic": by_topic,
        "oldest_pending": counts.oldest_pending_ms.map(time),
    });
    Section { name: "stats", title: "DLQ Statistics", value, lines }
}

/// Whether that many are healthy.
pub fn health(counts: &LetterCounts) -> Section {
    let given_up = percent(counts.abandoned, counts.recovered + counts.abandoned);
    let message = if counts.pending > TOO_MANY {
        format!("{} letters wait, more than {TOO_MANY}", counts.pending)
    } else if given_up > 50.0 {
        format!("{given_up:.0}% of what was retried is given up, more than half")
    } else {
        "few letters wait, and retries help".to_owned()
    };
    let healthy = counts.pending <= TOO_MANY && given_up <= 50.0;
    let status = if healthy { "HEALTHY" } else { "UNHEALTHY" };
    let oldest = counts.oldest_pending_ms.map_or_else(|| "N/A".to_owned(), time);
    let lines = vec![
        format!("Status: {status}"),
        format!("Message: {message}"),
        "Details:".to_owned(),
        format!("  pending: {}", counts.pending),
        format!("  oldest pending: {oldest}"),
        format!("  given up of what was retried: {given_up:.0}%"),
    ];
    let value = json!({ "healthy": healthy, "message": message, "pending": counts.pending,
        "oldest_pending": counts.oldest_pending_ms.map(time), "abandoned_share": given_up / 100.0 });
    Section { name: "health", title: "DLQ Health", value, lines }
}

/// Letters, one after the other.
pub fn list(name: &'static str, title: &'static str, letters: &[DeadLetter]) -> Section {
    let mut lines = vec![format!("{} shown", letters.len())];
    for (index, letter) in letters.iter().enumerate() {
        lines.push(String::new());
        lines.push(format!("[{}] Event ID: {}", index + 1, letter.id));
        let body = cut(&letter.fact.body.to_string(), BODY_SHOWN);
        lines
            .extend(head(letter).into_iter().map(|(label, value)| format!("    {label}: {value}")));
        lines.push(format!("    Error: {}", cut(&letter.error, ERROR_SHOWN)));
        lines.push(format!("    Payload: {body}"));
    }
    if letters.is_empty() {
        lines = vec!["No events found.".to_owned()];
    }
    let value = letters.iter().map(letter_json).collect();
    Section { name, title, value, lines }
}

/// What the daemon does that retries by itself. Without a manager it is stopped.
pub fn daemon(dir: &DataDir) -> Result<Section, Failure> {
    let status = match ask(dir, &Request::Status, PATIENCE) {
        Ok(status) => status["daemons"]["DLQ_RETRY"].clone(),
        Err(failure) if failure.code == NO_MANAGER => {
            json!({ "state": "stopped", "message": "no manager is running" })
        }
        Err(failure) => return Err(failure),
    };
    let text = |key: &str| status[key].as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0).to_string();
    let details = &status["details"];
    let lines = vec![
        format!("Status: {}", text("state").to_uppercase()),
        format!("Message: {}", one_line(&text("message"))),
        format!("Cycles: {}", number(&status["cycles"])),
        format!("Retried: {}", number(&details["retried"])),
        format!("Recovered: {}", number(&details["recovered"])),
        format!("Abandoned: {}", number(&details["abandoned"])),
    ];
    Ok(Section { name: "daemon", title: "Retry Daemon Status", value: status, lines })
}

/// All of a letter.
pub fn whole(letter: &DeadLetter) -> Result<String, fmt::Error> {
    let mut text = format!("Event ID: {}\n", letter.id);
    for (label, value) in head(letter) {
        writeln!(text, "{label}: {value}")?;
    }
    let told = tell(letter.stream, &letter.fact.body);
    writeln!(text, "State: {}", letter.state.name())?;
    writeln!(text, "Stream: {}, position {}", letter.stream.name(), letter.fact.position)?;
    writeln!(text, "Subject: {}", letter.fact.subject)?;
    writeln!(text, "Fact: {}", one_line(&letter.fact.id))?;
    writeln!(text, "Happened: {}", time(letter.fact.time_ms))?;
    writeln!(text, "Caused by: {}", letter.fact.cause.as_deref().map_or("-".into(), one_line))?;
    writeln!(text, "Says: {}", one_line(&told.sentence))?;
    writeln!(text, "Error: {}", one_line(&letter.error))?;
    write!(text, "Payload: {:#}", letter.fact.body)?;
    Ok(text)
}

/// What a list and a whole letter have in common.
fn head(letter: &DeadLetter) -> [(&'static str, String); 6] {
    [
        ("Type", one_line(&topic_of(letter))),
        ("Handler", one_line(&letter.subscriber)),
        ("Attempts", letter.attempts.to_string()),
        ("Created", time(letter.buried_ms)),
        ("Last retry", letter.retried_ms.map_or_else(|| "N/A".to_owned(), time)),
        ("Source", one_line(&letter.fact.source)),
    ]
}

/// A letter as scripts read it.
pub fn letter_json(letter: &DeadLetter) -> Value {
    Value::Object(object([
        ("id", json!(letter.id)),
        ("topic", json!(topic_of(letter))),
        ("subscriber", json!(letter.subscriber)),
        ("state", json!(letter.state)),
        ("attempts", json!(letter.attempts)),
        ("error", json!(letter.error)),
        ("buried", json!(time(letter.buried_ms))),
        ("retried", json!(letter.retried_ms.map(time))),
        ("stream", json!(letter.stream)),
        ("fact", json!(letter.fact)),
    ]))
}

/// The topic that a letter's fact claims to have.
pub fn topic_of(letter: &DeadLetter) -> String {
    letter.fact.body["topic"].as_str().unwrap_or("unknown").to_owned()
}

fn cut(text: &str, most: usize) -> String {
    let text = one_line(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most).chain("...".chars()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_are_those_of_the_contract() {
        let counts = LetterCounts { pending: 1001, recovered: 1, ..LetterCounts::default() };
        let text = text(&[stats(&counts, &[]), health(&counts)]);
        let rule = "=".repeat(60);
        let expected = format!(
            "{rule}\n  DLQ Statistics\n{rule}\nTotal events: 1,002\nPending: 1,001\nRetrying: 0\n\
             Recovered: 1\nAbandoned: 0\nRecovery rate: 0.1%\n\n{rule}\n  DLQ Health\n{rule}\n\
             Status: UNHEALTHY\nMessage: 1001 letters wait, more than 1000\nDetails:\n"
        );
        assert!(text.starts_with(&expected), "{text}");
    }

    #[test]
    fn more_given_up_than_recovered_is_unhealthy() {
        let check = |recovered, abandoned, healthy| {
            let counts = LetterCounts { recovered, abandoned, ..LetterCounts::default() };
            assert_eq!(health(&counts).value["healthy"], healthy);
        };
        check(0, 0, true);
        check(1, 1, true);
        check(1, 2, false);
    }

    #[test]
    fn large_numbers_are_grouped_and_long_texts_cut() {
        let check = |number, expected: &str| assert_eq!(thousands(number), expected);
        check(0, "0");
        check(999, "999");
        check(1000, "1,000");
        check(1_234_567, "1,234,567");
        assert_eq!(cut("ab\ncd", 100), "ab | cd");
        assert_eq!(cut(&"x".repeat(101), 100).len(), 103);
    }
}
