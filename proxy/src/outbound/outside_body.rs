//! An answer that comes by the client of applications and goes to a client of this sidecar: from outside of
//! the mesh to the application, or from the application to a caller without mutual TLS. With it the rest of
//! the request, which may still be under way. Its connection is used again once all of it was read. It ends
//! when the policies come to forbid the call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use weft_transport::alone::alone;
use weft_transport::tasks::Tasks;

use crate::application::body::Moved;
use crate::application::{AnswerBody, Lease, Uploading, poll_upload};
use crate::failure::{Failure, Reason};
use crate::http::fields;
use crate::http::response::ConnectionReuse;

/// See the module's documentation.
pub(crate) struct OutsideBody {
    body: AnswerBody,
    upload: Option<Uploading>,
    moved: Arc<Moved>,
    /// The connection, and the worker that returns it.
    lease: Option<(Lease, Tasks)>,
    /// The answer has no content, whatever comes.
    bodiless: bool,
    afterwards: ConnectionReuse,
    /// What ends it before its time.
    ended: Option<Ended>,
}

/// Done when the answer has to end early; it returns the reason. It also owns what must live as long as the
/// answer, such as its place among the calls under way.
pub(crate) type Ended = Pin<Box<dyn Future<Output = Failure> + Send>>;

impl OutsideBody {
    /// The body of an answer whose head was checked, with this result.
    pub(crate) fn new(
        body: AnswerBody,
        upload: Option<Uploading>,
        moved: Arc<Moved>,
        lease: (Lease, Tasks),
        (bodiless, afterwards): (bool, ConnectionReuse),
    ) -> Self {
        Self {
            body,
            upload,
            moved,
            lease: Some(lease),
            bodiless,
            afterwards,
            ended: None,
        }
    }

    /// Ends when this is done, if it has not ended before.
    pub(crate) fn until(mut self, ended: Ended) -> Self {
        self.ended = Some(ended);
        self
    }

    /// Bytes of the request that were handed on.
    pub(crate) fn sent(&self) -> u64 {
        self.moved.sent.load(Ordering::Relaxed)
    }

    fn broken(&mut self) -> Failure {
        self.lease = None;
        let detail = "the response broke off";
        self.body
            .take_failure()
            .unwrap_or_else(|| Failure::new(Reason::ConnectionTerminated, detail))
    }
}

impl Body for OutsideBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        if let Some(ended) = &mut this.ended
            && let Poll::Ready(failure) = ended.as_mut().poll(cx)
        {
            (this.ended, this.lease) = (None, None);
            return Poll::Ready(Some(Err(failure)));
        }
        if let Err(failure) = poll_upload(&mut this.upload, cx) {
            this.lease = None;
            return Poll::Ready(Some(Err(failure)));
        }
        if this.bodiless {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Some(Err(this.broken()))),
        };
        let frame = match frame.into_trailers() {
            Ok(mut trailers) => {
                // What the mesh says in trailers is not for others to say.
                this.afterwards = this.afterwards.behind(Some(&trailers));
                fields::strip_trailers(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.bodiless || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.bodiless {
            true => SizeHint::with_exact(0),
            false => self.body.size_hint(),
        }
    }
}

impl Drop for OutsideBody {
    fn drop(&mut self) {
        let Some((lease, tasks)) = self.lease.take() else {
            return;
        };
        let whole = self.is_end_stream() && self.upload.is_none();
        if whole && self.afterwards == ConnectionReuse::Lives && self.moved.leaves_no_doubt() {
            tasks.spawn(alone("returning a connection", lease.give_back()));
        }
    }
}
