//! Connects to the config service: TCP, TLS 1.3 with this process's SVID, and the proof that the other side
//! is `ns/weft/sa/config` of the same trust domain.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use weft_transport::backoff::{self, Spread};
use weft_transport::credentials::Credentials;
use weft_transport::hosts;
use weft_transport::identity::SpiffeId;
use weft_transport::tcp::TlsConnector;

use crate::last_heard::{LastHeard, TrackedStream};
use crate::limits;
use crate::settings::limits::CONFIG_PORT;
use crate::validate::RESERVED_NAMESPACE;

/// The service account of the config service, in the control plane's namespace.
pub(crate) const CONFIG_ACCOUNT: &str = "config";

/// Why the config service was reached at none of the addresses.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address was given.
    #[error("no address of a config service is known")]
    NoAddress,
    /// TCP or TLS failed at the last address tried.
    #[error("cannot reach the config service at {address}: {reason}")]
    Failed {
        /// The address, as it was given.
        address: String,
        /// The error.
        reason: String,
    },
    /// Another process answered. Only another address helps.
    #[error(
        "{address} is {}, not the config service: give the address at which `weft config serve` listens (port {} unless it was changed)",
        who(identity),
        CONFIG_PORT
    )]
    OtherServer {
        /// The address, as it was given.
        address: String,
        /// The identity of that process.
        identity: SpiffeId,
    },
    /// No root of this mesh certifies the process that answered.
    #[error("the server at {address} is of another mesh than {own} here: {reason}")]
    OtherMesh {
        /// The address, as it was given.
        address: String,
        /// The identity of this side.
        own: SpiffeId,
        /// The fault of its certificate.
        reason: String,
    },
    /// The connection ended while it was used.
    #[error("lost the config service: {0}")]
    Lost(String),
}

fn who(identity: &SpiffeId) -> String {
    if *identity == weft_ca::subject::authority(identity.trust_domain()) {
        "the CA".to_owned()
    } else {
        identity.to_string()
    }
}

/// Connects to the first address that works, and notes in `last_heard` when bytes arrive.
pub(crate) async fn connect(
    addresses: &[String],
    credentials: &Credentials,
    last_heard: &LastHeard,
) -> Result<Channel, ConnectError> {
    let mut last = ConnectError::NoAddress;
    for address in addresses {
        match connect_one(address, credentials, last_heard).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_one(
    address: &str,
    credentials: &Credentials,
    last_heard: &LastHeard,
) -> Result<Channel, ConnectError> {
    let failed = |reason: String| ConnectError::Failed {
        address: address.to_owned(),
        reason,
    };
    let own = credentials.svid();
    let server =
        SpiffeId::for_workload(own.id().trust_domain(), RESERVED_NAMESPACE, CONFIG_ACCOUNT)
            .map_err(|error| failed(error.to_string()))?;
    let connector =
        TlsConnector::mutual(credentials, server).map_err(|error| failed(error.to_string()))?;
    let connecting = async {
        let tcp = hosts::connect(address)
            .await
            .map_err(|error| failed(error.to_string()))?;
        tcp.set_nodelay(true)
            .map_err(|error| failed(error.to_string()))?;
        connector
            .connect(tcp)
            .await
            .map_err(|error| match error.other_identity() {
                Some(identity) => ConnectError::OtherServer {
                    address: address.to_owned(),
                    identity: identity.clone(),
                },
                None if error.is_of_another_mesh() => ConnectError::OtherMesh {
                    address: address.to_owned(),
                    own: own.id().clone(),
                    reason: error.to_string(),
                },
                None => failed(error.to_string()),
            })
    };
    let late = || format!("no answer within {} s", limits::CONNECT_TIMEOUT.as_secs());
    let stream = tokio::time::timeout(limits::CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| failed(late()))??;
    // The connection exists already; tonic takes it once and must never reconnect by itself.
    let mut stream = Some(TokioIo::new(TrackedStream::new(stream, last_heard.clone())));
    Endpoint::from_static("http://config.weft")
        .http2_keep_alive_interval(limits::KEEP_ALIVE)
        .keep_alive_timeout(limits::KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector(service_fn(move |_: Uri| {
            let taken = stream
                .take()
                .ok_or_else(|| std::io::Error::other("the connection was lost"));
            std::future::ready(taken)
        }))
        .await
        .map_err(|error| failed(error.to_string()))
}

/// How long until the next attempt, after `failures` in a row.
pub(crate) fn back_off(failures: u32) -> Duration {
    let (first, cap) = (limits::RECONNECT_FIRST, limits::RECONNECT_MAX);
    backoff::wait(first, cap, Spread::First, failures, &mut rand::rng())
}
