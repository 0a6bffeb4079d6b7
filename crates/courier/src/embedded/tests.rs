use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::fact::NewFact;

const NOW: i64 = 1_700_000_000_000;

fn open(dir: &TempDir) -> Courier {
    Embedded::open(&dir.path().join("log"), Options::default()).unwrap()
}

fn fact(id: &str, subject: &str) -> NewFact {
    NewFact::new(id, subject, "test", json!({}))
}

#[tokio::test]
async fn a_file_from_before_leases_had_notes_is_read_as_it_is_and_completed_when_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let ttl = Duration::from_secs(10);
    let lease = open(&dir).acquire("l", "a", ttl, NOW).await.unwrap();
    // The writer of a log that was dropped may still be closing its file.
    let old = rusqlite::Connection::open(&path).unwrap();
    old.busy_timeout(Duration::from_secs(5)).unwrap();
    old.execute_batch("ALTER TABLE lease DROP COLUMN note").unwrap();
    let beside = Embedded::open_read_only(&path).unwrap();
    assert_eq!(beside.leases("", NOW).await.unwrap(), std::slice::from_ref(&lease));
    drop((old, beside));
    let log = open(&dir);
    let said = Lease { note: "I play".into(), ..lease };
    log.renew(&said, ttl, NOW).await.unwrap();
    assert_eq!(log.lease("l", NOW).await.unwrap(), Some(said));
}

#[tokio::test]
async fn appends_wait_for_another_process_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Embedded::open(&path, Options { queue: 4, ..Options::default() }).unwrap();
    let mut other = rusqlite::Connection::open(&path).unwrap();
    let held = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let mut appends = tokio::task::JoinSet::new();
    for id in 0..50 {
        let log = log.clone();
        appends.spawn(async move {
            log.append(Stream::Pipeline, fact(&id.to_string(), "s").into(), NOW).await
        });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(appends.try_join_next().is_none(), "the file is locked");
    held.rollback().unwrap();
    let mut positions = Vec::new();
    while let Some(appended) = appends.join_next().await {
        positions.extend(appended.unwrap().unwrap());
    }
    positions.sort_unstable();
    assert_eq!(positions, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let connection = schema::open(&path, Durability::Normal).unwrap();
    let writer = Arc::new(Writer::spawn(&path, connection, 4, || {}).unwrap());
    let (entered, inside) = std::sync::mpsc::channel::<()>();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let mut queued = tokio::task::JoinSet::new();
    let first = Arc::clone(&writer);
    queued.spawn(async move {
        let block = move |_: &rusqlite::Connection| {
            entered.send(()).unwrap();
            gate.recv().unwrap();
            Ok::<(), sql::Stop<Error>>(())
        };
        first.write(Steps::Many, block, |()| {}).await
    });
    tokio::task::spawn_blocking(move || inside.recv().unwrap()).await.unwrap();
    for _ in 0..10 {
        let writer = Arc::clone(&writer);
        queued.spawn(async move { writer.write(Steps::Many, |_| Ok(()), |()| {}).await });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(writer.waiting() <= 4, "six more tasks wait outside");
    }
    assert_eq!(writer.waiting(), 4);
    open.send(()).unwrap();
    while let Some(written) = queued.join_next().await {
        written.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_cancelled_append_does_not_disturb_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    for id in 0..50 {
        let append = log.append(Stream::Pipeline, fact(&format!("x{id}"), "s").into(), NOW);
        // Polled once, then dropped.
        tokio::select! {
            biased;
            _ = append => {}
            () = std::future::ready(()) => {}
        }
        log.append(Stream::Pipeline, fact(&id.to_string(), "s").into(), NOW).await.unwrap();
    }
    let facts = log.read(Stream::Pipeline, 0, 1000).await.unwrap();
    assert!(facts.iter().filter(|fact| !fact.id.starts_with('x')).count() == 50);
}

#[tokio::test]
async fn a_full_disk_refuses_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let connection = schema::open(&path, Durability::Normal).unwrap();
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    connection
        .query_row(&format!("PRAGMA max_page_count = {}", pages + 8), [], |_| Ok(()))
        .unwrap();
    let log = embedded(&path, connection);
    let large = |id: u32| NewFact::new(id.to_string(), "s", "test", json!("x".repeat(3000)));
    let mut kept = 0;
    let error = loop {
        match log.append(Stream::Pipeline, large(kept).into(), NOW).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "the file should be full by now");
    };
    assert!(matches!(error, AppendError::Failed(Error::Full { .. })), "{error:?}");
    assert!(kept > 0);
    let facts = log.read(Stream::Pipeline, 0, 1000).await.unwrap();
    assert_eq!(facts.len(), kept as usize, "what was acknowledged is there, nothing else");
    drop(log);
    let log = Embedded::open(&path, Options::default()).unwrap();
    log.append(Stream::Pipeline, large(kept).into(), NOW).await.unwrap();
}

