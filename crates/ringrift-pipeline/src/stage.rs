//! Stages: where a config's loop stands, derived from the catalogue for people. It starts nothing.

use serde::{Deserialize, Serialize};

/// The step that a config's loop waits for or works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// No champion yet.
    Idle,
    /// Games are played until a training is due.
    Selfplay,
    /// Games wait to be replayed and merged.
    Consolidation,
    /// Games wait to become samples.
    Export,
    /// Samples wait to become a window.
    Combination,
    /// A candidate is trained.
    Training,
    /// A candidate is matched.
    Evaluation,
    /// A candidate waits for its verdict.
    Promotion,
    /// A champion waits to be handed out.
    Distribution,
}

/// What a stage is derived from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact of the catalogue")]
pub struct StageView {
    /// A champion exists.
    pub has_champion: bool,
    /// The champion is handed out.
    pub distributed: bool,
    /// A training is queued or claimed.
    pub training: bool,
    /// A candidate exists without a finished gauntlet.
    pub unevaluated: bool,
    /// A candidate exists with a gauntlet and without a verdict.
    pub unjudged: bool,
    /// Batches not yet replayed.
    pub unchecked_batches: u64,
    /// Accepted batches without samples.
    pub unexported_batches: u64,
    /// Sample files newer than the newest window.
    pub uncombined_samples: u64,
    /// The newest window is enough for a training and untrained.
    pub window_ready: bool,
}

/// The stage: the last step of the loop that has work, because it is what the rest waits for.
pub fn stage_of(view: &StageView) -> Stage {
    if !view.has_champion {
        Stage::Idle
    } else if !view.distributed {
        Stage::Distribution
    } else if view.unjudged {
        Stage::Promotion
    } else if view.unevaluated {
        Stage::Evaluation
    } else if view.training || view.window_ready {
        Stage::Training
    } else if view.uncombined_samples > 0 {
        Stage::Combination
    } else if view.unexported_batches > 0 {
        Stage::Export
    } else if view.unchecked_batches > 0 {
        Stage::Consolidation
    } else {
        Stage::Selfplay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut StageView), expected: Stage) {
        let mut view = StageView { has_champion: true, distributed: true, ..StageView::default() };
        change(&mut view);
        assert_eq!(stage_of(&view), expected, "{view:?}");
    }

    #[test]
    fn the_latest_step_with_work_is_the_stage() {
        check(|view| view.has_champion = false, Stage::Idle);
        check(|view| view.distributed = false, Stage::Distribution);
        check(|_| {}, Stage::Selfplay);
        check(|view| view.unchecked_batches = 3, Stage::Consolidation);
        check(|view| view.unexported_batches = 1, Stage::Export);
        check(|view| view.uncombined_samples = 1, Stage::Combination);
        check(|view| view.window_ready = true, Stage::Training);
        check(
            |view| {
                view.training = true;
                view.unchecked_batches = 9;
            },
            Stage::Training,
        );
        check(
            |view| {
                view.unevaluated = true;
                view.training = true;
            },
            Stage::Evaluation,
        );
        check(
            |view| {
                view.unjudged = true;
                view.unevaluated = true;
            },
            Stage::Promotion,
        );
    }
}
