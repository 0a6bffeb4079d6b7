//! The other nodes of a cluster as they can be asked: are they there, and have they got what they said?

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ringrift_pipeline::{BlobRow, NodeId};
use serde::Serialize;

/// How another node was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Time of a way there and back.
    pub round_trip: Duration,
    /// Where it answered.
    pub at: String,
}

/// What this node gave the others since its manager began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Given {
    /// Where it listens.
    pub listens: Vec<String>,
    /// Questions that were answered with something.
    pub answers: u64,
    /// Bytes of artefacts given.
    pub bytes: u64,
    /// The same by node.
    pub by_node: BTreeMap<String, u64>,
    /// Questions of members for what is not here, or is damaged here.
    pub not_here: u64,
    /// Strangers that were turned away.
    pub strangers: u64,
}

/// An answer that is on its way, or why there is none.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// What can be asked; the binary has it.
pub trait NeighbourPort: Send + Sync + 'static {
    /// Does a node answer?
    fn reach<'a>(&'a self, node: &'a NodeId) -> Asked<'a, Reached>;
    /// Has a node got this? An error: nothing is known.
    fn has<'a>(&'a self, node: &'a NodeId, artefact: &'a BlobRow) -> Asked<'a, bool>;
    /// Closes this node's endpoint and opens it again.
    fn reopen(&self) -> Asked<'_, ()>;
    /// What was given.
    fn given(&self) -> Given;
}

/// The other nodes; a clone is the same. On one machine there are none.
#[derive(Clone, Default)]
pub struct Neighbours(Arc<OnceLock<Box<dyn NeighbourPort>>>);

impl Neighbours {
    /// Connects them; once, by the binary, before daemons run.
    pub fn connect(&self, port: impl NeighbourPort) {
        // A second call would be a second cluster; the first one stays.
        drop(self.0.set(Box::new(port)));
    }

    /// Those that can be asked; none on one machine.
    pub fn get(&self) -> Option<&dyn NeighbourPort> {
        self.0.get().map(|port| &**port)
    }
}
