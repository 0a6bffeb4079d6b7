//! Gumbel search: a policy and a value that are better than the network's own.

use ringrift_rules::{Move, State};
use serde::{Deserialize, Serialize};

use crate::gumbel::{self, Arm, Sigma};
use crate::network::{Network, Scratch};
use crate::values::Values;

/// How a search spends its effort.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    /// Positions that one search may look at, beyond the root.
    pub simulations: u32,
    /// Most root moves that share the simulations. Source: Danihelka 2022, 16.
    pub considered: usize,
    /// Size of the root noise: 1 explores (self-play), 0 plays the best move (matches).
    pub noise: f32,
    /// Visits that the prior is worth. Source: Danihelka 2022, 50.
    pub c_visit: f32,
    /// Weight of a value, as a chance to win, against a logit. The paper has 1.0 in board games; here 2.0 beat it by 35 +- 24 Elo (800 games
    /// at 32 simulations on `square8_2p`) and 4.0 was no better.
    pub c_scale: f32,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self { simulations: 32, considered: 16, noise: 0.0, c_visit: 50.0, c_scale: 2.0 }
    }
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Index of the chosen move in the legal list that was given.
    pub chosen: usize,
    /// The improved policy, one probability per legal move: the training target.
    pub policy: Vec<f32>,
    /// The search's opinion of the root, per seat, under the improved policy.
    pub values: Values,
    /// Simulations really done.
    pub simulations: u32,
}

/// Searches positions with one network; keeps its memory from search to search, and nothing else.
#[derive(Debug)]
pub struct Searcher {
    network: Network,
    settings: SearchSettings,
    sigma: Sigma,
    nodes: Vec<Node>,
    scratch: Scratch,
    arms: Vec<Arm>,
    improved: Vec<f32>,
    path: Vec<(usize, usize)>,
}

/// A position with a choice, or a finished game.
#[derive(Debug)]
struct Node {
    state: State,
    moves: Vec<Move>,
    edges: Vec<Edge>,
    /// 0-based seat that chooses.
    mover: usize,
    /// The network's opinion, or the result of a finished game.
    values: Values,
    /// The move with the largest prior: an unvisited node's choice needs no arithmetic.
    favourite: usize,
    visited: bool,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    logit: f32,
    prior: f32,
    visits: u32,
    sum: Values,
    child: Option<u32>,
}

impl Searcher {
    /// A searcher that plays with `network`.
    pub fn new(network: Network, settings: SearchSettings) -> Self {
        Self {
            network,
            settings,
            sigma: Sigma { visit: settings.c_visit, scale: settings.c_scale },
            nodes: Vec::new(),
            scratch: Scratch::default(),
            arms: Vec::new(),
            improved: Vec::new(),
            path: Vec::new(),
        }
    }

    /// The network in use.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The settings in use.
    pub fn settings(&self) -> SearchSettings {
        self.settings
    }

    /// Searches a position of an unfinished game; `moves` is its legal list.
    ///
    /// The result depends on position, list, network, settings, `simulations` and `rng` only. A single legal move is chosen without
    /// looking: 0 simulations.
    ///
    /// # Panics
    /// When `moves` is empty, which no unfinished game offers.
    pub fn search(
        &mut self,
        state: &State,
        moves: &[Move],
        simulations: u32,
        rng: &mut fastrand::Rng,
    ) -> Found {
        assert!(!moves.is_empty(), "an unfinished game offers a move");
        self.nodes.clear();
        self.add_node(state.clone(), moves.to_vec());
        if moves.len() == 1 {
            let values = self.nodes[0].values;
            return Found { chosen: 0, policy: vec![1.0], values, simulations: 0 };
        }

        let noise: Vec<f32> =
            moves.iter().map(|_| self.settings.noise * gumbel::noise(rng)).collect();
        let considered = self.settings.considered.min(moves.len()).min(simulations.max(1) as usize);
        for visits in gumbel::considered_visits(considered, simulations as usize) {
            self.read_arms(0);
            let root = &self.nodes[0];
            let network = root.values.chance(root.mover);
            gumbel::improved_logits(&self.arms, network, self.sigma, &mut self.improved);
            // Before its first visits the ranking is logit + noise alone, so the best `considered` moves come first.
            let chosen = gumbel::best(self.arms.iter().enumerate().map(|(index, arm)| {
                if arm.visits == visits {
                    noise[index] + self.improved[index]
                } else {
                    f32::NEG_INFINITY
                }
            }));
            self.simulate(chosen);
        }
        self.conclude(&noise)
    }

