use ringrift_pipeline::ModelRef;
use warden::Stopping;

use super::*;
use crate::testbed::{Bed, FullDisk, blocked, done, handed_to, hex, selfplay};

fn daemon(bed: &Bed, mode: &str) -> IdleResource {
    daemon_of(bed, bed.workshop(mode))
}

fn daemon_of(bed: &Bed, shop: Workshop) -> IdleResource {
    let ports =
        (bed.catalogue_of::<IdleResource>(), shop, bed.the_loop.clone(), bed.pressure.clone());
    IdleResource::new(Config::default(), ports)
}

async fn queue(bed: &Bed, number: u64, seed: u64) -> WorkId {
    let config: GameConfig = hex();
    let work = WorkId::new(WorkKind::Selfplay, config, number);
    let champion = bed.catalogue.champion(config).await.unwrap().unwrap();
    let old =
        ModelRef { id: ringrift_pipeline::ModelId("old".into()), ..champion.model.reference() };
    let job = selfplay(old, seed);
    let queued = WorkQueued { work: work.clone(), config, job, reason: "test".into() };
    bed.record(vec![queued.into()]).await;
    work
}

/// Runs one item of such a worker until it is done, dead or queued again.
async fn run(bed: &Bed, mode: &str) -> WorkRow {
    bed.champion(hex()).await;
    let work = queue(bed, 1, 1).await;
    let mut daemon = daemon(bed, mode);
    let (cx, _probe) = bed.cx::<IdleResource>();
    bed.cycle_until(&mut daemon, &cx, async |_| {
        let item = bed.catalogue.work(&work).await.unwrap().unwrap();
        matches!(item.state, WorkState::Done | WorkState::Dead | WorkState::Cancelled)
            || (item.state == WorkState::Queued && item.error.is_some() && item.attempt == 0)
    })
    .await;
    bed.catalogue.work(&work).await.unwrap().unwrap()
}

#[tokio::test]
async fn games_and_the_end_of_their_item_are_one_append() {
    let bed = Bed::new().await;
    let item = run(&bed, "honest").await;
    assert_eq!(item.state, WorkState::Done);
    let topics = bed.topics().await;
    assert_eq!(topics[topics.len() - 2..], ["work.completed", "games.committed"]);
    let batch = bed.catalogue.recent_batches(None, 1).await.unwrap().remove(0);
    assert_eq!((batch.games, batch.model.as_str()), (4, "hex8_2p-m0000"), "not the old one");
}

#[tokio::test]
async fn lies_end_in_one_sentence_and_nothing_is_taken_in() {
    for (mode, sentence) in [
        ("wrong-hash", "has the hash"),
        ("wrong-size", "bytes, not"),
        ("no-hash", "is no hash"),
        ("missing-file", "which is not there"),
        ("path-trick", "'../../../facts.sqlite' is no plain file name"),
        ("link", "is not a plain file"),
        ("boasts", "40 games, where 4 were asked for"),
        ("chatter", "a line that the contract does not know ('hello, I am a worker')"),
        ("huge-line", "a line of 3145728 bytes"),
        ("two-reports", "two reports"),
        ("no-report", "without a report"),
    ] {
        let bed = Bed::new().await;
        let item = run(&bed, mode).await;
        assert_eq!(item.state, WorkState::Dead, "{mode}: {item:?}");
        assert_eq!(item.attempt, 3, "{mode}");
        let error = item.error.unwrap();
        assert!(error.starts_with("the worker lied: "), "{mode}: {error}");
        assert!(error.contains(sentence), "{mode}: {error}");
        assert!(bed.catalogue.recent_batches(None, 1).await.unwrap().is_empty(), "{mode}");
    }
}

#[tokio::test]
async fn failures_count_and_obstacles_do_not() {
    for (mode, state, attempt, sentence) in [
        ("fails", WorkState::Dead, 3, "code 1: out of luck"),
        ("killed", WorkState::Dead, 3, "ended by signal 9"),
        ("never", WorkState::Dead, 1, "refuses the job: the job makes no sense"),
        ("try-again", WorkState::Queued, 0, "asks to try again"),
    ] {
        let bed = Bed::new().await;
        let item = run(&bed, mode).await;
        assert_eq!((item.state, item.attempt), (state, attempt), "{mode}: {item:?}");
        let error = item.error.unwrap();
        assert!(error.contains(sentence), "{mode}: {error}");
    }
}

