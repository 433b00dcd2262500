//! Every bound of this crate, with its unit and reason.

mod signals;
pub mod traffic;

pub use signals::*;

use std::ops::RangeInclusive;
use std::time::Duration;

use weft_transport::shares::Bounds;

/// Characters of a DNS-1123 label (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
pub const LABEL_LENGTH_MAX: usize = 63;

/// Characters of a DNS-1123 subdomain, as which Kubernetes takes the names of routes.
pub const SUBDOMAIN_LENGTH_MAX: usize = 253;

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

/// Findings that validation reports; the rest is counted. An operator does not read more at once.
pub const FINDINGS_MAX: usize = 200;

/// Ports of one service.
pub const PORTS_PER_SERVICE_MAX: usize = 64;

/// Names of one service outside of the mesh.
pub const EXTERNAL_HOSTS_MAX: usize = 16;

/// Addresses of one service outside of the mesh: as many endpoints in each sidecar that may call it.
pub const EXTERNAL_ADDRESSES_MAX: usize = 64;

/// Ranges of addresses that are not public and that a service outside of the mesh may have.
pub const EXTERNAL_RANGES_MAX: usize = 16;

/// Bytes of the name of a file (PATH_MAX of Linux).
pub const FILE_NAME_LENGTH_MAX: usize = 4096;

/// Rules of one route (Gateway API v1, HTTPRoute.spec.rules).
pub const RULES_PER_ROUTE_MAX: usize = 16;

/// Matches of one rule (Gateway API v1, HTTPRouteRule.matches: 64, and 128 over the whole route).
pub const MATCHES_PER_RULE_MAX: usize = 64;

/// Bytes of the longest text of a duration that is kept beside its value: four parts of five digits, with
/// units of two letters (GEP-2257). What is written longer is shown in the canonical form.
pub const DURATION_TEXT_BYTES_MAX: usize = 4 * (5 + 2);

/// Bytes, as JSON, of a rule that is not valid and kept as it was written: more than people write, and so
/// little that a route with rules of this size only is no larger than other resources may be.
pub const DROPPED_RULE_BYTES_MAX: usize = 64 << 10;

/// Characters of the fault that is kept beside it: a line, and a condition that names 16 of them is within
/// what Gateway API allows for a message (32,768).
pub const DROPPED_FAULT_LENGTH_MAX: usize = 512;

/// Matches of all rules of one route (Gateway API v1, HTTPRoute.spec.rules).
pub const MATCHES_PER_ROUTE_MAX: usize = 128;

/// Filters of one rule, or of one backend (Gateway API v1, HTTPRouteRule.filters).
pub const FILTERS_PER_RULE_MAX: usize = 16;

/// Header fields that one filter sets, adds or removes, each (Gateway API v1, HTTPHeaderFilter).
pub const FILTER_HEADERS_MAX: usize = 16;

/// Origins, and header fields, of one CORS filter (Gateway API v1, HTTPCORSFilter).
pub const CORS_LIST_MAX: usize = 64;

/// Seconds for which a preflight holds where nothing is said (Gateway API v1, HTTPCORSFilter.maxAge; as in
/// browsers).
pub const CORS_MAX_AGE: u32 = 5;

/// Entries of each list of a ReferenceGrant (Gateway API v1, ReferenceGrantSpec).
pub const GRANT_TERMS_MAX: usize = 16;

/// Characters of the name of a header field, or of a parameter of the query, in a route (Gateway API v1,
/// HTTPHeaderName).
pub const HEADER_NAME_LENGTH_MAX: usize = 256;

/// Characters of a header's value in a route (Gateway API v1, HTTPHeaderMatch.value).
pub const HEADER_VALUE_LENGTH_MAX: usize = 4096;

/// Characters of a parameter's value in a route (Gateway API v1, HTTPQueryParamMatch.value).
pub const QUERY_VALUE_LENGTH_MAX: usize = 1024;

/// Backends of one rule (Gateway API v1, HTTPRouteRule.backendRefs).
pub const BACKENDS_PER_RULE_MAX: usize = 16;

/// Header conditions of one match (Gateway API v1, HTTPRouteMatch.headers).
pub const HEADERS_PER_MATCH_MAX: usize = 16;

