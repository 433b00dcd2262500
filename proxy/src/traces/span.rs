//! The spans of an exchange that has ended, by the semantic conventions of OpenTelemetry: one of the
//! exchange, and below it one of each attempt. Pure.
//!
//! HTTP's conventions are stable, those of RPC nearly so. Attributes of weft's own are there only where no
//! convention has a name: `weft.principal` (who is at the other end), `weft.route`, `weft.revision` and
//! `weft.cancelled` (an attempt that was given up, because another one won or the caller went away). No query
//! of a URL and no header but `user-agent` and `x-request-id` is told.

use std::time::{Duration, Instant, UNIX_EPOCH};

use http::{HeaderValue, Method};

use super::encode::{self, Value, attribute};
use crate::failure::Failure;
use crate::http::traceparent::TraceParent;
use crate::limits;
use crate::metrics::{Direction, Series};
use crate::record::attempt::{Attempt, Ended};
use crate::record::trace::Traced;
use crate::record::{Finished, Record};
use crate::visible::cut;

/// The fields of `Span` (opentelemetry/proto/trace/v1/trace.proto).
mod field {
    pub(super) const TRACE: u32 = 1;
    pub(super) const SPAN: u32 = 2;
    pub(super) const STATE: u32 = 3;
    pub(super) const PARENT: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const BEGAN: u32 = 7;
    pub(super) const ENDED: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
}

const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// Of a `Status`.
const ERROR: u64 = 2;
/// It is known whether the parent is in another process, and it is (bits of `flags`).
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// The methods that are told by their names (RFC 9110, RFC 5789 and QUERY); others are `_OTHER`.
const METHODS: [&str; 10] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
];

/// The statuses of gRPC by number.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Writes the spans of an exchange, each by `put`, which gets a span's message.
pub(super) fn write(
    finished: &Finished<'_>,
    traced: &Traced,
    scratch: &mut Vec<u8>,
    put: &mut impl FnMut(&[u8]),
) {
    let whole = Whole::new(finished, traced);
    scratch.clear();
    whole.exchange(scratch);
    put(scratch);
    let last = finished.record.kept.last().map(|last| last.span);
    let mut resent = 0;
    traced.each(&finished.record.kept, |attempt| {
        scratch.clear();
        whole.attempt(attempt, resent, last == Some(attempt.span), scratch);
        put(scratch);
        resent += 1;
    });
}

/// How many spans [`write()`] writes.
pub(super) fn count(finished: &Finished<'_>, traced: &Traced) -> usize {
    1 + traced.count(&finished.record.kept)
}

/// What the spans of an exchange have in common.
struct Whole<'a> {
    finished: &'a Finished<'a>,
    record: &'a Record,
    traced: &'a Traced,
    is_server: bool,
    is_tunnel: bool,
}

/// How it went.
#[derive(Clone, Copy, Default)]
struct Outcome<'a> {
    /// The status of HTTP; 0 without one.
    status: u16,
    /// The name of gRPC's.
    grpc: Option<&'static str>,
    /// The token of what the mesh did not achieve.
    error: Option<&'static str>,
    detail: &'a str,
    is_error: bool,
}

impl<'a> Whole<'a> {
    fn new(finished: &'a Finished<'a>, traced: &'a Traced) -> Self {
        let record = finished.record;
        Self {
            finished,
            record,
            traced,
            is_server: record.counted.labels.direction == Direction::Inbound,
            is_tunnel: matches!(record.counted.series, Series::Tunnels(_)),
        }
    }

    /// The span of the exchange itself.
    fn exchange(&self, out: &mut Vec<u8>) {
        let (traced, labels) = (self.traced, &self.record.counted.labels);
        let caller = traced.caller.map(|caller| (caller, PARENT_IS_REMOTE));
        let times = (self.record.started, self.finished.ended);
        self.head(traced.context.parent, caller, times, out);
        let principal = match self.is_server {
            true => &labels.source_principal,
            false => &labels.destination_principal,
        };
        put_text(out, "weft.principal", principal);
        put_text(out, "weft.route", &labels.route);
        if let Some(revision) = self.record.revision {
            attribute(
                out,
                field::ATTRIBUTES,
                "weft.revision",
                Value::Int(revision),
            );
        }
        put_field(out, "user_agent.original", traced.user_agent.as_ref());
        if let Some(id) = self
            .record
            .request_id
            .as_ref()
            .and_then(|id| id.to_str().ok())
        {
            let id = Value::OneText(id.get(..limits::SPAN_TEXT_BYTES_MAX).unwrap_or(id));
            attribute(
                out,
                field::ATTRIBUTES,
                "http.request.header.x-request-id",
                id,
            );
        }
        if let Some(source) = self.record.counted.source {
            put_text(out, "client.address", &source.to_string());
        }
        if self.is_server && self.record.counted.source.is_none() {
            put_version(out);
        }
        let outcome = self.outcome();
        self.end(&outcome, out);
    }