#[tokio::test]
async fn the_same_games_again_count_once() {
    let bed = Bed::new().await;
    run(&bed, "honest").await;
    let again = queue(&bed, 2, 1).await;
    let mut daemon = daemon(&bed, "honest");
    let (cx, _probe) = bed.cx::<IdleResource>();
    bed.cycle_until(&mut daemon, &cx, async |_| {
        let item = bed.catalogue.work(&again).await.unwrap().unwrap();
        item.state == WorkState::Cancelled
    })
    .await;
    assert_eq!(bed.catalogue.recent_batches(None, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn no_more_workers_than_slots_and_a_second_cycle_finds_nothing_to_do() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    for number in 1..=5 {
        queue(&bed, number, number).await;
    }
    let mut daemon = daemon(&bed, "slow");
    let (cx, _probe) = bed.cx::<IdleResource>();
    assert_eq!(done(daemon.cycle(&cx).await).items.held, 2);
    let facts = bed.facts().await;
    assert_eq!(done(daemon.cycle(&cx).await).items.held, 2);
    assert_eq!(bed.facts().await, facts);
}

#[tokio::test]
async fn an_orderly_stop_gives_unfinished_items_back() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let work = queue(&bed, 1, 1).await;
    let shop = bed.workshop("slow");
    let mut daemon = daemon_of(&bed, shop.clone());
    let (cx, probe) = bed.cx::<IdleResource>();
    done(daemon.cycle(&cx).await);
    probe.stop();
    let (last, _probe) = bed.cx::<IdleResource>();
    daemon.stop(&last).await.unwrap();
    let item = bed.catalogue.work(&work).await.unwrap().unwrap();
    assert_eq!((item.state, item.attempt), (WorkState::Queued, 0));
    assert_eq!(item.error.unwrap(), "stopped on request");
    assert!(shop.live().is_empty());
}

#[tokio::test]
async fn claims_of_an_earlier_life_are_given_back() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let work = queue(&bed, 1, 1).await;
    let (cx, _probe) = bed.cx::<IdleResource>();
    let mut first = daemon(&bed, "slow");
    assert_eq!(done(first.cycle(&cx).await).items.held, 1);
    drop(first);
    let mut second = daemon(&bed, "slow");
    let status = done(second.cycle(&cx).await);
    assert_eq!(status.items.released, 1);
    // The list it saw was read before; the item is taken in the next cycle, as attempt 1 again.
    done(second.cycle(&cx).await);
    let item = bed.catalogue.work(&work).await.unwrap().unwrap();
    assert_eq!((item.state, item.attempt), (WorkState::Claimed, 1));
}

#[tokio::test]
async fn an_obstacle_is_degraded_and_claims_nothing() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    queue(&bed, 1, 1).await;
    let obstacle = crate::Obstacle { reason: "full".into(), needs: "room".into() };
    bed.pressure.set(DaemonId("DISK"), Some(obstacle));
    let (cx, _probe) = bed.cx::<IdleResource>();
    let mut daemon = daemon(&bed, "honest");
    assert_eq!(blocked(daemon.cycle(&cx).await), "full; needs room");
    bed.pressure.set(DaemonId("DISK"), None);
    assert_eq!(done(daemon.cycle(&cx).await).items.held, 1);
}

#[tokio::test]
async fn a_stop_in_mid_cycle_claims_nothing() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    queue(&bed, 1, 1).await;
    let mut daemon = daemon(&bed, "honest");
    let (cx, probe) = bed.cx::<IdleResource>();
    probe.stop_at_beat(1);
    let before = bed.facts().await;
    assert!(daemon.cycle(&cx).await.unwrap_err().is::<Stopping>());
    assert_eq!(bed.facts().await, before);
}

/// A daemon of a cluster, whose log can be put out of reach; with its outbox.
async fn cut_off(bed: &Bed, mode: &str) -> (IdleResource, Arc<std::sync::atomic::AtomicBool>) {
    let (catalogue, away) = FullDisk::beyond(bed).await;
    let outbox = courier::Outbox::open(&bed.data().join("outbox")).unwrap();
    let catalogue = handed_to::<IdleResource>(&catalogue.with_outbox(outbox));
    let the_loop = Arc::new(Loop { shared: true, ..(*bed.the_loop).clone() });
    let ports = (catalogue, bed.workshop(mode), the_loop, bed.pressure.clone());
    (IdleResource::new(Config { max_workers: 1, max_kept_batches: 3 }, ports), away)
}

