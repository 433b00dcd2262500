//! How a peer's certificate is judged: the form of an X.509-SVID, and the path to a root.
//!
//! Pure: it takes certificates, bundle and time, and returns a verdict. The rustls callbacks around it are in
//! [`crate::tls`]. Source: SPIFFE X509-SVID standard sections 2 to 5, RFC 5280.

use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::credentials::TrustBundle;
use crate::identity::{SpiffeId, SpiffeIdError, TrustDomain};
use crate::limits;

/// The contents of a leaf certificate whose form was checked.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) serial: String,
}

/// The side of the handshake that presented a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    Server,
    /// Both sides of a handshake are allowed: for own certificates, and for checks repeated later.
    Either,
}

/// How far outside its validity a certificate is accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// After its end. Before its start only the clock skew is allowed.
    pub(crate) late: Duration,
}

/// Why a leaf does not have the form of an X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Not a DER certificate, or bytes follow it.
    #[error("it is not one DER certificate")]
    Der,
    /// An extension that cannot be parsed or appears twice.
    #[error("an extension is malformed or appears twice")]
    Extensions,
    /// No URI subject alternative name.
    #[error("it has no URI subject alternative name")]
    NoUri,
    /// More than one URI subject alternative name (X509-SVID section 2).
    #[error("it has {0} URI subject alternative names, not exactly one")]
    ManyUris(usize),
    /// The URI is no SPIFFE ID of a workload.
    #[error("its URI name is no SPIFFE ID: {0}")]
    Id(#[from] SpiffeIdError),
    /// A leaf may not be a CA (X509-SVID section 4.1).
    #[error("it is a CA certificate")]
    IsCa,
    /// Key usage missing, without digitalSignature, or with a signing bit (section 4.3).
    #[error("its key usage is not that of a leaf (digitalSignature, no keyCertSign, no cRLSign)")]
    KeyUsage,
    /// Extended key usage without both serverAuth and clientAuth (section 4.4).
    #[error("its extended key usage lacks serverAuth or clientAuth")]
    ExtendedKeyUsage,
}

/// Why a chain is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No certificate at all.
    #[error("no certificate was presented")]
    Empty,
    /// More certificates than [`limits::PRESENTED_CHAIN_MAX`].
    #[error("the chain has more than {} certificates", limits::PRESENTED_CHAIN_MAX)]
    Long,
    /// The leaf is no X.509-SVID.
    #[error("{0}")]
    Form(#[from] FormError),
    /// The name is of a domain that the bundle does not certify.
    #[error("its trust domain {0} is not this mesh's")]
    TrustDomain(TrustDomain),
    /// It expired longer ago than the allowance.
    #[error("it has expired")]
    Expired,
    /// Its start is further ahead than clocks may differ.
    #[error("it is not yet valid")]
    NotYetValid,
    /// No path to a root, or a bad one.
    #[error("it does not chain to a trusted root ({0})")]
    Path(String),
    /// A proven name, but not the requested one.
    #[error("it is for {0}, another identity was expected")]
    OtherIdentity(SpiffeId),
    /// Joining: the pinned root was not among the certificates.
    #[error("the pinned trust anchor is not in the chain")]
    AnchorMissing,
}

impl VerifyError {
    /// Whether no root that is trusted here certifies it, as with a certificate of another mesh.
    pub(crate) fn is_of_another_mesh(&self) -> bool {
        match self {
            Self::TrustDomain(_) | Self::AnchorMissing => true,
            Self::Path(reason) => *reason == webpki::Error::UnknownIssuer.to_string(),
            Self::Empty
            | Self::Long
            | Self::Form(_)
            | Self::Expired
            | Self::NotYetValid
            | Self::OtherIdentity(_) => false,
        }
    }
}

/// Judges a presented chain, leaf first, at `now`.
pub(crate) fn chain(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: UnixTime,
    allowance: Allowance,
    usage: Usage,
) -> Result<Leaf, VerifyError> {
    let leaf = form(chain)?;
    if leaf.id.trust_domain() != bundle.trust_domain() {
        return Err(VerifyError::TrustDomain(leaf.id.trust_domain().clone()));
    }
    path(chain, &leaf, bundle.anchors(), now, allowance, usage)?;
    Ok(leaf)
}

/// As [`chain`], at a time inside the leaf's validity: judges trust, not dates.
pub(crate) fn chain_at_its_own_time(
    presented: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    usage: Usage,
) -> Result<Leaf, VerifyError> {
    let leaf = form(presented)?;
    let now = unix_time(leaf.not_after);
    let allowance = Allowance {
        late: Duration::ZERO,
    };
    chain(presented, bundle, now, allowance, usage)
}

