//! Resources, routing tables, the config service and settings.
//!
//! Data flows one way: [`resources`] reads the files of an operator, [`validate`] checks them as a whole,
//! [`compile`] turns them into the [`table`] that one sidecar runs. [`limits`] holds all their bounds,
//! [`settings`] the start parameters of the processes themselves.

pub mod client;
pub mod compile;
mod connect;
pub mod diff;
pub mod findings;
#[cfg(test)]
mod fuzz_tests;
mod last_heard;
pub mod limits;
pub mod nearest;
pub mod operator;
mod proto;
pub mod resources;
pub mod server;
pub mod settings;
pub mod signals;
pub mod status;
pub mod store;
pub mod table;
pub mod validate;
pub mod yaml;
