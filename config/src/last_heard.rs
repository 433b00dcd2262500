//! When the other end of a connection last sent anything. Keep-alives count like messages: in a mesh in which
//! nothing changes, only keep-alives come for hours.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The time of the last byte. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastHeard {
    /// Seconds since the Unix epoch; 0 before the first byte.
    at: Arc<AtomicI64>,
}

impl LastHeard {
    /// `None` before the first byte.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        match self.at.load(Ordering::Relaxed) {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        }
    }

    fn now(&self) {
        let seconds = Timestamp::now().as_second();
        self.at.store(seconds, Ordering::Relaxed);
    }
}

/// A stream that notes when bytes were read from it.
#[derive(Debug)]
pub(crate) struct TrackedStream<S> {
    inner: S,
    last_heard: LastHeard,
}

impl<S> TrackedStream<S> {
    pub(crate) fn new(inner: S, last_heard: LastHeard) -> Self {
        Self { inner, last_heard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.last_heard.now();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn only_bytes_that_are_read_count_as_heard() {
        let last_heard = LastHeard::default();
        let (near, mut far) = duplex(16);
        let mut near = TrackedStream::new(near, last_heard.clone());
        near.write_all(b"hello").await.unwrap();
        assert_eq!(last_heard.last(), None);
        far.write_all(b"!").await.unwrap();
        let before = Timestamp::now().as_second();
        near.read_u8().await.unwrap();
        assert!(last_heard.last().unwrap().as_second() >= before);
    }
}
