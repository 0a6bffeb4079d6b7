//! The daemons, one folder per category, and their registry.
//!
//! A stranger who adds one writes `src/<category>/<snake_name>.rs` and a line (with its `mod`) in
//! `src/<category>/mod.rs`. Status, profiles, configuration, metrics and documents follow from it.
//! Daemons never call each other: they meet in the catalogue and in events.

pub mod distribution;
pub mod evaluation;
pub mod event;
pub mod feedback;
pub mod health;
pub mod misc;
pub mod pipeline;
pub mod provider;
pub mod queue;
pub mod recovery;
pub mod replication;
pub mod resource;
pub mod sync;

mod alarms;
mod at_hand;
mod blobs;
mod claims;
mod cycle;
mod explain;
mod far;
mod leases;
mod machines;
mod nodes;
mod ports;
mod profiles;
mod ranges;
mod registry;
mod retired;
mod runs;
mod seconds;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;
mod topics;
mod workshop;

pub use alarms::{Alarm, standing};
pub use blobs::{Blobs, Elsewhere, OutOfReach};
pub use explain::{Sentence, explain};
pub use far::{
    Archive, DERIVED, FarStore, History, Kept, Manifest, Mark, ORIGINALS, Segment, again, extension,
};
pub use leases::{LEADER, Leases, NODES, lease_of, prolong};
pub use machines::{Machine, Machines, Provided};
pub use nodes::{
    Asked, ClusterView, GONE, Given, LIVES, NeighbourPort, Neighbours, NodeReport, NodeState,
    NodeView, Nodes, REPLICA, Reached, Reporter, SaidWork, Seen, Sight, Why, survey, view_of,
};
pub use pipeline::data_pipeline::stage_view;
pub use ports::{
    Backlog, Bell, FromWiring, HttpPort, Level, Loop, Obstacle, Pressure, Supervision, Wiring,
};
pub use profiles::*;
pub use registry::{
    Build, CATEGORIES, COMMON_KEYS, Category, Entry, Found, RegistryDetails, RegistryHealth,
    UnknownDaemon, check_registry_health, daemons_by_category, find, in_start_order, of_profile,
    registry, validate_registry,
};
pub use retired::{RETIRED, Retired};
pub use topics::{Emits, Route, Topics, routes, status_changed};
pub use workshop::{
    Finished, LiveWork, Order, Product, Report, Running, WorkError, Workshop, WorkshopSettings,
};

use courier::Stream;
use ringrift_pipeline::Topic;
use warden::Wake;

/// The wake-up token of an event type, for `wakes_on`.
pub const fn on<E: Topic>() -> Wake {
    const { assert!(matches!(E::STREAM, Stream::Pipeline), "EVENT_ROUTER reads the pipeline only") }
    Wake(E::TOPIC)
}
