//! `EVALUATION`: matches each candidate against the champion.
//!
//! Reads   candidates without a gauntlet against the champion of now; gauntlet items.
//! Writes  gauntlet items and how they end: `match.played`, `evaluation.completed`.
//! Never   promotes: the verdict is another daemon's.

use std::{sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, Champion, Config as GameConfig, EvaluationCompleted, Gate, GauntletJob,
    GauntletReport, Job, MatchPlayed, MatchResult, ModelCreated, ModelPromoted, ModelRow, Record,
    TestDecision, Topic as _, WorkKind, WorkQueued, WorkState,
};
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR, Emits, Finished, Loop, Order, Pressure, STANDALONE, TRAINING_FULL, Topics,
    WorkError, Workshop,
    claims::{ClaimCounts, Claims},
    cycle::{
        EVENT_ROUTER, beyond, brake, denied, first_closed, rest_after_deaths, seed, settled, tell,
    },
    on,
};

/// `[daemons.evaluation]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Simulations per decision, both sides.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub simulations: u32,
    /// Elo difference of H0. Source: learning.md, section 4.1, "in the loop: [0, 50]".
    pub elo0: f64,
    /// Elo difference of H1.
    pub elo1: f64,
    /// Rate of false acceptances of H1. Source: the same, limits of 2.94.
    #[serde(deserialize_with = "crate::ranges::rate")]
    pub alpha: f64,
    /// Rate of false acceptances of H0.
    #[serde(deserialize_with = "crate::ranges::rate")]
    pub beta: f64,
    /// Most pairs before the test ends undecided. Source: the same, 600 games.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub max_pairs: u32,
    /// Pairs against the player `random`.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub guard_pairs: u32,
    /// Pairs against the player `heuristic`; 0 = none.
    pub heuristic_pairs: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            simulations: 32,
            elo0: 0.0,
            elo1: 50.0,
            alpha: 0.05,
            beta: 0.05,
            max_pairs: 300,
            guard_pairs: 25,
            heuristic_pairs: 25,
        }
    }
}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    #[serde(flatten)]
    items: ClaimCounts,
    /// Candidates without a gauntlet against the champion of now.
    pub waiting: usize,
}

/// The daemon.
pub struct Evaluation {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    pressure: Pressure,
    claims: Claims,
}

impl Emits for Evaluation {
    const EMITS: Topics = &[
        &[EvaluationCompleted::TOPIC, MatchPlayed::TOPIC, WorkQueued::TOPIC],
        crate::claims::EMITS,
        crate::cycle::EMITS,
    ];
}

impl Daemon for Evaluation {
    const SPEC: Spec = Spec {
        id: DaemonId("EVALUATION"),
        about: "matches candidates against the champion",
        priority: Priority::High,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR, TRAINING_FULL, STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[on::<ModelCreated>(), on::<ModelPromoted>(), on::<WorkQueued>()],
        health_interval: Some(Duration::from_mins(2)),
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Workshop, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, workshop, the_loop, pressure): Self::Ports) -> Self {
        let claims = Claims::new(
            WorkKind::Gauntlet,
            Self::ID,
            the_loop.clone(),
            catalogue.clone(),
            workshop,
        );
        Self { config, catalogue, blobs, the_loop, pressure, claims }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }

    async fn stop(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.claims.wind_down().await;
        self.settle(cx).await
    }

    fn health(&self, _: &Status) -> Health {
        self.claims.health()
    }
}

