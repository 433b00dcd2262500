//! Resources: what an operator writes, Kubernetes-shaped YAML with several documents in a file.
//!
//! This file turns each document into a typed [`Resource`] on its own; [`crate::validate`] checks whether
//! resources fit together, and [`crate::compile`] what they mean for a sidecar. Each kind has a file with its
//! types and its reader; `decode.rs` is shared by the readers.

mod conditions;
mod decode;
mod external;
mod files;
mod grant;
mod key;
mod mesh;
mod metadata;
mod policy;
mod route;
mod schema;
mod service;
mod set;
mod traffic;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::findings::{Findings, Position};
use crate::nearest::nearest;
use crate::table::check_label;
use crate::yaml::{self, Node};
use decode::{At, Decoder, Fields};

pub use conditions::{
    CONTROLLER_NAME, Condition, ConditionReason, ConditionStatus, ConditionType, ParentStatus,
    RouteStatus,
};
pub use external::{ExternalPort, ExternalServiceSpec, ExternalTlsSpec, ViaSpec};
pub use files::{FilesError, SourceFile, read_files};
pub use grant::{GrantFrom, GrantTo, ReferenceGrantSpec};
pub use key::{Key, KeyError, Kind};
pub use mesh::MeshConfigSpec;
pub use metadata::Metadata;
pub use policy::{AuthorizationPolicySpec, Operation, Source, TargetRef};
pub use route::specs::{GrpcRouteSpec, HttpRouteSpec, TcpRouteSpec, TlsRouteSpec};
pub use route::{
    BackendRef, CookieConfigSpec, CookieLifetime, CorsSpec, DroppedRule, ExtensionRefSpec,
    FilterType, FractionSpec, GrpcMethodMatch, GrpcRouteMatch, GrpcRouteRule, HeaderModifierSpec,
    HeaderSpec, HttpHeaderMatch, HttpPathMatch, HttpQueryParamMatch, HttpRouteMatch, HttpRouteRule,
    MatchType, ParentRef, PathMatchType, PathModifierSpec, PathModifierType, RedirectScheme,
    Reference, RequestMirrorSpec, RequestRedirectSpec, Route, RouteFilter, RouteRetrySpec, Rule,
    RuleEntry, Rules, SessionCookieSpec, SessionHeaderSpec, SessionPersistenceSpec, SessionType,
    TcpRouteRule, UrlRewriteSpec,
};
pub(crate) use route::{compiled_filters, is_core};
pub use service::{Callers, MutualTls, ServicePort, ServiceSpec};
pub use set::Set;
#[cfg(test)]
pub(crate) use traffic::WHOLE as WHOLE_TRAFFIC_POLICY;
pub use traffic::{
    AlgorithmName, BalanceSpec, BreakerSpec, ConcurrencySpec, FIELDS, FailoverSpec, FaultAbortSpec,
    FaultDelaySpec, FaultSpec, Field, HedgeSpec, OverridesSpec, RateLimitBy, RateLimitSpec,
    RetryBudgetSpec, RetrySpec, Size, Span, SpanRange, SuccessRateSpec, TargetKind, TimeoutsSpec,
    TrafficPolicySpec, TrafficSpec, TrafficTarget,
};
pub use workload::{ServedPort, WorkloadSpec};

/// What a resource of one kind says.
pub trait Spec: Sized {
    /// The kind.
    const KIND: Kind;

    /// The resource, if it is of this kind.
    fn of(resource: &Resource) -> Option<&Object<Self>>;
}

/// Everything that must know all kinds. A kind stands here with its spec and its reader, and in `key.rs` with
/// its names.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident($spec:ty) = $name:literal, $decode:path;)*) => {
        /// One resource of any kind.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        pub enum Resource {
            $($(#[$doc])* #[serde(rename = $name)] $kind(Object<$spec>),)*
        }

        impl Resource {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// Its name and notes.
            pub fn metadata(&self) -> &Metadata {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                }
            }

            /// The same, to write what the config service keeps.
            pub(crate) fn metadata_mut(&mut self) -> &mut Metadata {
                match self {
                    $(Self::$kind(object) => &mut object.metadata,)*
                }
            }

            /// Whether both have the same spec.
            pub(crate) fn says_the_same(&self, other: &Self) -> bool {
                match self {
                    $(Self::$kind(one) => {
                        <$spec>::of(other).is_some_and(|other| one.spec == other.spec)
                    })*
                }
            }

            /// Shows what the mesh makes of it.
            pub(crate) fn show_status(&mut self, status: RouteStatus) {
                match self {
                    $(Self::$kind(object) => object.status = Some(status),)*
                }
            }
        }

        $(impl Spec for $spec {
            const KIND: Kind = Kind::$kind;

            fn of(resource: &Resource) -> Option<&Object<Self>> {
                if let Resource::$kind(object) = resource {
                    Some(object)
                } else {
                    None
                }
            }
        })*

        /// Reads the spec of a document of that kind.
        fn read_spec(
            decoder: &mut Decoder<'_>,
            kind: Kind,
            at: &At<'_>,
            metadata: Option<Metadata>,
        ) -> Option<Resource> {
            match kind {
                $(Kind::$kind => {
                    // The spec is read even if the metadata is wrong, so that all faults are reported at
                    // once.
                    let spec = $decode(decoder, at);
                    Some(Resource::$kind(Object {
                        api_version: kind.api_version(),
                        metadata: metadata?,
                        spec: spec?,
                        status: None,
                    }))
                })*
            }
        }
    };
}

