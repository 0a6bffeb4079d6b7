//! The machines of nodes: how a command gets there, and who provides them.

use std::{collections::BTreeMap, sync::Arc};

use hosts::{Guard, InstanceId, Reach};
use ringrift_pipeline::NodeId;

/// The machine of a node.
#[derive(Clone)]
pub struct Machine {
    /// How commands get there.
    pub reach: Reach,
    /// The command that restarts the node's service; none = there is none.
    pub restart: Option<Vec<String>>,
    /// Who provides it; none = nobody who could be asked.
    pub provided: Option<Provided>,
}

/// A machine as its provider knows it.
#[derive(Clone)]
pub struct Provided {
    /// The provider, as the configuration calls it.
    pub provider: String,
    /// What the provider calls the machine.
    pub instance: InstanceId,
    /// The way to the provider.
    pub guard: Arc<Guard>,
}

/// All machines that the configuration names, by node; a clone is the same. The budgets of their providers
/// hold for the whole process.
#[derive(Clone, Default)]
pub struct Machines(Arc<BTreeMap<NodeId, Machine>>);

impl Machines {
    /// These.
    pub fn new(machines: BTreeMap<NodeId, Machine>) -> Self {
        Self(Arc::new(machines))
    }

    /// That of a node.
    pub fn of(&self, node: &NodeId) -> Option<&Machine> {
        self.0.get(node)
    }

    /// Each with its node.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Machine)> {
        self.0.iter()
    }

    /// Each provider once, by name.
    pub fn providers(&self) -> BTreeMap<&str, &Arc<Guard>> {
        let provided = self.0.values().filter_map(|machine| machine.provided.as_ref());
        provided.map(|provided| (provided.provider.as_str(), &provided.guard)).collect()
    }
}
