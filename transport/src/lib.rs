//! What lies between two sidecars: identity, TLS, QUIC and HTTP/3.
//!
//! The only crate that names quinn and rustls types. It knows nothing of services, routes or
//! policies: those are `weft_config` (what to run) and `weft_proxy` (how a request passes).
//!
//! Start at [`identity`] (names).

pub mod http3;
pub mod identity;

mod limits;
