//! Without the feature `cluster` there are no other nodes: a data directory that belongs to a cluster is
//! refused when its log is opened.

use std::pin::Pin;

use ringrift_daemons::{Answers, Blobs, Mesh, Nodes, Pressure};
use ringrift_pipeline::{Catalogue, NodeId, NodeRow};
use warden::Clock;

use crate::{data_dir::DataDir, membership::Membership};

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
    pub async fn tell(&self, _: &str, _: [usize; 2], _: i64) -> anyhow::Result<()> {
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
    pub async fn keep(self, _: Pressure, _: Clock) {
        match self {}
    }
}

impl Mesh for Others {
    fn ask(&self, _: Vec<NodeId>) -> Pin<Box<dyn Future<Output = Answers> + Send + '_>> {
        match *self {}
    }

    fn reopen(&self) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + '_>> {
        match *self {}
    }
}
