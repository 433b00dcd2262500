//! A connection of the application: told apart as HTTP/1.1 or HTTP/2 by its first bytes, and with a
//! timeout for request heads that leaves idle keep-alive connections alone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::ApplicationStream;

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.0 or 1.1, or something that its parser will refuse.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A connection whose first bytes were looked at and are read again.
pub(crate) struct Connection {
    stream: ApplicationStream,
    first: BytesMut,
    read: Arc<AtomicU64>,
}

/// Reads into `first` until the protocol is certain; `None` if the client closes before.
pub(crate) async fn detect(
    stream: &ApplicationStream,
    first: &mut BytesMut,
) -> io::Result<Option<Spoken>> {
    // No buffer before the first byte: idle connections are cheap.
    stream.readable().await?;
    loop {
        first.reserve(PREFACE.len());
        match stream.try_read(first) {
            Ok(0) => return Ok(None),
            Ok(_) if first[..] == *PREFACE => return Ok(Some(Spoken::Http2)),
            Ok(_) if !PREFACE.starts_with(first) => return Ok(Some(Spoken::Http1)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error),
        }
    }
}

impl Connection {
    /// A connection of which `first` was read.
    pub(crate) fn new(stream: ApplicationStream, first: BytesMut) -> Self {
        Self {
            stream,
            first,
            // Never 0, so that the timer of the first head knows that it has begun.
            read: Arc::new(AtomicU64::new(1)),
        }
    }

    /// The timer that hyper measures this connection's request heads with.
    pub(crate) fn timer(&self) -> HeadTimer {
        HeadTimer {
            read: Arc::clone(&self.read),
            began: AtomicU64::new(0),
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
            buffer.put_slice(&this.first.split_to(count));
            return Poll::Ready(Ok(()));
        }
        this.first = BytesMut::new();
        let outcome = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        this.read.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// hyper starts its head timer as soon as it waits for a request, which would close idle keep-alive
/// connections. This one starts when the first byte of the head has come.
#[derive(Debug)]
pub(crate) struct HeadTimer {
    read: Arc<AtomicU64>,
    /// The count of reads at which the first timer was made; the first head has begun by then.
    began: AtomicU64,
}

/// See [`HeadTimer`].
struct HeadSleep {
    read: Arc<AtomicU64>,
    quiet: u64,
    timeout: Duration,
    running: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        // The first head has begun already: its first bytes told the protocol.
        let quiet = if self.began.swap(1, Ordering::Relaxed) == 0 {
            0
        } else {
            self.read.load(Ordering::Relaxed)
        };
        Box::pin(HeadSleep {
            read: Arc::clone(&self.read),
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
        if this.running.is_none() && this.read.load(Ordering::Relaxed) == this.quiet {
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

    async fn spoken(first: &[u8]) -> Option<(Spoken, Vec<u8>)> {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(first).await.unwrap();
        client.shutdown().await.unwrap();
        let server = ApplicationStream::Unix(server);
        let mut first = BytesMut::new();
        let spoken = detect(&server, &mut first).await.unwrap()?;
        let mut connection = Connection::new(server, first);
        let mut seen = Vec::new();
        connection.read_to_end(&mut seen).await.unwrap();
        Some((spoken, seen))
    }

    #[tokio::test]
    async fn the_preface_tells_http2_and_every_byte_is_read_again() {
        let long = [PREFACE, b"frames"].concat();
        assert_eq!(spoken(&long).await, Some((Spoken::Http2, long.clone())));
        for text in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"POST",
            b"PUT / HTTP/1.1\r\n",
            b"\x16\x03\x01",
        ] {
            assert_eq!(spoken(text).await, Some((Spoken::Http1, text.to_vec())));
        }
        assert_eq!(spoken(b"").await, None);
        assert_eq!(spoken(b"PRI * H").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_head_timer_starts_with_the_first_byte_of_a_later_head() {
        let read = Arc::new(AtomicU64::new(1));
        let timer = HeadTimer {
            read: Arc::clone(&read),
            began: AtomicU64::new(1),
        };
        let mut sleep = timer.sleep(Duration::from_secs(10));
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, &mut sleep).await.is_err());
        read.fetch_add(1, Ordering::Relaxed);
        let began = tokio::time::Instant::now();
        sleep.await;
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }
}
