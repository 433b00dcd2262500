//! The protocols that carry a request: one module for each, each with the same two types. A `Client` has the
//! values that all requests share and that never change; a [`Lane`] carries one request at a time. A lane of
//! HTTP/1.1 is a connection; several lanes of HTTP/2 or HTTP/3 share one.
//!
//! Requests that a server reports as not processed are sent again here, a few times ([`lost`] decides which).
//! A client that counted them as failed would blame the server for a connection that ends as the protocol
//! intends.
//!
//! Not here: when a request is sent and on which lane ([`crate::engine`]).

pub(crate) mod dial;
mod group;
mod http1;
mod http2;
pub(crate) mod http3;
mod judge;
mod lost;
mod tcp;
pub(crate) mod udp;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use weft_transport::external::ExternalError;

use self::dial::Dial;
use self::lost::Lost;
use crate::clock::Clock;
use crate::limits;
use crate::plan::Plan;
use crate::plan::target::Protocol;
use crate::sample::{ErrorKind, Outcome, Sample};

/// The name under which requests are sent.
const USER_AGENT: &str = concat!("weft-load/", env!("CARGO_PKG_VERSION"));

/// The values that the requests of a run share.
pub(crate) enum Client {
    Http1(Arc<http1::Client>),
    Http2(Arc<http2::Client>, usize),
    Http3(Arc<http3::Client>),
    Tcp(Arc<tcp::Client>),
    Udp(Arc<udp::Client>),
}

/// Makes the lanes of one thread.
pub(crate) enum Maker {
    Http1(Arc<http1::Client>),
    Http2(http2::Maker),
    Http3(http3::Maker),
    Tcp(Arc<tcp::Client>),
    Udp(Arc<udp::Client>),
}

/// Carries one request at a time.
pub(crate) enum Lane {
    Http1(http1::Lane),
    Http2(http2::Lane),
    Http3(http3::Lane),
    Tcp(tcp::Lane),
    Udp(udp::Lane),
}

impl Client {
    /// Formats the requests of a plan.
    pub(crate) fn new(plan: &Plan, dial: Dial) -> Result<Self, ExternalError> {
        Ok(match plan.targets.protocol {
            Protocol::Http1 => Self::Http1(Arc::new(http1::Client::new(plan, dial))),
            Protocol::Http2 | Protocol::Grpc => {
                let client = http2::Client::new(plan, dial);
                Self::Http2(Arc::new(client), plan.load.streams())
            }
            Protocol::Http3 => Self::Http3(Arc::new(http3::Client::new(plan, dial)?)),
            Protocol::Tcp(pattern) => Self::Tcp(Arc::new(tcp::Client::new(plan, dial, pattern))),
            Protocol::Udp => Self::Udp(Arc::new(udp::Client::new(plan, dial))),
        })
    }

    /// The maker of a thread's lanes.
    pub(crate) fn maker(&self) -> Maker {
        match self {
            Self::Http1(client) => Maker::Http1(Arc::clone(client)),
            Self::Http2(client, streams) => {
                Maker::Http2(http2::Maker::new(Arc::clone(client), *streams))
            }
            Self::Http3(client) => Maker::Http3(http3::Maker::new(Arc::clone(client))),
            Self::Tcp(client) => Maker::Tcp(Arc::clone(client)),
            Self::Udp(client) => Maker::Udp(Arc::clone(client)),
        }
    }
}

impl Maker {
    /// Another lane.
    pub(crate) fn lane(&mut self) -> Lane {
        match self {
            Self::Http1(client) => Lane::Http1(http1::Lane::new(Arc::clone(client))),
            Self::Http2(maker) => Lane::Http2(maker.lane()),
            Self::Http3(maker) => Lane::Http3(maker.lane()),
            Self::Tcp(client) => Lane::Tcp(tcp::Lane::new(Arc::clone(client))),
            Self::Udp(client) => Lane::Udp(udp::Lane::new(Arc::clone(client))),
        }
    }
}

impl Lane {
    /// Whether a request needs no new connection.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::Http1(lane) => lane.is_connected(),
            Self::Tcp(lane) => lane.is_connected(),
            // Several share one, and a datagram needs none.
            Self::Http2(_) | Self::Http3(_) | Self::Udp(_) => true,
        }
    }

    /// Sends the request of a target and waits for its answer, again if the server did not process it.
    /// `sample` gets times and sizes as they become known, so that it has them even if this future is dropped
    /// early.
    pub(crate) async fn exchange(
        &mut self,
        target: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Outcome {
        loop {
            match self.attempt(target, clock, sample).await {
                Ok(outcome) => return outcome,
                Err(Lost::Unprocessed(_)) if sample.resent < limits::RESENDS_MAX => {
                    sample.resend(clock.now());
                }
                Err(Lost::Unprocessed(kind) | Lost::Final(kind)) => return Outcome::Failure(kind),
            }
        }
    }

    async fn attempt(
        &mut self,
        target: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Result<Outcome, Lost> {
        Ok(match self {
            Self::Http1(lane) => lane.exchange(target, clock, sample).await?,
            Self::Http2(lane) => lane.exchange(target, clock, sample).await?,
            Self::Http3(lane) => lane.exchange(target, clock, sample).await?,
            Self::Tcp(lane) => lane.exchange(target, clock, sample).await?,
            Self::Udp(lane) => lane.exchange(target, clock, sample).await?,
        })
    }
}

/// The bytes that TCP and UDP send: the data, or a default if there are none.
fn payload(data: &Bytes) -> Bytes {
    if data.is_empty() {
        return Bytes::from_static(&[b'w'; limits::PAYLOAD]);
    }
    data.clone()
}

/// The failure for an error on an open connection.
fn kind_of(error: &io::Error) -> ErrorKind {
    use io::ErrorKind as E;
    let kind = error.kind();
    let reset = [E::ConnectionReset, E::ConnectionAborted, E::BrokenPipe];
    if reset.contains(&kind) {
        ErrorKind::Reset
    } else if kind == E::UnexpectedEof {
        ErrorKind::Closed
    } else if kind == E::InvalidData {
        // Only the TLS library reports errors of records and alerts; sockets never do. In TLS 1.3 a client
        // learns only with the first answer that its certificate was refused.
        ErrorKind::Tls
    } else {
        ErrorKind::Io
    }
}

/// The failure for an error while connecting.
fn kind_of_connect(error: &io::Error) -> ErrorKind {
    let kind = error.kind();
    if kind == io::ErrorKind::ConnectionRefused {
        ErrorKind::ConnectRefused
    } else if kind == io::ErrorKind::TimedOut {
        ErrorKind::ConnectTimeout
    } else {
        ErrorKind::ConnectFailed
    }
}
