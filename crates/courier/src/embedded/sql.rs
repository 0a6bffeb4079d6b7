//! What the engine does, in SQL. Writes run in a transaction that somebody else commits.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, ToSql, params};

use super::Retention;
use super::recent::Fresh;
use crate::courier::{Page, Repeats, Standing};
use crate::dead::{DeadLetter, LetterCounts, LetterFilter, LetterState, NewLetter};
use crate::error::{AppendError, Error, Fenced, LeaseError};
use crate::fact::{Batch, Expect, Fact, Fence, NewFact, Stream};
use crate::lease::Lease;

/// Retention is looked after once in so many appends.
const RETENTION_EVERY: u64 = 256;

/// Most facts of one statement: what SQLite does once for a statement costs as much as a fact.
const ROWS: usize = 16;

/// Why a write did not happen.
pub(crate) enum Stop<E> {
    /// SQLite failed.
    Sql(rusqlite::Error),
    /// We said no.
    Refused(E),
}

impl<E> From<rusqlite::Error> for Stop<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// The statement for a stream: its table is its name.
fn on(stream: Stream, sql: &str) -> String {
    sql.replace("{stream}", stream.name())
}

/// What an append did.
pub(crate) struct Appended {
    /// In the batch's order.
    pub(crate) positions: Vec<u64>,
    pub(crate) repeats: Repeats,
    /// Those of the stream that is subscribed to; once memory has them, what it gave up for them.
    pub(super) fresh: Vec<Fresh>,
}

pub(crate) fn append(
    db: &Connection,
    stream: Stream,
    batch: Batch,
    bodies: &[String],
    now_ms: i64,
    retention: Retention,
) -> Result<Appended, Stop<AppendError>> {
    let mut repeats = Repeats::default();
    // Nearly every batch is new and as expected, so that is tried first. Whoever repeats a batch
    // after a lost answer finds the log moved on by his own facts; only then they are looked up.
    let fenced = batch.fence.as_ref().map_or(Ok(None), |fence| fenced(db, fence))?;
    if fenced.is_some() || !expectations_hold(db, stream, &batch)? {
        let mut known = Vec::with_capacity(batch.facts.len());
        for (fact, body) in batch.facts.iter().zip(bodies) {
            known.push(known_position(db, stream, fact, body, &mut repeats)?);
        }
        if known.iter().all(Option::is_some) {
            let positions = known.into_iter().flatten().collect();
            return Ok(Appended { positions, repeats, fresh: Vec::new() });
        }
        // Whatever is repeated is met again below.
        repeats = Repeats::default();
        refuse_if_moved(db, stream, &batch, &known)?;
    }
    let mut positions: Vec<u64> = Vec::with_capacity(bodies.len());
    let mut is_new = Vec::with_capacity(bodies.len());
    let mut rows = ROWS;
    while positions.len() < bodies.len() {
        let from = positions.len();
        let to = bodies.len().min(from + rows);
        let (facts, texts) = (&batch.facts[from..to], &bodies[from..to]);
        let (inserted, refused) = insert(db, stream, facts, texts, now_ms)?;
        let last = db.last_insert_rowid().unsigned_abs();
        positions.extend(last + 1 - inserted as u64..=last);
        is_new.resize(positions.len(), true);
        rows = ROWS;
        if let Some(error) = refused {
            let known =
                known_position(db, stream, &facts[inserted], &texts[inserted], &mut repeats)?;
            positions.push(known.ok_or(error)?);
            is_new.push(false);
            // One that is repeated is seldom alone.
            rows = 1;
        }
    }
    let mut fresh = Vec::new();
    if stream == Stream::Pipeline {
        let placed = batch.facts.into_iter().zip(bodies).zip(&positions).zip(is_new);
        fresh.extend(placed.filter(|(_, is_new)| *is_new).map(|(((fact, body), position), _)| {
            (Arc::new(fact.at(*position, now_ms)), body.len())
        }));
    }
    if stream == Stream::Operational {
        let (first, last) = (positions[0], positions[positions.len() - 1]);
        if first / RETENTION_EVERY != last / RETENTION_EVERY || last % RETENTION_EVERY == 0 {
            retain(db, retention, last, now_ms)?;
        }
    }
    Ok(Appended { positions, repeats, fresh })
}

