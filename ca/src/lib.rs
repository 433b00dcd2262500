//! The certificate authority: who may be whom, and for how long.
//!
//! Two halves that meet in `proto/weft/ca/v1`. The CA: [`init`] makes one, [`Server`] runs it, [`Admin`] is how local
//! commands reach it. The workloads: [`agent`] joins with a token and keeps an identity fresh.
//!
//! Decisions are pure and stand apart from IO: `issuer` (what certificates look like), [`csr`] (what is taken
//! from a request), [`attest`] (who gets which identity), [`renewal`] (when). Read [`attest`] first.
//! Not here: how certificates are verified in handshakes (`weft_transport`).

pub mod agent;
pub mod attest;
pub mod connection;
pub mod csr;
pub mod issuer;
pub mod limits;
pub mod local;
pub mod metrics;
pub mod renewal;
pub mod subject;
pub mod token;

mod admin;
mod authority;
mod backup;
mod client;
mod desk;
mod directory;
mod error;
#[cfg(test)]
mod fuzz_tests;
mod log;
mod proto;
mod rates;
mod server;
mod service;
mod store;

pub use admin::{Admin, AdminError};
pub use authority::OwnCredentialsError;
pub use backup::{BackupError, restore};
pub use desk::{CertificateInfo, Inspection, TokenCounts, TokenOrder, TokensError};
pub use directory::{ADMIN_SOCKET, Created, InitError, OpenError, Renewed, bundle, init, renew};
pub use error::ErrorKind;
pub use log::{Event, LogEntry};
pub use server::{MetricsHandle, ServeError, ServeSettings, Server};
pub use store::{STORE_FILE, StoreError};
pub use subject::{Role, Subject};
pub use token::JoinToken;
pub use weft_transport::files::FileError;
