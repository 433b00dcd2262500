//! Tests of `ca/src/authority.rs`.

use std::time::UNIX_EPOCH;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rcgen::{CertificateParams, KeyPair};

use weft_transport::metrics::CA_SIGNED;

use super::*;
use crate::attest::TokenRecord;
use crate::limits::{REFUSALS_LOGGED_PER_SOURCE, RENEWAL_GRACE, SVID_TTL_DEFAULT};
use crate::store::About;

#[test]
fn a_stranger_gets_nothing_but_a_line_in_the_log() {
    let mut ca = Ca::new();
    let refused = ca.sign(csr(), Proof::None);
    assert_eq!(refused, Err("no_credential"));
    assert_eq!(ca.issued(), 0);
    assert_eq!(ca.log_lines(), 1);
}

#[test]
fn one_token_buys_one_certificate_however_often_its_key_asks() {
    let mut ca = Ca::new();
    let token = ca.token(1, "orders");
    let mine = csr();
    let first = ca.sign(mine.clone(), token.clone()).unwrap();
    assert_eq!(ca.sign(mine, token.clone()), Ok(first));
    assert_eq!(ca.sign(csr(), token), Err("token_used"));
    assert_eq!(ca.issued(), 1);
}

#[test]
fn a_key_that_has_an_identity_gets_no_second_one() {
    let mut ca = Ca::new();
    let (orders, payments) = (ca.token(1, "orders"), ca.token(2, "payments"));
    let key = csr();
    ca.sign(key.clone(), orders).unwrap();
    assert_eq!(ca.sign(key.clone(), payments), Err("key_taken"));
    assert_eq!(
        ca.sign(key.clone(), ca_svid("payments", &ca)),
        Err("key_taken")
    );
    assert!(ca.sign(key, ca_svid("orders", &ca)).is_ok());
}

#[test]
fn a_refused_token_stays_usable_for_another_key() {
    let mut ca = Ca::new();
    let (orders, payments) = (ca.token(1, "orders"), ca.token(2, "payments"));
    let taken = csr();
    ca.sign(taken.clone(), orders).unwrap();
    assert_eq!(ca.sign(taken, payments.clone()), Err("key_taken"));
    assert!(ca.sign(csr(), payments).is_ok());
}

#[test]
fn a_good_token_buys_its_certificate_after_any_number_of_bad_ones() {
    let mut ca = Ca::new();
    let good = ca.token(1, "orders");
    for _ in 0..1000 {
        let bad = Proof::Token(TokenHash([0; 32]));
        assert_eq!(ca.sign(Vec::new(), bad), Err("token_unknown"));
    }
    assert!(ca.sign(csr(), good).is_ok());
    let refusals = u64::from(REFUSALS_LOGGED_PER_SOURCE);
    assert_eq!(ca.log_lines(), refusals + 1, "few refusals are written");
}

#[test]
fn a_token_that_is_used_over_and_over_by_its_key_fills_no_log() {
    let mut ca = Ca::new();
    let (token, key) = (ca.token(1, "orders"), csr());
    let asked = 300;
    let served = (0..asked)
        .filter(|_| ca.sign(key.clone(), token.clone()).is_ok())
        .count();
    assert_eq!(served, 200, "the burst of one identity");
    assert_eq!(ca.sign(key, token), Err("too_many_signatures"));
}

#[test]
fn an_expired_svid_renews_within_the_grace_only() {
    let mut ca = Ca::new();
    let svid = ca_svid("orders", &ca);
    ca.now.wall += Duration::from_secs(3600) + RENEWAL_GRACE - Duration::from_secs(1);
    assert!(ca.sign(csr(), svid.clone()).is_ok());
    ca.now.wall += Duration::from_secs(1);
    assert_eq!(ca.sign(csr(), svid), Err("svid_expired"));
}

#[test]
fn a_bad_request_spends_no_token() {
    let mut ca = Ca::new();
    let token = ca.token(1, "orders");
    let mut bad = csr();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    assert_eq!(ca.sign(bad, token.clone()), Err("bad_csr"));
    assert!(ca.sign(csr(), token).is_ok());
}

#[test]
fn an_svid_that_buys_nothing_takes_no_signature_of_its_identity() {
    let mut ca = Ca::new();
    let (ended, wall) = (ca_svid("orders", &ca), ca.now.wall);
    ca.now.wall += SVID_TTL_DEFAULT + RENEWAL_GRACE;
    for _ in 0..300 {
        assert_eq!(ca.sign(csr(), ended.clone()), Err("svid_expired"));
    }
    ca.now.wall = wall;
    assert!(ca.sign(csr(), ended).is_ok());
}

#[test]
fn refusals_cannot_push_history_out_of_the_log() {
    let mut ca = Ca::new();
    for source in 0..500_u32 {
        ca.source = IpAddr::V4(source.into());
        let _ = ca.sign(csr(), Proof::None);
    }
    assert_eq!(
        ca.log_lines(),
        u64::from(crate::limits::REFUSALS_LOGGED_PER_MINUTE)
    );
}

struct Ca {
    authority: Authority,
    now: Moment,
    source: IpAddr,
    rng: StdRng,
}

impl Ca {
    fn new() -> Self {
        let now = Moment {
            wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            monotonic: Instant::now(),
        };
        let mut rng = StdRng::seed_from_u64(1);
        let domain: weft_transport::identity::TrustDomain = "demo.test".parse().unwrap();
        let new = crate::issuer::create(&domain, now.wall, &mut rng).unwrap();
        let about = About {
            trust_domain: domain.clone(),
            addresses: Vec::new(),
            listen: None,
            created: unix_seconds(now.wall),
        };
        let store = Store::in_memory(&about).unwrap();
        let issuer = Issuer::load(
            domain,
            new.root.as_bytes(),
            new.issuing.as_bytes(),
            new.issuing_key.as_bytes(),
        );
        let authority = Authority::new(issuer.unwrap(), store, SVID_TTL_DEFAULT, RENEWAL_GRACE);
        let source = "192.0.2.1".parse().unwrap();
        Self {
            authority,
            now,
            source,
            rng,
        }
    }

    fn token(&self, number: u8, account: &str) -> Proof {
        let hash = TokenHash([number; 32]);
        let created = unix_seconds(self.now.wall);
        let record = TokenRecord {
            identity: id(account),
            created,
            expires: created + 3600,
            spent: None,
            restored: false,
        };
        self.authority
            .store
            .write(|t| t.put_token(hash, &record))
            .unwrap();
        Proof::Token(hash)
    }

    fn sign(&mut self, csr: Vec<u8>, proof: Proof) -> Result<String, &'static str> {
        let request = Request {
            csr,
            proof,
            source: self.source,
        };
        match self.authority.sign(&request, self.now, &mut self.rng) {
            Ok(chain) => Ok(chain),
            Err(SignError::Refused(refusal)) => Err(refusal.reason()),
            Err(SignError::Issue(_) | SignError::Store(_)) => Err("failed"),
        }
    }

    fn issued(&self) -> u64 {
        let samples = self.authority.metrics.samples();
        let signed = samples
            .iter()
            .find(|sample| sample.metric.name() == CA_SIGNED.name());
        signed.unwrap().value as u64
    }

    fn log_lines(&self) -> u64 {
        self.authority.store.read(|view| view.counts()).unwrap().log
    }
}

fn ca_svid(account: &str, ca: &Ca) -> Proof {
    Proof::Svid {
        id: id(account),
        not_after: ca.now.wall + Duration::from_secs(3600),
    }
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://demo.test/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

fn csr() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .der()
        .to_vec()
}
