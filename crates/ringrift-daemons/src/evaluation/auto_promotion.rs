//! `AUTO_PROMOTION`: decides which evaluated candidate becomes the champion.
//!
//! Reads   candidates whose gauntlet is finished and which have no verdict yet.
//! Writes  one verdict per candidate: `model.rejected`, or `model.accepted` with `model.promoted`.
//! Never   deletes a model file: nodes may still be playing the old champion.

use std::{sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, Champion, Config as GameConfig, EvaluationCompleted, MatchResult, ModelAccepted,
    ModelId, ModelPromoted, ModelRejected, ModelRow, Record, TestDecision, Topic as _,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    Blobs, Emits, Loop, STANDALONE, Topics,
    cycle::{EVENT_ROUTER, beyond, settled},
    evaluation::evaluation::Evaluation,
    on,
};

/// `[daemons.auto_promotion]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Score against `random` that is good enough whatever the champion's, 0..=1.
    #[serde(deserialize_with = "crate::ranges::share")]
    pub guard_score: f64,
    /// Elo that a candidate may lose against a fixed ruler, compared with the champion. Source:
    /// learning.md, section 4.1, the guard against rock-paper-scissors.
    pub guard_loss: f64,
    /// Least share of different games in a match; fewer mean that it says nothing. Source: the same.
    #[serde(deserialize_with = "crate::ranges::share")]
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

impl Emits for AutoPromotion {
    const EMITS: Topics = &[&[ModelAccepted::TOPIC, ModelPromoted::TOPIC, ModelRejected::TOPIC]];
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
        leader_only: true,
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
        let mut held_up = None;
        for config in self.the_loop.configs.clone() {
            for candidate in self.catalogue.candidates(config).await? {
                cx.beat()?;
                beyond(self.decide(config, &candidate, cx).await, &mut held_up)?;
            }
        }
        held_up.map_or_else(|| Ok(Outcome::Done(self.status.clone())), Err)
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
    if let Some(reason) = loses_to_heuristic(evaluation, champion, config) {
        return Verdict::Reject(reason);
    }
    Verdict::Promote(figures, Box::new(main.clone()))
}

