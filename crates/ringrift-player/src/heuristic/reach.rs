//! What stacks can do to their neighbours and to what they see (F5, F6, F11, F15, F16, F19, F20).
//!
//! None of it knows the rules of movement: neighbours count whatever the height of a stack (oddity O4), and a view says nothing of where
//! a capture would land.

use ringrift_rules::{Seat, State};

use super::material::count;
use super::survey::Survey;
use super::weights::{
    BLOCKED_STACK_PENALTY, FORCED_ELIMINATION_RISK, LPS_ACTION_ADVANTAGE, MOBILITY,
    OPPONENT_THREAT, OVERTAKE_POTENTIAL, STACK_MOBILITY, VULNERABILITY,
};

/// The reference takes a threat by half.
const THREAT_SHARE: f64 = 0.5;

/// F5: signed, so that a smaller neighbour is a plus.
pub(super) fn opponent_threats(survey: &Survey, seat: Seat) -> f64 {
    let mut surplus = 0;
    for stack in survey.stacks_of(seat) {
        for cell in survey.adjacent(stack.cell) {
            if let Some(cap) = survey.ground(cell).enemy_cap(seat) {
                surplus += i32::from(cap) - i32::from(stack.cap);
            }
        }
    }
    -OPPONENT_THREAT * THREAT_SHARE * f64::from(surplus)
}

/// F6: the opponents add up, and capture nobody but the player.
pub(super) fn mobility(survey: &Survey, seat: Seat) -> f64 {
    let ways = survey.stacks.iter().map(|stack| {
        if stack.controller == seat {
            i32::from(stack.ways())
        } else {
            -i32::from(stack.open + stack.lesser[seat.index()])
        }
    });
    MOBILITY * f64::from(ways.sum::<i32>())
}

/// F11.
pub(super) fn stack_mobility(survey: &Survey, seat: Seat) -> f64 {
    let sum = survey.by_seat(|owner| {
        let worth = survey.stacks_of(owner).map(|stack| match stack.ways() {
            0 => -BLOCKED_STACK_PENALTY,
            ways => ways.into(),
        });
        worth.sum()
    });
    STACK_MOBILITY * survey.lead(seat, &sum)
}

/// F15 and F16: the first stack in each direction, at any distance and through markers and collapsed cells (oddity O3).
pub(super) fn vulnerability_and_overtake(survey: &Survey, seat: Seat) -> (f64, f64) {
    let (mut larger, mut smaller) = (0, 0);
    for stack in survey.stacks_of(seat) {
        for ray in survey.rays(stack.cell) {
            let seen = ray.iter().map(|cell| survey.ground(*cell)).find(|ground| ground.is_stack());
            let Some(cap) = seen.and_then(|ground| ground.enemy_cap(seat)) else { continue };
            larger += u32::from(cap.saturating_sub(stack.cap));
            smaller += u32::from(stack.cap.saturating_sub(cap));
        }
    }
    (-VULNERABILITY * f64::from(larger), OVERTAKE_POTENTIAL * f64::from(smaller))
}

/// a of the specification: stacks that have a way, and one more for a hand that can place.
fn actions(survey: &Survey, state: &State, seat: Seat) -> f64 {
    let able = survey.stacks_of(seat).filter(|stack| stack.ways() > 0).count();
    let places = state.hand(seat) > 0 && survey.has_open_cell;
    count(able + usize::from(places))
}

/// F19: an opponent at higher risk is a plus.
pub(super) fn forced_elimination_risk(survey: &Survey, state: &State, seat: Seat) -> f64 {
    let risk = survey.by_seat(|owner| match state.stacks(owner) {
        0 => 0.0,
        stacks => (2.0 - actions(survey, state, owner) / f64::from(stacks)).max(0.0),
    });
    -FORCED_ELIMINATION_RISK * survey.lead(seat, &risk)
}

/// F20.
pub(super) fn lps_action_advantage(survey: &Survey, state: &State, seat: Seat) -> f64 {
    let opponents = survey.players() - 1;
    if opponents == 1 {
        return 0.0;
    }
    let stuck = |seat: &Seat| actions(survey, state, *seat) <= 0.0;
    let advantage = if stuck(&seat) {
        -1.0
    } else {
        count(survey.others(seat).filter(stuck).count()) / count(opponents)
    };
    LPS_ACTION_ADVANTAGE * advantage
}
