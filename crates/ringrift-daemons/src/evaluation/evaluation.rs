//! `EVALUATION`: matches each candidate against the champion.
//!
//! Reads   candidates without a gauntlet against the champion of now; gauntlet items.
//! Writes  gauntlet items and how they end: `match.played`, `evaluation.completed`.
//! Never   promotes: the verdict is another daemon's.

use std::{sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, Champion, Config as GameConfig, EvaluationCompleted, Gate, GauntletJob,
    GauntletReport, Job, MatchPlayed, MatchResult, ModelCreated, ModelPromoted, ModelRow, Record,
    TestDecision, WorkKind, WorkQueued, WorkState,
};
use serde::{Deserialize, Serialize};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    COORDINATOR, Finished, Loop, Order, Pressure, STANDALONE, TRAINING_FULL, WorkError, Workshop,
    claims::{ClaimCounts, Claims},
    cycle::{EVENT_ROUTER, brake, denied, first_closed, rest_after_deaths, seed, settled, tell},
    on,
};

/// `[daemons.evaluation]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Simulations per decision, both sides.
    pub simulations: u32,
    /// Elo difference of H0. Source: learning.md, section 4.1, "in the loop: [0, 50]".
    pub elo0: f64,
    /// Elo difference of H1.
    pub elo1: f64,
    /// Rate of false acceptances of H1. Source: the same, limits of 2.94.
    pub alpha: f64,
    /// Rate of false acceptances of H0.
    pub beta: f64,
    /// Most pairs before the test ends undecided. Source: the same, 600 games.
    pub max_pairs: u32,
    /// Pairs against the player `random`.
    pub guard_pairs: u32,
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
    the_loop: Arc<Loop>,
    pressure: Pressure,
    claims: Claims,
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
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Workshop, Arc<Loop>, Pressure);
    type Status = Status;

    fn new(config: Config, (catalogue, workshop, the_loop, pressure): Self::Ports) -> Self {
        let claims = Claims::new(
            WorkKind::Gauntlet,
            Self::ID,
            the_loop.node.clone(),
            catalogue.clone(),
            workshop,
        );
        Self { config, catalogue, the_loop, pressure, claims }
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
        let mut waiting = 0;
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            waiting += self.ask(config, cx).await?;
        }
        let brake = brake(&self.pressure);
        tell(&self.catalogue, &brake, Self::ID, None, cx.now()).await?;
        if brake.is_open() && self.claims.resting().is_none() {
            for item in self.catalogue.open_works().await? {
                if item.kind == WorkKind::Gauntlet && item.state == WorkState::Queued {
                    cx.beat()?;
                    self.claims.take(&item, item.job.clone(), cx).await?;
                }
            }
        }
        Ok(denied(&brake, Status { items: self.claims.counts(), waiting }))
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
    }
    let completed = EvaluationCompleted {
        model: job.candidate.id.clone(),
        config: order.config,
        against: job.champion.id.clone(),
        main: report.main,
        guard: report.guard,
        fault: report.fault,
    };
    records.push(Record::once(completed, order.work.as_str()));
    Ok(records)
}

/// What cannot be true of this report, if anything.
fn impossible(report: &GauntletReport, job: &GauntletJob) -> Option<String> {
    if report.fault.is_some() {
        return (report.main.is_some() || report.guard.is_some())
            .then(|| "a refused file, and yet a match with it".to_owned());
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
    let guard = report.guard.as_ref()?;
    guard.fault().map(|fault| format!("the match against random: {fault}"))
}
