//! How near the end is (F9, F10, F12).

use ringrift_rules::{Seat, State};

use super::survey::{BySeat, Survey};
use super::weights::{
    MULTI_LEADER_THREAT, OPPONENT_VICTORY_THREAT, RINGS_PROXIMITY_FACTOR,
    TERRITORY_PROXIMITY_FACTOR, VICTORY_PROXIMITY, VICTORY_THRESHOLD_BONUS,
};

/// Worth of the first round as the only one able to act, as a share of a reached threshold, and what the rest can add.
const FIRST_ROUND: f64 = 0.90;
const LAST_ROUND: f64 = 0.09;

/// b of the specification, for every seat.
pub(super) fn bases(survey: &Survey, state: &State) -> BySeat {
    survey.by_seat(|seat| base(state, seat))
}

fn base(state: &State, seat: Seat) -> f64 {
    let standing = state.last_player_standing();
    if standing.candidate == Some(seat) && standing.streak > 0 {
        let (streak, needed) = (standing.streak, state.options().lps_rounds);
        if streak >= needed || needed <= 1 {
            return VICTORY_THRESHOLD_BONUS;
        }
        let done = (f64::from(streak) / f64::from(needed - 1)).min(1.0);
        return VICTORY_THRESHOLD_BONUS * (FIRST_ROUND + LAST_ROUND * done);
    }
    let rings = f64::from(state.ring_victory()) - f64::from(state.eliminated(seat));
    let cells = legacy_territory(state) - f64::from(state.territory(seat));
    if rings <= 0.0 || cells <= 0.0 {
        return VICTORY_THRESHOLD_BONUS;
    }
    RINGS_PROXIMITY_FACTOR / rings + TERRITORY_PROXIMITY_FACTOR / cells
}

/// More than half of the board, also with three and four players, where the rules need less (oddity O7).
fn legacy_territory(state: &State) -> f64 {
    super::material::count(state.geometry().len() / 2 + 1)
}

/// F9.
pub(super) fn victory_proximity(survey: &Survey, bases: &BySeat, seat: Seat) -> f64 {
    VICTORY_PROXIMITY * survey.lead(seat, bases)
}

/// F10.
pub(super) fn opponent_victory_threat(survey: &Survey, bases: &BySeat, seat: Seat) -> f64 {
    -OPPONENT_VICTORY_THREAT * (-survey.lead(seat, bases)).max(0.0)
}

/// F12: how far one opponent is ahead of the others.
pub(super) fn multi_leader_threat(survey: &Survey, bases: &BySeat, seat: Seat) -> f64 {
    if survey.players() == 2 {
        return 0.0;
    }
    let (mut first, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for other in survey.others(seat) {
        let base = bases[other.index()];
        second = second.max(base.min(first));
        first = first.max(base);
    }
    -MULTI_LEADER_THREAT * (first - second)
}
