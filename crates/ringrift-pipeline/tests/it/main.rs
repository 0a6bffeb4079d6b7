//! Log and catalogue on real files.

#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

mod holdings;
mod story;

use std::{collections::BTreeSet, path::PathBuf};

use courier::{Batch, Courier, Digest, Embedded, Folder, NewFact, Options, Reader, Stream, refold};
use ringrift_pipeline::{
    BatchState, Catalogue, Event, Gate, Layer, ModelStatus, NodeAdmitted, NodeDrained, NodeId,
    NodeInvited, NodeRecovered, NodeRemoved, NodeUnhealthy, Operational, PipelineFold, Record,
    RecoveryAttempted, RecoveryBegun, RecoveryEnded, RecoveryOutcome, RecoveryStep, WorkKind,
    WorkState,
};
use story::{claimed, committed, hash, hex, model, result, selfplay, story, work};
use tempfile::TempDir;

struct Place {
    log: Courier,
    catalogue: Catalogue,
    dir: TempDir,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Embedded::open(&dir.path().join("facts.sqlite"), Options::default()).unwrap();
        let catalogue = Self::fold(&dir.path().join("catalogue.sqlite"), &log).await;
        Self { log, catalogue, dir }
    }

    async fn fold(path: &std::path::Path, log: &Courier) -> Catalogue {
        Catalogue::new(log.clone(), Folder::open(path, PipelineFold, log.clone()).await.unwrap())
    }

    async fn tell(&self, events: Vec<Event>) {
        for (time, event) in (1..).zip(events) {
            self.catalogue.record(vec![Record::always(event)], time).await.unwrap();
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What all tables hold now.
    async fn digest(&self) -> Digest {
        Reader::new(&self.file("catalogue.sqlite")).digest().await.unwrap()
    }
}

#[test]
fn every_event_survives_the_wire_and_the_story_tells_them_all() {
    let mut told = BTreeSet::new();
    for event in story() {
        let text = serde_json::to_string(&event).unwrap();
        let back: Event = serde_json::from_str(&text).unwrap();
        assert_eq!(back, event, "{text}");
        let body = serde_json::to_value(&event).unwrap();
        assert_eq!(body["topic"], event.topic());
        let kind = Event::KINDS.iter().find(|kind| kind.topic == event.topic()).unwrap();
        let listed = kind.fields.iter().map(|field| field.name).chain(["topic"]);
        let written = body.as_object().unwrap().keys().map(String::as_str);
        assert_eq!(written.collect::<BTreeSet<_>>(), listed.collect(), "{}", kind.topic);
        let subject = event.subject();
        assert!(!subject.is_empty() && !subject.contains(' '), "{subject}");
        told.insert(event.topic());
    }
    assert_eq!(
        told,
        Event::KINDS.iter().map(|kind| kind.topic).collect(),
        "a new event belongs into the story"
    );
}

#[tokio::test]
async fn every_event_changes_the_catalogue() {
    let place = Place::new().await;
    for (time, event) in (1..).zip(story()) {
        let before = place.digest().await;
        let topic = event.topic();
        place.catalogue.record(vec![Record::always(event)], time).await.unwrap();
        let changed = place.digest().await.differences(&before);
        assert!(!changed.is_empty(), "{topic} changes nothing");
    }
}

#[tokio::test]
async fn a_catalogue_that_was_deleted_comes_back_equal() {
    let place = Place::new().await;
    place.tell(story()).await;
    let head = place.log.head(Stream::Pipeline).await.unwrap();
    let one = refold(&place.file("one.sqlite"), PipelineFold, place.log.clone(), head).await;
    let two = refold(&place.file("two.sqlite"), PipelineFold, place.log.clone(), head).await;
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    assert_eq!(one.position, head);
    assert_eq!(one.tables["works"].rows, 5);
    assert_eq!(one, place.digest().await, "also equal to the one that was folded fact by fact");
}

#[tokio::test]
async fn the_story_ends_where_it_should() {
    let place = Place::new().await;
    place.tell(story()).await;
    let catalogue = &place.catalogue;
    let champion = catalogue.champion(hex()).await.unwrap().unwrap();
    assert_eq!(champion.model.id, model(1));
    assert_eq!(champion.model.status, ModelStatus::Champion);
    assert_eq!(catalogue.model(&model(0)).await.unwrap().unwrap().status, ModelStatus::Former);
    assert_eq!(catalogue.model(&model(2)).await.unwrap().unwrap().status, ModelStatus::Rejected);
    let batches = catalogue.recent_batches(None, 9).await.unwrap();
    let states: Vec<_> = batches.iter().rev().map(|batch| (batch.state, batch.exported)).collect();
    assert_eq!(states, [(BatchState::Accepted, true), (BatchState::Rejected, false)]);
    assert_eq!(batches[0].reason.as_deref(), Some("game 3 does not replay"));
    let counts = catalogue.work_counts(WorkKind::Selfplay, Some(hex())).await.unwrap();
    assert_eq!((counts.done, counts.cancelled, counts.queued), (2, 1, 0));
    let second = catalogue.work(&work(WorkKind::Selfplay, 2)).await.unwrap().unwrap();
    assert_eq!((second.state, second.attempt), (WorkState::Done, 2));
    let first = catalogue.work(&work(WorkKind::Selfplay, 1)).await.unwrap().unwrap();
    assert_eq!(first.attempt, 1, "a released attempt is not used up");
    assert!(catalogue.windows(hex(), 1).await.unwrap()[0].trained);
    assert_eq!(catalogue.unused_rows(hex()).await.unwrap(), 0, "a training has read them all");
    assert_eq!(catalogue.promotions(None).await.unwrap().len(), 1);
    assert_eq!(catalogue.known_games(vec!["game-3".into(), "x".into()]).await.unwrap().len(), 1);
    let blobs = catalogue.blobs(None).await.unwrap();
    assert!(blobs.iter().all(|blob| blob.hash != hash("c1")), "what is trashed is not due");
    assert!(catalogue.is_trashed(&hash("c1")).await.unwrap());
    assert_eq!(catalogue.parameters_or_default(hex()).await.unwrap().simulations, 48);
    assert_eq!(
        catalogue.next_work(WorkKind::Selfplay, hex()).await.unwrap().0,
        "selfplay-hex8_2p-000004"
    );
}

#[tokio::test]
async fn a_fact_of_a_newer_version_changes_nothing_and_stops_nothing() {
    let place = Place::new().await;
    place.tell(vec![selfplay(1).into()]).await;
    let strange = serde_json::json!({"topic": "tournament.held", "winner": "somebody"});
    let fact = NewFact::new("strange", "tournament.1", "newer", strange);
    place.log.append(Stream::Pipeline, Batch::new(vec![fact]), 5).await.unwrap();
    place.tell(vec![selfplay(2).into()]).await;
    assert_eq!(place.catalogue.open_works().await.unwrap().len(), 2);
    assert_eq!(place.catalogue.position().await.unwrap(), 3);
}

#[tokio::test]
async fn of_two_writers_who_saw_the_same_only_one_is_taken() {
    let place = Place::new().await;
    let item = work(WorkKind::Selfplay, 1);
    place.tell(vec![selfplay(1).into()]).await;
    let seen = place.catalogue.work(&item).await.unwrap().unwrap().position;
    let (here, there) = (place.catalogue.for_source("here"), place.catalogue.for_source("there"));
    let claim = || vec![Record::after(claimed(item.clone(), 1), seen)];
    let (one, two) = tokio::join!(here.record(claim(), 10), there.record(claim(), 10));
    let (taken, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(taken.is_ok());
    let error = refused.unwrap_err();
    assert!(error.is_superseded() && !error.is_obstacle(), "{error}");
    // The whole append of a loser is void, also the part that nobody contests.
    let end = vec![
        Record::after(ringrift_pipeline::WorkCompleted { work: item.clone(), seconds: 1.0 }, seen),
        Record::first(committed("a1", 1)),
    ];
    assert!(place.catalogue.record(end, 11).await.unwrap_err().is_superseded());
    assert!(place.catalogue.batch(&hash("a1")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_repeated_record_is_a_no_op() {
    let place = Place::new().await;
    let queued = || vec![Record::first(selfplay(1))];
    let first = place.catalogue.record(queued(), 1).await.unwrap();
    assert_eq!(place.catalogue.record(queued(), 2).await.unwrap(), first);
    let once = || vec![Record::once(committed("a1", 1), "key")];
    let said = place.catalogue.record(once(), 3).await.unwrap();
    assert_eq!(place.catalogue.record(once(), 4).await.unwrap(), said);
    assert_eq!(place.log.head(Stream::Pipeline).await.unwrap(), 2);
}

#[tokio::test]
async fn a_gate_is_told_when_its_answer_changes() {
    let place = Place::new().await;
    let tell = async |gate: &Gate, time| {
        place.catalogue.tell_gate(gate.to_fact("TRAINING", Some(hex())), time).await.unwrap()
    };
    let deny = |rows: u32| Gate::deny("rows", format!("{rows} of 100 rows"), "more games");
    assert!(tell(&deny(10), 1).await);
    assert!(!tell(&deny(20), 2).await, "another figure is no other answer");
    assert!(tell(&Gate::Allow, 3).await);
    assert!(!tell(&Gate::Allow, 4).await);
    assert!(tell(&deny(30), 5).await);
    let (gate, since) = place.catalogue.gate("TRAINING", Some(hex())).await.unwrap().unwrap();
    assert_eq!((gate.open, gate.reason.as_str(), since), (false, "30 of 100 rows", 5));
    let facts = place.log.read(Stream::Operational, 0, 9).await.unwrap();
    for fact in facts {
        let told: Operational = serde_json::from_value(fact.body).unwrap();
        assert_eq!(told.topic(), "gate.changed");
    }
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_the_same() {
    let place = Place::new().await;
    place.tell(story()).await;
    let reader = Reader::new(&place.file("catalogue.sqlite"));
    let reading = Catalogue::read_only(place.log.clone(), reader);
    let models = reading.models(None).await.unwrap();
    assert_eq!(models, place.catalogue.models(None).await.unwrap());
    assert_eq!(models.len(), 3);
}

#[tokio::test]
async fn rows_that_no_training_has_read_are_counted_wherever_they_are() {
    let place = Place::new().await;
    place.tell(vec![committed("a1", 1).into(), committed("a2", 2).into()]).await;
    assert_eq!(place.catalogue.unused_rows(hex()).await.unwrap(), 600, "in batches");
    let events = story();
    let exported = events.iter().find(|event| event.topic() == "samples.exported").unwrap();
    place.catalogue.record(vec![Record::always(exported.clone())], 9).await.unwrap();
    assert_eq!(place.catalogue.unused_rows(hex()).await.unwrap(), 600, "half of them in samples");
    assert_eq!(place.catalogue.rows_after(hex(), 0).await.unwrap(), (300, 1));
}

#[test]
fn impossible_results_are_named() {
    let check = |change: fn(&mut ringrift_pipeline::MatchResult), expected: Option<&str>| {
        let mut result = result();
        change(&mut result);
        match (result.fault(), expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
            other => panic!("{other:?}"),
        }
    };
    check(|_| {}, None);
    check(|result| result.games = 0, Some("without a game"));
    check(|result| result.losses = 31, Some("70 wins and 31 losses do not make 100 games"));
    check(|result| result.pairs = [10, 10, 29], Some("contradict 70 wins"));
    check(|result| result.pairs = [0, 30, 20], None);
    check(|result| result.score = 1.7, Some("score 1.7 is impossible"));
    check(|result| result.score = f64::NAN, Some("impossible"));
    check(
        |result| result.finishes = Some([("a>b=b".to_owned(), 99)].into()),
        Some("finishes {\"a>b=b\": 99} are not those of 100 games"),
    );
    check(|result| result.distinct_games = 101, Some("101 distinct of 100 games"));
}

/// A log of before the second ruler has neither the field of its result nor that of its pairs.
#[test]
fn what_was_said_before_there_was_a_second_ruler_is_still_read() {
    let mut read = 0;
    for event in story() {
        let mut body = serde_json::to_value(&event).unwrap();
        let gone = match &event {
            Event::EvaluationCompleted(_) => body.as_object_mut().unwrap().remove("heuristic"),
            Event::WorkQueued(_) => body["job"].as_object_mut().unwrap().remove("heuristic_pairs"),
            _ => continue,
        };
        let Some(gone) = gone else { continue };
        match serde_json::from_value(body).unwrap() {
            Event::EvaluationCompleted(evaluation) => {
                assert!(gone.is_null() && evaluation.heuristic.is_none());
            }
            Event::WorkQueued(queued) => {
                let ringrift_pipeline::Job::Gauntlet(job) = queued.job else { unreachable!() };
                assert_eq!((gone.as_u64(), job.heuristic_pairs), (Some(25), 0));
            }
            other => panic!("{other:?}"),
        }
        read += 1;
    }
    assert_eq!(read, 2);
}

#[test]
fn jobs_name_all_that_they_read() {
    for event in story() {
        if let Event::WorkQueued(queued) = event {
            let inputs = queued.job.inputs();
            let text = serde_json::to_string(&queued.job).unwrap();
            // Every hash in the job's text is one of its inputs, and the other way round.
            let named: BTreeSet<&str> = text
                .split('"')
                .filter(|word| word.len() == hash("").0.len() && word.starts_with("0000"))
                .collect();
            assert_eq!(named, inputs.iter().map(ringrift_pipeline::BlobHash::as_str).collect());
        }
    }
}

#[tokio::test]
async fn a_node_is_let_in_once_by_a_ticket_and_a_key_that_was_put_out_stays_out() {
    let place = Place::new().await;
    let catalogue = &place.catalogue;
    let there = || NodeId("there".into());
    let invited = |invitation: &str| -> Event {
        let (invitation, role) = (invitation.to_owned(), "selfplay".to_owned());
        NodeInvited { invitation, role, expires_ms: 9, by: NodeId("here".into()) }.into()
    };
    let admitted = |invitation: &str, key: &str| -> Event {
        let (invitation, key, role) = (invitation.into(), key.into(), "selfplay".into());
        NodeAdmitted { invitation, node: there(), key, role }.into()
    };
    let joined =
        || story().into_iter().find(|event| matches!(event, Event::NodeJoined(_))).unwrap();

    let again = admitted("one", "other");
    place.tell(vec![invited("one"), admitted("one", "first"), again, joined()]).await;
    let used_by = catalogue.invitation("one").await.unwrap().unwrap().used_by;
    assert_eq!(used_by, Some((there(), "first".to_owned())));
    assert_eq!(catalogue.admitted().await.unwrap(), [(there(), "first".to_owned())]);

    let drained = NodeDrained { node: there(), draining: true }.into();
    place.tell(vec![drained, NodeRemoved { node: there() }.into()]).await;
    let row = catalogue.nodes().await.unwrap().pop().unwrap();
    assert!(row.removed && !row.draining);
    assert_eq!(catalogue.keys_put_out().await.unwrap(), ["first"]);
    assert_eq!(catalogue.admitted().await.unwrap(), []);

    place.tell(vec![invited("two"), admitted("two", "second"), joined()]).await;
    assert!(!catalogue.nodes().await.unwrap().pop().unwrap().removed);
    assert_eq!(catalogue.keys_put_out().await.unwrap(), ["first"]);
    assert_eq!(catalogue.admitted().await.unwrap(), [(there(), "second".to_owned())]);
}

#[tokio::test]
async fn what_is_tried_with_a_node_is_one_episode_until_it_ends() {
    let place = Place::new().await;
    let node = || NodeId("there".into());
    let begun = |step, attempt| -> Event {
        let (how, by) = ("a command".into(), NodeId("here".into()));
        RecoveryBegun { node: node(), step, attempt, how, by }.into()
    };
    let tried = |step, outcome| -> Event {
        RecoveryAttempted { node: node(), step, attempt: 1, outcome, sentence: "-".into() }.into()
    };
    let ended: Event = RecoveryEnded { node: node(), sentence: "it is back".into() }.into();
    let row = async || place.catalogue.recoveries().await.unwrap().remove(0);
    let mut time = 0;
    let mut tell = async |event: Event| {
        time += 1;
        place.catalogue.record(vec![Record::always(event)], time).await.unwrap();
    };
    tell(tried(RecoveryStep::Notify, RecoveryOutcome::Done)).await;
    tell(begun(RecoveryStep::Restart, 1)).await;
    let open = row().await;
    assert_eq!((open.is_open, open.began_ms, open.changed_ms), (true, 1, 2));
    assert_eq!((open.step, open.outcome), (RecoveryStep::Restart, None), "cut off in the middle");
    tell(tried(RecoveryStep::Restart, RecoveryOutcome::Failed)).await;
    assert_eq!(row().await.outcome, Some(RecoveryOutcome::Failed));
    tell(ended.clone()).await;
    let over = row().await;
    assert_eq!((over.is_open, over.sentence.as_str(), over.position), (false, "it is back", 4));
    tell(begun(RecoveryStep::Notify, 1)).await;
    let again = row().await;
    assert_eq!((again.is_open, again.began_ms, again.step), (true, 5, RecoveryStep::Notify));
}

#[tokio::test]
async fn a_node_is_well_again_or_says_which_layer_fails() {
    let place = Place::new().await;
    let node = NodeId("there".into());
    let failed = async || {
        let rows = place.catalogue.node_health().await.unwrap();
        rows.into_iter().map(|row| row.failed).collect::<Vec<_>>()
    };
    assert_eq!(failed().await, []);
    let (layer, reason) = (Layer::Command, "-".to_owned());
    place.tell(vec![NodeUnhealthy { node: node.clone(), layer, reason: "-".into() }.into()]).await;
    assert_eq!(failed().await, [Some(Layer::Command)]);
    place.tell(vec![NodeRecovered { node, reason }.into()]).await;
    assert_eq!(failed().await, [None]);
}
