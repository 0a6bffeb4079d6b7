//! Why a config's loop stands where it stands: every "no", what is at work, what comes next.

use ringrift_pipeline::{Catalogue, CatalogueError, Config, NodeId, Stage, WorkState, stage_of};
use serde::Serialize;

use crate::{
    Pressure,
    alarms::{Alarm, standing},
    registry, stage_view,
};

/// One sentence of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sentence {
    /// Who says it: a daemon's gate, `obstacle`, `alarm`, `work` or `next`.
    pub gate: String,
    /// Does it hold nothing back?
    pub open: bool,
    /// What is so.
    pub reason: String,
    /// What would change it; empty when nothing is held back.
    pub needs: String,
    /// Since when, ms; none when that is not known.
    pub since: Option<i64>,
}

/// Explains a config's loop: obstacles, closed gates, alarms, work, and what is expected next, in
/// this order.
///
/// `pressure` is that of the running process; beside a manager, or without one, an empty one will
/// do, for the gates that an obstacle closed are stored.
pub async fn explain(
    catalogue: &Catalogue,
    pressure: &Pressure,
    config: Config,
) -> Result<Vec<Sentence>, CatalogueError> {
    let mut sentences = Vec::new();
    for (owner, obstacle) in pressure.obstacles() {
        sentences.push(Sentence {
            gate: owner.to_owned(),
            open: false,
            reason: obstacle.reason,
            needs: obstacle.needs,
            since: None,
        });
    }
    sentences.extend(closed_gates(catalogue, Some(config)).await?);
    sentences.extend(closed_gates(catalogue, None).await?);
    sentences.extend(alarms(catalogue, config).await?);
    sentences.extend(work(catalogue, config).await?);
    sentences.push(next(catalogue, config).await?);
    Ok(sentences)
}

/// The gates of a config (or those of all configs) that are closed.
pub(crate) async fn closed_gates(
    catalogue: &Catalogue,
    config: Option<Config>,
) -> Result<Vec<Sentence>, CatalogueError> {
    let (mut closed, of_all) = (Vec::new(), catalogue.of_node(None));
    for (_, entry) in registry().filter(|(_, entry)| entry.is_built()) {
        let name = entry.spec.id.0;
        let told = match catalogue.gate(name, config).await? {
            Some(here) => Some(here),
            None => of_all.gate(name, config).await?,
        };
        let Some((gate, since)) = told else { continue };
        if !gate.open {
            closed.push(Sentence {
                gate: gate.gate,
                open: false,
                reason: gate.reason,
                needs: gate.needs,
                since: Some(since),
            });
        }
    }
    Ok(closed)
}

async fn alarms(catalogue: &Catalogue, config: Config) -> Result<Vec<Sentence>, CatalogueError> {
    let raised = standing(catalogue).await?.into_iter().filter(|alarm| alarm.concerns(config));
    let sentence = |alarm: Alarm| Sentence {
        gate: format!("alarm {}", alarm.alarm),
        open: false,
        reason: alarm.sentence,
        needs: String::new(),
        since: Some(alarm.since),
    };
    Ok(raised.map(sentence).collect())
}

async fn work(catalogue: &Catalogue, config: Config) -> Result<Vec<Sentence>, CatalogueError> {
    let mut sentences = Vec::new();
    for item in catalogue.open_works().await? {
        if item.config != config {
            continue;
        }
        let trouble =
            item.error.map_or_else(String::new, |error| format!("; before that: {error}"));
        let reason = match (item.state, item.node) {
            (WorkState::Claimed, Some(node)) => format!(
                "{} is in work on {node}, attempt {}: {}{trouble}",
                item.id, item.attempt, item.reason
            ),
            _ => format!("{} waits to be claimed: {}{trouble}", item.id, item.reason),
        };
        sentences.push(Sentence {
            gate: "work".into(),
            open: true,
            reason,
            needs: String::new(),
            since: Some(item.changed_ms),
        });
    }
    Ok(sentences)
}

