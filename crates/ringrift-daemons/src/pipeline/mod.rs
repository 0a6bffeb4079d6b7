//! Category `pipeline`: from games to a candidate.

pub(crate) mod auto_export;
pub(crate) mod data_consolidation;
pub(crate) mod data_pipeline;
pub(crate) mod npz_combination;
pub(crate) mod planned;
pub(crate) mod selfplay_coordinator;
pub(crate) mod training_trigger;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<data_pipeline::DataPipeline>(),
    Entry::planned(&planned::CONTINUOUS_TRAINING_LOOP),
    Entry::of::<selfplay_coordinator::SelfplayCoordinator>(),
    Entry::of::<training_trigger::TrainingTrigger>(),
    Entry::of::<auto_export::AutoExport>(),
    Entry::planned(&planned::TOURNAMENT_DAEMON),
    Entry::of::<data_consolidation::DataConsolidation>(),
    Entry::of::<npz_combination::NpzCombination>(),
    Entry::planned(&planned::CASCADE_TRAINING),
    Entry::planned(&planned::PER_ORCHESTRATOR),
    Entry::planned(&planned::NNUE_TRAINING),
];
