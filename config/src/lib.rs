//! Resources, routing tables, the config service and settings.
//!
//! Data flows one way: [`resources`] reads what an operator writes, [`validate`] checks it as a whole,
//! [`compile`] turns it into the [`table`] that one sidecar runs. [`limits`] holds every bound of
//! theirs, [`settings`] what the processes themselves are started with.

pub mod client;
pub mod compile;
mod connect;
pub mod diff;
pub mod findings;
#[cfg(test)]
mod fuzz_tests;
mod heard;
pub mod limits;
pub mod nearest;
pub mod operator;
mod proto;
pub mod resources;
pub mod server;
pub mod settings;
pub mod store;
pub mod table;
pub mod validate;
pub mod yaml;