async fn next(catalogue: &Catalogue, config: Config) -> Result<Sentence, CatalogueError> {
    let nodes = catalogue.playing_nodes(config).await?;
    // Before anybody plays with it the champion is not handed out, whoever is asked.
    let node = nodes.into_iter().next().unwrap_or_else(|| NodeId("none".into()));
    let view = stage_view(catalogue, config, &node).await?;
    let next = match stage_of(&view) {
        Stage::Idle => "the first champion is made from the seed".to_owned(),
        Stage::Selfplay => "games are played until a training is due".to_owned(),
        Stage::Consolidation => {
            format!("{} batches of games are replayed and counted", view.unchecked_batches)
        }
        Stage::Export => format!("{} batches become samples", view.unexported_batches),
        Stage::Combination => {
            format!("{} files of samples become a window", view.uncombined_samples)
        }
        Stage::Training if view.training => "a candidate comes out of the training".to_owned(),
        Stage::Training => "the newest window is trained on".to_owned(),
        Stage::Evaluation => "the candidate meets the champion".to_owned(),
        Stage::Promotion => "the candidate is judged".to_owned(),
        Stage::Distribution => "the champion is handed to this node".to_owned(),
    };
    Ok(Sentence {
        gate: "next".into(),
        open: true,
        reason: next,
        needs: String::new(),
        since: None,
    })
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{
        CheckpointSaved, Gate, Job, ModelId, ModelRef, NodeId, TrainJob, WorkClaimed, WorkId,
        WorkKind, WorkQueued,
    };
    use warden::DaemonId;

    use super::*;
    use crate::{
        Obstacle,
        alarms::Alarms,
        testbed::{Bed, hex, square},
    };

    async fn told(bed: &Bed, config: Config) -> Vec<(String, bool, String, String)> {
        let sentences = explain(&bed.catalogue, &bed.pressure, config).await.unwrap();
        sentences.into_iter().map(|s| (s.gate, s.open, s.reason, s.needs)).collect()
    }

    fn sentence(
        gate: &str,
        open: bool,
        reason: &str,
        needs: &str,
    ) -> (String, bool, String, String) {
        (gate.into(), open, reason.into(), needs.into())
    }

    #[tokio::test]
    async fn an_empty_directory_expects_its_first_champion_and_a_loop_its_games() {
        let bed = Bed::new().await;
        let first = "the first champion is made from the seed";
        assert_eq!(told(&bed, hex()).await, [sentence("next", true, first, "")]);
        bed.champion(hex()).await;
        let games = "games are played until a training is due";
        assert_eq!(told(&bed, hex()).await, [sentence("next", true, games, "")]);
    }

    #[tokio::test]
    async fn obstacles_gates_alarms_work_and_what_comes_next_are_told_in_this_order() {
        let bed = Bed::new().await;
        let model = bed.champion(hex()).await;
        let weights = bed.catalogue.model(&model).await.unwrap().unwrap().weights;
        let tell = async |gate: Gate, of: &str, config| {
            bed.catalogue.tell_gate(gate.to_fact(of, config), 5).await.unwrap();
        };
        tell(Gate::deny("few", "3 rows", "4096 rows"), "TRAINING_TRIGGER", Some(hex())).await;
        tell(Gate::deny("few", "1 row", "4096 rows"), "TRAINING_TRIGGER", Some(square())).await;
        tell(Gate::deny("old", "closed once", "-"), "EVALUATION", Some(hex())).await;
        tell(Gate::Allow, "EVALUATION", Some(hex())).await;
        tell(Gate::deny("off", "all rest", "a switch"), "QUEUE_POPULATOR", None).await;
        let obstacle = Obstacle { reason: "1 GiB is free".into(), needs: "2 GiB".into() };
        bed.pressure.set(DaemonId("DISK_SPACE_MANAGER"), Some(obstacle));
        let mut alarms = Alarms::default();
        let alarm = Some("it failed".to_owned());
        alarms.set(&bed.catalogue, "daemon.EVALUATION", alarm, 6).await.unwrap();
        let stalled = crate::health::progress_watchdog::alarm_on(square());
        alarms.set(&bed.catalogue, &stalled, Some("another config".into()), 6).await.unwrap();
        let work = WorkId::new(WorkKind::Train, hex(), 1);
        let job = Job::Train(TrainJob {
            candidate: ModelId::new(hex(), 1),
            generation: 1,
            parent: ModelRef { id: model, weights: weights.clone() },
            window: weights.clone(),
            steps: 10,
            batch: 1,
            learning_rate: 0.1,
            checkpoint_steps: 5,
            checkpoint: None,
            seed: 1,
        });
        let node = NodeId("here".into());
        bed.record(vec![
            WorkQueued { work: work.clone(), config: hex(), job, reason: "enough rows".into() }
                .into(),
            WorkClaimed { work: work.clone(), attempt: 1, node, epoch: 0 }.into(),
            CheckpointSaved { work, config: hex(), checkpoint: weights, bytes: 1 }.into(),
        ])
        .await;

        let claimed = "train-hex8_2p-000001 is in work on here, attempt 1: enough rows";
        let expected = [
            sentence("DISK_SPACE_MANAGER", false, "1 GiB is free", "2 GiB"),
            sentence("TRAINING_TRIGGER", false, "3 rows", "4096 rows"),
            sentence("QUEUE_POPULATOR", false, "all rest", "a switch"),
            sentence("alarm daemon.EVALUATION", false, "it failed", ""),
            sentence("work", true, claimed, ""),
            sentence("next", true, "a candidate comes out of the training", ""),
        ];
        assert_eq!(told(&bed, hex()).await, expected);
        let gate = &explain(&bed.catalogue, &bed.pressure, hex()).await.unwrap()[1];
        assert_eq!(gate.since, Some(5));
    }
}
