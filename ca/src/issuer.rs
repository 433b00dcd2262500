//! The certificates that this CA makes: root, issuing certificate, SVIDs. Pure: time and randomness are
//! arguments.
//!
//! ```text
//! root (10 y, pathLen 1) -> issuing (1 y, pathLen 0) -> SVID (24 h, one URI SAN)
//! ```
//! This CA sets every field; the only value taken from a client is its public key (`csr.rs`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::CryptoRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use weft_transport::credentials::Fingerprint;
use weft_transport::hex;
use weft_transport::identity::{SpiffeId, TrustDomain};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::{
    csr::ProvenKey,
    limits::{ISSUER_LEFT_MIN, ISSUING_LIFE, NOT_BEFORE_SLACK, ROOT_LIFE},
};

/// Why no certificate was made. The client cannot change any of these.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Less than [`ISSUER_LEFT_MIN`] of the issuing certificate's life is left.
    #[error(
        "the issuing certificate expires too soon to sign anything, or has expired: run `weft ca renew`"
    )]
    IssuerExpiring,
    /// The identity belongs to another trust domain.
    #[error("{0} is not in the trust domain of this CA")]
    OtherTrustDomain(SpiffeId),
    /// The library refused; not expected.
    #[error("cannot make the certificate: {0}")]
    Library(#[from] rcgen::Error),
}

/// Why the CA's own keys and certificates are not usable.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// `file` does not hold what its name says.
    #[error("{file} is not valid: {reason}")]
    Invalid {
        /// Name in the CA's directory.
        file: &'static str,
        /// The fault.
        reason: String,
    },
    /// Key and certificate, or certificate and root, are not a pair.
    #[error("{0} and {1} do not belong together")]
    Mismatch(&'static str, &'static str),
    /// The issuing certificate has expired.
    #[error("issuing.crt has expired: run `weft ca renew`")]
    Expired,
    /// No certificate can be issued under the root any more.
    #[error(
        "root.crt has expired: make a new CA with `weft ca init`, and join every workload again"
    )]
    RootExpired,
    /// The library refused; not expected.
    #[error("cannot make the certificate: {0}")]
    Library(String),
}

/// A CA as it was just made: keys and certificates as PEM.
#[derive(Debug)]
pub struct NewAuthority {
    /// Signs issuing certificates; needed again only for the next one.
    pub root_key: PrivateKeyPem,
    /// The trust anchor.
    pub root: String,
    /// Signs SVIDs.
    pub issuing_key: PrivateKeyPem,
    /// The root to which SVIDs chain.
    pub issuing: String,
}

/// A private key in PKCS #8 PEM: wiped when dropped, never shown.
#[derive(Clone)]
pub struct PrivateKeyPem(Zeroizing<String>);

impl PrivateKeyPem {
    /// A new P-256 key.
    pub(crate) fn generate() -> Result<(KeyPair, Self), rcgen::Error> {
        let key = KeyPair::generate()?;
        let pem = Self(Zeroizing::new(key.serialize_pem()));
        Ok((key, pem))
    }

    /// The PEM text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKeyPem(..)")
    }
}

/// Makes root and issuing certificate of a new CA.
///
/// # Errors
/// [`IssueError::Library`], not expected.
pub fn create(
    trust_domain: &TrustDomain,
    now: SystemTime,
    rng: &mut impl CryptoRng,
) -> Result<NewAuthority, IssueError> {
    let (root_key, root_key_pem) = PrivateKeyPem::generate()?;
    let (issuing_key, issuing_key_pem) = PrivateKeyPem::generate()?;
    let root_params = authority_params("root", trust_domain, 1, ROOT_LIFE, now, rng)?;
    let root = root_params.self_signed(&root_key)?;
    let root_issuer = rcgen::Issuer::from_params(&root_params, root_key);
    let issuing = authority_params("issuing", trust_domain, 0, ISSUING_LIFE, now, rng)?
        .signed_by(&issuing_key, &root_issuer)?;
    Ok(NewAuthority {
        root_key: root_key_pem,
        root: root.pem(),
        issuing_key: issuing_key_pem,
        issuing: issuing.pem(),
    })
}

/// An issuing certificate and its key.
#[derive(Debug)]
pub(crate) struct NewIssuing {
    pub(crate) key: PrivateKeyPem,
    pub(crate) certificate: String,
    pub(crate) not_after: SystemTime,
}

