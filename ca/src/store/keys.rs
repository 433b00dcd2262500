//! The keys and encodings of the CA's values in its store: JSON, except for values that are hashed.
//!
//! ```text
//! meta/about                  what the CA is
//! meta/log_head               the hash of the newest entry of the log
//! meta/log_base               the hash of the entry before the oldest one that is kept
//! tokens/<SHA-256>            a token, or what it bought
//! keys/<SHA-256>              whose a public key is
//! log/<number, big-endian>    an entry of the log
//! ```
//! A change here needs a new schema, and code that migrates existing stores (`weft_store`, `redb/old.rs`).

use serde::{Serialize, de::DeserializeOwned};
use weft_store::{Layout, OldKeys, OldTable};

use crate::csr::KeyHash;
use crate::token::TokenHash;

pub(super) const ABOUT: &[u8] = b"meta/about";
pub(super) const LOG_HEAD: &[u8] = b"meta/log_head";
pub(super) const LOG_BASE: &[u8] = b"meta/log_base";
pub(super) const TOKENS: &[u8] = b"tokens/";
pub(super) const KEYS: &[u8] = b"keys/";
pub(super) const LOG: &[u8] = b"log/";

/// The store of a CA.
pub(crate) static LAYOUT: Layout = Layout {
    kind: "ca",
    what: "a CA",
    schema: 2,
    make: "run `weft ca init` first",
    restore: "restore a backup with `weft ca restore`",
    old_meta: b"meta/",
    old: &[
        OldTable {
            name: "tokens",
            keys: OldKeys::Hash,
            prefix: TOKENS,
        },
        OldTable {
            name: "keys",
            keys: OldKeys::Hash,
            prefix: KEYS,
        },
        OldTable {
            name: "log",
            keys: OldKeys::Number,
            prefix: LOG,
        },
    ],
};

pub(super) fn token(hash: TokenHash) -> Vec<u8> {
    [TOKENS, &hash.0].concat()
}

pub(super) fn key(hash: KeyHash) -> Vec<u8> {
    [KEYS, &hash.0].concat()
}

pub(super) fn log(number: u64) -> Vec<u8> {
    [LOG, &number.to_be_bytes()].concat()
}

/// The number of the log entry under this key.
pub(super) fn log_number(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(LOG)?.try_into().ok()?;
    Some(u64::from_be_bytes(number))
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs with string keys serialise")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}
