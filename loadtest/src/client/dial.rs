//! Opens the TCP connections that the protocols run on, and times them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::kind_of_connect;
use crate::clock::Clock;
use crate::limits;
use crate::sample::{ErrorKind, Sample};

/// Where the endpoints of a plan are.
#[derive(Clone)]
pub(crate) struct Dial {
    addresses: Vec<SocketAddr>,
}

/// A connection, with or without TLS.
pub(crate) enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
}

impl Dial {
    /// `addresses` in the order of the plan's endpoints.
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses }
    }

    /// The address of an endpoint.
    pub(crate) fn address(&self, endpoint: usize) -> Result<SocketAddr, ErrorKind> {
        let address = self.addresses.get(endpoint).copied();
        address.ok_or(ErrorKind::ConnectFailed)
    }

    /// Connects to an endpoint, and notes in `sample` when it was there.
    pub(crate) async fn open(
        &self,
        endpoint: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<Stream, ErrorKind> {
        let connecting = TcpStream::connect(self.address(endpoint)?);
        let stream = timeout(limits::CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| ErrorKind::ConnectTimeout)?
            .map_err(|error| kind_of_connect(&error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| kind_of_connect(&error))?;
        sample.connected = Some(clock.now());
        Ok(Stream::Plain(stream))
    }
}

impl Stream {
    /// Whether nothing has come that nobody asked for: neither bytes nor an end. Costs no system
    /// call unless something has.
    pub(crate) fn is_quiet(&self) -> bool {
        let Self::Plain(stream) = self;
        let nothing = stream.try_read(&mut [0]);
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
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
