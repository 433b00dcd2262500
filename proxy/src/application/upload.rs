//! The body of a request on its way into a stream of HTTP/2.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body as _;

use super::body::OutgoingBody;
use crate::failure::Failure;
use crate::transport_failure::stream_failure;

/// One body, until all of it is handed over or no more of it is wanted. Dropping it earlier cancels its
/// stream.
pub(crate) struct Uploading {
    body: OutgoingBody,
    stream: SendStream<Bytes>,
    /// Read, and waiting for room in the stream's window; the flag marks the last piece.
    piece: Option<(Bytes, bool)>,
}

impl Uploading {
    pub(super) fn new(body: OutgoingBody, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            piece: None,
        }
    }

    /// Sends as much as the window allows. Ready when no work is left. If the application wants no more of
    /// the body, its response tells.
    ///
    /// # Errors
    /// When the caller broke off.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Some((piece, last)) = self.piece.take() {
                // One byte of the window is enough to hand a whole piece to h2, which asks for the rest.
                // Reserving room for all of it would take that room from other streams of the connection.
                self.stream.reserve_capacity(1);
                while self.stream.capacity() == 0 && !piece.is_empty() {
                    match self.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Ok(())),
                        Poll::Pending => {
                            self.piece = Some((piece, last));
                            return Poll::Pending;
                        }
                    }
                }
                if self.stream.send_data(piece, last).is_err() || last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.piece = Some((data, self.body.is_end_stream())),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        let _ = self.stream.send_trailers(trailers);
                        return Poll::Ready(Ok(()));
                    }
                },
                Some(Err(error)) => {
                    self.stream.send_reset(h2::Reason::CANCEL);
                    return Poll::Ready(Err(stream_failure(&error)));
                }
                None => self.piece = Some((Bytes::new(), true)),
            }
        }
    }
}

/// Sends the rest of a body, if there is any, while `work` is under way; afterwards the rest is no longer
/// wanted. `work` is borrowed as in [`crate::idle::while_moving`].
pub(crate) async fn while_uploading<T, F>(
    mut upload: Option<Uploading>,
    mut work: Pin<&mut F>,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    std::future::poll_fn(|cx| {
        if let Err(failure) = poll_upload(&mut upload, cx) {
            return Poll::Ready(Err(failure));
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// Moves a body on, if there is one.
pub(crate) fn poll_upload(
    upload: &mut Option<Uploading>,
    cx: &mut Context<'_>,
) -> Result<(), Failure> {
    if let Some(uploading) = upload
        && let Poll::Ready(outcome) = uploading.poll(cx)
    {
        *upload = None;
        return outcome;
    }
    Ok(())
}
