//! Answers that the mesh makes itself: why a request or tunnel failed, which side is at fault, and how HTTP
//! (status and `Proxy-Status`, RFC 9209), gRPC (`grpc-status`) and metrics express it.
//!
//! Not here: an application's own error responses, which pass untouched.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;

/// Why the mesh answers instead of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The request breaks HTTP's rules; the caller's application is at fault.
    BadRequest,
    /// The request's head exceeds the limits.
    HeadTooLarge,
    /// The request's target alone exceeds them.
    TargetTooLong,
    /// A version of HTTP that weft does not speak.
    VersionUnsupported,
    /// CONNECT, or an absolute URI whose host is outside the mesh.
    MethodRefused,
    /// An `Expect` other than `100-continue` (RFC 9110 section 10.1.1).
    ExpectationFailed,
    /// The request's head or body comes too slowly (RFC 9110 section 15.5.9).
    RequestTooSlow,
    /// HTTP/1.1 Upgrade.
    UpgradeUnsupported,
    /// A transfer coding of HTTP/1.1 other than chunked.
    CodingUnsupported,
    /// A policy refuses the call.
    Denied,
    /// No such service or port is visible to this sidecar.
    UnknownService,
    /// Routes exist and none takes the request.
    NoRoute,
    /// The route has no backend of positive weight.
    NoBackend,
    /// The request reached a sidecar that does not serve the service.
    Misdirected,
    /// The service exists but has no healthy endpoint, or the connections of all attempts that a rule asks
    /// for have failed.
    NoEndpoint,
    /// This sidecar has no table yet, or is draining.
    NotReady,
    /// The request passed this sidecar before.
    Loop,
    /// A limit of this sidecar is reached.
    Overloaded,
    /// The peer sidecar or the application refused the connection.
    ConnectionRefused,
    /// The peer sidecar or the application did not answer the connection attempt.
    ConnectionTimeout,
    /// The peer could not prove the expected identity, or refused ours.
    Identity,
    /// The connection broke before the response was complete.
    ConnectionTerminated,
    /// The application reset the stream of the request (HTTP/2).
    StreamReset {
        /// The gRPC code that corresponds to its code.
        grpc: u8,
    },
    /// No response within the idle timeout.
    ResponseTimeout,
    /// The request's deadline passed.
    DeadlineExceeded,
    /// A rate limit of this sidecar is reached.
    RateLimited,
    /// A policy asks for this failure, to test how callers handle it.
    Injected {
        /// The HTTP status to answer.
        status: u16,
        /// The gRPC code to answer.
        grpc: u8,
    },
    /// The response breaks HTTP's rules; the destination is at fault.
    ResponseMalformed,
    /// The response's header section exceeds the limits.
    ResponseHeadTooLarge,
    /// The caller went away. No one reads an answer, but metrics and logs record it.
    CallerGone,
    /// A defect of weft.
    Internal,
}

impl Reason {
    /// The status, RFC 9209 error token and gRPC code of this reason.
    fn table(self) -> (u16, &'static str, u8) {
        match self {
            Self::BadRequest => (400, "http_request_error", 13),
            Self::HeadTooLarge => (431, "http_request_error", 8),
            Self::TargetTooLong => (414, "http_request_error", 8),
            Self::VersionUnsupported => (505, "http_request_error", 12),
            Self::MethodRefused => (405, "http_request_denied", 12),
            Self::ExpectationFailed => (417, "http_request_error", 13),
            Self::RequestTooSlow => (408, "http_request_error", 4),
            Self::UpgradeUnsupported => (501, "http_upgrade_failed", 12),
            Self::CodingUnsupported => (501, "http_request_error", 12),
            Self::Denied => (403, "http_request_denied", 7),
            Self::UnknownService => (503, "destination_not_found", 14),
            Self::NoRoute => (404, "destination_not_found", 12),
            Self::NoBackend => (500, "proxy_configuration_error", 14),
            Self::Misdirected => (421, "destination_not_found", 14),
            Self::NoEndpoint => (503, "destination_unavailable", 14),
            Self::NotReady => (503, "proxy_configuration_error", 14),
            Self::Loop => (508, "proxy_loop_detected", 14),
            Self::Overloaded => (503, "connection_limit_reached", 14),
            Self::ConnectionRefused => (502, "connection_refused", 14),
            Self::ConnectionTimeout => (504, "connection_timeout", 14),
            Self::Identity => (502, "tls_certificate_error", 14),
            Self::ConnectionTerminated => (502, "connection_terminated", 14),
            Self::StreamReset { grpc } => (502, "connection_terminated", grpc),
            Self::ResponseTimeout | Self::DeadlineExceeded => (504, "http_response_timeout", 4),
            Self::RateLimited => (429, "http_request_denied", 8),
            Self::Injected { status, grpc } => (status, "proxy_internal_response", grpc),
            Self::ResponseMalformed => (502, "http_protocol_error", 14),
            Self::ResponseHeadTooLarge => (502, "http_response_header_section_size", 14),
            Self::CallerGone => (499, "connection_terminated", 1),
            Self::Internal => (500, "proxy_internal_error", 13),
        }
    }

