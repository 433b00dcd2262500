//! The certificate authority: which workload gets which identity, and for how long.
//!
//! Two halves that meet in `proto/weft/ca/v1`. The CA: [`init`] makes one, [`Server`] runs it, [`Admin`]
//! serves local commands. The workloads: [`agent`] joins with a token and keeps an identity valid.
//!
//! Decisions are pure and separate from IO: `issuer` (the form of certificates), [`csr`] (the key of a
//! request), [`attest`] (which identity), [`renewal`] (when). Read [`attest`] first. Not here: how
//! certificates are verified in handshakes (`weft_transport`).

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
mod directory;
mod error;
#[cfg(test)]
mod fuzz_tests;
mod log;
mod operations;
mod proto;
mod rates;
mod server;
mod service;
mod store;

pub use admin::{Admin, AdminError};
pub use authority::OwnCredentialsError;
pub use backup::{BackupError, restore};
pub use directory::{ADMIN_SOCKET, Created, InitError, OpenError, Renewed, bundle, init, renew};
pub use error::ErrorKind;
pub use log::{Event, LogEntry};
pub use operations::{CertificateInfo, Inspection, TokenCounts, TokenOrder, TokensError};
pub use server::{MetricsHandle, ServeError, ServeSettings, Server};
pub use store::{STORE_FILE, StoreError};
pub use subject::{Role, Subject};
pub use token::JoinToken;
pub use weft_transport::files::FileError;