/// Characters of a regular expression of a route (Gateway API v1, HTTPPathMatch.value and
/// HTTPHeaderMatch.value have up to 1024 and 4096).
pub const PATTERN_LENGTH_MAX: usize = 1024;

/// Bytes of a regular expression that is compiled: some hundred states, far more than a path or a header
/// needs.
pub const PATTERN_BYTES_MAX: usize = 64 << 10;

/// Bytes that each thread which matches it keeps to be faster.
pub const PATTERN_CACHE_BYTES_MAX: usize = 128 << 10;

/// Regular expressions on one thing (the path, a header, a parameter) that are asked together: of fewer each
/// is cheaper alone.
pub const PATTERNS_TOGETHER_MIN: usize = 3;

/// As [`PATTERN_CACHE_BYTES_MAX`], for all regular expressions of a port that are asked together.
pub const PATTERNS_CACHE_BYTES_MAX: usize = 1 << 20;

/// Characters of the name of a session (Gateway API, SessionPersistence.sessionName).
pub const SESSION_NAME_LENGTH_MAX: usize = 128;

/// How long a session may last (Gateway API, SessionPersistence.absoluteTimeout): clients keep no cookie for
/// more than 400 days (RFC 6265bis section 5.5), and count in seconds.
pub const SESSION_TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(400 * 24 * 3600);

/// Keys of one rule's sessions: the one that seals, the one before it, and as many again for a config service
/// of another version. A token that none of them opens costs one try of each.
pub const SESSION_KEYS_MAX: usize = 4;

/// Weight of a backend (Gateway API v1, BackendRef.weight). Their sum has no bound of its own.
pub const WEIGHT_MAX: u64 = 1_000_000;

/// Principals, methods or paths of one policy, together: each request is compared with all of them.
pub const POLICY_TERMS_MAX: usize = 1024;

/// Life of a registration without renewal. Three renewals may be lost before an endpoint is removed.
pub const LEASE: Duration = Duration::from_secs(15);

/// Time between two renewals.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(5);

/// YAML events that aliases of one file may replay: anchors are for a few repeated lists.
pub const YAML_ALIAS_EVENTS_MAX: usize = 65_536;

/// Hosts of one route for TLS (Gateway API v1, TLSRouteSpec.hostnames).
pub const HOSTNAMES_PER_ROUTE_MAX: usize = 1024;

/// Parents of one route (Gateway API v1, CommonRouteSpec.parentRefs).
pub const PARENTS_PER_ROUTE_MAX: usize = 32;

/// Characters of a path in a route (Gateway API v1, HTTPPathMatch.value) or policy.
pub const PATH_LENGTH_MAX: usize = 1024;

/// Policies named to a sidecar as not allowing it to call a service: enough to find the policy that should,
/// few enough for a line of the log.
pub const BAN_POLICIES_MAX: usize = 4;

/// Time between two checks of the leases, and so how late an endpoint may be removed.
pub const LEASE_CHECK: Duration = Duration::from_secs(1);

/// Connected sidecars of one config service. Each costs a task and two HTTP/2 buffers, about 100 KiB; those
/// that see the same share a table.
pub const SUBSCRIBERS_MAX: usize = 10_000;

/// Streams of the sidecars of one identity: replicas of one service, and some that are being replaced. One
/// more ends the oldest.
pub const SUBSCRIBERS_PER_IDENTITY_MAX: usize = 1_000;

/// Disconnected sidecars that `get sidecars` still shows.
pub const SIDECARS_REMEMBERED_MAX: usize = 1_000;

/// Sidecars that are remembered, connected or not; about 1 KiB each.
pub const SIDECARS_MAX: usize = SUBSCRIBERS_MAX + SIDECARS_REMEMBERED_MAX;

/// Bytes of the file in which they are noted: [`SIDECARS_MAX`] entries. One has some 300 bytes, and at most 3
/// KiB: a SPIFFE ID of 2048, and two names of [`INSTANCE_LENGTH_MAX`] characters that JSON writes with six
/// bytes each.
pub const KNOWN_BYTES_MAX: u64 = SIDECARS_MAX as u64 * (3 << 10);

