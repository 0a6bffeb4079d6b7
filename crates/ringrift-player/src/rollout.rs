//! Tree search without a network: UCT with random play to the end of the game, a fixed ruler of strength.

use ringrift_rules::{Move, State};

use crate::gumbel::best;
use crate::values::Values;

/// Exploration weight of UCB1, for chances to win in 0..=1. Source: Kocsis and Szepesvári 2006, sqrt(2).
const EXPLORATION: f32 = std::f32::consts::SQRT_2;

/// A position of the tree.
struct Node {
    state: State,
    moves: Vec<Move>,
    children: Vec<Option<usize>>,
    visits: f32,
    /// Sum of results per seat, from the simulations that passed here.
    sum: Values,
}

/// Searches with `simulations` random games; gives the share of them per legal move and the mean result.
///
/// A move's share of the simulations is its strength: the best one has the largest.
pub(crate) fn search(
    state: &State,
    moves: &[Move],
    simulations: u32,
    rng: &mut fastrand::Rng,
) -> (Vec<f32>, Values) {
    let mut tree = vec![Node::new(state.clone(), moves.to_vec())];
    let mut path = Vec::new();
    for _ in 0..simulations {
        path.clear();
        path.push(0);
        let mut node = 0;
        while !tree[node].moves.is_empty() {
            let choice = tree[node].choose(&tree, rng);
            if let Some(child) = tree[node].children[choice] {
                node = child;
                path.push(node);
            } else {
                let mut state = tree[node].state.clone();
                state.apply_legal(&tree[node].moves[choice]);
                let mut moves = Vec::new();
                play_forced(&mut state, &mut moves);
                tree.push(Node::new(state, moves));
                let child = tree.len() - 1;
                tree[node].children[choice] = Some(child);
                path.push(child);
                node = child;
                break;
            }
        }
        let result = play_out(tree[node].state.clone(), rng);
        for &node in &path {
            tree[node].visits += 1.0;
            tree[node].sum.add(&result, 1.0);
        }
    }
    let total = tree[0].visits.max(1.0);
    let shares = tree[0].children.iter().map(|c| c.map_or(0.0, |c| tree[c].visits / total));
    (shares.collect(), tree[0].sum.scaled(1.0 / total))
}

impl Node {
    fn new(state: State, moves: Vec<Move>) -> Self {
        let players = usize::from(state.config().players);
        let children = vec![None; moves.len()];
        Self { state, moves, children, visits: 0.0, sum: Values::zero(players) }
    }

    /// UCB1; moves never tried come first, in random order.
    fn choose(&self, tree: &[Self], rng: &mut fastrand::Rng) -> usize {
        let untried = self.children.iter().filter(|child| child.is_none()).count();
        if untried > 0 {
            let wanted = rng.usize(..untried);
            let mut untried = (0..self.children.len()).filter(|&i| self.children[i].is_none());
            return untried.nth(wanted).expect("the number was drawn below their count");
        }
        let mover = self.state.to_move().index();
        let log = self.visits.ln();
        best(self.children.iter().flatten().map(|&child| {
            let child = &tree[child];
            let mean = child.sum.scaled(1.0 / child.visits).chance(mover);
            mean + EXPLORATION * (log / child.visits).sqrt()
        }))
    }
}

/// Plays on while there is exactly one legal move; leaves the legal list of the next choice, empty when the game is over.
pub(crate) fn play_forced(state: &mut State, moves: &mut Vec<Move>) {
    loop {
        moves.clear();
        if state.is_over() {
            return;
        }
        state.legal_moves(moves);
        let [forced] = moves.as_slice() else { return };
        state.apply_legal(forced);
    }
}

/// Plays random legal moves to the end. Every game ends by rule (spec/rules.md section 14), so there is no cap.
fn play_out(mut state: State, rng: &mut fastrand::Rng) -> Values {
    let mut moves = Vec::new();
    loop {
        if let Some(outcome) = state.outcome() {
            return Values::won(usize::from(state.config().players), outcome.winner.index());
        }
        state.legal_moves(&mut moves);
        state.apply_legal(&moves[rng.usize(..moves.len())]);
    }
}
