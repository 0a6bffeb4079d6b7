//! Claims about subscribers and dead letters.

use std::sync::Arc;

use super::{Fixture, NOW, Verdict, Violation, claim, fact, fill, refused, same};
use crate::courier::Courier;
use crate::dead::{LetterFilter, LetterState, NewLetter};
use crate::error::Error;
use crate::fact::{Fact, Stream};
use crate::subscriber::{Failed, Subscriber};

const PIPELINE: Stream = Stream::Pipeline;

fn letter(position: u64) -> NewLetter {
    NewLetter {
        subscriber: "me".to_owned(),
        stream: PIPELINE,
        position,
        error: "no".to_owned(),
        attempts: 3,
    }
}

fn ids(facts: &[Arc<Fact>]) -> Vec<&str> {
    facts.iter().map(|fact| fact.id.as_str()).collect()
}

/// A smaller position than the one reached is ignored.
pub async fn positions_of_subscribers_never_go_back(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    same!(log.position(PIPELINE, "me").await?, 0);
    log.advance(PIPELINE, "me", 5).await?;
    log.advance(PIPELINE, "me", 3).await?;
    same!(log.position(PIPELINE, "me").await?, 5);
    same!(log.position(PIPELINE, "you").await?, 0);
    Ok(())
}

/// By stream and name; a subscriber exists once it has a position.
pub async fn every_subscriber_is_listed_with_what_it_has_to_do(
    fixture: &mut impl Fixture,
) -> Verdict {
    let log = fixture.courier();
    same!(log.standings().await?, vec![]);
    let positions = fill(&log, "s", &["1", "2", "3"]).await?;
    log.advance(PIPELINE, "b", positions[1]).await?;
    log.advance(PIPELINE, "a", positions[2]).await?;
    log.advance(Stream::Operational, "a", 0).await?;
    let found: Vec<_> = log
        .standings()
        .await?
        .iter()
        .map(|standing| (standing.stream, standing.subscriber.clone(), standing.lag()))
        .collect();
    let last = positions[2] - positions[1];
    same!(
        found,
        vec![
            (PIPELINE, "a".to_owned(), 0),
            (PIPELINE, "b".to_owned(), last),
            (Stream::Operational, "a".to_owned(), 0),
        ]
    );
    Ok(())
}

/// `a.b` takes `a.b` and `a.b.c`, not `a.bc`, and no character has a special meaning.
pub async fn a_filter_is_whole_tokens(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    for (id, subject) in
        [("1", "a.b"), ("2", "a.bc"), ("3", "a.b.c"), ("4", "a"), ("5", "a_b"), ("6", "A.b")]
    {
        fill(&log, subject, &[id]).await?;
    }
    drop(log);
    // What was just appended, and what an earlier life did: an engine may read them from two places.
    for life in ["first", "second"] {
        let log = fixture.courier();
        filtered(&log, life).await?;
        drop(log);
        fixture.reopen().await?;
    }
    Ok(())
}

async fn filtered(log: &Courier, life: &str) -> Verdict {
    for (prefix, expected) in [
        ("", vec!["1", "2", "3", "4", "5", "6"]),
        ("a.b", vec!["1", "3"]),
        ("a", vec!["1", "2", "3", "4"]),
        ("a%", vec![]),
        ("a_b", vec!["5"]),
        ("A", vec!["6"]),
        ("x", vec![]),
    ] {
        let page = log.next(PIPELINE, 0, prefix, 10).await?;
        claim!(ids(&page.facts) == expected, "{life}: {prefix:?} gives {:?}", ids(&page.facts));
    }
    Ok(())
}

/// Up to the last fact of a full page, up to the head after one that is not full.
pub async fn a_page_says_how_far_it_looked(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let wanted = fill(&log, "want", &["1", "2", "3"]).await?;
    let rest = fill(&log, "rest", &["4", "5"]).await?;
    drop(log);
    for _life in [1, 2] {
        let log = fixture.courier();
        paged(&log, &wanted, &rest).await?;
        drop(log);
        fixture.reopen().await?;
    }
    Ok(())
}

async fn paged(log: &Courier, wanted: &[u64], rest: &[u64]) -> Verdict {
    let page = log.next(PIPELINE, 0, "want", 2).await?;
    same!((ids(&page.facts), page.through), (vec!["1", "2"], wanted[1]));
    let page = log.next(PIPELINE, page.through, "want", 2).await?;
    same!((ids(&page.facts), page.through), (vec!["3"], rest[1]));
    let page = log.next(PIPELINE, page.through, "want", 2).await?;
    same!((page.facts, page.through), (vec![], rest[1]));
    Ok(())
}

