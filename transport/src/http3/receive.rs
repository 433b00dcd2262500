//! The receiving half of a stream (signatures first, the body follows).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::error::{ErrorCode, StreamError};

/// The receiving half of an exchange: a body with trailers, or one direction of a tunnel.
///
/// Dropped before its end it tells the peer to stop sending (`H3_REQUEST_CANCELLED`).
pub struct RecvHalf {
    _private: (),
}

impl RecvHalf {
    /// Appends received payload to `chunks`, many at once; returns how many were appended.
    ///
    /// `0` is the clean end (FIN); a reset is [`StreamError::Reset`] with its code. For tunnels:
    /// trailers are an error here.
    pub fn poll_chunks(
        &mut self,
        _cx: &mut Context<'_>,
        _chunks: &mut Vec<Bytes>,
    ) -> Poll<Result<usize, StreamError>> {
        unimplemented!()
    }

    /// Tells the peer to stop sending, with a code of the caller's choice.
    ///
    /// `H3_NO_ERROR` is for a server whose response is complete without the rest of the request.
    pub fn stop(self, _code: ErrorCode) {
        unimplemented!()
    }
}

impl Body for RecvHalf {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        unimplemented!()
    }

    fn is_end_stream(&self) -> bool {
        unimplemented!()
    }

    fn size_hint(&self) -> SizeHint {
        unimplemented!()
    }
}
