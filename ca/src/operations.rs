//! Operations for an operator of a CA: making tokens, and showing its state. They work on an open store,
//! which `admin.rs` finds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use weft_transport::identity::TrustDomain;

use crate::attest::{TokenRecord, unix_seconds};
use crate::directory::{self, OpenError};
use crate::issuer::validity;
use crate::limits::{LOG_ENTRIES_SHOWN, TOKEN_TTL_MAX, TOKENS_PER_CALL_MAX};
use crate::log::{Event, LogEntry, Record};
use crate::store::{About, Store, StoreError};
use crate::subject::{Subject, SubjectError};
use crate::token::{AddressError, JoinToken, TokenSecret, check_address};

/// Which tokens to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrder {
    /// For whom.
    pub subject: Subject,
    /// For how long; at most [`TOKEN_TTL_MAX`].
    pub ttl: Duration,
    /// How many; at most [`TOKENS_PER_CALL_MAX`].
    pub count: u32,
}

/// Why no tokens were made.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The subject is not one.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// Out of range.
    #[error("a token lives between 1 s and {} days", TOKEN_TTL_MAX.as_secs() / 86_400)]
    Ttl,
    /// Out of range.
    #[error("make between 1 and {TOKENS_PER_CALL_MAX} tokens at once")]
    Count,
    /// Tokens would not tell where the CA is.
    #[error(
        "tokens have no CA address to carry: start `weft ca serve` once, or make the CA with `weft ca init --address HOST:PORT`"
    )]
    NoAddress,
    /// The CA listens on every address, which tells workloads no address.
    #[error(
        "the CA listens on {0}: make it with `weft ca init --address HOST:PORT` so that tokens say where it is"
    )]
    Wildcard(String),
    /// The CA's directory is not usable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes tokens; the store keeps only a hash of each.
pub(crate) fn create_tokens(
    store: &Store,
    directory: &Path,
    order: &TokenOrder,
    now: SystemTime,
    rng: &mut impl CryptoRng,
) -> Result<Vec<JoinToken>, TokensError> {
    if order.ttl < Duration::from_secs(1) || order.ttl > TOKEN_TTL_MAX {
        return Err(TokensError::Ttl);
    }
    if order.count == 0 || order.count > TOKENS_PER_CALL_MAX {
        return Err(TokensError::Count);
    }
    let about = store.about()?;
    let identity = order.subject.identity(&about.trust_domain)?;
    let addresses = addresses(&about)?;
    let anchor = directory::anchor(&directory::trust_bundle(directory, about.trust_domain)?);
    let record = TokenRecord {
        identity: identity.clone(),
        created: unix_seconds(now),
        expires: unix_seconds(now + order.ttl),
        spent: None,
        restored: false,
    };
    let tokens: Vec<JoinToken> = (0..order.count)
        .map(|_| JoinToken {
            addresses: addresses.clone(),
            anchor,
            identity: identity.clone(),
            secret: TokenSecret::generate(rng),
        })
        .collect();
    store.write(|transaction| {
        for token in &tokens {
            transaction.put_token(token.secret.hash(), &record)?;
        }
        transaction.append(Record {
            time: record.created,
            event: Event::TokensCreated {
                count: order.count,
                expires: record.expires,
            },
            by: "admin",
            identity: Some(identity.to_string()),
            peer: None,
            key: None,
        })
    })?;
    Ok(tokens)
}

fn addresses(about: &About) -> Result<Vec<String>, TokensError> {
    if !about.addresses.is_empty() {
        return Ok(about.addresses.clone());
    }
    let listen = about.listen.clone().ok_or(TokensError::NoAddress)?;
    match check_address(&listen) {
        Ok(()) => Ok(vec![listen]),
        Err(AddressError::Wildcard(listen) | AddressError::LinkLocal(listen)) => {
            Err(TokensError::Wildcard(listen))
        }
        Err(AddressError::Form(_)) => Err(TokensError::NoAddress),
    }
}

/// The state of a CA, for people and scripts. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Addresses that tokens carry; none if workloads can reach none of them, so that no token can be made.
    pub addresses: Vec<String>,
    /// Where `serve` listened last.
    pub listen: Option<String>,
    /// When the CA was made.
    pub created: u64,
    /// The root certificate.
    pub root: CertificateInfo,
    /// The issuing certificate.
    pub issuing: CertificateInfo,
    /// Tokens by identity.
    pub tokens: BTreeMap<String, TokenCounts>,
    /// Public keys that have an identity.
    pub keys: u64,
    /// Entries of the issuance log.
    pub log_entries: u64,
    /// The first log entry that was changed or follows a removed one; none if the log is whole.
    pub log_broken_at: Option<u64>,
    /// The newest entries of the log, newest first.
    pub log: Vec<LogEntry>,
}

/// One of the CA's own certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// Start of its life.
    pub not_before: u64,
    /// End of its life.
    pub not_after: u64,
    /// Less than a third of its life is left.
    pub expires_soon: bool,
}

/// The tokens of one identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// May still be used for the first time.
    pub unused: u64,
    /// Bought a certificate.
    pub used: u64,
    /// Expired unused.
    pub expired: u64,
    /// Unused when the backup was made from which the CA was restored: void since.
    #[serde(default)]
    pub restored: u64,
}

/// Looks at a CA.
pub(crate) fn inspect(
    store: &Store,
    directory: &Path,
    now: SystemTime,
) -> Result<Inspection, OpenError> {
    let about = store.about()?;
    let now = unix_seconds(now);
    let mut tokens = BTreeMap::<String, TokenCounts>::new();
    let (counts, log, log_broken_at) = store.read(|view| {
        view.tokens(|token| {
            let counts = tokens.entry(token.identity.to_string()).or_default();
            match token {
                TokenRecord { spent: Some(_), .. } => counts.used += 1,
                TokenRecord { restored: true, .. } => counts.restored += 1,
                TokenRecord { expires, .. } if expires <= now => counts.expired += 1,
                TokenRecord { .. } => counts.unused += 1,
            }
        })?;
        Ok((
            view.counts()?,
            view.log_tail(LOG_ENTRIES_SHOWN)?,
            view.first_broken_log_entry()?,
        ))
    })?;
    let certificate = |name| {
        let pem = weft_transport::files::read(&directory.join(name))?;
        let (fingerprint, not_before, not_after) =
            validity(name, &pem).map_err(|source| OpenError::Load {
                directory: directory.to_owned(),
                source,
            })?;
        let (not_before, not_after) = (unix_seconds(not_before), unix_seconds(not_after));
        Ok::<_, OpenError>(CertificateInfo {
            fingerprint: fingerprint.to_string(),
            not_before,
            not_after,
            expires_soon: not_after.saturating_sub(now) < not_after.saturating_sub(not_before) / 3,
        })
    };
    Ok(Inspection {
        root: certificate(directory::ROOT)?,
        issuing: certificate(directory::ISSUING)?,
        addresses: addresses(&about).unwrap_or_default(),
        trust_domain: about.trust_domain,
        listen: about.listen,
        created: about.created,
        tokens,
        keys: counts.keys,
        log_entries: counts.log,
        log_broken_at,
        log,
    })
}