#[tokio::test]
async fn a_node_that_is_cut_off_plays_on_and_hands_its_games_in_later() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let work = queue(&bed, 1, 1).await;
    let (mut daemon, away) = cut_off(&bed, "honest").await;
    let (cx, _probe) = bed.cx::<IdleResource>();
    assert_eq!(done(daemon.cycle(&cx).await).items.held, 1);

    away.store(true, std::sync::atomic::Ordering::Relaxed);
    let facts = bed.facts().await;
    bed.cycle_until(&mut daemon, &cx, async |outcome| match outcome {
        // As long as there is nothing to say, nobody sees that nobody listens.
        Outcome::Done(_) => false,
        outcome @ Outcome::Blocked { .. } => {
            let said = blocked(Ok(outcome));
            assert!(said.contains("nobody answers"), "{said}");
            said.contains("plays no more") && said.contains("3 batches of games wait")
        }
    })
    .await;
    assert_eq!(bed.facts().await, facts);
    drop(daemon);

    // What was kept survives; the item counts as done, because nobody else took it.
    away.store(false, std::sync::atomic::Ordering::Relaxed);
    let (mut next, _away) = cut_off(&bed, "honest").await;
    next.pass(&cx).await.unwrap();
    let batches = bed.catalogue.recent_batches(None, 9).await.unwrap();
    assert_eq!(batches.len(), 3, "{batches:?}");
    let of_item = batches.iter().filter(|batch| batch.work == work).count();
    assert_eq!(of_item, 1, "{batches:?}");
    let alone = batches.iter().filter(|batch| batch.work.as_str().contains("here.0.")).count();
    assert_eq!(alone, 2, "{batches:?}");
    assert_eq!(next.catalogue.kept().await.unwrap(), 0);
}

#[tokio::test]
async fn a_node_that_nobody_leads_plays_what_is_queued_and_then_plays_on() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let work = queue(&bed, 1, 1).await;
    let (mut daemon, _away) = cut_off(&bed, "honest").await;
    let (cx, _probe) = bed.cx::<IdleResource>();
    bed.sees(&[(crate::LEADER.to_owned(), GONE)]);
    let batches = async || bed.catalogue.recent_batches(None, 9).await.unwrap();
    bed.cycle_until(&mut daemon, &cx, async |outcome| {
        if let outcome @ Outcome::Blocked { .. } = outcome {
            let said = blocked(Ok(outcome));
            assert!(said.contains("nobody has led for 30 s, and nothing is queued"), "{said}");
        }
        batches().await.len() >= 3
    })
    .await;
    assert!(batches().await.iter().any(|batch| batch.work == work), "first what is queued");
    drop(daemon);

    // One that begins then knows from the newest items what is played.
    let (mut next, _away) = cut_off(&bed, "honest").await;
    let before = batches().await.len();
    bed.cycle_until(&mut next, &cx, async |_| batches().await.len() > before).await;

    // Somebody leads: what he queues is played, and nothing else.
    bed.sees(&[(crate::LEADER.to_owned(), Duration::from_secs(5))]);
    assert!(next.without_orders(&[]).is_none());
}

#[tokio::test]
async fn games_of_an_item_that_was_given_back_are_games() {
    let bed = Bed::new().await;
    bed.champion(hex()).await;
    let work = queue(&bed, 1, 1).await;
    let mut daemon = daemon(&bed, "honest");
    let (cx, _probe) = bed.cx::<IdleResource>();
    done(daemon.cycle(&cx).await);
    let claimed = bed.catalogue.work(&work).await.unwrap().unwrap();
    let reason = "silent".to_owned();
    let released = ringrift_pipeline::WorkReleased { work: work.clone(), reason };
    let record = Record::after(released, claimed.position);
    bed.catalogue.for_source("another").record(vec![record], 1).await.unwrap();
    // It is taken and played again, to the same games.
    bed.cycle_until(&mut daemon, &cx, async |_| {
        bed.catalogue.work(&work).await.unwrap().unwrap().state == WorkState::Done
    })
    .await;
    let topics = bed.topics().await;
    let last: Vec<&str> =
        topics.iter().skip_while(|topic| *topic != "work.released").map(String::as_str).collect();
    let expected = ["work.released", "games.committed", "work.claimed", "work.completed"];
    assert_eq!(last, expected, "the games count once, before the item does");
}
