//! The servers for these clients: TLS over TCP and HTTP/3 over QUIC, for tools outside of the mesh. Not here:
//! the answers.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use quinn::{Endpoint, Runtime, TokioRuntime};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::quic::{ConnectError, connect_error};
use super::{ExternalError, Identity, Trust};
use crate::endpoint::guarded;
use crate::http3::UnprovenServerConnection;
use crate::limits;
use crate::quic;
use crate::streams::Streams;
use crate::tls::{Expected, client_verifier};
use crate::tuning::Tuning;

/// The configuration of an external server's handshakes.
#[derive(Clone)]
pub struct ServerTls {
    identity: Arc<Identity>,
    clients: Trust,
}

/// Runs the server's side of TLS on accepted connections.
#[derive(Clone)]
pub struct TlsServer(tokio_rustls::TlsAcceptor);

/// Takes HTTP/3 connections from one UDP socket. Like a sidecar, it limits the bytes sent to addresses that
/// are not validated.
pub struct QuicServer {
    endpoint: quinn::Endpoint,
    tuning: Tuning,
}

/// A connection attempt of a client.
pub struct QuicIncoming {
    incoming: quinn::Incoming,
    tuning: Tuning,
}

impl ServerTls {
    /// A server that presents `identity`, and lets in the clients that `clients` describes: with
    /// [`Trust::AnyPeer`] it asks no client for a certificate, and resumes sessions for clients that want it.
    pub fn new(identity: Identity, clients: Trust) -> Self {
        Self {
            identity: Arc::new(identity),
            clients,
        }
    }

    /// `alpn` in the order of preference.
    fn config(&self, alpn: &[&[u8]]) -> Result<ServerConfig, ExternalError> {
        let refused =
            |error: &dyn std::fmt::Display| ExternalError::Configuration(error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| refused(&error))?;
        let builder = match &self.clients {
            Trust::AnyPeer => builder.with_no_client_auth(),
            Trust::Roots(roots) => {
                let roots = Arc::clone(&roots.0);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| refused(&error))?)
            }
            Trust::Identity(bundle, id) => {
                let expected = Expected::Fixed(bundle.clone(), id.clone());
                builder.with_client_cert_verifier(client_verifier(expected))
            }
        };
        let (chain, key) = (self.identity.chain.clone(), self.identity.key.clone_key());
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| refused(&error))?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        if matches!(self.clients, Trust::AnyPeer) {
            config.session_storage = ServerSessionMemoryCache::new(limits::EXTERNAL_SESSIONS);
        } else {
            // A resumed session does not run the verifier.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }
}

impl TlsServer {
    /// A server that speaks one of `alpn`, the first that the client offers, or anything with a client that
    /// offers none.
    ///
    /// # Errors
    /// When the configuration is refused.
    pub fn new(tls: &ServerTls, alpn: &[&[u8]]) -> Result<Self, ExternalError> {
        Ok(Self(Arc::new(tls.config(alpn)?).into()))
    }

    /// Runs the handshake on an accepted connection. The caller sets the deadline.
    ///
    /// # Errors
    /// The error of TLS or the network.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        self.0.accept(stream).await
    }
}

impl QuicServer {
    /// A server on a bound socket that does not block. Call it inside the runtime that drives it.
    ///
    /// # Errors
    /// When the configuration or the socket is refused.
    pub fn new(tls: &ServerTls, tuning: &Tuning, socket: UdpSocket) -> Result<Self, ExternalError> {
        let refused =
            |error: &dyn std::fmt::Display| ExternalError::Configuration(error.to_string());
        let config = quic::listening_config(tls.config(&[quic::ALPN])?, tuning);
        let config = config.map_err(|error| refused(&error))?;
        let endpoint = quinn::EndpointConfig::default();
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(socket);
        let socket = guarded(socket.map_err(|error| refused(&error))?);
        let endpoint = Endpoint::new_with_abstract_socket(endpoint, Some(config), socket, runtime);
        Ok(Self {
            endpoint: endpoint.map_err(|error| refused(&error))?,
            tuning: tuning.clone(),
        })
    }

    /// The next connection attempt; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<QuicIncoming> {
        let incoming = self.endpoint.accept().await?;
        let tuning = self.tuning.clone();
        Some(QuicIncoming { incoming, tuning })
    }
}

impl QuicIncoming {
    /// Runs the handshake; when it returns, the client has the identity that was asked for. The caller sets
    /// the deadline.
    ///
    /// # Errors
    /// When the client is refused, or gone.
    pub async fn handshake(self) -> Result<UnprovenServerConnection, ConnectError> {
        let connecting = self.incoming.accept().map_err(connect_error)?;
        let connection = connecting.await.map_err(connect_error)?;
        let streams = Streams::new(connection.clone(), &self.tuning);
        Ok(UnprovenServerConnection::new(connection, streams))
    }
}
