//! `contract.rs`: the contract of every store. `model.rs`: random orders of operations, and disks that fail.

mod contract;
pub(crate) mod model;