impl Evaluation {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        self.settle(cx).await?;
        let open = self.catalogue.open_works().await?;
        self.claims.release_lost(&open, cx.now()).await?;
        let (mut waiting, mut held_up) = (0, None);
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            waiting += beyond(self.ask(config, cx).await, &mut held_up)?.unwrap_or(0);
        }
        let brake = brake(&self.pressure);
        tell(&self.catalogue, &brake, Self::ID, None, cx.now()).await?;
        if brake.is_open() && self.claims.resting().is_none() {
            let open = self.catalogue.open_works().await?;
            for item in &open {
                let due = item.kind == WorkKind::Gauntlet && item.state == WorkState::Queued;
                let due = due && self.the_loop.configs.contains(&item.config);
                if due && self.claims.has_turn(&open) {
                    cx.beat()?;
                    self.claims.take(item, item.job.clone(), cx).await?;
                }
            }
        }
        match held_up {
            Some(error) => Err(error),
            None => Ok(denied(&brake, Status { items: self.claims.counts(), waiting })),
        }
    }

    /// Queues a gauntlet for each candidate that has none against the champion of now.
    async fn ask(&self, config: GameConfig, cx: &Cx) -> anyhow::Result<usize> {
        let Some(champion) = self.catalogue.champion(config).await? else { return Ok(0) };
        let candidates = self.catalogue.candidates(config).await?;
        let mut waiting: Vec<&ModelRow> =
            candidates.iter().filter(|model| is_due(model, &champion)).collect();
        let count = waiting.len();
        let gauntlets = self.catalogue.work_counts(WorkKind::Gauntlet, Some(config)).await?;
        // The oldest first, one at a time: its verdict may change the champion.
        let Some(model) = waiting.drain(..).next() else { return Ok(0) };
        if gauntlets.queued + gauntlets.claimed > 0 {
            return Ok(count);
        }
        let (deaths, last_ms) = self.catalogue.deaths_in_a_row(WorkKind::Gauntlet, config).await?;
        let gate = first_closed([
            brake(&self.pressure),
            rest_after_deaths(WorkKind::Gauntlet, deaths, last_ms, cx.now()),
        ]);
        tell(&self.catalogue, &gate, Self::ID, Some(config), cx.now()).await?;
        if gate != Gate::Allow {
            return Ok(count);
        }
        if let Err(fault) = self.blobs.verify(&model.weights).await? {
            // No worker could read it either; the verdict is not ours.
            let refused = EvaluationCompleted {
                model: model.id.clone(),
                config,
                against: champion.model.id.clone(),
                main: None,
                guard: None,
                heuristic: None,
                fault: Some(fault.to_string()),
            };
            let record = Record::once(refused, champion.model.id.as_str());
            self.catalogue.record(vec![record], cx.now()).await?;
            return Ok(count);
        }
        let work = self.catalogue.next_work(WorkKind::Gauntlet, config).await?;
        let job = GauntletJob {
            candidate: model.reference(),
            champion: champion.model.reference(),
            simulations: self.config.simulations,
            elo0: self.config.elo0,
            elo1: self.config.elo1,
            alpha: self.config.alpha,
            beta: self.config.beta,
            max_pairs: self.config.max_pairs,
            guard_pairs: self.config.guard_pairs,
            heuristic_pairs: self.config.heuristic_pairs,
            seed: seed(self.the_loop.seed, work.as_str()),
        };
        let reason = match &model.evaluation {
            Some(before) => format!(
                "{} met {}, and the champion is now {}",
                model.id, before.against, champion.model.id
            ),
            None => format!("{} has not met the champion {}", model.id, champion.model.id),
        };
        let queued = WorkQueued { work, config, job: Job::Gauntlet(job), reason };
        self.catalogue.record(vec![Record::first(queued)], cx.now()).await?;
        Ok(count)
    }

    async fn settle(&mut self, cx: &Cx) -> anyhow::Result<()> {
        self.claims.poll();
        while let Some(done) = self.claims.next_done() {
            let facts = match &done.end {
                Ok(finished) => facts_of(&done.order, finished),
                Err(error) => Err(error.clone()),
            };
            self.claims.settle(done, facts, cx.now()).await?;
        }
        Ok(())
    }
}

/// Does this candidate lack a gauntlet against this champion?
fn is_due(model: &ModelRow, champion: &Champion) -> bool {
    model.evaluation.as_ref().is_none_or(|done| done.against != champion.model.id)
}

/// What a gauntlet's report says, if it can be so.
fn facts_of(order: &Order, finished: &Finished) -> Result<Vec<Record>, WorkError> {
    let Job::Gauntlet(job) = &order.job else {
        return Err(WorkError::Never("it is no gauntlet".into()));
    };
    let report: GauntletReport = finished.report_as()?;
    if let Some(fault) = impossible(&report, job) {
        return Err(WorkError::Lied(fault));
    }
    let mut records = Vec::new();
    let mut played = |which: &str, result: &MatchResult| -> Result<(), WorkError> {
        let product = finished.product("records")?;
        let played = MatchPlayed {
            id: format!("{}-{which}", order.work),
            config: order.config,
            result: result.clone(),
            records: Some(product.hash.clone()),
            bytes: product.bytes,
        };
        records.push(Record::first(played));
        Ok(())
    };
    if report.fault.is_none() {
        report.main.iter().try_for_each(|result| played("main", result))?;
        report.guard.iter().try_for_each(|result| played("guard", result))?;
        report.heuristic.iter().try_for_each(|result| played("heuristic", result))?;
    }
    let completed = EvaluationCompleted {
        model: job.candidate.id.clone(),
        config: order.config,
        against: job.champion.id.clone(),
        main: report.main,
        guard: report.guard.map(Box::new),
        heuristic: report.heuristic.map(Box::new),
        fault: report.fault,
    };
    records.push(Record::once(completed, order.work.as_str()));
    Ok(records)
}

