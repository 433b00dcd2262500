//! `contract.rs`: what every store must do. `model.rs`: random orders of operations, and disks that fail.

mod contract;
pub(crate) mod model;
