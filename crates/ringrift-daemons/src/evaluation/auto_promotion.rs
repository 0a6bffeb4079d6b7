//! `AUTO_PROMOTION`: decides which evaluated candidate becomes the champion.
//!
//! Reads   candidates whose gauntlet is finished and which have no verdict yet.
//! Writes  one verdict per candidate: `model.rejected`, or `model.accepted` with `model.promoted`.
//! Never   deletes a model file: nodes may still be playing the old champion.

use std::{sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, Champion, Config as GameConfig, EvaluationCompleted, MatchResult, ModelAccepted,
    ModelId, ModelPromoted, ModelRejected, ModelRow, Record, TestDecision,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    Blobs, Loop, STANDALONE,
    cycle::{EVENT_ROUTER, settled},
    evaluation::evaluation::Evaluation,
    on,
};

/// `[daemons.auto_promotion]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Score against `random` that is good enough whatever the champion's, 0..=1.
    pub guard_score: f64,
    /// Elo that a candidate may lose against `random`, compared with the champion. Source:
    /// learning.md, section 4.1, the guard against rock-paper-scissors.
    pub guard_loss: f64,
    /// Least share of different games in a match; fewer mean that it says nothing. Source: the same.
    pub min_distinct: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { guard_score: 0.8, guard_loss: 30.0, min_distinct: 0.9 }
    }
}

/// What was judged since the daemon started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Candidates promoted.
    pub promoted: u64,
    /// Candidates rejected.
    pub rejected: u64,
    /// Gauntlets against a champion that is none any more.
    pub void: u64,
    /// The last verdict.
    pub last: Option<String>,
}

/// The daemon.
pub struct AutoPromotion {
    config: Config,
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    status: Status,
}

impl Daemon for AutoPromotion {
    const SPEC: Spec = Spec {
        id: DaemonId("AUTO_PROMOTION"),
        about: "promotes candidates that beat the champion",
        priority: Priority::High,
        needs: &[EVENT_ROUTER, Evaluation::ID],
        profiles: &[STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[on::<EvaluationCompleted>()],
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, blobs, the_loop): Self::Ports) -> Self {
        Self { config, catalogue, blobs, the_loop, status: Status::default() }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }
}

impl AutoPromotion {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        self.status.void = 0;
        for config in self.the_loop.configs.clone() {
            for candidate in self.catalogue.candidates(config).await? {
                cx.beat()?;
                self.decide(config, &candidate, cx).await?;
            }
        }
        Ok(Outcome::Done(self.status.clone()))
    }

    async fn decide(
        &mut self,
        config: GameConfig,
        candidate: &ModelRow,
        cx: &Cx,
    ) -> anyhow::Result<()> {
        // Read anew for each: the verdict before may have changed it.
        let Some(champion) = self.catalogue.champion(config).await? else { return Ok(()) };
        let Some(evaluation) = &candidate.evaluation else { return Ok(()) };
        let mut verdict = judge(evaluation, &champion, &self.config);
        if matches!(verdict, Verdict::Promote(..))
            && let Err(fault) = self.blobs.verify(&candidate.weights).await?
        {
            verdict = Verdict::Reject(format!("its file is not sound: {fault}"));
        }
        match verdict {
            Verdict::Void => self.status.void += 1,
            Verdict::Reject(reason) => {
                info!(model = %candidate.id, reason, "candidate rejected");
                self.status.last = Some(format!("{} rejected: {reason}", candidate.id));
                let rejected = ModelRejected { model: candidate.id.clone(), config, reason };
                let record = Record::after(rejected, candidate.position);
                self.catalogue.record(vec![record], cx.now()).await?;
                self.status.rejected += 1;
            }
            Verdict::Promote(reason, main) => {
                info!(model = %candidate.id, reason, "candidate promoted");
                self.status.last = Some(format!("{} promoted: {reason}", candidate.id));
                let accepted = ModelAccepted { model: candidate.id.clone(), config, reason };
                let promoted = promotion(config, candidate.id.clone(), &champion, &main);
                let records = vec![
                    Record::after(accepted, candidate.position),
                    Record::after(promoted, champion.position),
                ];
                self.catalogue.record(records, cx.now()).await?;
                self.status.promoted += 1;
            }
        }
        Ok(())
    }
}

fn promotion(
    config: GameConfig,
    model: ModelId,
    over: &Champion,
    main: &MatchResult,
) -> ModelPromoted {
    ModelPromoted {
        model,
        config,
        over: over.model.id.clone(),
        elo: main.elo,
        elo_low: main.elo_low,
        elo_high: main.elo_high,
        games: main.games,
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    Promote(String, Box<MatchResult>),
    Reject(String),
    /// The champion changed meanwhile: the candidate meets the new one first.
    Void,
}

/// The whole policy, pure: tested without clock, log or files.
fn judge(evaluation: &EvaluationCompleted, champion: &Champion, config: &Config) -> Verdict {
    if let Some(fault) = &evaluation.fault {
        return Verdict::Reject(format!("its file was refused: {fault}"));
    }
    if evaluation.against != champion.model.id {
        return Verdict::Void;
    }
    let Some(main) = &evaluation.main else {
        return Verdict::Reject("there is no match against the champion".into());
    };
    let figures = format!(
        "{:.1} % of {} games against {}, Elo {:+.0} ({:+.0} to {:+.0})",
        main.score * 100.0,
        main.games,
        evaluation.against,
        main.elo,
        main.elo_low,
        main.elo_high
    );
    match main.decision {
        Some(TestDecision::Stronger) => {}
        Some(TestDecision::NotStronger) => {
            return Verdict::Reject(format!("not stronger: {figures}"));
        }
        Some(TestDecision::Undecided) | None => {
            return Verdict::Reject(format!("undecided at the limit of games: {figures}"));
        }
    }
    let distinct = f64::from(main.distinct_games) / f64::from(main.games.max(1));
    if distinct < config.min_distinct {
        return Verdict::Reject(format!(
            "only {} of {} games are different ones, at least {:.0} % must be",
            main.distinct_games,
            main.games,
            config.min_distinct * 100.0
        ));
    }
    let Some(guard) = &evaluation.guard else {
        return Verdict::Reject("there is no match against random".into());
    };
    // Generation 0 has random weights, and `random` is the zero of the scale.
    let before =
        champion.model.evaluation.as_ref().and_then(|evaluation| evaluation.guard.as_ref());
    let before = before.map_or(0.0, |guard| guard.elo);
    if guard.score < config.guard_score && guard.elo < before - config.guard_loss {
        return Verdict::Reject(format!(
            "stronger than the champion, but {:.1} % against random where {:.0} % or Elo {:+.0} \
             are needed: it beats the one it knows and nobody else",
            guard.score * 100.0,
            config.guard_score * 100.0,
            before - config.guard_loss
        ));
    }
    Verdict::Promote(figures, Box::new(main.clone()))
}
