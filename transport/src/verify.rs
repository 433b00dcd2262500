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
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
        SanType,
    };

    use super::*;
    use crate::credentials::{Fingerprint, default_allowance};
    use crate::testing::{Authority, FRONTEND, ORDERS, leaf};

    fn now() -> UnixTime {
        UnixTime::now()
    }

    fn at(seconds: i64) -> UnixTime {
        let now = now().as_secs().checked_add_signed(seconds).unwrap();
        UnixTime::since_unix_epoch(Duration::from_secs(now))
    }

    fn judge(authority: &Authority, params: CertificateParams) -> Result<Leaf, VerifyError> {
        judge_at(authority, params, now())
    }

    fn judge_at(
        authority: &Authority,
        params: CertificateParams,
        now: UnixTime,
    ) -> Result<Leaf, VerifyError> {
        let issued = authority.issue(params);
        let bundle = authority.bundle();
        let both = [Usage::Client, Usage::Server]
            .map(|usage| chain(&issued.chain, &bundle, now, default_allowance(), usage));
        let [client, server] = both;
        assert_eq!(client.is_ok(), server.is_ok());
        client
    }

    fn form_error(params: CertificateParams) -> FormError {
        match judge(&Authority::new(), params) {
            Err(VerifyError::Form(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_svid_proves_its_identity_in_both_directions() {
        let leaf = judge(&Authority::new(), leaf(&[ORDERS])).unwrap();
        assert_eq!(leaf.id.as_str(), ORDERS);
    }

    #[test]
    fn a_dns_name_beside_the_one_uri_is_allowed_and_ignored() {
        let mut params = leaf(&[ORDERS]);
        let dns = SanType::DnsName("orders.example".try_into().unwrap());
        params.subject_alt_names.push(dns);
        assert_eq!(
            judge(&Authority::new(), params).unwrap().id.as_str(),
            ORDERS
        );
    }

    #[test]
    fn two_uri_names_are_refused_in_either_order_even_when_one_is_malformed() {
        for uris in [
            [ORDERS, FRONTEND],
            [FRONTEND, ORDERS],
            [ORDERS, "x"],
            ["x", ORDERS],
        ] {
            assert_eq!(form_error(leaf(&uris)), FormError::ManyUris(2));
        }
    }

    #[test]
    fn a_name_elsewhere_than_in_a_uri_does_not_count() {
        let mut params = leaf(&[]);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, ORDERS);
        params.subject_alt_names = vec![
            SanType::Rfc822Name(ORDERS.try_into().unwrap()),
            SanType::DnsName("demo.test".try_into().unwrap()),
        ];
        assert_eq!(form_error(params), FormError::NoUri);
    }

    #[test]
    fn a_ca_certificate_is_no_leaf() {
        let mut params = leaf(&[ORDERS]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        assert_eq!(form_error(params), FormError::IsCa);
    }

    #[test]
    fn signing_bits_or_a_missing_digital_signature_are_refused() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};
        for usages in [
            vec![],
            vec![KeyEncipherment],
            vec![DigitalSignature, KeyCertSign],
            vec![DigitalSignature, CrlSign],
        ] {
            let mut params = leaf(&[ORDERS]);
            params.key_usages = usages;
            assert_eq!(form_error(params), FormError::KeyUsage);
        }
    }

    #[test]
    fn one_extended_key_usage_of_the_two_is_refused_on_both_sides() {
        use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
        for usage in [ServerAuth, ClientAuth, CodeSigning] {
            let mut params = leaf(&[ORDERS]);
            params.extended_key_usages = vec![usage];
            assert_eq!(form_error(params), FormError::ExtendedKeyUsage);
        }
    }

    #[test]
    fn clocks_may_differ_by_twenty_seconds_and_no_more() {
        let authority = Authority::new();
        let params = || {
            let mut params = leaf(&[ORDERS]);
            params.not_before = std::time::SystemTime::now().into();
            params.not_after = (std::time::SystemTime::now() + Duration::from_secs(100)).into();
            params
        };
        for seconds in [-10, 0, 99, 110] {
            assert!(
                judge_at(&authority, params(), at(seconds)).is_ok(),
                "{seconds}"
            );
        }
        let (early, late) = (VerifyError::NotYetValid, VerifyError::Expired);
        for (seconds, expected) in [(-60, &early), (-30, &early), (130, &late), (160, &late)] {
            assert_eq!(
                judge_at(&authority, params(), at(seconds)).unwrap_err(),
                *expected,
                "{seconds}"
            );
        }
    }

    #[test]
    fn a_grace_accepts_what_expired_within_it() {
        let authority = Authority::new();
        let issued = authority.issue(leaf(&[ORDERS]));
        let grace = Allowance {
            late: Duration::from_hours(72),
        };
        let judge = |hours: i64| {
            let now = at(hours * 3600);
            chain(
                &issued.chain,
                &authority.bundle(),
                now,
                grace,
                Usage::Client,
            )
        };
        assert!(judge(72).is_ok());
        assert_eq!(judge(74).unwrap_err(), VerifyError::Expired);
    }

    #[test]
    fn another_authority_of_the_same_names_is_not_trusted() {
        let issued = Authority::new().issue(leaf(&[ORDERS]));
        let bundle = Authority::new().bundle();
        let verdict = chain(
            &issued.chain,
            &bundle,
            now(),
            default_allowance(),
            Usage::Client,
        );
        assert!(matches!(verdict, Err(VerifyError::Path(_))), "{verdict:?}");
    }

    #[test]
    fn a_root_vouches_for_its_own_trust_domain_only() {
        let verdict = judge(
            &Authority::new(),
            leaf(&["spiffe://other.test/ns/shop/sa/orders"]),
        );
        assert!(
            matches!(verdict, Err(VerifyError::TrustDomain(_))),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_leaf_cannot_sign_another_leaf() {
        let authority = Authority::new();
        let params = leaf(&[FRONTEND]);
        let middle = authority.issue(params.clone());
        let key = rcgen::KeyPair::from_pem(&middle.key_pem).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let own_key = rcgen::KeyPair::generate().unwrap();
        let forged = leaf(&[ORDERS]).signed_by(&own_key, &issuer).unwrap();
        let presented = [forged.der().clone(), middle.chain[0].clone()];
        let bundle = authority.bundle();
        let verdict = chain(
            &presented,
            &bundle,
            now(),
            default_allowance(),
            Usage::Client,
        );
        assert!(matches!(verdict, Err(VerifyError::Path(_))), "{verdict:?}");
    }

    #[test]
    fn empty_and_overlong_chains_are_refused_before_any_path_is_built() {
        let authority = Authority::new();
        let bundle = authority.bundle();
        let certificate = authority.issue(leaf(&[ORDERS])).chain.remove(0);
        let long = vec![certificate; limits::PRESENTED_CHAIN_MAX + 1];
        let judge = |presented: &[CertificateDer<'_>]| {
            chain(
                presented,
                &bundle,
                now(),
                default_allowance(),
                Usage::Client,
            )
            .unwrap_err()
        };
        assert_eq!(judge(&[]), VerifyError::Empty);
        assert_eq!(judge(&long), VerifyError::Long);
    }

    #[test]
    fn a_certificate_cut_off_or_extended_anywhere_is_refused() {
        let issued = Authority::new().issue(leaf(&[ORDERS]));
        let der = issued.chain[0].as_ref();
        for length in 0..der.len() {
            assert!(Leaf::parse(&der[..length]).is_err(), "{length}");
        }
        let extended = [der, &[0]].concat();
        assert_eq!(Leaf::parse(&extended).unwrap_err(), FormError::Der);
    }

    #[test]
    fn a_pinned_anchor_must_be_presented_and_vouch_for_the_leaf() {
        let authority = Authority::new();
        let anchor = Fingerprint::of(&authority.root);
        let leaf_only = authority.issue(leaf(&[ORDERS])).chain;
        let with_root = [leaf_only[0].clone(), authority.root.clone()];
        assert!(pinned_chain(&with_root, anchor, now()).is_ok());
        assert_eq!(
            pinned_chain(&leaf_only, anchor, now()).unwrap_err(),
            VerifyError::AnchorMissing
        );
        let strangers = Authority::new().issue(leaf(&[ORDERS])).chain;
        let borrowed_root = [strangers[0].clone(), authority.root.clone()];
        assert!(matches!(
            pinned_chain(&borrowed_root, anchor, now()),
            Err(VerifyError::Path(_))
        ));
    }

    #[test]
    fn a_leaf_that_is_its_own_pinned_anchor_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = leaf(&[ORDERS]).self_signed(&key).unwrap();
        let presented = [own.der().clone()];
        assert_eq!(
            pinned_chain(&presented, Fingerprint::of(own.der()), now()).unwrap_err(),
            VerifyError::AnchorMissing
        );
    }
}
