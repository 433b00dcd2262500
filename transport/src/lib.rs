//! The layer between two sidecars: identity, TLS, QUIC and HTTP/3.
//!
//! The only crate that names quinn and rustls types. It knows nothing of services, routes or
//! policies: those are `weft_config` (what to run) and `weft_proxy` (how a request passes).
//!
//! Start at [`identity`] (names), then [`credentials`] (the live certificate and trust) and
//! [`tuning`] (settings), then [`http3`] (requests and tunnels). [`tcp`] is TLS for the control plane's gRPC.

pub mod alone;
pub mod backoff;
pub mod client_hello;
pub mod congestion;
pub mod credentials;
pub mod endpoint;
pub mod external;
pub mod files;
pub mod guards;
pub mod hex;
pub mod hosts;
pub mod http3;
pub mod identity;
pub mod lag;
pub mod limited_log;
pub mod locks;
pub mod metrics;
pub mod pool;
pub mod private_socket;
pub mod shares;
pub mod tasks;
pub mod tcp;
pub mod tuning;
pub mod units;
pub mod vital;
pub mod wire;

mod acknowledged;
mod error;
mod limits;
mod liveness;
mod qlog;
mod quic;
mod receive_window;
mod rehearsal;
mod response_heads;
mod send_window;
mod status;
mod steering;
mod stream_limit;
mod streams;
#[cfg(test)]
mod testing;
mod tls;
mod verify;
mod window_pages;
