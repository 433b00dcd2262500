//! When the other end of a connection was heard last: whatever it sends counts, a keep-alive as much as
//! a message, because a mesh in which nothing changes sends nothing else for hours.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The time of the last byte. Clones are of one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Seconds since the Unix epoch; 0 before the first byte.
    at: Arc<AtomicI64>,
}

impl Heard {
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

/// A stream that notes when something was read from it.
#[derive(Debug)]
pub(crate) struct Listening<S> {
    inner: S,
    heard: Heard,
}

impl<S> Listening<S> {
    pub(crate) fn new(inner: S, heard: Heard) -> Self {
        Self { inner, heard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.heard.now();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
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
    async fn only_what_is_read_counts_as_heard() {
        let heard = Heard::default();
        let (near, mut far) = duplex(16);
        let mut near = Listening::new(near, heard.clone());
        near.write_all(b"hello").await.unwrap();
        assert_eq!(heard.last(), None);
        far.write_all(b"!").await.unwrap();
        let before = Timestamp::now().as_second();
        near.read_u8().await.unwrap();
        assert!(heard.last().unwrap().as_second() >= before);
    }
}
