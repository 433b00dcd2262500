//! `weft lab`: faults of networks and of processes, reproducible from a seed, for any program.
//!
//! A lab is a set of hosts (network namespaces) and of links between them. Each direction of a link
//! has an [`Impairment`](link::Impairment), which may be changed while packets are under way. Build
//! one by hand:
//!
//! 1. [`lab::sandbox`] puts this process where it may make namespaces, and where all of them end with it;
//! 2. [`lab::Topology`] says which hosts and links there are;
//! 3. [`lab::Lab::up`] makes them; [`lab::Lab::spawn`] starts programs on its hosts,
//!    [`lab::Lab::set`] changes its links; dropping it removes everything.
//!
//! - [`link`]: the fate of a packet. Pure, so that tests can also use it in memory under a simulated clock.
//! - [`emulator`]: runs the link model between two TUN devices.
//! - [`backend`]: whether a link is that emulator or the kernel's `tc netem`.
//! - [`scenario`]: files that describe a lab, its faults and the conditions at the end.
//! - [`suite`]: the scenarios that ship.
//! - [`run`]: runs a scenario; [`report`]: its results, for people and for machines.
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
