//! What a node costs while there are more and more of them: 10, 50 and 200 on one server, each with a connection,
//! a replica and a projection of its own, all in this process, at the rates of a manager.
//!
//! Each node prolongs its lease every 7.5 s and looks at the leases of all every 4.5 s, from 40 nodes on after as many
//! tenths of a second as there are nodes; two of them, the coordinators, look every 1.5 s. Every 30 s a node takes an item of work: one fact, fenced by its lease, which expects that nobody took it; and ends it with two facts in one batch.
//! One node leads: it prolongs that lease every 1.5 s and once a second orders what is due next and judges what
//! was ended, so that there are five facts an item. Every node folds all facts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use courier::rusqlite::{Transaction, params};
use courier::{AppendError, Batch, Courier, Fact, Folder, NewFact, Projection, Sightings, Stream};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::Outcome;
use crate::servers::{Servers, busy, memory};

const NODES: [u32; 3] = [10, 50, 200];
/// A coordinator looks at all leases so often; the leader prolongs his with it.
const LOOK: Duration = Duration::from_millis(1500);
const COORDINATORS: u32 = 2;
/// A node prolongs its own once in so many looks of a coordinator.
const PROLONG: u64 = 5;
/// It looks at all once in so many, if it is no coordinator,
const SELDOM: u64 = 3;
/// and more seldom where there are more nodes than so many for each.
const NODES_A_LOOK: u64 = 15;
const STAY: Duration = Duration::from_secs(30);
/// An item of a node takes so long.
const ITEM: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

pub async fn figures(time: Duration) -> Outcome<Value> {
    let mut rows = Vec::new();
    for nodes in NODES {
        rows.push(row(nodes, time).await?);
    }
    Ok(json!({ "rows": rows }))
}

/// Items: who has them.
struct Items;

impl Projection for Items {
    const NAME: &'static str = "items";
    const VERSION: u32 = 1;

    fn schema(&self) -> &'static str {
        "CREATE TABLE item (subject TEXT PRIMARY KEY, state TEXT NOT NULL, by TEXT NOT NULL)"
    }

    fn apply(
        &mut self,
        rows: &Transaction<'_>,
        fact: &Fact,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let state = fact.body["state"].as_str().unwrap_or_default();
        rows.prepare_cached("INSERT OR REPLACE INTO item VALUES (?1, ?2, ?3)")?
            .execute(params![fact.subject, state, fact.source])?;
        Ok(())
    }
}

/// What all nodes count together.
#[derive(Default)]
struct Counts {
    facts: AtomicU64,
    looks: AtomicU64,
    /// Microseconds of all looks, and of the longest.
    looked: AtomicU64,
    longest: AtomicU64,
    refused: AtomicU64,
}

