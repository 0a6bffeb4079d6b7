//! `GAUNTLET_FEEDBACK`: reads what the gauntlets of a config say together.
//!
//! Reads   judged models and their gauntlets.
//! Writes  `advice.given`, at most one per model.
//! Never   changes a parameter: it advises who does.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ringrift_pipeline::{
    Advice, AdviceGiven, Catalogue, Config as GameConfig, ModelPromoted, ModelRejected, ModelRow,
    ModelStatus, Record, Topic as _,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use warden::{Cx, Daemon, DaemonId, Outcome, Priority, Spec};

use crate::{
    COORDINATOR_FULL, Emits, Loop, STANDALONE, Topics,
    cycle::{EVENT_ROUTER, settled},
    on,
};

/// `[daemons.gauntlet_feedback]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Elo below the champion that is a regression. Source: `GAUNTLET_FEEDBACK`, "fell by > 50".
    #[serde(deserialize_with = "crate::ranges::positive")]
    pub regression: f64,
    /// Rejected candidates in a row that are a plateau.
    #[serde(deserialize_with = "crate::ranges::at_least_one")]
    pub plateau: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { regression: 50.0, plateau: 3 }
    }
}

/// What was advised since the daemon started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Pieces of advice.
    pub given: u64,
    /// The last one.
    pub last: Option<String>,
}

/// The daemon.
pub struct GauntletFeedback {
    config: Config,
    catalogue: Catalogue,
    the_loop: Arc<Loop>,
    status: Status,
}

impl Emits for GauntletFeedback {
    const EMITS: Topics = &[&[AdviceGiven::TOPIC]];
}

impl Daemon for GauntletFeedback {
    const SPEC: Spec = Spec {
        id: DaemonId("GAUNTLET_FEEDBACK"),
        about: "advises after gauntlets",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER],
        profiles: &[COORDINATOR_FULL, STANDALONE],
        period: Duration::from_secs(15),
        wakes_on: &[on::<ModelPromoted>(), on::<ModelRejected>()],
        leader_only: true,
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Arc<Loop>);
    type Status = Status;

    fn new(config: Config, (catalogue, the_loop): Self::Ports) -> Self {
        Self { config, catalogue, the_loop, status: Status::default() }
    }

    async fn cycle(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        settled(self.pass(cx).await)
    }
}

impl GauntletFeedback {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            self.advise(config, cx).await?;
        }
        Ok(Outcome::Done(self.status.clone()))
    }

    async fn advise(&mut self, config: GameConfig, cx: &Cx) -> anyhow::Result<()> {
        let mut judged = self.catalogue.models(Some(config)).await?;
        judged.retain(|model| model.evaluation.is_some() && model.status != ModelStatus::Candidate);
        judged.reverse();
        let given = self.catalogue.advice(config, LOOK_BACK).await?;
        let known: BTreeSet<_> = given.iter().map(|advice| &advice.model).collect();
        // Older models than the look-back had their chance when they were new.
        let first = judged.len().saturating_sub(LOOK_BACK as usize);
        for end in first + 1..=judged.len() {
            let model = &judged[end - 1];
            if known.contains(&model.id) {
                continue;
            }
            let Some((advice, reason)) = read(&judged[..end], &self.config) else { continue };
            info!(model = %model.id, ?advice, reason, "advice given");
            self.status.given += 1;
            self.status.last = Some(reason.clone());
            let given = AdviceGiven { config, model: model.id.clone(), advice, reason };
            let record = Record::once(given, model.id.as_str());
            self.catalogue.record(vec![record], cx.now()).await?;
        }
        Ok(())
    }
}

/// Judged models that are looked at.
const LOOK_BACK: u32 = 20;

/// The whole policy: what the last of these judged models, oldest first, says.
fn read(judged: &[ModelRow], config: &Config) -> Option<(Advice, String)> {
    let model = judged.last()?;
    if model.status != ModelStatus::Rejected {
        return Some((Advice::Progress, format!("{} was promoted", model.id)));
    }
    let main = model.evaluation.as_ref()?.main.as_ref()?;
    if main.elo < -config.regression && main.elo_high < 0.0 {
        return Some((
            Advice::Regression,
            format!("{} is {:.0} Elo weaker than {}", model.id, -main.elo, main.b),
        ));
    }
    let row = judged.iter().rev().take_while(|m| m.status == ModelStatus::Rejected).count();
    // At the third, sixth, ninth in a row: each time there is new reason to change something.
    (row > 0 && row.is_multiple_of(config.plateau.max(1))).then(|| {
        (Advice::Plateau, format!("{row} candidates in a row were not stronger, {} last", model.id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bed, done, evaluated, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed) -> GauntletFeedback {
        GauntletFeedback::new(
            Config::default(),
            (bed.catalogue_of::<GauntletFeedback>(), bed.the_loop.clone()),
        )
    }

    async fn judged(bed: &Bed, generation: u32, elo: f64) {
        let model = evaluated(bed, hex(), generation, 0, elo).await;
        let fact = if elo > 0.0 {
            ModelPromoted {
                model,
                config: hex(),
                over: ringrift_pipeline::ModelId::new(hex(), 0),
                elo,
                elo_low: 0.0,
                elo_high: 0.0,
                games: 100,
            }
            .into()
        } else {
            ModelRejected { model, config: hex(), reason: "not stronger".into() }.into()
        };
        bed.record(vec![fact]).await;
    }

    #[tokio::test]
    async fn verdicts_become_advice_once_each() {
        let bed = Bed::new().await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<GauntletFeedback>();
        let check = |elos: &'static [f64], expected: &'static [Advice]| (elos, expected);
        let table = [
            check(&[-10.0], &[]),
            check(&[-10.0], &[]),
            check(&[-10.0], &[Advice::Plateau]),
            check(&[-10.0, -10.0], &[]),
            check(&[-200.0], &[Advice::Regression]),
            check(&[150.0], &[Advice::Progress]),
            check(&[-10.0, -10.0], &[]),
            check(&[-10.0], &[Advice::Plateau]),
        ];
        let (mut generation, mut so_far) = (0, 0);
        for (elos, expected) in table {
            for elo in elos {
                generation += 1;
                judged(&bed, generation, *elo).await;
            }
            so_far += expected.len() as u64;
            assert_eq!(done(daemon.cycle(&cx).await).given, so_far, "after m{generation}");
            assert_eq!(done(daemon.cycle(&cx).await).given, so_far, "a second cycle");
            if let Some(expected) = expected.last() {
                let newest = bed.catalogue.advice(hex(), 1).await.unwrap().remove(0);
                assert_eq!(newest.advice, *expected, "{newest:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_candidate_without_verdict_gives_no_advice() {
        let bed = Bed::new().await;
        evaluated(&bed, hex(), 1, 0, -200.0).await;
        let (cx, _probe) = bed.cx::<GauntletFeedback>();
        assert_eq!(done(daemon(&bed).cycle(&cx).await).given, 0);
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        judged(&bed, 1, 100.0).await;
        stops_in_mid_cycle(&bed, daemon(&bed)).await;
    }
}
