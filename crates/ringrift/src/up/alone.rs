//! Without the feature `cluster` there are no other nodes: a data directory that belongs to a cluster is
//! refused when its log is opened.

use ringrift_daemons::{Asked, Blobs, Given, NeighbourPort, Nodes, Pressure, Reached};
use ringrift_pipeline::{BlobRow, Catalogue, NodeId, NodeRow};

use crate::{data_dir::DataDir, membership::Membership, state::State, up::capable::Part};

/// Nobody.
#[derive(Clone)]
pub enum Others {}

#[expect(clippy::unused_async, reason = "the same signatures with the feature")]
impl Others {
    /// Refuses.
    pub async fn meet(
        membership: &Membership,
        _: &DataDir,
        _: &Blobs,
        _: &Catalogue,
        _: &NodeId,
        _: Nodes,
    ) -> anyhow::Result<Self> {
        anyhow::bail!("this program was built without the feature `cluster`, for the {membership}")
    }

    /// Never called.
    pub async fn refusal(&self) -> anyhow::Result<Option<String>> {
        match *self {}
    }

    /// Never called.
    pub async fn tell(&self, _: Part, _: i64) -> anyhow::Result<()> {
        match *self {}
    }

    /// Never called.
    pub async fn look(&self, _: &Pressure) -> anyhow::Result<Vec<NodeRow>> {
        match *self {}
    }

    /// Never called.
    pub async fn leave(&self) {
        match *self {}
    }

    /// Never called.
    pub async fn keep(self, _: State) {
        match self {}
    }
}

impl NeighbourPort for Others {
    fn reach<'a>(&'a self, _: &'a NodeId) -> Asked<'a, Reached> {
        match *self {}
    }

    fn has<'a>(&'a self, _: &'a NodeId, _: &'a BlobRow) -> Asked<'a, bool> {
        match *self {}
    }

    fn reopen(&self) -> Asked<'_, ()> {
        match *self {}
    }

    fn given(&self) -> Given {
        match *self {}
    }
}
