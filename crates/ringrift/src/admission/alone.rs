//! Without the feature `cluster` nobody is let in: a data directory that belongs to a cluster is refused when
//! its log is opened.
#![expect(clippy::unused_async, reason = "the same signatures with the feature")]

use std::{net::SocketAddr, time::Duration};

use ringrift_pipeline::{Catalogue, NodeId};

use crate::data_dir::DataDir;

fn without<T>() -> anyhow::Result<T> {
    anyhow::bail!(
        "this program was built without the feature `cluster`: build it with `--features cluster`"
    )
}

/// Nobody's.
#[derive(Debug)]
pub struct Place {
    pub servers: String,
    pub log: String,
    pub role: String,
    pub pass: String,
}

/// Refuses.
pub fn found(_: &DataDir, _: &[SocketAddr], _: &str) -> anyhow::Result<(String, String)> {
    without()
}

/// Refuses.
pub async fn enter(_: &DataDir, _: &str) -> anyhow::Result<Place> {
    without()
}

/// Refuses.
pub async fn invite(
    _: &Catalogue,
    _: &DataDir,
    _: &NodeId,
    _: &str,
    _: Duration,
    _: i64,
) -> anyhow::Result<String> {
    without()
}

/// Refuses.
pub async fn remove(_: &Catalogue, _: &DataDir, _: &NodeId, _: i64) -> anyhow::Result<()> {
    without()
}
