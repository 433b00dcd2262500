//! Finds where the endpoints of a plan are, and tries each once, so that a wrong address is one line before the
//! run instead of ten thousand failures in it.

use std::net::SocketAddr;

use tokio::net::lookup_host;
use tokio::time::timeout;
use weft_transport::external::TlsClient;

use crate::client::dial::{alpn, connect};
use crate::clock::Clock;
use crate::limits;
use crate::plan::Plan;
use crate::plan::target::{Endpoint, Protocol};
use crate::sample::{ErrorKind, Sample};

/// Why an endpoint cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The name means nothing.
    #[error("cannot find {endpoint}: {reason}")]
    Name {
        /// What was asked for.
        endpoint: String,
        /// What the resolver said.
        reason: String,
    },
    /// Nobody answers as the protocol wants.
    #[error("cannot connect to {endpoint}: {reason} (--no-check begins anyway)")]
    Connect {
        /// What was asked for.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
}

/// The addresses of the plan's endpoints, in their order. With `check` the first that takes a connection, and
/// an error if none does; without it the first.
///
/// # Errors
/// When a name is unknown or, with `check`, an endpoint takes no connection.
pub async fn reach(plan: &Plan, check: bool) -> Result<Vec<SocketAddr>, ReachError> {
    let mut addresses = Vec::new();
    for endpoint in &plan.targets.endpoints {
        addresses.push(find(plan, endpoint, check).await?);
    }
    Ok(addresses)
}

async fn find(plan: &Plan, endpoint: &Endpoint, check: bool) -> Result<SocketAddr, ReachError> {
    let name_error = |reason: String| ReachError::Name {
        endpoint: endpoint.to_string(),
        reason,
    };
    let found = lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let candidates: Vec<SocketAddr> = found
        .map_err(|error| name_error(error.to_string()))?
        .collect();
    let first = candidates.first().copied();
    let first = first.ok_or_else(|| name_error("no address".to_owned()))?;
    // A datagram that is not answered says nothing about who is there; and a first handshake over QUIC
    // has its own timeout, with the same words.
    let over_udp = matches!(plan.targets.protocol, Protocol::Udp | Protocol::Http3);
    if !check || over_udp {
        return Ok(first);
    }
    let mut reason = ErrorKind::ConnectFailed.to_string();
    for address in candidates {
        match try_once(plan, endpoint, address).await {
            Ok(()) => return Ok(address),
            Err(error) => reason = error,
        }
    }
    Err(ReachError::Connect {
        endpoint: endpoint.to_string(),
        reason,
    })
}

async fn try_once(plan: &Plan, endpoint: &Endpoint, address: SocketAddr) -> Result<(), String> {
    let clock = Clock::beginning_in(std::time::Duration::ZERO);
    let mut sample = Sample::begin(clock.now(), clock.now());
    let tcp = connect(address, clock, &mut sample).await;
    let tcp = tcp.map_err(|kind| kind.to_string())?;
    if !endpoint.tls {
        return Ok(());
    }
    let client = TlsClient::new(&plan.tls, &endpoint.host, alpn(plan.targets.protocol));
    let client = client.map_err(|error| error.to_string())?;
    let handshake = timeout(limits::CONNECT_TIMEOUT, client.connect(tcp)).await;
    let handshake = handshake.map_err(|_| ErrorKind::ConnectTimeout.to_string())?;
    let stream = handshake.map_err(|error| format!("{}: {error}", ErrorKind::Tls))?;
    // HTTP/1.1 is what a server without ALPN speaks; HTTP/2 needs its word (RFC 9113 section 3.2).
    if plan.targets.protocol.is_multiplexed() && !stream.protocol_was_chosen() {
        return Err("the server does not offer HTTP/2".to_owned());
    }
    Ok(())
}
