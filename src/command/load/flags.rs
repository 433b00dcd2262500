//! The flags of `weft load URL...`, and the plan that they describe.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weft_loadtest::limits;
use weft_loadtest::plan::expect::{Expectations, Statuses, parse_expected_header, parse_sha256};
use weft_loadtest::plan::rate::{parse_rate, parse_stage, parse_stages};
use weft_loadtest::plan::target::{Message, Protocol, Targets, TcpPattern, Version, parse_header};
use weft_loadtest::plan::{End, Load, Plan, Reuse};
use weft_loadtest::schedule::{Arrivals, Course, Stage};
use weft_transport::identity::SpiffeId;
use weft_transport::units::{parse_bytes, parse_duration};

use super::asked::Asked;
use super::replay::{self, Side};
use super::tls::TlsFiles;
use crate::failure::{Code, Failure};

/// The requests: content, target and times.
#[derive(Debug, Args)]
pub struct Flags {
    /// Where to: http, https, grpc, grpcs, tcp or udp; with a weight as in 3@http://host/path
    #[arg(value_name = "URL", required = true)]
    targets: Vec<String>,

    /// Requests per second (open loop)
    #[arg(short = 'R', short_alias = 'q', long, value_name = "N", value_parser = parse_rate, help_heading = WHEN)]
    rate: Option<f64>,
    /// A rate that changes evenly, as 100:5000:60s
    #[arg(long, value_name = "FROM:TO:LENGTH", value_parser = parse_stage, conflicts_with_all = ["rate", "duration"], help_heading = WHEN)]
    ramp: Option<Stage>,
    /// A file with one FROM:TO:LENGTH on each line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "ramp", "duration"], help_heading = WHEN)]
    stages: Option<PathBuf>,
    /// How requests are spread around the rate
    #[arg(long, value_enum, default_value_t = Spread::Constant, conflicts_with = "closed", help_heading = WHEN)]
    arrivals: Spread,
    /// Send on each connection when the last answer is there (closed loop); a slow server gets less
    #[arg(long, conflicts_with_all = ["rate", "ramp", "stages"], help_heading = WHEN)]
    closed: bool,
    /// Repeat the requests of weft's access log at its times: to the one URL, with the log's hosts and paths
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "ramp", "stages", "closed", "duration", "requests"], help_heading = WHEN)]
    replay: Option<PathBuf>,
    /// Replay so many times faster
    #[arg(long, value_name = "N", requires = "replay", help_heading = WHEN)]
    speed: Option<f64>,
    /// The lines to replay, if the log has both sides
    #[arg(long, value_enum, requires = "replay", help_heading = WHEN)]
    direction: Option<Side>,
    /// How long requests are sent [default: 10s]
    #[arg(short, short_alias = 'z', long, value_name = "LENGTH", value_parser = parse_duration, help_heading = WHEN)]
    duration: Option<Duration>,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "N", help_heading = WHEN)]
    requests: Option<u64>,
    /// Send for so long before anything is counted
    #[arg(long, value_name = "LENGTH", default_value = "0s", value_parser = parse_duration, help_heading = WHEN)]
    warm_up: Duration,
    /// Makes random choices repeatable
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = WHEN)]
    seed: u64,

    /// Connections: all of a closed loop [default: 10], the most of an open one [default: as needed]
    #[arg(short, long, value_name = "N", help_heading = HOW)]
    connections: Option<usize>,
    /// Requests at once on a connection of HTTP/2, HTTP/3 or gRPC [default: 100 open, 1 closed]
    #[arg(long, value_name = "N", help_heading = HOW)]
    streams: Option<usize>,
    /// Most requests open at once; a request due beyond that is not sent and counts as failed
    #[arg(long, value_name = "N", default_value_t = limits::IN_FLIGHT, conflicts_with = "closed", help_heading = HOW)]
    max_in_flight: usize,
    /// A new connection for each request
    #[arg(long, help_heading = HOW)]
    no_keep_alive: bool,
    /// A request that takes longer fails
    #[arg(long, value_name = "LENGTH", default_value = "30s", value_parser = parse_duration, help_heading = HOW)]
    deadline: Duration,
    /// How long requests that are open at the end may still take
    #[arg(long, value_name = "LENGTH", default_value = "2s", value_parser = parse_duration, help_heading = HOW)]
    grace: Duration,
    /// Threads of the generator [default: 2, or fewer cores]
    #[arg(short, long, value_name = "N", help_heading = HOW)]
    threads: Option<usize>,
    /// Begin even if a first connection fails
    #[arg(long, help_heading = HOW)]
    no_check: bool,

    /// HTTP/2, with prior knowledge if the URL is http
    #[arg(long, help_heading = WHAT)]
    http2: bool,
    /// HTTP/3
    #[arg(long, conflicts_with = "http2", help_heading = WHAT)]
    http3: bool,
    /// What one request is over TCP
    #[arg(long, value_enum, default_value_t = Pattern::Echo, help_heading = WHAT)]
    tcp: Pattern,
    /// The method [default: GET, or POST with --data]
    #[arg(short, long, value_name = "METHOD", help_heading = WHAT)]
    method: Option<Method>,
    /// A header, as 'Name: value'; several times for several
    #[arg(short = 'H', long, value_name = "HEADER", value_parser = parse_header, help_heading = WHAT)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The body, or @FILE; for gRPC the message, for TCP and UDP the payload
    #[arg(long, value_name = "TEXT", help_heading = WHAT)]
    data: Option<String>,
    /// A body of so many bytes
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with = "data", help_heading = WHAT)]
    data_size: Option<u64>,

    /// Believe servers whose certificate leads to a root in this PEM file [default: those of the system]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure", help_heading = TLS)]
    ca: Option<PathBuf>,
    /// Accept only a server that proves this identity with an SVID under --ca, at any host name
    #[arg(long, value_name = "SPIFFE_ID", requires = "ca", help_heading = TLS)]
    server_id: Option<SpiffeId>,
    /// Believe every server
    #[arg(short = 'k', long, help_heading = TLS)]
    insecure: bool,
    /// Show this certificate (PEM, leaf first) to servers that ask, for example a sidecar's SVID
    #[arg(long, value_name = "FILE", requires = "key", help_heading = TLS)]
    cert: Option<PathBuf>,
    /// The key of --cert (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = TLS)]
    key: Option<PathBuf>,
    /// Resume TLS sessions on new connections
    #[arg(long, help_heading = TLS)]
    resume: bool,
    /// Move HTTP/3 connections to a new local port so often, as a phone does
    #[arg(long, value_name = "LENGTH", value_parser = parse_duration, help_heading = HOW)]
    migrate_every: Option<Duration>,

    /// Statuses that are no failure, as 200,404 or 2xx [default: below 400; gRPC 0]
    #[arg(long, value_name = "STATUSES", value_parser = Statuses::parse, help_heading = GOOD)]
    ok: Option<Statuses>,
    /// A header that each answer has, as NAME or 'NAME: VALUE'
    #[arg(long, value_name = "HEADER", value_parser = parse_expected_header, help_heading = GOOD)]
    expect_header: Vec<(HeaderName, Option<HeaderValue>)>,
    /// SHA-256 of each answer's body
    #[arg(long, value_name = "HEX", value_parser = parse_sha256, help_heading = GOOD)]
    expect_body_sha256: Option<[u8; 32]>,
}

