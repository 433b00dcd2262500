//! The name of a resource: its kind, namespace and name. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{GATEWAY_VERSION, WEFT_VERSION};

/// The kinds that weft knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// See [`super::MeshConfigSpec`].
    MeshConfig,
    /// See [`super::ServiceSpec`].
    Service,
    /// See [`super::HttpRouteSpec`].
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// See [`super::AuthorizationPolicySpec`].
    AuthorizationPolicy,
    /// See [`super::TrafficPolicySpec`].
    TrafficPolicy,
}

impl Kind {
    /// All kinds, in the order in which sets are listed.
    pub const ALL: [Self; 5] = [
        Self::MeshConfig,
        Self::Service,
        Self::HttpRoute,
        Self::AuthorizationPolicy,
        Self::TrafficPolicy,
    ];

    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeshConfig => "MeshConfig",
            Self::Service => "Service",
            Self::HttpRoute => "HTTPRoute",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::TrafficPolicy => "TrafficPolicy",
        }
    }

    /// Whether the Gateway API defines it.
    pub fn is_of_gateway_api(self) -> bool {
        self.api_version() == GATEWAY_VERSION
    }

    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::HttpRoute => GATEWAY_VERSION,
            Self::MeshConfig | Self::Service | Self::AuthorizationPolicy | Self::TrafficPolicy => {
                WEFT_VERSION
            }
        }
    }
}

impl FromStr for Kind {
    type Err = KeyError;

    /// Accepts the name in any case, its plural, and the short forms `route` and `policy`.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text.to_ascii_lowercase().as_str() {
            "meshconfig" | "meshconfigs" => Ok(Self::MeshConfig),
            "service" | "services" => Ok(Self::Service),
            "httproute" | "httproutes" | "route" | "routes" => Ok(Self::HttpRoute),
            "authorizationpolicy" | "authorizationpolicies" | "policy" | "policies" => {
                Ok(Self::AuthorizationPolicy)
            }
            "trafficpolicy" | "trafficpolicies" => Ok(Self::TrafficPolicy),
            _ => Err(KeyError::Kind(text.to_owned())),
        }
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
    #[error(
        "kind {0:?} is not known; use Service, HTTPRoute, AuthorizationPolicy, TrafficPolicy or MeshConfig"
    )]
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
            [kind, name] => (kind.parse()?, "", *name),
            [kind, namespace, name] => (kind.parse()?, *namespace, *name),
            _ => return Err(KeyError::Form),
        };
        if (kind == Kind::MeshConfig) != namespace.is_empty() {
            return Err(KeyError::Form);
        }
        Ok(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}
