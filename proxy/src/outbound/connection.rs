//! A connection of the application. Its first bytes tell HTTP/1.1 from HTTP/2. A timeout applies to request
//! heads but not to idle keep-alive connections, and the connection notices when it becomes idle.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::intake::{Intake, Turn};
use super::presence::Presence;
use crate::stream::ApplicationStream;

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientProtocol {
    /// HTTP/1.0 or 1.1, or bytes that its parser will refuse.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A connection whose first bytes were read ahead and are read again.
pub(crate) struct Connection {
    stream: ApplicationStream,
    first: BytesMut,
    activity: Arc<Activity>,
    /// For HTTP/1, where requests come one after the other.
    serial: Option<Serial>,
}

/// The checks that each request of HTTP/1 needs.
struct Serial {
    /// The request's turn to be read.
    turn: Turn,
    /// Whether its client is still there.
    presence: Presence,
    /// Bytes were queued for writing since the last flush.
    unflushed: bool,
    /// hyper itself answers a head that it cannot parse. That answer lacks what the mesh promises, so it is
    /// not sent.
    refused: bool,
}

/// The state of a connection that hyper serves, as its reads, its writes and its timer show it.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Counts reads. It is never 0, so that the timer of the first head knows that reading has begun.
    read: AtomicU64,
    /// The count at which hyper began to wait for another head; 0 while a request is under way.
    waiting: AtomicU64,
    /// Whether hyper has handed over a request, and does not wait for another head yet.
    under_way: AtomicBool,
    /// Whether that was not handled yet.
    is_new: AtomicBool,
    /// Whether the last read of a head had more bytes after the head.
    behind: AtomicBool,
    /// Whether content of the request under way has come, beyond its head.
    content: AtomicBool,
    content_comes: Notify,
    /// Whether bytes are written that the client has no room for, or bytes have come that wait to be read.
    blocked: AtomicBool,
}

impl Activity {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            read: AtomicU64::new(1),
            waiting: AtomicU64::new(0),
            under_way: AtomicBool::new(false),
            is_new: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            content: AtomicBool::new(false),
            content_comes: Notify::new(),
            blocked: AtomicBool::new(false),
        })
    }

    /// A request has come: its head is read.
    pub(crate) fn request(&self) {
        self.waiting.store(0, Ordering::Relaxed);
        let behind = self.behind.load(Ordering::Relaxed);
        self.content.store(behind, Ordering::Relaxed);
        self.is_new.store(true, Ordering::Relaxed);
        self.under_way.store(true, Ordering::Relaxed);
    }

    /// Done when content of the request under way has come, or its client has ended its side.
    pub(crate) async fn content(&self) {
        let comes = self.content_comes.notified();
        if !self.content.load(Ordering::Relaxed) {
            comes.await;
        }
    }

    /// These bytes were read. If they may end a head, returns whether more bytes follow it.
    fn head(&self, bytes: &[u8]) {
        if !self.is_under_way() {
            self.behind.store(has_more_behind(bytes), Ordering::Relaxed);
        }
    }

    fn content_has_come(&self) {
        if !self.content.swap(true, Ordering::Relaxed) {
            self.content_comes.notify_waiters();
        }
    }

    /// Whether hyper has a request in hand.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether the next bytes begin a request, and none has begun yet.
    fn is_between(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == self.read.load(Ordering::Relaxed)
    }

    /// Done when for at least `rest` no request was under way, none had begun to arrive, and everything was
    /// written.
    pub(crate) async fn rested(&self, rest: Duration) {
        let mut before = 0;
        loop {
            tokio::time::sleep(rest).await;
            let waiting = self.waiting.load(Ordering::Relaxed);
            let quiet = self.is_between() && !self.blocked.load(Ordering::Relaxed);
            if quiet && waiting == before {
                return;
            }
            before = if quiet { waiting } else { 0 };
        }
    }
}

/// Whether bytes follow the first empty line, if the last bytes of a head are among these.
fn has_more_behind(bytes: &[u8]) -> bool {
    const EMPTY_LINE: &[u8] = b"\r\n\r\n";
    let found = bytes
        .windows(EMPTY_LINE.len())
        .position(|window| window == EMPTY_LINE);
    match found {
        Some(at) => at + EMPTY_LINE.len() < bytes.len(),
        // The empty line may have begun in an earlier read.
        None => !EMPTY_LINE.ends_with(bytes),
    }
}

