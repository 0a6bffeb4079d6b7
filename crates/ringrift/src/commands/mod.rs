//! The commands that are over when they have printed.

pub mod cluster;
pub mod config;
pub mod dlq;
pub mod docs;
pub mod doctor;
pub mod events;
pub mod far;
pub mod health;
pub mod lists;
pub mod logs;
pub mod orders;
pub mod person;
pub mod play;
pub mod reference;
pub mod registry;
pub mod rules;
pub mod service;
pub mod status;
pub mod train;
pub mod verify;
pub mod whereabouts;
pub mod why;

mod offline;
mod table;
