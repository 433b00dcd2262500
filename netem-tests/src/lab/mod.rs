//! Labs: hosts as network namespaces, links between them, programs on them.
//!
//! - `topology.rs`, `plan.rs`: which hosts and links there are, and their addresses and routes.
//! - `sandbox.rs`: the namespaces in which a whole lab lives and dies.
//! - `host.rs`: one network namespace; `process.rs`: programs on it.
//! - `running.rs`: [`Lab`], all of it together.
//! - `state.rs`, `control.rs`: labs that outlive the command that made them.
//! - `check.rs`: what this machine can do.

mod host;
mod plan;
mod process;
mod running;
pub mod sandbox;
mod topology;
mod wire;

pub use process::{Fault, Process, Program, SpawnError};
pub use running::{ChangeError, Health, Lab, LinkReport, Options, UpError};
pub use topology::{LinkName, LinkSpec, Nat, Node, NodeKind, NodeName, Topology, TopologyError};
