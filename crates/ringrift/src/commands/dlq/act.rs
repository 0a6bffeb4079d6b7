//! What changes dead letters: the manager does it, this asks and tells what came of it.

use std::{collections::BTreeMap, time::Duration};

use courier::{Courier, LetterFilter, LetterState};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::About;
use crate::{
    cli::Print,
    commands::{
        offline::{block_on, open_log},
        status::PATIENCE,
    },
    console,
    control::{Request, ask},
    data_dir::DataDir,
    exit::{FAILED, Failure, OrExit as _, Outcome},
};

/// Longest wait for the outcome: subscribers look for letters every few seconds.
const OUTCOME_WITHIN: Duration = Duration::from_secs(15);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What to retry.
pub struct Wish<'a> {
    /// Numbers; none = all that wait.
    pub letters: &'a [u64],
    /// Only about this topic.
    pub topic: Option<&'a str>,
    /// At most so many.
    pub most: usize,
}

/// Has letters delivered again and waits for what came of it.
pub fn retry(dir: &DataDir, wish: &Wish<'_>, print: Print) -> Outcome {
    // First of all: without a manager nothing else matters.
    ask(dir, &Request::Status, PATIENCE)?;
    let topics = block_on(async {
        let log = open_log(dir).await.or_usage()?;
        Ok(About::of(wish.topic, &log).await?.0.unwrap_or_default())
    })?;
    let request = Request::RetryLetters { letters: wish.letters.to_vec(), topics, most: wish.most };
    let answer = ask(dir, &request, PATIENCE)?;
    let sent: BTreeMap<u64, u64> = answer["sent"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|sent| Some((sent["letter"].as_u64()?, sent["attempts"].as_u64()?)))
        .collect();
    let found = answer["found"].as_u64().unwrap_or(0);
    if !print.json {
        console::say(&format!("Found {found} events to retry"));
    }
    let outcome = block_on(async {
        let log = open_log(dir).await.or_usage()?;
        Ok(outcome(&log, &sent).await?)
    })?;
    let skipped = answer["skipped"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |word: Word| outcome.values().filter(|found| **found == word).count();
    if print.json {
        let letters: Vec<Value> = outcome
            .iter()
            .map(|(letter, word)| json!({ "letter": letter, "outcome": word.text() }))
            .collect();
        console::say_json(&json!({
            "found": found,
            "attempted": outcome.len(),
            "succeeded": of(Word::Succeeded),
            "failed": of(Word::Failed),
            "unanswered": of(Word::Unanswered),
            "skipped": skipped,
            "letters": letters,
        }))?;
    } else {
        console::say(&format!("Attempted: {}", outcome.len()));
        console::say(&format!("Succeeded: {}", of(Word::Succeeded)));
        console::say(&format!("Failed: {}", of(Word::Failed)));
        console::say(&format!("Skipped: {}", skipped.len()));
        if of(Word::Unanswered) > 0 {
            console::say(&format!(
                "{} are still on their way: their subscriber has not looked; \
                 `ringrift status` tells whether it runs",
                of(Word::Unanswered)
            ));
        }
    }
    if of(Word::Failed) > 0 { Err(Failure::told(FAILED)) } else { Ok(()) }
}

/// What came of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Succeeded,
    Failed,
    Unanswered,
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Waits until each letter has been handled or failed once more than before it was sent.
async fn outcome(
    log: &Courier,
    sent: &BTreeMap<u64, u64>,
) -> Result<BTreeMap<u64, Word>, courier::Error> {
    let until = Instant::now() + OUTCOME_WITHIN;
    let mut words: BTreeMap<u64, Word> =
        sent.keys().map(|letter| (*letter, Word::Unanswered)).collect();
    loop {
        for (letter, word) in words.iter_mut().filter(|(_, word)| **word == Word::Unanswered) {
            let filter = LetterFilter { id: Some(*letter), ..LetterFilter::default() };
            // A letter that was purged in between was recovered.
            let Some(now) = log.dead_letters(filter).await?.pop() else {
                *word = Word::Succeeded;
                continue;
            };
            *word = match now.state {
                LetterState::Recovered => Word::Succeeded,
                _ if u64::from(now.attempts) > sent[letter] => Word::Failed,
                _ => Word::Unanswered,
            };
        }
        if words.values().all(|word| *word != Word::Unanswered) || Instant::now() >= until {
            return Ok(words);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes letters that are over.
pub fn purge(dir: &DataDir, days: u64, print: Print) -> Outcome {
    let older_than_seconds = days * 24 * 60 * 60;
    let answer = ask(dir, &Request::PurgeLetters { older_than_seconds }, PATIENCE)?;
    if print.json {
        console::say_json(&answer)?;
    } else {
        console::say(&format!(
            "Purged {} events that were recovered or given up and are older than {days} days",
            answer["purged"]
        ));
    }
    Ok(())
}
