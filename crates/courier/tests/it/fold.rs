//! Projections follow the log and can always be made again from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use courier::rusqlite::{Transaction, params};
use courier::{
    Batch, Courier, Embedded, Fact, FoldError, Folder, NewFact, Options, Projection, Reader,
    Stream, folded, refold,
};
use serde_json::json;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);

/// Adds up amounts per subject.
struct Sums<const V: u32>;

impl<const V: u32> Projection for Sums<V> {
    const NAME: &'static str = "sums";
    const VERSION: u32 = V;

    fn schema(&self) -> &'static str {
        "CREATE TABLE sum (subject TEXT PRIMARY KEY, amount INTEGER NOT NULL) STRICT;
         CREATE TABLE seen (position INTEGER PRIMARY KEY) STRICT;"
    }

    fn apply(
        &mut self,
        rows: &Transaction<'_>,
        fact: &Fact,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        rows.prepare_cached("INSERT INTO seen VALUES (?1)")?.execute([fact.position])?;
        let amount = fact.body["amount"].as_i64().ok_or("a fact without an amount")?;
        rows.prepare_cached(
            "INSERT INTO sum VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
        )?
        .execute(params![fact.subject, amount])?;
        Ok(())
    }
}

struct Bench {
    dir: TempDir,
    log: Courier,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("log"), Options::default()).unwrap();
        Self { dir, log }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("sums")
    }

    async fn open(&self) -> Folder {
        Folder::open(&self.file(), Sums::<1>, self.log.clone()).await.unwrap()
    }

    /// Appends amounts on one subject; returns the last position.
    async fn add(&self, subject: &str, amounts: impl IntoIterator<Item = i64>) -> u64 {
        let head = self.log.head(Stream::Pipeline).await.unwrap();
        let facts: Vec<_> = amounts
            .into_iter()
            .zip(head..)
            .map(|(amount, n)| {
                NewFact::new(n.to_string(), subject, "test", json!({ "amount": amount }))
            })
            .collect();
        *self.log.append(Stream::Pipeline, Batch::new(facts), 1).await.unwrap().last().unwrap()
    }
}

