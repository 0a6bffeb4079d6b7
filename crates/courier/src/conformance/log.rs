//! Claims about appending and reading.

use serde_json::json;

use super::{Fixture, NOW, Verdict, claim, fact, fill, refused, same};
use crate::courier::Repeats;
use crate::error::AppendError;
use crate::fact::{Batch, Fact, MAX_BATCH, MAX_BODY_BYTES, NewFact, Stream};

const PIPELINE: Stream = Stream::Pipeline;

/// Every field of a fact is kept.
pub async fn facts_come_back_as_they_went_in(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let body = json!({ "text": "ä\n\"\u{1F600}", "n": 0.1, "deep": [1, { "null": null }], "big": u64::MAX });
    let new = NewFact::new("id 1", "a.b", "me", body.clone()).caused_by("id 0");
    let positions = log.append(PIPELINE, new.into(), NOW).await?;
    let facts = log.read(PIPELINE, 0, 10).await?;
    let expected = Fact {
        position: positions[0],
        id: "id 1".to_owned(),
        subject: "a.b".to_owned(),
        time_ms: NOW,
        source: "me".to_owned(),
        cause: Some("id 0".to_owned()),
        body,
    };
    same!(facts, vec![expected]);
    Ok(())
}

/// Positions start above 0 and grow, within a batch and from one to the next.
pub async fn positions_grow(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    same!(log.head(PIPELINE).await?, 0);
    let mut all = fill(&log, "s", &["a", "b", "c"]).await?;
    all.extend(fill(&log, "s", &["d"]).await?);
    claim!(all[0] > 0 && all.is_sorted_by(|a, b| a < b), "{all:?} should grow");
    same!(log.head(PIPELINE).await?, all[3]);
    Ok(())
}

/// Appending again changes nothing, even if the expectation no longer holds; the first body stays.
pub async fn a_repeated_id_gives_the_old_position(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let batch = Batch::new(vec![fact("a", "s").after(0), fact("b", "t").after(0)]);
    let first = log.append(PIPELINE, batch.clone(), NOW).await?;
    fill(&log, "s", &["c"]).await?;
    let before = log.read(PIPELINE, 0, 10).await?;
    same!(log.append(PIPELINE, batch, NOW + 5).await?, first);
    let mut other = fact("a", "s");
    other.body = json!("something else");
    same!(log.append(PIPELINE, other.into(), NOW).await?, first[..1].to_vec());
    same!(log.read(PIPELINE, 0, 10).await?, before);
    same!(log.repeats(PIPELINE), Repeats { by_id: 3, by_content: 2 });
    same!(log.repeats(Stream::Operational), Repeats::default());
    Ok(())
}

/// A batch that is half known is completed, in the positions of the batch's order.
pub async fn a_repeated_id_beside_a_new_one_adds_only_the_new_one(
    fixture: &mut impl Fixture,
) -> Verdict {
    let log = fixture.courier();
    let first = fill(&log, "s", &["a"]).await?;
    let both = fill(&log, "s", &["b", "a"]).await?;
    same!(both[1], first[0]);
    same!(log.repeats(PIPELINE), Repeats { by_id: 1, by_content: 1 });
    claim!(both[0] > first[0], "{both:?} should have a new position for b");
    same!(log.read(PIPELINE, 0, 10).await?.len(), 2);
    Ok(())
}

/// Two facts on two subjects cannot be retries of each other.
pub async fn an_id_on_another_subject_is_refused(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    fill(&log, "s", &["a"]).await?;
    refused!(
        log.append(PIPELINE, fact("a", "t").into(), NOW).await,
        AppendError::IdReused { taken_by, .. }
    );
    same!(taken_by, "s");
    same!(log.read(PIPELINE, 0, 10).await?.len(), 1);
    Ok(())
}

/// However many try at the same time, one takes each step of a subject.
pub async fn one_of_many_wins_a_compare_and_append(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let mut tasks = tokio::task::JoinSet::new();
    for rival in 0..16 {
        let log = log.clone();
        tasks.spawn(async move {
            let mut won = 0;
            let mut last = 0;
            for step in 0..8 {
                let id = format!("{step}-{rival}");
                let new = fact(&id, "s").after(last);
                match log.append(PIPELINE, new.into(), NOW).await {
                    Ok(positions) => {
                        won += 1;
                        last = positions[0];
                    }
                    Err(AppendError::Conflict { actual, .. }) => last = actual,
                    Err(other) => return Err(other),
                }
            }
            Ok(won)
        });
    }
    let mut won = 0;
    while let Some(ended) = tasks.join_next().await {
        won += ended??;
    }
    let facts = log.read(PIPELINE, 0, 1000).await?;
    same!(facts.len(), won);
    claim!(won >= 8, "{won} appends won: with each refusal somebody else wins");
    Ok(())
}

/// A conflict names the subject and the position that would have been right.
pub async fn a_conflict_tells_what_is_so(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    refused!(
        log.append(PIPELINE, fact("a", "s").after(7).into(), NOW).await,
        AppendError::Conflict { subject, expected: 7, actual: 0 }
    );
    same!(subject, "s");
    let last = fill(&log, "s", &["b"]).await?[0];
    fill(&log, "other", &["c"]).await?;
    refused!(
        log.append(PIPELINE, fact("d", "s").after(0).into(), NOW).await,
        AppendError::Conflict { expected: 0, actual, .. }
    );
    same!(actual, last);
    log.append(PIPELINE, fact("e", "s").after(actual).into(), NOW).await?;
    Ok(())
}

