//! A stream that is read to its end even after writes have failed.
//!
//! An application may answer before it has read the request, and close. Then a write fails while the answer
//! (or a GOAWAY) still waits to be read. hyper and h2 give up a connection at the first write that fails. So
//! this stream holds the failure back until reading has ended, too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module's documentation.
pub(super) struct ReadToEnd<S> {
    stream: S,
    /// Why writes fail.
    write_error: Option<io::ErrorKind>,
    /// Nothing more comes.
    ended: bool,
    write_failed: WriteFailed,
}

/// Tells whether the other end has stopped taking writes.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteFailed(Arc<AtomicBool>);

impl WriteFailed {
    /// Whether a write failed.
    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> ReadToEnd<S> {
    /// The stream, and a handle that tells whether writes have failed.
    pub(super) fn new(stream: S) -> (Self, WriteFailed) {
        let write_failed = WriteFailed::default();
        let reading = Self {
            stream,
            write_error: None,
            ended: false,
            write_failed: write_failed.clone(),
        };
        (reading, write_failed)
    }

    /// Holds a failed write back while there may be bytes to read; a read that ends wakes the same task.
    fn hold<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if is_gone(error.kind()) => {
                self.write_error = Some(error.kind());
                self.write_failed.0.store(true, Ordering::Relaxed);
                if self.ended {
                    Poll::Ready(Err(error))
                } else {
                    Poll::Pending
                }
            }
            other @ (Poll::Ready(_) | Poll::Pending) => other,
        }
    }

    /// The result of a write that is not tried any more.
    fn refusal<T>(&self) -> Option<Poll<io::Result<T>>> {
        let kind = self.write_error?;
        Some(if self.ended {
            Poll::Ready(Err(kind.into()))
        } else {
            Poll::Pending
        })
    }
}

/// The other end does not read any more.
fn is_gone(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadToEnd<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let ended = match &read {
            Poll::Ready(Ok(())) => buffer.filled().len() == before && buffer.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        this.ended |= ended;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadToEnd<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(refusal) = this.refusal() {
            return refusal;
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.hold(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(refusal) = this.refusal() {
            return refusal;
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.hold(written)
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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_was_said_before_the_end_is_read_although_writing_fails() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut stream, write_error) = ReadToEnd::new(near);
        far.write_all(b"413").await.unwrap();
        drop(far);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(pin!(&mut stream).poll_write(&mut cx, b"body").is_pending());
        assert!(write_error.is());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "413");
        // Now the failure is reported.
        let failed = stream.write(b"body").await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::BrokenPipe);
    }
}
