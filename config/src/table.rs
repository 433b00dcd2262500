//! The table: what one sidecar runs. It is compiled from the resources and registrations by
//! [`crate::compile`], travels whole to the sidecar, and is kept on its disk as JSON.
//!
//! This file is not the operator's language (that is [`crate::resources`]). It takes no decision about
//! traffic beyond the pure matching rules of its own values.
//!
//! Every type refuses unknown fields: a sidecar that meets a policy it does not know must refuse the table
//! and keep its last good one, not run it with a gap.

mod asked;
mod details;
mod external;
mod features;
mod filters;
mod forbidden;
mod host_pattern;
mod locality;
mod matching;
mod name;
mod pattern;
mod route;
mod router;
mod session;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_transport::identity::{SpiffeId, TrustDomain};

pub use asked::Asked;
pub use details::{Details, DetailsError, Labels, Weight};
pub use external::{
    AddressRange, AddressRangeError, ClientCertificate, Egress, External, ExternalTls, Via,
    is_public,
};
pub use features::{AboutFeature, Feature, Features, Loss, Withheld};
pub use filters::{
    Cors, FieldName, FieldValue, Filters, HeaderChanges, InvalidField, Mirror, MirrorShare,
    PathChange, Redirect, Rewrite, Scheme,
};
pub use host_pattern::{HostPattern, HostPatternError};
pub use locality::{Locality, LocalityError};
pub(crate) use matching::check_path;
pub use matching::folded;
pub use name::{NameError, ServiceName, check_label, check_subdomain};
pub use pattern::{Pattern, PatternError};
pub use route::{Backend, Broken, HttpMatch, PathMatch, RouteRule};
pub use router::Router;
pub use session::{
    Carrier, EndpointName, InvalidSessionKey, Persistence, SessionKey, SessionToken, TOKEN_LENGTH,
    TokenFault, TokenNonce, Tokens,
};
pub use traffic::{
    Algorithm, Backoff, Balance, Breaker, Concurrency, Failover, Fault, FaultAbort, FaultDelay,
    FaultStatus, GrpcCode, HashKey, Hedge, HedgeAfter, HedgeAfterError, IdentityPattern,
    IdentityPatternError, Mode, Overrides, Percent, PercentError, Priority, PriorityHeader,
    RateLimit, RequestTraffic, Retry, RetryBudget, SuccessRate, Timeouts, Traffic, UnknownGrpcCode,
};

/// What one sidecar runs: the services it may call, those it serves, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The version in which it is written.
    pub schema: Schema,
    /// The revision of the resources from which this table was compiled.
    pub revision: Revision,
    /// The trust domain of the mesh; a sidecar refuses a table for another one.
    pub trust_domain: TrustDomain,
    /// Services that this sidecar may call or serves, by name.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Services that exist but which this sidecar may not call: backends of those that it may, and services
    /// of its own namespace that its listeners name. They let the sidecar answer 403; other names are never
    /// disclosed.
    #[serde(
        default,
        deserialize_with = "forbidden::read",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub forbidden: BTreeMap<ServiceName, Forbidden>,
    /// The keys of the sessions of rules, by [`Persistence::scope`]; the first of each list seals. They are
    /// secrets, and left out wherever a table is shown: only [`Self::write_for`] and [`Self::write_whole`]
    /// write them.
    #[serde(default, skip_serializing)]
    pub session_keys: BTreeMap<String, Vec<SessionKey>>,
    /// What becomes of requests for names outside of the mesh.
    #[serde(default, skip_serializing_if = "Egress::is_deny")]
    pub egress: Egress,
    /// Names of services outside of the mesh that this sidecar may not call: they do not pass, whatever
    /// [`Self::egress`] says. None while that lets none pass.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub closed_hosts: BTreeSet<String>,
}

/// A service that this sidecar may not call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forbidden {
    /// The protocol of its ports: the refusal has to be one that its clients can read.
    pub ports: BTreeMap<u16, Protocol>,
    /// Why.
    pub ban: Ban,
}

/// Why no call of an identity to a service can be permitted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ban {
    /// This policy denies all of its calls.
    DeniedBy(String),
    /// These policies allow calls of others, and none allows those of this identity. Not all need to be
    /// named.
    AllowedByNoneOf(Vec<String>),
    /// The mesh denies calls that no policy allows, and no policy targets this service.
    DeniedByDefault,
    /// The config service is older than [`Feature::Bans`] and says only that no call is permitted.
    Unstated,
}

impl Ban {
    /// The policy that has to change.
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::DeniedBy(policy) => Some(policy),
            Self::AllowedByNoneOf(policies) => policies.first().map(String::as_str),
            Self::DeniedByDefault | Self::Unstated => None,
        }
    }
}