const WHEN: &str = "When";
const HOW: &str = "Connections and limits";
const WHAT: &str = "What is sent";
const TLS: &str = "TLS and QUIC";
const GOOD: &str = "What a good answer is";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Spread {
    /// Evenly
    Constant,
    /// Independently of each other, as many users do
    Poisson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pattern {
    /// The payload goes and comes back, on a kept connection
    Echo,
    /// A connection is made and closed
    Connect,
    /// The payload goes, and the server closes
    Upload,
    /// Bytes come until the server closes
    Download,
}

impl Flags {
    /// The plan, checked, and whether a first connection is tried before it. In a series the rate may be
    /// omitted.
    pub fn into_plan(self, asked: &Asked) -> Result<(Plan, bool), Failure> {
        let usage = |line: String| Failure::new(Code::Usage, line);
        let version = match (self.http2, self.http3) {
            (true, _) => Version::Http2,
            (_, true) => Version::Http3,
            (false, false) => Version::Scheme,
        };
        let pattern = match self.tcp {
            Pattern::Echo => TcpPattern::Echo,
            Pattern::Connect => TcpPattern::Connect,
            Pattern::Upload => TcpPattern::Upload,
            Pattern::Download => TcpPattern::Download,
        };
        let targets = Targets::parse(&self.targets, version, pattern).map_err(usage)?;
        let (targets, load) = match &self.replay {
            Some(path) => self.replayed(path, &targets)?,
            None => {
                let load = self.load(targets.protocol, asked)?;
                (targets, load)
            }
        };
        if self.method.is_some() && !targets.protocol.is_http() {
            return Err(usage("--method goes with http:// and https://".to_owned()));
        }
        let needs_tls = targets.endpoints.iter().any(|endpoint| endpoint.tls);
        if !needs_tls && (self.ca.is_some() || self.cert.is_some() || self.resume) {
            let line = "--ca, --server-id, --cert and --resume go with https:// and grpcs://";
            return Err(usage(line.to_owned()));
        }
        let tls = TlsFiles {
            ca: self.ca.as_deref(),
            insecure: self.insecure || !needs_tls,
            server_id: self.server_id.as_ref(),
            identity: self.cert.as_deref().zip(self.key.as_deref()),
            resume: self.resume,
        };
        let tls = tls.read()?;
        let body = match (&self.data, self.data_size) {
            (Some(data), _) => Some(body(data)?),
            (None, Some(size)) => Some(filled(size)?),
            (None, None) => None,
        };
        let method = match (&self.method, &body) {
            (Some(method), _) => method.clone(),
            (None, Some(_)) => Method::POST,
            (None, None) => Method::GET,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in self.header {
            headers.append(name, value);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let plan = Plan {
            targets,
            message: Message {
                method,
                headers,
                body: body.unwrap_or_default(),
            },
            load,
            warm_up: self.warm_up,
            deadline: self.deadline,
            grace: self.grace,
            seed: self.seed,
            threads: self.threads.unwrap_or(limits::THREADS.min(cores)),
            reuse: if self.no_keep_alive {
                Reuse::NewConnections
            } else {
                Reuse::KeepAlive
            },
            expectations: Expectations {
                ok: self.ok,
                body_sha256: self.expect_body_sha256,
                headers: self.expect_header,
            },
            tls,
            migrate_every: self.migrate_every,
        };
        plan.check().map_err(usage)?;
        Ok((plan, !self.no_check))
    }

    /// A search begins at the given rate, and a sweep gives its rates itself.
    fn rate_or_start(&self, asked: &Asked) -> Option<f64> {
        let start = asked.is_series().then_some(limits::SEARCH_START);
        self.rate.or(start)
    }

    fn load(&self, protocol: Protocol, asked: &Asked) -> Result<Load, Failure> {
        let usage = |line: String| Failure::new(Code::Usage, line);
        if self.closed {
            let end = match (self.requests, self.duration) {
                (Some(requests), None) => End::Requests(requests),
                (None, length) => End::After(length.unwrap_or(limits::LENGTH)),
                (Some(_), Some(_)) => {
                    return Err(usage(
                        "--closed ends after --duration or --requests, not both".to_owned(),
                    ));
                }
            };
            return Ok(Load::Closed {
                connections: self.connections.unwrap_or(limits::CLOSED_CONNECTIONS),
                streams: self.streams.unwrap_or(1),
                end,
            });
        }
        let course = if let Some(path) = &self.stages {
            let text = std::fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
            parse_stages(&text).map_err(|error| {
                Failure::new(Code::BadData, format!("{}: {error}", path.display()))
            })?
        } else if let Some(stage) = self.ramp {
            Course::new(vec![stage]).map_err(|error| usage(format!("--ramp: {error}")))?
        } else if let Some(rate) = self.rate_or_start(asked) {
            let length = self.duration.unwrap_or(match self.requests {
                // The number of requests ends it; this is only the expected time.
                Some(requests) => needed(requests, rate),
                None => limits::LENGTH,
            });
            Course::steady(rate, length).map_err(|error| usage(format!("--rate: {error}")))?
        } else {
            return Err(usage(
                "how much? --rate 1000 sends at a rate; --closed -c 64 does what wrk and hey do"
                    .to_owned(),
            ));
        };
        Ok(Load::Open {
            course,
            arrivals: match self.arrivals {
                Spread::Constant => Arrivals::Constant,
                Spread::Poisson => Arrivals::Poisson,
            },
            requests: self.requests,
            in_flight_max: self.max_in_flight,
            connections: self.connections,
            streams: self.streams_or_default(protocol),
        })
    }

    fn replayed(&self, path: &Path, targets: &Targets) -> Result<(Targets, Load), Failure> {
        let log = replay::read(path, self.direction, self.speed.unwrap_or(1.0))?;
        let replayed = targets.replay(&log).map_err(|error| {
            Failure::new(
                Code::BadData,
                format!("--replay {}: {error}", path.display()),
            )
        });
        let (targets, arrivals) = replayed?;
        let load = Load::Replay {
            arrivals,
            in_flight_max: self.max_in_flight,
            connections: self.connections,
            streams: self.streams_or_default(targets.protocol),
        };
        Ok((targets, load))
    }

    fn streams_or_default(&self, protocol: Protocol) -> usize {
        // A connection for each request has one stream.
        let default = if protocol.is_multiplexed() && !self.no_keep_alive {
            limits::STREAMS
        } else {
            1
        };
        self.streams.unwrap_or(default)
    }
}

/// A time in which at least `requests` requests become due at `rate`, for any distribution.
fn needed(requests: u64, rate: f64) -> Duration {
    let mean = requests as f64 / rate.max(limits::RATE_MIN);
    Duration::try_from_secs_f64(mean * 2.0 + 100.0 / rate.max(limits::RATE_MIN) + 1.0)
        .unwrap_or(limits::LENGTH_MAX)
        .min(limits::LENGTH_MAX)
}

/// Text, or the contents of `@FILE`.
fn body(text: &str) -> Result<Bytes, Failure> {
    let Some(path) = text.strip_prefix('@') else {
        return Ok(Bytes::from(text.to_owned().into_bytes()));
    };
    let path = Path::new(path);
    let bytes = std::fs::read(path).map_err(|error| Failure::io(path, &error))?;
    if bytes.len() > limits::BODY_MAX {
        return Err(Failure::new(
            Code::BadData,
            format!("{}: larger than 1 GiB", path.display()),
        ));
    }
    Ok(bytes.into())
}

fn filled(size: u64) -> Result<Bytes, Failure> {
    let length = usize::try_from(size)
        .ok()
        .filter(|length| *length <= limits::BODY_MAX);
    let length = length
        .ok_or_else(|| Failure::new(Code::Usage, format!("--data-size {size}B: at most 1GiB")))?;
    Ok(vec![b'w'; length].into())
}