async fn sum(reader: &Reader, subject: &'static str) -> i64 {
    reader
        .read(move |db| {
            db.query_row("SELECT amount FROM sum WHERE subject = ?1", [subject], |row| row.get(0))
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn rows_follow_the_log_and_a_reopened_file_goes_on() {
    let bench = Bench::new();
    bench.add("a", 1..=1000).await;
    let folder = bench.open().await;
    assert!(folder.rebuilt().is_some());
    folder.caught_up(1000, LIMIT).await.unwrap();
    assert_eq!(sum(&folder.reader(), "a").await, 500_500);

    let mut woken = folder.watch();
    let position = bench.add("a", [500]).await;
    tokio::time::timeout(LIMIT, woken.wait_for(|now| *now >= position)).await.unwrap().unwrap();
    assert_eq!(sum(&folder.reader(), "a").await, 501_000);
    assert_eq!(folder.position(), position);

    drop(folder);
    let position = bench.add("b", [7]).await;
    let folder = bench.open().await;
    assert_eq!(folder.rebuilt(), None);
    folder.caught_up(position, LIMIT).await.unwrap();
    assert_eq!(sum(&folder.reader(), "b").await, 7);
    assert_eq!(sum(&folder.reader(), "a").await, 501_000, "nothing was folded twice");
}

/// Folds, spoils the file, and expects it to be rebuilt for this reason and to be right.
async fn check_rebuilt(bench: &Bench, spoil: impl FnOnce(&Path), reason: &str) {
    let position = bench.add("a", [1, 2, 3]).await;
    let folder = bench.open().await;
    folder.caught_up(position, LIMIT).await.unwrap();
    let before = folder.reader().digest().await.unwrap();
    drop(folder);
    spoil(&bench.file());
    let folder = bench.open().await;
    let why = folder.rebuilt().unwrap_or("not rebuilt");
    assert!(why.contains(reason), "{why:?} should contain {reason:?}");
    folder.caught_up(position, LIMIT).await.unwrap();
    assert_eq!(folder.reader().digest().await.unwrap(), before);
}

fn sql(text: &'static str) -> impl FnOnce(&Path) {
    move |file| courier::rusqlite::Connection::open(file).unwrap().execute_batch(text).unwrap()
}

#[tokio::test]
async fn an_unfit_file_is_rebuilt() {
    let bench = Bench::new();
    check_rebuilt(&bench, |file| fs_err::remove_file(file).unwrap(), "there is none").await;
    check_rebuilt(&bench, |file| fs_err::write(file, "rubbish").unwrap(), "damaged").await;
    check_rebuilt(&bench, |file| fs_err::write(file, "").unwrap(), "damaged").await;
    check_rebuilt(&bench, sql("UPDATE courier_fold SET version = 0"), "version 0, not 1").await;
    check_rebuilt(&bench, sql("UPDATE courier_fold SET name = 'x'"), "another projection").await;
    check_rebuilt(&bench, sql("UPDATE courier_fold SET schema = 'x'"), "tables").await;
    check_rebuilt(&bench, sql("UPDATE courier_fold SET identity = 'x'"), "another log").await;
    check_rebuilt(&bench, sql("UPDATE courier_fold SET position = 99999"), "ahead").await;
    check_rebuilt(&bench, sql("DELETE FROM courier_fold"), "never finished").await;
    check_rebuilt(&bench, sql("DROP TABLE courier_fold"), "damaged").await;
}

#[tokio::test]
async fn a_file_from_another_log_is_rebuilt() {
    let (one, two) = (Bench::new(), Bench::new());
    one.add("a", [1]).await;
    two.add("a", [10, 20]).await;
    let folder = one.open().await;
    folder.caught_up(1, LIMIT).await.unwrap();
    drop(folder);
    let folder = Folder::open(&one.file(), Sums::<1>, two.log.clone()).await.unwrap();
    assert_eq!(folder.rebuilt(), Some("it is from another log"));
    folder.caught_up(2, LIMIT).await.unwrap();
    assert_eq!(sum(&folder.reader(), "a").await, 30);
}

#[tokio::test]
async fn a_new_version_is_folded_anew() {
    let bench = Bench::new();
    let position = bench.add("a", [1, 2]).await;
    bench.open().await.caught_up(position, LIMIT).await.unwrap();
    let folder = Folder::open(&bench.file(), Sums::<2>, bench.log.clone()).await.unwrap();
    assert_eq!(folder.rebuilt(), Some("it has version 1, not 2"));
    folder.caught_up(position, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_fact_that_cannot_be_folded_stops_the_fold_and_is_named() {
    let bench = Bench::new();
    let good = bench.add("a", [1]).await;
    let folder = bench.open().await;
    folder.caught_up(good, LIMIT).await.unwrap();
    let bad = NewFact::new("odd one", "b.c", "test", json!({}));
    let bad = bench.log.append(Stream::Pipeline, bad.into(), 1).await.unwrap()[0];
    let error = folder.caught_up(bad, LIMIT).await.unwrap_err();
    assert!(matches!(error, FoldError::Stuck { position, .. } if position == good), "{error}");
    let sentence = error.to_string();
    assert!(sentence.contains("(b.c, odd one): a fact without an amount"), "{sentence}");
    assert_eq!(folder.fault().as_deref(), Some("fact 2 (b.c, odd one): a fact without an amount"));
    // What was folded is still read, and nothing of the bad fact is.
    let reader = folder.reader();
    let seen =
        reader.read(|db| db.query_row("SELECT count(*) FROM seen", [], |row| row.get::<_, u64>(0)));
    assert_eq!(seen.await.unwrap(), 1);
}

#[tokio::test]
async fn waiting_for_what_never_comes_ends_with_the_limit() {
    let bench = Bench::new();
    let folder = bench.open().await;
    let error = folder.caught_up(1, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, FoldError::Late { position: 0, wanted: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_refold_has_the_same_digest_and_a_changed_row_shows() {
    let bench = Bench::new();
    bench.add("a", 1..=700).await;
    let position = bench.add("b", [1]).await;
    let folder = bench.open().await;
    folder.caught_up(position, LIMIT).await.unwrap();
    bench.add("later", [1]).await;
    drop(folder);
    let reader = Reader::new(&bench.file());
    let found = reader.digest().await.unwrap();
    assert!(found.tables["seen"].rows >= 701);
    let again = bench.dir.path().join("again");
    let expected = refold(&again, Sums::<1>, bench.log.clone(), found.position).await.unwrap();
    assert_eq!(expected, found);
    assert!(
        refold(&again, Sums::<1>, bench.log.clone(), 1).await.is_err(),
        "an existing file is not overwritten"
    );

    sql("UPDATE sum SET amount = amount + 1 WHERE subject = 'b'")(&bench.file());
    let changed = Reader::new(&bench.file()).digest().await.unwrap();
    assert_eq!(changed.differences(&expected), vec!["sum"]);
}

#[tokio::test]
async fn queries_see_one_state_and_cannot_write() {
    let bench = Bench::new();
    let position = bench.add("a", [1]).await;
    let folder = bench.open().await;
    folder.caught_up(position, LIMIT).await.unwrap();
    let (read_once, between) = std::sync::mpsc::channel::<()>();
    let (added, resume) = std::sync::mpsc::channel::<()>();
    let reader = folder.reader();
    let mut query = tokio::task::JoinSet::new();
    query.spawn(async move {
        reader
            .read(move |db| {
                let count =
                    || db.query_row("SELECT count(*) FROM seen", [], |row| row.get::<_, u64>(0));
                let before = count()?;
                read_once.send(()).unwrap();
                resume.recv().unwrap();
                Ok((before, count()?, db.execute("DELETE FROM seen", []).is_err()))
            })
            .await
            .unwrap()
    });
    tokio::task::spawn_blocking(move || between.recv().unwrap()).await.unwrap();
    let position = bench.add("a", [2]).await;
    folder.caught_up(position, LIMIT).await.unwrap();
    added.send(()).unwrap();
    assert_eq!(query.join_next().await.unwrap().unwrap(), (1, 1, true));
}

#[tokio::test]
async fn one_who_reads_beside_learns_how_far_a_file_is_and_changes_nothing() {
    let bench = Bench::new();
    assert_eq!(folded(&bench.file(), Sums::<1>, &bench.log).await.unwrap(), None);
    assert!(!bench.file().exists());
    let position = bench.add("a", 1..=10).await;
    let folder = bench.open().await;
    folder.caught_up(position, LIMIT).await.unwrap();
    drop(folder);
    bench.add("a", [1]).await;
    let found = folded(&bench.file(), Sums::<1>, &bench.log).await.unwrap();
    assert_eq!(found, Some(position));
    let other = folded(&bench.file(), Sums::<2>, &bench.log).await.unwrap();
    assert_eq!(other, None, "it is of another version");
    fs_err::write(bench.file(), "no database").unwrap();
    assert_eq!(folded(&bench.file(), Sums::<1>, &bench.log).await.unwrap(), None);
    assert_eq!(fs_err::read_to_string(bench.file()).unwrap(), "no database");
}
