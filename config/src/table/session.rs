//! Sessions of a route's rule (Gateway API, GEP-1619): what a rule says of them, the keys of their tokens,
//! and the tokens. Pure: time and random bytes are arguments.
//!
//! A token names the endpoint that a client's requests go to. It is sealed (AES-256-GCM-SIV, RFC 8452) with a
//! key of the rule, so that a client learns nothing from it and can make none, and a token of one rule is
//! none of another. Every sidecar that may call the Service has that key; the config service derives it from
//! a secret that it keeps (`crate::compile::sessions`), so the secrets of other rules stay unknown to it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use weft_transport::hex;

use super::FieldName;
use super::traffic::optional_duration;
use crate::limits;

/// What a rule says of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// What tells its sessions from those of other rules: the route, and the rule's name or place. Its keys
    /// stand in the table under it.
    pub scope: String,
    /// How clients carry the token.
    pub carrier: Carrier,
    /// How long a session lasts; none is without end.
    #[serde(
        default,
        with = "optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<Duration>,
}

/// How clients carry the token of their session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Carrier {
    /// In a cookie (RFC 6265).
    Cookie {
        /// Its name.
        name: String,
        /// The paths for which clients send it.
        path: String,
        /// Whether clients keep it as long as the session lasts, and not only until they end.
        permanent: bool,
    },
    /// In a header field, which clients copy from the response.
    Header(FieldName),
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.carrier {
            Carrier::Cookie { name, .. } => write!(f, "the cookie {name}")?,
            Carrier::Header(name) => write!(f, "the header {name}")?,
        }
        match self.timeout {
            Some(timeout) => {
                let timeout = weft_transport::units::format_duration(timeout);
                write!(f, ", for {timeout} at most")
            }
            None => Ok(()),
        }
    }
}

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// A key of one rule's tokens. It is a secret: nothing shows it, and only [`super::Table::write_for`] and
/// [`super::Table::write_whole`] write it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionKey([u8; KEY_BYTES]);

/// A text that is no key.
#[derive(Debug, thiserror::Error)]
#[error("a session key has {} hexadecimal digits", 2 * KEY_BYTES)]
pub struct InvalidSessionKey;

impl SessionKey {
    /// A key of these bytes, which must be random or derived from such.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(redacted)")
    }
}

impl TryFrom<String> for SessionKey {
    type Error = InvalidSessionKey;

    fn try_from(text: String) -> Result<Self, InvalidSessionKey> {
        hex::decode(&text).map(Self).ok_or(InvalidSessionKey)
    }
}

impl From<SessionKey> for String {
    fn from(key: SessionKey) -> Self {
        hex::encode(&key.0)
    }
}

/// Names an endpoint in tokens: by its process and by its address, as a restart keeps the one and a move the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointName {
    /// Of the service, the identity and the process.
    pub process: u64,
    /// Of the service, the identity and the address.
    pub address: u64,
}

impl EndpointName {
    /// The name of an endpoint of `service`, as `orders.shop:80`. Outside of the mesh it has no identity.
    pub fn new(service: &str, identity: &str, workload: &str, address: SocketAddr) -> Self {
        let of = |part: &str| {
            // None of them has a line's end.
            let text = format!("{service}\n{identity}\n{part}");
            let sum = digest(&SHA256, text.as_bytes());
            let first = sum.as_ref().first_chunk::<8>();
            first.map_or(0, |bytes| u64::from_be_bytes(*bytes))
        };
        Self {
            process: of(workload),
            address: of(&format!("at {address}")),
        }
    }
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionToken {
    /// When the session began, in seconds since 1970.
    pub started: u64,
    /// The endpoint of the session.
    pub endpoint: EndpointName,
}

/// Why a token counts as none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenFault {
    /// Its length or its characters are not those of a token.
    Malformed,
    /// No key of the rule sealed it: it is made up, of another rule, or of a key that was given up.
    Unauthentic,
    /// The session has lasted as long as it may.
    Expired,
}

