//! Sidecars in this process: what crosses the mesh, and what is refused. Applications and clients have real
//! sockets on loopback. Between sidecars, `http` has HTTP/3 over UDP, and the others have the wire in memory.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint sees tests only by their attribute"
)]

mod fabric;
mod http;
mod http_ends;
mod metrics;
mod mirrors;
mod peer_errors;
mod raw;
mod resilience;
mod routes;
mod shares;
mod sidecars;
mod tcp;
mod traffic_policy;