impl fmt::Display for Ban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeniedBy(policy) => write!(f, "{policy} denies it"),
            Self::AllowedByNoneOf(policies) => match policies.as_slice() {
                [one] => write!(f, "{one} does not allow it"),
                more => write!(f, "none of {} allows it", more.join(", ")),
            },
            Self::DeniedByDefault => {
                f.write_str("MeshConfig denies what no AuthorizationPolicy allows")
            }
            Self::Unstated => {
                f.write_str("the config service does not say which policy forbids it")
            }
        }
    }
}

/// The version of this file's types. A sidecar lists the versions that it reads, and gets no table of
/// another. An addition is a [`Feature`]; the version is raised when the meaning of an omitted field changes,
/// such as a default of [`Traffic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Schema;

/// The only version that this build reads and writes.
const SCHEMA: u32 = 1;

/// The table is written in another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a table of schema {0}, and this sidecar reads {SCHEMA}; run the same version of weft")]
pub struct SchemaError(u32);

impl Schema {
    /// The versions that this build reads, which a sidecar tells the config service.
    pub fn read() -> Vec<u32> {
        vec![SCHEMA]
    }

    /// Why a sidecar that reads these versions can be sent no table. No version at all means a sidecar from
    /// before versions were sent.
    pub fn unreadable_to(versions: &[u32]) -> Option<String> {
        if versions.is_empty() || versions.contains(&SCHEMA) {
            return None;
        }
        Some(format!(
            "it reads tables of schema {versions:?}, and this config service writes {SCHEMA}: run the same version of weft"
        ))
    }
}

impl TryFrom<u32> for Schema {
    type Error = SchemaError;

    fn try_from(version: u32) -> Result<Self, SchemaError> {
        if version == SCHEMA {
            Ok(Self)
        } else {
            Err(SchemaError(version))
        }
    }
}

impl From<Schema> for u32 {
    fn from(Schema: Schema) -> Self {
        SCHEMA
    }
}

/// Identifies one state of all resources. A restored store has a new `store`, so that equal
/// numbers of different histories are never taken for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Random id of the store's history (32 hexadecimal digits).
    pub store: String,
    /// Counts from 1 within the store, never reused; 0 is the empty store.
    pub number: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.store.chars().take(8).collect();
        write!(f, "{}@{short}", self.number)
    }
}

/// A service as the sidecar sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its ports by number.
    pub ports: BTreeMap<u16, Port>,
    /// How it is reached, if it is outside of the mesh. Then no port of it has endpoints, except for those of
    /// [`Via`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Arc<External>>,
    /// The rules for its callers. Present only if this sidecar must decide: for services that it serves, for
    /// those outside of the mesh that it sends to by itself, and for parents of routes that lead to either.
    /// If it is absent there, no request may be delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The protocol spoken on it.
    pub protocol: Protocol,
    /// Whether its application takes every request over HTTP/2 with prior knowledge, as the one of a port of
    /// gRPC does (RFC 9113 section 3.3).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub h2c: bool,
    /// Routes, most specific first: the first rule that matches decides. If there are rules and none
    /// matches, the answer is 404. If there are none, requests go to this port's own endpoints.
    #[serde(default)]
    pub routes: Vec<RouteRule>,
    /// Healthy registered workloads, ordered by workload and address.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Why there are none, if there are none.
    #[serde(default, skip_serializing_if = "Absence::is_never")]
    pub absence: Absence,
    /// How traffic to it is treated, by its callers and by the sidecar that serves it.
    #[serde(default, skip_serializing_if = "traffic::is_default")]
    pub traffic: Traffic,
}

/// Why a port has no endpoints, as far as the config service has seen since its start.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Absence {
    /// No workload has registered for it.
    #[default]
    Never,
    /// The last workload withdrew itself: its sidecar drains or was stopped.
    Withdrawn,
    /// The last workload sent nothing for the length of a lease.
    Lost,
    /// Workloads are registered, and take no calls: they drain, or their applications are not healthy.
    Down,
}

impl Port {
    /// Whether its application takes every request over HTTP/2.
    pub fn is_multiplexed(&self) -> bool {
        self.h2c || self.protocol == Protocol::Grpc
    }
}

impl Absence {
    /// Whether it is the default, which is omitted when written.
    pub fn is_never(&self) -> bool {
        *self == Self::Never
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "no workload has registered for it",
            Self::Withdrawn => "its last workload withdrew: that drains or was stopped",
            Self::Lost => {
                "its last workload did not renew its registration for the length of a lease"
            }
            Self::Down => {
                "its workloads are registered, and drain or have applications that fail their health checks (weft endpoints beside each says which)"
            }
        })
    }
}

/// The protocol of a port.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2. The sidecar tells them apart by the first bytes.
    Http,
    /// gRPC: HTTP/2 with prior knowledge towards the application.
    Grpc,
    /// bytes of any protocol over TCP.
    Tcp,
}

