//! The tree of a search, in memory that is kept from search to search.

use std::collections::HashMap;

use ringrift_rules::{Move, State};

use crate::gumbel::{self, Known, Sigma, Tally};
use crate::kernels::Arms;
use crate::network::{Network, Scratch};
use crate::values::Values;

/// Number of the position that is searched.
pub(super) const ROOT: usize = 0;
/// In place of a child that is not there yet.
const NO_CHILD: u32 = u32::MAX;

/// Positions with a choice, and finished games, with what the search knows of their moves.
///
/// What is known of moves lies in one list per kind, node after node, so that it can be worked on many moves at a time.
#[derive(Debug)]
pub(super) struct Tree {
    network: Network,
    /// What the network said in the search before: the position that was moved to is searched next, and asked about no second time.
    before: Opinions,
    /// Those of earlier searches stay behind the ones in use, for their memory.
    nodes: Vec<Node>,
    used: usize,
    logits: Vec<f32>,
    priors: Vec<f32>,
    visits: Vec<f32>,
    /// Sum and mean of the chances to win of the player to move.
    sums: Vec<f32>,
    q: Vec<f32>,
    children: Vec<u32>,
    /// Sum of the values of every root move, for all seats.
    root_sums: Vec<Values>,
    scratch: Scratch,
    scores: Vec<f32>,
    path: Vec<(usize, usize)>,
}

/// Answers of the network by the hash of the position.
#[derive(Debug, Default)]
struct Opinions {
    /// Rules of the game that the hash says nothing of.
    limits: Option<(u16, u32, u32)>,
    index: HashMap<u64, Opinion>,
    logits: Vec<f32>,
    priors: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
struct Opinion {
    values: Values,
    favourite: usize,
    first: usize,
    len: usize,
}

#[derive(Debug)]
struct Node {
    /// Hash of the position.
    key: u64,
    state: State,
    moves: Vec<Move>,
    /// Where its moves lie in the lists of the tree; none of a finished game.
    first: usize,
    len: usize,
    /// 0-based seat that chooses.
    mover: usize,
    /// The network's opinion, or the result of a finished game.
    values: Values,
    /// The move with the largest prior: an unvisited node's choice needs no arithmetic.
    favourite: usize,
    tally: Tally,
}

impl Tree {
    pub(super) fn new(network: Network) -> Self {
        Self {
            network,
            before: Opinions::default(),
            nodes: Vec::new(),
            used: 0,
            logits: Vec::new(),
            priors: Vec::new(),
            visits: Vec::new(),
            sums: Vec::new(),
            q: Vec::new(),
            children: Vec::new(),
            root_sums: Vec::new(),
            scratch: Scratch::default(),
            scores: Vec::new(),
            path: Vec::new(),
        }
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// Starts anew from a position and its legal moves.
    pub(super) fn plant(&mut self, state: &State, moves: &[Move]) {
        self.remember(state);
        self.used = 0;
        for list in
            [&mut self.logits, &mut self.priors, &mut self.visits, &mut self.sums, &mut self.q]
        {
            list.clear();
        }
        self.children.clear();
        self.take_node(state);
        self.nodes[ROOT].moves.clear();
        self.nodes[ROOT].moves.extend_from_slice(moves);
        self.evaluate(ROOT);
        self.root_sums.clear();
        self.root_sums.resize(moves.len(), self.nodes[ROOT].values.scaled(0.0));
    }

    /// Keeps what the network said in the search that is over, for the next one.
    fn remember(&mut self, next: &State) {
        let limits = (next.rings_per_player(), next.ring_victory(), next.territory_victory());
        let before = &mut self.before;
        before.index.clear();
        if before.limits.replace(limits) != Some(limits) {
            return;
        }
        std::mem::swap(&mut before.logits, &mut self.logits);
        std::mem::swap(&mut before.priors, &mut self.priors);
        let asked = self.nodes[..self.used].iter().filter(|node| node.len > 0);
        before.index.extend(asked.map(|node| {
            let Node { key, values, favourite, first, len, .. } = *node;
            (key, Opinion { values, favourite, first, len })
        }));
    }

    /// The network's opinion of a position, or the result of a finished game.
    pub(super) fn values(&self, node: usize) -> Values {
        self.nodes[node].values
    }

    /// Sum of the values that each root move returned.
    pub(super) fn root_sums(&self) -> &[Values] {
        &self.root_sums
    }

    /// Simulations since the tree was planted.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count far below 2^24"
    )]
    pub(super) fn simulations(&self) -> u32 {
        self.nodes[ROOT].tally.visits as u32
    }

    /// Positions with a choice in the tree.
    pub(super) fn positions(&self) -> u32 {
        let asked = self.nodes[..self.used].iter().filter(|node| node.len > 0).count();
        u32::try_from(asked).expect("positions are counted in 32 bits")
    }

    /// Did the search before ask about this position?
    #[cfg(test)]
    pub(super) fn remembers(&self, state: &State) -> bool {
        self.before.index.contains_key(&state.position_hash())
    }

