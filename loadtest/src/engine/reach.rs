//! Finds where the endpoints of a plan are, and tries each once, so that a wrong address is one line before the
//! run instead of ten thousand failures in it.

use std::net::SocketAddr;

use tokio::net::lookup_host;

use crate::client::dial::Dial;
use crate::clock::Clock;
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
    #[error(
        "cannot connect to {endpoint}: {kind}; is the server running? (--no-check begins anyway)"
    )]
    Connect {
        /// What was asked for.
        endpoint: String,
        /// What went wrong.
        kind: ErrorKind,
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
    // A datagram that is not answered says nothing about who is there.
    if !check || plan.targets.protocol == Protocol::Udp {
        return Ok(first);
    }
    let mut kind = ErrorKind::ConnectFailed;
    for address in candidates {
        match try_once(address).await {
            Ok(()) => return Ok(address),
            Err(error) => kind = error,
        }
    }
    Err(ReachError::Connect {
        endpoint: endpoint.to_string(),
        kind,
    })
}

async fn try_once(address: SocketAddr) -> Result<(), ErrorKind> {
    let clock = Clock::beginning_in(std::time::Duration::ZERO);
    let mut sample = Sample::begin(clock.now(), clock.now());
    let dial = Dial::new(vec![address]);
    dial.open(0, clock, &mut sample).await.map(drop)
}
