//! The content of an answer as it comes: from a peer, or from outside of the mesh. What becomes of it is in
//! [`super::response_body`].

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use weft_transport::wire::RecvHalf;

use super::outside_body::OutsideBody;
use crate::failure::Failure;
use crate::http::body::Pump;
use crate::transport_failure::stream_failure;

/// The content of an answer, as it comes.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the common one: a box would be one more allocation per request"
)]
pub(crate) enum AnswerStream {
    /// From a peer.
    Peer(RecvHalf),
    /// From outside of the mesh.
    Outside(Box<OutsideBody>),
    /// None: the bytes of a tunnel that leads out of the mesh pass beside it.
    None,
}

impl Body for AnswerStream {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Self::Peer(recv) => Pin::new(recv)
                .poll_frame(cx)
                .map_err(|error| stream_failure(&error)),
            Self::Outside(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Peer(recv) => recv.is_end_stream(),
            Self::Outside(body) => body.is_end_stream(),
            Self::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Peer(recv) => recv.size_hint(),
            Self::Outside(body) => body.size_hint(),
            Self::None => SizeHint::with_exact(0),
        }
    }
}

/// Bytes of the request that were sent so far, by what sends them.
pub(super) fn sent(answer: &AnswerStream, pump: Option<&Pump>) -> Option<u64> {
    match answer {
        AnswerStream::Outside(body) => Some(body.sent()),
        AnswerStream::Peer(_) | AnswerStream::None => pump.map(Pump::moved),
    }
}
