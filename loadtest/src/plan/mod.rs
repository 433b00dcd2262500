//! The checked form of the flags of `weft load`. Pure; no value here is ever invalid.
//!
//! [`target`] reads URLs, [`rate`] rates and stages, [`expect`] the expected answer. [`Plan::check`] checks
//! rules across several of them. The [`engine`](crate::engine) runs a plan.

pub(crate) mod arrivals;
pub mod expect;
pub mod rate;
mod summary;
pub mod target;
pub mod url;

use std::sync::Arc;
use std::time::Duration;

use weft_transport::external::ExternalTls;

pub use self::arrivals::Arrival;
use self::expect::Expectations;
use self::target::{Message, Protocol, Targets, TcpPattern};
use crate::limits;
use crate::schedule::{Arrivals, Course, Schedule};

/// A run, from its first request to its last.
#[derive(Clone)]
pub struct Plan {
    /// Where requests go.
    pub targets: Targets,
    /// The content of its requests.
    pub message: Message,
    /// The times at which requests are sent.
    pub load: Load,
    /// Requests of this time at the beginning are sent but not counted.
    pub warm_up: Duration,
    /// A request that takes longer fails.
    pub deadline: Duration,
    /// How long requests that are open at the end may still take.
    pub grace: Duration,
    /// Makes random choices repeatable.
    pub seed: u64,
    /// Threads, each with its own connections.
    pub threads: usize,
    /// Whether connections are kept.
    pub reuse: Reuse,
    /// The conditions of a good answer.
    pub expectations: Expectations,
    /// The peers that TLS and QUIC trust, and the certificate that the client presents.
    pub tls: ExternalTls,
    /// How often the UDP socket of HTTP/3 is replaced under its connections.
    pub migrate_every: Option<Duration>,
}

/// When requests are sent.
#[derive(Clone, Debug)]
pub enum Load {
    /// At their time, whether earlier requests were answered or not, as users do.
    Open {
        /// The rate over time.
        course: Course,
        /// How arrivals are spread around it.
        arrivals: Arrivals,
        /// Ends the run earlier, after this many.
        requests: Option<u64>,
        /// Requests open at once; a request that is due beyond that is not sent, and fails.
        in_flight_max: usize,
        /// Connections open at once; requests wait for one. Without it, as many as are needed.
        connections: Option<usize>,
        /// Requests at once on a connection of HTTP/2 or HTTP/3.
        streams: usize,
    },
    /// At the times of a log, whether they are answered or not.
    Replay {
        /// The requests in order.
        arrivals: Arc<[Arrival]>,
        /// As in an open loop.
        in_flight_max: usize,
        /// As in an open loop.
        connections: Option<usize>,
        /// As in an open loop.
        streams: usize,
    },
    /// Each connection sends its next request after the answer to the last, as wrk does. A slow server then
    /// gets fewer requests, and the latency looks too good.
    Closed {
        /// Connections, all open all the time.
        connections: usize,
        /// Requests at once on a connection of HTTP/2 or HTTP/3.
        streams: usize,
        /// The condition under which the run ends.
        end: End,
    },
}

/// When a closed loop is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After this time.
    After(Duration),
    /// After this many requests.
    Requests(u64),
}

/// Whether a connection serves more than one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// As long as the peer allows.
    #[default]
    KeepAlive,
    /// A new one for each request.
    NewConnections,
}

impl Load {
    /// Requests at once on a connection of HTTP/2 or HTTP/3.
    pub(crate) fn streams(&self) -> usize {
        match self {
            Self::Open { streams, .. }
            | Self::Replay { streams, .. }
            | Self::Closed { streams, .. } => *streams,
        }
    }
}

