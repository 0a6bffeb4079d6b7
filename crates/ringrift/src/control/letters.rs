//! Dead letters, as an operator has them delivered again or removed.

use courier::{Courier, DeadLetter, LetterFilter, LetterState};
use serde_json::{Value, json};
use tracing::info;

use super::Answer;
use crate::state::State;

/// Letters that one request looks at; more than a thousand are an alarm long before.
const MOST_LISTED: usize = 100_000;

/// Marks letters for their next delivery; their subscriber finds them when it looks next.
///
/// Asked twice, the second time does nothing: what is on its way or recovered is left alone.
pub async fn retry(state: &State, wanted: &[u64], topics: &[String], most: usize) -> Answer {
    match send(state, wanted, topics, most).await {
        Ok(answer) => answer,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

async fn send(
    state: &State,
    wanted: &[u64],
    topics: &[String],
    most: usize,
) -> Result<Answer, courier::Error> {
    let log = state.catalogue.log();
    let letters = if wanted.is_empty() {
        let filter = LetterFilter {
            state: Some(LetterState::Pending),
            limit: MOST_LISTED,
            ..LetterFilter::default()
        };
        let mut waiting = log.dead_letters(filter).await?;
        waiting.reverse();
        waiting
    } else {
        match named(log, wanted).await? {
            Ok(letters) => letters,
            Err(sentence) => return Ok(Answer::Refused(sentence)),
        }
    };
    let is_meant = |letter: &&DeadLetter| {
        topics.is_empty() || topics.iter().any(|topic| letter.fact.body["topic"] == **topic)
    };
    let letters: Vec<&DeadLetter> = letters.iter().filter(is_meant).collect();
    let (mut sent, mut skipped): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for letter in &letters {
        let reason = match letter.state {
            LetterState::Retrying => "it is on its way already",
            LetterState::Recovered => "it was handled already",
            _ if sent.len() >= most => "it is more than were asked for",
            LetterState::Pending | LetterState::Abandoned => {
                log.retry(letter.id, None, state.clock.now_ms()).await?;
                sent.push(json!({ "letter": letter.id, "attempts": letter.attempts }));
                continue;
            }
        };
        skipped.push(json!({ "letter": letter.id, "reason": reason }));
    }
    info!(sent = sent.len(), "dead letters are delivered again");
    Ok(Answer::Ok(json!({ "found": letters.len(), "sent": sent, "skipped": skipped })))
}

/// The letters with these numbers, or which one does not exist.
async fn named(
    log: &Courier,
    wanted: &[u64],
) -> Result<Result<Vec<DeadLetter>, String>, courier::Error> {
    let mut letters = Vec::new();
    for id in wanted {
        let filter = LetterFilter { id: Some(*id), ..LetterFilter::default() };
        let Some(letter) = log.dead_letters(filter).await?.pop() else {
            return Ok(Err(format!(
                "no dead letter has the number {id}; `ringrift dlq` lists them"
            )));
        };
        letters.push(letter);
    }
    Ok(Ok(letters))
}

/// Removes letters that are over.
pub async fn purge(state: &State, older_than_seconds: u64) -> Answer {
    let age = i64::try_from(older_than_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    match state.catalogue.log().purge_letters(None, state.clock.now_ms().saturating_sub(age)).await
    {
        Ok(purged) => {
            info!(purged, "dead letters that are over are removed");
            Answer::Ok(json!({ "purged": purged }))
        }
        Err(error) => Answer::Failed(error.to_string()),
    }
}
