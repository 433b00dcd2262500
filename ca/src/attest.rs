//! Decides which identity a caller gets. Pure, deny by default; the identity comes from the proof alone.
//!
//! - A join token entitles its holder to the identity that it was made for, once: it binds to the first
//!   public key. The same token with the same key gets the same certificate again until the token expires, so
//!   a crash between request and answer loses nothing.
//! - A valid SVID, or one that expired within the renewal grace, entitles its holder to its own identity
//!   again.
//! - A public key serves one identity only.
//!
//! `authority.rs` calls these inside one store transaction.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weft_transport::identity::{SpiffeId, TrustDomain};

use crate::csr::{CsrError, KeyHash};

/// Why a request for a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither token nor client certificate.
    #[error(
        "no join token and no client certificate: this CA signs for neither strangers nor names in a CSR"
    )]
    NoCredential,
    /// No token with this secret was made here, or it was forgotten after its expiry.
    #[error("the join token is not known to this CA")]
    TokenUnknown,
    /// The token's time is over.
    #[error("the join token expired: make a new one with `weft ca token`")]
    TokenExpired,
    /// The token is bound to another key.
    #[error("token already used: it is bound to another key; make a new one with `weft ca token`")]
    TokenUsed,
    /// The token is from a backup that was restored since, and may have been used after the backup was made.
    #[error(
        "the join token was made before the CA was restored; make a new one with `weft ca token`"
    )]
    TokenRestored,
    /// Expired for longer than the renewal grace.
    #[error(
        "the certificate expired longer ago than the renewal grace: join again with a new token"
    )]
    SvidExpired,
    /// The client certificate is of another trust domain.
    #[error("the client certificate belongs to another trust domain")]
    OtherTrustDomain,
    /// The public key already has an identity, and it is another one.
    #[error("this public key already belongs to another identity: make a new key")]
    KeyTaken,
    /// The CSR itself is bad.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// Too many certificates for this identity; temporary.
    #[error("too many certificates for this identity at once: try again shortly")]
    TooManySignatures,
}

impl Refusal {
    /// Every label of [`Self::reason`], in the order of [`Self::index`].
    pub(crate) const REASONS: [&'static str; 10] = [
        "no_credential",
        "token_unknown",
        "token_expired",
        "token_used",
        "token_restored",
        "svid_expired",
        "other_trust_domain",
        "key_taken",
        "bad_csr",
        "too_many_signatures",
    ];

    /// A short constant name for metrics and the log.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        Self::REASONS[self.index()]
    }

    pub(crate) fn index(&self) -> usize {
        match self {
            Self::NoCredential => 0,
            Self::TokenUnknown => 1,
            Self::TokenExpired => 2,
            Self::TokenUsed => 3,
            Self::TokenRestored => 4,
            Self::SvidExpired => 5,
            Self::OtherTrustDomain => 6,
            Self::KeyTaken => 7,
            Self::Csr(_) => 8,
            Self::TooManySignatures => 9,
        }
    }
}

/// A token as the store holds it, under the hash of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The identity for which the token is exchanged.
    pub identity: SpiffeId,
    /// Seconds since the Unix epoch.
    pub created: u64,
    /// Seconds since the Unix epoch.
    pub expires: u64,
    /// The certificate that it was exchanged for.
    pub spent: Option<Purchase>,
    /// It comes from a restored backup: whether it was used after the backup was made is not known.
    #[serde(default)]
    pub restored: bool,
}

/// The certificate that a token was exchanged for, and the key that it is bound to since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    /// Hash of the public key.
    pub key: KeyHash,
    /// The certificate chain that was sent, PEM.
    pub chain_pem: String,
    /// Its serial, hex.
    pub serial: String,
    /// Its end, seconds since the Unix epoch.
    pub not_after: u64,
}

/// The answer to a request that is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// A new certificate for this identity.
    New(SpiffeId),
    /// The certificate that the token was exchanged for before.
    Same(SpiffeId, Purchase),
}

/// Judges a join token: `record` is the store's entry under its hash.
///
/// # Errors
/// See [`Refusal`].
pub fn by_token(
    record: Option<&TokenRecord>,
    key: KeyHash,
    now: SystemTime,
) -> Result<Grant, Refusal> {
    let record = record.ok_or(Refusal::TokenUnknown)?;
    let now = unix_seconds(now);
    // Another key is told that the token was used even after its expiry, because that is the more useful
    // message.
    if record
        .spent
        .as_ref()
        .is_some_and(|purchase| purchase.key != key)
    {
        return Err(Refusal::TokenUsed);
    }
    // Also for the key that it is bound to: one rule is simpler to rely on, and a workload that has joined
    // needs no token.
    if record.restored {
        return Err(Refusal::TokenRestored);
    }
    if record.expires <= now {
        return Err(Refusal::TokenExpired);
    }
    match &record.spent {
        Some(purchase) if purchase.not_after > now => {
            Ok(Grant::Same(record.identity.clone(), purchase.clone()))
        }
        // It was exchanged, but that certificate's short life is over: the same key gets a new one.
        Some(_) | None => Ok(Grant::New(record.identity.clone())),
    }
}