/// Inserts facts until SQLite refuses one; gives how many, and why it refused the next.
fn insert(
    db: &Connection,
    stream: Stream,
    facts: &[NewFact],
    bodies: &[String],
    now_ms: i64,
) -> rusqlite::Result<(usize, Option<rusqlite::Error>)> {
    // FAIL: those before it stay. Not `ON CONFLICT DO NOTHING`: that would count its position as given.
    let sql = "INSERT OR FAIL INTO {stream} (id, subject, time_ms, source, cause, body) VALUES ";
    let rows = vec!["(?, ?, ?, ?, ?, ?)"; facts.len()].join(", ");
    let mut statement = db.prepare_cached(&(on(stream, sql) + &rows))?;
    let mut place = 0;
    let mut bind = |value: &dyn ToSql| {
        place += 1;
        statement.raw_bind_parameter(place, value)
    };
    for (fact, body) in facts.iter().zip(bodies) {
        bind(&fact.id)?;
        bind(&fact.subject)?;
        bind(&now_ms)?;
        bind(&fact.source)?;
        bind(&fact.cause)?;
        bind(body)?;
    }
    match statement.raw_execute() {
        Ok(inserted) => Ok((inserted, None)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok((usize::try_from(db.changes()).unwrap_or(0), Some(error)))
        }
        Err(error) => Err(error),
    }
}

/// Where a fact with this id is already; one on another subject is a mistake.
fn known_position(
    db: &Connection,
    stream: Stream,
    fact: &NewFact,
    body: &str,
    repeats: &mut Repeats,
) -> Result<Option<u64>, Stop<AppendError>> {
    let sql = on(stream, "SELECT position, subject, body = ?2 FROM {stream} WHERE id = ?1");
    let found: Option<(u64, String, bool)> = db
        .prepare_cached(&sql)?
        .query_row([&fact.id, body], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((position, taken_by, same)) = found else { return Ok(None) };
    if taken_by != fact.subject {
        let (id, subject) = (fact.id.clone(), fact.subject.clone());
        return Err(Stop::Refused(AppendError::IdReused { id, subject, taken_by }));
    }
    repeats.by_id += 1;
    repeats.by_content += u64::from(same);
    Ok(Some(position))
}

/// The epoch in force of the lease that a batch names; none if nobody holds it.
fn epoch_in_force(db: &Connection, lease: &str) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT epoch FROM lease WHERE name = ?1 AND holder IS NOT NULL")?
        .query_row([lease], |row| row.get(0))
        .optional()
}

/// Refuses who lost the lease.
pub(crate) fn held<E: From<Fenced>>(db: &Connection, fence: Option<&Fence>) -> Result<(), Stop<E>> {
    match fence.map_or(Ok(None), |fence| fenced(db, fence))? {
        Some(why) => Err(Stop::Refused(why.into())),
        None => Ok(()),
    }
}

/// Why a fence does not hold, if it does not.
pub(crate) fn fenced(db: &Connection, fence: &Fence) -> rusqlite::Result<Option<Fenced>> {
    let current = epoch_in_force(db, &fence.lease)?;
    let Fence { lease, epoch } = fence.clone();
    Ok((current != Some(epoch)).then_some(Fenced { lease, epoch, current }))
}

