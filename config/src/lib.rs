//! Resources, routing tables, the config service and settings.
//!
//! [`table`] is what a sidecar runs; [`limits`] holds every bound.

pub mod limits;
pub mod table;