#[tokio::test]
async fn a_group_that_is_given_up_fails_for_all_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let connection = schema::open(&path, Durability::Normal).unwrap();
    let writer = Arc::new(Writer::spawn(&path, connection, 16, || {}).unwrap());
    let (entered, inside) = std::sync::mpsc::channel::<()>();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let held_up = Arc::clone(&writer);
    let mut blocked = in_background(async move {
        let insert = move |db: &rusqlite::Connection| {
            entered.send(()).unwrap();
            gate.recv().unwrap();
            db.execute("INSERT INTO lease VALUES ('l', 'a', 1, 1, '')", [])?;
            Ok::<(), sql::Stop<Error>>(())
        };
        held_up.write(Steps::Many, insert, |()| panic!("it was not committed")).await
    });
    tokio::task::spawn_blocking(move || inside.recv().unwrap()).await.unwrap();
    let failing = Arc::clone(&writer);
    let mut failing = in_background(async move {
        let give_up = |db: &rusqlite::Connection| {
            // What SQLite does by itself on some input/output errors.
            db.execute_batch("ROLLBACK")?;
            Err::<(), _>(sql::Stop::<Error>::Sql(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
                None,
            )))
        };
        failing.write(Steps::Many, give_up, |()| {}).await
    });
    while writer.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    open.send(()).unwrap();
    assert!(matches!(blocked.join_next().await, Some(Ok(Err(Error::Full { .. })))));
    assert!(matches!(failing.join_next().await, Some(Ok(Err(Error::Full { .. })))));
    let count = |db: &rusqlite::Connection| {
        Ok::<u64, sql::Stop<Error>>(db.query_row("SELECT count(*) FROM lease", [], |r| r.get(0))?)
    };
    assert_eq!(writer.write(Steps::Many, count, |_| {}).await.unwrap(), 0);
}

/// Holds the writer in a transaction until the gate opens.
async fn held(
    writer: &Arc<Writer>,
) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinSet<Result<(), Error>>) {
    let (entered, inside) = std::sync::mpsc::channel::<()>();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let writer = Arc::clone(writer);
    let holding = in_background(async move {
        let hold = move |_: &rusqlite::Connection| {
            entered.send(()).unwrap();
            gate.recv().unwrap();
            Ok::<(), sql::Stop<Error>>(())
        };
        writer.write(Steps::Many, hold, |()| {}).await
    });
    tokio::task::spawn_blocking(move || inside.recv().unwrap()).await.unwrap();
    (open, holding)
}