/// Bytes that are sealed.
const CLEAR_BYTES: usize = 24;
/// Bytes that the seal adds.
const SEAL_BYTES: usize = 16;
/// Characters of a token.
pub const TOKEN_LENGTH: usize = (NONCE_LEN + CLEAR_BYTES + SEAL_BYTES) * 4 / 3 + 1;

/// Random bytes of one token.
pub type TokenNonce = [u8; NONCE_LEN];

/// Seals and opens the tokens of one rule.
pub struct Tokens {
    /// The first seals, all of them open.
    keys: Vec<LessSafeKey>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// With these keys, of which the first seals. None without a key.
    pub fn new(keys: &[SessionKey]) -> Option<Self> {
        let keys = keys.iter().take(limits::SESSION_KEYS_MAX);
        let keys = keys.filter_map(|key| {
            let key = UnboundKey::new(&AES_256_GCM_SIV, key.bytes()).ok()?;
            Some(LessSafeKey::new(key))
        });
        let keys: Vec<LessSafeKey> = keys.collect();
        (!keys.is_empty()).then_some(Self { keys })
    }

    /// The token as clients carry it. None only if the library fails, which it does not for such short texts.
    pub fn seal(&self, token: &SessionToken, nonce: TokenNonce) -> Option<String> {
        let key = self.keys.first()?;
        let SessionToken { started, endpoint } = token;
        let mut sealed = Vec::with_capacity(CLEAR_BYTES + SEAL_BYTES);
        for part in [*started, endpoint.process, endpoint.address] {
            sealed.extend(part.to_be_bytes());
        }
        let unique = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
            .ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// Reads a token at `now`, in seconds since 1970, for sessions that last `timeout`.
    ///
    /// # Errors
    /// When it counts as none, and why.
    pub fn open(
        &self,
        text: &[u8],
        timeout: Option<Duration>,
        now: u64,
    ) -> Result<SessionToken, TokenFault> {
        // Judged first: a client may send any length.
        if text.len() != TOKEN_LENGTH {
            return Err(TokenFault::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text);
        let bytes = bytes.map_err(|_| TokenFault::Malformed)?;
        let token = self.keys.iter().find_map(|key| opened(key, &bytes));
        let token = token.ok_or(TokenFault::Unauthentic)?;
        // Clocks of sidecars differ a little: a session that begins in the future has just begun.
        let age = Duration::from_secs(now.saturating_sub(token.started));
        match timeout {
            Some(timeout) if age >= timeout => Err(TokenFault::Expired),
            Some(_) | None => Ok(token),
        }
    }
}

fn opened(key: &LessSafeKey, bytes: &[u8]) -> Option<SessionToken> {
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let mut sealed: [u8; CLEAR_BYTES + SEAL_BYTES] = sealed.try_into().ok()?;
    let clear = key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
    let mut parts = clear.chunks_exact(8).filter_map(|part| {
        let part = part.try_into().ok()?;
        Some(u64::from_be_bytes(part))
    });
    Some(SessionToken {
        started: parts.next()?,
        endpoint: EndpointName {
            process: parts.next()?,
            address: parts.next()?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> SessionKey {
        SessionKey::new([number; KEY_BYTES])
    }

    fn tokens(keys: &[u8]) -> Tokens {
        let keys: Vec<SessionKey> = keys.iter().copied().map(key).collect();
        Tokens::new(&keys).unwrap()
    }

    fn token(started: u64) -> SessionToken {
        SessionToken {
            started,
            endpoint: name("w1", "10.0.0.1:6143"),
        }
    }

    fn name(workload: &str, address: &str) -> EndpointName {
        EndpointName::new(
            "orders.shop:80",
            "spiffe://demo.test/ns/shop/sa/orders",
            workload,
            address.parse().unwrap(),
        )
    }

    #[test]
    fn a_token_says_what_was_sealed_and_shows_nothing_of_it() {
        let tokens = tokens(&[1]);
        let (one, two) = (
            tokens.seal(&token(5), [1; 12]).unwrap(),
            tokens.seal(&token(5), [2; 12]).unwrap(),
        );
        assert_eq!(one.len(), TOKEN_LENGTH);
        assert_ne!(one, two, "it does not show that both name one endpoint");
        let bytes = URL_SAFE_NO_PAD.decode(&one).unwrap();
        let process = token(5).endpoint.process.to_be_bytes();
        assert!(!bytes.windows(8).any(|window| window == process));
        for text in [one, two] {
            assert_eq!(tokens.open(text.as_bytes(), None, 5), Ok(token(5)));
        }
    }

    #[test]
    fn a_token_of_another_key_and_one_that_was_changed_are_none() {
        let (own, other) = (tokens(&[1]), tokens(&[2]));
        let text = own.seal(&token(5), [1; 12]).unwrap();
        let unauthentic = Err(TokenFault::Unauthentic);
        assert_eq!(other.open(text.as_bytes(), None, 5), unauthentic);
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(
                own.open(changed.as_bytes(), None, 5),
                unauthentic,
                "byte {at}"
            );
        }
    }

    #[test]
    fn what_has_another_length_or_other_characters_is_no_token() {
        let tokens = tokens(&[1]);
        let text = tokens.seal(&token(5), [1; 12]).unwrap();
        let malformed = Err(TokenFault::Malformed);
        for end in 0..text.len() {
            assert_eq!(tokens.open(&text.as_bytes()[..end], None, 5), malformed);
        }
        let long = vec![b'A'; 1 << 20];
        for bad in [
            text.clone() + "A",
            text.replacen(|_| true, "+", 1),
            text.replacen(|_| true, "\"", 1),
        ] {
            assert_eq!(tokens.open(bad.as_bytes(), None, 5), malformed, "{bad}");
        }
        assert_eq!(tokens.open(&long, None, 5), malformed);
    }

    #[test]
    fn a_session_ends_when_it_has_lasted_as_long_as_it_may_by_any_clock() {
        let tokens = tokens(&[1]);
        let text = tokens.seal(&token(1000), [1; 12]).unwrap();
        let minute = Some(Duration::from_secs(60));
        let at = |timeout, now| tokens.open(text.as_bytes(), timeout, now);
        assert_eq!(at(minute, 1059), Ok(token(1000)));
        assert_eq!(at(minute, 1060), Err(TokenFault::Expired));
        assert_eq!(at(minute, 990), Ok(token(1000)));
        assert_eq!(at(None, u64::MAX), Ok(token(1000)));
    }

    #[test]
    fn while_a_key_is_replaced_tokens_of_both_are_known_and_the_new_one_seals() {
        let (old, both, new) = (tokens(&[1]), tokens(&[2, 1]), tokens(&[2]));
        let of_old = old.seal(&token(5), [1; 12]).unwrap();
        assert_eq!(both.open(of_old.as_bytes(), None, 5), Ok(token(5)));
        let of_both = both.seal(&token(5), [1; 12]).unwrap();
        assert_eq!(new.open(of_both.as_bytes(), None, 5), Ok(token(5)));
        assert!(Tokens::new(&[]).is_none());
    }

    #[test]
    fn names_differ_by_process_and_by_address_each_for_itself() {
        let one = name("w1", "10.0.0.1:6143");
        let restarted = name("w2", "10.0.0.1:6143");
        let moved = name("w1", "10.0.0.2:6143");
        assert!(one.address == restarted.address && one.process != restarted.process);
        assert!(one.process == moved.process && one.address != moved.address);
    }

    #[test]
    fn no_debug_output_shows_a_key() {
        let (key, tokens) = (key(7), tokens(&[7]));
        let shown = format!("{key:?} {tokens:?}");
        assert!(!shown.contains("07"), "{shown}");
        let written = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<SessionKey>(&written).unwrap(), key);
        assert!(serde_json::from_str::<SessionKey>("\"07\"").is_err());
    }
}
