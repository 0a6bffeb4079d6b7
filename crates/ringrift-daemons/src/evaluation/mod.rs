//! Category `evaluation`.

pub(crate) mod auto_promotion;
pub(crate) mod evaluation;
pub(crate) mod gauntlet_feedback;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<auto_promotion::AutoPromotion>(),
    Entry::of::<evaluation::Evaluation>(),
    Entry::of::<gauntlet_feedback::GauntletFeedback>(),
];