#[tokio::test]
async fn what_is_known_within_a_large_batch_keeps_its_position_and_leaves_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir);
    let batch = |ids: &[u64]| {
        Batch::new(ids.iter().map(|id| fact(&format!("f{id}"), "s")).collect::<Vec<_>>())
    };
    let known = log.append(Stream::Pipeline, batch(&[5, 6, 20]), NOW).await.unwrap();
    assert_eq!(known, [1, 2, 3]);
    let ids: Vec<u64> = (0..40).collect();
    let positions = log.append(Stream::Pipeline, batch(&ids), NOW).await.unwrap();
    let mut next = 3;
    let mut placed: BTreeMap<u64, u64> = BTreeMap::from([(5, 1), (6, 2), (20, 3)]);
    let expected: Vec<u64> = ids
        .iter()
        .map(|id| {
            *placed.entry(*id).or_insert_with(|| {
                next += 1;
                next
            })
        })
        .collect();
    assert_eq!(positions, expected);
    assert_eq!(log.repeats(Stream::Pipeline), Repeats { by_id: 3, by_content: 3 });
    // The same from memory and from the file.
    let page = log.next(Stream::Pipeline, 0, "", 100).await.unwrap();
    let facts = log.read(Stream::Pipeline, 0, 100).await.unwrap();
    assert_eq!(
        page.facts.iter().map(|fact| &**fact).collect::<Vec<_>>(),
        facts.iter().collect::<Vec<_>>()
    );
    assert_eq!(facts.len(), 40);
}

#[tokio::test]
async fn what_waits_is_committed_together_up_to_so_many_rows_with_one_wake_up() {
    let dir = tempfile::tempdir().unwrap();
    let connection = schema::open(&dir.path().join("log"), Durability::Normal).unwrap();
    let commits = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&commits);
    let wake = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let path = dir.path().join("log");
    let writer = Arc::new(Writer::spawn(&path, connection, 16, wake).unwrap());
    for (rows, expected) in [(1, 1), (400, 3)] {
        let before = commits.load(Ordering::Relaxed);
        let (open, mut writing) = held(&writer).await;
        for number in 0..3 {
            let writer = Arc::clone(&writer);
            let insert = move |db: &rusqlite::Connection| {
                for row in 0..rows {
                    db.execute(
                        "INSERT INTO lease VALUES (?1, 'a', 1, 1, '')",
                        [format!("{rows}-{number}-{row}")],
                    )?;
                }
                Ok::<(), sql::Stop<Error>>(())
            };
            writing.spawn(async move { writer.write(Steps::Many, insert, |()| {}).await });
        }
        while writer.waiting() < 3 {
            tokio::task::yield_now().await;
        }
        open.send(()).unwrap();
        while let Some(written) = writing.join_next().await {
            written.unwrap().unwrap();
        }
        // The wake-up comes after the last answer: one of another round may be among them.
        writer.write(Steps::One, |_| Ok::<(), sql::Stop<Error>>(()), |()| {}).await.unwrap();
        let made = commits.load(Ordering::Relaxed) - before;
        assert!((expected..=expected + 2).contains(&made), "{rows} rows each: {made} commits");
    }
}

#[tokio::test]
async fn positions_come_along_with_a_commit_each_once_and_fail_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let connection = schema::open(&path, Durability::Normal).unwrap();
    let writer = Arc::new(Writer::spawn(&path, connection, 16, || {}).unwrap());
    let advance = |name: &'static str, to: u64| {
        let writer = Arc::clone(&writer);
        async move { writer.advance(Stream::Pipeline, name.to_owned(), to).await }
    };
    let position = async |name: &'static str| {
        let read = move |db: &rusqlite::Connection| {
            Ok::<u64, sql::Stop<Error>>(sql::position(db, Stream::Pipeline, name)?)
        };
        writer.write(Steps::One, read, |_| {}).await.unwrap()
    };

    let (open, _holding) = held(&writer).await;
    let mut asked = tokio::task::JoinSet::new();
    for (name, to) in [("a", 1), ("a", 3), ("a", 2), ("b", 5)] {
        asked.spawn(advance(name, to));
    }
    // One who does not wait for its answer is served too.
    tokio::select! {
        biased;
        _ = advance("c", 4) => {}
        () = std::future::ready(()) => {}
    }
    while writer.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(writer.waiting(), 1, "they ask for one commit together");
    open.send(()).unwrap();
    while let Some(recorded) = asked.join_next().await {
        recorded.unwrap().unwrap();
    }
    assert_eq!((position("a").await, position("b").await, position("c").await), (3, 5, 4));

    let (open, _holding) = held(&writer).await;
    let lost = writer.write(
        Steps::Many,
        |db| Ok::<(), sql::Stop<Error>>(db.execute_batch("ROLLBACK")?),
        |()| {},
    );
    let ask = async {
        let (lost, advanced) = tokio::join!(lost, advance("a", 9));
        assert!(lost.is_err() && advanced.is_err(), "{lost:?} {advanced:?}");
    };
    tokio::join!(ask, async { open.send(()).unwrap() });
    assert_eq!(position("a").await, 3);
    advance("a", 9).await.unwrap();
    assert_eq!(position("a").await, 9);
}

