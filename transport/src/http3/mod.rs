//! HTTP/3 between sidecars: weft's own mapping of RFC 9114 onto QUIC streams.
//!
//! [`ClientConnection`] sends requests, [`ServerConnection`] takes them; both speak in
//! [`SendHalf`] and [`RecvHalf`], the two directions of one stream. A tunnel (CONNECT) is the
//! same two halves with bytes instead of a body.
//!
//! Not here: QUIC endpoints, TLS, connection reuse (the rest of this crate), and the meaning of a request
//! (`weft_proxy`). There is no dynamic QPACK table and no server push: the SETTINGS of both sides say so.
//!
//! The pure parts, which use no clock, socket or task: `varint`, `frame`, `qpack`, `message`, `control`,
//! `connection_core`, `settings`, `chunks`, `reset_guard`, `stopped_readers`. The rest is the shell that
//! moves bytes for them: `peer_streams` for the streams of the connection, `send` and `receive` for those of
//! an exchange.

mod chunks;
mod client;
mod code;
mod connection_core;
mod control;
mod frame;
mod limits;
mod message;
mod peer_streams;
mod qpack;
mod receive;
mod reset_guard;
mod send;
mod server;
mod settings;
mod shared;
mod stopped_readers;
mod turns;
mod varint;

#[cfg(test)]
mod tests;

pub use client::{ClientConnection, Driver, Reserved, ResponseHalf, UnprovenConnection};
pub(crate) use code::close_code;
#[cfg(any(test, feature = "testing"))]
pub(crate) use limits::FIELD_SECTION_SIZE;
#[cfg(any(test, feature = "testing"))]
pub(crate) use message::{
    BodyLength, MessageError, decode_request, decode_response, decode_trailers, encode_request,
    encode_response, encode_trailers, section,
};
pub use receive::RecvHalf;
pub use send::SendHalf;
pub use server::{Responder, ServerConnection, ServerRequest, UnprovenServerConnection};
