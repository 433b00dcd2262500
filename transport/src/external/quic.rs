//! HTTP/3 over QUIC, for tools outside of the mesh. Not here: requests ([`crate::http3`]).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::TokioRuntime;
use quinn::crypto::rustls::QuicClientConfig;

use super::{ExternalError, ExternalTls};
use crate::http3::{Driver, UnprovenConnection};
use crate::quic;
use crate::streams::Streams;
use crate::tuning::Tuning;

/// Opens HTTP/3 connections from one UDP socket.
#[derive(Clone)]
pub struct QuicClient {
    endpoint: quinn::Endpoint,
    tuning: Tuning,
}

/// Why a connection over QUIC failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The handshake failed: a certificate, a protocol or a version was refused.
    #[error("handshake refused: {0}")]
    Refused(String),
    /// No answer came.
    #[error("no answer")]
    Timeout,
    /// This host could not send, or the server went away at once.
    #[error("{0}")]
    Lost(String),
}

impl QuicClient {
    /// A client with a socket of its own. Call it inside the runtime that drives it.
    ///
    /// # Errors
    /// When the configuration or the socket is refused.
    pub fn new(tls: &ExternalTls, tuning: &Tuning) -> Result<Self, ExternalError> {
        let refused =
            |error: &dyn std::fmt::Display| ExternalError::Configuration(error.to_string());
        let crypto = QuicClientConfig::try_from(tls.config(quic::ALPN)?);
        let crypto = crypto.map_err(|error| refused(&error))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let transport = quic::dialling_transport(tuning).map_err(|error| refused(&error))?;
        config.transport_config(Arc::new(transport));
        let socket = any_socket().map_err(|error| refused(&error))?;
        let endpoint = quinn::EndpointConfig::default();
        let endpoint = quinn::Endpoint::new(endpoint, None, socket, Arc::new(TokioRuntime));
        let mut endpoint = endpoint.map_err(|error| refused(&error))?;
        endpoint.set_default_client_config(config);
        Ok(Self {
            endpoint,
            tuning: tuning.clone(),
        })
    }

    /// Connects to the server `host` at `address`. The driver must be polled for the connection to work.
    /// The caller sets the deadline.
    ///
    /// # Errors
    /// When the server is not reached, or does not prove its name.
    pub async fn connect(
        &self,
        address: SocketAddr,
        host: &str,
    ) -> Result<(UnprovenConnection, Driver), ConnectError> {
        let address = self.reachable(address);
        let connecting = self.endpoint.connect(address, host);
        let connecting = connecting.map_err(|error| ConnectError::Lost(error.to_string()))?;
        let connection = connecting.await.map_err(connect_error)?;
        let streams = Streams::new(connection.clone(), &self.tuning);
        Ok(UnprovenConnection::new(connection, streams))
    }

    /// Goes on from a new local port: connections migrate (RFC 9000 section 9) when they next send.
    ///
    /// # Errors
    /// The error of the kernel; the old port then stays in use.
    pub fn rebind(&self) -> io::Result<()> {
        self.endpoint.rebind(any_socket()?)
    }

    /// An IPv4 address in the form that a socket of both families needs.
    fn reachable(&self, address: SocketAddr) -> SocketAddr {
        let is_ipv6 = self.endpoint.local_addr().is_ok_and(|own| own.is_ipv6());
        match address {
            SocketAddr::V4(v4) if is_ipv6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            SocketAddr::V4(_) | SocketAddr::V6(_) => address,
        }
    }
}

/// A socket that reaches both address families where the host has both.
fn any_socket() -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};

    let both = || {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        Ok(socket.into())
    };
    both().or_else(|_: io::Error| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
}

pub(super) fn connect_error(error: quinn::ConnectionError) -> ConnectError {
    use quinn::ConnectionError as E;
    match error {
        E::TimedOut => ConnectError::Timeout,
        E::VersionMismatch | E::TransportError(_) | E::ConnectionClosed(_) => {
            ConnectError::Refused(error.to_string())
        }
        E::ApplicationClosed(_) | E::Reset | E::LocallyClosed | E::CidsExhausted => {
            ConnectError::Lost(error.to_string())
        }
    }
}