/// From 1 for each new fact, durable, and one subscriber's count is not another's.
pub async fn attempts_are_counted_for_the_fact_in_hand(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    same!(log.attempt(PIPELINE, "me", 7).await?, 1);
    same!(log.attempt(PIPELINE, "me", 7).await?, 2);
    same!(log.attempt(PIPELINE, "you", 7).await?, 1);
    drop(log);
    fixture.reopen().await?;
    let log = fixture.courier();
    same!(log.attempt(PIPELINE, "me", 7).await?, 3);
    same!(log.attempt(PIPELINE, "me", 8).await?, 1);
    same!(log.position(PIPELINE, "me").await?, 0);
    Ok(())
}

/// The letter has a copy of the fact, and the subscriber goes on behind it.
pub async fn a_buried_fact_is_a_letter_and_is_passed_over(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let positions = fill(&log, "s.t", &["1", "2"]).await?;
    let id = log.bury(letter(positions[0]), NOW).await?;
    same!(log.position(PIPELINE, "me").await?, positions[0]);
    let letters = log.dead_letters(LetterFilter::default()).await?;
    same!(letters.len(), 1);
    let first = &letters[0];
    same!((first.id, first.state, first.attempts), (id, LetterState::Pending, 3));
    same!((first.error.as_str(), first.buried_ms, first.retried_ms), ("no", NOW, None));
    same!(vec![first.fact.clone()], log.read(PIPELINE, 0, 1).await?);
    Ok(())
}

/// Else a subscriber that crashes while it buries would leave two.
pub async fn burying_twice_is_one_letter(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let positions = fill(&log, "s", &["1"]).await?;
    let first = log.bury(letter(positions[0]), NOW).await?;
    let second = log.bury(NewLetter { attempts: 9, ..letter(positions[0]) }, NOW + 1).await?;
    same!(first, second);
    let letters = log.dead_letters(LetterFilter::default()).await?;
    same!(letters.iter().map(|l| l.attempts).collect::<Vec<_>>(), vec![9]);
    let other = NewLetter { subscriber: "you".to_owned(), ..letter(positions[0]) };
    claim!(log.bury(other, NOW).await? != first, "another subscriber has its own letter");
    Ok(())
}

/// Filters, counts, and the way from pending to purged.
pub async fn a_letter_lives_until_it_is_settled_and_purged(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let a = fill(&log, "s.a", &["1", "2"]).await?;
    let b = fill(&log, "s.b", &["3"]).await?;
    let first = log.bury(letter(a[0]), NOW + 1).await?;
    let second = log.bury(letter(a[1]), NOW + 2).await?;
    let third = log.bury(letter(b[0]), NOW + 3).await?;
    let of = async |filter: LetterFilter| -> Result<Vec<u64>, Error> {
        Ok(log.dead_letters(filter).await?.iter().map(|letter| letter.id).collect())
    };
    let all = LetterFilter::default();
    same!(of(all.clone()).await?, vec![third, second, first]);
    same!(of(LetterFilter { limit: 1, ..all.clone() }).await?, vec![third]);
    let prefix = LetterFilter { prefix: "s.a".to_owned(), ..all.clone() };
    same!(of(prefix).await?, vec![second, first]);
    same!(of(LetterFilter { id: Some(second), ..all.clone() }).await?, vec![second]);
    same!(of(LetterFilter { id: Some(77), ..all.clone() }).await?, Vec::<u64>::new());
    let nobody = LetterFilter { subscriber: Some("you".to_owned()), ..all.clone() };
    same!(of(nobody).await?, Vec::<u64>::new());

    log.retry(first, None, NOW + 10).await?;
    log.settle(second, None, LetterState::Abandoned, None).await?;
    let counts = log.letter_counts().await?;
    let four = (counts.pending, counts.retrying, counts.recovered, counts.abandoned);
    same!(four, (1, 1, 0, 1));
    same!(counts.oldest_pending_ms, Some(NOW + 3));
    let open: Vec<_> = counts.open_by_subject.into_iter().collect();
    same!(open, vec![("s.a".to_owned(), 1), ("s.b".to_owned(), 1)]);
    let retrying = LetterFilter { state: Some(LetterState::Retrying), ..all.clone() };
    let retrying = log.dead_letters(retrying).await?;
    same!((retrying[0].id, retrying[0].retried_ms), (first, Some(NOW + 10)));

    log.settle(first, None, LetterState::Pending, Some("still no".to_owned())).await?;
    let letters = log.dead_letters(all.clone()).await?;
    same!((letters[2].attempts, letters[2].error.as_str()), (4, "still no"));
    log.settle(first, None, LetterState::Recovered, None).await?;
    same!(log.purge_letters(None, NOW + 2).await?, 1);
    same!(of(all.clone()).await?, vec![third, second]);
    same!(log.purge_letters(None, i64::MAX).await?, 1);
    same!(of(all).await?, vec![third]);
    Ok(())
}

