//! Every bound of this crate, with its unit and reason.

use std::time::Duration;

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
