//! How markers lie, and what is left of rings under other caps (F13, F14, F17, F18, F21).

use ringrift_rules::{CellId, Seat, State};

use super::material::count;
use super::survey::{Ground, Survey, taxicab};
use super::weights::{
    BURIED_RING_VALUE, CONNECTED_NEIGHBOR, FOUR_IN_ROW, GAP_POTENTIAL, LINE_CONNECTIVITY,
    LINE_POTENTIAL, RECOVERY_ELIGIBILITY, RECOVERY_POTENTIAL, TERRITORY_CLOSURE, TERRITORY_SAFETY,
    THREE_IN_ROW, TWO_IN_ROW,
};

/// Markers that closure looks at, the first by x, then by y.
const CLOSURE_MARKERS: usize = 10;
/// Distance from which on an enemy stack is no danger to a marker.
const SAFE_DISTANCE: u8 = 3;
/// The reference takes buried rings by three tenths.
const BURIED_SHARE: f64 = 0.3;

/// F13: every pair, triple and quadruple counts from both of its ends (oddity O10).
pub(super) fn line_potential(survey: &Survey, seat: Seat) -> f64 {
    let potential = survey.by_seat(|owner| {
        let rays = survey.markers_of(owner).iter().flat_map(|cell| survey.line_rays(*cell));
        let worth = rays.map(|ray| {
            let run = ray.iter().take(3);
            match run.take_while(|cell| survey.ground(**cell).is_marker_of(owner)).count() {
                0 => 0.0,
                1 => TWO_IN_ROW,
                2 => TWO_IN_ROW + THREE_IN_ROW,
                _ => TWO_IN_ROW + THREE_IN_ROW + FOUR_IN_ROW,
            }
        });
        worth.sum()
    });
    LINE_POTENTIAL * survey.lead(seat, &potential)
}

/// F14.
pub(super) fn line_connectivity(survey: &Survey, seat: Seat) -> f64 {
    let connectivity = survey.by_seat(|owner| {
        let own = |cell: &CellId| survey.ground(*cell).is_marker_of(owner);
        let rays = survey.markers_of(owner).iter().flat_map(|cell| survey.line_rays(*cell));
        let worth = rays.map(|ray| match ray {
            [next, ..] if own(next) => CONNECTED_NEIGHBOR,
            [next, second, ..] if own(second) && survey.ground(*next).is_open() => GAP_POTENTIAL,
            _ => 0.0,
        });
        worth.sum()
    });
    LINE_CONNECTIVITY * survey.lead(seat, &connectivity)
}

/// F17.
pub(super) fn territory_closure(survey: &Survey, seat: Seat) -> f64 {
    let closure = survey.by_seat(|owner| {
        let markers = survey.markers_of(owner);
        if markers.len() < 2 {
            return 0.0;
        }
        let first = &markers[..markers.len().min(CLOSURE_MARKERS)];
        let mut sum = 0;
        for (at, one) in first.iter().enumerate() {
            for other in &first[at + 1..] {
                sum += u32::from(taxicab(survey.geometry, *one, *other));
            }
        }
        let pairs = first.len() * (first.len() - 1) / 2;
        let mean = f64::from(sum) / count(pairs);
        10.0 / mean.max(1.0) + 0.5 * count(markers.len())
    });
    TERRITORY_CLOSURE * survey.lead(seat, &closure)
}

/// F18: own markers near enemy stacks.
pub(super) fn territory_safety(survey: &Survey, seat: Seat) -> f64 {
    let safety = survey.by_seat(|owner| {
        let danger = |marker: &CellId| {
            // Whatever is nearer than the safe distance lies within two steps of movement.
            let near = survey.rays(*marker).flat_map(|ray| ray.iter().take(2));
            let enemies = near.filter(|cell| survey.ground(**cell).enemy_cap(owner).is_some());
            let distance = enemies.map(|cell| taxicab(survey.geometry, *marker, *cell)).min();
            distance.map_or(0, |distance| SAFE_DISTANCE.saturating_sub(distance))
        };
        -survey.markers_of(owner).iter().map(danger).map(f64::from).sum::<f64>()
    });
    TERRITORY_SAFETY * survey.lead(seat, &safety)
}

/// F21.
pub(super) fn recovery_potential(survey: &Survey, state: &State, seat: Seat) -> f64 {
    let potential = survey.by_seat(|owner| {
        if !state.is_recovery_eligible(owner) {
            return BURIED_RING_VALUE * BURIED_SHARE * f64::from(survey.buried[owner.index()]);
        }
        RECOVERY_ELIGIBILITY + if has_slide(survey, owner) { RECOVERY_POTENTIAL } else { 0.0 }
    });
    survey.lead(seat, &potential)
}

/// Whether a marker could step to a cell that is empty or holds a stack; on hex8 too, whose neighbours are known here.
fn has_slide(survey: &Survey, seat: Seat) -> bool {
    survey.markers_of(seat).iter().any(|cell| {
        let mut neighbours = survey.geometry.neighbours(*cell);
        neighbours.any(|to| matches!(survey.ground(to), Ground::Empty | Ground::Stack { .. }))
    })
}
