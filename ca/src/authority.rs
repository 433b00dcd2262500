//! The CA's work: takes a request for a certificate, judges it, signs, and stores the result. No sockets, and
//! the time is an argument; `server.rs` is the shell around it.
//!
//! One request, in order: the caller's proof; the rate of the identity, CSR and proof of possession; one
//! store transaction (`attest.rs` decides, `issuer.rs` signs; token, key and log are written); the answer.
//! Checks that need no signature and no write come first, so that strangers cause neither.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rand::CryptoRng;
use weft_transport::credentials::{Credentials, Svid, TrustBundle};
use weft_transport::identity::SpiffeId;

use crate::attest::{self, Grant, Purchase, Refusal, unix_seconds};
use crate::csr::{KeyHash, ProvenKey};
use crate::issuer::{IssueError, IssuedSvid, Issuer};
use crate::log::{Event, Record};
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::store::{Store, StoreError, Transaction, key_memory};
use crate::subject;
use crate::token::TokenHash;

/// How a client proves its identity.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    Token(TokenHash),
    Svid { id: SpiffeId, not_after: SystemTime },
    None,
}

/// One request for a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) csr: Vec<u8>,
    pub(crate) proof: Proof,
    pub(crate) source: IpAddr,
}

/// When a request is made, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) wall: SystemTime,
    pub(crate) monotonic: Instant,
}

/// Why no certificate was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A chain of certificates for a caller, as PEM.
enum Signed {
    New(String),
    /// The certificate that its token was exchanged for before.
    Repeated(String),
}

pub(crate) struct Authority {
    /// Replaced as a whole when the issuing certificate is renewed.
    issuer: RwLock<Arc<Issuer>>,
    store: Store,
    rates: Mutex<Rates>,
    metrics: Metrics,
    svid_ttl: Duration,
    renewal_grace: Duration,
}

impl Authority {
    pub(crate) fn new(
        issuer: Issuer,
        store: Store,
        svid_ttl: Duration,
        renewal_grace: Duration,
    ) -> Self {
        let authority = Self {
            issuer: RwLock::new(Arc::new(issuer)),
            store,
            rates: Mutex::default(),
            metrics: Metrics::default(),
            svid_ttl,
            renewal_grace,
        };
        authority.note_expiry();
        authority
    }

    /// Puts a renewed issuing certificate in force.
    pub(crate) fn set_issuer(&self, issuer: Issuer) {
        *weft_transport::locks::write(&self.issuer) = Arc::new(issuer);
        self.note_expiry();
    }

    fn note_expiry(&self) {
        let issuer = self.issuer();
        self.metrics.set_expiry(
            unix_seconds(issuer.issuing_not_after()),
            unix_seconds(issuer.root_not_after()),
        );
    }

    /// Answers one request. It waits for the disk, so it must not run on an async thread.
    pub(crate) fn sign(
        &self,
        request: &Request,
        now: Moment,
        rng: &mut impl CryptoRng,
    ) -> Result<String, SignError> {
        let result = self.judge(request, now, rng);
        match &result {
            Ok(_) => {}
            Err(SignError::Refused(refusal)) => self.record_refusal(request, refusal, now),
            Err(SignError::Issue(_) | SignError::Store(_)) => self.metrics.count_failed(),
        }
        result
    }

    fn judge(
        &self,
        request: &Request,
        now: Moment,
        rng: &mut impl CryptoRng,
    ) -> Result<String, SignError> {
        let key = match &request.proof {
            Proof::None => return Err(Refusal::NoCredential.into()),
            Proof::Svid { id, not_after } => {
                self.by_svid(id, *not_after, now)?;
                self.count_signature(id, now)?;
                ProvenKey::from_csr(&request.csr).map_err(Refusal::Csr)?
            }
            Proof::Token(hash) => {
                let known = self.store.read(|view| view.token(*hash))?;
                let known = known.ok_or(Refusal::TokenUnknown)?;
                let key = ProvenKey::from_csr(&request.csr).map_err(Refusal::Csr)?;
                attest::by_token(Some(&known), key.hash(), now.wall)?;
                // A repeated answer counts as well: it is written to the log.
                self.count_signature(&known.identity, now)?;
                key
            }
        };
        // Judged again in the transaction, in which no other call can spend the token.
        let signed = self.store.write(|transaction| {
            let grant = match self.grant(transaction, &request.proof, key.hash(), now)? {
                Ok(grant) => grant,
                Err(refusal) => return Ok(Err(SignError::from(refusal))),
            };
            self.issue(transaction, request, grant, &key, now, rng)
        })??;
        Ok(match signed {
            Signed::New(chain) => {
                self.metrics.count_signed();
                chain
            }
            Signed::Repeated(chain) => {
                self.metrics.count_repeated();
                chain
            }
        })
    }

    fn grant(
        &self,
        transaction: &mut Transaction<'_>,
        proof: &Proof,
        key: KeyHash,
        now: Moment,
    ) -> Result<Result<Grant, Refusal>, StoreError> {
        let grant = match proof {
            Proof::Token(hash) => {
                attest::by_token(transaction.token(*hash)?.as_ref(), key, now.wall)
            }
            Proof::Svid { id, not_after } => self.by_svid(id, *not_after, now),
            Proof::None => Err(Refusal::NoCredential),
        };
        let Ok(Grant::New(identity)) = &grant else {
            return Ok(grant);
        };
        let owner = transaction.key_owner(key)?;
        if let Err(refusal) = attest::key_is_free(owner.as_ref(), identity) {
            return Ok(Err(refusal));
        }
        Ok(grant)
    }

    fn by_svid(&self, id: &SpiffeId, not_after: SystemTime, now: Moment) -> Result<Grant, Refusal> {
        let issuer = self.issuer();
        let domain = issuer.trust_domain();
        attest::by_svid(id, not_after, domain, self.renewal_grace, now.wall)
    }

