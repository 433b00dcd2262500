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
mod tests;