impl Plan {
    /// Checks rules across several fields.
    ///
    /// # Errors
    /// A line that says which flag to change.
    pub fn check(&self) -> Result<(), String> {
        let in_range = |flag: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(format!("{flag} {value} is out of range: write 1 to {most}"))
        };
        in_range("--threads", self.threads, limits::THREADS_MAX)?;
        let (connections, streams) = match &self.load {
            Load::Open {
                in_flight_max,
                connections,
                streams,
                requests,
                ..
            } => {
                in_range("--max-in-flight", *in_flight_max, limits::IN_FLIGHT_MAX)?;
                if *requests == Some(0) {
                    return Err("--requests 0 would do nothing".to_owned());
                }
                (*connections, *streams)
            }
            Load::Replay {
                in_flight_max,
                connections,
                streams,
                ..
            } => {
                in_range("--max-in-flight", *in_flight_max, limits::IN_FLIGHT_MAX)?;
                if !self.warm_up.is_zero() {
                    return Err("--warm-up has no requests to send before a --replay".to_owned());
                }
                (*connections, *streams)
            }
            Load::Closed {
                connections,
                streams,
                end,
            } => {
                if *end == End::Requests(0) {
                    return Err("--requests 0 would do nothing".to_owned());
                }
                (Some(*connections), *streams)
            }
        };
        if let Some(connections) = connections {
            in_range("--connections", connections, limits::IN_FLIGHT_MAX)?;
        }
        in_range("--streams", streams, limits::STREAMS_MAX)?;
        if streams > 1 && !self.targets.protocol.is_multiplexed() {
            return Err("--streams goes with --http2, --http3 and gRPC: other protocols have one request at a time on a connection".to_owned());
        }
        let length = self.length().unwrap_or_default() + self.warm_up;
        if length.is_zero() && self.length().is_some() || length > limits::LENGTH_MAX {
            return Err(format!(
                "a run of {} s is out of range: it takes between 1 ms and 7 days",
                length.as_secs()
            ));
        }
        if self.migrate_every.is_some() && self.targets.protocol != Protocol::Http3 {
            return Err(
                "--migrate-every goes with --http3: other connections cannot move".to_owned(),
            );
        }
        if self.migrate_every.is_some_and(|every| every.is_zero()) {
            return Err(
                "--migrate-every 0s would do nothing else: write for example 1s".to_owned(),
            );
        }
        self.check_message()?;
        if self.deadline.is_zero() {
            return Err("--deadline 0s would fail every request".to_owned());
        }
        if self.reuse == Reuse::NewConnections
            && self.targets.protocol.is_multiplexed()
            && streams > 1
        {
            return Err(
                "--no-keep-alive has one request on each connection: leave --streams out"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Checks whether the protocol has what requests carry and answers must have: an ignored condition would
    /// look as if it had held.
    fn check_message(&self) -> Result<(), String> {
        let protocol = self.targets.protocol;
        let has_heads = protocol.is_http() || protocol == Protocol::Grpc;
        let expected = &self.expectations;
        let has_headers = !self.message.headers.is_empty() || !expected.headers.is_empty();
        if !has_heads && has_headers {
            return Err("-H and --expect-header go with HTTP and gRPC".to_owned());
        }
        if !has_heads && expected.ok.is_some() {
            return Err("--ok goes with HTTP and gRPC: TCP and UDP have no statuses".to_owned());
        }
        let has_body = match protocol {
            Protocol::Http1 | Protocol::Http2 | Protocol::Http3 | Protocol::Grpc => true,
            Protocol::Tcp(TcpPattern::Upload | TcpPattern::Download) => true,
            // The bytes that come back are compared with those sent.
            Protocol::Tcp(TcpPattern::Echo | TcpPattern::Connect) | Protocol::Udp => false,
        };
        if !has_body && expected.body_sha256.is_some() {
            return Err(
                "--expect-body-sha256 goes with HTTP, gRPC and --tcp upload or download".to_owned(),
            );
        }
        Ok(())
    }

    /// How long requests are sent after the warm-up, if a time says so.
    pub fn length(&self) -> Option<Duration> {
        match &self.load {
            Load::Open { course, .. } => Some(course.length()),
            // The last request is due in the run, not at its end.
            Load::Replay { arrivals, .. } => arrivals
                .last()
                .map(|last| last.at + Duration::from_millis(1)),
            Load::Closed { end, .. } => match end {
                End::After(length) => Some(*length),
                End::Requests(_) => None,
            },
        }
    }

    /// How long requests are due after the warm-up, if that is known before.
    pub(crate) fn measured(&self) -> Option<Duration> {
        let Load::Open {
            course,
            arrivals,
            requests: Some(requests),
            ..
        } = &self.load
        else {
            return self.length();
        };
        // Until the first request that is not sent any more would have been due.
        let mut moments = Schedule::new(course.clone(), *arrivals, self.seed);
        let end = usize::try_from(*requests)
            .ok()
            .and_then(|requests| moments.nth(requests));
        Some(end.unwrap_or(course.length()))
    }
}
