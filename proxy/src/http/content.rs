//! The content of a request of the application, and what becomes of it once it is read no more.
//!
//! Over HTTP/2 the end of a request may come in a frame of its own, behind the last byte of the declared
//! length. The destination has all of the request by then and may have answered it. A stream that is reset in
//! that moment is a failed request to some client libraries, although its answer is whole. So the stream is
//! left to its client for a moment more. [`crate::outbound`] takes the content; [`super::upload`] reads it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use weft_transport::alone::alone;
use weft_transport::tasks::Tasks;

use crate::limits;

/// See the module.
pub(crate) struct Content {
    /// None only while it is dropped.
    incoming: Option<Incoming>,
    /// Of the worker.
    tasks: Tasks,
}

impl Content {
    /// What comes, and where its end is waited for.
    pub(crate) fn new(incoming: Incoming, tasks: Tasks) -> Self {
        Self {
            incoming: Some(incoming),
            tasks,
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let Some(mut incoming) = self.incoming.take() else {
            return;
        };
        // Content that is not all here was answered early, and its client is told to stop.
        if incoming.is_end_stream() || incoming.size_hint().exact() != Some(0) {
            return;
        }
        let end = async move {
            // Empty frames may come before it.
            let read = async {
                while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
                }
            };
            //= https://www.rfc-editor.org/rfc/rfc9113#section-8.1
            //# When this is true, a server MAY request that the client abort transmission of a request
            //# without error by sending a RST_STREAM with an error code of NO_ERROR after sending a
            //# complete response (i.e., a frame with the END_STREAM flag set).
            let _ = tokio::time::timeout(limits::LATE_END, read).await;
        };
        self.tasks.spawn(alone("the end of a request", end));
    }
}
