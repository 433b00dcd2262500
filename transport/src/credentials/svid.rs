//! An X.509-SVID of this process: certificate chain and private key, checked when made.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::credentials::bundle;
use crate::identity::SpiffeId;
use crate::verify::{FormError, Leaf};

/// A certificate chain (leaf first) with its private key. `Debug` shows no key.
pub struct Svid {
    leaf: Leaf,
    certified: Arc<CertifiedKey>,
}

/// Why a chain and a key are not an SVID.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The chain is not PEM, or holds no certificate.
    #[error("the certificate chain is not PEM with at least one CERTIFICATE block")]
    ChainPem,
    /// The key is not PEM, or holds no private key.
    #[error("the private key is not PEM with one PRIVATE KEY block")]
    KeyPem,
    /// The key's algorithm is not supported.
    #[error("the private key's algorithm is not supported; use ECDSA P-256")]
    KeyAlgorithm,
    /// Key and leaf certificate do not match.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The leaf is not of the form of an X.509-SVID.
    #[error("the certificate is no X.509-SVID: {0}")]
    Form(#[from] FormError),
}

impl SvidError {
    /// Whether the key is at fault, not the certificate. In a pair that does not match the key is at fault,
    /// because the certificate states the identity.
    pub fn is_of_key(&self) -> bool {
        match self {
            Self::KeyPem | Self::KeyAlgorithm | Self::KeyMismatch => true,
            Self::ChainPem | Self::Form(_) => false,
        }
    }
}

impl Svid {
    /// Reads a PEM chain, leaf first, and its PEM private key (PKCS#8 or SEC1).
    ///
    /// # Errors
    /// When one of them cannot be read, the leaf is no X.509-SVID (SPIFFE X509-SVID sections 2
    /// to 4), or the key is another's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SvidError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| SvidError::ChainPem)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| SvidError::KeyPem)?;
        let first = chain.first().ok_or(SvidError::ChainPem)?;
        let leaf = Leaf::parse(first)?;
        let key = any_supported_type(&key).map_err(|_| SvidError::KeyAlgorithm)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| SvidError::KeyMismatch)?;
        Ok(Self {
            leaf,
            certified: Arc::new(certified),
        })
    }

    /// The identity that it proves.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// Start of its validity.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// End of its validity.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// Serial number, lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    /// The chain as PEM, leaf first. Never the key.
    pub fn chain_pem(&self) -> String {
        bundle::to_pem(&self.certified.cert)
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}
