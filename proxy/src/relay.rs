//! Bytes of a tunnel, both ways: one TCP (or Unix) connection and one exchange of the mesh.
//!
//! Each direction ends on its own: FIN becomes FIN, a reset becomes a reset, in both directions. A broken
//! connection is never passed on as a clean end (RFC 9114 section 4.4).

use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::try_join;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use weft_transport::external::TlsClientStream;
use weft_transport::wire::{Reason as Why, ReceiveError, RecvHalf, SendError, SendHalf};

use crate::failure::{Failure, Reason};
use crate::idle::{Expired, Idle, while_moving};
use crate::limits;
use crate::metrics::{Direction, TunnelSeries};
use crate::stream::{self, ApplicationStream};
use crate::transport_failure::{send_failure, stream_failure};

/// Bytes that a tunnel carries, counted while it runs: tunnels live for hours.
#[derive(Debug)]
pub(crate) struct Carried {
    direction: Direction,
    into_mesh: AtomicU64,
    out_of_mesh: AtomicU64,
    /// The metrics of all such tunnels.
    series: Option<Arc<TunnelSeries>>,
}

impl Carried {
    /// A counter that begins at zero. Bytes that pass are added to `series`, too.
    pub(crate) fn new(direction: Direction, series: Option<Arc<TunnelSeries>>) -> Self {
        Self {
            direction,
            into_mesh: AtomicU64::new(0),
            out_of_mesh: AtomicU64::new(0),
            series,
        }
    }

    /// Bytes from the caller to the service.
    pub(crate) fn sent(&self) -> u64 {
        let sent = match self.direction {
            Direction::Outbound => &self.into_mesh,
            Direction::Inbound => &self.out_of_mesh,
        };
        sent.load(Ordering::Relaxed)
    }

    /// Bytes from the service to the caller.
    pub(crate) fn received(&self) -> u64 {
        self.total() - self.sent()
    }

    fn total(&self) -> u64 {
        self.into_mesh.load(Ordering::Relaxed) + self.out_of_mesh.load(Ordering::Relaxed)
    }

    fn went_in(&self, bytes: usize) {
        // usize is at most 64 bits wide.
        self.into_mesh.fetch_add(bytes as u64, Ordering::Relaxed);
        self.count(bytes, self.direction == Direction::Outbound);
    }

    fn came_out(&self, bytes: usize) {
        self.out_of_mesh.fetch_add(bytes as u64, Ordering::Relaxed);
        self.count(bytes, self.direction == Direction::Inbound);
    }

    fn count(&self, bytes: usize, from_caller: bool) {
        if let Some(series) = &self.series {
            let counter = if from_caller {
                &series.sent
            } else {
                &series.received
            };
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

/// Why a tunnel ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TunnelError {
    /// The application's connection broke.
    #[error("the application's connection broke: {0}")]
    Application(ErrorKind),
    /// Reading from the peer failed.
    #[error("the stream to the peer broke: {0}")]
    Peer(ReceiveError),
    /// Writing to the peer failed.
    #[error("the stream to the peer broke: {0}")]
    ToPeer(SendError),
    /// The connection out of the mesh broke.
    #[error("the connection out of the mesh broke: {0}")]
    Outside(ErrorKind),
    /// No bytes passed for the idle timeout.
    #[error("idle for too long")]
    Idle,
}

impl TunnelError {
    /// What it means for the record.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Application(kind) => Failure::new(
                Reason::ConnectionTerminated,
                format!("the application's connection broke: {kind}"),
            ),
            Self::Peer(ReceiveError::Reset(Why::TunnelBroke)) => Failure::new(
                Reason::ConnectionTerminated,
                "the far side's connection broke",
            ),
            Self::Peer(error) => stream_failure(error),
            Self::ToPeer(error) => send_failure(error),
            Self::Outside(kind) => Failure::new(
                Reason::ConnectionTerminated,
                format!("the connection out of the mesh broke: {kind}"),
            ),
            Self::Idle => Failure::new(
                Reason::ResponseTimeout,
                "no bytes passed for the tunnel's idle timeout",
            ),
        }
    }
}

/// Sends what was read from the application ahead of the tunnel.
pub(crate) async fn send_first(
    send: &mut SendHalf,
    first: Bytes,
    carried: &Carried,
) -> Result<(), TunnelError> {
    let bytes = first.len();
    let sent = send.send_data(first).await;
    match sent {
        Ok(()) => carried.went_in(bytes),
        Err(error) => {
            send.reset(Why::TunnelBroke);
            return Err(TunnelError::ToPeer(error));
        }
    }
    Ok(())
}

