//! The state that the transport knows of a peer, as plain numbers.

use std::net::SocketAddr;

use serde::Serialize;

use super::{State, Target};
use crate::status::ConnectionStatus;

/// One peer of one worker.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Where it listens.
    pub address: SocketAddr,
    /// The identity that it is expected to prove.
    pub identity: String,
    /// `ready`, `dialling` or `failed`.
    pub state: &'static str,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Figures of the connection in use.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionStatus>,
}

pub(super) fn status(target: &Target, state: &State) -> PeerStatus {
    let (name, error, connection) = match state {
        State::Dialling => ("dialling", None, None),
        State::Failed(error) => ("failed", Some(error.to_string()), None),
        State::Ready(connection) => ("ready", None, Some(connection.status())),
    };
    PeerStatus {
        address: target.address,
        identity: target.identity.to_string(),
        state: name,
        error,
        connection,
    }
}
