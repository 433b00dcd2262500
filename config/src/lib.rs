//! Resources, routing tables, the config service and settings.
//!
//! [`table`] is what a sidecar runs; [`limits`] holds every bound of
//! theirs, [`settings`] what the processes themselves are started with.

pub mod limits;
pub mod settings;
pub mod table;
