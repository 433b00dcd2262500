//! The subject of a token: a workload, or one of the mesh's own roles. The roles live in the namespace
//! `weft`, which no workload token can name.

use std::fmt;

use weft_transport::identity::{SpiffeId, SpiffeIdError, TrustDomain};

/// Namespace of the mesh's own identities.
pub const RESERVED_NAMESPACE: &str = "weft";

/// The identity that a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `ns/NAMESPACE/sa/SERVICE-ACCOUNT` outside the reserved namespace.
    Workload {
        /// The namespace.
        namespace: String,
        /// The service account in it.
        service_account: String,
    },
    /// One of the mesh's own roles.
    Role(Role),
}

/// The mesh's own roles that join by token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The config service: sidecars take tables only from it.
    Config,
    /// A person or pipeline that may change the mesh.
    Operator(String),
}

/// Why a text does not name a subject. The caller is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not `ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    #[error("{0:?} is not an identity; write for example ns/shop/sa/orders")]
    Form(String),
    /// A part holds characters that a SPIFFE ID cannot.
    #[error("{0:?} is not an identity: {1}")]
    Name(String, SpiffeIdError),
    /// `ns/weft/...`.
    #[error("{0:?} is reserved for the mesh itself; use --role config or --role operator NAME")]
    Reserved(String),
    /// A full SPIFFE ID of another trust domain.
    #[error("{0} is not in this CA's trust domain {1}")]
    OtherTrustDomain(SpiffeId, TrustDomain),
    /// Neither `config` nor `operator NAME`.
    #[error("{0:?} is not a role; roles are: config, operator NAME")]
    UnknownRole(String),
}

impl Subject {
    /// Reads `ns/shop/sa/orders`, with or without `spiffe://TRUST-DOMAIN/` in front.
    ///
    /// # Errors
    /// See [`SubjectError`].
    pub fn from_identity(trust_domain: &TrustDomain, text: &str) -> Result<Self, SubjectError> {
        let full = if text.starts_with("spiffe://") {
            text.to_owned()
        } else {
            format!("spiffe://{trust_domain}/{}", text.trim_start_matches('/'))
        };
        let id: SpiffeId = full
            .parse()
            .map_err(|error| SubjectError::Name(text.to_owned(), error))?;
        if id.trust_domain() != trust_domain {
            return Err(SubjectError::OtherTrustDomain(id, trust_domain.clone()));
        }
        let Some(workload) = id.workload() else {
            return Err(SubjectError::Form(text.to_owned()));
        };
        if workload.namespace == RESERVED_NAMESPACE {
            return Err(SubjectError::Reserved(text.to_owned()));
        }
        Ok(Self::Workload {
            namespace: workload.namespace.to_owned(),
            service_account: workload.service_account.to_owned(),
        })
    }

    /// Reads `config` or `operator NAME`.
    ///
    /// # Errors
    /// [`SubjectError::UnknownRole`].
    pub fn from_role(text: &str) -> Result<Self, SubjectError> {
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("config"), None, None) => Ok(Self::Role(Role::Config)),
            (Some("operator"), Some(name), None) => Ok(Self::Role(Role::Operator(name.to_owned()))),
            _ => Err(SubjectError::UnknownRole(text.to_owned())),
        }
    }

    /// The identity that certificates for this subject carry.
    ///
    /// # Errors
    /// [`SubjectError::Name`], or [`SubjectError::Reserved`] for a workload in the reserved namespace.
    pub fn identity(&self, trust_domain: &TrustDomain) -> Result<SpiffeId, SubjectError> {
        let (namespace, account) = match self {
            Self::Workload {
                namespace,
                service_account,
            } => {
                if namespace == RESERVED_NAMESPACE {
                    return Err(SubjectError::Reserved(self.to_string()));
                }
                (namespace.as_str(), service_account.clone())
            }
            Self::Role(Role::Config) => (RESERVED_NAMESPACE, "config".to_owned()),
            Self::Role(Role::Operator(name)) => (RESERVED_NAMESPACE, format!("operator-{name}")),
        };
        SpiffeId::for_workload(trust_domain, namespace, &account)
            .map_err(|error| SubjectError::Name(self.to_string(), error))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload {
                namespace,
                service_account,
            } => {
                write!(f, "ns/{namespace}/sa/{service_account}")
            }
            Self::Role(Role::Config) => f.write_str("config"),
            Self::Role(Role::Operator(name)) => write!(f, "operator {name}"),
        }
    }
}

/// The identity of the CA server itself: `ns/weft/sa/ca`.
#[must_use]
pub fn authority(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId::for_workload(trust_domain, RESERVED_NAMESPACE, "ca")
        .expect("both segments are constant and valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_named_shortly_or_in_full() {
        for text in [
            "ns/shop/sa/orders",
            "/ns/shop/sa/orders",
            "spiffe://demo.test/ns/shop/sa/orders",
        ] {
            let subject = Subject::from_identity(&domain(), text).unwrap();
            assert_eq!(
                subject.identity(&domain()).unwrap().as_str(),
                "spiffe://demo.test/ns/shop/sa/orders"
            );
        }
    }

    #[test]
    fn the_reserved_namespace_needs_a_role() {
        let error = Subject::from_identity(&domain(), "ns/weft/sa/config").unwrap_err();
        assert!(matches!(error, SubjectError::Reserved(_)));
        let forged = Subject::Workload {
            namespace: "weft".to_owned(),
            service_account: "config".to_owned(),
        };
        assert!(forged.identity(&domain()).is_err());
    }

    #[test]
    fn roles_have_their_identities() {
        let identity = |text| {
            Subject::from_role(text)
                .unwrap()
                .identity(&domain())
                .unwrap()
                .to_string()
        };
        assert_eq!(identity("config"), "spiffe://demo.test/ns/weft/sa/config");
        assert_eq!(
            identity("operator ann"),
            "spiffe://demo.test/ns/weft/sa/operator-ann"
        );
        assert!(Subject::from_role("operator").is_err());
        assert!(Subject::from_role("operator a b").is_err());
        assert!(
            Subject::from_role("operator a/b")
                .unwrap()
                .identity(&domain())
                .is_err()
        );
        assert!(Subject::from_role("root").is_err());
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "shop/orders",
            "ns/shop",
            "ns/shop/sa/",
            "ns//sa/x",
            "spiffe://other.test/ns/a/sa/b",
            "",
        ] {
            assert!(Subject::from_identity(&domain(), text).is_err(), "{text:?}");
        }
    }

    fn domain() -> TrustDomain {
        "demo.test".parse().unwrap()
    }
}
