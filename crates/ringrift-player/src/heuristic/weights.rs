//! The weights: profile v1 balanced. Source: spec/heuristic.md section 3.
//!
//! Frozen: whoever changes a number makes another player, which needs another name. The profile has twelve more, which its evaluation
//! never reads: `ADJACENCY`, `SAFE_MOVE_BONUS`, `NO_SAFE_MOVES_PENALTY`, `RECOVERY_THREAT` and the eight `SWAP_...`.

macro_rules! weights {
    ($($name:ident $value:literal)*) => {
        $(pub(super) const $name: f64 = $value;)*
    };
}

weights! {
    STACK_CONTROL 10.0
    STACK_HEIGHT 5.0
    CAP_HEIGHT 6.0
    TERRITORY 8.0
    RINGS_IN_HAND 3.0
    CENTER_CONTROL 4.0
    OPPONENT_THREAT 6.0
    MOBILITY 4.0
    ELIMINATED_RINGS 12.0
    LINE_POTENTIAL 7.0
    VICTORY_PROXIMITY 20.0
    MARKER_COUNT 1.5
    VULNERABILITY 8.0
    OVERTAKE_POTENTIAL 8.0
    TERRITORY_CLOSURE 10.0
    LINE_CONNECTIVITY 6.0
    TERRITORY_SAFETY 5.0
    STACK_MOBILITY 4.0
    OPPONENT_VICTORY_THREAT 6.0
    FORCED_ELIMINATION_RISK 4.0
    MULTI_LEADER_THREAT 2.0
    NO_STACKS_PENALTY 50.0
    SINGLE_STACK_PENALTY 10.0
    STACK_DIVERSITY_BONUS 2.0
    VICTORY_THRESHOLD_BONUS 1000.0
    RINGS_PROXIMITY_FACTOR 50.0
    TERRITORY_PROXIMITY_FACTOR 50.0
    TWO_IN_ROW 1.0
    THREE_IN_ROW 2.0
    FOUR_IN_ROW 5.0
    CONNECTED_NEIGHBOR 1.0
    GAP_POTENTIAL 0.5
    BLOCKED_STACK_PENALTY 5.0
    RECOVERY_POTENTIAL 6.0
    RECOVERY_ELIGIBILITY 8.0
    BURIED_RING_VALUE 3.0
    LPS_ACTION_ADVANTAGE 2.0
}