async fn row(nodes: u32, time: Duration) -> Outcome<Value> {
    let folder = tempfile::tempdir_in(".")?;
    let servers = Servers::start(folder.path(), 1)?;
    let counts = Arc::new(Counts::default());
    let empty = memory(std::process::id())?;
    let mut living = JoinSet::new();
    let mut logs = Vec::new();
    for n in 0..nodes {
        let log = servers.open(&format!("node{n}")).await?;
        let file = folder.path().join(format!("node{n}/items.sqlite"));
        let items = Folder::open(&file, Items, log.clone()).await?;
        logs.push((log, items));
    }
    for (n, (log, items)) in logs.into_iter().enumerate() {
        let n = u32::try_from(n)?;
        living.spawn(live(n, nodes, log, items, Arc::clone(&counts)));
    }
    // All have taken their leases, and look.
    sleep(5 * LOOK).await;
    let pids = [std::process::id(), servers.pid(0)];
    let before = (Instant::now(), servers.figures(0).await?, pids.map(busy));
    let counted = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (facts, looks, looked) =
        (counted(&counts.facts), counted(&counts.looks), counted(&counts.looked));
    tokio::select! {
        () = sleep(time) => {}
        Some(ended) = living.join_next() => ended??,
    }
    let (began, told, was_busy) = before;
    let seconds = began.elapsed().as_secs_f64();
    let now = servers.figures(0).await?;
    let [here, server] = pids.map(busy);
    let [was_here, was_server] = was_busy;
    let (here, server) =
        (ratio(here?.saturating_sub(was_here?), 1), ratio(server?.saturating_sub(was_server?), 1));
    let count = f64::from(nodes);
    let a_second = |name: &str| {
        let of = |figures: &Value| figures[name].as_f64().unwrap_or(f64::NAN);
        (of(&now) - of(&told)) / seconds
    };
    let (to_server, from_server) = (a_second("in_msgs"), a_second("out_msgs"));
    let held = memory(pids[0])?.saturating_sub(empty);
    let looks = counted(&counts.looks) - looks;
    let looked = counted(&counts.looked) - looked;
    let row = json!({
        "nodes": nodes,
        "facts_per_s": tenths(ratio(counted(&counts.facts) - facts, 1) / seconds),
        "messages_per_s": { "to_server": tenths(to_server), "from_server": tenths(from_server) },
        "messages_per_s_and_node": {
            "to_server": tenths(to_server / count), "from_server": tenths(from_server / count),
        },
        "server": {
            "processor_ms_per_s": tenths(server / seconds),
            "processor_ms_per_s_and_node": hundredths(server / seconds / count),
            "memory_mib": memory(pids[1])? >> 20,
        },
        "node": {
            "processor_ms_per_s": hundredths(here / seconds / count),
            "memory_kib": (held >> 10) / u64::from(nodes),
        },
        "look_ms": {
            "mean": tenths(ratio(looked, looks) / 1e3),
            "longest": tenths(ratio(counted(&counts.longest), 1000)),
        },
        "items_refused": counted(&counts.refused),
    });
    living.shutdown().await;
    Ok(row)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn ratio(above: u64, below: u64) -> f64 {
    above as f64 / below.max(1) as f64
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

async fn live(
    n: u32,
    nodes: u32,
    log: Courier,
    _items: Folder,
    counts: Arc<Counts>,
) -> Outcome<()> {
    let name = format!("node.{n}");
    // Spread, as machines are that were switched on one after the other.
    let spread = |period: Duration| Instant::now() + period * n / nodes;
    let every = |period: Duration| {
        let mut ticks = interval_at(spread(period), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut own = log.acquire(&name, &name, STAY, 0).await?;
    let mut leader = match n {
        0 => Some(log.acquire("leader", &name, STAY, 0).await?),
        _ => None,
    };
    let (mut looks, mut items, mut orders) = (every(LOOK), every(ITEM), every(SECOND));
    let (mut seen, mut looked, mut item, mut round) = (Sightings::default(), 0_u64, 0_u64, 0_u64);
    let count = |facts: u64| counts.facts.fetch_add(facts, Ordering::Relaxed);
    let fact = |id: String, subject: &str, state: &str| {
        NewFact::new(id, subject, &name, json!({ "state": state, "filling": "x".repeat(150) }))
    };
    loop {
        tokio::select! {
            _ = looks.tick() => {
                looked += 1;
                if looked % PROLONG == 0 {
                    own = log.renew(&own, STAY, i64::from(n)).await?;
                }
                if let Some(held) = &mut leader {
                    *held = log.renew(held, STAY, 0).await?;
                }
                if n >= COORDINATORS && looked % SELDOM.max(u64::from(nodes) / NODES_A_LOOK) != 0 {
                    continue;
                }
                let began = Instant::now();
                seen.note(log.leases("node.", i64::MIN).await?, Instant::now());
                let took = u64::try_from(began.elapsed().as_micros())?;
                counts.looks.fetch_add(1, Ordering::Relaxed);
                counts.looked.fetch_add(took, Ordering::Relaxed);
                counts.longest.fetch_max(took, Ordering::Relaxed);
            }
            _ = items.tick() => {
                item += 1;
                let subject = format!("item.{n}.{item}");
                let taken = fact(format!("{subject}/taken"), &subject, "taken").after(0);
                match log.append(Stream::Pipeline, Batch::from(taken).fenced(&own), 1).await {
                    Ok(_) => count(1),
                    Err(AppendError::Conflict { .. }) => counts.refused.fetch_add(1, Ordering::Relaxed),
                    Err(error) => return Err(error.into()),
                };
                let ended = vec![
                    fact(format!("{subject}/ended"), &subject, "ended"),
                    fact(format!("{subject}/made"), &format!("made.{n}.{item}"), "made"),
                ];
                log.append(Stream::Pipeline, Batch::new(ended).fenced(&own), 1).await?;
                count(2);
            }
            _ = orders.tick(), if leader.is_some() => {
                let Some(leader) = &leader else { continue };
                round += 1;
                // As many as the nodes take in a second.
                let due = u64::from(nodes) * round / ITEM.as_secs() - u64::from(nodes) * (round - 1) / ITEM.as_secs();
                if due > 0 {
                    let about = (0..due).flat_map(|i| {
                        let id = format!("{round}.{i}");
                        let ordered = fact(format!("{id}/ordered"), &format!("order.{id}"), "ordered");
                        [ordered, fact(format!("{id}/judged"), &format!("verdict.{id}"), "judged")]
                    });
                    log.append(Stream::Pipeline, Batch::new(about.collect()).fenced(leader), 1).await?;
                    count(2 * due);
                }
            }
        }
    }
}