kinds! {
    /// The settings of the whole mesh.
    MeshConfig(MeshConfigSpec) = "MeshConfig", mesh::decode;
    /// A service and who may serve it.
    Service(ServiceSpec) = "Service", service::decode;
    /// A service outside of the mesh.
    ExternalService(ExternalServiceSpec) = "ExternalService", external::decode;
    /// Where requests to a service go.
    HttpRoute(HttpRouteSpec) = "HTTPRoute", route::decode_http;
    /// Where gRPC calls to a service go.
    GrpcRoute(GrpcRouteSpec) = "GRPCRoute", route::decode_grpc;
    /// Where connections of TLS go, by the name that their client asks for.
    TlsRoute(TlsRouteSpec) = "TLSRoute", route::decode_tls;
    /// Where connections to a service go.
    TcpRoute(TcpRouteSpec) = "TCPRoute", route::decode_tcp;
    /// Who of other namespaces may refer to resources.
    ReferenceGrant(ReferenceGrantSpec) = "ReferenceGrant", grant::decode;
    /// Who may call a service.
    AuthorizationPolicy(AuthorizationPolicySpec) = "AuthorizationPolicy", policy::decode;
    /// How requests and connections are treated.
    TrafficPolicy(TrafficPolicySpec) = "TrafficPolicy", traffic::decode;
    /// A peer of the mesh that does not register by itself.
    Workload(WorkloadSpec) = "Workload", workload::decode;
}

/// The parts that all kinds have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Object<S> {
    /// The version of the kind: `weft.dev/v1alpha1`, or `gateway.networking.k8s.io/v1` for kinds of Gateway
    /// API.
    #[schemars(extend("x-range" = "as shown on this page"))]
    pub api_version: String,
    /// What names it.
    pub metadata: Metadata,
    /// What it says.
    pub spec: S,
    /// What the mesh makes of it, of routes. Written by the config service where it shows a resource, and
    /// never kept; what a file says is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RouteStatus>,
}

impl Resource {
    /// What names it.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key {
            kind: self.kind(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }

    /// The document, as YAML.
    pub fn to_yaml(&self) -> String {
        // Strings, numbers, lists and maps with text keys, all of YAML's own types: this cannot fail.
        yaml::to_string(self).unwrap_or_default()
    }
}

/// Documents read from files, with what is needed to point at their fields.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The resources, in the order of the files; each key once.
    pub resources: Vec<Resource>,
    /// Everything that did not fit.
    pub findings: Findings,
    sources: BTreeMap<Key, Document>,
    /// Resources of which only a part could be read, possibly only the name.
    broken: BTreeSet<Key>,
    /// Kinds of documents whose name could not be read; all, if the kind could not either.
    unnamed: BTreeSet<Kind>,
}

#[derive(Debug)]
struct Document {
    file: String,
    root: Node,
}

impl Parsed {
    /// Whether a resource was read with errors, so that a missing field may be one that could not be read.
    pub(crate) fn is_broken(&self, key: &Key) -> bool {
        self.broken.contains(key)
    }

    /// Whether a document that could not be read may be this resource.
    pub(crate) fn may_define(&self, key: &Key) -> bool {
        self.is_broken(key) || self.unnamed.contains(&key.kind)
    }

    fn note_broken(&mut self, kind: Option<Kind>, key: Option<Key>) {
        match (key, kind) {
            (Some(key), _) => {
                self.broken.insert(key);
            }
            (None, Some(kind)) => {
                self.unnamed.insert(kind);
            }
            (None, None) => self.unnamed.extend(Kind::ALL),
        }
    }

    /// The file and place of a field; of its nearest parent if the field itself is not written.
    pub(crate) fn locate(&self, key: &Key, field: &str) -> Option<(String, Position)> {
        let document = self.sources.get(key)?;
        let node = document.root.nearest(field);
        Some((document.file.clone(), node.position))
    }
}

