//! The metrics of a sidecar's data path, and the bounds of their labels. Metrics that other processes have,
//! too, are in `control.rs`.

use super::{Label, catalogue};

/// The bound on the names by which calls are counted. The number is `METRIC_SERIES_MAX` of the proxy.
const SERIES: &str = "2000 label sets per worker and metric; further ones are counted as `other`";
const TABLE: &str = "the services of the sidecar's table";
const WORKERS: &str = "the setting `workers`";
const PEERS: &str = "the endpoints that the sidecar has called lately";

/// `NAME.NAMESPACE:PORT`.
const DESTINATION: Label = Label::open(
    "destination_service",
    "`NAME.NAMESPACE:PORT` of the service that is called; what the listener names where a call leads nowhere. A call by host has the name of the service (without a port) where that is forbidden, and none where it is unknown",
    SERIES,
);

/// The labels by which calls are counted.
const CALL: &[Label] = &[
    Label::one_of("direction", &["outbound", "inbound"]),
    Label::open(
        "source_service",
        "service of the caller, without a port; empty unless its identity serves just one service known here",
        SERIES,
    ),
    Label::open("source_principal", "SPIFFE ID of the caller", SERIES),
    DESTINATION,
    Label::open(
        "destination_principal",
        "SPIFFE ID of the sidecar that is called",
        SERIES,
    ),
    Label::open(
        "route",
        "`KIND/NAMESPACE/NAME` of the route that chose the destination, with `/RULE` where the rule has a name (else its number, where the route has several); empty without one",
        SERIES,
    ),
];

const OF_DESTINATION: &[Label] = &[Label::open(
    "destination_service",
    "`NAME.NAMESPACE:PORT` of the service that is called",
    TABLE,
)];
const OF_SERVICE: &[Label] = &[Label::open(
    "service",
    "`NAME.NAMESPACE:PORT` of a service that the application serves",
    "the setting `inbound.services`",
)];
const OF_PEER: &[Label] = &[
    Label::open("worker", "number of the worker, from 0", WORKERS),
    Label::open("peer", "SPIFFE ID of the peer", PEERS),
    Label::open("address", "`IP:PORT` of the peer", PEERS),
];

/// Tokens of RFC 9209 with which the mesh answers.
const ERRORS: &[&str] = &[
    "",
    "connection_limit_reached",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "destination_not_found",
    "destination_unavailable",
    "http_protocol_error",
    "http_request_denied",
    "http_request_error",
    "http_response_header_section_size",
    "http_response_timeout",
    "http_upgrade_failed",
    "proxy_configuration_error",
    "proxy_internal_error",
    "proxy_internal_response",
    "proxy_loop_detected",
    "tls_certificate_error",
];
const ERROR: Label = Label::one_of("error", ERRORS);
const MODE: Label = Label::one_of("mode", &["enforce", "observe"]);