/// One refused fact keeps the others out.
pub async fn a_batch_enters_whole_or_not_at_all(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    fill(&log, "taken", &["x"]).await?;
    let batch = Batch::new(vec![fact("a", "s"), fact("b", "taken").after(0), fact("c", "u")]);
    refused!(log.append(PIPELINE, batch, NOW).await, AppendError::Conflict { .. });
    same!(log.read(PIPELINE, 0, 10).await?.len(), 1);
    same!(log.last_on(PIPELINE, "s").await?, None);
    Ok(())
}

/// Two facts of a batch on one subject both expect what was there before.
pub async fn expectations_speak_of_the_log_before_the_batch(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let batch = Batch::new(vec![fact("a", "s").after(0), fact("b", "s").after(0)]);
    let positions = log.append(PIPELINE, batch, NOW).await?;
    let last = log.last_on(PIPELINE, "s").await?.map(|fact| fact.position);
    same!(last, Some(positions[1]));
    Ok(())
}

/// The same ids, subjects and positions in two streams have nothing to do with each other.
pub async fn streams_do_not_see_each_other(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let pipeline = fill(&log, "s", &["a", "b"]).await?;
    let other = log.append(Stream::Operational, fact("a", "s").after(0).into(), NOW).await?;
    same!(log.read(Stream::Operational, 0, 10).await?.len(), 1);
    same!(log.head(Stream::Operational).await?, other[0]);
    same!(log.head(PIPELINE).await?, pipeline[1]);
    log.advance(PIPELINE, "me", pipeline[1]).await?;
    same!(log.position(Stream::Operational, "me").await?, 0);
    Ok(())
}

/// Limits are the same everywhere.
pub async fn what_no_engine_takes_is_refused(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let large = NewFact::new("a", "s", "suite", json!("x".repeat(MAX_BODY_BYTES)));
    refused!(log.append(PIPELINE, large.into(), NOW).await, AppendError::TooLarge { .. });
    let many = (0..=MAX_BATCH).map(|i| fact(&i.to_string(), "s")).collect();
    refused!(log.append(PIPELINE, Batch::new(many), NOW).await, AppendError::TooLarge { .. });
    refused!(log.append(PIPELINE, fact("a", "s.*").into(), NOW).await, AppendError::Invalid { .. });
    refused!(log.append(PIPELINE, Batch::default(), NOW).await, AppendError::Invalid { .. });
    same!(log.head(PIPELINE).await?, 0);
    let fits = NewFact::new("a", "s", "suite", json!("x".repeat(MAX_BODY_BYTES - 2)));
    log.append(PIPELINE, fits.into(), NOW).await?;
    Ok(())
}

/// Neither a longer nor a shorter subject counts.
pub async fn the_last_fact_is_that_of_the_exact_subject(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    fill(&log, "a.b", &["1", "2"]).await?;
    fill(&log, "a.b.c", &["3"]).await?;
    fill(&log, "a", &["4"]).await?;
    same!(log.last_on(PIPELINE, "a.b").await?.map(|fact| fact.id), Some("2".to_owned()));
    same!(log.last_on(PIPELINE, "a.x").await?, None);
    Ok(())
}

/// A subject itself, and one that only begins with the same letters, are not below it.
pub async fn the_last_fact_on_each_subject_below_one(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    fill(&log, "a.b", &["1"]).await?;
    fill(&log, "a.c.d", &["2"]).await?;
    fill(&log, "a.b", &["3"]).await?;
    fill(&log, "a", &["4"]).await?;
    fill(&log, "ab.c", &["5"]).await?;
    let ids = |facts: Vec<crate::Fact>| facts.into_iter().map(|fact| fact.id).collect::<Vec<_>>();
    same!(ids(log.last_below(PIPELINE, "a").await?), ["2", "3"]);
    same!(ids(log.last_below(PIPELINE, "b").await?), [""; 0]);
    Ok(())
}

/// After a position, oldest first, not more than asked for.
pub async fn reading_is_in_pages(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let positions = fill(&log, "s", &["a", "b", "c", "d", "e"]).await?;
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = log.read(PIPELINE, after, 2).await?;
        claim!(page.len() <= 2, "{} facts in a page of 2", page.len());
        let Some(last) = page.last() else { break };
        after = last.position;
        seen.extend(page.iter().map(|fact| fact.position));
    }
    same!(seen, positions);
    Ok(())
}

/// Whoever waits on the tail before an append is woken by it and can read it.
pub async fn the_tail_wakes_after_an_append(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let mut tail = log.tail(PIPELINE);
    tail.mark_unchanged();
    let positions = fill(&log, "s", &["a", "b"]).await?;
    tokio::time::timeout(std::time::Duration::from_secs(5), tail.changed()).await??;
    let head = *tail.borrow_and_update();
    same!(head, positions[1]);
    same!(log.read(PIPELINE, 0, 10).await?.len(), 2);
    Ok(())
}

/// Facts, ids, positions and the identity are those of before.
pub async fn the_log_survives_a_restart(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let positions = fill(&log, "s", &["a", "b"]).await?;
    log.advance(PIPELINE, "me", positions[0]).await?;
    let before = (log.read(PIPELINE, 0, 10).await?, log.identity().await?);
    drop(log);
    fixture.reopen().await?;
    let log = fixture.courier();
    same!((log.read(PIPELINE, 0, 10).await?, log.identity().await?), before);
    same!(log.position(PIPELINE, "me").await?, positions[0]);
    same!(log.head(PIPELINE).await?, positions[1]);
    let tail = log.tail(PIPELINE);
    let woken = *tail.borrow();
    same!(woken, positions[1]);
    same!(fill(&log, "s", &["a"]).await?, positions[..1].to_vec());
    claim!(fill(&log, "s", &["c"]).await?[0] > positions[1], "positions should go on");
    Ok(())
}
