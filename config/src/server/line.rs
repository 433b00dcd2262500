//! A connection that a call can end. What HTTP/2 has taken for a peer that does not read stays in memory
//! until its connection ends, and no call can take it back; so the call ends the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use weft_ca::connection::Caller;

/// A connection, until one side ends it.
pub(super) struct Line<S> {
    connection: S,
    hang_up: CancellationToken,
    hung_up: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Who is at the other end, and how to be rid of them; an extension of each call.
#[derive(Clone)]
pub(super) struct LineInfo {
    pub(super) caller: Caller,
    pub(super) hang_up: CancellationToken,
}

impl<S> Line<S> {
    pub(super) fn new(connection: S) -> Self {
        let hang_up = CancellationToken::new();
        let hung_up = Box::pin(hang_up.clone().cancelled_owned());
        Self {
            connection,
            hang_up,
            hung_up,
        }
    }
}

impl<S> Line<S> {
    /// Asked before every read and write: HTTP/2 does not read while something that it has to say does not go.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.hung_up.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: Connected<ConnectInfo = Caller>> Connected for Line<S> {
    type ConnectInfo = LineInfo;

    fn connect_info(&self) -> LineInfo {
        LineInfo {
            caller: self.connection.connect_info(),
            hang_up: self.hang_up.clone(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
