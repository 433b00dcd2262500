//! Names of workloads: SPIFFE trust domains and IDs, parsed strictly, and the proof of one.
//!
//! Not here: certificates that carry these names (see [`crate::credentials`]).
//! Source: SPIFFE-ID standard, section 2.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

const SCHEME: &str = "spiffe://";

/// A SPIFFE trust domain, such as `demo.test`: lower-case letters, digits, dots, dashes and
/// underscores (SPIFFE-ID section 2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE ID, such as `spiffe://demo.test/ns/shop/sa/orders`.
///
/// Two IDs are equal if their texts are equal byte by byte: the standard allows no two spellings of one ID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

/// The parts of an ID of the form `/ns/<namespace>/sa/<service account>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload<'a> {
    /// Namespace that the workload lives in.
    pub namespace: &'a str,
    /// Service account that the workload runs as.
    pub service_account: &'a str,
}

impl SpiffeId {
    /// The ID that the CA gives to a workload: `spiffe://<domain>/ns/<namespace>/sa/<account>`.
    ///
    /// # Errors
    /// When a part is not one valid path segment.
    pub fn for_workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeIdError> {
        check_segment(namespace)?;
        check_segment(service_account)?;
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The trust domain that this ID belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash, such as `/ns/shop/sa/orders`; never empty.
    pub fn path(&self) -> &str {
        self.text
            .get(SCHEME.len() + self.trust_domain.0.len()..)
            .unwrap_or_default()
    }

    /// Namespace and service account, when the path has that form.
    pub fn workload(&self) -> Option<Workload<'_>> {
        let mut segments = self.path().split('/').skip(1);
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) => {
                Some(Workload {
                    namespace,
                    service_account,
                })
            }
            _ => None,
        }
    }

    /// The whole ID as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// An identity that a peer proved in a handshake that is complete.
///
/// Only this crate makes one, so a function that takes a `PeerId` cannot be called with an unproven claim.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerId {
    id: SpiffeId,
    not_after: SystemTime,
}

impl PeerId {
    pub(crate) fn proven(id: SpiffeId, not_after: SystemTime) -> Self {
        Self { id, not_after }
    }

