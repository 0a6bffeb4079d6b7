//! The graph of needs: is it sound, who is pulled in, who comes first.

use std::collections::{BTreeSet, HashMap};

use crate::{DaemonId, Spec};

/// Why a set of specs cannot be supervised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two specs with one name.
    #[error("{0} is registered twice")]
    Duplicate(DaemonId),
    /// A need that nobody registered.
    #[error("{daemon}: need {need} is not registered")]
    UnknownNeed {
        /// Who needs.
        daemon: DaemonId,
        /// What is unknown.
        need: DaemonId,
    },
    /// A need of itself.
    #[error("{0} cannot need itself")]
    SelfNeed(DaemonId),
    /// Needs that go round; the first name is repeated at the end.
    #[error("cycle of needs: {}", names(.0))]
    Cycle(Vec<DaemonId>),
}

fn names(path: &[DaemonId]) -> String {
    path.iter().map(|id| id.name()).collect::<Vec<_>>().join(" -> ")
}

/// A sound graph of needs over positions in the list it was made from.
#[derive(Debug, Clone)]
pub struct Graph {
    ids: Vec<DaemonId>,
    position: HashMap<DaemonId, usize>,
    needs: Vec<Vec<usize>>,
    dependents: Vec<Vec<usize>>,
    level: Vec<usize>,
    order: Vec<usize>,
    rank: Vec<usize>,
}

