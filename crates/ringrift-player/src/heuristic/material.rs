//! What a player has: stacks, territory, rings, markers (F1 to F4, F7, F8).

use ringrift_rules::{Board, Seat, State};

use super::survey::{Standing, Survey};
use super::weights::{
    CAP_HEIGHT, CENTER_CONTROL, ELIMINATED_RINGS, MARKER_COUNT, NO_STACKS_PENALTY, RINGS_IN_HAND,
    SINGLE_STACK_PENALTY, STACK_CONTROL, STACK_DIVERSITY_BONUS, STACK_HEIGHT, TERRITORY,
};

/// Rings of a stack that count in full; each one above counts a tenth.
const FULL_HEIGHT: u16 = 5;

/// F1: against the average of the others.
pub(super) fn stack_control(survey: &Survey, seat: Seat) -> f64 {
    let [mut own, mut others] = [[0.0; 3]; 2];
    for stack in &survey.stacks {
        let side = if stack.controller == seat { &mut own } else { &mut others };
        side[0] += 1.0;
        side[1] += worth_of_height(stack);
        side[2] += f64::from(stack.cap);
    }
    let opponents = survey.players() - 1;
    let [stacks, heights, caps] = others.map(|sum| sum / count(opponents));
    STACK_CONTROL * (own[0] - stacks)
        + STACK_HEIGHT * (own[1] - heights)
        + CAP_HEIGHT * (own[2] - caps)
        + diversity(own[0])
        - diversity(stacks)
}

fn worth_of_height(stack: &Standing) -> f64 {
    let full = stack.height.min(FULL_HEIGHT);
    f64::from(full) + 0.1 * f64::from(stack.height - full)
}

/// D of the specification. An average of several opponents may be a fraction: half a stack is worth a little, no stack and one stack
/// are bad (oddity O6).
#[expect(clippy::float_cmp, reason = "whole numbers are exact, also as averages")]
fn diversity(stacks: f64) -> f64 {
    if stacks == 0.0 {
        -NO_STACKS_PENALTY
    } else if stacks == 1.0 {
        -SINGLE_STACK_PENALTY
    } else {
        STACK_DIVERSITY_BONUS * stacks
    }
}

/// F2.
pub(super) fn territory(survey: &Survey, state: &State, seat: Seat) -> f64 {
    TERRITORY * survey.lead(seat, &survey.by_seat(|s| state.territory(s).into()))
}

/// F3.
pub(super) fn rings_in_hand(survey: &Survey, state: &State, seat: Seat) -> f64 {
    RINGS_IN_HAND * survey.lead(seat, &survey.by_seat(|s| state.hand(s).into()))
}

/// F4: the opponents add up.
pub(super) fn center_control(survey: &Survey, seat: Seat) -> f64 {
    let geometry = survey.geometry;
    let is_central = |stack: &&Standing| {
        let at = geometry.coordinate(stack.cell);
        let (x, y, z) = (at.x, at.y, at.z);
        match geometry.board() {
            Board::Square8 => (3..=4).contains(&x) && (3..=4).contains(&y),
            Board::Square19 => (8..=10).contains(&x) && (8..=10).contains(&y),
            Board::Hex8 => x.abs().max(y.abs()).max(z.abs()) <= 1,
            Board::Hexagonal => x.abs().max(y.abs()).max(z.abs()) <= 2,
        }
    };
    let signed = |stack: &Standing| if stack.controller == seat { 1.0 } else { -1.0 };
    CENTER_CONTROL * survey.stacks.iter().filter(is_central).map(signed).sum::<f64>()
}

/// F7: what the others have counts nothing (oddity O5).
pub(super) fn eliminated_rings(state: &State, seat: Seat) -> f64 {
    ELIMINATED_RINGS * f64::from(state.eliminated(seat))
}

/// F8.
pub(super) fn marker_count(survey: &Survey, state: &State, seat: Seat) -> f64 {
    MARKER_COUNT * survey.lead(seat, &survey.by_seat(|s| state.markers(s).into()))
}

/// A number of stacks, seats or pairs.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}