/// Nothing happens silently to what does not exist.
pub async fn unknown_letters_and_facts_are_named(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    refused!(log.retry(77, None, NOW).await, Error::NotFound { number: 77, .. });
    refused!(
        log.settle(77, None, LetterState::Abandoned, None).await,
        Error::NotFound { number: 77, .. }
    );
    refused!(log.bury(letter(88), NOW).await, Error::NotFound { number: 88, .. });
    same!(log.position(PIPELINE, "me").await?, 0);
    Ok(())
}

fn subscriber(log: &Courier, prefix: &str) -> Subscriber {
    Subscriber::new(log.clone(), PIPELINE, "me", prefix, 3)
}

/// Handles at most `limit` facts, all successfully; returns their ids.
async fn handle_all(mine: &mut Subscriber, limit: usize) -> Result<Vec<String>, Error> {
    let mut seen = Vec::new();
    while seen.len() < limit
        && let Some(delivery) = mine.next(NOW).await?
    {
        seen.push(delivery.fact.id.clone());
        mine.done(delivery).await?;
    }
    Ok(seen)
}

/// Over several passes and a restart; facts of other subjects are passed over.
pub async fn a_subscriber_gets_each_fact_in_order_and_once(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    for id in 0..150_u32 {
        let subject = if id % 3 == 0 { "other" } else { "mine.x" };
        fill(&log, subject, &[&id.to_string()]).await?;
    }
    let mut mine = subscriber(&log, "mine");
    let mut seen = handle_all(&mut mine, 70).await?;
    let in_hand = mine.next(NOW).await?.ok_or("there should be more")?.fact.id.clone();
    let again = mine.next(NOW).await?.ok_or("there should be more")?.fact.id.clone();
    same!(in_hand, again);
    mine.settled().await?;
    drop((mine, log));
    fixture.reopen().await?;
    let log = fixture.courier();
    let mut mine = subscriber(&log, "mine");
    seen.extend(handle_all(&mut mine, usize::MAX).await?);
    let expected: Vec<_> = (0..150_u32).filter(|id| id % 3 != 0).map(|id| id.to_string()).collect();
    same!(seen, expected);
    same!(handle_all(&mut mine, 1).await?, Vec::<String>::new());
    same!(log.position(PIPELINE, "me").await?, log.head(PIPELINE).await?);
    fill(&log, "mine", &["new"]).await?;
    same!(handle_all(&mut mine, 9).await?, vec!["new"]);
    Ok(())
}

/// The record of what is done follows without being waited for: a life that ends in the middle may
/// leave a few handled facts to the next one, never an unhandled one behind it.
pub async fn a_life_cut_short_repeats_a_few_and_skips_none(fixture: &mut impl Fixture) -> Verdict {
    const FACTS: usize = 400;
    let log = fixture.courier();
    let ids: Vec<String> = (0..FACTS).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let positions = fill(&log, "s", &ids).await?;
    drop(log);
    // How many are done in any life so far.
    let mut done = 0;
    for life in [1, 70, 150, FACTS] {
        let log = fixture.courier();
        let begin = log.position(PIPELINE, "me").await?;
        let begin = positions.iter().filter(|position| **position <= begin).count();
        claim!(begin <= done, "fact {done} is skipped: the next life begins with {begin}");
        let mut mine = subscriber(&log, "s");
        let seen = handle_all(&mut mine, life).await?;
        same!(seen, ids[begin..(begin + life).min(FACTS)].to_vec());
        done = done.max(begin + seen.len());
        drop((mine, log));
        fixture.reopen().await?;
    }
    same!(done, FACTS);
    let log = fixture.courier();
    same!(handle_all(&mut subscriber(&log, "s"), 1).await?, Vec::<String>::new());
    Ok(())
}

