//! The keys and encodings of the config service's values in its store.
//!
//! ```text
//! meta/store                      the id of the store, as text
//! meta/session-secrets            from which the keys of sessions are made, sealed
//! current/<kind/namespace/name>   a resource as it is, sealed
//! revisions/<number, big-endian>  what a revision changed, sealed
//! ```
//! A value is sealed: the SHA-256 of its JSON, then the JSON, so that a flipped bit is found and not served.
//! A change here needs a new schema, and code that migrates existing stores (`weft_store`, `redb/old.rs`).

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use weft_store::{Change, Layout, OldKeys, OldTable, StoreError};

use crate::resources::Resource;

pub(super) const ID: &[u8] = b"meta/store";
pub(super) const SESSION_SECRETS: &[u8] = b"meta/session-secrets";
pub(super) const CURRENT: &[u8] = b"current/";
pub(super) const REVISIONS: &[u8] = b"revisions/";

/// The store of a config service.
pub(super) static LAYOUT: Layout = Layout {
    kind: "config",
    what: "a config service",
    schema: 2,
    make: "start `weft config serve`, or restore a backup with `weft config restore`",
    restore: "move it away and restore a backup with `weft config restore`",
    old_meta: b"meta/",
    old: &[
        OldTable {
            name: "current",
            keys: OldKeys::Text,
            prefix: CURRENT,
        },
        OldTable {
            name: "revisions",
            keys: OldKeys::Number,
            prefix: REVISIONS,
        },
    ],
};

pub(super) fn resource(resource: &Resource) -> Vec<u8> {
    [CURRENT, resource.key().to_string().as_bytes()].concat()
}

pub(super) fn revision(number: u64) -> Vec<u8> {
    [REVISIONS, &number.to_be_bytes()].concat()
}

/// The number of the revision under this key.
pub(super) fn revision_number(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(REVISIONS)?.try_into().ok()?;
    Some(u64::from_be_bytes(number))
}

pub(super) fn put<T: Serialize>(key: Vec<u8>, value: &T) -> Result<Change, StoreError> {
    Ok(Change::put(key, seal(value)?))
}

pub(super) fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(value);
    let json = json.map_err(|error| StoreError::Invalid(format!("no JSON: {error}")))?;
    let mut sealed = digest(&SHA256, &json).as_ref().to_vec();
    sealed.extend(json);
    Ok(sealed)
}

/// The value, or the fault in it.
pub(super) fn unseal<T: for<'de> Deserialize<'de>>(sealed: &[u8]) -> Result<T, String> {
    let (sum, json) = sealed
        .split_at_checked(SHA256.output_len)
        .ok_or("a record is cut short")?;
    if digest(&SHA256, json).as_ref() != sum {
        return Err("a checksum does not match".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_in_a_record_is_found() {
        let mut sealed = seal(&["a", "b"]).unwrap();
        assert_eq!(unseal::<Vec<String>>(&sealed).unwrap(), ["a", "b"]);
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert!(
            unseal::<Vec<String>>(&sealed)
                .unwrap_err()
                .contains("checksum")
        );
        assert!(
            unseal::<Vec<String>>(b"short")
                .unwrap_err()
                .contains("cut short")
        );
    }
}
