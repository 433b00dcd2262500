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
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use weft_transport::credentials::{Credentials, Svid, TrustBundle};
    use x509_parser::extensions::GeneralName;
    use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_root_is_a_ca_of_its_trust_domain_for_ten_years() {
        let authority = new(1);
        let der = certificate(ROOT, authority.root.as_bytes()).unwrap();
        let root = parsed(ROOT, &der).unwrap();
        check_authority(&root, 1, ROOT_LIFE);
        assert_eq!(root.issuer(), root.subject());
        root.verify_signature(None).unwrap();
    }

    #[test]
    fn the_issuing_certificate_signs_leaves_only_for_one_year() {
        let authority = new(1);
        let root_der = certificate(ROOT, authority.root.as_bytes()).unwrap();
        let root = parsed(ROOT, &root_der).unwrap();
        let der = certificate(ISSUING, authority.issuing.as_bytes()).unwrap();
        let issuing = parsed(ISSUING, &der).unwrap();
        check_authority(&issuing, 0, ISSUING_LIFE);
        assert_eq!(issuing.issuer(), root.subject());
        assert_ne!(issuing.subject(), root.subject());
        issuing.verify_signature(Some(root.public_key())).unwrap();
    }

    #[test]
    fn an_svid_has_every_field_that_the_standard_asks_for_and_no_other_name() {
        let svid = issue(DAY, now());
        let blocks: Vec<_> = CertificateDer::pem_slice_iter(svid.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(
            blocks.len(),
            2,
            "leaf and issuing certificate; the root is in the bundle"
        );
        let leaf = parsed("leaf", &blocks[0]).unwrap();
        let issuing = parsed(ISSUING, &blocks[1]).unwrap();
        leaf.verify_signature(Some(issuing.public_key())).unwrap();
        assert_eq!(leaf.issuer(), issuing.subject());
        assert_eq!(
            leaf.signature_algorithm.algorithm,
            OID_SIG_ECDSA_WITH_SHA256
        );
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::URI(ORDERS)]);
        assert!(!leaf.is_ca());
        assert!(leaf.basic_constraints().unwrap().is_some());
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(
            usage.critical && usage.value.flags == 1,
            "digitalSignature and nothing else"
        );
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(
            extended.server_auth
                && extended.client_auth
                && !extended.any
                && extended.other.is_empty()
        );
        assert_eq!(
            leaf.validity().not_before.timestamp(),
            seconds(NOW - NOT_BEFORE_SLACK)
        );
        assert_eq!(leaf.validity().not_after.timestamp(), seconds(NOW + DAY));
        assert!(leaf.extensions().iter().all(|extension| !extension.critical
            || matches!(
                extension.oid.to_id_string().as_str(),
                "2.5.29.15" | "2.5.29.19"
            )));
        assert_eq!(hex::encode(leaf.raw_serial()), svid.serial);
        assert_eq!(leaf.raw_serial().len(), 16);
    }

    #[test]
    fn the_transport_takes_what_is_issued() {
        let issuer = issuer();
        let mut rng = StdRng::seed_from_u64(3);
        let id: SpiffeId = ORDERS.parse().unwrap();
        let (svid, key) = issuer.issue_own(&id, DAY, now(), &mut rng).unwrap();
        let svid = Svid::from_pem(svid.chain_pem.as_bytes(), key.as_bytes()).unwrap();
        let bundle = TrustBundle::from_pem(domain(), issuer.bundle_pem().as_bytes()).unwrap();
        Credentials::new(svid, bundle).unwrap();
    }

    #[test]
    fn only_the_key_of_a_request_is_taken() {
        let svid = issue(DAY, now());
        let der = certificate("leaf", svid.chain_pem.as_bytes()).unwrap();
        let text = format!("{:?}", parsed("leaf", &der).unwrap());
        assert!(!text.contains("intruder"), "{text}");
    }

    #[test]
    fn no_svid_outlives_its_issuer() {
        let end = now() + ISSUING_LIFE;
        let svid = issue(DAY, end - Duration::from_secs(3600));
        assert_eq!(svid.not_after, end);
    }

    #[test]
    fn an_issuer_about_to_end_signs_nothing() {
        let issuer = issuer();
        let last = now() + ISSUING_LIFE - ISSUER_LEFT_MIN;
        let sign = |at| {
            issuer.issue(
                &ORDERS.parse().unwrap(),
                &key(),
                DAY,
                at,
                &mut StdRng::seed_from_u64(1),
            )
        };
        assert!(sign(last).is_ok());
        assert!(matches!(
            sign(last + Duration::from_secs(1)),
            Err(IssueError::IssuerExpiring)
        ));
    }

    #[test]
    fn another_trust_domain_gets_nothing() {
        let id = "spiffe://other.test/ns/shop/sa/orders".parse().unwrap();
        let refused = issuer().issue(&id, &key(), DAY, now(), &mut StdRng::seed_from_u64(1));
        assert!(matches!(refused, Err(IssueError::OtherTrustDomain(_))));
    }

    #[test]
    fn serials_are_positive_long_and_distinct() {
        let mut rng = StdRng::seed_from_u64(9);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100_000 {
            let (serial, text) = serial(&mut rng);
            let bytes = serial.to_bytes();
            assert!(bytes.len() == 16 && bytes[0] & 0x80 == 0 && bytes[0] != 0);
            assert!(seen.insert(text));
        }
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused_by_name() {
        let (a, b) = (new(1), new(2));
        let load = |root: &str, issuing: &str, key: &PrivateKeyPem, domain| {
            Issuer::load(domain, root.as_bytes(), issuing.as_bytes(), key.as_bytes()).unwrap_err()
        };
        let error = load(&a.root, &a.issuing, &b.issuing_key, domain());
        assert!(matches!(
            error,
            LoadError::Mismatch("issuing.key", "issuing.crt")
        ));
        let error = load(&b.root, &a.issuing, &a.issuing_key, domain());
        assert!(matches!(
            error,
            LoadError::Mismatch("issuing.crt", "root.crt")
        ));
        let error = load(
            &a.root,
            &a.issuing,
            &a.issuing_key,
            "other.test".parse().unwrap(),
        );
        assert!(matches!(
            error,
            LoadError::Invalid {
                file: "root.crt",
                ..
            }
        ));
        let error = load("no pem", &a.issuing, &a.issuing_key, domain());
        assert!(matches!(
            error,
            LoadError::Invalid {
                file: "root.crt",
                ..
            }
        ));
    }

    #[test]
    fn an_issuing_certificate_is_said_to_end_for_a_third_of_its_life() {
        let issuer = issuer();
        assert!(issuer.ending(now() + ISSUING_LIFE.mul_f64(0.66)).is_empty());
        let late = now() + ISSUING_LIFE.mul_f64(0.67);
        assert_eq!(issuer.ending(late), [("issuing.crt", now() + ISSUING_LIFE)]);
        issuer.check_age(late).unwrap();
        let over = issuer.check_age(now() + ISSUING_LIFE).unwrap_err();
        assert!(over.to_string().contains("weft ca renew"), "{over}");
    }

    #[test]
    fn a_renewed_issuing_certificate_has_a_new_key_and_ends_with_its_root_at_the_latest() {
        let old = new(1);
        let (root, root_key) = (old.root.as_bytes(), old.root_key.as_bytes());
        let renew = |then| super::renew(root, root_key, then, &mut StdRng::seed_from_u64(3));
        let later = now() + ISSUING_LIFE + DAY;
        let renewed = renew(later).unwrap();
        assert_eq!(renewed.not_after, later + ISSUING_LIFE);
        assert_ne!(renewed.key.as_bytes(), old.issuing_key.as_bytes());
        let (issuing, key) = (renewed.certificate.as_bytes(), renewed.key.as_bytes());
        let issuer = Issuer::load(domain(), root, issuing, key).unwrap();
        let id = ORDERS.parse().unwrap();
        let rng = &mut StdRng::seed_from_u64(2);
        issuer
            .issue(&id, &super::tests::key(), DAY, later, rng)
            .unwrap();

        let last = now() + ROOT_LIFE - DAY;
        assert_eq!(renew(last).unwrap().not_after, now() + ROOT_LIFE);
        let over = renew(now() + ROOT_LIFE).unwrap_err();
        assert!(matches!(over, LoadError::RootExpired));
        let foreign = super::renew(root, new(2).root_key.as_bytes(), later, rng).unwrap_err();
        assert!(matches!(
            foreign,
            LoadError::Mismatch("root.key", "root.crt")
        ));
    }

    #[test]
    fn no_debug_form_shows_a_key() {
        let authority = new(1);
        let text = format!("{authority:?} {:?}", issuer());
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }

    const ORDERS: &str = "spiffe://demo.test/ns/shop/sa/orders";
    const ROOT: &str = "root.crt";
    const ISSUING: &str = "issuing.crt";

    fn check_authority(certificate: &X509Certificate<'_>, path_length: u32, life: Duration) {
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(path_length));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(
            names.value.general_names,
            [GeneralName::URI("spiffe://demo.test")]
        );
        assert_eq!(
            certificate.validity().not_before.timestamp(),
            seconds(NOW - NOT_BEFORE_SLACK)
        );
        assert_eq!(
            certificate.validity().not_after.timestamp(),
            seconds(NOW + life)
        );
        assert_eq!(certificate.raw_serial().len(), 16);
    }

    fn issue(ttl: Duration, now: SystemTime) -> IssuedSvid {
        let mut rng = StdRng::seed_from_u64(2);
        issuer()
            .issue(&ORDERS.parse().unwrap(), &key(), ttl, now, &mut rng)
            .unwrap()
    }

    fn key() -> ProvenKey {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["intruder.example".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "intruder");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ProvenKey::from_csr(params.serialize_request(&key).unwrap().der()).unwrap()
    }

    fn issuer() -> Issuer {
        let new = new(1);
        let key = new.issuing_key.as_bytes();
        Issuer::load(domain(), new.root.as_bytes(), new.issuing.as_bytes(), key).unwrap()
    }

    fn new(seed: u64) -> NewAuthority {
        create(&domain(), now(), &mut StdRng::seed_from_u64(seed)).unwrap()
    }

    fn domain() -> TrustDomain {
        "demo.test".parse().unwrap()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + NOW
    }

    fn seconds(duration: Duration) -> i64 {
        i64::try_from(duration.as_secs()).unwrap()
    }
}