/// Makes the next issuing certificate under a root: with a new key, and ending with the root at the latest.
pub(crate) fn renew(
    root_pem: &[u8],
    root_key_pem: &[u8],
    now: SystemTime,
    rng: &mut impl CryptoRng,
) -> Result<NewIssuing, LoadError> {
    let root_der = certificate("root.crt", root_pem)?;
    let root = parsed("root.crt", &root_der)?;
    let root_key = key("root.key", root_key_pem)?;
    if root_key.public_key_raw() != root.public_key().subject_public_key.data.as_ref() {
        return Err(LoadError::Mismatch("root.key", "root.crt"));
    }
    let trust_domain = trust_domain_of(&root)?;
    let left = not_after(&root).duration_since(now).unwrap_or_default();
    if left < ISSUER_LEFT_MIN {
        return Err(LoadError::RootExpired);
    }
    let life = ISSUING_LIFE.min(left);
    let library = |error: rcgen::Error| LoadError::Library(error.to_string());
    let root_issuer = rcgen::Issuer::from_ca_cert_der(&root_der, root_key).map_err(library)?;
    let (issuing_key, key) = PrivateKeyPem::generate().map_err(library)?;
    let certificate = authority_params("issuing", &trust_domain, 0, life, now, rng)
        .map_err(|error| LoadError::Library(error.to_string()))?
        .signed_by(&issuing_key, &root_issuer)
        .map_err(library)?;
    Ok(NewIssuing {
        key,
        certificate: certificate.pem(),
        not_after: whole_seconds(now + life),
    })
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedSvid {
    /// Leaf, then issuing certificate; PEM.
    pub chain_pem: String,
    /// Lower-case hex.
    pub serial: String,
    /// End of its life.
    pub not_after: SystemTime,
}

/// The issuing key at work.
pub struct Issuer {
    trust_domain: TrustDomain,
    root_pem: String,
    issuing_pem: String,
    issuing_life: (SystemTime, SystemTime),
    root_life: (SystemTime, SystemTime),
    signer: rcgen::Issuer<'static, KeyPair>,
}

impl Issuer {
    /// Takes the CA's PEM files and checks that they match. [`Self::check_age`] judges their age.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(
        trust_domain: TrustDomain,
        root_pem: &[u8],
        issuing_pem: &[u8],
        issuing_key_pem: &[u8],
    ) -> Result<Self, LoadError> {
        let root_der = certificate("root.crt", root_pem)?;
        let issuing_der = certificate("issuing.crt", issuing_pem)?;
        let root = parsed("root.crt", &root_der)?;
        let issuing = parsed("issuing.crt", &issuing_der)?;
        let key = key("issuing.key", issuing_key_pem)?;
        if key.public_key_raw() != issuing.public_key().subject_public_key.data.as_ref() {
            return Err(LoadError::Mismatch("issuing.key", "issuing.crt"));
        }
        if issuing.verify_signature(Some(root.public_key())).is_err() {
            return Err(LoadError::Mismatch("issuing.crt", "root.crt"));
        }
        if trust_domain_of(&root)? != trust_domain {
            return Err(invalid(
                "root.crt",
                format!("it is not the root of spiffe://{trust_domain}"),
            ));
        }
        Ok(Self {
            trust_domain,
            root_pem: String::from_utf8_lossy(root_pem).into_owned(),
            issuing_pem: String::from_utf8_lossy(issuing_pem).into_owned(),
            issuing_life: life(&issuing),
            root_life: life(&root),
            signer: rcgen::Issuer::from_ca_cert_der(&issuing_der, key)
                .map_err(|error| invalid("issuing.crt", error))?,
        })
    }

    /// Refuses an issuing certificate that has expired.
    ///
    /// # Errors
    /// [`LoadError::Expired`].
    pub fn check_age(&self, now: SystemTime) -> Result<(), LoadError> {
        if self.issuing_not_after() <= now {
            return Err(LoadError::Expired);
        }
        Ok(())
    }

    /// Issues an SVID: `not_after` is `now + ttl`, or the issuer's own end if that comes first.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn issue(
        &self,
        identity: &SpiffeId,
        key: &ProvenKey,
        ttl: Duration,
        now: SystemTime,
        rng: &mut impl CryptoRng,
    ) -> Result<IssuedSvid, IssueError> {
        self.sign(identity, key.info(), ttl, now, rng)
    }

    /// Makes the CA server's own SVID and key. Its chain carries the root as well, so that a joining client
    /// can recognise it by the fingerprint in its token.
    pub(crate) fn issue_own(
        &self,
        identity: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(IssuedSvid, PrivateKeyPem), IssueError> {
        let (key, pem) = PrivateKeyPem::generate()?;
        let mut svid = self.sign(identity, &key, ttl, now, rng)?;
        svid.chain_pem.push_str(&self.root_pem);
        Ok((svid, pem))
    }

    fn sign(
        &self,
        identity: &SpiffeId,
        key: &impl rcgen::PublicKeyData,
        ttl: Duration,
        now: SystemTime,
        rng: &mut impl CryptoRng,
    ) -> Result<IssuedSvid, IssueError> {
        if identity.trust_domain() != &self.trust_domain {
            return Err(IssueError::OtherTrustDomain(identity.clone()));
        }
        if self.issuing_not_after() < now + ISSUER_LEFT_MIN {
            return Err(IssueError::IssuerExpiring);
        }
        let not_after = whole_seconds(now + ttl).min(self.issuing_not_after());
        let mut params = CertificateParams::default();
        // A name for people only; the identity is the URI (X509-SVID section 2).
        params.distinguished_name = name("workload");
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = whole_seconds(now - NOT_BEFORE_SLACK).into();
        params.not_after = not_after.into();
        let (serial, serial_text) = serial(rng);
        params.serial_number = Some(serial);
        let leaf = params.signed_by(key, &self.signer)?;
        Ok(IssuedSvid {
            chain_pem: format!("{}{}", leaf.pem(), self.issuing_pem),
            serial: serial_text,
            not_after,
        })
    }

    /// The trust domain this CA speaks for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The trust anchors as PEM.
    #[must_use]
    pub fn bundle_pem(&self) -> &str {
        &self.root_pem
    }

    /// End of the issuing certificate's life.
    #[must_use]
    pub fn issuing_not_after(&self) -> SystemTime {
        self.issuing_life.1
    }

    /// The issuing certificate as PEM.
    pub(crate) fn issuing_pem(&self) -> &str {
        &self.issuing_pem
    }

    /// The CA's certificates that have less than a third of their life left: file and expiry.
    pub(crate) fn ending(&self, now: SystemTime) -> Vec<(&'static str, SystemTime)> {
        let all = [
            ("issuing.crt", self.issuing_life),
            ("root.crt", self.root_life),
        ];
        let is_ending = |(start, end): (SystemTime, SystemTime)| {
            let whole = end.duration_since(start).unwrap_or_default();
            end.duration_since(now).unwrap_or_default() < whole / 3
        };
        let ending = all.into_iter().filter(|(_, life)| is_ending(*life));
        ending.map(|(file, (_, end))| (file, end)).collect()
    }

    /// End of the root's life.
    #[must_use]
    pub fn root_not_after(&self) -> SystemTime {
        self.root_life.1
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// A CA certificate of the form that X509-SVID section 3.2 and 4.2 ask for: trust-domain URI without a path,
/// critical keyCertSign, a bounded path.
fn authority_params(
    role: &str,
    trust_domain: &TrustDomain,
    path_length: u8,
    life: Duration,
    now: SystemTime,
    rng: &mut impl CryptoRng,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    let (serial, serial_text) = serial(rng);
    // The serial keeps the names of two roots of one trust domain apart, because path building compares
    // names.
    params.distinguished_name = name(&format!("{trust_domain} {role} {}", &serial_text[..8]));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = whole_seconds(now - NOT_BEFORE_SLACK).into();
    params.not_after = whole_seconds(now + life).into();
    params.serial_number = Some(serial);
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    // A common name has at most 64 characters (RFC 5280 appendix A.1, ub-common-name).
    let common: String = common.chars().take(64).collect();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "weft");
    name.push(DnType::CommonName, common);
    name
}

/// 126 random bits in 16 bytes, positive and of constant length (RFC 5280 section 4.1.2.2 allows 20 bytes).
fn serial(rng: &mut impl CryptoRng) -> (SerialNumber, String) {
    let mut bytes = [0_u8; 16];
    rng.fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x3f | 0x40;
    (SerialNumber::from_slice(&bytes), hex::encode(&bytes))
}

/// X.509 times have whole seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn certificate(file: &'static str, pem: &[u8]) -> Result<CertificateDer<'static>, LoadError> {
    CertificateDer::from_pem_slice(pem).map_err(|error| invalid(file, error))
}

