//! The sidecar's data path.
//!
//! Data flows down the folder. [`outbound`] serves the calls of the application, `accept -> identify -> route
//! -> pick -> open -> relay`. [`inbound`] serves the calls of peers, `accept (proven peer) -> authorise
//! (Permit) -> deliver (needs a Permit) -> relay`. Both decide by a [`directory`] snapshot, move bodies by
//! [`http::body`] and bytes by [`relay`], and end in a [`record`].
//!
//! Thread per core: [`run()`] starts workers ([`worker`]) that share nothing on the request path. Control
//! work (admin, health, the table) stays on the caller's runtime.
//!
//! Not here: QUIC, TLS and HTTP/3 (`weft_transport`), where the table comes from (`weft_config`), and
//! flags and signals (the `weft` command).

mod access_log;
mod admin;
mod application;
mod cluster;
mod descriptors;
mod directory;
mod early;
mod failure;
mod health;
mod http;
mod idle;
mod inbound;
pub mod limits;
mod metrics;
mod other_end;
mod outbound;
mod outside;
mod plaintext;
mod recent;
mod record;
mod relay;
mod resilience;
mod run;
mod serving_time;
mod signals;
mod stream;
mod takeover;
mod tasks;
mod traces;
mod transport_failure;
pub mod visible;
mod worker;

pub use admin::server::Endpoint as AdminEndpoint;
pub use early::answer_while_waiting;
pub use failure::{Failure, Reason};
pub use health::{ask_health, health_question};
pub use outbound::explain;
#[cfg(feature = "testing")]
pub use run::start_in_memory;
pub use run::{ControlPlane, Process, RunError, Running, run, start};
pub use takeover::{MessageError, Predecessor, TakeoverError};
