//! The text with which a workload joins: the CA's addresses and fingerprint, the workload's identity, and a
//! secret.
//!
//! `weft-join-v1.` and base64url of a JSON object. The CA keeps only SHA-256 of the secret ([`TokenHash`]);
//! `attest.rs` decides what a token entitles to.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use weft_transport::{credentials::Fingerprint, identity::SpiffeId};
use zeroize::{Zeroize, Zeroizing};

use crate::limits::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, TOKEN_SECRET_BYTES, TOKEN_TEXT_MAX, TOKEN_VERSION_DIGITS_MAX,
};

const PREFIX: &str = "weft-join-v1.";

/// A join token. `Display` writes the secret: print it only to hand it over.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// `HOST:PORT` of each CA, to be tried in turn.
    pub addresses: Vec<String>,
    /// SHA-256 of the root certificate that the CA must present.
    pub anchor: Fingerprint,
    /// The identity that its holder gets.
    pub identity: SpiffeId,
    /// The proof of the right to it.
    pub secret: TokenSecret,
}

/// The secret bytes of a token: wiped when dropped, never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; TOKEN_SECRET_BYTES]);

/// SHA-256 of a secret: the key under which the store keeps the token. Looking up a guess by its hash leaks
/// nothing through timing, because the guesser cannot choose the hash's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub(crate) [u8; 32]);

/// Why a text is not a join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Empty, or white space only.
    #[error("the join token is empty")]
    Empty,
    /// Does not begin as one.
    #[error("this is not a join token: it does not begin with {PREFIX}")]
    Prefix,
    /// A token of a later version of weft.
    #[error(
        "this join token has format {0:?}, and this weft knows only {PREFIX}: use a newer weft"
    )]
    Version(String),
    /// The token has white space within it.
    #[error(
        "the join token holds white space: give exactly one token (one line of `weft ca token`)"
    )]
    Several,
    /// Longer than [`TOKEN_TEXT_MAX`].
    #[error("the join token is longer than {TOKEN_TEXT_MAX} bytes")]
    TooLong,
    /// Not base64url, or not the object: usually a part of the token is missing.
    #[error("the join token is damaged or cut off ({0}): copy the whole line")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    ca: Vec<String>,
    anchor: String,
    id: SpiffeId,
    secret: String,
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// White space around the token (a file's last newline) is ignored.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > TOKEN_TEXT_MAX {
            return Err(TokenError::TooLong);
        }
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(match text.split_once('.') {
                Some((version, _)) if is_version(version) => {
                    TokenError::Version(format!("{version}."))
                }
                _ => TokenError::Prefix,
            });
        };
        if encoded.contains(char::is_whitespace) {
            return Err(TokenError::Several);
        }
        let damaged = |what: &str| TokenError::Damaged(what.to_owned());
        let json = Zeroizing::new(
            URL_SAFE_NO_PAD
                .decode(encoded)
                .map_err(|_| damaged("not base64url"))?,
        );
        let mut payload: Payload =
            serde_json::from_slice(&json).map_err(|_| damaged("not a token's content"))?;
        let mut secret = [0; TOKEN_SECRET_BYTES];
        let decoded = URL_SAFE_NO_PAD.decode_slice(&payload.secret, &mut secret);
        payload.secret.zeroize();
        if decoded != Ok(TOKEN_SECRET_BYTES) {
            return Err(damaged("its secret has the wrong length"));
        }
        if payload.ca.is_empty()
            || payload.ca.len() > ADDRESSES_MAX
            || payload
                .ca
                .iter()
                .any(|address| check_address(address).is_err())
        {
            return Err(damaged("it names no CA address"));
        }
        Ok(Self {
            addresses: payload.ca,
            anchor: payload
                .anchor
                .parse()
                .map_err(|_| damaged("its fingerprint is not one"))?,
            identity: payload.id,
            secret: TokenSecret(secret),
        })
    }
}