impl Protocol {
    /// Whether requests (method, path, headers) exist on this protocol. Where none do it need not be TCP:
    /// what carries bytes matches on the protocol.
    pub fn has_requests(self) -> bool {
        match self {
            Self::Http | Self::Grpc => true,
            Self::Tcp => false,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        })
    }
}

/// One workload that serves a port: it registered and is healthy, or a Workload resource names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Names the sidecar instance; unique among the instances that share an identity.
    pub workload: String,
    /// Where its sidecar listens (UDP).
    pub address: SocketAddr,
    /// The identity that the handshake there must prove.
    pub identity: SpiffeId,
    /// Where it runs, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Details::is_empty")]
    pub details: Details,
}

/// The rules for the callers of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// The decision if no Allow and no Deny rule matches.
    pub default: Default,
    /// Rules in a stable order; order has no meaning, Deny beats Allow.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// If only routes may lead to the service: those of these services. A call that states none of them is
    /// refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<BTreeSet<ServiceName>>,
    /// How its application takes the case of paths.
    #[serde(default, skip_serializing_if = "PathCase::is_sensitive")]
    pub path_case: PathCase,
    /// Whether the rules judge callers that prove no identity, too. Without this all of them are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
}

impl Authorization {
    /// These rules, for a case-sensitive application that may be reached in any way by callers that prove
    /// their identity.
    pub fn new(default: Default, rules: Vec<Rule>) -> Self {
        Self {
            default,
            rules,
            parents: None,
            path_case: PathCase::Sensitive,
            plaintext: false,
        }
    }
}

/// How an application treats paths that differ only in case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathCase {
    /// it does: paths are compared as they are.
    #[default]
    Sensitive,
    /// it does not: a path of which another case would be decided otherwise is refused.
    Insensitive,
}

impl PathCase {
    /// Whether it is the default, which is omitted when written.
    pub fn is_sensitive(&self) -> bool {
        *self == Self::Sensitive
    }
}

/// The decision if no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Default {
    /// every workload of the mesh may call.
    Allow,
    /// no workload may call.
    Deny,
}

/// One rule of a policy. All conditions that are present must hold; absent means any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The resource it comes from, such as `AuthorizationPolicy/shop/orders-callers`.
    pub policy: String,
    /// What it does to calls that it matches.
    pub action: Action,
    /// The proven identity of the caller is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<SpiffeId>>,
    /// The method is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// The path matches one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathPattern>>,
}

/// What a rule does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Action {
    /// permits the call, unless a `Deny` matches too. The Service is then closed to all other calls.
    Allow,
    /// refuses the call, whatever else matches.
    Deny,
    /// counts the call in `weft_authz_decisions_total`, and decides nothing.
    Audit,
}

/// A path of a policy: exact, or `PREFIX/*` which takes `PREFIX/` and all below it, but not `PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern {
    text: String,
    /// The part before the star, or all of it, in the form in which applications compare it that ignore case.
    folded: String,
}

/// Why a text is not a [`PathPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// It does not begin with `/`.
    #[error("a path begins with /")]
    NotAbsolute,
    /// `*` is not the whole last segment.
    #[error("* may only be the whole last segment, as in /orders/*")]
    Star,
    /// It can never match, because requests with such paths are refused or carry no such characters.
    #[error("a path has no ?, #, white space, control character, empty, . or .. segment")]
    NeverMatches,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_a_sidecar_is_the_whole_table() {
        let table = Table {
            schema: Schema,
            revision: Revision {
                store: "s".into(),
                number: 1,
            },
            trust_domain: "demo.test".parse().unwrap(),
            services: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            session_keys: BTreeMap::from([("HTTPRoute/shop/r 0".to_owned(), Vec::new())]),
            egress: Egress::Observe,
            closed_hosts: BTreeSet::from(["pay.example".to_owned()]),
        };
        let sent = table.write_for(Features::all()).unwrap();
        assert_eq!(serde_json::from_slice::<Table>(&sent).unwrap(), table);
        let mut kept = Vec::new();
        table.write_whole(&mut kept).unwrap();
        assert_eq!(serde_json::from_slice::<Table>(&kept).unwrap(), table);
    }

    #[test]
    fn a_table_of_another_schema_is_refused_with_what_to_do() {
        let table = Table {
            schema: Schema,
            revision: Revision {
                store: "s".into(),
                number: 1,
            },
            trust_domain: "demo.test".parse().unwrap(),
            services: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            session_keys: BTreeMap::new(),
            egress: Egress::default(),
            closed_hosts: BTreeSet::new(),
        };
        let written = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&written).unwrap(), table);
        let newer = written.replace("\"schema\":1", "\"schema\":2");
        let error = serde_json::from_str::<Table>(&newer).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "a table of schema 2, and this sidecar reads 1; run the same version of weft"
            ),
            "{error}"
        );
    }
}