    /// Every reason; of a reason that carries a number, one example.
    const ALL: [Self; 31] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::VersionUnsupported,
        Self::MethodRefused,
        Self::ExpectationFailed,
        Self::RequestTooSlow,
        Self::UpgradeUnsupported,
        Self::CodingUnsupported,
        Self::Denied,
        Self::UnknownService,
        Self::NoRoute,
        Self::NoBackend,
        Self::Misdirected,
        Self::NoEndpoint,
        Self::NotReady,
        Self::Loop,
        Self::Overloaded,
        Self::ConnectionRefused,
        Self::ConnectionTimeout,
        Self::Identity,
        Self::ConnectionTerminated,
        Self::StreamReset { grpc: 13 },
        Self::ResponseTimeout,
        Self::DeadlineExceeded,
        Self::RateLimited,
        Self::ResponseMalformed,
        Self::ResponseHeadTooLarge,
        Self::CallerGone,
        Self::Internal,
        Self::Injected {
            status: 503,
            grpc: 14,
        },
    ];

    /// The reason that has this token and, if there is one, this status. A few reasons share both.
    pub(crate) fn of(token: &str, status: StatusCode) -> Option<Self> {
        let mut with_token = Self::ALL.into_iter().filter(|one| one.token() == token);
        let first = with_token.clone().next();
        with_token.find(|one| one.status() == status).or(first)
    }

    /// The HTTP status of the answer.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.table().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The error token of RFC 9209 section 2.3, also the `error` label of metrics.
    pub fn token(self) -> &'static str {
        self.table().1
    }

    /// Its own name, which tells reasons apart that share a token: for logs and `weft why`.
    pub fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::HeadTooLarge => "head_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::VersionUnsupported => "version_unsupported",
            Self::MethodRefused => "method_refused",
            Self::ExpectationFailed => "expectation_failed",
            Self::RequestTooSlow => "request_too_slow",
            Self::UpgradeUnsupported => "upgrade_unsupported",
            Self::CodingUnsupported => "coding_unsupported",
            Self::Denied => "denied",
            Self::UnknownService => "unknown_service",
            Self::NoRoute => "no_route",
            Self::NoBackend => "no_backend",
            Self::Misdirected => "misdirected",
            Self::NoEndpoint => "no_endpoint",
            Self::NotReady => "not_ready",
            Self::Loop => "loop",
            Self::Overloaded => "overloaded",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::Identity => "identity",
            Self::ConnectionTerminated => "connection_lost",
            Self::StreamReset { .. } => "stream_reset",
            Self::ResponseTimeout => "response_timeout",
            Self::DeadlineExceeded => "deadline",
            Self::RateLimited => "rate_limited",
            Self::Injected { .. } => "fault_injected",
            Self::ResponseMalformed => "response_malformed",
            Self::ResponseHeadTooLarge => "response_head_too_large",
            Self::CallerGone => "caller_gone",
            Self::Internal => "internal",
        }
    }

    /// Whether no application has seen the request, so that it may be sent elsewhere whatever its method is.
    /// A rate limit applies to the caller, not to one endpoint, so it does not count here.
    pub(crate) fn is_unprocessed(self) -> bool {
        matches!(
            self,
            Self::NotReady | Self::Overloaded | Self::ConnectionRefused | Self::ConnectionTimeout
        )
    }

    /// Whether the same request is likely to succeed a moment later.
    pub(crate) fn is_passing(self) -> bool {
        matches!(self, Self::Overloaded | Self::RateLimited)
    }

    /// The code of a gRPC answer (grpc/doc/http-grpc-status-mapping.md where it applies).
    pub fn grpc_code(self) -> u8 {
        self.table().2
    }
}

/// A reason with a description of the event, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub reason: Reason,
    /// One line without secrets; the caller sees it, and the log has it.
    pub detail: Cow<'static, str>,
    /// The policy that asks for it, if one does.
    pub policy: Option<Box<str>>,
}

impl Failure {
    /// Joins a reason with its detail.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            policy: None,
        }
    }

    /// The same, as a policy asks for.
    pub(crate) fn by(self, policy: Option<&str>) -> Self {
        Self {
            policy: policy.map(Box::from),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.token(), self.detail)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_real_and_tokens_are_of_rfc_9209() {
        assert_eq!(Reason::of("made_up", StatusCode::FORBIDDEN), None);
        for reason in Reason::ALL {
            assert_eq!(reason.status().as_u16(), reason.table().0);
            assert!(
                reason
                    .token()
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            );
            assert!(reason.grpc_code() <= 16);
            // A failure that the far side reported keeps its reason here.
            let told = Reason::of(reason.token(), reason.status()).unwrap();
            assert_eq!(
                (told.token(), told.status()),
                (reason.token(), reason.status())
            );
        }
    }
}
