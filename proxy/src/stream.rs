//! A byte stream to or from the application: TCP, or a Unix socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use weft_config::settings::LocalAddress;

use crate::{limits, other_end};

/// The application's side of a connection.
#[derive(Debug)]
pub(crate) enum ApplicationStream {
    /// Over TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl ApplicationStream {
    /// Connects to the application.
    ///
    /// # Errors
    /// As `connect(2)`; `TimedOut` after `timeout`.
    pub(crate) async fn connect(address: &LocalAddress, timeout: Duration) -> io::Result<Self> {
        let connect = async {
            match address {
                LocalAddress::Tcp(address) => TcpStream::connect(address).await.map(Self::tcp),
                LocalAddress::Unix(path) => {
                    UnixStream::connect(path as &Path).await.map(Self::Unix)
                }
            }
        };
        tokio::time::timeout(timeout, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Wraps an accepted or connected TCP stream.
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // Small writes are sent at once; a failure of this hint does no harm.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    /// Waits until there are bytes to read, or the end of the stream.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// Ready when there are bytes to read, or the end of the stream.
    pub(crate) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    /// Reads the available bytes into the spare capacity of `buffer`; `WouldBlock` if there are none.
    pub(crate) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// The host at the other end; none for a Unix socket, or if the connection is gone already.
    pub(crate) fn remote_host(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// Whether the other end is known to send no more, although unread bytes may be left.
    pub(crate) fn is_seen_to_end(&self) -> bool {
        let seen = match self {
            Self::Tcp(stream) => stream.ready(Interest::READABLE).now_or_never(),
            Self::Unix(stream) => stream.ready(Interest::READABLE).now_or_never(),
        };
        seen.is_some_and(|seen| seen.is_ok_and(|seen| seen.is_read_closed()))
    }

    /// The same, asked of the kernel: also right for a stream that is new.
    pub(crate) fn is_ended(&self) -> bool {
        let mut look = [match self {
            Self::Tcp(stream) => PollFd::new(stream, PollFlags::RDHUP),
            Self::Unix(stream) => PollFd::new(stream, PollFlags::RDHUP),
        }];
        let at_once = Timespec::default();
        // It fails only if memory is short; the next read then reports it.
        rustix::event::poll(&mut look, Some(&at_once)).is_ok_and(|ended| ended > 0)
    }

    /// Ready when there are unread bytes, or the end. It reads nothing.
    pub(crate) fn poll_come(&self, context: &mut Context<'_>) -> Poll<io::Result<Readable>> {
        loop {
            ready!(self.poll_read_ready(context))?;
            let peek = || {
                let socket = match self {
                    Self::Tcp(stream) => SockRef::from(stream),
                    Self::Unix(stream) => SockRef::from(stream),
                };
                socket.peek(&mut [MaybeUninit::uninit()])
            };
            let peeked = match self {
                Self::Tcp(stream) => stream.try_io(Interest::READABLE, peek),
                Self::Unix(stream) => stream.try_io(Interest::READABLE, peek),
            };
            match peeked {
                Ok(0) => return Poll::Ready(Ok(Readable::End)),
                Ok(_) => return Poll::Ready(Ok(Readable::Bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Whether the other end no longer takes bytes: it was closed as a whole, or the connection was reset.
    /// Over TCP a close shows only by the reset that follows it, and by [`Self::is_closed`].
    pub(crate) fn is_gone(&self) -> bool {
        let mut look = [match self {
            Self::Tcp(stream) => PollFd::new(stream, PollFlags::empty()),
            Self::Unix(stream) => PollFd::new(stream, PollFlags::empty()),
        }];
        let at_once = Timespec::default();
        // The kernel reports POLLHUP and POLLERR even if they are not asked for.
        rustix::event::poll(&mut look, Some(&at_once)).is_ok_and(|gone| gone > 0)
    }

    /// Whether the program at the other end has closed it. Over TCP, after a FIN, the kernel of this host is
    /// asked if the program is on this host.
    pub(crate) fn is_closed(&self) -> bool {
        let Self::Tcp(stream) = self else {
            return false;
        };
        match (stream.local_addr(), stream.peer_addr()) {
            (Ok(ours), Ok(theirs)) => other_end::is_closed(ours, theirs),
            // It was reset.
            _ => true,
        }
    }

    /// Makes the kernel probe from time to time whether the connection still exists.
    pub(crate) fn probe(&self) {
        if let Self::Tcp(stream) = self {
            let often = TcpKeepalive::new()
                .with_time(limits::HALF_CLOSED_PROBE)
                .with_interval(limits::HALF_CLOSED_PROBE);
            // It fails only on a socket that is already gone.
            let _ = SockRef::from(stream).set_tcp_keepalive(&often);
        }
    }

    /// Ends the connection when its other end reads nothing for this time although bytes wait for it
    /// (TCP_USER_TIMEOUT, RFC 5482).
    pub(crate) fn give_up_after(&self, patience: Duration) {
        if let Self::Tcp(stream) = self {
            // Without it the connection lives longer, and is bounded like others.
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(patience));
        }
    }

    /// A second handle, to look at the socket while another task reads and writes.
    pub(crate) fn watch(&self) -> io::Result<Watch> {
        let handle = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        };
        handle.try_clone_to_owned().map(Watch)
    }

    /// Waits until there is room to write.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Writes what fits.
    pub(crate) fn try_write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    /// Sends FIN; reading goes on.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => SockRef::from(stream).shutdown(std::net::Shutdown::Write),
        }
    }

    /// Makes the coming close a reset (RST) instead of a clean end. Unix sockets have none: there the
    /// application sees the end, and a write fails.
    pub(crate) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            reset_on_close(stream);
        }
    }
}

/// See [`ApplicationStream::reset_on_close`].
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // Fails only on a socket that is already gone.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl AsRawFd for ApplicationStream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// The bytes or the end that wait to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readable {
    /// At least one byte.
    Bytes,
    /// Nothing more will come.
    End,
}

/// Watches a socket that another task reads. The socket stays open until both are dropped.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// A second handle of that socket.
    pub(crate) fn of(tcp: &TcpStream) -> io::Result<Self> {
        tcp.as_fd().try_clone_to_owned().map(Self)
    }

    /// Whether nothing waits to be read, neither bytes nor an end. It asks the kernel, because the runtime
    /// may not know yet.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut look = [PollFd::new(&self.0, PollFlags::IN | PollFlags::RDHUP)];
        rustix::event::poll(&mut look, Some(&Timespec::default())).is_ok_and(|seen| seen == 0)
    }
}

impl AsyncRead for ApplicationStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ApplicationStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Closes the connection of a probe, or a refused one, with a clean end.
pub(crate) async fn close(mut stream: ApplicationStream) {
    let _ = stream.shutdown().await;
}
