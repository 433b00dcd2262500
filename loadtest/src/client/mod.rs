//! How a request travels: one module for each protocol, with the same two things in it. A `Client` is what
//! all requests share and never changes; a [`Lane`] is room for one request at a time. A lane of HTTP/1.1
//! is a connection; several lanes of HTTP/2 or HTTP/3 share one.
//!
//! Not here: when a request is sent and on which lane ([`crate::engine`]).

pub(crate) mod dial;
mod http1;
mod judge;

use std::io;
use std::sync::Arc;

use self::dial::Dial;
use crate::clock::Clock;
use crate::plan::Plan;
use crate::plan::target::Protocol;
use crate::sample::{ErrorKind, Outcome, Sample};

/// What requests say about who sends them.
const USER_AGENT: &str = concat!("weft-load/", env!("CARGO_PKG_VERSION"));

/// What the requests of a run share.
#[derive(Clone)]
pub(crate) enum Client {
    Http1(Arc<http1::Client>),
}

/// Room for one request at a time.
pub(crate) enum Lane {
    Http1(http1::Lane),
}

impl Client {
    /// Formats the requests of a plan.
    pub(crate) fn new(plan: &Plan, dial: Dial) -> Result<Self, String> {
        match plan.targets.protocol {
            Protocol::Http1 => Ok(Self::Http1(Arc::new(http1::Client::new(plan, dial)))),
            Protocol::Http2
            | Protocol::Http3
            | Protocol::Grpc
            | Protocol::Tcp(_)
            | Protocol::Udp => Err("this protocol cannot be generated yet".to_owned()),
        }
    }

    /// Makes lane `number` of a thread.
    pub(crate) fn lane(&self, _number: usize) -> Lane {
        match self {
            Self::Http1(client) => Lane::Http1(http1::Lane::new(Arc::clone(client))),
        }
    }
}

impl Lane {
    /// Sends the request of a target and waits for its answer; `sample` gets the times and sizes
    /// on the way, so that they are there even if this is dropped before its end.
    pub(crate) async fn exchange(
        &mut self,
        target: usize,
        clock: Clock,
        sample: &mut Sample,
    ) -> Outcome {
        let result = match self {
            Self::Http1(lane) => lane.exchange(target, clock, sample).await,
        };
        result.unwrap_or_else(Outcome::Failure)
    }
}

/// What an error on an open connection means.
fn kind_of(error: &io::Error) -> ErrorKind {
    use io::ErrorKind as E;
    let kind = error.kind();
    let reset = [E::ConnectionReset, E::ConnectionAborted, E::BrokenPipe];
    if reset.contains(&kind) {
        ErrorKind::Reset
    } else if kind == E::UnexpectedEof {
        ErrorKind::Closed
    } else {
        ErrorKind::Io
    }
}

/// What an error on the way to a connection means.
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
