//! TLS over TCP, for tools outside of the mesh. Not here: the protocol above it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::HandshakeKind;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{ExternalError, ExternalTls, server_name};

/// Opens TLS connections to one server by name.
#[derive(Clone)]
pub struct TlsClient {
    connector: tokio_rustls::TlsConnector,
    name: ServerName<'static>,
}

/// A connection after its handshake.
pub struct TlsClientStream(tokio_rustls::client::TlsStream<TcpStream>);

impl TlsClient {
    /// A client for the server `host` that speaks `alpn`, such as `h2` or `http/1.1`; empty for none.
    ///
    /// # Errors
    /// When the configuration is refused, or `host` is no name.
    pub fn new(tls: &ExternalTls, host: &str, alpn: &[u8]) -> Result<Self, ExternalError> {
        Ok(Self {
            connector: Arc::new(tls.config(alpn)?).into(),
            name: server_name(host)?,
        })
    }

    /// Runs the handshake on a TCP connection. The caller sets the deadline.
    ///
    /// # Errors
    /// The error of TLS or the network.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsClientStream> {
        let handshake = self.connector.connect(self.name.clone(), stream);
        handshake.await.map(TlsClientStream)
    }
}

impl TlsClientStream {
    /// The TCP connection below. Its bytes are ciphertext, so only its state is of use.
    pub fn tcp(&self) -> &TcpStream {
        self.0.get_ref().0
    }

    /// Whether the handshake went on with a session of an earlier connection (RFC 8446 section 2.2).
    pub fn was_resumed(&self) -> bool {
        self.0.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the server chose the protocol that was asked for. A server that chooses none may speak any.
    pub fn protocol_was_chosen(&self) -> bool {
        self.0.get_ref().1.alpn_protocol().is_some()
    }
}

impl AsyncRead for TlsClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
