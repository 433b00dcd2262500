//! Labs: hosts as network namespaces, links between them, programs on them.
//!
//! - `topology.rs`, `plan.rs`: which hosts and links there are, and their addresses and routes.
//! - `sandbox.rs`: the namespaces that contain a whole lab and end with it.
//! - `host.rs`: one network namespace; `process.rs`: programs on it; `clock.rs`: wall clocks of their own.
//! - `running.rs`: [`Lab`], all of it together.
//! - `state.rs`, `control.rs`, `join.rs`: labs that outlive the command that made them.
//! - `check.rs`: what a lab can use on this machine.

pub mod check;
pub mod clock;
pub mod control;
mod host;
pub mod join;
mod plan;
mod process;
mod running;
pub mod sandbox;
mod state;
mod topology;
mod wire;

pub use process::{Fault, Process, Program, SpawnError};
pub use running::{ChangeError, Health, Lab, LinkReport, Options, UpError};
pub use state::{Base, Directory, StateError};
pub use topology::{LinkName, LinkSpec, Nat, Node, NodeKind, NodeName, Topology, TopologyError};