    /// The span of one attempt, which is the `resent`th further one.
    fn attempt(&self, attempt: &Attempt, resent: usize, is_last: bool, out: &mut Vec<u8>) {
        let exchange = self.traced.context.parent;
        let is_answered = matches!(attempt.ended, Some(Ended::Answered(_)));
        let ended = match attempt.over() {
            // Its answer lasts as long as the exchange.
            _ if is_last && is_answered => self.finished.ended,
            over if attempt.ended.is_none() && over == attempt.began => self.finished.ended,
            over => over,
        };
        self.head(
            attempt.span,
            Some((exchange, 0)),
            (attempt.began, ended),
            out,
        );
        if resent > 0 {
            let resent = Value::Int(resent as u64);
            attribute(out, field::ATTRIBUTES, "http.request.resend_count", resent);
        }
        if let Some(endpoint) = attempt.endpoint {
            put_text(out, "network.peer.address", &endpoint.ip().to_string());
            let port = Value::Int(endpoint.port().into());
            attribute(out, field::ATTRIBUTES, "network.peer.port", port);
        }
        let principal = &self.record.counted.labels.destination_principal;
        if !principal.is_empty() {
            put_version(out);
            if is_last {
                put_text(out, "weft.principal", principal);
            }
        }
        let outcome = match attempt.ended {
            Some(Ended::Answered(status)) => Outcome {
                status,
                is_error: status >= 400,
                ..Outcome::default()
            },
            Some(Ended::Failed(reason)) => Outcome {
                error: Some(reason.token()),
                is_error: true,
                ..Outcome::default()
            },
            None => {
                attribute(out, field::ATTRIBUTES, "weft.cancelled", Value::Bool(true));
                Outcome::default()
            }
        };
        // What came after the head belongs to the attempt whose answer it was.
        let outcome = match is_last && is_answered {
            true => self.outcome(),
            false => outcome,
        };
        self.end(&outcome, out);
    }

    /// What each span has, before its own attributes.
    fn head(
        &self,
        span: u64,
        parent: Option<(u64, u32)>,
        (began, ended): (Instant, Instant),
        out: &mut Vec<u8>,
    ) {
        let TraceParent { trace, flags, .. } = self.traced.context;
        encode::bytes(out, field::TRACE, &trace.to_be_bytes());
        encode::bytes(out, field::SPAN, &span.to_be_bytes());
        if let Some(state) = &self.traced.state {
            encode::bytes(out, field::STATE, state.as_bytes());
        }
        if let Some((parent, _)) = parent {
            encode::bytes(out, field::PARENT, &parent.to_be_bytes());
        }
        self.name(out);
        encode::number(
            out,
            field::KIND,
            if self.is_server { SERVER } else { CLIENT },
        );
        encode::fixed64(out, field::BEGAN, self.wall(began));
        encode::fixed64(out, field::ENDED, self.wall(ended.max(began)));
        let of_parent = parent.map_or(0, |(_, remote)| remote);
        encode::fixed32(
            out,
            field::FLAGS,
            u32::from(flags) | PARENT_IS_KNOWN | of_parent,
        );
        self.target(out);
    }

    fn name(&self, out: &mut Vec<u8>) {
        if self.is_tunnel {
            let service = self.record.counted.labels.destination_service.as_bytes();
            encode::begin(out, field::NAME, 8 + service.len());
            out.extend_from_slice(b"CONNECT ");
            out.extend_from_slice(service);
            return;
        }
        let name = match (self.rpc(), self.method()) {
            (Some(rpc), _) => rpc,
            (None, "_OTHER") => "HTTP",
            (None, method) => method,
        };
        encode::bytes(out, field::NAME, name.as_bytes());
    }

