//! Whether an application speaks HTTP/2: its first frame on a connection is then SETTINGS (RFC 9113 section
//! 3.4). That frame also says how many streams it allows, so the result is known only once the frame was read
//! whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// What the first bytes from an application show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// A frame of SETTINGS.
    Http2,
    /// Something else, or the end.
    Other,
}

/// A stream whose first bytes are looked at as they are read.
pub(super) struct Greeted<S> {
    stream: S,
    /// The header of the first frame, as far as it came.
    first: Vec<u8>,
    /// Bytes that were read.
    read: usize,
    told: Option<oneshot::Sender<Greeting>>,
}

/// Waits for the greeting.
pub(super) struct Listener(oneshot::Receiver<Greeting>);

/// Bytes of a frame's header (RFC 9113 section 4.1): length (3), type, flags, stream (4).
const HEADER_LENGTH: usize = 9;

/// The type of SETTINGS (RFC 9113 section 6.5), which is not an acknowledgement, on stream 0.
const SETTINGS: [u8; 6] = [4, 0, 0, 0, 0, 0];

/// `None` while too little is there: of the header, `first`, or of all bytes, `read`.
fn judge(first: &[u8], read: usize) -> Option<Greeting> {
    let header = first.get(..HEADER_LENGTH)?;
    let (length, rest) = header.split_at(3);
    if rest != SETTINGS {
        return Some(Greeting::Other);
    }
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    (read >= HEADER_LENGTH + length).then_some(Greeting::Http2)
}

impl<S> Greeted<S> {
    /// The stream, and a handle that learns of its greeting.
    pub(super) fn new(stream: S) -> (Self, Listener) {
        let (told, heard) = oneshot::channel();
        let greeted = Self {
            stream,
            first: Vec::with_capacity(HEADER_LENGTH),
            read: 0,
            told: Some(told),
        };
        (greeted, Listener(heard))
    }

    fn look(&mut self, read: &[u8]) {
        if self.told.is_none() {
            return;
        }
        let missing = HEADER_LENGTH - self.first.len();
        self.first.extend(read.iter().take(missing));
        self.read += read.len();
        let greeting = if read.is_empty() {
            Some(Greeting::Other)
        } else {
            judge(&self.first, self.read)
        };
        if let Some(greeting) = greeting
            && let Some(told) = self.told.take()
        {
            // The listener is gone if the caller is.
            let _ = told.send(greeting);
        }
    }
}

impl Listener {
    /// The application's greeting. A stream that is dropped before it has none.
    pub(super) async fn heard(self) -> Greeting {
        self.0.await.unwrap_or(Greeting::Other)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.look(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn greeting(pieces: &[&[u8]]) -> Greeting {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut stream, listener) = Greeted::new(near);
        for piece in pieces {
            far.write_all(piece).await.unwrap();
            let mut read = vec![0; piece.len()];
            stream.read_exact(&mut read).await.unwrap();
            assert_eq!(read, *piece);
        }
        drop(far);
        let _ = stream.read_u8().await;
        listener.heard().await
    }

    #[tokio::test]
    async fn settings_are_recognised_in_whatever_pieces_they_come() {
        let settings: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        assert_eq!(greeting(&[settings]).await, Greeting::Http2);
        assert_eq!(
            greeting(&[&settings[..3], &settings[3..]]).await,
            Greeting::Http2
        );
        assert_eq!(greeting(&[&settings[..12]]).await, Greeting::Other);
        let acknowledgement: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
        for other in [
            b"HTTP/1.1 400 Bad Request",
            acknowledgement,
            &settings[..5],
            b"",
        ] {
            assert_eq!(greeting(&[other]).await, Greeting::Other, "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_has_said_nothing() {
        let (stream, listener) = Greeted::new(tokio::io::duplex(1).0);
        drop(stream);
        assert_eq!(listener.heard().await, Greeting::Other);
    }
}