/// Reads into `first` until the protocol is certain; `None` if the client closes before.
pub(crate) async fn detect(
    stream: &ApplicationStream,
    first: &mut BytesMut,
    intake: &Arc<Intake>,
) -> io::Result<Option<ClientProtocol>> {
    loop {
        if !arrive(stream, first, intake).await? {
            return Ok(None);
        }
        // The bytes of a later read may hold more than the rest of the head.
        if first.starts_with(PREFACE) {
            return Ok(Some(ClientProtocol::Http2));
        }
        if !PREFACE.starts_with(first) {
            return Ok(Some(ClientProtocol::Http1));
        }
    }
}

/// Whether a request of HTTP/1 may begin with these bytes: empty lines, and a method with a space after it
/// (RFC 9112 section 3).
pub(crate) fn may_be_http(first: &[u8]) -> bool {
    let line = first.trim_ascii_start();
    let is_of_method =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    match line.iter().position(|byte| !is_of_method(byte)) {
        None => true,
        Some(end) => end > 0 && line[end] == b' ',
    }
}

/// Reads into `first` when something has come; `false` if the client closes instead.
pub(crate) async fn arrive(
    stream: &ApplicationStream,
    first: &mut BytesMut,
    intake: &Arc<Intake>,
) -> io::Result<bool> {
    loop {
        // No buffer before the first byte: idle connections are cheap.
        stream.readable().await?;
        if intake.is_limited() {
            // Boxed, because few connections need it and the others should not carry its size.
            Box::pin(intake.turn()).await;
            if stream.is_seen_to_end() {
                intake.pass_on();
                return Ok(false);
            }
        }
        first.reserve(PREFACE.len());
        match stream.try_read(first) {
            Ok(read) => return Ok(read > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

impl Connection {
    /// A connection of which `first` was read already. With a `turn`, requests come one after the other, and
    /// each waits for its turn before it is read.
    pub(crate) fn new(stream: ApplicationStream, first: BytesMut, turn: Option<Turn>) -> Self {
        let serial = turn.map(|turn| Serial {
            turn,
            presence: Presence::default(),
            unflushed: false,
            refused: false,
        });
        Self {
            stream,
            first,
            activity: Activity::new(),
            serial,
        }
    }

    /// Tells when it is idle.
    pub(crate) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// The stream; all bytes that were read ahead were read again.
    pub(crate) fn into_stream(self) -> ApplicationStream {
        self.stream
    }

    /// Ready when a request that has arrived may be read; an error if its client has gone.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Serial { turn, .. }) = &mut self.serial else {
            return Poll::Ready(Ok(()));
        };
        if !turn.is_needed() || !self.activity.is_between() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.stream.poll_read_ready(context))?;
        let waited = turn.poll(context);
        self.activity
            .blocked
            .store(waited.is_pending(), Ordering::Relaxed);
        ready!(waited);
        if self.stream.is_seen_to_end() {
            turn.pass_on();
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    /// Writes, unless it is hyper's own answer.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        length: usize,
        write: impl FnOnce(Pin<&mut ApplicationStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let under_way = self.activity.is_under_way();
        if let Some(serial) = &mut self.serial {
            // No peer was asked, and all earlier answers are written.
            serial.refused |= !under_way && !serial.unflushed;
            if serial.refused {
                return Poll::Ready(Ok(length));
            }
            serial.unflushed = true;
        }
        let written = write(Pin::new(&mut self.stream), context);
        self.activity
            .blocked
            .store(written.is_pending(), Ordering::Relaxed);
        if let Some(serial) = &mut self.serial {
            if written.is_ready() {
                serial.presence.moved();
            } else if under_way {
                serial.presence.look(&self.stream, true, context)?;
            }
        }
        written
    }

    /// Checks whether the client of the request under way is still there.
    fn look(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(serial) = &mut self.serial else {
            return Ok(());
        };
        serial.unflushed = false;
        if !self.activity.is_under_way() {
            return Ok(());
        }
        if self.activity.is_new.swap(false, Ordering::Relaxed) {
            serial.presence.forget();
        }
        if serial.presence.look(&self.stream, false, context)? {
            self.activity.content_has_come();
        }
        Ok(())
    }

    /// The timer that hyper measures this connection's request heads with.
    pub(crate) fn timer(&self) -> HeadTimer {
        HeadTimer {
            activity: Arc::clone(&self.activity),
            began: AtomicBool::new(false),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let count = this.first.len().min(buffer.remaining());
            let first = this.first.split_to(count);
            this.activity.head(&first);
            buffer.put_slice(&first);
            return Poll::Ready(Ok(()));
        }
        this.first = BytesMut::new();
        ready!(this.poll_turn(cx))?;
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        this.activity.head(&buffer.filled()[before..]);
        this.activity.read.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, data.len(), |stream, cx| stream.poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.get_mut().write(cx, length, |stream, cx| {
            stream.poll_write_vectored(cx, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Everything was written. hyper calls this after each turn of the connection.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.serial.as_ref().is_some_and(|serial| serial.refused) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// hyper starts its head timer as soon as it waits for a request, which would close idle keep-alive
/// connections. This timer starts when the first byte of the head has come.
#[derive(Debug)]
pub(crate) struct HeadTimer {
    activity: Arc<Activity>,
    /// Whether the first timer was made; the first head has begun by then.
    began: AtomicBool,
}

/// See [`HeadTimer`].
struct HeadSleep {
    activity: Arc<Activity>,
    quiet: u64,
    timeout: Duration,
    running: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        // The first head has begun already: its first bytes told the protocol.
        let quiet = if self.began.swap(true, Ordering::Relaxed) {
            self.activity.read.load(Ordering::Relaxed)
        } else {
            0
        };
        self.activity.waiting.store(quiet, Ordering::Relaxed);
        self.activity.under_way.store(false, Ordering::Relaxed);
        Box::pin(HeadSleep {
            activity: Arc::clone(&self.activity),
            quiet,
            timeout: duration,
            running: None,
        })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        *sleep = self.sleep_until(deadline);
    }
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let read = this.activity.read.load(Ordering::Relaxed);
        if this.running.is_none() && read == this.quiet {
            // hyper polls again after each read, so nothing needs to wake it here.
            return Poll::Pending;
        }
        let timeout = this.timeout;
        this.running
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)))
            .as_mut()
            .poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    async fn spoken(first: &[u8]) -> Option<(ClientProtocol, Vec<u8>)> {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(first).await.unwrap();
        client.shutdown().await.unwrap();
        let server = ApplicationStream::Unix(server);
        let mut first = BytesMut::new();
        let spoken = detect(&server, &mut first, &Arc::default())
            .await
            .unwrap()?;
        let mut connection = Connection::new(server, first, None);
        let mut seen = Vec::new();
        connection.read_to_end(&mut seen).await.unwrap();
        Some((spoken, seen))
    }

    #[tokio::test]
    async fn the_preface_tells_http2_and_every_byte_is_read_again() {
        let long = [PREFACE, b"frames"].concat();
        assert_eq!(
            spoken(&long).await,
            Some((ClientProtocol::Http2, long.clone()))
        );
        for text in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"POST",
            b"PUT / HTTP/1.1\r\n",
            b"\x16\x03\x01",
        ] {
            assert_eq!(
                spoken(text).await,
                Some((ClientProtocol::Http1, text.to_vec()))
            );
        }
        assert_eq!(spoken(b"").await, None);
        assert_eq!(spoken(b"PRI * H").await, None);
    }

    #[tokio::test]
    async fn a_preface_in_two_reads_tells_http2_whatever_comes_with_its_rest() {
        for cut in 1..PREFACE.len() {
            let (mut client, server) = UnixStream::pair().unwrap();
            let server = ApplicationStream::Unix(server);
            let (mut first, intake) = (BytesMut::new(), Arc::default());
            client.write_all(&PREFACE[..cut]).await.unwrap();
            let write = async {
                // The other side has read the first bytes by then.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                let rest = [&PREFACE[cut..], b"\0\0\0\x04\0\0\0\0\0"].concat();
                client.write_all(&rest).await.unwrap();
            };
            let (spoken, ()) = tokio::join!(detect(&server, &mut first, &intake), write);
            assert_eq!(spoken.unwrap(), Some(ClientProtocol::Http2), "{cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_head_timer_starts_with_the_first_byte_of_a_later_head() {
        let activity = Activity::new();
        let timer = HeadTimer {
            activity: Arc::clone(&activity),
            began: AtomicBool::new(true),
        };
        let mut sleep = timer.sleep(Duration::from_secs(10));
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, &mut sleep).await.is_err());
        activity.read.fetch_add(1, Ordering::Relaxed);
        let began = tokio::time::Instant::now();
        sleep.await;
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }
}