/// What cannot be true of this report, if anything.
fn impossible(report: &GauntletReport, job: &GauntletJob) -> Option<String> {
    if report.fault.is_some() {
        let any = [&report.main, &report.guard, &report.heuristic].into_iter().any(Option::is_some);
        return any.then(|| "a refused file, and yet a match with it".to_owned());
    }
    let Some(main) = &report.main else { return Some("neither a match nor a fault".into()) };
    if let Some(fault) = main.fault() {
        return Some(format!("the match against the champion: {fault}"));
    }
    for (side, player, model) in
        [("first", &main.a, &job.candidate), ("second", &main.b, &job.champion)]
    {
        if !player.contains(model.id.as_str()) {
            return Some(format!("the {side} player is '{player}', not {}", model.id));
        }
    }
    if main.games > job.max_pairs.saturating_mul(2) {
        return Some(format!("{} games, where {} pairs are the limit", main.games, job.max_pairs));
    }
    // Wald's bounds; the hundredth is for the last digit of a rounded figure.
    let upper = ((1.0 - job.beta) / job.alpha).ln() - 0.01;
    let lower = (job.beta / (1.0 - job.alpha)).ln() + 0.01;
    let fits = match main.decision {
        Some(TestDecision::Stronger) => main.llr >= upper,
        Some(TestDecision::NotStronger) => main.llr <= lower,
        Some(TestDecision::Undecided) => main.llr.is_finite(),
        None => false,
    };
    if !fits {
        return Some(format!("the decision {:?} with a ratio of {}", main.decision, main.llr));
    }
    for (ruler, result) in [("random", &report.guard), ("heuristic", &report.heuristic)] {
        let Some(result) = result else { continue };
        if let Some(fault) = result.fault() {
            return Some(format!("the match against {ruler}: {fault}"));
        }
        if !result.b.starts_with(ruler) {
            return Some(format!("the match against {ruler} was one against '{}'", result.b));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, blocked, candidate, evaluated, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed, mode: &str) -> Evaluation {
        let shop = bed.workshop(mode);
        let ports = (
            bed.catalogue_of::<Evaluation>(),
            bed.blobs.clone(),
            shop,
            bed.the_loop.clone(),
            bed.pressure.clone(),
        );
        Evaluation::new(Config::default(), ports)
    }

    /// Runs a gauntlet of such a worker to its end, and gives what the item says then.
    async fn run(bed: &Bed, mode: &str) -> ringrift_pipeline::WorkRow {
        let mut daemon = daemon(bed, mode);
        let (cx, _probe) = bed.cx::<Evaluation>();
        bed.cycle_until(&mut daemon, &cx, async |_| {
            let counts = bed.catalogue.work_counts(WorkKind::Gauntlet, None).await.unwrap();
            counts.done + counts.dead > 0
        })
        .await;
        bed.catalogue.works(None, 1).await.unwrap().remove(0)
    }

    #[tokio::test]
    async fn a_gauntlet_is_one_append_with_its_end() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let model = candidate(&bed, hex(), 1).await;
        let item = run(&bed, "honest").await;
        assert_eq!(item.state, WorkState::Done);
        let topics = bed.topics().await;
        let end = &topics[topics.len() - 5..];
        let expected = [
            "work.completed",
            "match.played",
            "match.played",
            "match.played",
            "evaluation.completed",
        ];
        assert_eq!(end, expected);
        let row = bed.catalogue.model(&model).await.unwrap().unwrap();
        assert_eq!(row.evaluation.unwrap().main.unwrap().wins, 90);
        let matches = bed.catalogue.matches(None, 10).await.unwrap();
        assert!(matches.iter().all(|row| row.records.is_some()), "{matches:?}");
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        candidate(&bed, hex(), 1).await;
        run(&bed, "weak").await;
        let facts = bed.facts().await;
        let (cx, _probe) = bed.cx::<Evaluation>();
        daemon(&bed, "weak").cycle(&cx).await.unwrap();
        assert_eq!(bed.facts().await, facts);
    }

    #[tokio::test]
    async fn a_candidate_meets_the_new_champion_when_its_gauntlet_is_void() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        evaluated(&bed, hex(), 2, 9, 100.0).await;
        let item = run(&bed, "honest").await;
        assert_eq!(
            item.reason,
            "hex8_2p-m0002 met hex8_2p-m0009, and the champion is now hex8_2p-m0000"
        );
    }

    #[tokio::test]
    async fn a_refused_file_is_an_evaluation_without_a_match() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let model = candidate(&bed, hex(), 1).await;
        run(&bed, "refuses-file").await;
        let row = bed.catalogue.model(&model).await.unwrap().unwrap();
        let evaluation = row.evaluation.unwrap();
        assert_eq!(evaluation.fault.unwrap(), "it was made for another board");
        assert!(evaluation.main.is_none());
    }

    #[tokio::test]
    async fn a_candidate_whose_file_is_lost_holds_nobody_up() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let model = candidate(&bed, hex(), 1).await;
        let row = bed.catalogue.model(&model).await.unwrap().unwrap();
        let path = bed.blobs.path_of(&row.weights).await.unwrap().unwrap();
        fs_err::remove_file(path).unwrap();
        let (cx, _probe) = bed.cx::<Evaluation>();
        daemon(&bed, "honest").cycle(&cx).await.unwrap();
        let row = bed.catalogue.model(&model).await.unwrap().unwrap();
        assert!(row.evaluation.unwrap().fault.unwrap().contains("is missing"));
        assert!(bed.catalogue.open_works().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_impossible_score_counts_nowhere_and_degrades() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        let model = candidate(&bed, hex(), 1).await;
        let item = run(&bed, "impossible-score").await;
        assert_eq!(item.state, WorkState::Dead);
        assert_eq!(
            item.error.unwrap(),
            "the worker lied: the match against the champion: score 1.5 is impossible: \
             allowed is 0.900000"
        );
        assert!(bed.catalogue.model(&model).await.unwrap().unwrap().evaluation.is_none());
        assert!(bed.catalogue.matches(None, 10).await.unwrap().is_empty());
    }

    #[test]
    fn reports_that_cannot_be_so_are_named() {
        let bed = crate::testbed::match_result;
        let reference = |generation: u32| ringrift_pipeline::ModelRef {
            id: ringrift_pipeline::ModelId::new(hex(), generation),
            weights: ringrift_pipeline::BlobHash("0".repeat(64)),
        };
        let job = GauntletJob {
            candidate: reference(1),
            champion: reference(0),
            simulations: 32,
            elo0: 0.0,
            elo1: 50.0,
            alpha: 0.05,
            beta: 0.05,
            max_pairs: 50,
            guard_pairs: 25,
            heuristic_pairs: 25,
            seed: 1,
        };
        let check = |change: fn(&mut GauntletReport), expected: Option<&str>| {
            let mut report = GauntletReport {
                main: Some(bed("model:hex8_2p-m0001@32", "model:hex8_2p-m0000@32", 0.7, 150.0)),
                guard: Some(bed("model:hex8_2p-m0001@32", "random", 0.9, 380.0)),
                heuristic: Some(bed("model:hex8_2p-m0001@32", "heuristic-ref-1", 0.6, 70.0)),
                fault: None,
            };
            change(&mut report);
            let found = impossible(&report, &job);
            match (found, expected) {
                (None, None) => {}
                (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
                other => panic!("{other:?}"),
            }
        };
        check(|_| {}, None);
        check(|r| r.guard = None, None);
        check(|r| r.main = None, Some("neither a match nor a fault"));
        check(|r| r.fault = Some("x".into()), Some("a refused file, and yet a match"));
        check(|r| r.main.as_mut().unwrap().wins = 99, Some("do not make 100 games"));
        check(|r| r.main.as_mut().unwrap().a = "random".into(), Some("the first player is"));
        check(|r| r.main.as_mut().unwrap().b = "random".into(), Some("the second player is"));
        check(|r| r.main.as_mut().unwrap().llr = 1.0, Some("with a ratio of 1"));
        check(|r| r.main.as_mut().unwrap().decision = None, Some("the decision None"));
        check(|r| r.guard.as_mut().unwrap().games = 0, Some("against random: a match without"));
        check(|r| r.heuristic = None, None);
        check(|r| r.heuristic.as_mut().unwrap().wins = 1, Some("against heuristic: "));
        check(|r| r.heuristic = r.guard.clone(), Some("heuristic was one against 'random'"));
    }

    #[tokio::test]
    async fn an_obstacle_is_degraded_and_claims_nothing() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        candidate(&bed, hex(), 1).await;
        let obstacle = crate::Obstacle { reason: "full".into(), needs: "room".into() };
        bed.pressure.set(DaemonId("DISK"), Some(obstacle));
        let (cx, _probe) = bed.cx::<Evaluation>();
        assert_eq!(blocked(daemon(&bed, "honest").cycle(&cx).await), "full; needs room");
        assert!(bed.catalogue.open_works().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        bed.champion(hex()).await;
        candidate(&bed, hex(), 1).await;
        let daemon = daemon(&bed, "honest");
        stops_in_mid_cycle(&bed, daemon).await;
    }
}
