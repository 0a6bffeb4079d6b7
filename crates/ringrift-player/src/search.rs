//! Gumbel search: a policy and a value that are better than the network's own.

mod tree;

use ringrift_rules::{Move, State};
use serde::{Deserialize, Serialize};

use crate::gumbel::{self, Known, Sigma};
use crate::network::Network;
use crate::values::Values;
use tree::{ROOT, Tree};

/// How a search spends its effort.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    /// Descents from the root, each of which ends in a position that is new, or in the end of a game.
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
    /// Prior from which on a simulation does not end at a new position but goes on through its most likely move: what is as good as
    /// forced says more than the position before it, whose value misses the stroke. Above 1 = never. With one network of ten minutes on
    /// `square8_2p` (1000 games each): 0.5 against never +60 +- 22 Elo at 64 simulations, for a tenth more time; 0.4 against 0.5 +9 +- 22;
    /// 0.15 against 0.3 -181 +- 25; 0.4 against never +214 +- 26 at 16 simulations.
    pub follow: f32,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self {
            simulations: 32,
            considered: 16,
            noise: 0.0,
            c_visit: 50.0,
            c_scale: 2.0,
            follow: 0.4,
        }
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
    /// Positions with a choice that were looked at, the root included.
    pub positions: u32,
}

/// Searches positions with one network; keeps its memory from search to search, and what the network said in the last one.
#[derive(Debug)]
pub struct Searcher {
    tree: Tree,
    /// Logit and noise of every root move.
    base: Vec<f32>,
    /// The root moves that share the simulations.
    considered: Vec<usize>,
}

impl Searcher {
    /// A searcher that plays with `network`.
    pub fn new(network: Network) -> Self {
        Self { tree: Tree::new(network), base: Vec::new(), considered: Vec::new() }
    }

    /// The network in use.
    pub fn network(&self) -> &Network {
        self.tree.network()
    }

    /// Searches a position of an unfinished game; `moves` is its legal list.
    ///
    /// The result depends on position, list, network, settings and `rng` only. A single legal move is chosen without
    /// looking: 0 simulations.
    ///
    /// # Panics
    /// When `moves` is empty, which no unfinished game offers.
    pub fn search(
        &mut self,
        state: &State,
        moves: &[Move],
        settings: &SearchSettings,
        rng: &mut fastrand::Rng,
    ) -> Found {
        assert!(!moves.is_empty(), "an unfinished game offers a move");
        self.tree.plant(state, moves);
        let root = self.tree.known(ROOT);
        if moves.len() == 1 {
            let values = self.tree.values(ROOT);
            return Found { chosen: 0, policy: vec![1.0], values, simulations: 0, positions: 1 };
        }

        self.base.clear();
        let SearchSettings { simulations, considered, noise: size, follow, .. } = *settings;
        let sigma = Sigma { visit: settings.c_visit, scale: settings.c_scale };
        self.base.extend(root.arms.logits.iter().map(|logit| logit + size * gumbel::noise(rng)));
        let most = considered.min(moves.len()).min(simulations.max(1) as usize);
        self.consider(most);
        for visits in gumbel::considered_visits(most, simulations as usize) {
            let visits = gumbel::count(visits);
            let chosen = self.best_root_move(visits, sigma);
            self.tree.simulate(chosen, sigma, follow);
        }
        self.conclude(sigma)
    }

    /// Chooses the root moves that will be tried at all: those with the largest sum of logit and noise.
    fn consider(&mut self, most: usize) {
        self.considered.clear();
        self.considered.extend(0..self.base.len());
        // Equal sums in the order of the list, so that the choice is always the same.
        let order = |a: &usize, b: &usize| self.base[*b].total_cmp(&self.base[*a]).then(a.cmp(b));
        if most < self.considered.len() {
            self.considered.select_nth_unstable_by(most - 1, order);
            self.considered.truncate(most);
        }
        self.considered.sort_unstable();
    }

    /// The most promising one of the considered root moves with so many visits.
    fn best_root_move(&self, visits: f32, sigma: Sigma) -> usize {
        let Known { arms, tally, .. } = self.tree.known(ROOT);
        let factor = sigma.factor(tally.most);
        // Moves without a visit share one value, the mixed one, which decides nothing between them.
        let scores = self.considered.iter().map(|&index| {
            if (arms.visits[index] - visits).abs() < 0.5 {
                self.base[index] + factor * arms.q[index]
            } else {
                f32::NEG_INFINITY
            }
        });
        self.considered[gumbel::best(scores)]
    }

    /// The best of the most visited moves, the improved policy, and the root's value under it.
    fn conclude(&mut self, sigma: Sigma) -> Found {
        let known = self.tree.known(ROOT);
        let chosen = self.best_root_move(known.tally.most, sigma);
        let mut policy = Vec::new();
        known.improved_policy(self.tree.network().kernels(), sigma, &mut policy);
        let network = self.tree.values(ROOT);
        let (mut values, mut weight) = (network.scaled(0.0), 0.0);
        for ((sum, &visits), &probability) in
            self.tree.root_sums().iter().zip(known.arms.visits).zip(&policy)
        {
            if visits > 0.0 {
                values.add(sum, probability / visits);
                weight += probability;
            }
        }
        let values = if weight > 0.0 { values.scaled(1.0 / weight) } else { network };
        let (simulations, positions) = (self.tree.simulations(), self.tree.positions());
        Found { chosen, policy, values: values.in_range(), simulations, positions }
    }
}

#[cfg(test)]
mod tests;
