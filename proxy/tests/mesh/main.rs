//! Two sidecars in this process, real sockets on loopback: what crosses the mesh, and what is refused.

mod http;
mod sidecars;
mod tcp;
