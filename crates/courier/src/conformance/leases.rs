//! Claims about leases and fences.

use std::time::Duration;

use super::{Fixture, NOW, Verdict, claim, fact, fill, refused, same};
use crate::dead::{LetterFilter, LetterState, NewLetter};
use crate::error::{AppendError, Error, Fenced, LeaseError};
use crate::fact::{Batch, Stream};

const TTL: Duration = Duration::from_secs(10);
const TTL_MS: i64 = 10_000;

/// While a lease runs, nobody else gets it.
pub async fn one_holder_at_a_time(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let mut tasks = tokio::task::JoinSet::new();
    for rival in 0..8 {
        let log = log.clone();
        tasks.spawn(async move { log.acquire("l", &format!("h{rival}"), TTL, NOW).await });
    }
    let mut winners = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended? {
            Ok(lease) => winners.push(lease),
            Err(LeaseError::Held { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    same!(winners.len(), 1);
    let held = winners.remove(0);
    same!(held.expires_ms, NOW + TTL_MS);
    same!(log.lease("l", NOW).await?, Some(held.clone()));
    refused!(
        log.acquire("l", "late", TTL, NOW + TTL_MS - 1).await,
        LeaseError::Held { by, until_ms, .. }
    );
    same!((by, until_ms), (held.holder, held.expires_ms));
    log.acquire("another", "late", TTL, NOW).await?;
    Ok(())
}

/// After running out, after giving back, and for the same holder again.
pub async fn epochs_grow_with_every_grant(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let first = log.acquire("l", "a", TTL, NOW).await?;
    let again = log.acquire("l", "a", TTL, NOW + 1).await?;
    claim!(again.epoch > first.epoch, "the same holder: {again:?} after {first:?}");
    refused!(log.renew(&first, TTL, NOW + 2).await, LeaseError::Lost { .. });
    let ran_out = log.acquire("l", "b", TTL, NOW + 1 + TTL_MS).await?;
    claim!(ran_out.epoch > again.epoch, "after running out: {ran_out:?} after {again:?}");
    log.release(&ran_out).await?;
    let given_back = log.acquire("l", "a", TTL, NOW + 2 + TTL_MS).await?;
    claim!(given_back.epoch > ran_out.epoch, "given back: {given_back:?} after {ran_out:?}");
    Ok(())
}

/// Prolonging keeps the epoch, up to the last moment and not after it.
pub async fn a_lease_that_ran_out_cannot_be_prolonged(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let lease = log.acquire("l", "a", TTL, NOW).await?;
    let prolonged = log.renew(&lease, TTL, NOW + TTL_MS - 1).await?;
    same!(prolonged.epoch, lease.epoch);
    same!(prolonged.expires_ms, NOW + 2 * TTL_MS - 1);
    let over = prolonged.expires_ms;
    refused!(log.renew(&prolonged, TTL, over).await, LeaseError::Lost { .. });
    same!(log.lease("l", over).await?, None);
    Ok(())
}

/// The note is the one of the last prolonging, and nobody's who gets the lease anew.
pub async fn a_holder_leaves_a_note_at_its_lease(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let granted = log.acquire("l", "a", TTL, NOW).await?;
    same!(granted.note, "");
    let says =
        |lease: &crate::Lease, note: &str| crate::Lease { note: note.into(), ..lease.clone() };
    let first = log.renew(&says(&granted, "I \"play\""), TTL, NOW + 1).await?;
    same!(first.note, "I \"play\"");
    same!(log.lease("l", NOW + 1).await?, Some(first.clone()));
    let second = log.renew(&says(&first, "I rest"), TTL, NOW + 2).await?;
    same!(log.leases("", NOW + 2).await?, vec![second.clone()]);
    let again = log.acquire("l", "a", TTL, NOW + 3).await?;
    same!(log.lease("l", NOW + 3).await?.map(|lease| lease.note), Some(String::new()));
    refused!(log.renew(&says(&second, "late"), TTL, NOW + 4).await, LeaseError::Lost { .. });
    same!(log.lease("l", NOW + 4).await?, Some(again));
    Ok(())
}

/// What was lost cannot be given back in the new holder's place.
pub async fn giving_back_frees_and_only_the_own_lease(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let old = log.acquire("l", "a", TTL, NOW).await?;
    let new = log.acquire("l", "b", TTL, NOW + TTL_MS).await?;
    log.release(&old).await?;
    same!(log.lease("l", NOW + TTL_MS).await?, Some(new.clone()));
    log.release(&new).await?;
    same!(log.lease("l", NOW + TTL_MS).await?, None);
    refused!(log.renew(&new, TTL, NOW + TTL_MS).await, LeaseError::Lost { .. });
    log.acquire("l", "c", TTL, NOW + TTL_MS).await?;
    Ok(())
}

/// Only those in force, by name.
pub async fn leases_are_listed_by_prefix(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    for name in ["job.2", "job.1", "node.1"] {
        log.acquire(name, "a", TTL, NOW).await?;
    }
    let gone = log.acquire("job.3", "a", TTL, NOW).await?;
    log.release(&gone).await?;
    log.acquire("job.4", "a", TTL, NOW - TTL_MS).await?;
    let names: Vec<_> = log.leases("job.", NOW).await?.into_iter().map(|l| l.name).collect();
    same!(names, vec!["job.1", "job.2"]);
    same!(log.leases("", NOW).await?.len(), 3);
    Ok(())
}

/// An older epoch, a lease that was given back and one that never was are refused; one that ran out
/// and that nobody took is not.
pub async fn a_fence_refuses_who_lost_the_lease(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let append = async |id: &str, lease: &crate::Lease, now_ms: i64| {
        let batch = Batch::from(fact(id, "s")).fenced(lease);
        log.append(Stream::Pipeline, batch, now_ms).await
    };
    let old = log.acquire("l", "a", TTL, NOW).await?;
    append("1", &old, NOW).await?;
    append("2", &old, NOW + 2 * TTL_MS).await?;
    let new = log.acquire("l", "b", TTL, NOW + 2 * TTL_MS).await?;
    refused!(
        append("3", &old, NOW + 2 * TTL_MS).await,
        AppendError::Fenced(Fenced { epoch, current, .. })
    );
    same!((epoch, current), (old.epoch, Some(new.epoch)));
    append("4", &new, NOW + 2 * TTL_MS).await?;
    log.release(&new).await?;
    refused!(append("5", &new, NOW + 2 * TTL_MS).await, AppendError::Fenced(_));
    let never = crate::Lease { name: "never".to_owned(), ..new };
    refused!(append("6", &never, NOW).await, AppendError::Fenced(Fenced { current: None, .. }));
    let ids: Vec<_> =
        log.read(Stream::Pipeline, 0, 10).await?.into_iter().map(|fact| fact.id).collect();
    same!(ids, vec!["1", "2", "4"]);
    Ok(())
}

/// Who keeps the letters in the name of a lease does nothing to them when it is lost, and loses nothing by one
/// that merely ran out; the lease is as it was.
pub async fn letters_are_left_alone_by_who_lost_the_lease(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let positions = fill(&log, "s", &["1", "2"]).await?;
    let bury = |position: u64| {
        let (subscriber, error) = ("me".to_owned(), "no".to_owned());
        let (stream, attempts) = (Stream::Pipeline, 3);
        log.bury(NewLetter { subscriber, stream, position, error, attempts }, NOW)
    };
    let (first, second) = (bury(positions[0]).await?, bury(positions[1]).await?);
    let states = async || -> Result<Vec<LetterState>, Error> {
        let letters = log.dead_letters(LetterFilter::default()).await?;
        Ok(letters.iter().rev().map(|letter| letter.state).collect())
    };
    let mut old = log.acquire("l", "a", TTL, NOW).await?;
    "a note".clone_into(&mut old.note);
    let old = log.renew(&old, TTL, NOW + 1).await?;
    log.retry(first, Some(old.fence()), NOW + 2 * TTL_MS).await?;
    same!(log.lease("l", NOW + 1).await?, Some(old.clone()));
    let old = log.acquire("l", "a", TTL, NOW).await?;
    log.settle(first, Some(old.fence()), LetterState::Recovered, None).await?;
    log.renew(&old, TTL, NOW + 2).await?;
    let new = log.acquire("l", "b", TTL, NOW + 2 * TTL_MS).await?;
    let late = log.retry(second, Some(old.fence()), NOW + 2 * TTL_MS).await;
    refused!(late, Error::Fenced(Fenced { epoch, current, .. }));
    same!((epoch, current), (old.epoch, Some(new.epoch)));
    refused!(
        log.settle(second, Some(old.fence()), LetterState::Abandoned, None).await,
        Error::Fenced(_)
    );
    refused!(log.purge_letters(Some(old.fence()), i64::MAX).await, Error::Fenced(_));
    same!(states().await?, vec![LetterState::Recovered, LetterState::Pending]);
    log.settle(second, Some(new.fence()), LetterState::Abandoned, None).await?;
    same!(log.purge_letters(Some(new.fence()), i64::MAX).await?, 2);
    log.release(&new).await?;
    refused!(log.purge_letters(Some(new.fence()), i64::MAX).await, Error::Fenced(_));
    Ok(())
}

/// What is in the log already was right when it came.
pub async fn a_repeated_batch_is_not_fenced(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let lease = log.acquire("l", "a", TTL, NOW).await?;
    let batch = Batch::from(fact("1", "s")).fenced(&lease);
    let first = log.append(Stream::Pipeline, batch.clone(), NOW).await?;
    log.release(&lease).await?;
    same!(log.append(Stream::Pipeline, batch, NOW).await?, first);
    Ok(())
}

/// The holder, the end and the epoch are those of before.
pub async fn leases_survive_a_restart(fixture: &mut impl Fixture) -> Verdict {
    let log = fixture.courier();
    let lease = log.acquire("l", "a", TTL, NOW).await?;
    let back = log.acquire("m", "a", TTL, NOW).await?;
    log.release(&back).await?;
    drop(log);
    fixture.reopen().await?;
    let log = fixture.courier();
    same!(log.lease("l", NOW).await?, Some(lease.clone()));
    log.renew(&lease, TTL, NOW + 1).await?;
    let again = log.acquire("m", "b", TTL, NOW).await?;
    claim!(again.epoch > back.epoch, "{again:?} after {back:?}");
    Ok(())
}