/// Whether a later weft may begin its tokens so. Anything else may be the secret itself, and is not repeated
/// in an error.
fn is_version(text: &str) -> bool {
    text.strip_prefix("weft-join-v").is_some_and(|number| {
        (1..=TOKEN_VERSION_DIGITS_MAX).contains(&number.len())
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = Payload {
            ca: self.addresses.clone(),
            anchor: self.anchor.to_string(),
            id: self.identity.clone(),
            secret: URL_SAFE_NO_PAD.encode(self.secret.0),
        };
        let json = Zeroizing::new(serde_json::to_vec(&payload).map_err(|_| fmt::Error)?);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*json))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("addresses", &self.addresses)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl TokenSecret {
    /// A fresh secret.
    pub(crate) fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; TOKEN_SECRET_BYTES];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The bytes that go to the CA.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value that the CA stores.
    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl Drop for TokenSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

impl TokenHash {
    /// The hash of what a client sent as its secret.
    pub(crate) fn of(secret: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
        Self(hash)
    }
}

/// Why a CA address cannot be given to workloads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `HOST:PORT`.
    #[error("{0:?} is not HOST:PORT")]
    Form(String),
    /// `0.0.0.0` or `[::]`.
    #[error("{0} is a wildcard that no workload can connect to; name an address of this host")]
    Wildcard(String),
    /// It is valid on one host only.
    #[error(
        "{0} is link-local, which other hosts cannot be told; name an address that they can reach"
    )]
    LinkLocal(String),
}

/// Checks one `HOST:PORT` that workloads are told to connect to.
///
/// # Errors
/// See [`AddressError`].
pub fn check_address(text: &str) -> Result<(), AddressError> {
    let form = || AddressError::Form(text.to_owned());
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(form());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return match (address.ip().is_unspecified(), address.port()) {
            (true, _) => Err(AddressError::Wildcard(text.to_owned())),
            (false, 0) => Err(form()),
            (false, _) if is_link_local(&address) => Err(AddressError::LinkLocal(text.to_owned())),
            (false, _) => Ok(()),
        };
    }
    if text.starts_with('[') && text.contains('%') {
        return Err(AddressError::LinkLocal(text.to_owned()));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let host_is_good = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let port_is_good = port.parse::<u16>().is_ok_and(|port| port != 0);
    if host_is_good && port_is_good {
        Ok(())
    } else {
        Err(form())
    }
}

fn is_link_local(address: &std::net::SocketAddr) -> bool {
    matches!(address, std::net::SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() || v6.scope_id() != 0)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn a_token_survives_its_text() {
        let token = token();
        assert_eq!(format!("  {token}\n").parse::<JoinToken>().unwrap(), token);
    }

    #[test]
    fn every_cut_off_token_is_refused() {
        let text = token().to_string();
        for length in 0..text.len() {
            assert!(text[..length].parse::<JoinToken>().is_err(), "{length}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let message = |text: &str| text.parse::<JoinToken>().unwrap_err().to_string();
        assert_eq!(message(" \n"), "the join token is empty");
        assert!(message("eyJhb").contains("does not begin with weft-join-v1."));
        assert!(message("weft-join-v2.abc").contains("use a newer weft"));
        // A token of which the first full stop is missing.
        let fused = token().to_string().replacen('.', "", 1) + ".";
        assert_eq!(fused.parse::<JoinToken>(), Err(TokenError::Prefix));
        let two = format!("{}\n{}", token(), token());
        assert!(message(&two).contains("exactly one token"));
        let text = token().to_string();
        assert!(message(&text[..text.len() - 9]).contains("copy the whole line"));
        assert!(
            message(&format!("{PREFIX}{}", "A".repeat(TOKEN_TEXT_MAX))).contains("longer than")
        );
    }

    #[test]
    fn the_debug_form_hides_the_secret() {
        let token = token();
        let secret = URL_SAFE_NO_PAD.encode(token.secret.as_bytes());
        assert!(!format!("{token:?} {:?}", token.secret).contains(&secret));
    }

    #[test]
    fn addresses_are_hosts_or_ips_with_a_port_and_no_wildcards() {
        for good in [
            "10.9.0.9:6200",
            "[fd00::1]:6200",
            "ca.demo.test:6200",
            "localhost:1",
        ] {
            check_address(good).unwrap();
        }
        for bad in [
            "10.9.0.9",
            "ca.demo.test",
            ":6200",
            "ca:0",
            "ca:70000",
            "a b:1",
            "ca:6200/x",
            "1.2.3.4:0",
            "",
        ] {
            assert!(
                matches!(check_address(bad), Err(AddressError::Form(_))),
                "{bad:?}"
            );
        }
        for wild in ["0.0.0.0:6200", "[::]:6200"] {
            assert!(
                matches!(check_address(wild), Err(AddressError::Wildcard(_))),
                "{wild:?}"
            );
        }
    }

    fn token() -> JoinToken {
        JoinToken {
            addresses: vec!["10.9.0.9:6200".to_owned()],
            anchor: "ab".repeat(32).parse().unwrap(),
            identity: "spiffe://demo.test/ns/shop/sa/orders".parse().unwrap(),
            secret: TokenSecret::generate(&mut StdRng::seed_from_u64(1)),
        }
    }
}
