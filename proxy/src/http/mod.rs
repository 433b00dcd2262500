//! The message rules where HTTP versions meet: which request is accepted, which fields cross, what the
//! mesh adds. All of it is pure except [`body`], which is polled and does no IO of its own.
//!
//! Start with [`authority`] (which service the request is for), then [`fields`] (which fields pass), [`path`]
//! (which paths a policy can judge), [`answer`] (the mesh's own answers) and [`body`] (how bodies stream).

pub(crate) mod answer;
pub(crate) mod authority;
pub(crate) mod body;
pub(crate) mod content;
pub(crate) mod fields;
pub(crate) mod path;
#[cfg(test)]
pub(crate) mod reference_tests;
pub(crate) mod request_id;
pub(crate) mod response;
pub(crate) mod traceparent;
pub(crate) mod upload;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Whether a request is gRPC: its content type is `application/grpc`, plain or with a suffix.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// Whether a response is a stream of server-sent events, which lasts until its reader ends it.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}
