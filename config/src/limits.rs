//! Every bound of this crate, with its unit and reason.

pub mod traffic;

use std::time::Duration;

use weft_transport::shares::Bounds;

/// Characters of a DNS-1123 label (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
pub const LABEL_LENGTH_MAX: usize = 63;

/// Bytes of one resource file, and of all files of one apply together. A mesh of 10 000 services with
/// policies and routes is about 6 MiB of YAML.
pub const RESOURCE_BYTES_MAX: usize = 16 << 20;

/// Files read from one directory: more is a wrong path, such as `/`.
pub const RESOURCE_FILES_MAX: usize = 4096;

/// Resources in one set: 10 000 services with a policy and a route each, and as much to spare.
pub const RESOURCES_MAX: usize = 65_536;

/// Nesting of a YAML document. The deepest supported field (a header of a route's match) is at 8.
pub const YAML_DEPTH_MAX: usize = 32;

/// YAML nodes of one file: RESOURCE_BYTES_MAX at about 16 bytes a node.
pub const YAML_NODES_MAX: usize = 1 << 20;

/// Findings that validation reports; the rest is counted. Nobody reads more at once.
pub const FINDINGS_MAX: usize = 200;

/// Ports of one service.
pub const PORTS_PER_SERVICE_MAX: usize = 64;

/// Rules of one route (Gateway API v1, HTTPRoute.spec.rules).
pub const RULES_PER_ROUTE_MAX: usize = 16;

/// Matches of one rule (Gateway API v1, HTTPRouteRule.matches: 64, and 128 over the whole route).
pub const MATCHES_PER_RULE_MAX: usize = 64;

/// Backends of one rule (Gateway API v1, HTTPRouteRule.backendRefs).
pub const BACKENDS_PER_RULE_MAX: usize = 16;

/// Header conditions of one match (Gateway API v1, HTTPRouteMatch.headers).
pub const HEADERS_PER_MATCH_MAX: usize = 16;

/// Weight of a backend, and sum of the weights of a rule (Gateway API v1, BackendRef.weight).
pub const WEIGHT_MAX: u64 = 1_000_000;

/// Principals, methods or paths of one policy, together: each request is compared with all of them.
pub const POLICY_TERMS_MAX: usize = 1024;

/// Life of a registration without renewal. Three renewals may be lost before an endpoint goes.
pub const LEASE: Duration = Duration::from_secs(15);

/// Time between two renewals.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(5);

/// YAML events that aliases of one file may replay: anchors are for a few repeated lists.
pub const YAML_ALIAS_EVENTS_MAX: usize = 65_536;

/// Parents of one route (Gateway API v1, CommonRouteSpec.parentRefs).
pub const PARENTS_PER_ROUTE_MAX: usize = 32;

/// Characters of a path in a route (Gateway API v1, HTTPPathMatch.value) or policy.
pub const PATH_LENGTH_MAX: usize = 1024;

/// Time between two looks at the leases; how late an endpoint may go.
pub const LEASE_CHECK: Duration = Duration::from_secs(1);

/// Connected sidecars of one config service. Each costs a task, a table and two HTTP/2 buffers, about
/// 1 MiB in a mesh of 1000 services.
pub const SUBSCRIBERS_MAX: usize = 10_000;

/// Connected sidecars of one identity: replicas of one service, and some that are being replaced.
pub const SUBSCRIBERS_PER_IDENTITY_MAX: usize = 1_000;

/// Disconnected sidecars that `get sidecars` still shows.
pub const SIDECARS_REMEMBERED_MAX: usize = 1_000;

/// Services that one sidecar may register.
pub const INBOUND_MAX: usize = 256;

/// Services that one sidecar's listeners may name.
pub const LISTENS_FOR_MAX: usize = 4_096;

/// Characters of a version or instance name.
pub const INSTANCE_LENGTH_MAX: usize = 64;

/// Characters that are kept of a sidecar's reason to refuse a table.
pub const REFUSAL_LENGTH_MAX: usize = 1_024;

/// Characters of a revision's message.
pub const MESSAGE_LENGTH_MAX: usize = 1_024;

/// Bytes of a message from a sidecar: LISTENS_FOR_MAX names of 2 labels.
pub const SIDECAR_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a table or of a reply to an operator: 10 000 services with 10 endpoints each are 20 MiB.
pub const TABLE_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Bytes of a message from an operator: the files and their names.
pub const OPERATOR_MESSAGE_BYTES_MAX: usize = RESOURCE_BYTES_MAX + (1 << 20);

/// Messages that wait for a slow sidecar; everything later is one newest state.
pub const SUBSCRIBER_QUEUE: usize = 1;

/// Connections whose handshake is under way, about 20 KiB each, and how many of them one source may have: all
/// sidecars of a large host that reconnect at once.
pub const HANDSHAKES: Bounds = Bounds {
    places: 1024,
    each: 512,
};

/// Connections after the handshake: one of each sidecar that may subscribe, and room for operators and
/// for reconnects that overlap. Each sidecar of one identity may have two, while it moves to a
/// connection with its renewed certificate.
pub const CONNECTIONS: Bounds = Bounds {
    places: SUBSCRIBERS_MAX + 512,
    each: 2 * SUBSCRIBERS_PER_IDENTITY_MAX,
};

/// Longest wait of an apply for acknowledgements.
pub const APPLY_WAIT_MAX: Duration = Duration::from_secs(600);

/// An operator's wait ends this long before the certificate that opened its connection: the answer has to arrive, and
/// clocks differ a little.
pub const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// TCP and TLS to the config service: two round trips and a handshake under load.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP/2 pings and how long their answer may take: half a lease in all notices a dead peer.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// First wait before a new attempt to reach the config service.
pub const RECONNECT_MIN: Duration = Duration::from_millis(200);

/// Longest wait: a third of a lease, so that a restarted config service hears from everyone in time.
pub const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a stopping config service waits for its streams.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(3);

/// Time between two writes of the table's copy on disk; endpoints may change many times a second.
pub const CACHE_INTERVAL: Duration = Duration::from_secs(1);