/// Judges the chain of a server that is known only by the fingerprint of its root: one of the
/// presented certificates must be that root, and the leaf must chain to it.
pub(crate) fn pinned_chain(
    chain: &[CertificateDer<'_>],
    anchor: crate::credentials::Fingerprint,
    now: UnixTime,
) -> Result<Leaf, VerifyError> {
    let leaf = form(chain)?;
    let root = chain
        .iter()
        .skip(1)
        .find(|certificate| crate::credentials::Fingerprint::of(certificate) == anchor)
        .ok_or(VerifyError::AnchorMissing)?;
    let root = webpki::anchor_from_trusted_cert(root).map_err(path_error)?;
    let allowance = crate::credentials::default_allowance();
    path(chain, &leaf, &[root], now, allowance, Usage::Server)?;
    Ok(leaf)
}

fn form(chain: &[CertificateDer<'_>]) -> Result<Leaf, VerifyError> {
    let first = chain.first().ok_or(VerifyError::Empty)?;
    if chain.len() > limits::PRESENTED_CHAIN_MAX {
        return Err(VerifyError::Long);
    }
    Ok(Leaf::parse(first)?)
}

fn path(
    chain: &[CertificateDer<'_>],
    leaf: &Leaf,
    anchors: &[TrustAnchor<'_>],
    now: UnixTime,
    allowance: Allowance,
    usage: Usage,
) -> Result<(), VerifyError> {
    let (end_entity, intermediates) = chain.split_first().ok_or(VerifyError::Empty)?;
    let at = time_of_judgement(leaf, now, allowance)?;
    let end_entity = webpki::EndEntityCert::try_from(end_entity).map_err(path_error)?;
    let verify = |usage| {
        end_entity
            .verify_for_usage(
                aws_lc_rs::default_provider()
                    .signature_verification_algorithms
                    .all,
                anchors,
                intermediates,
                at,
                usage,
                None,
                None,
            )
            .map(|_| ())
            .map_err(path_error)
    };
    match usage {
        Usage::Client => verify(webpki::KeyUsage::client_auth()),
        Usage::Server | Usage::Either => verify(webpki::KeyUsage::server_auth()),
    }
}

/// `now` moved into the leaf's validity when it is outside by no more than the allowance.
fn time_of_judgement(
    leaf: &Leaf,
    now: UnixTime,
    allowance: Allowance,
) -> Result<UnixTime, VerifyError> {
    let (start, end) = (unix_time(leaf.not_before), unix_time(leaf.not_after));
    let early = start.as_secs().saturating_sub(now.as_secs());
    let late = now.as_secs().saturating_sub(end.as_secs());
    if early > limits::CLOCK_SKEW_MAX.as_secs() {
        Err(VerifyError::NotYetValid)
    } else if late > allowance.late.as_secs() {
        Err(VerifyError::Expired)
    } else if early > 0 {
        Ok(start)
    } else if late > 0 {
        Ok(end)
    } else {
        Ok(now)
    }
}

fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

fn path_error(error: webpki::Error) -> VerifyError {
    VerifyError::Path(error.to_string())
}

impl Leaf {
    /// Reads a leaf and checks everything that the X509-SVID standard asks of its form.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, FormError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| FormError::Der)?;
        if !rest.is_empty() {
            return Err(FormError::Der);
        }
        check_constraints(&certificate)?;
        check_key_usages(&certificate)?;
        let id = only_uri(&certificate)?.parse()?;
        let validity = certificate.validity();
        Ok(Self {
            id,
            not_before: system_time(validity.not_before.timestamp()),
            not_after: system_time(validity.not_after.timestamp()),
            serial: crate::hex::encode(certificate.raw_serial()),
        })
    }
}

fn check_constraints(certificate: &X509Certificate<'_>) -> Result<(), FormError> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| FormError::Extensions)?;
    match constraints {
        Some(constraints) if constraints.value.ca => Err(FormError::IsCa),
        Some(_) | None => Ok(()),
    }
}

fn check_key_usages(certificate: &X509Certificate<'_>) -> Result<(), FormError> {
    let usage = certificate
        .key_usage()
        .map_err(|_| FormError::Extensions)?
        .ok_or(FormError::KeyUsage)?
        .value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(FormError::KeyUsage);
    }
    let extended = certificate
        .extended_key_usage()
        .map_err(|_| FormError::Extensions)?;
    match extended {
        Some(extended) if !(extended.value.server_auth && extended.value.client_auth) => {
            Err(FormError::ExtendedKeyUsage)
        }
        Some(_) | None => Ok(()),
    }
}

/// The one URI name. Counts raw names: a second one that is malformed is still a second one.
fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, FormError> {
    let mut names = None;
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension()
            && names.replace(found).is_some()
        {
            return Err(FormError::Extensions);
        }
    }
    let uris: Vec<&str> = names
        .into_iter()
        .flat_map(|names| &names.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            // Another parser might read bytes that are not an IA5 string as a second URI.
            GeneralName::Invalid(..) => Some(""),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::DNSName(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => None,
        })
        .collect();
    match uris.as_slice() {
        [] => Err(FormError::NoUri),
        [uri] => Ok(uri),
        many => Err(FormError::ManyUris(many.len())),
    }
}

fn system_time(timestamp: i64) -> SystemTime {
    let seconds = u64::try_from(timestamp).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests;
