//! The issuance log. Every certificate, every batch of tokens and every restore has an entry; refusals have
//! one as far as `rates.rs` allows. Each entry carries the hash of the one before it, so a changed or removed
//! entry shows. `store.rs` keeps them.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use weft_transport::hex;

use crate::csr::KeyHash;
use crate::limits::LOG_FIELD_BYTES_MAX;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Position, from 1; without gaps.
    pub number: u64,
    /// When, in seconds since the Unix epoch.
    pub time: u64,
    /// The event.
    pub event: Event,
    /// The proof: `token`, `svid`, `none`, `self` (the CA's own certificate) or `admin`.
    pub by: String,
    /// The identity in question, as far as known.
    pub identity: Option<String>,
    /// Address of the client.
    pub peer: Option<String>,
    /// Hash of the public key.
    pub key: Option<KeyHash>,
    /// Hash of the entry before this one, hex; empty for the first.
    pub previous: String,
}

/// What a log entry records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A new certificate.
    Issued {
        /// Its serial, hex.
        serial: String,
        /// Its end, seconds since the Unix epoch.
        not_after: u64,
    },
    /// The certificate that a token was exchanged for before was sent again.
    Repeated {
        /// Its serial, hex.
        serial: String,
    },
    /// Nothing was issued.
    Refused {
        /// One of the reasons of `weft_ca_refused_total`.
        reason: String,
    },
    /// Join tokens were made.
    TokensCreated {
        /// How many.
        count: u32,
        /// Their end, seconds since the Unix epoch.
        expires: u64,
    },
    /// The CA was restored from a backup.
    Restored {
        /// Tokens of the backup, which are void since.
        tokens: u64,
    },
}

/// A record before it has its place in the chain.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) time: u64,
    pub(crate) event: Event,
    pub(crate) by: &'static str,
    pub(crate) identity: Option<String>,
    pub(crate) peer: Option<String>,
    pub(crate) key: Option<KeyHash>,
}

impl Record {
    /// Appends the record to the entry whose hash is `previous`.
    pub(crate) fn chained(self, number: u64, previous: String) -> LogEntry {
        LogEntry {
            number,
            time: self.time,
            event: self.event,
            by: self.by.to_owned(),
            identity: self.identity.map(bounded),
            peer: self.peer.map(bounded),
            key: self.key,
            previous,
        }
    }
}

/// The hash by which the next entry refers to this one.
pub(crate) fn hash(stored: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, stored).as_ref())
}

fn bounded(mut text: String) -> String {
    let mut end = text.len().min(LOG_FIELD_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
