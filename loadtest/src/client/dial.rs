//! Opens the TCP connections that the protocols run on, and times them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_transport::external::{ExternalError, TlsClient, TlsClientStream};

use super::kind_of_connect;
use crate::clock::Clock;
use crate::limits;
use crate::plan::Plan;
use crate::plan::target::{Endpoint, Protocol};
use crate::sample::{ErrorKind, Sample};

/// The addresses of a plan's endpoints.
#[derive(Clone)]
pub(crate) struct Dial {
    addresses: Vec<SocketAddr>,
    /// For each endpoint, if it needs TLS.
    tls: Vec<Option<TlsClient>>,
}

/// A connection, with or without TLS.
pub(crate) enum Stream {
    /// TCP without TLS.
    Plain(TcpStream),
    /// Bytes in TLS records.
    Tls(Box<TlsClientStream>),
}

impl Dial {
    /// `addresses` in the order of the plan's endpoints.
    ///
    /// # Errors
    /// When a name cannot be one of a TLS server, or the configuration is refused.
    pub(crate) fn new(plan: &Plan, addresses: Vec<SocketAddr>) -> Result<Self, ExternalError> {
        let alpn = alpn(plan.targets.protocol);
        let client = |endpoint: &Endpoint| {
            let client = || TlsClient::new(&plan.tls, endpoint.name(), alpn);
            endpoint.tls.then(client).transpose()
        };
        let tls: Result<Vec<_>, _> = plan.targets.endpoints.iter().map(client).collect();
        Ok(Self {
            addresses,
            tls: tls?,
        })
    }

    /// The address of an endpoint.
    pub(crate) fn address(&self, endpoint: usize) -> Result<SocketAddr, ErrorKind> {
        let address = self.addresses.get(endpoint).copied();
        address.ok_or(ErrorKind::ConnectFailed)
    }

    /// Connects to an endpoint, and notes in `sample` when the connection was open.
    pub(crate) async fn open(
        &self,
        endpoint: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<Stream, ErrorKind> {
        let stream = connect(self.address(endpoint)?, clock, sample).await?;
        let Some(Some(tls)) = self.tls.get(endpoint) else {
            return Ok(Stream::Plain(stream));
        };
        let stream = timeout(limits::CONNECT_TIMEOUT, tls.connect(stream))
            .await
            .map_err(|_| ErrorKind::ConnectTimeout)?
            .map_err(|_| ErrorKind::Tls)?;
        sample.shook_hands(clock.now(), stream.was_resumed());
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// Connects, and notes in `sample` when the connection was open.
pub(crate) async fn connect(
    address: SocketAddr,
    clock: Clock,
    sample: &mut Sample,
) -> Result<TcpStream, ErrorKind> {
    let stream = timeout(limits::CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| ErrorKind::ConnectTimeout)?
        .map_err(|error| kind_of_connect(&error))?;
    stream
        .set_nodelay(true)
        .map_err(|error| kind_of_connect(&error))?;
    sample.connected = Some(clock.now());
    Ok(stream)
}

/// The name of a protocol in a TLS handshake (RFC 7301).
pub(crate) fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http2 | Protocol::Grpc => b"h2",
        Protocol::Http1 | Protocol::Http3 | Protocol::Tcp(_) | Protocol::Udp => b"http/1.1",
    }
}

impl Stream {
    /// Whether no unexpected bytes and no end have come. Costs no system call unless something has.
    pub(crate) fn is_quiet(&self) -> bool {
        let tcp = match self {
            Self::Plain(stream) => stream,
            // Its records may be session tickets, which are not an answer: only an end counts.
            Self::Tls(stream) => return !is_closed(stream.tcp()),
        };
        let nothing = tcp.try_read(&mut [0]);
        nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Whether the peer has ended the connection; reads nothing from it.
fn is_closed(tcp: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let peeked = socket2::SockRef::from(tcp).peek(&mut byte);
    match peeked {
        Ok(read) => read == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}