    /// What is known of the moves of a position.
    pub(super) fn known(&self, node: usize) -> Known<'_> {
        let node = &self.nodes[node];
        let range = node.first..node.first + node.len;
        Known {
            arms: Arms {
                logits: &self.logits[range.clone()],
                visits: &self.visits[range.clone()],
                q: &self.q[range.clone()],
            },
            priors: &self.priors[range],
            tally: node.tally,
            network: node.values.chance(node.mover),
        }
    }

    /// One simulation: down from the root through move `first` to a new position, on from there through moves whose prior is `follow` or
    /// more, and the values of the last one back up.
    pub(super) fn simulate(&mut self, first: usize, sigma: Sigma, follow: f32) {
        self.path.clear();
        self.path.push((ROOT, first));
        let (mut node, mut choice) = (ROOT, first);
        let values = loop {
            let arm = self.nodes[node].first + choice;
            if self.children[arm] == NO_CHILD {
                let child = self.expand(node, choice);
                self.children[arm] =
                    u32::try_from(child).expect("simulations are counted in 32 bits");
                let new = &self.nodes[child];
                if new.len == 0 || self.priors[new.first + new.favourite] < follow {
                    break new.values;
                }
                (node, choice) = (child, new.favourite);
                self.path.push((node, choice));
                continue;
            }
            node = self.children[arm] as usize;
            if self.nodes[node].len == 0 {
                break self.nodes[node].values;
            }
            choice = self.inner_choice(node, sigma);
            self.path.push((node, choice));
        };
        for &(node, choice) in &self.path {
            let node = &mut self.nodes[node];
            let arm = node.first + choice;
            self.visits[arm] += 1.0;
            self.sums[arm] += values.chance(node.mover);
            self.q[arm] = self.sums[arm] / self.visits[arm];
            node.tally.count(self.visits[arm], self.priors[arm]);
        }
        self.root_sums[first].add(&values, 1.0);
    }

    fn inner_choice(&mut self, node: usize, sigma: Sigma) -> usize {
        if self.nodes[node].tally.visits <= 0.0 {
            return self.nodes[node].favourite;
        }
        let mut scores = std::mem::take(&mut self.scores);
        let choice = self.known(node).inner_choice(self.network.kernels(), sigma, &mut scores);
        self.scores = scores;
        choice
    }

    /// Plays a move of a node and all forced moves after it, and adds the position that results.
    fn expand(&mut self, node: usize, choice: usize) -> usize {
        let child = self.used;
        if child < self.nodes.len() {
            let (before, after) = self.nodes.split_at_mut(child);
            after[0].state.clone_from(&before[node].state);
            self.used += 1;
        } else {
            let state = self.nodes[node].state.clone();
            self.take_node(&state);
        }
        let (before, after) = self.nodes.split_at_mut(child);
        let Node { state, moves, .. } = &mut after[0];
        state.apply_legal(&before[node].moves[choice]);
        moves.clear();
        while !state.is_over() {
            state.legal_moves(moves);
            let [forced] = moves.as_slice() else { break };
            state.apply_legal(forced);
        }
        self.evaluate(child);
        child
    }

    /// Makes the next node one of this position, without moves.
    fn take_node(&mut self, state: &State) {
        if let Some(node) = self.nodes.get_mut(self.used) {
            node.state.clone_from(state);
        } else {
            self.nodes.push(Node {
                key: 0,
                state: state.clone(),
                moves: Vec::new(),
                first: 0,
                len: 0,
                mover: 0,
                values: Values::zero(usize::from(state.config().players)),
                favourite: 0,
                tally: Tally::default(),
            });
        }
        self.used += 1;
    }

    /// Fills in what the network, or the result, says about the newest node.
    fn evaluate(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        (node.first, node.tally) = (self.logits.len(), Tally::default());
        if let Some(outcome) = node.state.outcome() {
            let players = usize::from(node.state.config().players);
            node.values = Values::won(players, outcome.winner.index());
            node.len = 0;
            return;
        }
        node.len = node.moves.len();
        node.mover = node.state.to_move().index();
        node.key = node.state.position_hash();
        let end = node.first + node.len;
        for list in [&mut self.visits, &mut self.sums, &mut self.q] {
            list.resize(end, 0.0);
        }
        self.children.resize(end, NO_CHILD);
        if let Some(known) = self.before.index.get(&node.key).filter(|known| known.len == node.len)
        {
            let range = known.first..known.first + known.len;
            (node.values, node.favourite) = (known.values, known.favourite);
            self.logits.extend_from_slice(&self.before.logits[range.clone()]);
            self.priors.extend_from_slice(&self.before.priors[range]);
            return;
        }
        node.values =
            self.network.evaluate(&node.state, &node.moves, &mut self.scratch, &mut self.scores);
        self.logits.extend_from_slice(&self.scores);
        self.priors.resize(end, 0.0);
        self.network.kernels().softmax(&self.scores, &mut self.priors[node.first..]);
        node.favourite = gumbel::best(self.priors[node.first..].iter().copied());
    }
}
