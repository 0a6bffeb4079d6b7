//! Our heuristic against recorded decisions of the reference.

use ringrift_rules::vectors::Decision;

use super::{HEURISTIC_FEATURES, Heuristic, best};

/// Recorded numbers are rounded to nine decimals; the rest is room for another order of adding up.
const TOLERANCE: f64 = 1e-9;

/// Compares every number of a recorded decision with ours: the value, its features, the value of each move, and the best moves.
///
/// Gives what was compared.
///
/// # Errors
/// The first difference, as a sentence.
pub fn check_heuristic(decision: &Decision) -> Result<String, String> {
    let state = &decision.state;
    let mut heuristic = Heuristic::default();
    let features = heuristic.features(state, state.to_move());
    for (name, wanted) in &decision.features {
        let index = HEURISTIC_FEATURES.iter().position(|known| known == name);
        let index = index.ok_or_else(|| format!("{name} is no feature of the heuristic"))?;
        same(&format!("feature {name}"), features[index], *wanted)?;
    }
    if let Some(wanted) = decision.value {
        same("value", heuristic.value(state, state.to_move()), wanted)?;
    }
    let moves: Vec<_> = decision.moves.iter().map(|(played, _)| *played).collect();
    let mut values = Vec::new();
    heuristic.move_values(state, &moves, &mut values);
    for ((played, wanted), found) in decision.moves.iter().zip(&values) {
        same(&format!("value of {}", state.notate(played)), *found, *wanted)?;
    }
    if let Some(wanted) = &decision.best {
        let found: Vec<_> = best(&values).map(|index| &moves[index]).collect();
        if !found.iter().copied().eq(wanted) {
            let texts = |moves: &mut dyn Iterator<Item = &_>| {
                moves.map(|played| state.notate(played)).collect::<Vec<_>>().join(", ")
            };
            let (found, wanted) = (texts(&mut found.into_iter()), texts(&mut wanted.iter()));
            return Err(format!("best moves: recorded {wanted}; the heuristic says {found}"));
        }
    }
    Ok(format!("{} features, {} moves", decision.features.len(), moves.len()))
}

fn same(what: &str, found: f64, wanted: f64) -> Result<(), String> {
    if (found - wanted).abs() <= TOLERANCE {
        return Ok(());
    }
    Err(format!("{what}: recorded {wanted}, the heuristic says {found}"))
}
