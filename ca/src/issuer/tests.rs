//! Tests of `ca/src/issuer.rs`.

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
        extended.server_auth && extended.client_auth && !extended.any && extended.other.is_empty()
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
