//! The name of a resource: its kind, namespace and name. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kinds that weft knows, in the order in which sets are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// See [`super::MeshConfigSpec`].
    MeshConfig,
    /// See [`super::ServiceSpec`].
    Service,
    /// See [`super::ExternalServiceSpec`].
    ExternalService,
    /// See [`super::HttpRouteSpec`].
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// See [`super::GrpcRouteSpec`].
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    /// See [`super::TlsRouteSpec`].
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    /// See [`super::TcpRouteSpec`].
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    /// See [`super::ReferenceGrantSpec`].
    ReferenceGrant,
    /// See [`super::AuthorizationPolicySpec`].
    AuthorizationPolicy,
    /// See [`super::TrafficPolicySpec`].
    TrafficPolicy,
    /// See [`super::WorkloadSpec`].
    Workload,
}

/// All that there is to know of a [`Kind`] beside its types.
struct AboutKind {
    /// The name in documents.
    name: &'static str,
    /// The API group.
    group: &'static str,
    /// Its versions. The first is what weft writes; the others have the same fields.
    versions: &'static [&'static str],
    /// What else commands accept, in lower case: plurals and short forms.
    aliases: &'static [&'static str],
}

/// The API group of weft's own kinds.
pub(crate) const WEFT: &str = "weft.dev";
const WEFT_VERSIONS: &[&str] = &["v1alpha1"];
/// The API group of Gateway API.
pub(crate) const GATEWAY: &str = "gateway.networking.k8s.io";

impl Kind {
    /// All kinds, in the order in which sets are listed.
    pub const ALL: [Self; 11] = [
        Self::MeshConfig,
        Self::Service,
        Self::ExternalService,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::ReferenceGrant,
        Self::AuthorizationPolicy,
        Self::TrafficPolicy,
        Self::Workload,
    ];

    const fn about(self) -> AboutKind {
        match self {
            Self::MeshConfig => AboutKind {
                name: "MeshConfig",
                group: WEFT,
                versions: WEFT_VERSIONS,
                aliases: &["meshconfigs"],
            },
            Self::Service => AboutKind {
                name: "Service",
                group: WEFT,
                versions: WEFT_VERSIONS,
                aliases: &["services"],
            },
            Self::ExternalService => AboutKind {
                name: "ExternalService",
                group: WEFT,
                versions: WEFT_VERSIONS,
                aliases: &["externalservices", "external"],
            },
            Self::HttpRoute => AboutKind {
                name: "HTTPRoute",
                group: GATEWAY,
                versions: &["v1", "v1beta1"],
                aliases: &["httproutes", "route", "routes"],
            },
            Self::GrpcRoute => AboutKind {
                name: "GRPCRoute",
                group: GATEWAY,
                versions: &["v1"],
                aliases: &["grpcroutes"],
            },
            Self::TlsRoute => AboutKind {
                name: "TLSRoute",
                group: GATEWAY,
                versions: &["v1"],
                aliases: &["tlsroutes"],
            },
            Self::TcpRoute => AboutKind {
                name: "TCPRoute",
                group: GATEWAY,
                versions: &["v1", "v1alpha2"],
                aliases: &["tcproutes"],
            },
            Self::ReferenceGrant => AboutKind {
                name: "ReferenceGrant",
                group: GATEWAY,
                versions: &["v1", "v1beta1"],
                aliases: &["referencegrants", "refgrant", "refgrants"],
            },
            Self::AuthorizationPolicy => AboutKind {
                name: "AuthorizationPolicy",
                group: WEFT,
                versions: WEFT_VERSIONS,
                aliases: &["authorizationpolicies", "policy", "policies"],
            },
            Self::TrafficPolicy => AboutKind {
                name: "TrafficPolicy",
                group: WEFT,
                versions: WEFT_VERSIONS,
                aliases: &["trafficpolicies"],
            },
            Self::Workload => AboutKind {
                name: "Workload",
                group: WEFT,
                versions: WEFT_VERSIONS,
                aliases: &["workloads"],
            },
        }
    }

    /// Whether the Gateway API defines it.
    pub const fn is_of_gateway_api(self) -> bool {
        matches!(
            self,
            Self::HttpRoute
                | Self::GrpcRoute
                | Self::TlsRoute
                | Self::TcpRoute
                | Self::ReferenceGrant
        )
    }

    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        self.about().name
    }

    /// Its API group.
    pub(crate) const fn group(self) -> &'static str {
        self.about().group
    }

    /// What weft writes as `apiVersion`.
    pub(super) fn api_version(self) -> String {
        let about = self.about();
        format!("{}/{}", about.group, about.versions[0])
    }

    /// Whether a document of this kind may have that `apiVersion`.
    pub(super) fn is_version(self, text: &str) -> bool {
        let about = self.about();
        text.strip_prefix(about.group)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|version| about.versions.contains(&version))
    }

    /// Whether it has no namespace.
    pub(super) const fn is_of_the_mesh(self) -> bool {
        matches!(self, Self::MeshConfig)
    }

    /// The names of all, for people.
    pub(super) fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl FromStr for Kind {
    type Err = KeyError;

    /// Accepts the name in any case, its plural, and short forms.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let lower = text.to_ascii_lowercase();
        let is_meant = |kind: &Self| {
            let about = kind.about();
            about.name.eq_ignore_ascii_case(&lower) || about.aliases.contains(&lower.as_str())
        };
        let found = Self::ALL.into_iter().find(is_meant);
        found.ok_or_else(|| KeyError::Kind(text.to_owned()))
    }
}

/// Names one resource: `HTTPRoute/shop/orders-split`, or `MeshConfig/mesh`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for MeshConfig.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The resource of that kind and name in a namespace.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind.as_str(), self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
        }
    }
}

/// Why a text does not name a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The kind is unknown.
    #[error("kind {text:?} is not known; use one of {known}", text = .0, known = Kind::names())]
    Kind(String),
    /// It is not `KIND/NAMESPACE/NAME`.
    #[error("a resource is named KIND/NAMESPACE/NAME, or MeshConfig/NAME")]
    Form,
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match parts.as_slice() {
            [kind, name] => (kind.parse::<Kind>()?, "", *name),
            [kind, namespace, name] => (kind.parse()?, *namespace, *name),
            _ => return Err(KeyError::Form),
        };
        if kind.is_of_the_mesh() != namespace.is_empty() {
            return Err(KeyError::Form);
        }
        Ok(Self::new(kind, namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_in_any_case_by_its_plural_and_by_short_forms() {
        for (text, kind) in [
            ("httproute", Kind::HttpRoute),
            ("Routes", Kind::HttpRoute),
            ("grpcroutes", Kind::GrpcRoute),
            ("TLSRoute", Kind::TlsRoute),
            ("TCPRoute", Kind::TcpRoute),
            ("refgrant", Kind::ReferenceGrant),
            ("policies", Kind::AuthorizationPolicy),
        ] {
            assert_eq!(text.parse(), Ok(kind), "{text}");
        }
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert!(kind.is_version(&kind.api_version()), "{kind:?}");
        }
        assert!(Kind::HttpRoute.is_version("gateway.networking.k8s.io/v1beta1"));
        assert!(!Kind::GrpcRoute.is_version("gateway.networking.k8s.io/v1beta1"));
        assert!("UDPRoute".parse::<Kind>().is_err());
    }
}