impl Graph {
    /// Checks the specs; the order of the list breaks ties in the order of start.
    pub fn new(specs: &[&Spec]) -> Result<Self, GraphError> {
        let ids: Vec<DaemonId> = specs.iter().map(|spec| spec.id).collect();
        let mut position = HashMap::new();
        for (at, &id) in ids.iter().enumerate() {
            if position.insert(id, at).is_some() {
                return Err(GraphError::Duplicate(id));
            }
        }
        let mut needs = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut own = Vec::with_capacity(spec.needs.len());
            for &need in spec.needs {
                if need == spec.id {
                    return Err(GraphError::SelfNeed(need));
                }
                let at =
                    position.get(&need).ok_or(GraphError::UnknownNeed { daemon: spec.id, need })?;
                own.push(*at);
            }
            needs.push(own);
        }
        let mut dependents = vec![Vec::new(); specs.len()];
        for (at, needs) in needs.iter().enumerate() {
            for &need in needs {
                dependents[need].push(at);
            }
        }
        let level = vec![0; specs.len()];
        let rank = level.clone();
        let mut graph = Self { ids, position, needs, dependents, level, order: Vec::new(), rank };
        graph.sort()?;
        Ok(graph)
    }

    // Always the first in the list whose needs are placed: stable, and quadratic in some tens.
    fn sort(&mut self) -> Result<(), GraphError> {
        let mut left: BTreeSet<usize> = (0..self.ids.len()).collect();
        while !left.is_empty() {
            let free = |at: &&usize| self.needs[**at].iter().all(|need| !left.contains(need));
            let Some(&next) = left.iter().find(free) else {
                return Err(GraphError::Cycle(self.walk_in_circle(&left)));
            };
            left.remove(&next);
            self.rank[next] = self.order.len();
            self.order.push(next);
            self.level[next] =
                self.needs[next].iter().map(|&need| self.level[need] + 1).max().unwrap_or(0);
        }
        Ok(())
    }

    // Every member of `left` needs another member, so walking on must meet somebody again.
    fn walk_in_circle(&self, left: &BTreeSet<usize>) -> Vec<DaemonId> {
        let mut path: Vec<usize> = left.first().copied().into_iter().collect();
        while let Some(&last) = path.last() {
            let Some(&next) = self.needs[last].iter().find(|need| left.contains(need)) else {
                break;
            };
            let seen = path.iter().position(|&at| at == next);
            path.push(next);
            if let Some(from) = seen {
                path.drain(..from);
                break;
            }
        }
        path.into_iter().map(|at| self.ids[at]).collect()
    }

    /// All names, needs before those who need them.
    pub fn start_order(&self) -> Vec<DaemonId> {
        self.order.iter().map(|&at| self.ids[at]).collect()
    }

    /// The names by levels: nobody needs another of the same or a later level.
    pub fn levels(&self) -> Vec<Vec<DaemonId>> {
        let mut levels = vec![Vec::new(); self.level_count()];
        for &at in &self.order {
            levels[self.level[at]].push(self.ids[at]);
        }
        levels
    }

    /// The asked and all they need, directly or not, in start order; unknown names are skipped.
    pub fn closure(&self, asked: &[DaemonId]) -> Vec<DaemonId> {
        let asked: Vec<usize> = asked.iter().filter_map(|&id| self.position(id)).collect();
        self.closure_of(&asked).into_iter().map(|at| self.ids[at]).collect()
    }

    pub(crate) fn position(&self, id: DaemonId) -> Option<usize> {
        self.position.get(&id).copied()
    }

    pub(crate) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(crate) fn needs(&self, at: usize) -> &[usize] {
        &self.needs[at]
    }

    /// Who needs this one, directly.
    pub(crate) fn dependents(&self, at: usize) -> &[usize] {
        &self.dependents[at]
    }

    /// Its place in the order of start.
    pub(crate) fn rank(&self, at: usize) -> usize {
        self.rank[at]
    }

    pub(crate) fn level(&self, at: usize) -> usize {
        self.level[at]
    }

    pub(crate) fn level_count(&self) -> usize {
        self.level.iter().max().map_or(0, |top| top + 1)
    }

    pub(crate) fn closure_of(&self, asked: &[usize]) -> Vec<usize> {
        let mut inside = vec![false; self.ids.len()];
        let mut open = asked.to_vec();
        while let Some(at) = open.pop() {
            if !inside[at] {
                inside[at] = true;
                open.extend(&self.needs[at]);
            }
        }
        self.order.iter().copied().filter(|&at| inside[at]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spec(id: &'static str, needs: &'static [DaemonId]) -> Spec {
        Spec { id: DaemonId(id), needs, ..Spec::DEFAULT }
    }

    const A: DaemonId = DaemonId("A");
    const B: DaemonId = DaemonId("B");
    const C: DaemonId = DaemonId("C");
    const D: DaemonId = DaemonId("D");

    fn check(specs: &[Spec]) -> Result<Vec<Vec<DaemonId>>, GraphError> {
        Graph::new(&specs.iter().collect::<Vec<_>>()).map(|graph| graph.levels())
    }

    #[test]
    fn levels_follow_the_longest_chain_and_ties_follow_the_list() {
        let specs = [spec("D", &[B, C]), spec("C", &[A]), spec("B", &[A]), spec("A", &[])];
        assert_eq!(check(&specs), Ok(vec![vec![A], vec![C, B], vec![D]]));
        let graph = Graph::new(&specs.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(graph.start_order(), [A, C, B, D]);
        assert_eq!(graph.closure(&[B]), [A, B]);
        assert_eq!(graph.closure(&[B, DaemonId("X")]), [A, B]);
    }

    #[test]
    fn unsound_graphs_are_refused_with_names() {
        assert_eq!(check(&[spec("A", &[]), spec("A", &[])]), Err(GraphError::Duplicate(A)));
        assert_eq!(check(&[spec("A", &[A])]), Err(GraphError::SelfNeed(A)));
        let unknown = check(&[spec("A", &[B])]).unwrap_err();
        assert_eq!(unknown.to_string(), "A: need B is not registered");
        let cycle = check(&[spec("D", &[A]), spec("A", &[B]), spec("B", &[C]), spec("C", &[A])]);
        assert_eq!(cycle.unwrap_err().to_string(), "cycle of needs: A -> B -> C -> A");
    }
}
