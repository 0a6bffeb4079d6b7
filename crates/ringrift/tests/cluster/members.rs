//! Members that do what no member should: by mistake, or because somebody has their keys.

use std::time::Duration;

use courier::{
    Fact, LetterFilter, NewFact, Stream,
    jetstream::{Identity, JetStream, Options},
};
use depot::{Depot, Hash, peers::Key};
use serde_json::{Value, json};

use crate::{
    Cluster,
    bed::Host,
    ledger::Ledger,
    nodes::{Node, wait_for},
    strangers::{fetch, key_of, pass_of, runtime, said},
};

/// So soon the others do what they do about it: some cycles of daemons.
const NOTICED: Duration = Duration::from_mins(4);

/// Appends a fact with what proves a member, past all that its manager looks at.
fn append(member: &Node, server: &Node, fact: NewFact, now_ms: i64) -> Result<(), String> {
    let servers = format!("tls://{}:4222", server.host.address);
    let certificate = member.data.join("cluster/servers.pem");
    let (secret, pass) = (key_of(member), pass_of(member));
    member.host.inside(move || {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(servers, "ringrift", folder.path().to_path_buf());
        options.make = false;
        options.certificate = Some(certificate);
        options.identity = Some(Identity::new(secret, pass).unwrap());
        runtime().block_on(async {
            let log = JetStream::open(options).await.expect("a member is let in");
            let appended = log.append(Stream::Pipeline, fact.into(), now_ms).await;
            appended.map(drop).map_err(|error| error.to_string())
        })
    })
}

/// A fact that is as large as no fact may be is not taken.
pub fn one_says_too_much(lead: &Node, member: &Node) {
    let body = json!({ "topic": "advice.given", "reason": "x".repeat(courier::MAX_BODY_BYTES) });
    let fact = NewFact::new("too-much", "advice.hex8_2p", "test@member", body);
    let refused = append(member, lead, fact, 0).expect_err("it was taken");
    println!("a member that says too much is told: {refused}");
    assert!(refused.contains("too many bytes in the body of advice.hex8_2p"), "{refused}");
    let is_it = |fact: &Fact| fact.id == "too-much";
    assert!(!lead.facts(0).iter().any(is_it), "it is in the log");
}

/// An id that leads out of a folder is no id: nothing is made there, and people see the fact.
pub fn one_names_a_path(cluster: &Cluster, lead: &Node, member: &Node) {
    let facts = lead.facts(0);
    let is_selfplay = |fact: &&Fact| {
        fact.body["topic"] == "work.queued" && fact.body["job"]["kind"] == "selfplay"
    };
    let sound = facts.iter().rfind(is_selfplay).unwrap();
    let absolute = cluster.folder.path().join("absolute");
    let paths = ["../../relative".to_owned(), absolute.display().to_string()];
    for (number, path) in paths.iter().enumerate() {
        let mut body = sound.body.clone();
        body["work"] = Value::from(path.as_str());
        let subject = format!("work.path-{number}");
        let fact = NewFact::new(format!("path-{number}"), subject, "test@member", body);
        append(member, lead, fact, sound.time_ms).expect("the log does not look into facts");
    }
    for node in &cluster.nodes {
        wait_for(&format!("{} to put it aside", node.host.name), NOTICED, || {
            let all = LetterFilter::default();
            let letters = node.with_log(async |log| log.dead_letters(all).await.unwrap());
            let told = |path: &String| {
                letters.iter().any(|letter| {
                    letter.fact.body["work"] == *path.as_str() && letter.error.contains("is no id")
                })
            };
            paths.iter().all(told).then_some(())
        });
        for place in ["", "work", "run", "logs"] {
            let made = node.data.join(place).join("../../relative");
            assert!(!made.exists(), "{} was made", made.display());
        }
        let works = node.ask("SELECT id FROM works", |row| row.get::<_, String>(0));
        assert!(!works.iter().any(|work| paths.contains(work)), "{works:?}");
    }
    assert!(!absolute.exists(), "{} was made", absolute.display());
    let shown = lead.ringrift(&["dlq"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("work.queued"), "{shown}");
}

/// What decayed on a disk is not taken from there, is set aside, and no longer counts as a copy. Gives its hash.
pub fn one_gives_what_is_damaged(cluster: &Cluster, from: &Host) -> String {
    let (lead, player) = (cluster.node("lead"), cluster.node("play1"));
    let (hash, bytes) = wait_for("games that two have", NOTICED, || {
        let question = "SELECT batches.hash, batches.bytes, holdings.node
                        FROM batches JOIN holdings ON holdings.hash = batches.hash";
        let held = lead.ask(question, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, String>(2)?))
        });
        let of_player = held.into_iter().filter(|(.., holder)| *holder == player.name());
        let mut both = of_player.filter(|(hash, ..)| player.has(hash) && lead.has(hash));
        both.next().map(|(hash, bytes, _)| (hash, bytes))
    });
    let wanted: Hash = hash.parse().unwrap();
    let depot = Depot::open_existing(&player.data);
    let path = depot.path_of(&wanted).unwrap().unwrap();
    let spoilt: Vec<u8> = fs_err::read(&path).unwrap().iter().map(|byte| byte ^ 1).collect();
    fs_err::write(&path, spoilt).unwrap();

    let key = || Key::of_file(&cluster.node("train").data.join("key")).unwrap();
    let refused = fetch(from, key(), &[player], wanted, bytes);
    println!("a member that asks for what is damaged is told: {refused:?}");
    assert!(refused.is_err(), "damaged games were taken");
    fetch(from, key(), &[player, lead], wanted, bytes).expect("another one has it whole");
    wait_for("the damage to be found", NOTICED, || {
        let aside = depot.quarantined().unwrap();
        aside.into_iter().any(|file| file.hash == wanted).then_some(())
    });
    let is_named =
        |line: &str| line.contains("a damaged file is set aside") && line.contains(&hash);
    // The log is written a moment later than the file is moved.
    wait_for("the log to name what is damaged", Duration::from_mins(1), || {
        said(player, "daemons.log").lines().any(is_named).then_some(())
    });
    wait_for("the copy to be whole or to count no more", NOTICED, || {
        let ledger = Ledger::of(&lead.facts(0));
        let counts = ledger.holders.get(&hash).is_some_and(|of| of.contains(&player.name()));
        (!counts || depot.verify(&wanted).is_ok()).then_some(())
    });
    hash
}