/// Time between two writes of that file: a sidecar gets its first table when it is noted.
pub const RECORD_INTERVAL: Duration = Duration::from_millis(100);

/// Services that the connected sidecars of one identity name together, in `listens_for` and in reports: about
/// 25 MiB. A thousand replicas may name 65 each.
pub const NAMES_PER_IDENTITY_MAX: usize = 65_536;

/// Views of the mesh that are kept, one for each set of needs: as many as there are sidecars of different
/// kinds.
pub const SCOPES_MAX: usize = 4_096;

/// The weight of an endpoint, in percent of an ordinary share. The range is one of what is useful: an
/// endpoint with a thousandth of the requests of another need not exist.
pub const ENDPOINT_WEIGHT: RangeInclusive<u16> = 1..=1000;

/// Labels of an endpoint. Every caller's table has them, so they are few.
pub const ENDPOINT_LABELS_MAX: usize = 16;

/// Bytes of the name of such a label.
pub const ENDPOINT_LABEL_NAME_MAX: usize = 63;

/// Bytes of its value.
pub const ENDPOINT_LABEL_VALUE_MAX: usize = 128;

/// Ports that one Workload serves, over all of its Services.
pub const WORKLOAD_PORTS_MAX: usize = 64;

/// Time between two publications of changed endpoints. It delays an endpoint by less than callers notice, and
/// lets 10 000 sidecars be served without delaying their reports.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(200);

/// Ports, each at one address, that the sidecars of one identity may withdraw while the service settles; a
/// replica withdraws one or a few. Callers keep further ones until the service has settled.
pub const WITHDRAWN_PER_IDENTITY_MAX: usize = 4096;

/// Services that one sidecar may register.
pub const INBOUND_MAX: usize = 256;

/// Services that one sidecar's listeners may name.
pub const LISTENS_FOR_MAX: usize = 4_096;

/// Features that a sidecar may announce, and schemas that it may read: far more than weft will have, and less
/// than what its other names take.
pub const FEATURES_MAX: usize = 256;

/// Characters of a version, of an instance name, or of the name of a feature.
pub const INSTANCE_LENGTH_MAX: usize = 64;

/// Characters that are kept of a sidecar's reason to take an application for unhealthy: one line.
pub const PROBLEM_LENGTH_MAX: usize = 256;

/// Characters that are kept of a sidecar's reason to refuse a table.
pub const REFUSAL_LENGTH_MAX: usize = 1_024;

/// Characters of a revision's message.
pub const MESSAGE_LENGTH_MAX: usize = 1_024;

/// Bytes of a message from a sidecar: LISTENS_FOR_MAX names of 2 labels.
pub const SIDECAR_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a table or of a reply to an operator: 10 000 services with 10 endpoints each are 20 MiB.
pub const TABLE_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Bytes of the file with the last good table: a table as it came, endpoints that were kept beside those, and
/// a checksum.
pub const TABLE_FILE_BYTES_MAX: u64 = 2 * TABLE_MESSAGE_BYTES_MAX as u64;

/// Restrictions missing in a sidecar's table that the sidecar is told by name; operators see all of them.
pub const WITHHELD_NAMED_MAX: usize = 32;

/// Bytes of a message with a table in addition to the table: a revision, and [`WITHHELD_NAMED_MAX`] lines
/// with names of two labels of 63 characters, twice.
pub const TABLE_ENVELOPE_BYTES_MAX: usize = 32 << 10;

/// Bytes of a message from an operator: the files and their names.
pub const OPERATOR_MESSAGE_BYTES_MAX: usize = RESOURCE_BYTES_MAX + (1 << 20);

/// Bytes of messages sent to the sidecars of one identity that these have not taken. Other sidecars of that
/// identity wait until they are taken; sidecars of other identities do not.
pub const UNDELIVERED_BYTES_MAX: usize = 32 << 20;

/// Messages up to this size are not counted: as much as HTTP/2 buffers for a stream anyway.
pub const SMALL_MESSAGE_BYTES: usize = 32 << 10;