    /// What was asked for, of whom.
    fn target(&self, out: &mut Vec<u8>) {
        let (uri, labels) = (&self.record.uri, &self.record.counted.labels);
        put_text(out, "http.request.method", self.method());
        let named = labels.destination_service.rsplit_once(':');
        let host = uri.authority().map(|authority| authority.host());
        let host = host.or(named.map(|(name, _)| name)).unwrap_or_default();
        put_text(
            out,
            "server.address",
            &cut(host, limits::SPAN_TEXT_BYTES_MAX),
        );
        let port = uri.authority().and_then(|authority| authority.port_u16());
        if let Some(port) = port.or_else(|| named?.1.parse().ok()) {
            attribute(
                out,
                field::ATTRIBUTES,
                "server.port",
                Value::Int(port.into()),
            );
        }
        if self.is_tunnel {
            return put_text(out, "network.transport", "tcp");
        }
        let scheme = uri.scheme_str().unwrap_or("http");
        let path = cut(uri.path(), limits::SPAN_TEXT_BYTES_MAX);
        if self.is_server {
            put_text(out, "url.scheme", scheme);
            put_text(out, "url.path", &path);
        } else if let Some(authority) = uri.authority() {
            let authority = cut(authority.as_str(), limits::SPAN_TEXT_BYTES_MAX);
            let whole = Value::Text(&[scheme, "://", &authority, &path]);
            attribute(out, field::ATTRIBUTES, "url.full", whole);
        }
        if let Some(rpc) = self.rpc() {
            put_text(out, "rpc.system.name", "grpc");
            put_text(out, "rpc.method", rpc);
        }
    }

    /// How the exchange went.
    fn outcome(&self) -> Outcome<'a> {
        let record = self.record;
        let failure = record.failure.as_ref();
        let grpc = record.grpc_status.filter(|_| self.traced.is_grpc);
        let name = grpc.map(|code| GRPC.get(usize::from(code)).copied().unwrap_or("UNKNOWN"));
        // A server has not failed when it refuses a bad request.
        let (failed, least) = match self.is_server {
            true => (
                grpc.is_some_and(|code| matches!(code, 2 | 4 | 12..=15)),
                500,
            ),
            false => (grpc.is_some_and(|code| code != 0), 400),
        };
        let is_refusal = self.is_server && (400..500).contains(&record.status);
        let status = match self.is_tunnel {
            // It opened, or there was a failure.
            true => 0,
            false => record.status,
        };
        Outcome {
            status,
            grpc: name,
            error: failure.map(|failure| failure.reason.token()),
            detail: failure.map_or("", |failure: &Failure| &failure.detail),
            is_error: failed || status >= least || failure.is_some() && !is_refusal,
        }
    }

    /// What is known at the end of a span.
    fn end(&self, outcome: &Outcome<'_>, out: &mut Vec<u8>) {
        if outcome.status != 0 {
            let status = Value::Int(outcome.status.into());
            attribute(out, field::ATTRIBUTES, "http.response.status_code", status);
        }
        if let Some(grpc) = outcome.grpc {
            put_text(out, "rpc.response.status_code", grpc);
        }
        let grpc = outcome.grpc.filter(|_| outcome.is_error);
        match outcome.error.or(grpc) {
            Some(token) => put_text(out, "error.type", token),
            None if outcome.is_error && outcome.status != 0 => {
                put_text(out, "error.type", &outcome.status.to_string());
            }
            None => {}
        }
        if outcome.is_error {
            let detail = cut(outcome.detail, limits::SPAN_TEXT_BYTES_MAX);
            let of_detail = match detail.is_empty() {
                true => 0,
                false => encode::field_length(detail.len()),
            };
            encode::begin(out, field::STATUS, of_detail + 2);
            if !detail.is_empty() {
                encode::bytes(out, 2, detail.as_bytes());
            }
            encode::number(out, 3, ERROR);
        }
    }

    fn method(&self) -> &'a str {
        match self.record.method {
            Method::GET => "GET",
            Method::POST => "POST",
            _ => {
                let written = self.record.method.as_str();
                let known = METHODS.iter().find(|one| **one == written);
                known.copied().unwrap_or("_OTHER")
            }
        }
    }

    /// `package.Service/Method` of a call of gRPC.
    fn rpc(&self) -> Option<&'a str> {
        let path = self.record.uri.path().strip_prefix('/')?;
        let is_short = path.len() <= limits::SPAN_TEXT_BYTES_MAX;
        self.traced
            .is_grpc
            .then_some(if is_short { path } else { "_OTHER" })
    }

    /// Nanoseconds since 1970.
    fn wall(&self, at: Instant) -> u64 {
        let began = self
            .traced
            .began
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let all = began + at.saturating_duration_since(self.record.started);
        u64::try_from(all.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn put_text(out: &mut Vec<u8>, key: &str, text: &str) {
    if !text.is_empty() {
        attribute(out, field::ATTRIBUTES, key, Value::Text(&[text]));
    }
}

fn put_field(out: &mut Vec<u8>, key: &str, field: Option<&HeaderValue>) {
    if let Some(text) = field.and_then(|field| field.to_str().ok()) {
        put_text(out, key, &cut(text, limits::SPAN_TEXT_BYTES_MAX));
    }
}

/// The wire of the mesh.
fn put_version(out: &mut Vec<u8>) {
    put_text(out, "network.protocol.name", "http");
    put_text(out, "network.protocol.version", "3");
}

#[cfg(test)]
mod tests;