/// What becomes of a rule of an HTTPRoute or GRPCRoute that is not valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidRules {
    /// The change is refused.
    #[default]
    Refuse,
    /// The rule is left out, with warnings, and the route has the condition PartiallyInvalid. So a route
    /// that stands in Kubernetes already is taken over as far as it can be.
    Drop,
}

impl InvalidRules {
    /// [`Self::Drop`] if it is asked for.
    pub fn dropped_if(asked: bool) -> Self {
        match asked {
            true => Self::Drop,
            false => Self::Refuse,
        }
    }
}

/// Reads all documents of all files. Faults are in the result's findings.
pub fn parse(files: &[SourceFile]) -> Parsed {
    parse_with(files, InvalidRules::Refuse)
}

/// The same; what becomes of invalid rules is said.
pub fn parse_with(files: &[SourceFile], invalid_rules: InvalidRules) -> Parsed {
    let mut parsed = Parsed::default();
    for file in files {
        let mut decoder = Decoder {
            file: &file.name,
            kind: None,
            resource: None,
            findings: Findings::default(),
            invalid_rules,
        };
        match yaml::documents(&file.text) {
            Ok(documents) => {
                for root in documents {
                    (decoder.kind, decoder.resource) = (None, None);
                    let errors = decoder.findings.errors();
                    let resource = document(&mut decoder, &root);
                    if decoder.findings.errors() > errors {
                        parsed.note_broken(decoder.kind, decoder.resource.clone());
                    }
                    let Some(resource) = resource else {
                        continue;
                    };
                    let key = resource.key();
                    if let Some(first) = parsed.sources.get(&key) {
                        let (name, line) = (&first.file, first.root.position.line);
                        let hint = format!("it stands at {name}:{line} already");
                        decoder.error(
                            &At::root(&root),
                            format!("{key} is defined twice"),
                            Some(hint),
                        );
                        continue;
                    }
                    parsed.sources.insert(
                        key,
                        Document {
                            file: file.name.clone(),
                            root,
                        },
                    );
                    parsed.resources.push(resource);
                }
            }
            Err(error) => {
                parsed.note_broken(None, None);
                let position = error.position.unwrap_or(Position { line: 1, column: 1 });
                decoder.error_at(position, String::new(), error.message, None);
            }
        }
        parsed.findings.extend(decoder.findings);
    }
    parsed
}

fn document(decoder: &mut Decoder<'_>, root: &Node) -> Option<Resource> {
    let mut fields = Fields::open(decoder, &At::root(root))?;
    let version_at = fields.require(decoder, "apiVersion");
    let kind_at = fields.require(decoder, "kind");
    let kind = kind_at.and_then(|at| kind(decoder, &at));
    if let (Some(at), Some(kind)) = (version_at, kind)
        && decoder
            .text(&at)
            .is_some_and(|version| !kind.is_version(&version))
    {
        let hint = format!("write apiVersion: {}", kind.api_version());
        decoder.error(
            &at,
            format!("not a version of {} that weft knows", kind.as_str()),
            Some(hint),
        );
    }
    let kind = kind?;
    decoder.kind = Some(kind);
    let metadata = fields
        .require(decoder, "metadata")
        .and_then(|at| metadata::decode(decoder, &at, kind));
    if let Some(metadata) = &metadata {
        let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone());
        decoder.resource = Some(Key {
            kind,
            namespace,
            name,
        });
    }
    // The config service judges anew: what a file says of it is not read.
    fields.take("status");
    let spec_at = fields.require(decoder, "spec");
    fields.close(decoder);
    read_spec(decoder, kind, &spec_at?, metadata)
}

fn kind(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<Kind> {
    let text = decoder.text(at)?;
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == text) {
        return Some(kind);
    }
    let known = Kind::ALL.map(Kind::as_str);
    match text.as_str() {
        "UDPRoute" => {
            let hint = format!("supported kinds are {}", known.join(", "));
            decoder.error(at, format!("kind {text} is not supported yet"), Some(hint));
        }
        _ => {
            let hint = match nearest(&text, &known) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("supported kinds are {}", known.join(", ")),
            };
            decoder.error(at, format!("kind {text:?} is not known"), Some(hint));
        }
    }
    None
}

fn label(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<String> {
    let text = decoder.text(at)?;
    if let Err(error) = check_label(&text) {
        decoder.error(at, format!("{text:?} is not valid: {error}"), None);
        return None;
    }
    Some(text)
}

/// A request method. Methods are case-sensitive, and none in use is in lower case.
fn method(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<String> {
    let method: http::Method = decoder.parsed(at, "")?;
    let upper = method.as_str().to_ascii_uppercase();
    if upper != method.as_str() {
        decoder.error(
            at,
            format!("{:?} never matches", method.as_str()),
            Some(format!("write {upper}")),
        );
        return None;
    }
    Some(upper)
}
