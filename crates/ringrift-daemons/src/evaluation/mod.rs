//! Category `evaluation`: from a trained candidate to a verdict.

pub(crate) mod auto_promotion;
#[expect(clippy::module_inception, reason = "the category and its first daemon share a name")]
pub(crate) mod evaluation;
pub(crate) mod gauntlet_feedback;
pub(crate) mod planned;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<evaluation::Evaluation>(),
    Entry::of::<auto_promotion::AutoPromotion>(),
    Entry::planned(&planned::UNIFIED_PROMOTION),
    Entry::of::<gauntlet_feedback::GauntletFeedback>(),
];
