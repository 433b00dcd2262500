//! The root certificates of one trust domain, and fingerprints of certificates.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::hex;
use crate::identity::TrustDomain;
use crate::limits;

/// The roots that may certify names of one trust domain, and of no other.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// SHA-256 over the DER of a certificate; its text is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// Why a PEM text is not a trust bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not PEM, or no certificate in it.
    #[error("the trust bundle is not PEM with at least one CERTIFICATE block")]
    Pem,
    /// A certificate in it cannot be read.
    #[error("certificate {index} of the trust bundle cannot be read: {reason}")]
    Certificate {
        /// Position in the text, from 1.
        index: usize,
        /// The error of the parser.
        reason: String,
    },
    /// More roots than any mesh has.
    #[error("the trust bundle has more than {} roots", limits::BUNDLE_ROOTS_MAX)]
    Many,
}

/// Why a text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits")]
pub struct FingerprintError;

impl TrustBundle {
    /// Reads PEM certificates as the roots of `trust_domain`.
    ///
    /// # Errors
    /// When there is none, one cannot be read, or there are too many.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .take(limits::BUNDLE_ROOTS_MAX + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| BundleError::Pem)?;
        if roots.is_empty() {
            return Err(BundleError::Pem);
        }
        if roots.len() > limits::BUNDLE_ROOTS_MAX {
            return Err(BundleError::Many);
        }
        let anchors = roots
            .iter()
            .enumerate()
            .map(|(index, root)| {
                webpki::anchor_from_trusted_cert(root)
                    .map(|anchor| anchor.to_owned())
                    .map_err(|error| BundleError::Certificate {
                        index: index + 1,
                        reason: error.to_string(),
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            trust_domain,
            roots,
            anchors,
        })
    }

    /// The roots as PEM.
    pub fn to_pem(&self) -> String {
        to_pem(&self.roots)
    }

    /// The trust domain that these roots vouch for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Fingerprints of the roots, in their order.
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.roots.iter().map(Fingerprint::of).collect()
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

impl Fingerprint {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        Self::of_der(certificate)
    }

    /// The fingerprint of a certificate given as DER.
    pub fn of_der(der: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self(bytes)
    }
}

/// PEM of certificates, one block each.
pub(crate) fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    use fmt::Write as _;

    /// Characters of a PEM line (RFC 7468 section 2).
    const LINE: usize = 64;
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = base64(certificate);
        for line in text.as_bytes().chunks(LINE) {
            let line = str::from_utf8(line).unwrap_or_default();
            let _ = writeln!(pem, "{line}");
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.trust_domain)
            .field("roots", &self.fingerprints())
            .finish()
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        hex::decode(text).map(Self).ok_or(FingerprintError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_what_it_writes() {
        let fingerprint = Fingerprint::of_der(b"x");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }

    #[test]
    fn a_fingerprint_of_another_length_or_alphabet_is_refused() {
        let good = Fingerprint::of_der(b"x").to_string();
        for bad in [
            "",
            "00",
            &good[1..],
            &format!("{good}00"),
            &format!("+{}", &good[1..]),
            &format!("g{}", &good[1..]),
        ] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
        }
    }

    #[test]
    fn text_without_a_certificate_is_no_bundle() {
        let domain: TrustDomain = "t".parse().unwrap();
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\n"] {
            assert!(TrustBundle::from_pem(domain.clone(), text.as_bytes()).is_err());
        }
    }
}
