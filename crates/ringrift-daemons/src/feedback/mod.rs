//! Category `feedback`.

pub(crate) mod curriculum_integration;
pub(crate) mod feedback_loop;

use crate::Entry;

pub(crate) const DAEMONS: &[Entry] = &[
    Entry::of::<curriculum_integration::CurriculumIntegration>(),
    Entry::of::<feedback_loop::FeedbackLoop>(),
];
