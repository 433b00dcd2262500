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

/// Which certificate a listening side asks of its clients.
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
    /// The handshake did not end in time.
    #[error("TLS handshake took longer than {} s", limits::TLS_HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// The configuration was refused by the TLS library.
    #[error("TLS configuration: {0}")]
    Configuration(String),
}

impl TlsError {
    /// Whether a certificate was refused, on this side or on the other: no retry will help until a
    /// certificate or a clock is changed.
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

    /// Whether no root of this mesh, or not the pinned one, vouches for the server.
    pub fn is_of_another_mesh(&self) -> bool {
        match self {
            Self::Handshake(error) => error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(tls::is_of_another_mesh),
            Self::Timeout | Self::Configuration(_) => false,
        }
    }

    /// The identity that the server proved, if it is not the expected one.
    pub fn other_identity(&self) -> Option<&SpiffeId> {
        match self {
            Self::Handshake(error) => tls::other_identity(error.get_ref()?.downcast_ref()?),
            Self::Timeout | Self::Configuration(_) => None,
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

    /// The identity that the other side proved; `None` for a client that presented no certificate.
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::credentials::TrustBundle;
    use crate::testing::{Authority, DOMAIN, FRONTEND, ORDERS};

    const HOUR: Duration = Duration::from_hours(1);

    /// Runs one connection and an exchange of one byte; returns the result of each side.
    async fn meet(
        acceptor: &TlsAcceptor,
        connector: &TlsConnector,
    ) -> (Result<TlsStream, TlsError>, Result<TlsStream, TlsError>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await?;
            let _ = stream.write_all(b"x").await;
            Ok(stream)
        };
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut stream = connector.connect(stream).await?;
            // In TLS 1.3 the client learns of its refusal with the first read.
            stream.read_u8().await.map_err(TlsError::Handshake)?;
            Ok(stream)
        };
        tokio::join!(server, client)
    }

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn both_sides_prove_their_identity() {
        let authority = Authority::new();
        let acceptor =
            TlsAcceptor::new(&authority.credentials(ORDERS), ClientAuth::Required).unwrap();
        let own = authority.credentials(FRONTEND);
        let connector = TlsConnector::mutual(&own, id(ORDERS)).unwrap();
        let (server, client) = meet(&acceptor, &connector).await;
        assert_eq!(server.unwrap().peer().unwrap().id().as_str(), FRONTEND);
        assert_eq!(client.unwrap().peer().unwrap().id().as_str(), ORDERS);
    }

    #[tokio::test]
    async fn a_server_of_another_identity_is_refused_by_the_client() {
        let authority = Authority::new();
        let acceptor =
            TlsAcceptor::new(&authority.credentials(ORDERS), ClientAuth::Required).unwrap();
        let own = authority.credentials(FRONTEND);
        let connector = TlsConnector::mutual(&own, id(FRONTEND)).unwrap();
        let (server, client) = meet(&acceptor, &connector).await;
        assert!(server.is_err());
        assert!(client.err().unwrap().is_certificate_refused());
    }

    #[tokio::test]
    async fn a_client_of_another_authority_is_refused_by_the_server() {
        let acceptor =
            TlsAcceptor::new(&Authority::new().credentials(ORDERS), ClientAuth::Required).unwrap();
        let own = Authority::new().credentials(FRONTEND);
        let connector = TlsConnector::mutual(&own, id(ORDERS)).unwrap();
        let (server, client) = meet(&acceptor, &connector).await;
        assert!(server.is_err());
        assert!(client.is_err());
    }

    #[tokio::test]
    async fn a_client_without_certificate_passes_only_where_it_is_optional() {
        let authority = Authority::new();
        let anchor = crate::credentials::Fingerprint::of(&authority.root);
        // The server's chain carries its root, as the CA's does.
        let issued = authority.issue(crate::testing::leaf(&[ORDERS]));
        let chain = issued.chain_pem + &authority.bundle().to_pem();
        let svid = crate::credentials::Svid::from_pem(chain.as_bytes(), issued.key_pem.as_bytes());
        let own = Credentials::new(svid.unwrap(), authority.bundle()).unwrap();
        let connector = TlsConnector::pinned(anchor, id(ORDERS)).unwrap();
        for (client_auth, welcome) in [
            (ClientAuth::Required, false),
            (
                ClientAuth::Optional {
                    renewal_grace: HOUR,
                },
                true,
            ),
        ] {
            let acceptor = TlsAcceptor::new(&own, client_auth).unwrap();
            let (server, client) = meet(&acceptor, &connector).await;
            assert_eq!(client.is_ok(), welcome);
            assert_eq!(server.is_ok(), welcome);
            if let Ok(stream) = server {
                assert_eq!(stream.peer(), None);
            }
        }
    }

    #[tokio::test]
    async fn a_swapped_certificate_is_shown_at_the_next_handshake() {
        let authority = Authority::new();
        let own = authority.credentials(ORDERS);
        let acceptor = TlsAcceptor::new(&own, ClientAuth::Required).unwrap();
        let peer = authority.credentials(FRONTEND);
        let connector = TlsConnector::mutual(&peer, id(ORDERS)).unwrap();
        let before = own.svid().serial().to_owned();
        let renewed = authority.svid(ORDERS);
        let after = renewed.serial().to_owned();
        own.replace(renewed, authority.bundle()).unwrap();
        let (_, client) = meet(&acceptor, &connector).await;
        let client = client.unwrap();
        let (_, connection) = client.inner.get_ref();
        let shown = &connection.peer_certificates().unwrap()[0];
        let shown = crate::verify::Leaf::parse(shown).unwrap().serial;
        assert_eq!(shown, after);
        assert_ne!(shown, before);
    }

    #[tokio::test]
    async fn trust_that_was_removed_is_removed_for_the_next_handshake_and_for_live_chains() {
        let (old, new) = (Authority::new(), Authority::new());
        let own = old.credentials(ORDERS);
        let acceptor = TlsAcceptor::new(&own, ClientAuth::Required).unwrap();
        let both = old.bundle().to_pem() + &new.bundle().to_pem();
        let both = TrustBundle::from_pem(DOMAIN.parse().unwrap(), both.as_bytes()).unwrap();
        let chain = old.issue(crate::testing::leaf(&[FRONTEND])).chain;
        own.replace(new.svid(ORDERS), both.clone()).unwrap();
        assert!(own.still_trusts(&chain));
        own.replace(new.svid(ORDERS), new.bundle()).unwrap();
        assert!(!own.still_trusts(&chain));
        let peer = Credentials::new(old.svid(FRONTEND), both).unwrap();
        let connector = TlsConnector::mutual(&peer, id(ORDERS)).unwrap();
        let (server, client) = meet(&acceptor, &connector).await;
        assert!(server.is_err());
        assert!(client.is_err());
    }

    #[test]
    fn a_swap_may_not_change_the_identity_or_break_the_chain() {
        let authority = Authority::new();
        let own = authority.credentials(ORDERS);
        assert!(
            own.replace(authority.svid(FRONTEND), authority.bundle())
                .is_err()
        );
        assert!(
            own.replace(Authority::new().svid(ORDERS), authority.bundle())
                .is_err()
        );
        assert_eq!(own.svid().id().as_str(), ORDERS);
    }
}