/// Time in which a sidecar must take a message, and an operator a reply, before its connection is closed:
/// [`TABLE_MESSAGE_BYTES_MAX`] over a link of 10 Mbit/s.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The same for an operator.
pub const REPLY_TIMEOUT: Duration = DELIVERY_TIMEOUT;

/// How long a stream that ends waits for its sidecar to take the reason.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time in which the first message must come on a subscription: it is sent with the call.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without a message after which a subscription ends: nine renewals of the lease.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Messages that a sidecar may send at once: its hello, a report for each of many applications that start,
/// and acknowledgements.
pub const MESSAGE_BURST: u32 = 64;

/// Time in which a sidecar earns one more message; messages beyond that are read later.
pub const MESSAGE_INTERVAL: Duration = Duration::from_millis(50);

/// Operators' calls at once, from before their body is read until no large part of it is held: each may need
/// twice [`OPERATOR_MESSAGE_BYTES_MAX`]. Further calls of one operator wait for each other.
pub const OPERATOR_CALLS: Bounds = Bounds { places: 8, each: 2 };

/// How long an operator's call waits for its turn.
pub const TURN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Time in which the body of an operator's call must come: [`OPERATOR_MESSAGE_BYTES_MAX`] at 3 Mbit/s.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Time in which an operator's call must be answered once its body has come: its own wait, and planning
/// behind other calls.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(APPLY_WAIT_MAX.as_secs() + 60);

/// Time for a backup, which comes over the local socket.
pub const BACKUP_TIMEOUT: Duration = Duration::from_secs(300);

/// Connections of local commands at once. Each may hold a copy of the store, until its command has read that.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;

/// Calls that one such connection may have open: a command makes one.
pub const ADMIN_STREAMS_PER_CONNECTION: u32 = 1;

/// Longest life of such a connection: its backup is made, and read in as much time again.
pub const ADMIN_CONNECTION_LIFE_MAX: Duration = Duration::from_secs(2 * BACKUP_TIMEOUT.as_secs());

/// Calls that one connection may have open: a stream, or a few of an operator's.
pub const STREAMS_PER_CONNECTION: u32 = 8;

/// Bytes of a call's body that are buffered before they are read (HTTP/2 stream window): an operator who is
/// 100 ms away sends 2.5 MB a second.
pub const STREAM_WINDOW: u32 = 256 << 10;

/// The same for all calls of a connection.
pub const CONNECTION_WINDOW: u32 = 512 << 10;

/// Bytes of a call's header fields, as HTTP/2 counts them (RFC 9113 section 6.5.2). gRPC's are some hundred.
pub const HEADER_LIST_BYTES_MAX: u32 = 8 << 10;

/// Streams that a client reset before the service handled them, and streams reset for a client's errors, that
/// one connection may have before it is closed (CVE-2023-44487): honest clients reset streams that they have
/// waited for.
pub const RESETS_MAX: usize = 20;

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

/// An operator's wait ends this long before the certificate that opened its connection: the answer has to
/// arrive, and clocks differ a little.
pub const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// TCP and TLS to the config service: two round trips and a handshake under load.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP/2 pings and how long their answer may take: half a lease in all notices a dead peer.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// First wait before a new attempt to reach the config service, at most. Every wait is at least half of it;
/// later waits are spread from there to their whole step, because all sidecars lose a restarted config
/// service at once.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(300);

/// Longest wait: a third of a lease, so that a restarted config service hears from all sidecars in time.
pub const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a stopping config service waits for its streams.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(3);

/// Time between two writes of the table's copy on disk; endpoints may change many times a second.
pub const CACHE_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a failed write of it: a full disk stays full for longer, and a table may be megabytes.
pub const CACHE_RETRY: Duration = Duration::from_secs(5);

/// Identities that one message about a registration names: people read these lines.
pub const PROVIDERS_NAMED_MAX: usize = 3;

/// Parts of a locality at most: region, zone, and what lies within (a rack, a host).
pub const LOCALITY_PARTS_MAX: usize = 3;

/// Characters of a part at most, as of a DNS label.
pub const LOCALITY_PART_LENGTH_MAX: usize = 63;

/// Bytes of a word for which a similar known one is looked for; no field's name is longer.
pub const COMPARED_WORD_MAX: usize = 64;