/// Order is kept while there is hope, and given up for one fact after the last attempt.
pub async fn a_failing_handler_is_tried_again_and_then_buried(
    fixture: &mut impl Fixture,
) -> Verdict {
    let log = fixture.courier();
    fill(&log, "s", &["good", "bad", "after", "bad too"]).await?;
    let mut seen = Vec::new();
    let mut mine = subscriber(&log, "s");
    while let Some(delivery) = mine.next(NOW).await? {
        let id = delivery.fact.id.clone();
        if id.starts_with("bad") {
            let failed = mine.failed(delivery, "cannot digest it", NOW).await?;
            seen.push(format!("{id} {failed:?}"));
        } else {
            mine.done(delivery).await?;
            seen.push(id);
        }
    }
    same!(
        seen,
        vec![
            "good",
            "bad Again { attempts: 1 }",
            "bad Again { attempts: 2 }",
            "bad Buried",
            "after",
            "bad too Again { attempts: 1 }",
            "bad too Again { attempts: 2 }",
            "bad too Buried",
        ]
    );
    let letters = log.dead_letters(LetterFilter::default()).await?;
    same!(letters.len(), 2);
    same!((letters[1].fact.id.as_str(), letters[1].attempts), ("bad", 3));
    same!(letters[1].error, "cannot digest it");
    Ok(())
}

/// A fact whose handler takes the process down does not do so for ever.
pub async fn a_handler_that_never_answers_is_buried_too(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    fill(&log, "s", &["good", "deadly", "after"]).await?;
    let mut handled = Vec::new();
    let mut deaths = 0;
    'lives: loop {
        let mut mine = subscriber(&log, "s");
        while let Some(delivery) = mine.next(NOW).await? {
            if delivery.fact.id == "deadly" {
                deaths += 1;
                claim!(deaths < 10, "the fact comes again and again");
                continue 'lives; // without an answer
            }
            handled.push(delivery.fact.id.clone());
            mine.done(delivery).await?;
        }
        break;
    }
    same!(deaths, 3);
    same!(handled, vec!["good", "after"]);
    same!(log.letter_counts().await?.pending, 1);
    Ok(())
}

/// Before new facts, whether it succeeds or fails again.
pub async fn a_letter_that_is_retried_comes_again(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let positions = fill(&log, "s", &["1", "2"]).await?;
    let first = log.bury(letter(positions[0]), NOW).await?;
    let second = log.bury(letter(positions[1]), NOW).await?;
    fill(&log, "s", &["3"]).await?;
    log.retry(first, None, NOW + 1).await?;
    log.retry(second, None, NOW + 1).await?;
    let mut seen = Vec::new();
    let mut mine = subscriber(&log, "s");
    while let Some(delivery) = mine.next(NOW).await? {
        seen.push((delivery.fact.id.clone(), delivery.letter));
        if delivery.fact.id == "1" {
            same!(mine.failed(delivery, "no again", NOW).await?, Failed::Buried);
        } else {
            mine.done(delivery).await?;
        }
    }
    let expected = [("1", Some(first)), ("2", Some(second)), ("3", None)];
    same!(seen, expected.map(|(id, letter)| (id.to_owned(), letter)).to_vec());
    let letters = log.dead_letters(LetterFilter::default()).await?;
    same!((letters[0].id, letters[0].state), (second, LetterState::Recovered));
    same!((letters[1].id, letters[1].state), (first, LetterState::Pending));
    same!((letters[1].attempts, letters[1].error.as_str()), (4, "no again"));
    Ok(())
}

/// A publisher is done while ten subscribers still hold their first fact; then they get all.
pub async fn slow_subscribers_do_not_slow_a_publisher(fixture: &mut impl Fixture) -> Verdict {
    const FACTS: usize = 100;
    let log = fixture.courier();
    fill(&log, "s", &["first"]).await?;
    let (open, gate) = tokio::sync::watch::channel(false);
    let (arrived, mut arrivals) = tokio::sync::mpsc::channel(10);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..10 {
        let (log, mut gate, arrived) = (log.clone(), gate.clone(), arrived.clone());
        tasks.spawn(async move {
            let mut slow = Subscriber::new(log, PIPELINE, format!("slow {n}"), "s", 3);
            let mut handled = 0;
            while let Some(delivery) = slow.next(NOW).await? {
                if delivery.fact.id == "first" {
                    arrived.send(()).await?;
                }
                gate.wait_for(|open| *open).await?;
                slow.done(delivery).await?;
                handled += 1;
            }
            Ok::<usize, Violation>(handled)
        });
    }
    for _ in 0..10 {
        arrivals.recv().await.ok_or("a subscriber ended early")?;
    }
    for id in 1..FACTS {
        log.append(PIPELINE, fact(&id.to_string(), "s").into(), NOW).await?;
    }
    claim!(tasks.try_join_next().is_none(), "a subscriber went past the gate");
    open.send_replace(true);
    while let Some(handled) = tasks.join_next().await {
        same!(handled??, FACTS);
    }
    Ok(())
}