    fn count_signature(&self, identity: &SpiffeId, now: Moment) -> Result<(), Refusal> {
        if self.rates().may_sign(identity, now.monotonic) {
            return Ok(());
        }
        Err(Refusal::TooManySignatures)
    }

    fn issue(
        &self,
        transaction: &mut Transaction<'_>,
        request: &Request,
        grant: Grant,
        key: &ProvenKey,
        now: Moment,
        rng: &mut impl CryptoRng,
    ) -> Result<Result<Signed, SignError>, StoreError> {
        let (identity, signed, event) = match grant {
            Grant::Same(identity, bought) => {
                let event = Event::Repeated {
                    serial: bought.serial,
                };
                (identity, Signed::Repeated(bought.chain_pem), event)
            }
            Grant::New(identity) => {
                let svid = match self
                    .issuer()
                    .issue(&identity, key, self.svid_ttl, now.wall, rng)
                {
                    Ok(svid) => svid,
                    Err(error) => return Ok(Err(error.into())),
                };
                self.remember(transaction, &request.proof, &identity, key.hash(), &svid)?;
                let event = Event::Issued {
                    serial: svid.serial,
                    not_after: unix_seconds(svid.not_after),
                };
                (identity, Signed::New(svid.chain_pem), event)
            }
        };
        transaction.append(Record {
            identity: Some(identity.to_string()),
            key: Some(key.hash()),
            ..record(request, event, now)
        })?;
        Ok(Ok(signed))
    }

    fn remember(
        &self,
        transaction: &mut Transaction<'_>,
        proof: &Proof,
        identity: &SpiffeId,
        key: KeyHash,
        svid: &IssuedSvid,
    ) -> Result<(), StoreError> {
        transaction.put_key(
            key,
            identity,
            key_memory(svid.not_after, self.renewal_grace),
        );
        let Proof::Token(hash) = proof else {
            return Ok(());
        };
        let Some(mut record) = transaction.token(*hash)? else {
            return Ok(());
        };
        record.spent = Some(Purchase {
            key,
            chain_pem: svid.chain_pem.clone(),
            serial: svid.serial.clone(),
            not_after: unix_seconds(svid.not_after),
        });
        transaction.put_token(*hash, &record)
    }

    fn record_refusal(&self, request: &Request, refusal: &Refusal, now: Moment) {
        self.metrics.count_refused(refusal);
        let source = request.source.into();
        if !self.rates().may_log_refusal(source, now.monotonic) {
            return;
        }
        let event = Event::Refused {
            reason: refusal.reason().to_owned(),
        };
        if let Err(error) = self
            .store
            .write(|transaction| transaction.append(record(request, event.clone(), now)))
        {
            tracing::warn!(%error, "cannot write a refusal to the log");
        }
    }

    /// The CA server's own credentials, under a new key that stays in memory.
    pub(crate) fn own_credentials(
        &self,
        now: SystemTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(Svid, TrustBundle), OwnCredentialsError> {
        let issuer = self.issuer();
        let identity = subject::authority(issuer.trust_domain());
        let (svid, key) = issuer.issue_own(&identity, self.svid_ttl, now, rng)?;
        let logged = self.store.write(|transaction| {
            transaction.append(Record {
                time: unix_seconds(now),
                event: Event::Issued {
                    serial: svid.serial.clone(),
                    not_after: unix_seconds(svid.not_after),
                },
                by: "self",
                identity: Some(identity.to_string()),
                peer: None,
                key: None,
            })
        });
        if let Err(error) = logged {
            // The key never leaves this process, and without the certificate the CA could not even report an
            // error.
            tracing::error!(%error, "the CA's own certificate is not in the issuance log");
        }
        let bundle = TrustBundle::from_pem(
            issuer.trust_domain().clone(),
            issuer.bundle_pem().as_bytes(),
        )
        .map_err(|error| OwnCredentialsError::Unusable(error.to_string()))?;
        let svid = Svid::from_pem(svid.chain_pem.as_bytes(), key.as_bytes())
            .map_err(|error| OwnCredentialsError::Unusable(error.to_string()))?;
        Ok((svid, bundle))
    }

    /// The CA server's credentials as the transport takes them.
    pub(crate) fn new_credentials(
        &self,
        now: SystemTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Credentials, OwnCredentialsError> {
        let (svid, bundle) = self.own_credentials(now, rng)?;
        Credentials::new(svid, bundle)
            .map_err(|error| OwnCredentialsError::Unusable(error.to_string()))
    }

    /// The issuing certificate in force.
    pub(crate) fn issuer(&self) -> Arc<Issuer> {
        let issuer = weft_transport::locks::read(&self.issuer);
        Arc::clone(&issuer)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn svid_ttl(&self) -> Duration {
        self.svid_ttl
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        // The counters are valid after any panic: every change is one assignment.
        weft_transport::locks::lock(&self.rates)
    }
}

/// Why the CA could not make its own certificate.
#[derive(Debug, thiserror::Error)]
pub enum OwnCredentialsError {
    /// It could not be signed.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The transport does not accept the CA's certificate.
    #[error("the CA's own certificate is not usable: {0}")]
    Unusable(String),
}

fn record(request: &Request, event: Event, now: Moment) -> Record {
    let (by, identity) = match &request.proof {
        Proof::Token(_) => ("token", None),
        Proof::Svid { id, .. } => ("svid", Some(id.to_string())),
        Proof::None => ("none", None),
    };
    Record {
        time: unix_seconds(now.wall),
        event,
        by,
        identity,
        peer: Some(request.source.to_string()),
        key: None,
    }
}

#[cfg(test)]
mod tests {
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
}