catalogue! {
    /// Requests that ended, by status, classification and error: the RFC 9209 token if the mesh answered
    /// (this sidecar or the far one), else empty.
    REQUESTS = Counter("weft_requests_total", Things).by(CALL, &[
        Label::open("status", "HTTP status; 0 where there was none", "128 outcomes per label set; further ones are only in the duration's count"),
        Label::one_of("classification", &["success", "failure"]),
        ERROR
    ]);
    /// Time from the complete request head to the end of the response.
    REQUEST_DURATION = Histogram("weft_request_duration_seconds", Seconds).by(CALL, &[]);
    /// Time that parts of calls took on the caller's side: the choice of an endpoint (pick), a connection to
    /// it (dial; next to nothing where there is one), a stream of it with the head sent (stream), the head of
    /// the response (head), and the rest of the answer or the life of a tunnel (body). A part in which the
    /// call failed is counted as failed. Of many attempts the first three and the last are counted; of copies
    /// of slow requests, only one.
    ATTEMPT_PARTS = Histogram("weft_attempt_part_seconds", Seconds).by(&[], &[
        Label::one_of("part", &["pick", "dial", "stream", "head", "body"]),
        Label::one_of("outcome", &["ended", "failed"])
    ]);
    /// TCP tunnels that run.
    TUNNELS_ACTIVE = Gauge("weft_tcp_connections_active", Things).by(CALL, &[]);
    /// TCP tunnels that began.
    TUNNELS_OPENED = Counter("weft_tcp_connections_opened_total", Things).by(CALL, &[]);
    /// TCP tunnels that ended.
    TUNNELS_CLOSED = Counter("weft_tcp_connections_closed_total", Things).by(CALL, &[]);
    /// TCP tunnels that ended otherwise than by a close of both sides, by error.
    TUNNELS_FAILED = Counter("weft_tcp_connections_failed_total", Things).by(CALL, &[ERROR]);
    /// Bytes from the caller to the service, counted while they pass.
    TUNNEL_SENT = Counter("weft_tcp_sent_bytes_total", Bytes).by(CALL, &[]);
    /// Bytes from the service to the caller, counted while they pass.
    TUNNEL_RECEIVED = Counter("weft_tcp_received_bytes_total", Bytes).by(CALL, &[]);
    /// Authorisation decisions, by decision and the policy that made it; empty where the default decided.
    DECISIONS = Counter("weft_authz_decisions_total", Things).by(&[], &[
        Label::one_of("decision", &["allow", "deny", "audit"]),
        Label::open("policy", "`AuthorizationPolicy/NAMESPACE/NAME`; empty where the default decided", "2000 policies per worker and decision; further ones are counted as `other`")
    ]);
    /// Attempts after the first, by the failure of the attempt before.
    RETRIES = Counter("weft_retries_total", Things).by(OF_DESTINATION, &[
        Label::one_of("reason", &["not_reached", "unprocessed", "reset", "timeout", "status", "grpc_status"])
    ]);
    /// Retries that the policy allows and that were not made, by the reason.
    RETRIES_WITHHELD = Counter("weft_retries_withheld_total", Things).by(OF_DESTINATION, &[
        Label::one_of("reason", &["attempts", "budget", "deadline", "told", "body"])
    ]);
    /// Requests that took more than one attempt, by how they ended: without retries all would have failed.
    RETRIED = Counter("weft_requests_retried_total", Things).by(OF_DESTINATION, &[
        Label::one_of("result", &["recovered", "failed"])
    ]);
    /// Retries and hedges that the budget would allow at once.
    RETRY_BUDGET = Gauge("weft_retry_budget_remaining", Things).by(OF_DESTINATION, &[]);
    /// Copies of slow requests: sent, first to answer, or withheld by the retry budget.
    HEDGES = Counter("weft_hedges_total", Things).by(OF_DESTINATION, &[
        Label::one_of("result", &["sent", "won", "withheld"])
    ]);
    /// Copies that routes sent of requests (RequestMirror): answered whatever the answer was, failed without
    /// one, not sent as too many were under way, as the body was not kept whole, or as the last ones all
    /// failed. No caller sees any of it, and no other metric of this sidecar counts them.
    MIRRORED = Counter("weft_mirrored_total", Things).by(OF_DESTINATION, &[
        Label::one_of("result", &["answered", "failed", "crowded", "body", "failing"])
    ]);
    /// Requests of sessions (sessionPersistence of a route), by the service that was addressed: a session
    /// began, and the client got its token; the endpoint of the client's session took the request; that
    /// endpoint is gone, was out of rotation, or did not answer, so that another took it.
    SESSIONS = Counter("weft_sessions_total", Things).by(OF_DESTINATION, &[
        Label::one_of("result", &["started", "kept", "moved_gone", "moved_out", "moved_failed"])
    ]);
    /// Requests whose token of a session counted as none: it has not the form of one, no key of the rule made
    /// it, or the session has lasted as long as it may.
    SESSION_TOKENS_IGNORED = Counter("weft_session_tokens_ignored_total", Things).by(OF_DESTINATION, &[
        Label::one_of("reason", &["malformed", "unauthentic", "expired"])
    ]);
    /// Requests on which filters of a route acted, by the service that was addressed; CORS where a page of
    /// another origin asked. Whether a copy was sent for RequestMirror is in weft_mirrored_total.
    FILTERED = Counter("weft_filtered_total", Things).by(OF_DESTINATION, &[
        Label::one_of("filter", &["CORS", "RequestRedirect", "RequestHeaderModifier", "URLRewrite", "RequestMirror", "ResponseHeaderModifier"])
    ]);
    /// Endpoints in rotation and out of it, as each worker sees them.
    ENDPOINTS = Gauge("weft_lb_endpoints", Things).by(OF_DESTINATION, &[
        Label::open("worker", "number of the worker, from 0", WORKERS),
        Label::one_of("state", &["in", "out"])
    ]);
    /// Endpoints taken out of rotation, by cause; with mode observe, endpoints that would have been taken
    /// out.
    EJECTIONS = Counter("weft_lb_ejections_total", Things).by(OF_DESTINATION, &[
        Label::one_of("cause", &["consecutive_failures", "success_rate"]),
        MODE
    ]);
    /// Endpoints that came back into rotation because a request to them succeeded.
    RETURNS = Counter("weft_lb_returns_total", Things).by(OF_DESTINATION, &[]);
    /// Requests that went to the failover service because no endpoint of this one was in rotation.
    FAILOVERS = Counter("weft_failovers_total", Things).by(OF_DESTINATION, &[]);
    /// Requests over a limit of the serving sidecar (streams: what it lets this one open; application_streams
    /// and application_connections: what its application has room for), or of a route's caller: refused, or
    /// observed.
    OVERLOAD = Counter("weft_overload_total", Things).by(OF_DESTINATION, &[
        Label::one_of("limit", &["fixed", "adaptive", "share", "rate", "caller_rate", "streams", "application_streams", "application_connections"]),
        MODE
    ]);
    /// Requests that were sent to the application again: it had not processed them (goaway, refused_stream,
    /// closed), or its connection ended without a byte of an answer to a request that it may see twice
    /// (unanswered).
    RESENT = Counter("weft_application_resends_total", Things).by(OF_DESTINATION, &[
        Label::one_of("reason", &["goaway", "refused_stream", "closed", "unanswered"])
    ]);
    /// Requests that waited for a stream of the application's HTTP/2 connections, or for a place for a
    /// connection.
    WAITED = Counter("weft_application_waits_total", Things).by(OF_DESTINATION, &[
        Label::one_of("reason", &["streams", "connections"])
    ]);
    /// 1 while the application of a served service is taken for healthy and so registered, else 0.
    APPLICATION_HEALTHY = Gauge("weft_application_healthy", Flag).by(OF_SERVICE, &[]);
    /// Health checks of the application of a served service, by how they ended: passed, no connection
    /// (refused), no whole answer in time (late), an answer that says no (status, not_serving), or none that
    /// can be understood (broken).
    APPLICATION_CHECKS = Counter("weft_application_checks_total", Things).by(OF_SERVICE, &[
        Label::one_of("result", &["passed", "refused", "late", "status", "not_serving", "broken"])
    ]);
    /// Connections that came without mutual TLS to a served service with `plaintext_listen`: taken, or
    /// refused because the Service is Strict or no table names it. crowded: of those taken, how many had to
    /// end because their address, or all together, had as many as they may have.
    PLAINTEXT_CONNECTIONS = Counter("weft_inbound_plaintext_connections_total", Things).by(OF_SERVICE, &[
        Label::one_of("result", &["taken", "refused", "crowded"])
    ]);
    /// Connections without mutual TLS that are open.
    PLAINTEXT_ACTIVE = Gauge("weft_inbound_plaintext_connections_active", Things).by(OF_SERVICE, &[]);
    /// Addresses from which callers without mutual TLS came within the last hour, 256 at most. `weft
    /// endpoints` beside the application names them.
    PLAINTEXT_CALLERS = Gauge("weft_inbound_plaintext_callers", Things).by(OF_SERVICE, &[]);
    /// Calls of a served service under way.
    IN_FLIGHT = Gauge("weft_concurrency_in_flight", Things).by(OF_SERVICE, &[]);
    /// Calls of a served service that are let in at once, by limit.
    IN_FLIGHT_MAX = Gauge("weft_concurrency_limit", Things).by(OF_SERVICE, &[
        Label::one_of("limit", &["fixed", "adaptive"])
    ]);
    /// Requests of a served service that wait for the head of their answer.
    WAITING = Gauge("weft_concurrency_waiting", Things).by(OF_SERVICE, &[]);
    /// 1 while the adaptive limit of a served service acts, because its application is overloaded. Else
    /// `weft_concurrency_limit` shows the fixed limit for it.
    ADAPTIVE_ACTING = Gauge("weft_concurrency_adaptive_acting", Flag).by(OF_SERVICE, &[]);
    /// Times that the adaptive limit of a served service began to act.
    ADAPTIVE_ACTS = Counter("weft_overload_acts_total", Things).by(OF_DESTINATION, &[]);
    /// Requests with override headers: taken, or forbidden by the policy; and single headers with an invalid
    /// value.
    OVERRIDES = Counter("weft_overrides_total", Things).by(OF_DESTINATION, &[
        Label::one_of("result", &["taken", "forbidden", "invalid"])
    ]);
    /// Faults injected on purpose.
    FAULTS = Counter("weft_faults_total", Things).by(OF_DESTINATION, &[
        Label::one_of("kind", &["delay", "abort"])
    ]);
    /// Spans that the collector took ([traces.md](traces.md)).
    SPANS_EXPORTED = Counter("weft_spans_exported_total", Things);
    /// Spans that were lost. queue_full: they waited for a collector that is away or slow, and had no room.
    /// unreachable: it did not take them while they were tried again. refused: it refused the whole export
    /// for good. rejected: it took the export without them.
    SPANS_DROPPED = Counter("weft_spans_dropped_total", Things).by(&[], &[
        Label::one_of("reason", &["queue_full", "unreachable", "refused", "rejected"])
    ]);
    /// Attempts to send spans to the collector that failed.
    SPAN_EXPORTS_FAILED = Counter("weft_span_exports_failed_total", Things);
    /// Traces whose deadlines are kept for the calls that the application makes in turn.
    TRACES = Gauge("weft_traces_followed", Things);
    /// 1 while the table in force is not on disk, because the state directory cannot be written.
    TABLE_UNSAVED = Gauge("weft_config_table_unsaved", Flag);
    /// Number of the table's revision; 0 without a table.
    TABLE_REVISION = Gauge("weft_config_revision", Things);
    /// 1 while messages or keep-alives of the config service arrive.
    CONFIG_CONNECTED = Gauge("weft_config_connected", Flag);
    /// Tables that came: applied on every worker, or refused (not understood, of another mesh, or older than
    /// the one in force).
    TABLES = Counter("weft_config_updates_total", Things).by(&[], &[
        Label::one_of("result", &["applied", "refused"])
    ]);
    /// Handshakes that peers began, by result. given_up: too many were under way, and a newer one took its
    /// place. retry: the peer first had to show that it receives at its address. ignored: the most that may
    /// begin in one second had begun. Many of these three come from a flood, or from a whole mesh that
    /// restarts.
    HANDSHAKES = Counter("weft_quic_handshakes_total", Things).by(&[], &[
        Label::one_of("result", &["ok", "timeout", "refused", "lost", "given_up", "retry", "ignored"])
    ]);
    /// Changes of the address of peers whose connections went on, counted when the peer next sends a request.
    MIGRATIONS = Counter("weft_quic_migrations_total", Things);
    /// Actions against a peer that broke a rule of HTTP/3 or went beyond a limit, by the side of the
    /// connection that this sidecar was on: the connection was closed with all that ran on it, or paced (its
    /// new requests waited). Each is logged as well, one line a second and worker at most.
    GUARDS = Counter("weft_mesh_guards_total", Things).by(&[], &[
        Label::one_of("side", &["accepted", "dialled"]),
        Label::open("reason", "the rule, in few words with `_` for blanks ([protocol.md](protocol.md#limits))", "the rules that weft checks"),
        Label::one_of("action", &["closed", "paced"])
    ]);
    /// Time in which workers were overloaded, and let peers open fewer streams.
    WORKER_BEHIND = Counter("weft_worker_behind_seconds_total", Seconds);
    /// Time in which workers read only as many requests of their application as they could handle at once.
    WORKER_LIMITED = Counter("weft_worker_limited_seconds_total", Seconds);
    /// 1 while the connection to a peer is usable.
    CONNECTIONS = Gauge("weft_quic_connections_active", Flag).by(OF_PEER, &[]);
    /// Smoothed round-trip time of the present connection.
    ROUND_TRIP = Gauge("weft_quic_rtt_seconds", Seconds).by(OF_PEER, &[]);
    /// Congestion window of the present connection.
    CONGESTION_WINDOW = Gauge("weft_quic_congestion_window_bytes", Bytes).by(OF_PEER, &[]);
    /// Streams open on the present connection.
    STREAMS = Gauge("weft_quic_streams_active", Things).by(OF_PEER, &[]);
    /// Packets sent on the present connection.
    SENT_PACKETS = Counter("weft_quic_sent_packets_total", Things).by(OF_PEER, &[]);
    /// Packets lost on the present connection.
    LOST_PACKETS = Counter("weft_quic_lost_packets_total", Things).by(OF_PEER, &[]);
    /// Congestion events of the present connection.
    CONGESTION_EVENTS = Counter("weft_quic_congestion_events_total", Things).by(OF_PEER, &[]);
    /// Streams that were reset because their readers stopped until other streams of the present connection
    /// had no room.
    GIVEN_UP_STREAMS = Counter("weft_quic_given_up_streams_total", Things).by(OF_PEER, &[]);
    /// Access-log lines over the rate limit.
    LOG_SUPPRESSED = Counter("weft_access_log_suppressed_total", Things);
    /// Access-log lines that were dropped because the reader of standard output was too slow.
    LOG_DROPPED = Counter("weft_access_log_dropped_total", Things);
    /// Requests for names outside of the mesh that no ExternalService names, and that passed: with `egress:
    /// Observe` or `Allow` of the MeshConfig. `Deny` would refuse them.
    EGRESS_PASSED = Counter("weft_egress_passed_total", Things);
    /// Questions for the addresses of ExternalServices. `forgotten`: a name lost its last addresses, as no
    /// question had been answered for an hour.
    EGRESS_LOOKUPS = Counter("weft_egress_lookups_total", Things)
        .by(&[], &[Label::one_of("result", &["answered", "failed", "forgotten"])]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_label_is_from_a_bounded_list() {
        assert!(ERROR.takes("") && ERROR.takes("connection_refused"));
        assert!(!ERROR.takes("made_up"));
    }
}