    /// The best of the most visited moves, the improved policy, and the root's value under it.
    fn conclude(&mut self, noise: &[f32]) -> Found {
        self.read_arms(0);
        let root = &self.nodes[0];
        let network = root.values.chance(root.mover);
        let mut policy = Vec::with_capacity(self.arms.len());
        gumbel::improved_logits(&self.arms, network, self.sigma, &mut policy);
        let most = self.arms.iter().map(|arm| arm.visits).max().unwrap_or(0);
        let chosen = gumbel::best(self.arms.iter().enumerate().map(|(index, arm)| {
            if arm.visits == most { noise[index] + policy[index] } else { f32::NEG_INFINITY }
        }));
        gumbel::softmax(&mut policy);

        let (mut values, mut weight) = (root.values.scaled(0.0), 0.0);
        for (edge, &probability) in root.edges.iter().zip(&policy) {
            if edge.visits > 0 {
                values.add(&edge.mean(), probability);
                weight += probability;
            }
        }
        let values = if weight > 0.0 { values.scaled(1.0 / weight) } else { root.values };
        let simulations = root.edges.iter().map(|edge| edge.visits).sum();
        Found { chosen, policy, values, simulations }
    }

    /// One simulation: down from the root through move `first`, one new position, and its values back up.
    fn simulate(&mut self, first: usize) {
        self.path.clear();
        self.path.push((0, first));
        let (mut node, mut edge) = (0, first);
        let values = loop {
            let Some(child) = self.nodes[node].edges[edge].child else {
                break self.expand(node, edge);
            };
            node = child as usize;
            if self.nodes[node].edges.is_empty() {
                break self.nodes[node].values;
            }
            edge = self.inner_choice(node);
            self.path.push((node, edge));
        };
        for &(node, edge) in &self.path {
            let edge = &mut self.nodes[node].edges[edge];
            edge.visits += 1;
            edge.sum.add(&values, 1.0);
            self.nodes[node].visited = true;
        }
    }

    fn inner_choice(&mut self, node: usize) -> usize {
        let at = &self.nodes[node];
        if !at.visited {
            return at.favourite;
        }
        let network = at.values.chance(at.mover);
        self.read_arms(node);
        gumbel::improved_logits(&self.arms, network, self.sigma, &mut self.improved);
        gumbel::softmax(&mut self.improved);
        gumbel::inner_choice(&self.arms, &self.improved)
    }

    /// Plays a move of a node and all forced moves after it, and adds the position that results.
    fn expand(&mut self, node: usize, edge: usize) -> Values {
        let mut state = self.nodes[node].state.clone();
        state.apply_legal(&self.nodes[node].moves[edge]);
        let mut moves = Vec::new();
        while !state.is_over() {
            state.legal_moves(&mut moves);
            let [forced] = moves.as_slice() else { break };
            state.apply_legal(forced);
        }
        let child = self.add_node(state, moves);
        self.nodes[node].edges[edge].child = Some(child);
        self.nodes[child as usize].values
    }

    fn add_node(&mut self, state: State, mut moves: Vec<Move>) -> u32 {
        let players = usize::from(state.config().players);
        let node = if let Some(outcome) = state.outcome() {
            let values = Values::won(players, outcome.winner.index());
            moves.clear();
            Node { mover: 0, edges: Vec::new(), favourite: 0, visited: false, state, moves, values }
        } else {
            let evaluation = self.network.evaluate(&state, &moves, &mut self.scratch);
            let mut priors = evaluation.logits.clone();
            gumbel::softmax(&mut priors);
            let edges = evaluation.logits.iter().zip(&priors).map(|(&logit, &prior)| Edge {
                logit,
                prior,
                visits: 0,
                sum: Values::zero(players),
                child: None,
            });
            Node {
                mover: state.to_move().index(),
                edges: edges.collect(),
                favourite: gumbel::best(priors.iter().copied()),
                visited: false,
                state,
                moves,
                values: evaluation.values,
            }
        };
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("simulations are counted in 32 bits")
    }

    fn read_arms(&mut self, node: usize) {
        let node = &self.nodes[node];
        self.arms.clear();
        self.arms.extend(node.edges.iter().map(|edge| Arm {
            logit: edge.logit,
            prior: edge.prior,
            visits: edge.visits,
            q: if edge.visits > 0 { edge.mean().chance(node.mover) } else { 0.0 },
        }));
    }
}

impl Edge {
    #[expect(clippy::cast_precision_loss, reason = "visit counts stay far below 2^24")]
    fn mean(&self) -> Values {
        self.sum.scaled(1.0 / self.visits as f32)
    }
}

#[cfg(test)]
mod tests;
