//! Category `pipeline`.

pub(crate) mod auto_export;
pub(crate) mod data_consolidation;
pub(crate) mod data_pipeline;
pub(crate) mod npz_combination;
pub(crate) mod selfplay_coordinator;
pub(crate) mod training_trigger;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<auto_export::AutoExport>(),
    Entry::of::<data_consolidation::DataConsolidation>(),
    Entry::of::<data_pipeline::DataPipeline>(),
    Entry::of::<npz_combination::NpzCombination>(),
    Entry::of::<selfplay_coordinator::SelfplayCoordinator>(),
    Entry::of::<training_trigger::TrainingTrigger>(),
];
