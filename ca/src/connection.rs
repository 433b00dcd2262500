//! A connection of the control plane as gRPC sees it: TLS, the peer's identity, and when the connection must
//! end.
//!
//! The CA and the config service use it. [`accept`] gives every newcomer a place: the holder with most
//! places, or with more than its share, loses its oldest one for it ([`weft_transport::shares`]). Places are
//! counted twice, because strangers can take those of the first kind: by source address until the handshake
//! is finished, and by proven identity after it. A connection ends when its place is lost or its time is
//! over, whatever its calls do.
//!
//! Not here: the handshake itself ([`weft_transport::tcp`]), and the rights of one call. A server that acts
//! on a proven identity checks [`PeerId::not_after`] at each call as well, because the clock that ends
//! connections stands still while the machine sleeps.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use weft_transport::alone::alone;
use weft_transport::identity::{PeerId, SpiffeId};
use weft_transport::limited_log::LimitedLog;
use weft_transport::shares::{Bounds, Place, Places, Source};
use weft_transport::tasks::TaskSet;
use weft_transport::tcp::{TlsAcceptor, TlsError, TlsStream};

use crate::limits::ACCEPT_PAUSE;

/// The peer of a connection; gRPC hands it to each call as an extension.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The identity that it proved, if it showed a certificate.
    pub peer: Option<PeerId>,
    /// The address that it comes from.
    pub source: IpAddr,
    /// Ends the connection. Bytes that HTTP/2 has buffered for a peer that does not read stay in memory until
    /// its connection ends. No call can take them back, so the call cancels this token.
    pub hang_up: CancellationToken,
}

/// The party for which limits count a connection or a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A peer that proved an identity, from any address.
    Identity(SpiffeId),
    /// A peer without an identity, by its address.
    Source(Source),
}

impl Caller {
    /// The party for which limits count it.
    #[must_use]
    pub fn holder(&self) -> Holder {
        match &self.peer {
            Some(peer) => Holder::Identity(peer.id().clone()),
            None => Holder::Source(self.source.into()),
        }
    }
}

/// A server's limits on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections whose handshake is not finished, and how many of them one source may have.
    pub handshakes: Bounds,
    /// Connections after it, and how many of them one [`Holder`] may have.
    pub connections: Bounds,
    /// When a connection must end.
    pub life: Life,
}

/// How long a connection lives at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// At the expiry of the certificate that opened it, to the second. The clock skew that a handshake allows
    /// opens no connection here, just as it opens no stream between sidecars.
    Certificate,
    /// After this time, whatever the certificate. For the CA: an expired certificate may still authenticate
    /// its renewal, and the CA checks the certificate at every call itself.
    AtMost(Duration),
}

impl Life {
    /// The time left for a connection that is opened `now`, and why it ends then.
    fn left(self, not_after: Option<SystemTime>, now: SystemTime) -> (Duration, NotAccepted) {
        match (self, not_after) {
            (Self::AtMost(life), _) => (life, NotAccepted::TooOld),
            (Self::Certificate, Some(end)) => (
                end.duration_since(now).unwrap_or_default(),
                NotAccepted::CertificateEnded,
            ),
            // A peer without a certificate has no expiry.
            (Self::Certificate, None) => (Duration::ZERO, NotAccepted::CertificateEnded),
        }
    }
}

/// A stream that ends by itself or at its server's request, and the facts about its peer that its calls get.
pub struct ServerStream<S, I> {
    stream: S,
    info: I,
    /// Ready when the connection has to end; holds its place.
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_over: bool,
}

/// One accepted connection; holds its place among those that its server allows.
pub type Connection = ServerStream<TlsStream, Caller>;

/// Why a connection was not handed on, or had to end later.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// Its place was needed for a newer connection before its handshake was finished.
    #[error("its handshake was not finished, and newer connections needed its place")]
    NoPlace,
    /// The TLS handshake failed.
    #[error(transparent)]
    Handshake(TlsError),
    /// Its place was needed for a newer connection after the handshake.
    #[error("it was the oldest connection of the holder that had most")]
    TakenBack,
    /// The certificate that opened it has ended.
    #[error("the certificate that opened it has ended")]
    CertificateEnded,
    /// It was open for as long as a connection may be.
    #[error("it was open for too long")]
    TooOld,
}

impl NotAccepted {
    /// Every label of [`Self::reason`].
    pub const REASONS: [&'static str; 5] = [
        "handshake_place",
        "handshake_failed",
        "place",
        "certificate_ended",
        "too_old",
    ];

    /// A short constant name for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        Self::REASONS[self.index()]
    }

    /// Its position in [`Self::REASONS`].
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::NoPlace => 0,
            Self::Handshake(_) => 1,
            Self::TakenBack => 2,
            Self::CertificateEnded => 3,
            Self::TooOld => 4,
        }
    }
}

/// The remedy for an address that cannot be bound, to be put after the kernel's error.
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