#[tokio::test]
async fn operational_facts_go_by_number_and_by_age_and_pipeline_facts_stay() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_age: Duration::from_secs(1000), max_facts: 300 };
    let options = Options { retention, ..Options::default() };
    let log = Embedded::open(&dir.path().join("log"), options).unwrap();
    for stream in Stream::ALL {
        for hundred in 0..12 {
            let facts = (0..100).map(|i| fact(&format!("{hundred}-{i}"), "s")).collect();
            log.append(stream, Batch::new(facts), NOW).await.unwrap();
        }
    }
    let left = log.read(Stream::Operational, 0, 10_000).await.unwrap();
    assert!((300..300 + 256 + 100).contains(&left.len()), "{} are left", left.len());
    assert_eq!(left.last().unwrap().position, 1200);
    for hundred in 12..16 {
        let facts = (0..100).map(|i| fact(&format!("{hundred}-{i}"), "s")).collect();
        log.append(Stream::Operational, Batch::new(facts), NOW + 2_000_000).await.unwrap();
    }
    let left = log.read(Stream::Operational, 0, 10_000).await.unwrap();
    assert!(left.iter().all(|fact| fact.time_ms > NOW), "the old ones are gone");
    assert_eq!(log.head(Stream::Operational).await.unwrap(), 1600);
    assert_eq!(log.read(Stream::Pipeline, 0, 10_000).await.unwrap().len(), 1200);
}

/// What a manager keeps by default, over weeks of a busy and years of a quiet one.
#[tokio::test]
async fn a_week_or_a_hundred_thousand_operational_facts_are_kept() {
    const HOUR: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let log = Embedded::open(&dir.path().join("log"), Options::default()).unwrap();
    let tell = async |hour: i64, facts: i64| {
        let facts = (0..facts).map(|i| fact(&format!("{hour}-{i}"), "s")).collect();
        log.append(Stream::Operational, Batch::new(facts), NOW + hour * HOUR).await.unwrap();
    };
    // 20 an hour for three weeks: age decides.
    let hours = 21 * 24;
    for hour in 0..hours {
        tell(hour, 20).await;
    }
    let left = log.read(Stream::Operational, 0, 1_000_000).await.unwrap();
    let week = 7 * 24 * 20;
    assert!((week..week + 256).contains(&left.len()), "{} are left", left.len());
    // 1000 in each of the next 150 hours: number decides, though none of them is a week old.
    for hour in hours..hours + 150 {
        tell(hour, 1000).await;
    }
    let left = log.read(Stream::Operational, 0, 1_000_000).await.unwrap();
    assert!((100_000..100_000 + 1256).contains(&left.len()), "{} are left", left.len());
    assert!(left.iter().all(|fact| fact.time_ms >= NOW + (hours + 49) * HOUR), "the oldest went");
}

#[tokio::test]
async fn positions_are_not_given_again_after_everything_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Embedded::open(&path, Options::default()).unwrap();
    log.append(Stream::Operational, fact("1", "s").into(), NOW).await.unwrap();
    drop(log);
    rusqlite::Connection::open(&path).unwrap().execute("DELETE FROM operational", []).unwrap();
    let log = Embedded::open(&path, Options::default()).unwrap();
    assert_eq!(log.head(Stream::Operational).await.unwrap(), 1);
    assert_eq!(log.append(Stream::Operational, fact("2", "s").into(), NOW).await.unwrap(), vec![2]);
}

