//! Two sidecars in this process, real sockets on loopback: what crosses the mesh, and what is refused.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint sees tests only by their attribute"
)]

mod fabric;
mod http;
mod metrics;
mod raw;
mod resilience;
mod sidecars;
mod tcp;
mod traffic_policy;
