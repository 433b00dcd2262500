//! The CA at work: takes a request for a certificate, judges it, signs and remembers. No sockets, and the time is an
//! argument; `server.rs` is the shell around it.
//!
//! One request: rate of the source -> CSR and proof of possession -> one store transaction (`attest.rs` decides,
//! `issuer.rs` signs, token, key and log are written) -> answer.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// How a client proves who it is.
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

pub(crate) struct Authority {
    issuer: Issuer,
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
        let metrics = Metrics::default();
        metrics.set_expiry(
            unix_seconds(issuer.issuing_not_after()),
            unix_seconds(issuer.root_not_after()),
        );
        Self {
            issuer,
            store,
            rates: Mutex::default(),
            metrics,
            svid_ttl,
            renewal_grace,
        }
    }

    /// Answers one request. Waits for the disk: not for an async thread.
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
        // Proven peers are not held up by a neighbour's failures behind the same address.
        let is_proven = matches!(request.proof, Proof::Svid { .. });
        if !is_proven && !self.rates().may_try(request.source, now.monotonic) {
            return Err(Refusal::TooManyFailures.into());
        }
        if let Proof::Svid { id, .. } = &request.proof
            && !self.rates().may_sign(id, now.monotonic)
        {
            return Err(Refusal::TooManySignatures.into());
        }
        let key = ProvenKey::from_csr(&request.csr).map_err(Refusal::Csr)?;
        self.store.write(|transaction| {
            let grant = match self.grant(transaction, &request.proof, key.hash(), now)? {
                Ok(grant) => grant,
                Err(refusal) => return Ok(Err(refusal.into())),
            };
            self.issue(transaction, request, grant, &key, now, rng)
        })?
    }

    fn grant(
        &self,
        transaction: &Transaction<'_>,
        proof: &Proof,
        key: KeyHash,
        now: Moment,
    ) -> Result<Result<Grant, Refusal>, StoreError> {
        let grant = match proof {
            Proof::Token(hash) => {
                attest::by_token(transaction.token(*hash)?.as_ref(), key, now.wall)
            }
            Proof::Svid { id, not_after } => {
                let domain = self.issuer.trust_domain();
                attest::by_svid(id, *not_after, domain, self.renewal_grace, now.wall)
            }
            Proof::None => Err(Refusal::NoCredential),
        };
        let Ok(Grant::New(identity)) = &grant else {
            return Ok(grant);
        };
        let owner = transaction.key_owner(key)?;
        if let Err(refusal) = attest::key_is_free(owner.as_ref(), identity) {
            return Ok(Err(refusal));
        }
        if matches!(proof, Proof::Token(_)) && !self.rates().may_sign(identity, now.monotonic) {
            return Ok(Err(Refusal::TooManySignatures));
        }
        Ok(grant)
    }

    fn issue(
        &self,
        transaction: &mut Transaction<'_>,
        request: &Request,
        grant: Grant,
        key: &ProvenKey,
        now: Moment,
        rng: &mut impl CryptoRng,
    ) -> Result<Result<String, SignError>, StoreError> {
        let (identity, chain_pem, event) = match grant {
            Grant::Same(identity, bought) => {
                self.metrics.count_repeated();
                (
                    identity,
                    bought.chain_pem,
                    Event::Repeated {
                        serial: bought.serial,
                    },
                )
            }
            Grant::New(identity) => {
                let svid = match self
                    .issuer
                    .issue(&identity, key, self.svid_ttl, now.wall, rng)
                {
                    Ok(svid) => svid,
                    Err(error) => return Ok(Err(error.into())),
                };
                self.remember(transaction, &request.proof, &identity, key.hash(), &svid)?;
                self.metrics.count_signed();
                let not_after = unix_seconds(svid.not_after);
                (
                    identity,
                    svid.chain_pem,
                    Event::Issued {
                        serial: svid.serial,
                        not_after,
                    },
                )
            }
        };
        transaction.append(Record {
            identity: Some(identity.to_string()),
            key: Some(key.hash()),
            ..record(request, event, now)
        })?;
        Ok(Ok(chain_pem))
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
        )?;
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
        let may_log = {
            let mut rates = self.rates();
            if !refusal.is_temporary() && !matches!(request.proof, Proof::Svid { .. }) {
                rates.record_failure(request.source, now.monotonic);
            }
            rates.may_log_refusal(now.monotonic)
        };
        if !may_log {
            return;
        }
        let event = Event::Refused {
            reason: refusal.reason().to_owned(),
        };
        if let Err(error) = self
            .store
            .write(|transaction| transaction.append(record(request, event, now)))
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
        let identity = subject::authority(self.issuer.trust_domain());
        let (svid, key) = self.issuer.issue_own(&identity, self.svid_ttl, now, rng)?;
        self.store.write(|transaction| {
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
        })?;
        let bundle = TrustBundle::from_pem(
            self.issuer.trust_domain().clone(),
            self.issuer.bundle_pem().as_bytes(),
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

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
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
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the CA could not make its own certificate.
#[derive(Debug, thiserror::Error)]
pub enum OwnCredentialsError {
    /// It could not be signed.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transport refuses it.
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