/// Does the candidate do clearly worse than the champion against the player `heuristic`?
///
/// Both results are of few games, so the loss counts only as far as noise cannot explain it: the end
/// of the difference's 95 % interval that is best for the candidate must lie beyond what is allowed.
/// A champion that never met the ruler, such as generation 0, sets no mark.
fn loses_to_heuristic(
    evaluation: &EvaluationCompleted,
    champion: &Champion,
    config: &Config,
) -> Option<String> {
    let before = champion.model.evaluation.as_ref()?.heuristic.as_ref()?;
    let Some(now) = &evaluation.heuristic else {
        return Some(format!("there is no match against {}, which the champion has met", before.b));
    };
    let lost = before.elo - now.elo;
    // Independent results: the squares of their half-widths add up.
    let noise = (now.elo_high - now.elo).hypot(before.elo - before.elo_low);
    (lost - noise > config.guard_loss).then(|| {
        format!(
            "stronger than the champion, but {:.1} % against {} where the champion had {:.1} %: \
             {lost:.0} Elo less, with noise of {noise:.0}, and {:.0} are allowed",
            now.score * 100.0,
            now.b,
            before.score * 100.0,
            config.guard_loss
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, done, evaluated, hex, match_result, stops_in_mid_cycle};

    fn daemon(bed: &Bed) -> AutoPromotion {
        let ports = (bed.catalogue_of::<AutoPromotion>(), bed.blobs.clone(), bed.the_loop.clone());
        AutoPromotion::new(Config::default(), ports)
    }

    fn promising() -> EvaluationCompleted {
        EvaluationCompleted {
            model: ModelId::new(hex(), 1),
            config: hex(),
            against: ModelId::new(hex(), 0),
            main: Some(match_result("a", "b", 0.7, 150.0)),
            guard: Some(Box::new(match_result("a", "random", 0.9, 380.0))),
            heuristic: Some(Box::new(match_result("a", "heuristic-ref-1", 0.7, 150.0))),
            fault: None,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "what a field of the report holds")]
    fn heuristic_with(elo: f64) -> Option<Box<MatchResult>> {
        Some(Box::new(match_result("a", "heuristic-ref-1", 0.6, elo)))
    }

    async fn champion(bed: &Bed) -> Champion {
        bed.champion(hex()).await;
        bed.catalogue.champion(hex()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_verdict_follows_test_guard_and_file() {
        let bed = Bed::new().await;
        let fresh = champion(&bed).await;
        let mut proven = fresh.clone();
        proven.model.evaluation = Some(promising());
        let check = |champion: &Champion,
                     change: fn(&mut EvaluationCompleted, &mut MatchResult),
                     expected: &str| {
            let mut evaluation = promising();
            let mut main = evaluation.main.take().unwrap();
            change(&mut evaluation, &mut main);
            if evaluation.fault.is_none() {
                evaluation.main = Some(main);
            }
            let found = match judge(&evaluation, champion, &Config::default()) {
                Verdict::Promote(reason, _) => format!("promote: {reason}"),
                Verdict::Reject(reason) => format!("reject: {reason}"),
                Verdict::Void => "void".to_owned(),
            };
            assert!(found.starts_with(expected), "{found}");
        };
        check(&fresh, |_, _| {}, "promote: 70.0 % of 100 games against hex8_2p-m0000, Elo +150");
        check(&fresh, |e, _| e.fault = Some("other board".into()), "reject: its file was refused");
        check(&fresh, |e, _| e.against = ModelId::new(hex(), 9), "void");
        let lost = |_: &mut EvaluationCompleted, main: &mut MatchResult| {
            main.decision = Some(TestDecision::NotStronger);
        };
        check(&fresh, lost, "reject: not stronger");
        check(&fresh, |_, main| main.decision = Some(TestDecision::Undecided), "reject: undecided");
        check(&fresh, |_, main| main.decision = None, "reject: undecided");
        check(&fresh, |_, main| main.distinct_games = 89, "reject: only 89 of 100 games");
        check(&fresh, |_, main| main.distinct_games = 90, "promote");
        check(&fresh, |e, _| e.guard = None, "reject: there is no match against random");
        // Weak against random, but not clearly weaker than random weights are.
        let weak = |e: &mut EvaluationCompleted, _: &mut MatchResult| {
            e.guard = Some(Box::new(match_result("a", "random", 0.46, -28.0)));
        };
        check(&fresh, weak, "promote");
        check(&proven, weak, "reject: stronger than the champion, but 46.0 % against random");
        let good = |e: &mut EvaluationCompleted, _: &mut MatchResult| {
            e.guard = Some(Box::new(match_result("a", "random", 0.8, 241.0)));
        };
        check(&proven, good, "promote");
        // The same against the second ruler; half-widths are 30 each, so the noise is 42 Elo.
        check(&proven, |e, _| e.heuristic = heuristic_with(79.0), "promote");
        check(
            &proven,
            |e, _| e.heuristic = heuristic_with(77.0),
            "reject: stronger than the champion, but 60.0 % against heuristic-ref-1 where the \
             champion had 70.0 %: 73 Elo less, with noise of 42, and 30 are allowed",
        );
        check(&proven, |e, _| e.heuristic = None, "reject: there is no match against heuristic");
        // Generation 0 and champions of before the ruler set no mark.
        check(&fresh, |e, _| e.heuristic = heuristic_with(-600.0), "promote");
        check(&fresh, |e, _| e.heuristic = None, "promote");
        proven.model.evaluation.as_mut().unwrap().heuristic = None;
        check(&proven, |e, _| e.heuristic = heuristic_with(-600.0), "promote");
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::new().await;
        champion(&bed).await;
        evaluated(&bed, hex(), 1, 0, 150.0).await;
        evaluated(&bed, hex(), 2, 0, -150.0).await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<AutoPromotion>();
        // The second met a champion that is none any more: it is not judged by that.
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.promoted, status.rejected, status.void), (1, 0, 1));
        let facts = bed.facts().await;
        done(daemon.cycle(&cx).await);
        assert_eq!(bed.facts().await, facts);
        let now = bed.catalogue.champion(hex()).await.unwrap().unwrap();
        assert_eq!(now.model.id, ModelId::new(hex(), 1));
        evaluated(&bed, hex(), 3, 1, -150.0).await;
        assert_eq!(done(daemon.cycle(&cx).await).rejected, 1);
    }

    #[tokio::test]
    async fn a_candidate_whose_file_is_gone_is_not_promoted() {
        let bed = Bed::new().await;
        champion(&bed).await;
        let model = evaluated(&bed, hex(), 1, 0, 150.0).await;
        let row = bed.catalogue.model(&model).await.unwrap().unwrap();
        let path = bed.blobs.path_of(&row.weights).await.unwrap().unwrap();
        fs_err::remove_file(path).unwrap();
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<AutoPromotion>();
        let status = done(daemon.cycle(&cx).await);
        assert_eq!((status.promoted, status.rejected), (0, 1));
        let row = bed.catalogue.model(&model).await.unwrap().unwrap();
        assert!(row.verdict.unwrap().starts_with("its file is not sound"));
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        champion(&bed).await;
        evaluated(&bed, hex(), 1, 0, 150.0).await;
        stops_in_mid_cycle(&bed, daemon(&bed)).await;
    }
}
