//! Every bound of this crate outside [`crate::http3`], with its unit and its reason.

use std::time::Duration;

/// Bytes of a trust domain name (SPIFFE-ID section 2.1).
pub(crate) const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Bytes of a whole SPIFFE ID (SPIFFE-ID section 2.3: implementations must support 2048 and
/// should not produce more).
pub(crate) const SPIFFE_ID_BYTES_MAX: usize = 2048;

/// How far clocks of two hosts may disagree before a certificate counts as expired or not yet
/// valid: NTP keeps hosts within milliseconds, unsynchronised virtual machines within seconds.
pub(crate) const CLOCK_SKEW_MAX: Duration = Duration::from_secs(20);

/// Certificates that a peer may present: leaf, issuing, and for the CA its root; one more for an
/// operator's own intermediate. More is only an attack on path building.
pub(crate) const PRESENTED_CHAIN_MAX: usize = 4;

/// Roots in a bundle: rotation overlaps two; an operator's merger of meshes a few more.
pub(crate) const BUNDLE_ROOTS_MAX: usize = 16;

/// Time for a TLS handshake over TCP with a control-plane process, both sides.
pub(crate) const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