fn expectations_hold(db: &Connection, stream: Stream, batch: &Batch) -> rusqlite::Result<bool> {
    for fact in &batch.facts {
        if let Some(Expect::LastOnSubject(expected)) = fact.expect
            && last_position_on(db, stream, &fact.subject)? != expected
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Says what of a batch does not hold; what is `known` need not.
fn refuse_if_moved(
    db: &Connection,
    stream: Stream,
    batch: &Batch,
    known: &[Option<u64>],
) -> Result<(), Stop<AppendError>> {
    held(db, batch.fence.as_ref())?;
    for (fact, _) in batch.facts.iter().zip(known).filter(|(_, known)| known.is_none()) {
        if let Some(Expect::LastOnSubject(expected)) = fact.expect {
            let actual = last_position_on(db, stream, &fact.subject)?;
            if actual != expected {
                let subject = fact.subject.clone();
                return Err(Stop::Refused(AppendError::Conflict { subject, expected, actual }));
            }
        }
    }
    Ok(())
}

/// Removes what the operational stream need not keep.
pub(crate) fn retain(
    db: &Connection,
    retention: Retention,
    head: u64,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let too_many = head.saturating_sub(retention.max_facts);
    let too_old = now_ms.saturating_sub(millis(retention.max_age));
    // From the oldest on: the facts are in the order of their times, or nearly so.
    db.prepare_cached(
        "DELETE FROM operational WHERE position <= ?1 OR position < coalesce(
             (SELECT position FROM operational WHERE time_ms >= ?2 ORDER BY position LIMIT 1), 0)",
    )?
    .execute(params![too_many, too_old])?;
    Ok(())
}

pub(crate) fn read(
    db: &Connection,
    stream: Stream,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<Fact>> {
    let sql = on(
        stream,
        "SELECT position, id, subject, time_ms, source, cause, body FROM {stream} \
         WHERE position > ?1 ORDER BY position LIMIT ?2",
    );
    db.prepare_cached(&sql)?.query_map(params![after, limit], fact)?.collect()
}

pub(crate) fn last_on(
    db: &Connection,
    stream: Stream,
    subject: &str,
) -> rusqlite::Result<Option<Fact>> {
    let sql = on(
        stream,
        "SELECT position, id, subject, time_ms, source, cause, body FROM {stream} \
         WHERE subject = ?1 ORDER BY position DESC LIMIT 1",
    );
    db.prepare_cached(&sql)?.query_row([subject], fact).optional()
}

pub(crate) fn last_below(
    db: &Connection,
    stream: Stream,
    subject: &str,
) -> rusqlite::Result<Vec<Fact>> {
    let sql = on(
        stream,
        "SELECT position, id, subject, time_ms, source, cause, body FROM {stream} WHERE position IN \
         (SELECT MAX(position) FROM {stream} WHERE subject > ?1 || '.' AND subject < ?1 || '/' GROUP BY subject) \
         ORDER BY position",
    );
    // A slash comes right after a dot.
    db.prepare_cached(&sql)?.query_map([subject], fact)?.collect()
}

pub(crate) fn last_position_on(
    db: &Connection,
    stream: Stream,
    subject: &str,
) -> rusqlite::Result<u64> {
    let sql = on(
        stream,
        "SELECT position FROM {stream} WHERE subject = ?1 ORDER BY position DESC LIMIT 1",
    );
    let position = db.prepare_cached(&sql)?.query_row([subject], |row| row.get(0)).optional()?;
    Ok(position.unwrap_or(0))
}

/// From the counter rather than the rows: retention may have removed the last one.
pub(crate) fn head(db: &Connection, stream: Stream) -> rusqlite::Result<u64> {
    let head = db
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?
        .query_row([stream.name()], |row| row.get(0))
        .optional()?;
    Ok(head.unwrap_or(0))
}

pub(crate) fn identity(db: &Connection) -> rusqlite::Result<String> {
    db.query_row("SELECT id FROM identity", [], |row| row.get(0))
}

pub(crate) fn position(db: &Connection, stream: Stream, name: &str) -> rusqlite::Result<u64> {
    let position = db
        .prepare_cached("SELECT position FROM subscriber WHERE stream = ?1 AND name = ?2")?
        .query_row([stream.name(), name], |row| row.get(0))
        .optional()?;
    Ok(position.unwrap_or(0))
}

pub(crate) fn advance(
    db: &Connection,
    stream: Stream,
    name: &str,
    to: u64,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO subscriber (stream, name, position) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET position = max(position, excluded.position)",
    )?
    .execute(params![stream.name(), name, to])?;
    Ok(())
}

pub(crate) fn standings(db: &Connection) -> rusqlite::Result<Vec<Standing>> {
    let mut standings = Vec::new();
    for stream in Stream::ALL {
        let head = head(db, stream)?;
        let mut of_stream =
            db.prepare_cached("SELECT name, position FROM subscriber WHERE stream = ?1")?;
        let mut rows = of_stream.query([stream.name()])?;
        while let Some(row) = rows.next()? {
            let (subscriber, position) = (row.get(0)?, row.get(1)?);
            standings.push(Standing { stream, subscriber, position, head });
        }
    }
    Ok(standings)
}

pub(crate) fn next(
    db: &Connection,
    stream: Stream,
    after: u64,
    prefix: &str,
    limit: usize,
) -> rusqlite::Result<Page> {
    // `+subject`: in the order of positions, from the subscriber's on; not by the subject's index,
    // which would collect and sort the whole past.
    let sql = on(
        stream,
        "SELECT position, id, subject, time_ms, source, cause, body FROM {stream} \
         WHERE position > ?1 AND (?2 = '' OR +subject = ?2 OR substr(+subject, 1, length(?2) + 1) = ?2 || '.') \
         ORDER BY position LIMIT ?3",
    );
    let facts: Vec<Arc<Fact>> = db
        .prepare_cached(&sql)?
        .query_map(params![after, prefix, limit], |row| fact(row).map(Arc::new))?
        .collect::<rusqlite::Result<_>>()?;
    let through = match facts.last() {
        Some(last) if facts.len() >= limit => last.position,
        _ => head(db, stream)?.max(after),
    };
    Ok(Page { facts, through })
}

pub(crate) fn attempt(
    db: &Connection,
    stream: Stream,
    name: &str,
    position: u64,
) -> rusqlite::Result<u32> {
    db.prepare_cached(
        "INSERT INTO subscriber (stream, name, position, in_hand, attempts)
         VALUES (?1, ?2, 0, ?3, 1)
         ON CONFLICT DO UPDATE SET
             attempts = iif(in_hand = excluded.in_hand, attempts + 1, 1),
             in_hand = excluded.in_hand
         RETURNING attempts",
    )?
    .query_row(params![stream.name(), name, position], |row| row.get(0))
}

pub(crate) fn bury(db: &Connection, letter: &NewLetter, now_ms: i64) -> Result<u64, Stop<Error>> {
    let buried = read(db, letter.stream, letter.position.saturating_sub(1), 1)?;
    let Some(fact) = buried.into_iter().find(|fact| fact.position == letter.position) else {
        let (what, number) = ("fact", letter.position);
        return Err(Stop::Refused(Error::NotFound { what, number }));
    };
    let text = serde_json::to_string(&fact)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let id = db
        .prepare_cached(
            "INSERT INTO letter
                 (subscriber, stream, position, fact, subject, error, attempts, buried_ms, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'pending')
             ON CONFLICT (subscriber, stream, position) DO UPDATE SET
                 error = excluded.error, attempts = excluded.attempts, state = excluded.state
             RETURNING id",
        )?
        .query_row(
            params![
                letter.subscriber,
                letter.stream.name(),
                letter.position,
                text,
                fact.subject,
                letter.error,
                letter.attempts,
                now_ms
            ],
            |row| row.get(0),
        )?;
    advance(db, letter.stream, &letter.subscriber, letter.position)?;
    Ok(id)
}

pub(crate) fn dead_letters(
    db: &Connection,
    filter: &LetterFilter,
) -> rusqlite::Result<Vec<DeadLetter>> {
    db.prepare_cached(
        "SELECT id, subscriber, stream, fact, error, attempts, buried_ms, retried_ms, state
         FROM letter
         WHERE (?1 IS NULL OR subscriber = ?1) AND (?2 IS NULL OR state = ?2)
             AND (?3 = '' OR subject = ?3 OR substr(subject, 1, length(?3) + 1) = ?3 || '.')
             AND (?5 IS NULL OR id = ?5)
         ORDER BY id DESC LIMIT ?4",
    )?
    .query_map(
        params![
            filter.subscriber,
            filter.state.map(LetterState::name),
            filter.prefix,
            filter.limit,
            filter.id
        ],
        letter,
    )?
    .collect()
}

pub(crate) fn letter_counts(db: &Connection) -> rusqlite::Result<LetterCounts> {
    let mut counts = LetterCounts::default();
    let mut by_state = db.prepare_cached("SELECT state, count(*) FROM letter GROUP BY state")?;
    let mut rows = by_state.query([])?;
    while let Some(row) = rows.next()? {
        let place = match state(row, 0)? {
            LetterState::Pending => &mut counts.pending,
            LetterState::Retrying => &mut counts.retrying,
            LetterState::Recovered => &mut counts.recovered,
            LetterState::Abandoned => &mut counts.abandoned,
        };
        *place = row.get(1)?;
    }
    counts.open_by_subject = db
        .prepare_cached(
            "SELECT subject, count(*) FROM letter WHERE state IN ('pending', 'retrying')
             GROUP BY subject",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    counts.oldest_pending_ms =
        db.query_row("SELECT min(buried_ms) FROM letter WHERE state = 'pending'", [], |row| {
            row.get(0)
        })?;
    Ok(counts)
}

/// Gives the stream of the letter.
pub(crate) fn retry(db: &Connection, id: u64, now_ms: i64) -> Result<Stream, Stop<Error>> {
    let stream: Option<String> = db
        .prepare_cached(
            "UPDATE letter SET state = 'retrying', retried_ms = ?2 WHERE id = ?1 RETURNING stream",
        )?
        .query_row(params![id, now_ms], |row| row.get(0))
        .optional()?;
    found(usize::from(stream.is_some()), id)?;
    let known = Stream::ALL.into_iter().find(|known| Some(known.name()) == stream.as_deref());
    Ok(known.ok_or_else(|| unreadable(0, "an unknown stream"))?)
}

pub(crate) fn settle(
    db: &Connection,
    id: u64,
    state: LetterState,
    error: Option<&str>,
) -> Result<(), Stop<Error>> {
    let changed = db
        .prepare_cached(
            "UPDATE letter SET state = ?2, error = coalesce(?3, error),
                 attempts = attempts + iif(?3 IS NULL, 0, 1)
             WHERE id = ?1",
        )?
        .execute(params![id, state.name(), error])?;
    found(changed, id)
}

fn found(changed: usize, number: u64) -> Result<(), Stop<Error>> {
    match changed {
        0 => Err(Stop::Refused(Error::NotFound { what: "dead letter", number })),
        _ => Ok(()),
    }
}

pub(crate) fn purge_letters(db: &Connection, buried_before_ms: i64) -> rusqlite::Result<u64> {
    let removed = db
        .prepare_cached(
            "DELETE FROM letter WHERE state IN ('recovered', 'abandoned') AND buried_ms < ?1",
        )?
        .execute([buried_before_ms])?;
    Ok(removed as u64)
}

pub(crate) fn acquire(
    db: &Connection,
    name: &str,
    holder: &str,
    ttl: Duration,
    now_ms: i64,
) -> Result<Lease, Stop<LeaseError>> {
    if let Some(held) = lease(db, name, now_ms)?.filter(|held| held.holder != holder) {
        return Err(Stop::Refused(LeaseError::Held {
            name: held.name,
            by: held.holder,
            until_ms: held.expires_ms,
        }));
    }
    let expires_ms = now_ms.saturating_add(millis(ttl));
    let epoch = db
        .prepare_cached(
            "INSERT INTO lease (name, holder, epoch, expires_ms) VALUES (?1, ?2, 1, ?3)
             ON CONFLICT DO UPDATE SET
                 holder = excluded.holder, epoch = epoch + 1, expires_ms = excluded.expires_ms,
                 note = ''
             RETURNING epoch",
        )?
        .query_row(params![name, holder, expires_ms], |row| row.get(0))?;
    let (name, holder) = (name.to_owned(), holder.to_owned());
    Ok(Lease { name, holder, epoch, expires_ms, note: String::new() })
}

pub(crate) fn renew(
    db: &Connection,
    lease: Lease,
    ttl: Duration,
    now_ms: i64,
) -> Result<Lease, Stop<LeaseError>> {
    let expires_ms = now_ms.saturating_add(millis(ttl));
    let renewed = db
        .prepare_cached(
            "UPDATE lease SET expires_ms = ?4, note = ?6
             WHERE name = ?1 AND holder = ?2 AND epoch = ?3 AND expires_ms > ?5",
        )?
        .execute(params![lease.name, lease.holder, lease.epoch, expires_ms, now_ms, lease.note])?;
    if renewed == 0 {
        let Lease { name, epoch, .. } = lease;
        return Err(Stop::Refused(LeaseError::Lost { name, epoch }));
    }
    Ok(Lease { expires_ms, ..lease })
}

pub(crate) fn release(db: &Connection, lease: &Lease) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE lease SET holder = NULL, expires_ms = 0
         WHERE name = ?1 AND holder = ?2 AND epoch = ?3",
    )?
    .execute(params![lease.name, lease.holder, lease.epoch])?;
    Ok(())
}

