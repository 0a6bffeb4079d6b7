//! `ELO_SYNC`: sees that ratings on this node rest on the match facts of the log, on all of them and on nothing
//! else.
//!
//! Reads   facts of matches since the last look, and the matches that the catalogue shows.
//! Writes  an alarm when they differ.
//! Never   merges records of matches: all nodes have one log, and ratings are made anew from the matches that the
//!         catalogue shows, whoever asks.
//!
//! Its digests tell nodes apart: two that are at the same position show the same ones.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use courier::Stream;
use depot::Hash;
use ringrift_pipeline::{Catalogue, Config as GameConfig, Event, MatchPlayed, MatchResult};
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Loop, Topics,
    alarms::Alarms,
    cycle::{EVENT_ROUTER, settled},
    far::FOLD_LIMIT,
    on,
};

/// Name of the alarm on ratings that do not rest on the log.
pub(crate) const ALARM: &str = "ratings";

/// Facts that are read at a time.
const PAGE: usize = 500;
/// Matches that a rating rests on, the newest: so many are compared. The page that shows ratings takes as many.
const NEWEST: u32 = 2000;

/// `[daemons.elo_sync]`: nothing of its own yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Position in the log up to which matches were compared.
    pub position: u64,
    /// Matches compared, by config, and what they say.
    pub matches: BTreeMap<String, Compared>,
    /// What differs, one sentence for each config.
    pub faults: Vec<String>,
}

/// The newest matches of a config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// How many.
    pub count: usize,
    /// A hash over them.
    pub digest: String,
}

/// A match, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Match {
    id: String,
    result: Hash,
}

/// The daemon.
pub struct EloSync {
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    alarms: Alarms,
    /// What the log says, the oldest first.
    told: BTreeMap<GameConfig, VecDeque<Match>>,
    /// All matches that it ever named.
    names: HashSet<String>,
    position: u64,
}

impl Emits for EloSync {
    const EMITS: Topics = &[crate::alarms::EMITS];
}

impl Daemon for EloSync {
    const SPEC: Spec = Spec {
        id: DaemonId("ELO_SYNC"),
        about: "compares the matches behind ratings with the log",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL],
        period: Duration::from_mins(5),
        wakes_on: &[on::<MatchPlayed>()],
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(Config {}: Config, (catalogue, the_loop): Self::Ports) -> Self {
        let (alarms, told, names) = (Alarms::default(), BTreeMap::new(), HashSet::new());
        Self { catalogue, the_loop, alarms, told, names, position: 0 }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    fn health(&self, last: &Status) -> Health {
        match last.faults.first() {
            Some(fault) => Health::Degraded(fault.clone()),
            None => Health::Healthy,
        }
    }
}

impl EloSync {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        self.listen(cx).await?;
        self.catalogue.shows(self.position, FOLD_LIMIT).await?;
        let mut status = Status { position: self.position, ..Status::default() };
        for config in &self.the_loop.configs {
            cx.beat()?;
            let mut shown = self.catalogue.matches(Some(*config), NEWEST).await?;
            let are_all = shown.len() < NEWEST as usize;
            // Younger ones than those that were read come next time.
            shown.retain(|row| row.position <= self.position);
            let shown: Vec<Match> =
                shown.iter().rev().map(|row| in_short(&row.id, &row.result)).collect();
            let told = self.told.get(config);
            let mut told: Vec<&Match> = told.into_iter().flatten().collect();
            if !are_all {
                told.drain(..told.len().saturating_sub(shown.len()));
            }
            if let Some(fault) = difference(&told, &shown) {
                status.faults.push(format!(
                    "the ratings of {config} do not rest on the log: {fault}; stop the manager and delete \
                     catalogue.sqlite, which is made anew"
                ));
            }
            status.matches.insert(config.to_string(), compared(&shown));
        }
        let sentence = (!status.faults.is_empty()).then(|| status.faults.join("; "));
        self.alarms.set(&self.catalogue, ALARM, sentence, cx.now()).await?;
        Ok(Outcome::Done(status))
    }

    /// Reads what the log says since the last look.
    async fn listen(&mut self, cx: &Cx) -> anyhow::Result<()> {
        loop {
            cx.beat()?;
            let log = self.catalogue.log();
            let page = log.next(Stream::Pipeline, self.position, "match", PAGE).await?;
            for fact in &page.facts {
                // As the fold does: what is not understood changes nothing, and a second one of a name neither.
                let Ok(Event::MatchPlayed(played)) = serde_json::from_value(fact.body.clone())
                else {
                    continue;
                };
                if !self.names.insert(played.id.clone()) {
                    continue;
                }
                let told = self.told.entry(played.config).or_default();
                told.push_back(in_short(&played.id, &played.result));
                if told.len() > NEWEST as usize {
                    told.pop_front();
                }
            }
            let is_end = page.through == self.position || page.facts.len() < PAGE;
            self.position = page.through;
            if is_end {
                return Ok(());
            }
        }
    }
}

