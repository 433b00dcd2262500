//! A connection of the control plane as gRPC sees it: TLS, and who is on the other end.
//!
//! Used by the CA and by the config service. [`accept`] is bounded, and no handshake holds up
//! another. Not here: the handshake itself ([`weft_transport::tcp`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use weft_transport::identity::PeerId;
use weft_transport::tcp::{TlsAcceptor, TlsError, TlsStream};

/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is on the other end of a connection; gRPC hands it to each call as an extension.
#[derive(Clone)]
pub struct Caller {
    /// The identity that it proved, if it showed a certificate.
    pub peer: Option<PeerId>,
    /// The address that it comes from.
    pub source: IpAddr,
}

/// One accepted connection; holds its place among those that its server allows.
pub struct Connection {
    stream: TlsStream,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

/// Why a connection was not handed on.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// As many connections as are allowed are open.
    #[error("too many connections")]
    NoPlace,
    /// The TLS handshake failed.
    #[error(transparent)]
    Handshake(TlsError),
}

/// What to do about an address that cannot be listened on, to be put after what the kernel said.
#[must_use]
pub fn listen_hint(error: &io::Error) -> &'static str {
    const HINTS: [(io::ErrorKind, &str); 3] = [
        (
            io::ErrorKind::AddrInUse,
            " (another process has the port, `ss -lntp` names it: end it, or choose another with --listen)",
        ),
        (
            io::ErrorKind::AddrNotAvailable,
            " (no interface of this host has that address)",
        ),
        (
            io::ErrorKind::PermissionDenied,
            " (ports below 1024 need a privilege)",
        ),
    ];
    let hint = HINTS.iter().find(|(kind, _)| *kind == error.kind());
    hint.map_or("", |(_, text)| text)
}

/// Accepts connections until `shutdown`, at most `places` at once, and hands on those whose
/// handshake succeeds. `report` hears of the others.
pub async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    places: usize,
    accepted: mpsc::Sender<io::Result<Connection>>,
    report: impl Fn(SocketAddr, NotAccepted) + Clone + Send + 'static,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(places));
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, source) = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = handshakes.join_next() => continue,
            result = listener.accept() => match result {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: an instant retry would only burn the CPU.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            report(source, NotAccepted::NoPlace);
            continue;
        };
        let (acceptor, accepted, report) = (acceptor.clone(), accepted.clone(), report.clone());
        handshakes.spawn(async move {
            match handshake(&acceptor, stream).await {
                Ok(stream) => {
                    let caller = Caller {
                        peer: stream.peer().cloned(),
                        source: source.ip(),
                    };
                    let connection = Connection {
                        stream,
                        caller,
                        _place: place,
                    };
                    // The receiver is gone only when the server stops.
                    let _ = accepted.send(Ok(connection)).await;
                }
                Err(error) => report(source, NotAccepted::Handshake(error)),
            }
        });
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Result<TlsStream, TlsError> {
    // Answers are one small write each; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    acceptor.accept(stream).await
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
