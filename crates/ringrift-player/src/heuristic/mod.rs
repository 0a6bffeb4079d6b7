//! `heuristic-ref-1`: a hand-written player that looks one move ahead, a fixed ruler of strength.
//!
//! It is the reference's heuristic player, number for number and oddity for oddity: every figure "against the heuristic" means this one.
//! Source: spec/heuristic.md; F1 to F21 and O1 to O12 are its names.

mod formation;
mod material;
mod reach;
mod reference;
mod survey;
mod victory;
mod weights;

use ringrift_rules::{Move, Seat, State};

pub use reference::check_heuristic;
use survey::Survey;

/// What reports call it. Whoever changes a number changes this name.
pub const HEURISTIC_NAME: &str = "heuristic-ref-1";

/// Names of the features, in the order of F1 to F21.
pub const HEURISTIC_FEATURES: [&str; 21] = [
    "stack_control",
    "territory",
    "rings_in_hand",
    "center_control",
    "opponent_threats",
    "mobility",
    "eliminated_rings",
    "marker_count",
    "victory_proximity",
    "opponent_victory_threat",
    "stack_mobility",
    "multi_leader_threat",
    "line_potential",
    "line_connectivity",
    "vulnerability",
    "overtake_potential",
    "territory_closure",
    "territory_safety",
    "forced_elimination_risk",
    "lps_action_advantage",
    "recovery_potential",
];

/// Value of a won game.
const WON: f64 = 100_000.0;
/// Values this near to the largest are as good.
const TIE: f64 = 1e-6;

/// The evaluation. It keeps its memory between positions.
#[derive(Debug, Default)]
pub struct Heuristic {
    survey: Survey,
}

impl Heuristic {
    /// The value of a position to a seat; see [`Heuristic::features`] for a running game.
    pub fn value(&mut self, state: &State, seat: Seat) -> f64 {
        if !state.is_over() {
            return self.features(state, seat).iter().sum();
        }
        match state.outcome() {
            Some(outcome) if outcome.winner == seat => WON,
            Some(_) => -WON,
            None => 0.0,
        }
    }

    /// The summands of the value of a running game, in the order of [`HEURISTIC_FEATURES`]. Phase and player to move make no difference.
    pub fn features(&mut self, state: &State, seat: Seat) -> [f64; HEURISTIC_FEATURES.len()] {
        self.survey.look_at(state);
        let survey = &self.survey;
        let bases = victory::bases(survey, state);
        let (vulnerability, overtake) = reach::vulnerability_and_overtake(survey, seat);
        [
            material::stack_control(survey, seat),
            material::territory(survey, state, seat),
            material::rings_in_hand(survey, state, seat),
            material::center_control(survey, seat),
            reach::opponent_threats(survey, seat),
            reach::mobility(survey, seat),
            material::eliminated_rings(state, seat),
            material::marker_count(survey, state, seat),
            victory::victory_proximity(survey, &bases, seat),
            victory::opponent_victory_threat(survey, &bases, seat),
            reach::stack_mobility(survey, seat),
            victory::multi_leader_threat(survey, &bases, seat),
            formation::line_potential(survey, seat),
            formation::line_connectivity(survey, seat),
            vulnerability,
            overtake,
            formation::territory_closure(survey, seat),
            formation::territory_safety(survey, seat),
            reach::forced_elimination_risk(survey, state, seat),
            reach::lps_action_advantage(survey, state, seat),
            formation::recovery_potential(survey, state, seat),
        ]
    }

    /// The value of each legal move to the player to move: that of the position right after it, whoever is to move then.
    ///
    /// Swapping sides puts the mover on the other seat, so that seat's value counts.
    pub fn move_values(&mut self, state: &State, moves: &[Move], out: &mut Vec<f64>) {
        out.clear();
        for played in moves {
            let chooser = state.to_move();
            let seat = if *played == Move::SwapSides { chooser.next(2) } else { chooser };
            let mut after = state.clone();
            after.apply_legal(played);
            out.push(self.value(&after, seat));
        }
    }

    /// Chooses among the legal moves: one of the best, all of them equally likely.
    pub(crate) fn choose(
        &mut self,
        state: &State,
        moves: &[Move],
        rng: &mut fastrand::Rng,
    ) -> usize {
        let mut values = Vec::new();
        self.move_values(state, moves, &mut values);
        let mut best: Vec<usize> = best(&values).collect();
        // The draw is over the list in order of notation, so that another implementation can repeat it.
        best.sort_by_cached_key(|index| state.notate(&moves[*index]));
        best[rng.usize(..best.len())]
    }
}

/// Indices of the values that tie for the largest.
fn best(values: &[f64]) -> impl Iterator<Item = usize> {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (0..values.len()).filter(move |index| values[*index] >= most - TIE)
}

#[cfg(test)]
mod tests;
