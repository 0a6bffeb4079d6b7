//! Category `feedback`: what the loop learns about itself.

pub(crate) mod curriculum_integration;
pub(crate) mod feedback_loop;
pub(crate) mod planned;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<feedback_loop::FeedbackLoop>(),
    Entry::of::<curriculum_integration::CurriculumIntegration>(),
    Entry::planned(&planned::ARCHITECTURE_FEEDBACK),
];