#[test]
fn pipeline_facts_cannot_be_changed_even_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let connection = schema::open(&dir.path().join("log"), Durability::Full).unwrap();
    let insert = "INSERT INTO pipeline (id, subject, time_ms, source, body)
                  VALUES ('a', 's', 1, 'me', '{}')";
    connection.execute(insert, []).unwrap();
    for change in ["DELETE FROM pipeline", "UPDATE pipeline SET body = '[]'"] {
        assert!(connection.execute(change, []).is_err(), "{change}");
    }
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_what_is_committed_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    assert!(matches!(Embedded::open_read_only(&path), Err(OpenError::Missing { .. })));
    let log = Embedded::open(&path, Options::default()).unwrap();
    log.append(Stream::Pipeline, fact("1", "s").into(), NOW).await.unwrap();
    let beside = Embedded::open_read_only(&path).unwrap();
    log.append(Stream::Pipeline, fact("2", "s").into(), NOW).await.unwrap();
    assert_eq!(beside.read(Stream::Pipeline, 0, 9).await.unwrap().len(), 2);
    assert_eq!(beside.head(Stream::Pipeline).await.unwrap(), 2);
    assert_eq!(beside.identity().await.unwrap(), log.identity().await.unwrap());
    let refused = beside.append(Stream::Pipeline, fact("3", "s").into(), NOW).await;
    assert!(matches!(refused, Err(AppendError::Failed(Error::ReadOnly { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_was_only_begun_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let begun = rusqlite::Connection::open(&path).unwrap();
    begun.pragma_update(None, "journal_mode", "wal").unwrap();
    drop(begun);
    assert!(fs_err::metadata(&path).unwrap().len() > 0);
    let log = Embedded::open(&path, Options::default()).unwrap();
    log.append(Stream::Pipeline, fact("1", "s").into(), NOW).await.unwrap();
}

#[tokio::test]
async fn two_logs_have_two_identities() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = dirs.each_ref().map(open);
    assert_ne!(one.identity().await.unwrap(), two.identity().await.unwrap());
}

/// What a log must be, in a few lines.
#[derive(Default)]
struct Ideal {
    facts: Vec<(String, String)>,
    /// Holder (none = given back) and epoch.
    leases: BTreeMap<String, (Option<String>, u64)>,
}

impl Ideal {
    fn last_on(&self, subject: &str) -> u64 {
        self.facts.iter().rposition(|fact| fact.1 == subject).map_or(0, |index| index as u64 + 1)
    }

    fn append(&mut self, batch: &Batch) -> Result<Vec<u64>, &'static str> {
        let known: HashMap<&str, (u64, &str)> = (1..)
            .zip(&self.facts)
            .map(|(position, fact)| (fact.0.as_str(), (position, fact.1.as_str())))
            .collect();
        let known: Vec<_> =
            batch.facts.iter().map(|fact| known.get(fact.id.as_str()).copied()).collect();
        let clash = |(fact, known): (&NewFact, &Option<(u64, &str)>)| {
            known.is_some_and(|known| known.1 != fact.subject)
        };
        if batch.facts.iter().zip(&known).any(clash) {
            return Err("id");
        }
        let known: Vec<_> = known.into_iter().map(|known| known.map(|known| known.0)).collect();
        if known.iter().any(Option::is_none) {
            if let Some(fence) = &batch.fence {
                let current = self.leases.get(&fence.lease);
                if !current.is_some_and(|lease| lease.0.is_some() && lease.1 == fence.epoch) {
                    return Err("fence");
                }
            }
            for (fact, known) in batch.facts.iter().zip(&known) {
                if let (None, Some(crate::Expect::LastOnSubject(k))) = (known, fact.expect)
                    && self.last_on(&fact.subject) != k
                {
                    return Err("conflict");
                }
            }
        }
        Ok(batch
            .facts
            .iter()
            .zip(known)
            .map(|(fact, known)| {
                known.unwrap_or_else(|| {
                    self.facts.push((fact.id.clone(), fact.subject.clone()));
                    self.facts.len() as u64
                })
            })
            .collect())
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// Ids, subjects and expectations relative to the truth; and whether fenced by which epoch.
    Append(Vec<(u8, u8, Option<u8>)>, Option<u8>),
    Acquire(u8),
    Release,
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let facts = prop::collection::vec((0_u8..40, 0_u8..3, prop::option::of(0_u8..3)), 1..4);
    let op = prop_oneof![
        12 => (facts, prop::option::weighted(0.3, 0_u8..4)).prop_map(|(f, e)| Op::Append(f, e)),
        2 => (0_u8..2).prop_map(Op::Acquire),
        1 => Just(Op::Release),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_history_of_appends_is_that_of_an_ideal_log(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut log = open(&dir);
            let mut ideal = Ideal::default();
            let mut held: Option<Lease> = None;
            for op in ops {
                match op {
                    Op::Append(facts, fence) => {
                        let mut batch = Batch::default();
                        for (id, subject, expect) in facts {
                            let subject = format!("s{subject}");
                            let mut new = fact(&format!("i{id}"), &subject);
                            if let Some(off) = expect {
                                // Right in one of three cases.
                                let wrong = u64::from(off);
                                new = new.after(ideal.last_on(&subject).saturating_sub(wrong));
                            }
                            if !batch.facts.iter().any(|fact| fact.id == new.id) {
                                batch.facts.push(new);
                            }
                        }
                        if let Some(epoch) = fence {
                            let (lease, epoch) = ("l".to_owned(), u64::from(epoch));
                            batch.fence = Some(crate::Fence { lease, epoch });
                        }
                        let real = log.append(Stream::Pipeline, batch.clone(), NOW).await;
                        let real = real.map_err(|error| match error {
                            AppendError::IdReused { .. } => "id",
                            AppendError::Fenced(_) => "fence",
                            AppendError::Conflict { .. } => "conflict",
                            other => panic!("{other}"),
                        });
                        prop_assert_eq!(real, ideal.append(&batch));
                    }
                    Op::Acquire(holder) => {
                        let holder = holder.to_string();
                        let real = log.acquire("l", &holder, Duration::from_secs(9), NOW).await;
                        let lease = ideal.leases.entry("l".to_owned()).or_insert((None, 0));
                        if lease.0.as_ref().is_some_and(|by| *by != holder) {
                            let refused = matches!(real, Err(LeaseError::Held { .. }));
                            prop_assert!(refused, "{:?}", real);
                        } else {
                            let real = real.unwrap();
                            *lease = (Some(holder), lease.1 + 1);
                            prop_assert_eq!(real.epoch, lease.1);
                            held = Some(real);
                        }
                    }
                    Op::Release => {
                        if let Some(lease) = held.take() {
                            log.release(&lease).await.unwrap();
                            if let Some(entry) = ideal.leases.get_mut("l") {
                                entry.0 = None;
                            }
                        }
                    }
                    Op::Reopen => {
                        drop(log);
                        log = open(&dir);
                    }
                }
            }
            let real = log.read(Stream::Pipeline, 0, 1000).await.unwrap();
            let real: Vec<_> = real.into_iter().map(|fact| (fact.id, fact.subject)).collect();
            prop_assert_eq!(real, ideal.facts);
            Ok(())
        })?;
    }
}

/// Starts a future beside the test.
fn in_background<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinSet<T> {
    let mut set = tokio::task::JoinSet::new();
    set.spawn(work);
    set
}

fn embedded(path: &Path, connection: rusqlite::Connection) -> Courier {
    Courier::new(Embedded {
        reader: Reader::new(path),
        writer: Some(Writer::spawn(path, connection, 16, || {}).unwrap()),
        ends: Arc::new(Ends {
            pipeline: End::new(watch::Sender::new(0)),
            operational: End::new(watch::Sender::new(0)),
            retries: Retries::default(),
        }),
        retention: Retention::default(),
    })
}