/// Accepts connections until `shutdown`, and hands on those whose handshake succeeds. `report` gets the
/// others, and those that had to end. Strangers decide how often that happens, so it should count and not
/// log. Connections that the server's own calls end are not reported.
pub async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    limits: Limits,
    accepted: mpsc::Sender<io::Result<Connection>>,
    report: impl Fn(SocketAddr, NotAccepted) + Clone + Send + Sync + 'static,
    shutdown: CancellationToken,
) {
    let newcomers = Places::<Source>::new(limits.handshakes);
    let connected = Places::<Holder>::new(limits.connections);
    let mut handshakes = TaskSet::default();
    let failures = LimitedLog::by_a_state();
    loop {
        let (stream, source) = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = handshakes.join_next() => continue,
            result = listener.accept() => match result {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Usually no descriptor is left: an instant retry would only use CPU.
                    failures.log(|left_out| {
                        tracing::warn!(%error, left_out, "cannot accept a connection");
                    });
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let place = newcomers.enter(source.ip().into());
        let (acceptor, accepted, report) = (acceptor.clone(), accepted.clone(), report.clone());
        let connected = connected.clone();
        let greeting = async move {
            let stream = match handshake(&acceptor, stream, place).await {
                Ok(stream) => stream,
                Err(reason) => return report(source, reason),
            };
            let caller = Caller {
                peer: stream.peer().cloned(),
                source: source.ip(),
                hang_up: CancellationToken::new(),
            };
            let not_after = caller.peer.as_ref().map(PeerId::not_after);
            let (left, reason) = limits.life.left(not_after, SystemTime::now());
            if left.is_zero() {
                return report(source, reason);
            }
            let place = connected.enter(caller.holder());
            let hang_up = caller.hang_up.clone();
            let connection = ServerStream::new(stream, caller, async move {
                let reason = tokio::select! {
                    () = place.taken_back() => NotAccepted::TakenBack,
                    () = sleep(left) => reason,
                    () = hang_up.cancelled() => return,
                };
                report(source, reason);
            });
            // The receiver is gone only when the server stops.
            let _ = accepted.send(Ok(connection)).await;
        };
        handshakes.spawn(alone("a handshake", greeting));
    }
}

/// Runs the handshake while it has its place.
async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    place: Place<Source>,
) -> Result<TlsStream, NotAccepted> {
    // Answers are one small write each; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    tokio::select! {
        result = acceptor.accept(stream) => result.map_err(NotAccepted::Handshake),
        () = place.taken_back() => Err(NotAccepted::NoPlace),
    }
}

impl<S, I> ServerStream<S, I> {
    /// Ends `stream` when `over` is ready.
    pub(crate) fn new(stream: S, info: I, over: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            stream,
            info,
            over: Box::pin(over),
            is_over: false,
        }
    }

    /// Ready with an error once the connection has to end. Checked before every read and every write, because
    /// HTTP/2 does not read while its own output is blocked.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.is_over {
            ready!(self.over.as_mut().poll(cx));
            self.is_over = true;
        }
        let kind = io::ErrorKind::ConnectionAborted;
        Poll::Ready(io::Error::new(kind, "the connection's time is over"))
    }
}

impl<S, I: Clone + Send + Sync + 'static> Connected for ServerStream<S, I> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}

impl<S: AsyncRead + Unpin, I: Unpin> AsyncRead for ServerStream<S, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_over(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin, I: Unpin> AsyncWrite for ServerStream<S, I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_over(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_over(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_over(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_over(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_connection_lives_as_long_as_its_certificate_or_as_the_server_says() {
        let now = UNIX_EPOCH + HOUR;
        let left = |life: Life, not_after| {
            let (left, reason) = life.left(not_after, now);
            (left, reason.reason())
        };
        let certificate = Life::Certificate;
        assert_eq!(
            left(certificate, Some(now + HOUR)),
            (HOUR, "certificate_ended")
        );
        let ended = (Duration::ZERO, "certificate_ended");
        assert_eq!(left(certificate, Some(now - Duration::from_secs(1))), ended);
        assert_eq!(left(certificate, None), ended);
        for not_after in [None, Some(now - HOUR), Some(now + HOUR)] {
            assert_eq!(left(Life::AtMost(HOUR), not_after), (HOUR, "too_old"));
        }
    }

    #[test]
    fn reasons_are_distinct_and_in_their_order() {
        let all = [
            NotAccepted::NoPlace,
            NotAccepted::Handshake(TlsError::Timeout),
            NotAccepted::TakenBack,
            NotAccepted::CertificateEnded,
            NotAccepted::TooOld,
        ];
        let reasons: Vec<_> = all.iter().map(NotAccepted::reason).collect();
        assert_eq!(reasons, NotAccepted::REASONS);
    }

    #[tokio::test]
    async fn a_connection_that_is_over_ends_reads_and_writes_and_leaves_its_place() {
        let places = Places::new(Bounds { places: 1, each: 1 });
        let (near, mut far) = duplex(4);
        let (place, hang_up) = (places.enter("a"), CancellationToken::new());
        let over = hang_up.clone();
        let mut held = ServerStream::new(near, (), async move {
            let _place = place;
            over.cancelled().await;
        });
        far.write_all(b"x").await.unwrap();
        assert_eq!(held.read_u8().await.unwrap(), b'x');
        // Its reader waits for a peer that sends nothing, its writer for one that does not read.
        let later = async {
            tokio::task::yield_now().await;
            hang_up.cancel();
        };
        let (read, ()) = tokio::join!(held.read_u8(), later);
        assert!(read.is_err());
        assert!(held.write_all(b"too much of it").await.is_err());
        assert!(held.flush().await.is_err());
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test]
    async fn a_connection_ends_while_it_waits_for_a_peer_that_does_not_read() {
        let (near, _far) = duplex(4);
        let hang_up = CancellationToken::new();
        let mut held = ServerStream::new(near, (), hang_up.clone().cancelled_owned());
        let later = async {
            tokio::task::yield_now().await;
            hang_up.cancel();
        };
        let (written, ()) = tokio::join!(held.write_all(b"too much of it"), later);
        assert!(written.is_err());
    }
}
