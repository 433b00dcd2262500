//! Resolves the endpoints of a plan, and tries each once, so that a wrong address gives one line before the
//! run instead of ten thousand failures in it.

use std::io;
use std::net::SocketAddr;

use tokio::net::lookup_host;
use tokio::time::timeout;
use weft_transport::external::{QuicClient, TlsClient};

use crate::client::dial::{alpn, connect};
use crate::client::http3::{kind_of_connect, kind_of_connection, tuning};
use crate::client::udp::open;
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
        /// The name.
        endpoint: String,
        /// The error of the resolver.
        reason: String,
    },
    /// No server answers as the protocol requires.
    #[error("cannot connect to {endpoint}: {reason} (--no-check begins anyway)")]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// The error.
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
    // An unanswered datagram does not tell whether a server is there.
    if !check || plan.targets.protocol == Protocol::Udp {
        return Ok(first);
    }
    let mut reason = ErrorKind::ConnectFailed.to_string();
    for address in candidates {
        let tried = match plan.targets.protocol {
            Protocol::Http3 => try_http3(plan, endpoint, address).await,
            Protocol::Http1
            | Protocol::Http2
            | Protocol::Grpc
            | Protocol::Tcp(_)
            | Protocol::Udp => try_tcp(plan, endpoint, address).await,
        };
        match tried {
            Ok(()) => return Ok(address),
            Err(error) => reason = error,
        }
    }
    Err(ReachError::Connect {
        endpoint: endpoint.to_string(),
        reason,
    })
}

async fn try_tcp(plan: &Plan, endpoint: &Endpoint, address: SocketAddr) -> Result<(), String> {
    let clock = Clock::beginning_in(std::time::Duration::ZERO);
    let mut sample = Sample::begin(clock.now(), clock.now());
    let tcp = connect(address, clock, &mut sample).await;
    let tcp = tcp.map_err(|kind| kind.to_string())?;
    if !endpoint.tls {
        return Ok(());
    }
    let client = TlsClient::new(&plan.tls, endpoint.name(), alpn(plan.targets.protocol));
    let client = client.map_err(|error| error.to_string())?;
    let handshake = timeout(limits::CONNECT_TIMEOUT, client.connect(tcp)).await;
    let handshake = handshake.map_err(|_| ErrorKind::ConnectTimeout.to_string())?;
    let stream = handshake.map_err(|error| format!("{}: {error}", ErrorKind::Tls))?;
    // A server without ALPN speaks HTTP/1.1; HTTP/2 needs its name (RFC 9113 section 3.2).
    if plan.targets.protocol.is_multiplexed() && !stream.protocol_was_chosen() {
        return Err("the server does not offer HTTP/2".to_owned());
    }
    Ok(())
}

async fn try_http3(plan: &Plan, endpoint: &Endpoint, address: SocketAddr) -> Result<(), String> {
    let quic = tuning().and_then(|tuning| QuicClient::new(&plan.tls, &tuning));
    let quic = quic.map_err(|error| error.to_string())?;
    let meet = async {
        let connected = quic.connect(address, endpoint.name()).await;
        let (connection, driver) =
            connected.map_err(|error| format!("{}: {error}", kind_of_connect(&error)))?;
        // The greeting comes on a stream of the connection's own, which the driver reads.
        tokio::select! {
            greeted = connection.greeted() => greeted,
            error = driver => Err(error),
        }
        .map_err(|error| format!("{}: {error}", kind_of_connection(&error)))
    };
    tokio::select! {
        met = timeout(limits::CONNECT_TIMEOUT, meet) => {
            met.map_err(|_| ErrorKind::ConnectTimeout.to_string())?
        }
        () = refused(address) => Err(format!("{}: no program has this UDP port", ErrorKind::ConnectRefused)),
    }
}

/// Done when the host reports that no program has the UDP port. The socket of QUIC does not learn that,
/// because it has many peers. The probe is not a packet of QUIC (RFC 9000 section 17: the fixed bit), so a
/// server drops it.
async fn refused(address: SocketAddr) {
    let ask = async {
        let socket = open(address).await.ok()?;
        socket.send(&[0]).await.ok()?;
        loop {
            match socket.recv(&mut [0]).await {
                Ok(_) => {}
                Err(error) => return Some(error.kind()),
            }
        }
    };
    if ask.await != Some(io::ErrorKind::ConnectionRefused) {
        std::future::pending::<()>().await;
    }
}