/// Judges a client certificate that the handshake has verified except for its expiry.
///
/// # Errors
/// See [`Refusal`].
pub fn by_svid(
    identity: &SpiffeId,
    not_after: SystemTime,
    trust_domain: &TrustDomain,
    grace: Duration,
    now: SystemTime,
) -> Result<Grant, Refusal> {
    if identity.trust_domain() != trust_domain {
        return Err(Refusal::OtherTrustDomain);
    }
    if now
        .duration_since(not_after)
        .is_ok_and(|past| past >= grace)
    {
        return Err(Refusal::SvidExpired);
    }
    Ok(Grant::New(identity.clone()))
}

/// Refuses a public key that another identity already has.
///
/// # Errors
/// [`Refusal::KeyTaken`].
pub fn key_is_free(owner: Option<&SpiffeId>, identity: &SpiffeId) -> Result<(), Refusal> {
    match owner {
        Some(owner) if owner != identity => Err(Refusal::KeyTaken),
        Some(_) | None => Ok(()),
    }
}

/// Whole seconds since the Unix epoch; zero for times before it.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn an_unused_token_buys_its_identity() {
        assert_eq!(
            by_token(Some(&record(None)), key(1), at(NOW)),
            Ok(Grant::New(orders()))
        );
    }

    #[test]
    fn an_unknown_token_buys_nothing() {
        assert_eq!(by_token(None, key(1), at(NOW)), Err(Refusal::TokenUnknown));
    }

    #[test]
    fn a_token_ends_at_its_second() {
        let record = record(None);
        assert!(by_token(Some(&record), key(1), at(record.expires - 1)).is_ok());
        assert_eq!(
            by_token(Some(&record), key(1), at(record.expires)),
            Err(Refusal::TokenExpired)
        );
    }

    #[test]
    fn a_used_token_gives_the_same_certificate_to_the_same_key_only() {
        let record = record(Some(purchase(NOW + 3000)));
        assert_eq!(
            by_token(Some(&record), key(1), at(NOW)),
            Ok(Grant::Same(orders(), purchase(NOW + 3000)))
        );
        assert_eq!(
            by_token(Some(&record), key(2), at(NOW)),
            Err(Refusal::TokenUsed)
        );
        assert_eq!(
            by_token(Some(&record), key(1), at(record.expires)),
            Err(Refusal::TokenExpired)
        );
        assert_eq!(
            by_token(Some(&record), key(2), at(record.expires)),
            Err(Refusal::TokenUsed)
        );
    }

    #[test]
    fn a_used_token_gives_its_key_a_fresh_certificate_when_the_first_has_ended() {
        let record = record(Some(purchase(NOW)));
        assert_eq!(
            by_token(Some(&record), key(1), at(NOW)),
            Ok(Grant::New(orders()))
        );
        assert_eq!(
            by_token(Some(&record), key(2), at(NOW)),
            Err(Refusal::TokenUsed)
        );
    }

    #[test]
    fn a_token_from_before_a_restore_buys_nothing_for_any_key() {
        let restored = |spent| TokenRecord {
            restored: true,
            ..record(spent)
        };
        let judge = |record: &TokenRecord, byte| by_token(Some(record), key(byte), at(NOW));
        assert_eq!(judge(&restored(None), 1), Err(Refusal::TokenRestored));
        let spent = restored(Some(purchase(NOW + 3000)));
        assert_eq!(judge(&spent, 1), Err(Refusal::TokenRestored));
        assert_eq!(judge(&spent, 2), Err(Refusal::TokenUsed));
    }

    #[test]
    fn a_token_record_of_an_earlier_version_is_not_of_a_restore() {
        let mut stored = serde_json::to_value(record(None)).unwrap();
        stored.as_object_mut().unwrap().remove("restored").unwrap();
        let read: TokenRecord = serde_json::from_value(stored).unwrap();
        assert_eq!(read, record(None));
    }

    #[test]
    fn an_svid_renews_until_the_grace_is_over() {
        let grace = Duration::from_secs(100);
        let domain = orders().trust_domain().clone();
        let judge = |now| by_svid(&orders(), at(NOW), &domain, grace, at(now));
        assert_eq!(judge(NOW - 50), Ok(Grant::New(orders())));
        assert_eq!(judge(NOW + 99), Ok(Grant::New(orders())));
        assert_eq!(judge(NOW + 100), Err(Refusal::SvidExpired));
    }

    #[test]
    fn an_svid_of_another_trust_domain_buys_nothing() {
        let other: TrustDomain = "other.test".parse().unwrap();
        let judged = by_svid(&orders(), at(NOW + 1), &other, Duration::ZERO, at(NOW));
        assert_eq!(judged, Err(Refusal::OtherTrustDomain));
    }

    #[test]
    fn a_key_serves_one_identity() {
        let payments = "spiffe://demo.test/ns/shop/sa/payments".parse().unwrap();
        assert_eq!(key_is_free(None, &orders()), Ok(()));
        assert_eq!(key_is_free(Some(&orders()), &orders()), Ok(()));
        assert_eq!(
            key_is_free(Some(&orders()), &payments),
            Err(Refusal::KeyTaken)
        );
    }

    fn orders() -> SpiffeId {
        "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap()
    }

    fn record(spent: Option<Purchase>) -> TokenRecord {
        TokenRecord {
            identity: orders(),
            created: NOW - 10,
            expires: NOW + 3600,
            spent,
            restored: false,
        }
    }

    fn purchase(not_after: u64) -> Purchase {
        Purchase {
            key: key(1),
            chain_pem: "chain".to_owned(),
            serial: "01".to_owned(),
            not_after,
        }
    }

    fn key(byte: u8) -> KeyHash {
        KeyHash([byte; 32])
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }
}
