//! TLS 1.3 over TCP, for the control plane's gRPC (ALPN `h2`).
//!
//! The same credentials and verdicts as on the QUIC side. Not here: gRPC itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::credentials::{Credentials, Fingerprint};
use crate::identity::{PeerId, SpiffeId};
use crate::limits;
use crate::tls::{self, Expected, SERVER_NAME};
use crate::tuning::PostQuantum;

/// gRPC needs HTTP/2; the name keeps other protocols out.
const ALPN: &[u8] = b"h2";

/// Takes TLS connections with this process's SVID.
#[derive(Clone)]
pub struct TlsAcceptor {
    inner: tokio_rustls::TlsAcceptor,
}

/// What a listening side asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Every client proves an identity of the mesh.
    Required,
    /// A client may come without a certificate, or with an SVID that expired less than
    /// `renewal_grace` ago. For the CA alone.
    Optional {
        /// How long after its end an SVID still authenticates its renewal.
        renewal_grace: Duration,
    },
}

/// Opens TLS connections to a server of a known identity.
#[derive(Clone)]
pub struct TlsConnector {
    inner: tokio_rustls::TlsConnector,
}

/// A TLS connection after its handshake.
pub struct TlsStream {
    inner: tokio_rustls::TlsStream<TcpStream>,
    peer: Option<PeerId>,
}

/// Why a TLS connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake failed: the other side's certificate, or ours, was refused.
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// No end of the handshake in time.
    #[error("TLS handshake took longer than {} s", limits::TLS_HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// The configuration was refused by the TLS library.
    #[error("TLS configuration: {0}")]
    Configuration(String),
}

impl TlsError {
    /// Whether a certificate was refused, on this side or on the other: no retry will help until
    /// somebody changes a certificate or a clock.
    pub fn is_certificate_refused(&self) -> bool {
        match self {
            Self::Handshake(error) => error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|error| {
                    matches!(
                        error,
                        rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)
                    )
                }),
            Self::Timeout | Self::Configuration(_) => false,
        }
    }
}

impl TlsAcceptor {
    /// An acceptor that follows `credentials` through every swap.
    ///
    /// # Errors
    /// When the TLS library refuses the configuration.
    pub fn new(credentials: &Credentials, client: ClientAuth) -> Result<Self, TlsError> {
        let grace = match client {
            ClientAuth::Required => None,
            ClientAuth::Optional { renewal_grace } => Some(renewal_grace),
        };
        let config = tls::server_config(credentials, grace, ALPN, PostQuantum::Prefer)
            .map_err(|error| TlsError::Configuration(error.to_string()))?;
        Ok(Self {
            inner: Arc::new(config).into(),
        })
    }

    /// Runs the handshake on an accepted connection.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> Result<TlsStream, TlsError> {
        let handshake = self.inner.accept(stream);
        let stream = timeout(limits::TLS_HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| TlsError::Timeout)?
            .map_err(TlsError::Handshake)?;
        Ok(TlsStream::new(stream.into()))
    }
}

impl TlsConnector {
    /// Presents the SVID in force to a server that must prove `server`.
    ///
    /// # Errors
    /// When the TLS library refuses the configuration.
    pub fn mutual(credentials: &Credentials, server: SpiffeId) -> Result<Self, TlsError> {
        let expected = Expected::Identity(credentials.clone(), server);
        Self::new(Some(credentials), expected)
    }

    /// For a process without an identity: the server must prove `server` under the root with this
    /// fingerprint, which it has to send in its chain.
    ///
    /// # Errors
    /// When the TLS library refuses the configuration.
    pub fn pinned(anchor: Fingerprint, server: SpiffeId) -> Result<Self, TlsError> {
        Self::new(None, Expected::Pinned(anchor, server))
    }

    fn new(own: Option<&Credentials>, expected: Expected) -> Result<Self, TlsError> {
        let config = tls::client_config(own, expected, ALPN, PostQuantum::Prefer)
            .map_err(|error| TlsError::Configuration(error.to_string()))?;
        Ok(Self {
            inner: Arc::new(config).into(),
        })
    }

    /// Runs the handshake on a connected stream.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub async fn connect(&self, stream: TcpStream) -> Result<TlsStream, TlsError> {
        let name = ServerName::try_from(SERVER_NAME)
            .map_err(|error| TlsError::Configuration(error.to_string()))?;
        let handshake = self.inner.connect(name, stream);
        let stream = timeout(limits::TLS_HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| TlsError::Timeout)?
            .map_err(TlsError::Handshake)?;
        Ok(TlsStream::new(stream.into()))
    }
}

impl TlsStream {
    fn new(inner: tokio_rustls::TlsStream<TcpStream>) -> Self {
        let (_, connection) = inner.get_ref();
        let peer = connection.peer_certificates().and_then(tls::proven_peer);
        Self { inner, peer }
    }

    /// Who the other side proved to be; `None` for a client that showed no certificate.
    pub fn peer(&self) -> Option<&PeerId> {
        self.peer.as_ref()
    }

    /// Address of the other side.
    ///
    /// # Errors
    /// When the socket is not connected any more.
    pub fn peer_address(&self) -> io::Result<std::net::SocketAddr> {
        self.inner.get_ref().0.peer_addr()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
