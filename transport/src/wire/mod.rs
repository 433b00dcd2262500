//! The wire between two sidecars, as the rest of weft sees it: connections to proven peers, exchanges on
//! them, and their errors in terms of HTTP.
//!
//! Each type here is an enum with one variant for each wire. A call is one match, which costs nothing if a
//! program has one wire; there is no trait object, and no future is boxed for it. The methods here define
//! what a wire must offer, so a wire that lacks something does not compile:
//!
//! | here | what it is | file |
//! |---|---|---|
//! | [`Dialler`], [`ClientConnection`], [`Reserved`], [`ResponseHalf`] | the calling side | `client.rs` |
//! | [`Port`] | where both sides of a worker begin | `port.rs` |
//! | [`Listener`], [`ServerConnection`], [`ServerRequest`], [`Responder`] | the serving side | `server.rs` |
//! | [`SendHalf`], [`RecvHalf`] | the two directions of an exchange, for both sides | `halves.rs` |
//! | [`DialError`], [`HandshakeError`], [`OpenError`], [`ReceiveError`], [`SendError`], [`ConnectionError`], [`Reason`] | errors, by direction | `../error.rs` |
//!
//! The wires: HTTP/3 ([`crate::http3`]), and one in memory for tests (`memory/`). Behind this interface stand
//! the pool and its watch over silent peers ([`crate::pool`]), and the drain. Not here: which peer a request
//! goes to, and what it means (`weft_proxy`).
//!
//! Datagrams have no type yet, because no code sends any. They belong in a pair of halves beside [`SendHalf`]
//! and [`RecvHalf`], made by [`Reserved`] and [`ServerRequest`]: HTTP Datagrams belong to the exchange that
//! opened them (RFC 9297 section 2), are dropped if they do not fit or are too many, and never wait.

/// Does the same on any wire.
macro_rules! on {
    ($wire:expr, $it:ident => $do:expr) => {
        match $wire {
            Self::Http3($it) => $do,
            #[cfg(any(test, feature = "testing"))]
            Self::Memory($it) => $do,
        }
    };
}

/// As [`on`], for async calls. It is not an async function, whose future would hold the arguments twice.
#[cfg(not(any(test, feature = "testing")))]
macro_rules! later {
    ($wire:expr, $it:ident => $do:expr) => {
        match $wire {
            Self::Http3($it) => $do,
        }
    };
}

/// The same with the wire of tests, which may be slow: so its futures are boxed, and those of the others stay
/// small.
#[cfg(any(test, feature = "testing"))]
macro_rules! later {
    ($wire:expr, $it:ident => $do:expr) => {
        match $wire {
            Self::Http3($it) => futures_util::future::Either::<_, super::Boxed<'_, _>>::Left($do),
            Self::Memory($it) => {
                futures_util::future::Either::<_, super::Boxed<'_, _>>::Right(Box::pin($do))
            }
        }
    };
}

#[cfg(any(test, feature = "testing"))]
type Boxed<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

mod client;
mod halves;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod port;
mod server;
#[cfg(test)]
mod tests;

pub use crate::error::{
    ConnectionError, DialError, HandshakeError, HeadError, OpenError, Reason, ReceiveError,
    SendError, TurnedAway, Unprocessed,
};
pub use crate::status::ConnectionStatus;
pub use client::{ClientConnection, Dialler, Driver, Reserved, ResponseHalf};
pub use halves::{RecvHalf, SendHalf};
pub use port::Port;
pub use server::{
    Accepted, Incoming, Listener, Responder, ServerConnection, ServerRequest, TrustGuard,
};