/// A file of an older program that is only read has no column `note`: then the name means that of `none`.
const LEASES: &str = "SELECT name, holder, epoch, expires_ms,
        (SELECT note FROM lease AS own WHERE own.name = lease.name)
    FROM (SELECT '' AS note) AS none, lease
    WHERE holder IS NOT NULL AND expires_ms > ?2";

pub(crate) fn lease(db: &Connection, name: &str, now_ms: i64) -> rusqlite::Result<Option<Lease>> {
    db.prepare_cached(&format!("{LEASES} AND name = ?1"))?
        .query_row(params![name, now_ms], lease_row)
        .optional()
}

pub(crate) fn leases(db: &Connection, prefix: &str, now_ms: i64) -> rusqlite::Result<Vec<Lease>> {
    db.prepare_cached(&format!("{LEASES} AND substr(name, 1, length(?1)) = ?1 ORDER BY name"))?
        .query_map(params![prefix, now_ms], lease_row)?
        .collect()
}

fn lease_row(row: &Row<'_>) -> rusqlite::Result<Lease> {
    Ok(Lease {
        name: row.get(0)?,
        holder: row.get(1)?,
        epoch: row.get(2)?,
        expires_ms: row.get(3)?,
        note: row.get(4)?,
    })
}

fn fact(row: &Row<'_>) -> rusqlite::Result<Fact> {
    Ok(Fact {
        position: row.get(0)?,
        id: row.get(1)?,
        subject: row.get(2)?,
        time_ms: row.get(3)?,
        source: row.get(4)?,
        cause: row.get(5)?,
        body: json(row, 6)?,
    })
}

fn letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let stream: String = row.get(2)?;
    let stream = Stream::ALL.into_iter().find(|known| known.name() == stream);
    Ok(DeadLetter {
        id: row.get(0)?,
        subscriber: row.get(1)?,
        stream: stream.ok_or_else(|| unreadable(2, "an unknown stream"))?,
        fact: json(row, 3)?,
        error: row.get(4)?,
        attempts: row.get(5)?,
        buried_ms: row.get(6)?,
        retried_ms: row.get(7)?,
        state: state(row, 8)?,
    })
}

fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<LetterState> {
    let name: String = row.get(column)?;
    LetterState::parse(&name).ok_or_else(|| unreadable(column, "an unknown state of a letter"))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| unreadable(column, error))
}

fn unreadable(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
