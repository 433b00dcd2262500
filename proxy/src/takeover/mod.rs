//! A restart that no request notices: the new process takes every listening socket from the running one,
//! which then finishes its work and ends.
//!
//! `predecessor.rs` is the side of the new process, `incumbent.rs` the side of the running one; their
//! messages are in [`message`]. Each side is a chain of types, and each type has only the steps that may come
//! next:
//!
//! ```text
//! new:      Predecessor --inherit--> Unconfirmed --confirm--> MeshPortRight --release--> Released
//! running:  Incumbent --successor--> Successor --take--> Reader --settled--> Settled
//!                                        |                  |
//!                                        +------ Undone ----+   the running process goes on
//! ```
//! A process needs a [`MeshPortRight`] to read the mesh port and to accept; without a predecessor it has that
//! right at once. [`Settled`] is the point of no return of the running process: only with it does that
//! process give anything up. `weft_transport::endpoint::Reading` says which process reads the mesh port in
//! the meantime. Not here: how running work ends (`run/running.rs`).

mod channel;
#[cfg(test)]
mod fuzz_tests;
mod incumbent;
mod message;
mod predecessor;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_config::settings::ProxySettings;
use weft_transport::endpoint::InheritError;
use weft_transport::identity::SpiffeId;

use crate::limits;
use channel::Channel;
pub(crate) use incumbent::{Expected, Incumbent, KeptSockets, Settled, Successor, Undone};
pub use message::MessageError;
pub(crate) use message::OfferedSockets;
use message::Request;
pub use predecessor::Predecessor;
pub(crate) use predecessor::{Before, MeshPortRight, Released};

/// Why a takeover failed.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The socket.
    #[error("takeover_socket {path}: {error}")]
    Socket {
        /// Of the settings.
        path: PathBuf,
        /// The error of the kernel.
        error: io::Error,
    },
    /// Descriptors go only to the same user.
    #[error(
        "takeover_socket: the other process is of user {theirs} and this one of user {ours}, which is not permitted: run both as one user"
    )]
    User {
        /// The user of the other process.
        theirs: u32,
        /// The user of this process.
        ours: u32,
    },
    /// The running process refuses.
    #[error("the running sidecar refused the takeover: {0}")]
    Refused(String),
    /// A message that breaks the protocol.
    #[error("takeover: {0}")]
    Message(#[from] MessageError),
    /// The sockets do not fit the settings.
    #[error("takeover: {0}")]
    Inherit(#[from] InheritError),
    /// The new process would refuse what the running one serves.
    #[error(
        "takeover: the running sidecar has a table, and there is none in state_dir: is it another directory, or full?"
    )]
    NoTable,
    /// The other process said nothing.
    #[error("takeover: the other process did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// A worker of the running process did not stop reading the mesh port in time.
    #[error("takeover: a worker still read the mesh port after {} s", limits::HAND_OVER_TIMEOUT.as_secs())]
    Busy,
    /// The other process ended.
    #[error("takeover: the other process ended")]
    Ended,
    /// The connection between the two.
    #[error("takeover: {0}")]
    Broken(io::Error),
}

fn request(settings: &ProxySettings, identity: &SpiffeId) -> Request {
    Request {
        identity: identity.to_string(),
        workers: settings.workers.get(),
        mesh: settings.inbound.as_ref().map(|inbound| inbound.listen),
    }
}

/// The socket's mode keeps others out; this check holds if the mode was changed.
fn check_user(channel: &Channel) -> Result<(), TakeoverError> {
    let theirs = channel.user().map_err(TakeoverError::Broken)?;
    let ours = rustix::process::geteuid().as_raw();
    if theirs == ours {
        Ok(())
    } else {
        Err(TakeoverError::User { theirs, ours })
    }
}

pub(crate) fn socket_error(path: &Path, error: io::Error) -> TakeoverError {
    TakeoverError::Socket {
        path: path.to_owned(),
        error,
    }
}
