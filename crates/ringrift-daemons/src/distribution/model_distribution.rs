//! `MODEL_DISTRIBUTION`: hands the champion to the workers of this node.
//!
//! Reads   champions, and what this node plays with.
//! Writes  `model.distributed`, after the file was read back whole.
//! Never   hands out a file that is not what its name says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ringrift_pipeline::{
    Catalogue, ChampionInstalled, Config as GameConfig, ModelDistributed, ModelPromoted, Record,
    Topic as _,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use warden::{Cx, Daemon, DaemonId, Health, Outcome, Priority, Spec};

use crate::{
    Blobs, COORDINATOR, COORDINATOR_FULL, Emits, Loop, STANDALONE, Topics,
    cycle::{EVENT_ROUTER, beyond, settled},
    evaluation::{auto_promotion::AutoPromotion, evaluation::Evaluation},
    on,
};

/// `[daemons.model_distribution]`: nothing of its own yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

/// What the last cycle saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// What the workers of this node play with, by config.
    pub models: BTreeMap<String, String>,
    /// Models handed out since the daemon started.
    pub handed_out: u64,
    /// Champions whose file is not sound.
    pub faults: Vec<String>,
}

/// The daemon.
pub struct ModelDistribution {
    catalogue: Catalogue,
    blobs: Blobs,
    the_loop: Arc<Loop>,
    handed_out: u64,
}

impl Emits for ModelDistribution {
    const EMITS: Topics = &[&[ModelDistributed::TOPIC]];
}

impl Daemon for ModelDistribution {
    const SPEC: Spec = Spec {
        id: DaemonId("MODEL_DISTRIBUTION"),
        about: "hands the champion to the workers",
        priority: Priority::Medium,
        needs: &[EVENT_ROUTER, Evaluation::ID, AutoPromotion::ID],
        profiles: &[COORDINATOR, COORDINATOR_FULL, STANDALONE],
        period: Duration::from_secs(10),
        wakes_on: &[on::<ModelPromoted>(), on::<ChampionInstalled>()],
        ..Spec::DEFAULT
    };
    type Config = Config;
    type Ports = (Catalogue, Blobs, Arc<Loop>);
    type Status = Status;

    fn new(Config {}: Config, (catalogue, blobs, the_loop): Self::Ports) -> Self {
        Self { catalogue, blobs, the_loop, handed_out: 0 }
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

impl ModelDistribution {
    async fn pass(&mut self, cx: &Cx) -> anyhow::Result<Outcome<Status>> {
        let (mut status, mut held_up) = (Status::default(), None);
        for config in self.the_loop.configs.clone() {
            cx.beat()?;
            let Some(handed_out) = beyond(self.hand_out(config, cx).await, &mut held_up)? else {
                continue;
            };
            match handed_out {
                Ok(Some(model)) => {
                    status.models.insert(config.to_string(), model);
                }
                Ok(None) => {}
                Err(fault) => status.faults.push(fault),
            }
        }
        status.handed_out = self.handed_out;
        held_up.map_or_else(|| Ok(Outcome::Done(status)), Err)
    }

    /// The model in use afterwards; or what is wrong with the champion's file.
    async fn hand_out(
        &mut self,
        config: GameConfig,
        cx: &Cx,
    ) -> anyhow::Result<Result<Option<String>, String>> {
        let Some(champion) = self.catalogue.champion(config).await? else { return Ok(Ok(None)) };
        let champion = champion.model;
        let node = self.the_loop.node.clone();
        let handed = self.catalogue.distribution(config, &node).await?;
        if handed.as_ref().is_some_and(|handed| handed.model.id == champion.id) {
            return Ok(Ok(Some(champion.id.0)));
        }
        if let Err(fault) = self.blobs.verify(&champion.weights).await? {
            warn!(model = %champion.id, %fault, "champion is not handed out");
            return Ok(Err(format!("{} is not handed out: {fault}", champion.id)));
        }
        let distributed = ModelDistributed {
            model: champion.id.clone(),
            config,
            weights: champion.weights,
            node,
        };
        let position = handed.map_or(0, |handed| handed.position);
        self.catalogue.record(vec![Record::after(distributed, position)], cx.now()).await?;
        info!(model = %champion.id, "model handed out");
        self.handed_out += 1;
        Ok(Ok(Some(champion.id.0)))
    }
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{BlobHash, ModelCreated, ModelId};

    use super::*;
    use crate::testbed::{Bed, done, hex, stops_in_mid_cycle};

    fn daemon(bed: &Bed) -> ModelDistribution {
        let ports =
            (bed.catalogue_of::<ModelDistribution>(), bed.blobs.clone(), bed.the_loop.clone());
        ModelDistribution::new(Config {}, ports)
    }

    async fn install(bed: &Bed, weights: BlobHash) {
        let model = ModelId::new(hex(), 0);
        bed.record(vec![
            ModelCreated {
                model: model.clone(),
                config: hex(),
                generation: 0,
                parent: None,
                weights,
                bytes: 1,
            }
            .into(),
            ChampionInstalled { model, config: hex() }.into(),
        ])
        .await;
    }

    #[tokio::test]
    async fn a_second_cycle_finds_nothing_to_do() {
        let bed = Bed::new().await;
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<ModelDistribution>();
        assert_eq!(done(daemon.cycle(&cx).await).handed_out, 0, "there is no champion");
        install(&bed, bed.put("weights")).await;
        let status = done(daemon.cycle(&cx).await);
        assert_eq!(status.handed_out, 1);
        assert_eq!(status.models["hex8_2p"], "hex8_2p-m0000");
        assert_eq!(done(daemon.cycle(&cx).await).handed_out, 1);
    }

    #[tokio::test]
    async fn a_damaged_champion_is_degraded_and_not_handed_out() {
        let bed = Bed::new().await;
        let weights = bed.put("weights");
        install(&bed, weights.clone()).await;
        let path = bed.blobs.path_of(&weights).await.unwrap().unwrap();
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, "wEights").unwrap();
        let mut daemon = daemon(&bed);
        let (cx, _probe) = bed.cx::<ModelDistribution>();
        let status = done(daemon.cycle(&cx).await);
        let Health::Degraded(sentence) = daemon.health(&status) else { panic!("healthy") };
        assert!(sentence.contains("is damaged"), "{sentence}");
        let handed = bed.catalogue.distribution(hex(), &bed.the_loop.node).await.unwrap();
        assert!(handed.is_none());
    }

    #[tokio::test]
    async fn a_stop_in_mid_cycle_leaves_no_fact() {
        let bed = Bed::new().await;
        install(&bed, bed.put("weights")).await;
        stops_in_mid_cycle(&bed, daemon(&bed)).await;
    }
}