fn in_short(id: &str, result: &MatchResult) -> Match {
    let result = serde_json::json!(result).to_string();
    Match { id: id.to_owned(), result: Hash::of(result.as_bytes()) }
}

/// What is otherwise in the catalogue than in the log.
fn difference(told: &[&Match], shown: &[Match]) -> Option<String> {
    if told.iter().copied().eq(shown) {
        return None;
    }
    if let Some(lacking) = told.iter().find(|one| !shown.iter().any(|row| row.id == one.id)) {
        return Some(format!("the match {} is lacking", lacking.id));
    }
    if let Some(row) = shown.iter().find(|row| !told.iter().any(|one| one.id == row.id)) {
        return Some(format!("nobody played the match {}", row.id));
    }
    let other = told.iter().zip(shown).find(|(one, row)| **one != *row);
    other.map(|(one, _)| format!("the match {} is another one, or in another place", one.id))
}

fn compared(matches: &[Match]) -> Compared {
    let mut digest = String::new();
    for one in matches {
        digest = Hash::of(format!("{digest}{} {}", one.id, one.result).as_bytes()).to_string();
    }
    Compared { count: matches.len(), digest }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use courier::rusqlite::Connection;

    use super::*;
    use crate::{
        alarms::alarm_of,
        testbed::{Bed, done, hex, match_result, stops_in_mid_cycle},
    };

    fn daemon(bed: &Bed) -> EloSync {
        EloSync::new(Config {}, (bed.catalogue_of::<EloSync>(), bed.the_loop.clone()))
    }

    async fn play(bed: &Bed, id: &str) {
        let result = match_result("a", "b", 0.6, 50.0);
        let played = MatchPlayed { id: id.into(), config: hex(), result, records: None, bytes: 0 };
        bed.record(vec![played.into()]).await;
    }

    #[test]
    fn what_differs_is_named() {
        let one = |id: &str, text: &str| Match { id: id.into(), result: Hash::of(text.as_bytes()) };
        let check = |told: &[Match], shown: &[Match], part: Option<&str>| {
            let found = difference(&told.iter().collect::<Vec<_>>(), shown);
            match (&found, part) {
                (None, None) => {}
                (Some(found), Some(part)) => assert!(found.contains(part), "{found}"),
                _ => panic!("{found:?} is not {part:?}"),
            }
        };
        let (a, b) = (one("a", "1"), one("b", "2"));
        check(&[], &[], None);
        check(&[a.clone(), b.clone()], &[a.clone(), b.clone()], None);
        check(&[a.clone(), b.clone()], from_ref(&a), Some("the match b is lacking"));
        check(from_ref(&a), &[a.clone(), b.clone()], Some("nobody played the match b"));
        check(&[a.clone(), b.clone()], &[b.clone(), a.clone()], Some("in another place"));
        check(&[a], &[one("a", "3")], Some("the match a is another one"));
    }

    #[tokio::test]
    async fn nodes_at_the_same_position_show_the_same_digest_and_a_second_cycle_finds_nothing() {
        let bed = Bed::new().await;
        for id in ["m1", "m2", "m1"] {
            play(&bed, id).await;
        }
        let (cx, _probe) = bed.cx::<EloSync>();
        let mut one = daemon(&bed);
        let status = done(one.cycle(&cx).await);
        assert_eq!(status.matches["hex8_2p"].count, 2, "a name is played once");
        assert_eq!((status.faults.len(), one.health(&status)), (0, Health::Healthy));
        assert_eq!(done(one.cycle(&cx).await), status);
        assert_eq!(done(daemon(&bed).cycle(&cx).await), status);
        play(&bed, "m3").await;
        assert_ne!(done(one.cycle(&cx).await).matches, status.matches);
    }

    #[tokio::test]
    async fn a_catalogue_that_is_not_the_fold_of_the_log_is_an_alarm() {
        let bed = Bed::new().await;
        for id in ["m1", "m2"] {
            play(&bed, id).await;
        }
        let (cx, _probe) = bed.cx::<EloSync>();
        let mut daemon = daemon(&bed);
        done(daemon.cycle(&cx).await);
        let db = Connection::open(bed.data().join("catalogue.sqlite")).unwrap();
        db.execute("UPDATE matches SET id = 'm9' WHERE id = 'm2'", []).unwrap();
        let status = done(daemon.cycle(&cx).await);
        let Health::Degraded(sentence) = daemon.health(&status) else { panic!("healthy") };
        assert!(sentence.contains("the match m2 is lacking"), "{sentence}");
        assert!(alarm_of(&bed.catalogue, ALARM).await.unwrap().is_some());
        db.execute("UPDATE matches SET id = 'm2' WHERE id = 'm9'", []).unwrap();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(daemon.health(&status), Health::Healthy);
        assert_eq!(alarm_of(&bed.catalogue, ALARM).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_changes_nothing() {
        let bed = Bed::new().await;
        play(&bed, "m1").await;
        stops_in_mid_cycle(&bed, daemon(&bed)).await;
    }
}
