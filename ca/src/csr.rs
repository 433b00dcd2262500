//! Takes the public key from a certificate signing request, after its holder has proven to have the private
//! key. Subject, names and extensions are ignored. `attest.rs` decides which identity it gets.

use std::{fmt, str::FromStr};

use aws_lc_rs::{digest, signature};
use rcgen::SubjectPublicKeyInfo;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use weft_transport::hex;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
    },
    prelude::FromDer,
};

use crate::limits::CSR_BYTES_MAX;

/// Why a CSR is refused. In each case the client is at fault, and the same CSR is refused again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`CSR_BYTES_MAX`].
    #[error("the certificate request is larger than {CSR_BYTES_MAX} bytes")]
    TooLarge,
    /// Not one PKCS #10 structure in DER.
    #[error("the certificate request is not PKCS #10 in DER")]
    Malformed,
    /// RSA, Ed25519, another curve, a compressed point.
    #[error("the key must be ECDSA on P-256 or P-384, as an uncompressed point")]
    KeyUnsupported,
    /// Neither ecdsa-with-SHA256 nor ecdsa-with-SHA384.
    #[error("the certificate request must be signed with ECDSA and SHA-256 or SHA-384")]
    SignatureUnsupported,
    /// The signature does not match the key: no proof of possession (RFC 2986 section 3).
    #[error("the certificate request is not signed by its own key")]
    SignatureWrong,
}

/// SHA-256 of a public key's point: the same key has the same hash however it was encoded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub(crate) [u8; 32]);

impl KeyHash {
    fn of(point: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, point).as_ref());
        Self(hash)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl FromStr for KeyHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = hex::decode(text).map(Self);
        hash.ok_or("a key hash is 64 hexadecimal digits")
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

/// A public key whose owner has proven possession, of a kind that may be certified.
#[derive(Clone, Debug)]
pub struct ProvenKey {
    info: SubjectPublicKeyInfo,
    hash: KeyHash,
}

impl ProvenKey {
    /// Checks a CSR in DER.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLarge);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let body = &request.certification_request_info;
        let key = &body.subject_pki;
        let curve = Curve::of(key).ok_or(CsrError::KeyUnsupported)?;
        let point = key.subject_public_key.data.as_ref();
        if point.len() != curve.point_bytes() || point.first() != Some(&UNCOMPRESSED) {
            return Err(CsrError::KeyUnsupported);
        }
        let hash = if request.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256 {
            Hash::Sha256
        } else if request.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA384 {
            Hash::Sha384
        } else {
            return Err(CsrError::SignatureUnsupported);
        };
        let algorithm = match (curve, hash) {
            (Curve::P256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
            (Curve::P256, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
            (Curve::P384, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
            (Curve::P384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        };
        // The verification also refuses a point that is not on the curve.
        signature::UnparsedPublicKey::new(algorithm, point)
            .verify(body.raw, &request.signature_value.data)
            .map_err(|_| CsrError::SignatureWrong)?;
        let info = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::KeyUnsupported)?;
        Ok(Self {
            info,
            hash: KeyHash::of(point),
        })
    }

    /// The hash under which the key is remembered.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    pub(crate) fn info(&self) -> &SubjectPublicKeyInfo {
        &self.info
    }
}

/// First byte of an uncompressed point (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
}

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
}

impl Curve {
    fn of(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Option<Self> {
        if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        if curve == OID_EC_P256 {
            Some(Self::P256)
        } else if curve == OID_NIST_EC_P384 {
            Some(Self::P384)
        } else {
            None
        }
    }

    fn point_bytes(self) -> usize {
        match self {
            Self::P256 => 1 + 2 * 32,
            Self::P384 => 1 + 2 * 48,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SignatureAlgorithm};

    use super::*;

    #[test]
    fn p256_and_p384_requests_are_accepted() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
        ] {
            ProvenKey::from_csr(&csr(algorithm)).unwrap();
        }
    }

    #[test]
    fn rsa_ed25519_and_p521_keys_are_refused() {
        for algorithm in [
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_ECDSA_P521_SHA512,
        ] {
            assert_eq!(
                ProvenKey::from_csr(&csr(algorithm)).unwrap_err(),
                CsrError::KeyUnsupported
            );
        }
    }

    #[test]
    fn every_truncation_of_a_good_request_is_refused() {
        let good = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        for length in 0..good.len() {
            assert!(ProvenKey::from_csr(&good[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn no_changed_byte_yields_another_key() {
        let good = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        let hash = ProvenKey::from_csr(&good).unwrap().hash();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                if let Ok(key) = ProvenKey::from_csr(&bad) {
                    assert_eq!(key.hash(), hash, "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut request = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        request.push(0);
        assert_eq!(
            ProvenKey::from_csr(&request).unwrap_err(),
            CsrError::Malformed
        );
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let good = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        let other = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        let point = point(&other);
        let at = good
            .windows(65)
            .position(|window| window == self::point(&good))
            .unwrap();
        let mut forged = good;
        forged[at..at + 65].copy_from_slice(&point);
        assert_eq!(
            ProvenKey::from_csr(&forged).unwrap_err(),
            CsrError::SignatureWrong
        );
    }

    #[test]
    fn an_oversize_request_is_refused_unread() {
        assert_eq!(
            ProvenKey::from_csr(&vec![0x30; CSR_BYTES_MAX + 1]).unwrap_err(),
            CsrError::TooLarge
        );
    }

    #[test]
    fn deep_nesting_is_refused_without_a_panic() {
        // 0x30 0x80 opens an indefinite-length SEQUENCE; 0x30 0x84.. nests definite ones.
        assert!(ProvenKey::from_csr(&[0x30, 0x80].repeat(CSR_BYTES_MAX / 2)).is_err());
        let mut nested = Vec::new();
        for _ in 0..8000 {
            let length = u16::try_from(nested.len()).unwrap().to_be_bytes();
            nested = [&[0x30, 0x82, length[0], length[1]][..], &nested].concat();
        }
        assert!(ProvenKey::from_csr(&nested).is_err());
    }

    fn csr(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec!["ignored.example".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "ignored");
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    fn point(request: &[u8]) -> Vec<u8> {
        let (_, request) = X509CertificationRequest::from_der(request).unwrap();
        request
            .certification_request_info
            .subject_pki
            .subject_public_key
            .data
            .to_vec()
    }
}