fn parsed<'a>(file: &'static str, der: &'a [u8]) -> Result<X509Certificate<'a>, LoadError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|error| invalid(file, error))
}

fn key(file: &'static str, pem: &[u8]) -> Result<KeyPair, LoadError> {
    let text = std::str::from_utf8(pem).map_err(|_| invalid(file, "not text"))?;
    KeyPair::from_pem(text).map_err(|error| invalid(file, error))
}

/// The trust domain that a root names (X509-SVID section 3.2: its URI has no path).
fn trust_domain_of(root: &X509Certificate<'_>) -> Result<TrustDomain, LoadError> {
    let names = root.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice());
    let uri = names.unwrap_or_default().iter().find_map(|name| {
        let x509_parser::extensions::GeneralName::URI(uri) = name else {
            return None;
        };
        uri.strip_prefix("spiffe://")
    });
    uri.and_then(|name| name.parse().ok())
        .ok_or_else(|| invalid("root.crt", "it names no trust domain"))
}

/// The trust domain that a root names, from its PEM.
pub(crate) fn root_trust_domain(root_pem: &[u8]) -> Result<TrustDomain, LoadError> {
    trust_domain_of(&parsed("root.crt", &certificate("root.crt", root_pem)?)?)
}

fn life(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).unwrap_or(0);
    (
        UNIX_EPOCH + Duration::from_secs(seconds),
        not_after(certificate),
    )
}

fn not_after(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn invalid(file: &'static str, reason: impl ToString) -> LoadError {
    LoadError::Invalid {
        file,
        reason: reason.to_string(),
    }
}

/// Fingerprint, start and end of a certificate.
pub(crate) fn validity(
    file: &'static str,
    pem: &[u8],
) -> Result<(Fingerprint, SystemTime, SystemTime), LoadError> {
    let der = certificate(file, pem)?;
    let (start, end) = life(&parsed(file, &der)?);
    Ok((Fingerprint::of_der(&der), start, end))
}

#[cfg(test)]
mod tests;
