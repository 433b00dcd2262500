//! Tests of `transport/src/verify.rs`.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
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