/// Runs both directions to their ends. The first that breaks ends the other, and so does a time without
/// bytes. `both` is borrowed, because a future that owned it would be larger by its size.
async fn run<F>(both: Pin<&mut F>, idle: Duration, carried: &Carried) -> Result<(), TunnelError>
where
    F: Future<Output = Result<((), ()), TunnelError>>,
{
    match while_moving(Idle::new(idle), || carried.total(), both).await {
        Ok(Ok(((), ()))) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(Expired::Stalled | Expired::Deadline) => Err(TunnelError::Idle),
    }
}

/// Carries bytes until both directions have ended or either has broken.
pub(crate) async fn tunnel(
    application: &ApplicationStream,
    mut send: SendHalf,
    recv: RecvHalf,
    idle: Duration,
    carried: &Carried,
) -> Result<(), TunnelError> {
    let outcome = {
        let up = upload(application, &mut send, carried);
        let down = download(application, recv, carried);
        run(pin!(try_join(up, down)), idle, carried).await
    };
    if outcome.is_err() {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.4
        //# A proxy treats any error in the TCP connection, which includes receiving a TCP segment with
        //# the RST bit set, as a stream error of type H3_CONNECT_ERROR.
        send.reset(Why::TunnelBroke);
        application.reset_on_close();
    }
    outcome
}

/// The same with a connection that leads out of the mesh, over TLS.
pub(crate) async fn tunnel_secured(
    stream: &mut TlsClientStream,
    mut send: SendHalf,
    mut recv: RecvHalf,
    idle: Duration,
    carried: &Carried,
) -> Result<(), TunnelError> {
    let outside = |error: io::Error| TunnelError::Outside(error.kind());
    let (mut from, mut to) = tokio::io::split(&mut *stream);
    let outcome = {
        let up = async {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(limits::OUTSIDE_READ_BYTES);
                let bytes = from.read_buf(&mut buffer).await.map_err(outside)?;
                if bytes == 0 {
                    return send.finish().await.map_err(TunnelError::ToPeer);
                }
                let data = buffer.split().freeze();
                send.send_data(data).await.map_err(TunnelError::ToPeer)?;
                carried.went_in(bytes);
            }
        };
        let down = async {
            let mut chunks: Vec<Bytes> = Vec::new();
            loop {
                let count = std::future::poll_fn(|cx| recv.poll_chunks(cx, &mut chunks));
                if count.await.map_err(TunnelError::Peer)? == 0 {
                    return to.shutdown().await.or_else(ignore_gone);
                }
                for chunk in chunks.drain(..) {
                    to.write_all(&chunk).await.map_err(outside)?;
                    carried.came_out(chunk.len());
                }
                // TLS keeps what does not fill a record.
                to.flush().await.map_err(outside)?;
            }
        };
        run(pin!(try_join(up, down)), idle, carried).await
    };
    if outcome.is_err() {
        // RFC 9114 section 4.4, as above.
        send.reset(Why::TunnelBroke);
        stream::reset_on_close(stream.tcp());
    }
    outcome
}

/// The same for a connection that is no exchange of the mesh: one that leads out of it, or one of a caller
/// without mutual TLS.
pub(crate) async fn splice(
    application: &ApplicationStream,
    first: BytesMut,
    link: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
    carried: &Carried,
) -> Result<(), TunnelError> {
    let (mut from, mut to) = tokio::io::split(link);
    let outcome = {
        let up = async {
            let mut reader = Reader {
                buffer: first,
                ..Reader::default()
            };
            loop {
                let data = reader.read(application).await;
                let data = data.map_err(|error| TunnelError::Application(error.kind()))?;
                let written = match data.is_empty() {
                    true => return to.shutdown().await.or_else(ignore_gone),
                    false => to.write_all(&data).await,
                };
                written.map_err(|error| TunnelError::Outside(error.kind()))?;
                // TLS keeps what does not fill a record.
                let flushed = to.flush().await;
                flushed.map_err(|error| TunnelError::Outside(error.kind()))?;
                carried.went_in(data.len());
            }
        };
        let down = async {
            let mut buffer = BytesMut::new();
            let mut chunks = Vec::new();
            loop {
                buffer.reserve(limits::OUTSIDE_READ_BYTES);
                let read = from.read_buf(&mut buffer).await;
                match read.map_err(|error| TunnelError::Outside(error.kind()))? {
                    0 => return application.shutdown_write().or_else(ignore_gone),
                    _ => chunks.push(buffer.split().freeze()),
                }
                write_all(application, &mut chunks, carried).await?;
            }
        };
        run(pin!(try_join(up, down)), idle, carried).await
    };
    if outcome.is_err() {
        application.reset_on_close();
    }
    outcome
}

async fn upload(
    application: &ApplicationStream,
    send: &mut SendHalf,
    carried: &Carried,
) -> Result<(), TunnelError> {
    let mut reader = Reader::default();
    loop {
        match reader.read(application).await {
            Ok(data) if data.is_empty() => return send.finish().await.map_err(TunnelError::ToPeer),
            Ok(data) => {
                let bytes = data.len();
                match send.send_data(data).await {
                    Ok(()) => carried.went_in(bytes),
                    Err(error) => return Err(TunnelError::ToPeer(error)),
                }
            }
            Err(error) => return Err(TunnelError::Application(error.kind())),
        }
    }
}