    /// Makes a proof without a handshake, for tests of code that takes one.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_tests(id: SpiffeId, not_after: SystemTime) -> Self {
        Self { id, not_after }
    }

    /// The identity of the peer.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When the certificate that proved it expires. After that, no new stream is accepted.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// Why a text is not a trust domain or a SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// No `spiffe://` in front (lower case).
    #[error("a SPIFFE ID starts with \"spiffe://\"")]
    Scheme,
    /// Nothing between `spiffe://` and the path.
    #[error("the trust domain is empty")]
    TrustDomainEmpty,
    /// Longer than 255 bytes.
    #[error(
        "the trust domain is longer than {} bytes",
        limits::TRUST_DOMAIN_BYTES_MAX
    )]
    TrustDomainLong,
    /// A character outside `a-z 0-9 . - _`.
    #[error("the trust domain has the character {0:?}; allowed are a-z, 0-9, '.', '-' and '_'")]
    TrustDomainCharacter(char),
    /// An ID of a workload has a path.
    #[error("the path is missing; write for example /ns/shop/sa/orders")]
    PathMissing,
    /// `//` or a slash at the end.
    #[error("a path segment is empty (a double slash, or a slash at the end)")]
    SegmentEmpty,
    /// `.` or `..`.
    #[error("\".\" and \"..\" are not allowed as path segments")]
    SegmentDots,
    /// A character outside `A-Z a-z 0-9 . - _`.
    #[error("a path segment has the character {0:?}; allowed are A-Z, a-z, 0-9, '.', '-' and '_'")]
    SegmentCharacter(char),
    /// Longer than 2048 bytes.
    #[error("a SPIFFE ID is at most {} bytes long", limits::SPIFFE_ID_BYTES_MAX)]
    Long,
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::TrustDomainEmpty);
        }
        if text.len() > limits::TRUST_DOMAIN_BYTES_MAX {
            return Err(SpiffeIdError::TrustDomainLong);
        }
        let bad = |c: &char| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
        match text.chars().find(bad) {
            Some(c) => Err(SpiffeIdError::TrustDomainCharacter(c)),
            None => Ok(Self(text.into())),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > limits::SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::Long);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        let trust_domain = domain.parse()?;
        if path.is_empty() {
            return Err(SpiffeIdError::PathMissing);
        }
        path.split('/').try_for_each(check_segment)?;
        Ok(Self {
            text: text.into(),
            trust_domain,
        })
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeIdError> {
    if segment.is_empty() {
        return Err(SpiffeIdError::SegmentEmpty);
    }
    if segment == "." || segment == ".." {
        return Err(SpiffeIdError::SegmentDots);
    }
    let bad = |c: &char| !matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    match segment.chars().find(bad) {
        Some(c) => Err(SpiffeIdError::SegmentCharacter(c)),
        None => Ok(()),
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Result<SpiffeId, SpiffeIdError> {
        text.parse()
    }

    #[test]
    fn a_workload_id_gives_its_parts() {
        let id = id("spiffe://demo.test/ns/shop/sa/orders").unwrap();
        assert_eq!(id.trust_domain().as_str(), "demo.test");
        assert_eq!(id.path(), "/ns/shop/sa/orders");
        assert_eq!(
            id.workload(),
            Some(Workload {
                namespace: "shop",
                service_account: "orders"
            })
        );
    }

    #[test]
    fn other_paths_are_ids_but_no_workloads() {
        for text in [
            "spiffe://t/x",
            "spiffe://t/ns/a/sa",
            "spiffe://t/ns/a/sa/b/c",
            "spiffe://t/NS/a/sa/b",
        ] {
            assert_eq!(id(text).unwrap().workload(), None, "{text}");
        }
    }

    #[test]
    fn look_alikes_are_refused() {
        use SpiffeIdError as E;
        for (text, error) in [
            ("SPIFFE://t/x", E::Scheme),
            ("spiffe:/t/x", E::Scheme),
            (" spiffe://t/x", E::Scheme),
            ("https://t/x", E::Scheme),
            ("spiffe:///x", E::TrustDomainEmpty),
            ("spiffe://Demo.test/x", E::TrustDomainCharacter('D')),
            ("spiffe://user@t/x", E::TrustDomainCharacter('@')),
            ("spiffe://t:80/x", E::TrustDomainCharacter(':')),
            ("spiffe://t%2e/x", E::TrustDomainCharacter('%')),
            ("spiffe://tést/x", E::TrustDomainCharacter('é')),
            ("spiffe://t", E::PathMissing),
            ("spiffe://t/", E::PathMissing),
            ("spiffe://t//x", E::SegmentEmpty),
            ("spiffe://t/x/", E::SegmentEmpty),
            ("spiffe://t/./x", E::SegmentDots),
            ("spiffe://t/../x", E::SegmentDots),
            ("spiffe://t/x?y", E::SegmentCharacter('?')),
            ("spiffe://t/x#y", E::SegmentCharacter('#')),
            ("spiffe://t/%2e%2e", E::SegmentCharacter('%')),
            ("spiffe://t/x\0", E::SegmentCharacter('\0')),
            ("spiffe://t/а", E::SegmentCharacter('а')),
        ] {
            assert_eq!(id(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_bounded_at_the_standard_s_figures() {
        let domain = "d".repeat(255);
        assert!(id(&format!("spiffe://{domain}/x")).is_ok());
        assert_eq!(
            id(&format!("spiffe://{domain}d/x")),
            Err(SpiffeIdError::TrustDomainLong)
        );
        let path = "p".repeat(2048 - "spiffe://t/".len());
        assert!(id(&format!("spiffe://t/{path}")).is_ok());
        assert_eq!(id(&format!("spiffe://t/{path}p")), Err(SpiffeIdError::Long));
    }

    #[test]
    fn a_name_with_a_slash_cannot_reach_into_another_namespace() {
        let domain: TrustDomain = "t".parse().unwrap();
        assert_eq!(
            SpiffeId::for_workload(&domain, "shop/sa/orders", "x"),
            Err(SpiffeIdError::SegmentCharacter('/'))
        );
    }
}
