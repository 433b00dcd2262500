//! `weft lab`: faults of networks and of processes, reproducible from a seed, for any program.
//!
//! A lab is a set of hosts (network namespaces) and of links between them. Each direction of a link
//! has an [`Impairment`](link::Impairment), which may be changed while packets are under way. Build
//! one by hand:
//!
//! 1. [`lab::sandbox`] puts this process where it may make namespaces and where nothing survives it;
//! 2. [`lab::Topology`] says which hosts and links there are;
//! 3. [`lab::Lab::up`] makes them; [`lab::Lab::spawn`] starts programs on its hosts,
//!    [`lab::Lab::set`] changes its links; dropping it removes everything.
//!
//! - [`link`]: what becomes of a packet. Pure, so that tests use it in memory under a simulated
//!   clock as well.
//! - [`emulator`]: runs the link model between two TUN devices.
//! - [`backend`]: whether a link is that emulator or the kernel's `tc netem`.
//! - [`scenario`]: files that say what a lab is, what befalls it and what must hold in the end.
//! - [`suite`]: the scenarios that ship.
//! - [`run`]: carries a scenario out; [`report`]: what it found, for people and for machines.
//! - [`lab`]: hosts, addresses, routes, programs, and labs that outlive the command that made them.
//!
//! `weft lab` in `src/command/lab/` is the command on top.

pub mod backend;
pub mod emulator;
pub mod lab;
pub mod limits;
pub mod link;
pub mod report;
pub mod run;
pub mod scenario;
pub mod suite;