async fn download(
    application: &ApplicationStream,
    mut recv: RecvHalf,
    carried: &Carried,
) -> Result<(), TunnelError> {
    let mut chunks: Vec<Bytes> = Vec::new();
    loop {
        let count = std::future::poll_fn(|cx| recv.poll_chunks(cx, &mut chunks))
            .await
            .map_err(TunnelError::Peer)?;
        if count == 0 {
            return application.shutdown_write().or_else(ignore_gone);
        }
        write_all(application, &mut chunks, carried).await?;
    }
}

/// A FIN that cannot be sent to an end that is gone is no failure: the bytes before it were delivered, or
/// their loss was reported.
fn ignore_gone(error: io::Error) -> Result<(), TunnelError> {
    if error.kind() == ErrorKind::NotConnected {
        return Ok(());
    }
    Err(TunnelError::Application(error.kind()))
}

async fn write_all(
    application: &ApplicationStream,
    chunks: &mut Vec<Bytes>,
    carried: &Carried,
) -> Result<(), TunnelError> {
    let mut first = 0;
    while first < chunks.len() {
        match try_write(application, &chunks[first..]) {
            Ok(mut written) => {
                carried.came_out(written);
                while first < chunks.len() && written >= chunks[first].len() {
                    written -= chunks[first].len();
                    first += 1;
                }
                if written > 0 {
                    chunks[first].advance(written);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                application
                    .writable()
                    .await
                    .map_err(|error| TunnelError::Application(error.kind()))?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(TunnelError::Application(error.kind())),
        }
    }
    chunks.clear();
    Ok(())
}

/// Not in the async function, whose future would hold the slices.
fn try_write(application: &ApplicationStream, chunks: &[Bytes]) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); 64];
    let mut used = 0;
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        *slice = IoSlice::new(chunk);
        used += 1;
    }
    application.try_write_vectored(&slices[..used])
}

/// Reads pieces whose size follows the traffic; while no bytes come, it holds no memory.
struct Reader {
    buffer: BytesMut,
    size: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            size: limits::TUNNEL_READ_MIN,
        }
    }
}

impl Reader {
    /// The next piece; empty at the end.
    async fn read(&mut self, application: &ApplicationStream) -> io::Result<Bytes> {
        loop {
            // At least half a piece of room, so that reads never become tiny.
            if self.buffer.capacity() < self.size / 2 {
                self.buffer.reserve(self.size);
            }
            let room = self.buffer.capacity();
            match application.try_read(&mut self.buffer) {
                Ok(bytes) => {
                    if bytes == room {
                        self.size = (self.size * 2).min(limits::TUNNEL_READ_MAX);
                    } else if bytes < self.size / 4 {
                        self.size = (self.size / 2).max(limits::TUNNEL_READ_MIN);
                    }
                    return Ok(self.buffer.split().freeze());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.buffer = BytesMut::new();
                    application.readable().await?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_reader_grows_with_bulk_and_holds_nothing_when_idle() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let near = ApplicationStream::Unix(near);
        let mut reader = Reader::default();
        far.write_all(&vec![7; 100_000]).await.unwrap();
        let mut total = 0;
        while total < 100_000 {
            total += reader.read(&near).await.unwrap().len();
        }
        assert!(reader.size > limits::TUNNEL_READ_MIN);
        let waiting = reader.read(&near);
        assert!(
            tokio::time::timeout(Duration::from_millis(1), waiting)
                .await
                .is_err()
        );
        assert_eq!(reader.buffer.capacity(), 0);
        far.shutdown().await.unwrap();
        assert!(reader.read(&near).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn chunks_arrive_in_order_through_a_full_socket() {
        use tokio::io::AsyncReadExt;
        let (mut far, near) = UnixStream::pair().unwrap();
        let near = ApplicationStream::Unix(near);
        let mut chunks: Vec<Bytes> = (0..200u8)
            .map(|byte| Bytes::from(vec![byte; 5000]))
            .collect();
        let expected: Vec<u8> = chunks.iter().flatten().copied().collect();
        let series = Arc::new(TunnelSeries::default());
        let carried = Carried::new(Direction::Inbound, Some(Arc::clone(&series)));
        let read = async {
            let mut seen = vec![0; expected.len()];
            far.read_exact(&mut seen).await.unwrap();
            seen
        };
        let (outcome, seen) = tokio::join!(write_all(&near, &mut chunks, &carried), read);
        assert_eq!(outcome, Ok(()));
        assert!(seen == expected);
        assert_eq!((carried.sent(), carried.received()), (1_000_000, 0));
        assert_eq!(series.sent.load(Ordering::Relaxed), 1_000_000);
    }
}
